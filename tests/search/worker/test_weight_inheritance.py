"""Trials that begin from the weights of smaller ones: whose, from then on always the same, and never by accident."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file

from data.sources import PairsConfig
from search.__main__ import main
from search.database import best_trial, default_storage_url, facts_of, load_study
from search.launch import run_in_process
from search.study import load_spec
from search.terminal import Progress
from search.trial import TrialConfig
from search.worker import RepeatCallback, RunOptions, StopSignals, inheritance_sentence
from search.worker.confirm import retrain_finalist
from search.worker.weight_inheritance import COPY
from tests.conftest import TINY_STUDY
from tests.search.runs import scores, signal_at

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]
CPU = torch.device("cpu")
SET = "[[first]]\nname = {name!r}\n'model.width' = {width}\n'optimizer.lr' = {lr}\n"
SMALL = "\n".join(
    SET.format(name=name, width=width, lr=lr) for name, width, lr in [("poor", 4, 1e-3), ("good", 4, 1e-2)]
)
ON = ('name = "tiny"', 'name = "tiny"\ninherit_weights = true')
WIDTHS = ("[4, 6]", "[4, 6, 8]")


def search(path: Path, out: Path, **changes: Any) -> None:
    spec = load_spec(str(path)).with_changes(**changes)
    run_in_process(spec, RunOptions(storage=default_storage_url(out), out=out, device=CPU, quiet=True))


@pytest.fixture(scope="module")
def two_trials(pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder in which two small ones have ended, known recipes, and two larger ones wait. Read only."""
    folder = tmp_path_factory.mktemp("two")
    out = folder / "runs"
    search(written(folder, pairs_folder), out, trials=2)
    made = load_study("tiny", default_storage_url(out))
    for width in (6, 8):
        made.enqueue_trial({"model.width": width, "optimizer.lr": 5e-3})
    return out


@pytest.fixture
def path(two_trials: Path, out: Path, tmp_path: Path, pairs_folder: Path) -> Path:
    """The same study in a folder of its own."""
    shutil.copytree(two_trials, out)
    return written(tmp_path, pairs_folder)


def written(folder: Path, pairs: Path) -> Path:
    text = TINY_STUDY.replace(*ON).replace(*WIDTHS)
    path = folder / "tiny.toml"
    path.write_text(f'{text}\n[recipe.data]\nkind = "pairs"\ndir = "{pairs}"\n{SMALL}\n', encoding="utf-8")
    return path


def highest(trial: FrozenTrial) -> float:
    return max(trial.intermediate_values.values())


def test_trial_begins_from_the_best_smaller_one_and_says_so(path: Path, out: Path, trials: Trials) -> None:
    search(path, out, trials=4)
    made = trials()
    best = max(made[:2], key=highest)
    assert [trial.user_attrs["inherited"] for trial in made[:2]] == [{}, {}]
    assert made[2].user_attrs["inherited"]["trials"] == [best.number]
    assert made[2].user_attrs["inherited"]["psnr_db"] == highest(best)
    behind = max(made[:3], key=highest)
    line = [behind.number, *behind.user_attrs["inherited"].get("trials", [])]
    assert made[3].user_attrs["inherited"]["trials"] == line
    assert f"from the weights of trial {line[0]} (" in inheritance_sentence(facts_of(made[3]))
    assert inheritance_sentence(facts_of(made[0])) == ""
    assert not list(out.rglob(COPY))  # nothing is left once they have ended


def test_its_first_step_is_taken_from_those_weights(
    path: Path, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, step=1)
    search(path, out, trials=3)
    donor = load_file(
        out / "tiny" / f"trial-{facts_of(trials()[2]).inherited['trials'][0]:04d}" / "best.safetensors"
    )
    state = torch.load(out / "tiny" / "trial-0002" / "state.pt", weights_only=True)["model"]
    assert all(
        (state[name][tuple(slice(n) for n in value.shape)] - value).abs().max() < 0.02
        for name, value in donor.items()
    )


