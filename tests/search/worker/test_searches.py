"""Whole tiny studies: records and files of each trial, for every way in which it can end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file
from torch import Tensor, nn

from data.files.images import read_image
from models import DnCNNConfig, count_macs
from search.__main__ import main
from search.database import default_storage_url, open_database
from search.errors import UserError
from search.study import SpaceError
from search.trial import TrialConfig
from search.trial.losses.pixel import L1Config
from search.worker import run_trial
from search.worker.callback import TrialCallback
from tests.search.runs import DSD, FIXED, ROOT, scores, search

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]


def test_complete_trial_leaves_everything_in_the_database(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    outcome = search(study_file(), out)
    first, second = trials()
    assert [first.state, second.state] == [TrialState.COMPLETE] * 2
    assert outcome.best_psnr_db == max(first.value or 0, second.value or 0)
    assert not outcome.stopped
    for trial in (first, second):
        facts = trial.user_attrs
        config = TrialConfig.model_validate_json(facts["config"])
        assert isinstance(config.model, DnCNNConfig)
        assert (config.model.width, config.optimizer.lr) == (
            trial.params["model.width"],
            trial.params["optimizer.lr"],
        )
        assert config.model.channels == 1
        width = config.model.width
        assert facts["parameters"] == 9 * (2 * width + width**2) + 2 * width + 1
        assert facts["gmacs_at_256"] == pytest.approx(count_macs(config.model.build(), 1, 256, 256) / 1e9)
        assert (facts["steps"], facts["steps_done"], facts["ended"]) == (8, 8, "finished")
        assert facts["psnr_db"] == trial.value
        assert 0 < facts["mae"] < 1
        assert -1 <= facts["ssim"] <= 1
        assert 0 < facts["seconds"] < 60
        assert facts["peak_memory_mb"] > 1
        assert facts["seed"] == config.seed
        assert len(facts["data"]) == 16
        assert json.loads(facts["versions"]).keys() >= {"python", "torch", "optuna"}
        assert facts["device"].startswith("cpu")
        rungs = json.loads(facts["rungs"])
        assert [rung["step"] for rung in rungs] == [2, 4, 6, 8]
        assert {"psnr_db", "ssim", "mae", "seconds"} < rungs[0].keys()
        assert trial.intermediate_values == {
            percent: rung["psnr_db"] for percent, rung in zip((25, 50, 75, 100), rungs, strict=True)
        }
    assert first.user_attrs["seed"] != second.user_attrs["seed"]


def test_sample_strip_is_an_artifact_of_the_trial_and_a_readable_picture(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(), out, trials=1)
    database = open_database(default_storage_url(out), create=False)
    (meta,) = get_all_artifact_meta(trials()[0], storage=database)
    assert meta.mimetype == "image/png"
    artifact = out / "artifacts" / meta.artifact_id
    assert artifact.read_bytes() == (out / "tiny" / "trial-0000" / "sample.png").read_bytes()
    picture = read_image(out / "tiny" / "trial-0000" / "sample.png")
    assert picture.shape[2] == 3
    assert picture.shape[0] > 3 * 17  # three crops, one below the other
    assert picture.shape[1] > 4 * 23  # degraded, restored, clean, error
    assert picture.std() > 0


def test_scores_in_the_sparse_phase_are_kept_but_not_reported(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(("evaluations = 4", "evaluations = 8"), more=DSD), out, trials=1)
    (trial,) = trials()
    assert [score[0] for score in scores(trial)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert set(trial.intermediate_values) == {12, 25, 38, 50, 88, 100}  # not 62 and 75: steps 5 and 6 of 8


def test_rungs_closer_than_a_percent_are_kept_and_reported_once(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    search(study_file(("steps = 8", "steps = 130"), ("evaluations = 4", "evaluations = 130")), out, trials=1)
    assert len(scores(trials()[0])) == 130
    assert list(trials()[0].intermediate_values) == list(range(1, 101))


def test_diverging_recipe_ends_as_pruned_with_the_reason(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
            return (restored - clean).mean() * float("nan")

    monkeypatch.setattr(L1Config, "build", lambda self: Broken())
    search(study_file(), out)
    assert [trial.state for trial in trials()] == [TrialState.PRUNED] * 2
    assert trials()[0].user_attrs["ended"].startswith("diverged at step 1 (loss nan")
    assert trials()[0].user_attrs["steps_done"] == 0


def test_out_of_memory_ends_as_pruned_with_the_reason(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore words")

    monkeypatch.setattr(run_trial, "train", full)
    search(study_file(), out, trials=1)
    assert trials()[0].state == TrialState.PRUNED
    assert trials()[0].user_attrs["ended"] == "out of memory: CUDA out of memory. Tried to allocate 2 GiB."


def test_same_bug_three_times_in_a_row_stops_the_search_and_keeps_the_traceback(
    study_file: StudyFile,
    out: Path,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def buggy(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(run_trial, "train", buggy)
    path = study_file()
    assert main(["run", "--study", str(path), "--out", str(out), "--trials", "9", "--quiet"]) == 2
    assert [trial.state for trial in trials()] == [TrialState.FAIL] * 3
    assert trials()[0].user_attrs["ended"] == "RuntimeError: shapes do not fit"
    assert 'raise RuntimeError("shapes do not fit")' in trials()[0].user_attrs["traceback"]
    first, second = capsys.readouterr().err.splitlines()
    assert "3 trials in a row failed the same way: RuntimeError: shapes do not fit" in first
    assert "traceback is with trial 2" in second


def test_bug_in_between_does_not_stop_the_search(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def sometimes(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) != 3:
            raise RuntimeError("shapes do not fit")
        return train(*arguments)

    train = run_trial.train
    monkeypatch.setattr(run_trial, "train", sometimes)
    search(study_file(), out, trials=5)
    states = [trial.state.name for trial in trials()]
    assert states == ["FAIL", "FAIL", "COMPLETE", "FAIL", "FAIL"]


def test_recipe_that_turns_out_impossible_ends_its_trial_and_is_said(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impossible(*_: object) -> None:
        raise SpaceError("recipe.model: width 5 does not work")

    monkeypatch.setattr(run_trial, "draw_config", impossible)
    with pytest.raises(UserError, match="width 5 does not work"):
        search(study_file(), out)
    assert [trial.state for trial in trials()] == [TrialState.FAIL]


def test_known_recipes_are_tried_first_under_their_names(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    known = '[[first]]\nname = "by hand, {n}"\n"model.width" = {n}\n"optimizer.lr" = 0.00{n}\n'
    search(study_file(more=known.format(n=6) + known.format(n=4)), out, trials=3)
    assert [trial.user_attrs.get("label") for trial in trials()] == ["by hand, 6", "by hand, 4", None]
    assert [trial.params["model.width"] for trial in trials()[:2]] == [6, 4]
    assert [trial.params["optimizer.lr"] for trial in trials()[:2]] == [0.006, 0.004]


def test_known_recipe_may_be_trained_outside_the_space(
    study_file: StudyFile, out: Path, trials: Trials
) -> None:
    known = '[[first]]\nname = "as it was"\n[first.recipe.model]\nwidth = 9\nlayers = 4'
    search(study_file(more=known), out, trials=1)
    config = TrialConfig.model_validate_json(trials()[0].user_attrs["config"])
    assert (config.model.width, config.model.kind) == (9, "dncnn")
    assert config.model.layers == 4  # type: ignore[union-attr]


def test_filters_are_scored_without_steps(study_file: StudyFile, out: Path, trials: Trials) -> None:
    path = study_file(
        ("steps = 8", "steps = 0"),
        ('kind = "dncnn"\nlayers = 3\nwidth = { choices = [4, 6] }', 'kind = "classical"'),
        ("lr = { low = 1e-3, high = 1e-2, log = true }", ""),
        more="[recipe.model.filter]\nkind = 'gaussian'\nsigma = { low = 0.5, high = 1.5, step = 0.5 }",
    )
    search(path, out, trials=3, sampler="neighbours")
    for trial in trials():
        facts = trial.user_attrs
        assert (trial.state, facts["ended"]) == (TrialState.COMPLETE, "finished")
        assert (facts["steps"], facts["steps_done"], facts["parameters"], facts["rungs"]) == (0, 0, 0, "[]")
        assert (out / "tiny" / f"trial-{trial.number:04d}" / "sample.png").exists()
    assert sorted(trial.params["model.filter.sigma"] for trial in trials()) == [0.5, 1.0, 1.5]


def test_same_command_again_only_does_what_is_left(study_file: StudyFile, out: Path, trials: Trials) -> None:
    path = study_file()
    command = ["run", "--study", str(path), "--out", str(out), "--quiet"]
    assert main([*command, "--trials", "1"]) == 0
    (first,) = trials()
    assert main(command) == 0
    assert [trial.number for trial in trials()] == [0, 1]
    assert main(command) == 0
    assert len(trials()) == 2
    assert trials()[0].user_attrs == first.user_attrs


def test_quiet_prints_nothing(study_file: StudyFile, out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--study", str(study_file()), "--out", str(out), "--quiet"]) == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_plain_output_has_a_line_per_trial_and_says_what_comes_next(
    study_file: StudyFile, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--study", str(study_file()), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny: 5 train")
    assert lines[1].startswith("trials are scored on 3 validation pairs, input 14.88 dB")
    assert lines[2].startswith("check: very small images: 8 of 8 pairs")
    assert lines[3].startswith("check: few pairs: 8 pairs in all")
    assert [line.split(":")[0] for line in lines[4:6]] == ["trial 0", "trial 1"]
    assert lines[6].startswith("best: trial ")
    assert "over the input" in lines[6]
    assert "export-best --study tiny" in lines[7]
    assert not any("\x1b" in line for line in lines)


def test_time_of_a_run_ends_it_between_trials(study_file: StudyFile, out: Path, trials: Trials) -> None:
    search(study_file(), out, trials=1000, timeout=1.5)
    assert 1 <= len(trials()) < 100
    assert all(trial.state.is_finished() for trial in trials())


def test_trial_that_takes_too_long_ends_with_its_last_rung(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([1.0, 1.0, 1.0, 1.0, 1.0, 99.0])
    monkeypatch.setattr(TrialCallback, "seconds", lambda self: next(seconds, 99.0))
    search(study_file(), out, trials=1, trial_timeout=10.0)
    (trial,) = trials()
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["ended"] == "out of time at step 6 of 8 (0:10)"
    assert trial.intermediate_values.keys() == {25, 50}
    assert trial.value == trial.intermediate_values[50]


def test_only_the_weights_of_the_best_trials_stay(study_file: StudyFile, out: Path, trials: Trials) -> None:
    search(study_file(), out, trials=5, keep=2)
    best = sorted(trials(), key=lambda trial: -(trial.value or 0))[:2]
    kept = {path.parent.name for path in (out / "tiny").glob("*/best.safetensors")}
    assert kept == {f"trial-{trial.number:04d}" for trial in best}
    assert len(list((out / "tiny").glob("*/sample.png"))) == 5


def test_rescue_is_written_down_with_the_trial(
    study_file: StudyFile, out: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = nn.L1Loss.forward, iter([False] * 3 + [True])

    def poisoned(self: nn.L1Loss, restored: Tensor, clean: Tensor) -> Tensor:
        return forward(self, restored, clean) * (float("nan") if next(calls, False) else 1.0)

    monkeypatch.setattr(nn.L1Loss, "forward", poisoned)
    search(study_file(), out, trials=1)
    (trial,) = trials()
    assert trial.state == TrialState.COMPLETE
    (note,) = trial.user_attrs["rescues"]
    assert note.startswith("diverged at step 4 (loss nan")
    assert [rung["step"] for rung in json.loads(trial.user_attrs["rungs"])] == [2, 4, 6, 8]


LIMITED = """
import sys
from pathlib import Path

