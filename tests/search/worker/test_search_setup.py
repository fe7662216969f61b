"""Messages before a search begins."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch

from data.files import DataError
from data.sources import Split
from search.database import default_storage_url, load_study, study_facts_of
from search.errors import UserError
from search.study import StudySpec, load_spec
from search.worker import RunOptions, open_images, search_setup
from tests.conftest import write_pairs
from tests.search import runs

DNCNN = 'kind = "dncnn"\nlayers = 3\nwidth = { choices = [4, 6] }'
KBNET = 'kind = "kbnet_s"\nwidth = { choices = [4, 8] }\nencoder_blocks = [1]\nmiddle_blocks = 1\ndecoder_blocks = [1]'
ON_LUMINANCE = 'kind = "luminance"\nmodel = { kind = "kbnet_s", width = 4 }'


@pytest.mark.parametrize(
    ("model", "reason", "said"),
    [
        (KBNET, "no C++ compiler found", True),
        (ON_LUMINANCE, "no C++ compiler found", True),
        (KBNET, None, False),
        (DNCNN, "no C++ compiler found", False),
    ],
    ids=["kbnet", "kbnet on luminance", "compiled", "another model"],
)
def test_operator_that_is_not_compiled_is_mentioned_where_it_matters(
    model: str,
    reason: str | None,
    said: bool,
    study_file: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_setup, "why_not_compiled", lambda: reason)
    spec = load_spec(str(study_file((DNCNN, model), ("patch = 8", "patch = 16"))))
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)
    lines = search_setup.prepare_search(spec, options).lines
    line = f"KBNet's operator is not compiled ({reason}): it trains several times slower"
    assert (line in lines) == said


@pytest.mark.parametrize("quiet", [False, True])
def test_compiling_is_announced_and_done_once(
    quiet: bool,
    study_file: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []
    monkeypatch.setattr(search_setup, "is_to_be_built", lambda name: name not in done)
    monkeypatch.setattr(search_setup, "why_not_compiled", lambda: done.append("kernel_basis"))
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=quiet)
    for model, times in ((DNCNN, 0), (KBNET, 1), (KBNET, 1)):
        search_setup.compile_operator(load_spec(str(study_file((DNCNN, model)))), options)
        assert len(done) == times
    assert capsys.readouterr().out.count("compiling KBNet's operator") == (0 if quiet else 1)


def test_wrong_pairs_are_refused_before_anything_is_compiled(
    study_file: Callable[..., Path], out: Path, pairs_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file((DNCNN, KBNET))
    path.write_text(path.read_text().replace(str(pairs_folder), str(pairs_folder / "elsewhere")))
    monkeypatch.setattr(search_setup, "is_to_be_built", lambda name: True)
    monkeypatch.setattr(search_setup, "why_not_compiled", lambda: pytest.fail("compiled"))
    options = RunOptions(default_storage_url(out), out, torch.device("cpu"))
    with pytest.raises(DataError, match="elsewhere"):
        search_setup.compile_operator(load_spec(str(path)), options)


KNOWN = '[[first]]\nname = "by hand"\n"model.width" = 6'


@pytest.fixture
def options(out: Path) -> RunOptions:
    return RunOptions(default_storage_url(out), out, torch.device("cpu"), quiet=True)


def test_known_recipes_are_enqueued_once_with_their_names_and_changes(
    study_file: Callable[..., Path], options: RunOptions
) -> None:
    spec = load_spec(str(study_file(more=KNOWN + '\nrecipe = { precision = "auto" }')))
    for _ in range(2):
        opened = search_setup.prepare_search(spec, options)
    (first,) = opened.study.get_trials()
    assert first.user_attrs == {"label": "by hand", "replaced": {"precision": "auto"}}
    assert first.system_attrs["fixed_params"] == {"model.width": 6}


def test_recipes_of_another_study_come_before_the_known_ones(
    study_file: Callable[..., Path], out: Path, options: RunOptions
) -> None:
    path = study_file(more=KNOWN)
    runs.search(path, out)
    later = load_spec(str(path)).with_changes(name="later")
    opened = search_setup.prepare_search(later, replace(options, warm_start="tiny"))
    labels = [trial.user_attrs["label"] for trial in opened.study.get_trials()]
    assert labels[-1] == "by hand"
    assert labels[:-1]
    assert all(label.startswith("from tiny, trial ") for label in labels[:-1])
    assert opened.lines[2].startswith("carries on from tiny: its trials ")


def test_length_in_steps_needs_no_measuring(study_file: Callable[..., Path], options: RunOptions) -> None:
    spec = load_spec(str(study_file()))
    opened = search_setup.prepare_search(spec, options, measure=lambda *_: pytest.fail("measured"))
    assert opened.spec == spec
    assert not {"rungs", "full_teramacs"} & opened.study.user_attrs.keys()


def test_open_length_is_measured_once_and_kept_with_the_study(
    study_file: Callable[..., Path], options: RunOptions
) -> None:
    measured: list[str] = []

    def measure(spec: StudySpec, split: Split, device: torch.device) -> float:
        measured.append(spec.name)
        return 1e-9

    spec = load_spec(str(study_file(("steps = 8\n", ""), ("rungs = 0", "rungs = 4"))))
    first, again = (search_setup.prepare_search(spec, options, measure) for _ in range(2))
    assert measured == ["tiny"]
    # Half of ten minutes is for the last two thirds of a training.
    assert first.study.user_attrs["full_teramacs"] == pytest.approx(1e-9 * 600 * 0.5 / (2 / 3))
    assert first.spec == again.spec
    assert first.spec.ladder.rungs == first.study.user_attrs["rungs"] == 2


def test_starting_point_that_does_not_exist_is_refused_before_anything_is_measured_or_enqueued(
    study_file: Callable[..., Path], options: RunOptions
) -> None:
    path = study_file(
        ("steps = 8\n", 'initial = { study = "nobody" }\n'), ("rungs = 0", "rungs = 2"), more=KNOWN
    )
    spec = load_spec(str(path))
    with pytest.raises(UserError, match="no study 'nobody'"):
        search_setup.prepare_search(spec, options, measure=lambda *_: pytest.fail("measured"))
    assert not load_study("tiny", options.storage).get_trials()


def test_wrong_pairs_are_refused_before_there_is_a_database(
    study_file: Callable[..., Path], options: RunOptions, pairs_folder: Path
) -> None:
    path = study_file()
    path.write_text(path.read_text().replace(str(pairs_folder), str(pairs_folder / "elsewhere")))
    with pytest.raises(DataError, match="elsewhere"):
        search_setup.prepare_search(load_spec(str(path)), options)
    assert not (options.out / "search.db").exists()


def test_trials_of_a_dead_worker_are_handed_back_and_said_last(
    study_file: Callable[..., Path], options: RunOptions
) -> None:
    spec = load_spec(str(study_file()))
    opened = search_setup.prepare_search(spec, options)
    assert not [line for line in opened.lines if "left behind" in line]
    for _ in range(2):
        opened.study.ask()  # runs, and nobody has written a name on it
    again = search_setup.prepare_search(spec, options)
    assert again.lines[-1] == "going on with trial 0, 1, left behind by a run that died"
    assert [trial.state.name for trial in again.study.get_trials()] == ["WAITING"] * 2


def test_workers_that_join_find_the_study_and_its_pairs(
    study_file: Callable[..., Path], options: RunOptions, split: Split
) -> None:
    spec = load_spec(str(study_file()))
    opened = search_setup.prepare_search(spec, replace(options, command="python -m search run"))
    facts = study_facts_of(opened.study)
    assert StudySpec.model_validate_json(facts.spec or "") == spec
    assert facts.data == split.fingerprint
    assert facts.commands == ["python -m search run"]
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    scores = [-10 * math.log10(float(((p.degraded - p.clean) ** 2).mean())) for p in pairs]
    assert opened.input_psnr_db == pytest.approx(sum(scores) / len(scores), abs=0.01)
    assert opened.lines[1] == f"trials are scored on 3 validation pairs, input {opened.input_psnr_db:.2f} dB"


def test_pairs_that_were_moved_are_the_same_study(tmp_path: Path, options: RunOptions) -> None:
    write_pairs(tmp_path / "before", [f"page-{n}" for n in range(6)], seed=1)
    spec = load_spec("classical").with_data(tmp_path / "before", None, None)
    first = search_setup.prepare_search(spec, options)
    first.study.add_trial(optuna.trial.create_trial(value=20.0))
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(DataError, match=r"before: no such folder; .*--data DIR"):
        search_setup.prepare_search(spec, options)
    moved = search_setup.prepare_search(spec.with_data(tmp_path / "after", None, None), options)
    assert moved.split.fingerprint == first.split.fingerprint
    config = search_setup.any_config(spec)
    assert open_images(moved.study, config, options.out).fingerprint == first.split.fingerprint
    write_pairs(tmp_path / "changed", [f"page-{n}" for n in range(6)], seed=2)
    with pytest.raises(UserError, match=r"another recipe: recipe.data.dir"):
        search_setup.prepare_search(spec.with_data(tmp_path / "changed", None, None), options)


def test_split_that_leaks_is_told_in_the_first_line_and_the_rest_is_scored_beside_it(
    tmp_path: Path, options: RunOptions
) -> None:
    folder = tmp_path / "set"
    write_pairs(folder / "train", [f"page-{n}" for n in range(6)], seed=1)
    write_pairs(folder / "val", [f"new-{n}" for n in range(2)], seed=2)
    for side in ("scan", "clean"):
        (copy,) = (folder / "train" / side).glob("page-0.*")
        shutil.copy(copy, folder / "val" / side / f"copy{copy.suffix}")
    opened = search_setup.prepare_search(load_spec("classical").with_data(folder, None, None), options)
    assert "of 3 validation images 1 are in training as well" in opened.lines[0]
    unseen = [n for n in range(3) if opened.split.val.name(n) != "copy"]
    score = search_setup.input_score(opened.split, unseen).psnr_db
    assert f"({score:.2f} dB on 2 that share nothing with training)" in opened.lines[1]
    assert any("copy as page-0" in line for line in opened.lines[2:])


def test_related_names_are_told_once(tmp_path: Path, options: RunOptions) -> None:
    write_pairs(tmp_path / "set", [f"page-{n}" for n in range(6)], seed=1)
    for side in ("scan", "clean"):
        for path in (tmp_path / "set" / side).iterdir():
            path.rename(path.with_name(f"{path.stem}_{side}{path.suffix}"))
    lines = search_setup.prepare_search(
        load_spec("classical").with_data(tmp_path / "set", None, None), options
    ).lines
    assert [line for line in lines if "_scan" in line] == ["partners found by their names: {}_scan={}_clean"]