@pytest.mark.parametrize("copy_stays", [True, False])
def test_interrupted_trial_goes_on_from_the_same_weights_whatever_became_of_the_other(
    copy_stays: bool,
    path: Path,
    two_trials: Path,
    out: Path,
    tmp_path: Path,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(two_trials, tmp_path / "unbroken")
    search(path, tmp_path / "unbroken", trials=3)
    unbroken = load_study("tiny", default_storage_url(tmp_path / "unbroken")).trials[2]
    with monkeypatch.context() as patch:
        signal_at(patch, step=3)
        search(path, out, trials=3)
    folder = out / "tiny" / "trial-0002"
    for weights in out.rglob("best.safetensors"):
        if weights.parent != folder:
            weights.unlink()
    (folder / "state.pt").unlink()  # as if the machine had died before the first
    if not copy_stays:
        (folder / COPY).unlink()
    search(path, out, trials=3)
    again = trials()[2]
    assert again.state == TrialState.COMPLETE
    if copy_stays:
        assert scores(again) == scores(unbroken)
        assert again.user_attrs["inherited"] == unbroken.user_attrs["inherited"]
    else:
        assert again.user_attrs["inherited"] == {}
        assert scores(again) != scores(unbroken)


def test_what_has_begun_keeps_its_way_when_the_setting_changes(
    path: Path, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, step=3)
        search(path, out, trials=3, inherit_weights=False)
    search(path, out, trials=4)
    assert "inherited" not in trials()[2].user_attrs
    assert trials()[3].user_attrs["inherited"]["trials"]


def test_beaten_weights_that_are_gone_are_passed_over(path: Path, out: Path, trials: Trials) -> None:
    best, other = sorted(trials()[:2], key=highest, reverse=True)
    (out / "tiny" / f"trial-{best.number:04d}" / "best.safetensors").unlink()
    search(path, out, trials=3)
    assert trials()[2].user_attrs["inherited"]["trials"] == [other.number]


def test_repeats_of_one_that_inherited_are_from_scratch(
    path: Path, out: Path, tmp_path: Path, trials: Trials, pairs_folder: Path
) -> None:
    search(path, out, trials=3)
    trial = trials()[2]
    assert trial.user_attrs["inherited"]["trials"]
    config = TrialConfig.model_validate_json(trial.user_attrs["config"])
    assert config.initial is None
    split = PairsConfig(dir=pairs_folder).open(seed=0, cache=out)
    with StopSignals(lambda: False) as stop:
        report = RepeatCallback("again", 4, Progress("tiny", 0.0, 1, 0.0, True), stop)
        found = retrain_finalist(trial, 1, 4, split, CPU, tmp_path / "again", report)
    assert found.psnr_db


def test_known_recipe_is_tried_as_it_was(study_file: StudyFile, out: Path, trials: Trials) -> None:
    wide = SET.format(name="wide", width=6, lr=5e-3)
    search(study_file(ON, more=f"{SMALL}\n{wide}"), out, trials=3)
    assert [trial.user_attrs["inherited"] for trial in trials()] == [{}, {}, {}]


def test_ladder_with_inheritance_ends_with_a_winner_that_can_be_exported(
    path: Path, out: Path, trials: Trials, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text(encoding="utf-8").replace("rungs = 0", "rungs = 1, factor = 2")
    path.write_text(text, encoding="utf-8")
    assert main(["run", "--study", str(path), "--out", str(out), "--trials", "4"]) == 0
    said = capsys.readouterr().out
    winner = best_trial(load_study("tiny", default_storage_url(out)))
    assert winner is not None
    inherited = [trial.number for trial in trials() if trial.user_attrs["inherited"]]
    assert inherited == [2, 3]
    assert all(said.count(f"trial {number}: begins from the weights of trial") == 1 for number in inherited)
    assert main(["export-best", "--study", "tiny", "--out", str(out), "--format", "safetensors"]) == 0
    card = (out / "tiny" / "export" / "README.md").read_text(encoding="utf-8")
    assert inheritance_sentence(facts_of(winner)) in card
    assert ("It began" in card) == (winner.number in inherited)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (
            ("[recipe]", '[recipe]\ninitial = { study = "other" }'),
            "inherit_weights: recipe.initial names the weights to start from; leave out one of the two",
        ),
        (
            ("width = { choices = [4, 6] }", "width = 4"),
            "inherit_weights: no model of this study is a smaller one with more width or more blocks; leave it out",
        ),
    ],
)
def test_study_in_which_nothing_can_be_inherited_is_refused_in_a_line(
    replacement: tuple[str, str],
    message: str,
    study_file: StudyFile,
    out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = study_file(ON, replacement)
    assert main(["run", "--study", str(path), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"search run: {path}: {message}\n"
    assert not out.exists()
