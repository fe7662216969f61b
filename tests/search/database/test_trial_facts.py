"""The schema of trials and studies in the database: read back as written, and as earlier versions wrote them."""

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial

from models import DnCNNConfig
from search.database import (
    Study,
    StudyFacts,
    TrialFacts,
    as_stored,
    default_storage_url,
    facts_of,
    read_records,
    record_study,
    studies,
    study_facts_of,
)
from search.database.trial_facts import RungScore, fact_names
from search.inference import Score
from search.study import StudySpec
from search.trial import TrialConfig

EARLIER = Path(__file__).parents[2] / "golden" / "search.sql"
"""Two studies, `tiny` and `later`, that commit b2cf080 searched, as the dump of their SQLite database."""
JSON_TEXTS = {"config", "rungs", "versions", "recipe", "one_change"}
FILLED: dict[str, Any] = {
    "label": "by hand",
    "replaced": {"precision": "fp32"},
    "retry_of": 3,
    "number": 4,
    "goal": 25,
    "length": [16, [[4, 0.5], [10, 1.0]]],
    "steps": 16,
    "steps_done": 4,
    "seconds": 2.5,
    "seconds_per_step": 0.25,
    "rescues": ["out of memory at step 0"],
    "ended": "finished",
    "traceback": "Traceback ...",
    "seed": 7,
    "data": "0123456789abcdef",
    "device": "cpu (2 threads)",
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "inherited": {"trials": [2, 1], "psnr_db": 20.0, "sha256": "ab"},
    "parameters": 225,
    "gmacs_at_256": 0.25,
    "ms_per_megapixel": 300.0,
    "mb_per_megapixel": 30.5,
    "peak_memory_mb": 400.0,
    "psnr_db": 25.0,
    "ssim": 0.8,
    "mae": 0.04,
    "owner": {"worker": "w", "name": "host:1"},
    "beat": {"count": 1, "at": 0.0, "step": 2, "steps": 16},
    "deaths": [{"how": "SIGKILL", "rung": 25}],
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an earlier version."""
    path = tmp_path_factory.mktemp("earlier") / "search.db"
    with sqlite3.connect(path) as database:
        database.executescript(EARLIER.read_text("utf-8"))
    database.close()
    return path


@pytest.fixture
def study(out: Path) -> Study:
    database = studies.open_database(default_storage_url(out), create=True)
    return studies.optuna.create_study(study_name="tiny", storage=database, direction="maximize")


def raw(path: Path, kind: str, order: str) -> dict[str, dict[str, Any]]:
    """Attributes as they stand in the tables, JSON texts decoded: by the id of trial or study, then by name."""
    found: dict[str, dict[str, Any]] = {}
    with sqlite3.connect(path) as database:
        for row, name, text in database.execute(
            f"select {order}, key, value_json from {kind}_user_attributes"
        ):
            value = json.loads(text)
            found.setdefault(row, {})[name] = json.loads(value) if name in JSON_TEXTS else value
    database.close()
    return found


def test_every_fact_is_read_back_from_a_database_as_it_was_written(study: Study) -> None:
    config = TrialConfig.model_validate(
        {
            "model": DnCNNConfig(channels=1, layers=3, width=4),
            "steps": 16,
            "data": {"kind": "pairs", "dir": "pairs"},
        }
    )
    scores = [Score(4, 20.0, 0.7, 0.1, 1.5), Score(8, 21.0, 0.75, 0.09, 2.5)]
    studies.record_facts(study.ask(), **FILLED, config=config, rungs=scores)
    facts = facts_of(study.get_trials()[0])
    assert facts.stored.keys() == fact_names(TrialFacts).keys()
    assert {name: getattr(facts, name) for name in FILLED} == FILLED
    assert TrialConfig.model_validate(facts.config) == config
    assert facts.rungs == (RungScore(4, 20.0, 0.7, 0.1, 1.5), RungScore(8, 21.0, 0.75, 0.09, 2.5))


def test_json_texts_are_stored_as_texts() -> None:
    stored = as_stored(rungs=[Score(4, 20.0, 0.7, 0.1, 1.5)], versions={"torch": "2.13.0"}, steps=8)
    assert stored == {
        "rungs": '[{"step": 4, "psnr_db": 20.0, "ssim": 0.7, "mae": 0.1, "seconds": 1.5}]',
        "versions": '{"torch": "2.13.0"}',
        "steps": 8,
    }


def test_database_of_an_earlier_version_reads_as_its_tables_say(earlier: Path) -> None:
    tables = raw(earlier, "trial", "trial_id")
    read = 0
    for name in ("tiny", "later"):
        for trial in studies.load_study(name, f"sqlite:///{earlier}").get_trials():
            table, facts = tables.get(trial._trial_id, {}), facts_of(trial)
            assert table.keys() <= fact_names(TrialFacts).keys()
            for key in table.keys() - {"rungs"}:
                assert getattr(facts, key) == table[key], key
            expected = [
                (score["step"], score["psnr_db"], score["seconds"]) for score in table.get("rungs", [])
            ]
            assert [(score.step, score.psnr_db, score.seconds) for score in facts.rungs] == expected
            read += len(table)
    assert read == sum(map(len, tables.values())) > 100


def test_study_of_an_earlier_version_reads_as_its_tables_say(earlier: Path) -> None:
    tables = raw(earlier, "study", "study_id")
    for name in ("tiny", "later"):
        opened = studies.load_study(name, f"sqlite:///{earlier}")
        facts, table = study_facts_of(opened), tables[opened._study_id]
        named = {key for key in table if not key.startswith("confirmed.")}
        names = {fact.key: name for name, fact in fact_names(StudyFacts).items()}
        assert named <= names.keys()
        assert {key: getattr(facts, names[key]) for key in named} == {key: table[key] for key in named}
        assert StudySpec.model_validate_json(facts.spec or "").name == name
    assert list(facts.warm_start) == ["tiny"]


def test_records_of_an_earlier_version_are_whole(earlier: Path) -> None:
    found = read_records(studies.load_study("tiny", f"sqlite:///{earlier}"))
    first, refused, best, _ = found
    assert [record.state for record in found] == ["pruned", "pruned", "complete", "complete"]
    assert (first.label, first.replaced, first.ended) == (
        "by hand",
        {"precision": "fp32"},
        "beaten at 50 %: 16.80 dB",
    )
    assert refused.ended == "over the limits: 445 parameters (limit 400)"
    assert (best.steps, best.steps_done, best.parameters, best.settings["model.width"]) == (8, 8, 225, 4)
    assert [rung.percent for rung in best.rungs] == [25, 50, 75, 100]
    assert best.psnr_db == pytest.approx(25.062314)
    assert best.config["model"]["layers"] == 3


def test_of_a_trial_without_attributes_nothing_is_known() -> None:
    facts = TrialFacts()
    assert (facts.goal, facts.label, facts.parameters, facts.inherited) == (None,) * 4
    assert (facts.steps, facts.steps_done, facts.seconds, facts.ended) == (0, 0, 0.0, "")
    assert (facts.rungs, facts.config, facts.owner, facts.replaced) == ((), {}, {}, {})


def test_attributes_of_others_are_ignored_and_kept(study: Study) -> None:
    study.add_trial(create_trial(value=20.0, user_attrs={"steps": 8, "somebody": "else's"}))
    (trial,) = study.get_trials()
    assert facts_of(trial).steps == 8
    assert trial.user_attrs["somebody"] == "else's"


def test_score_that_knows_no_similarity_is_read() -> None:
    (score,) = TrialFacts({"rungs": '[{"step": 4, "psnr_db": 20.0}]'}).rungs
    assert (score.step, score.psnr_db, math.isnan(score.ssim)) == (4, 20.0, True)


@pytest.mark.parametrize("write", [as_stored, lambda **facts: record_study(None, **facts)])
def test_fact_that_is_not_in_the_schema_is_refused(write: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=r"no such facts: \['step_done'\]"):
        write(step_done=4)


def test_facts_cannot_be_set_on_what_was_read() -> None:
    facts = TrialFacts({"steps": 8})
    with pytest.raises(AttributeError):
        facts.steps = 9  # type: ignore[assignment]