import search.launch
import torch
from search.__main__ import main
from search.inference import limit_memory
from search.launch import in_process


def limit_growth(size):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit_memory(int(status["VmData"].split()[0]) * 1024 + size)


torch.set_num_threads(1)
in_process.limit_memory = limit_growth  # what torch itself holds differs between machines
search.launch.run_with_workers = lambda spec, options, devices: in_process.run_in_process(spec, options)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_limited_memory_is_kept_by_going_in_parts(
    study_file: StudyFile, out: Path, trials: Trials, tmp_path: Path
) -> None:
    """A real allocator that fails: 48 crops of 96 pixels with 32 channels and more need half a gigabyte."""
    path = study_file(("batch = 2, patch = 8", "batch = 48, patch = 96"), ("{ choices = [4, 6] }", "32"))
    flags = [
        "run",
        "--study",
        str(path),
        "--trials",
        "1",
        "--out",
        str(out),
        "--memory",
        "300M",
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (trial,) = trials()
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["rescues"][0] == "out of memory at step 0: batches of 48 in 2 parts from here"


def test_study_starts_from_the_best_weights_of_another(
    study_file: StudyFile, out: Path, tmp_path: Path
) -> None:
    path = study_file(*FIXED)
    search(path, out, trials=1)
    best = load_file(out / "tiny" / "trial-0000" / "best.safetensors")
    text = path.read_text(encoding="utf-8")
    later = text.replace('name = "tiny"', 'name = "later"').replace("steps = 8", "steps = 0")
    (tmp_path / "later.toml").write_text(
        later.replace("[recipe]", '[recipe]\ninitial = { study = "tiny" }'), encoding="utf-8"
    )
    search(tmp_path / "later.toml", out, trials=1)
    found = load_file(out / "later" / "trial-0000" / "best.safetensors")
    assert all(torch.equal(found[name], best[name]) for name in best)


def test_study_that_is_to_start_from_one_without_a_finished_trial_is_refused(
    study_file: StudyFile, out: Path
) -> None:
    path = study_file(("[recipe]", '[recipe]\ninitial = { study = "nothing" }'))
    with pytest.raises(UserError, match="no study 'nothing'"):
        search(path, out)
