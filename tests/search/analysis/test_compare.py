"""Comparisons of tiny studies: who gets how much time, how winners are judged, and every refusal."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import optuna
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio

from data.files import to_tensor, write_png
from search.__main__ import main
from search.analysis import compare
from search.database import TrialState, default_storage_url, load_study, open_study
from search.errors import UserError
from search.launch import SearchOutcome
from search.study import load_spec
from search.worker import load_best
from tests.conftest import TINY_STUDY, write_pairs
from tests.search.runs import signal_at

Files = Callable[..., str]
Compare = Callable[..., int]
Refused = Callable[..., str]
VAL = ("page-5", "page-6", "page-7")


@pytest.fixture
def files(study_file: Callable[..., Path]) -> Files:
    """Study files of these names, as --studies wants them, of one trial each."""

    def write(*names: str) -> str:
        one = ("trials = 2", "trials = 1")
        return ",".join(str(study_file(one, name=name)) for name in names)

    return write


@pytest.fixture(scope="module")
def finished(pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ after a comparison of `one` and `two`, and their study files."""
    folder = tmp_path_factory.mktemp("compared")
    for name, widths in (("one", "[4, 6]"), ("two", "[8, 12]")):
        text = TINY_STUDY.replace('"tiny"', f'"{name}"').replace("[4, 6]", widths)
        (folder / f"{name}.toml").write_text(
            f'{text}\n[recipe.data]\nkind = "pairs"\ndir = "{pairs_folder}"\n'
        )
    arguments = [
        "compare",
        "--studies",
        f"{folder}/one.toml,{folder}/two.toml",
        "--out",
        str(folder / "runs"),
    ]
    assert main([*arguments, "--quiet"]) == 0
    return folder


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Compare:
    """Compares `one` and `two` as they are, in a copy that may be spoilt."""
    shutil.copytree(finished / "runs", tmp_path / "runs")

    def compare_them(*arguments: object, studies: str = "one,two") -> int:
        named = ",".join(f"{finished}/{name}.toml" for name in studies.split(","))
        out = str(tmp_path / "runs")
        return main(["compare", "--studies", named, "--out", out, "--budget", "0", *map(str, arguments)])

    return compare_them


@pytest.fixture
def unseen_pairs(tmp_path: Path) -> Path:
    """Four pairs that no split has."""
    write_pairs(tmp_path / "test", [f"leaf-{n}" for n in range(4)], seed=9)
    return tmp_path / "test"


@pytest.fixture
def refused(again: Compare, capfd: pytest.CaptureFixture[str]) -> Refused:
    """What a comparison that must not start says, in one or two lines."""

    def run_it(*arguments: object, studies: str = "one,two") -> str:
        assert again(*arguments, studies=studies) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert 1 <= len(captured.err.splitlines()) <= 2
        assert captured.err.startswith("search compare: ")
        return captured.err.removeprefix("search compare: ").strip()

    return run_it


@pytest.fixture
def timeouts(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The time that each run was given; nothing is run."""
    given: dict[str, float] = {}

    def noted(spec: Any, options: Any) -> Any:
        given[spec.name] = spec.timeout
        return SearchOutcome(None, float("nan"), 20.0, stopped=False)

    monkeypatch.setattr(compare, "run_in_process", noted)
    return given


def ranking(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "ranking.csv").open(newline="") as file:
        return {row["study"]: row for row in csv.DictReader(file)}


def pixels(path: Path) -> NDArray[np.float64]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image.astype(np.float64)


# Judging.


def test_winners_are_judged_as_by_hand(finished: Path, pairs_folder: Path) -> None:
    out = finished / "runs"
    rows = ranking(out / "compare")
    assert rows.keys() == {"one", "two", "unchanged"}
    assert float(rows["one"]["psnr_db"]) != float(rows["two"]["psnr_db"])
    for name, row in rows.items():
        psnr, squares, distances = [], [], []
        for page in VAL:
            clean = pixels(pairs_folder / "val/clean" / f"{page}.png")
            restored = pixels(pairs_folder / "val/scan" / f"{page}.png")
            if name != "unchanged":
                study = load_study(name, default_storage_url(out))
                model = load_best(study, out).model
                with torch.inference_mode():
                    image = model(torch.tensor(restored / 255, dtype=torch.float32)[None, None])[0, 0]
                restored = np.rint(image.numpy().clip(0, 1).astype(np.float64) * 255)
            psnr.append(peak_signal_noise_ratio(clean, restored, data_range=255))
            squares.append(np.mean((clean - restored) ** 2))
            distances.append(np.mean(np.abs(clean - restored)))
        assert float(row["psnr_db"]) == pytest.approx(np.mean(psnr), abs=1e-3)
        assert float(row["rmse_255"]) == pytest.approx(np.sqrt(np.mean(squares)), abs=1e-3)
        assert float(row["mae_255"]) == pytest.approx(np.mean(distances), abs=1e-3)
        assert float(row["mae_times_765"]) == pytest.approx(3 * np.mean(distances), abs=3e-3)


def test_costs_are_those_of_the_winner(finished: Path) -> None:
    out = finished / "runs"
    for name, row in ranking(out / "compare").items():
        if name == "unchanged":
            continue
        study = load_study(name, default_storage_url(out))
        best = max(study.trials, key=lambda trial: trial.value or 0)
        assert row["trial"] == str(best.number)
        assert row["parameters"] == str(best.user_attrs["parameters"])
        assert float(row["gmacs_at_256"]) == pytest.approx(best.user_attrs["gmacs_at_256"], abs=1e-4)
        assert float(row["training_seconds"]) == pytest.approx(
            sum(trial.user_attrs["seconds"] for trial in study.trials), abs=1e-3
        )
        assert row["trials"] == "2"
        assert float(row["ms_per_megapixel"]) > 0


def test_report_is_complete_on_the_terminal_and_on_disk(
    again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert again("--to", tmp_path / "report", "--groups", "page-(.)") == 0
    text = capfd.readouterr().out
    for row in ranking(tmp_path / "report").values():
        assert f"{float(row['psnr_db']):.2f} [" in text
    assert "paired bootstrap over 3 images" in text
    assert "training times were not made equal" in text
    assert f"written: {tmp_path}/report/ranking.csv, ranking.md, ranking.png" in text
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "ranking.csv",
        "ranking.md",
        "ranking.png",
    }
    assert "these images chose the winners" in (tmp_path / "report" / "ranking.md").read_text()


def test_groups_reach_the_intervals(
    again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "groups.csv").write_text("name,group\npage-5.png,a\npage-6.png,a\npage-7.png,b\n")
    assert again("--groups", tmp_path / "groups.csv", "--to", tmp_path / "grouped") == 0
    assert "2 groups (3 images) are too few" in capfd.readouterr().out
    assert again("--groups", "(page)", "--to", tmp_path / "one group") == 0
    assert ranking(tmp_path / "grouped")["one"]["psnr_db_low"] != ""
    assert ranking(tmp_path / "one group")["one"]["psnr_db_low"] == ""


def test_quiet_prints_nothing_and_writes_all(
    again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "runs" / "compare")
    assert again("--quiet") == 0
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "runs" / "compare" / "ranking.png").exists()


# Test images.


def test_other_images_can_judge(
    again: Compare, unseen_pairs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert again("--test", unseen_pairs, "--to", tmp_path / "tested") == 0
    text = capfd.readouterr().out
    expected = [
        peak_signal_noise_ratio(pixels(unseen_pairs / "clean" / path.name), pixels(path), data_range=255)
        for path in (unseen_pairs / "scan").iterdir()
    ]
    assert float(ranking(tmp_path / "tested")["unchanged"]["psnr_db"]) == pytest.approx(
        np.mean(expected), abs=1e-3
    )
    assert (
        (tmp_path / "tested" / "ranking.md")
        .read_text()
        .startswith(f"# 4 test images of {unseen_pairs.name}\n")
    )
    assert "these images chose the winners" not in text


@pytest.mark.parametrize(("part", "page"), [("train", "page-2"), ("val", "page-6")])
@pytest.mark.parametrize(("seen", "side"), [("clean", "clean"), ("scan", "clean"), ("scan", "scan")])
def test_images_that_training_or_validation_has_are_refused(
    part: str,
    page: str,
    seen: str,
    side: str,
    refused: Refused,
    unseen_pairs: Path,
    pairs_folder: Path,
) -> None:
    shutil.copy(pairs_folder / part / seen / f"{page}.png", unseen_pairs / side / "leaf-1.png")
    first, second = refused("--test", unseen_pairs).splitlines()
    assert first == (
        f"--test {unseen_pairs}: 1 of 4 images have the pixels of training or validation images: "
        f"leaf-1 (as {part} {page})"
    )
    assert second.startswith("--force ")


def test_images_that_training_has_can_judge_by_force(again: Compare, pairs_folder: Path) -> None:
    assert again("--test", pairs_folder / "train", "--force", "--quiet") == 0


def test_many_images_that_training_has_are_named_in_part(refused: Refused, pairs_folder: Path) -> None:
    message = refused("--test", pairs_folder / "train")
    assert "5 of 5 images" in message
    assert (
        "page-0 (as train page-0), page-1 (as train page-1), page-2 (as train page-2) and 2 more" in message
    )


def test_colour_images_cannot_judge_restorers_of_gray_ones(refused: Refused, tmp_path: Path) -> None:
    write_pairs(tmp_path / "colour", ["a", "b"], seed=3, channels=3)
    assert refused("--test", tmp_path / "colour") == (
        f"--test {tmp_path}/colour: the images are colour, those of training are gray"
    )


def test_test_folder_without_pairs_is_refused(refused: Refused, tmp_path: Path, pairs_folder: Path) -> None:
    assert refused("--test", tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such folder"
    assert "no folder named scan, " in refused("--test", pairs_folder)


# Time.


DONE, PRUNED, FAILED, WAITING, RUNNING = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAIL,
    TrialState.WAITING,
    TrialState.RUNNING,
)


@pytest.mark.parametrize(
    ("trials", "budget", "left"),
    [
        ([], 100, 100),
        ([(DONE, 30), (PRUNED, 10), (FAILED, 5)], 100, 55),
        ([(DONE, 2)] * 47, 100, 6),
        ([(DONE, 2)] * 48, 100, 0),  # 4 %
        ([(DONE, 30), (DONE, 20), (PRUNED, 20)], 100, 30),
        ([(DONE, 30), (DONE, 50)], 100, 0),  # what is left is less than the median trial
        ([(DONE, 30)], 20, 0),
        ([(DONE, 30), (WAITING, 60)], 100, 10),  # was interrupted, and goes on
        ([(DONE, 90), (WAITING, 9.5)], 100, 1),
        ([(DONE, 90), (RUNNING, None)], 50, 1),  # its process may have died
        ([(DONE, 99), (WAITING, None)], 100, 0),  # never begun
    ],
)
def test_time_left_of_a_budget(
    trials: list[tuple[TrialState, float | None]], budget: float, left: float
) -> None:
    study = optuna.create_study(direction="maximize")
    for state, seconds in trials:
        attributes = {} if seconds is None else {"seconds": seconds}
        trial = optuna.trial.create_trial(
            state=state, value=1.0 if state == DONE else None, user_attrs=attributes
        )
        trial.datetime_start = None if state == WAITING and seconds is None else datetime.now()
        study.add_trial(trial)
    assert compare._seconds_left(study, budget) == left


def test_time_spent_before_counts_against_the_budget(
    again: Compare, timeouts: dict[str, float], trials: Callable[..., Any]
) -> None:
    assert again("--budget", "10m") == 0
    spent = {name: sum(t.user_attrs["seconds"] for t in trials(name)) for name in ("one", "two")}
    assert timeouts == {name: pytest.approx(600 - seconds) for name, seconds in spent.items()}


def test_study_that_has_had_its_time_is_not_run(again: Compare, timeouts: dict[str, float]) -> None:
    assert again("--budget", "0.01s") == 0
    assert timeouts == {}


def test_budget_that_was_exceeded_is_told(again: Compare, capfd: pytest.CaptureFixture[str]) -> None:
    assert again("--budget", "0.01s") == 0
    assert "had more than the budget of 0:00: " in capfd.readouterr().out


def test_stopped_comparison_goes_on_with_the_trial_it_was_at(
    files: Files,
    out: Path,
    trials: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ["compare", "--studies", files("one", "two"), "--out", str(out), "--budget"]
    with monkeypatch.context() as patched:
        signal_at(patched, step=5)
        assert main([*arguments, "10m"]) == 130
    assert "stopped; go on with: python -m search " in capfd.readouterr().out
    assert not (out / "compare" / "ranking.csv").exists()
    (stopped,) = trials("one")
    assert not stopped.state.is_finished()
    assert trials("two") == []  # a stop is a stop of all
    spent = stopped.user_attrs["seconds"]
    assert 0 < spent < 60

    # Even where nothing is left of the budget, what was begun is brought to its end.
    assert main([*arguments, f"{spent:.3f}s"]) == 0
    (ended,) = trials("one")
    assert ended.user_attrs["ended"] == "finished"
    rungs = json.loads(ended.user_attrs["rungs"])
    assert [rung["step"] for rung in rungs] == [2, 4, 6, 8]
    assert len(ranking(out / "compare")) == 3


# Studies that fail.


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception | None], None]]:
    """Lets the run of study `one` raise this, or, for None, end without a finished trial."""
    real = compare.run_in_process

    def choose(error: Exception | None) -> None:
        def failing(spec: Any, options: Any) -> Any:
            if spec.name != "one":
                return real(spec, options)
            if error is not None:
                raise error
            return SearchOutcome(None, float("nan"), 20.0, stopped=False)

        monkeypatch.setattr(compare, "run_in_process", failing)

    yield choose


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("3 trials failed the same way"), "3 trials failed the same way"),
        (None, "no trial was finished in 10:00; a larger --budget goes on"),
    ],
)
def test_study_that_fails_does_not_hold_up_the_others(
    error: Exception | None,
    message: str,
    broken: Callable[..., None],
    files: Files,
    out: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken(error)
    assert main(["compare", "--studies", files("one", "two"), "--out", str(out), "--budget", "10m"]) == 2
    captured = capfd.readouterr()
    assert captured.err == f"search compare: one is not in the table: {message}\n"
    assert ranking(out / "compare").keys() == {"two", "unchanged"}
    assert f"- one is not in the table: {message}\n" in (out / "compare" / "ranking.md").read_text()


def test_without_any_winner_there_is_no_table(
    broken: Callable[..., None], files: Files, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(None)
    assert main(["compare", "--studies", files("one"), "--out", str(out)]) == 2
    assert not (out / "compare" / "ranking.csv").exists()
    assert "one is not in the table" in capfd.readouterr().err


def test_winner_whose_weights_are_gone_is_left_out(
    again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for weights in (tmp_path / "runs" / "one").rglob("best.safetensors"):
        weights.unlink()
    assert again() == 2
    assert "search compare: one is not in the table: " in (message := capfd.readouterr().err)
    assert "are gone; is --out right?" in message


def test_winner_that_was_trained_on_other_images_is_left_out(
    again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for part, names, seed in (("train", "abc", 11), ("val", "de", 12)):
        write_pairs(tmp_path / "other" / part, list(names), seed)
    assert again("--data", tmp_path / "other") == 2
    error = capfd.readouterr().err
    assert error.count("was scored on other images") == 2
    assert "compare --label" in error


# Names, and what is refused before anything runs.


def test_label_keeps_comparisons_on_several_folders_apart(
    again: Compare, refused: Refused, out: Path, tmp_path: Path, trials: Callable[..., Any]
) -> None:
    for part, names, seed in (("train", "abc", 11), ("val", "de", 12)):
        write_pairs(tmp_path / "other" / part, list(names), seed)
    before = (out / "compare" / "ranking.csv").read_bytes()
    arguments = ("--data", tmp_path / "other", "--budget", "10m")
    first, second = refused(*arguments, studies="one").splitlines()
    assert "study 'one' in " in first and "has another recipe: recipe.data.dir was " in first
    assert second == "--label NAME compares new studies, called one-NAME and so on"

    assert again(*arguments, "--label", "letters", "--quiet", studies="one") == 0
    assert len(trials("one-letters")) == 2
    assert ranking(out / "compare-letters").keys() == {"one-letters", "unchanged"}
    assert (out / "compare" / "ranking.csv").read_bytes() == before


def test_without_a_budget_every_study_needs_a_finished_trial(
    files: Files, again: Compare, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def compare_with(name: str) -> str:
        studies = f"{files(name)}"
        assert main(["compare", "--studies", studies, "--out", str(tmp_path / "runs"), "--budget", "0"]) == 2
        return capfd.readouterr().err

    assert "no study 'new'" in compare_with("new")
    url = default_storage_url(tmp_path / "runs")
    open_study(load_spec(files("empty")), url, continue_with_changes=False, out=tmp_path / "runs")
    assert compare_with("empty") == (
        "search compare: study 'empty' has no finished trial yet: --budget gives it time\n"
    )


def test_studies_that_are_there_twice_are_refused(refused: Refused) -> None:
    assert refused(studies="one,two,one").endswith("one.toml: one is there twice")


def test_unknown_studies_are_refused_before_anything_runs(
    files: Files, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--studies", f"{files('one')},kbent", "--out", str(out)]) == 2
    assert capfd.readouterr().err.startswith("search compare: unknown study 'kbent'; did you mean kbnet?")
    assert not out.exists()


def test_studies_on_different_data_are_refused(
    study_file: Callable[..., Path],
    pairs_folder: Path,
    tmp_path: Path,
    out: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    one = study_file(name="one")
    two = study_file(name="two")
    two.write_text(two.read_text().replace(str(pairs_folder), str(tmp_path)))
    assert main(["compare", "--studies", f"{one},{two}", "--out", str(out)]) == 2
    assert capfd.readouterr().err == (
        "search compare: studies 'one' and 'two' name different data; --data DIR gives all the same\n"
    )


def test_channels_that_the_images_do_not_have_are_refused_before_anything_runs(
    study_file: Callable[..., Path], out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = study_file(name="one")
    two = study_file(("layers = 3", "layers = 3\nchannels = 3"), name="two")
    assert main(["compare", "--studies", f"{one},{two}", "--out", str(out)]) == 2
    assert "recipe.model.channels is 3, but the images have 1" in capfd.readouterr().err
    assert not (out / "search.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], '--budget: "soon" is not a duration; write 90s, 20m, 1h30m or 2d'),
        (["--budget", "600"], '--budget: "600" is not a duration'),
        (["--label", "a/b"], "--label: 'a/b' has more than letters, digits"),
        (["--groups", "page-(6)"], "--groups page-(6): no group for 2 of 3 images: page-5, page-7"),
        (
            ["--scan-dir", "scan"],
            "--scan-dir, --clean-dir and --pair-by are about --data DIR, which is missing",
        ),
        (["--seed", "-1"], "--seed: Input should be greater than or equal to 0 (found -1)"),
        (["--device", "tpu"], "--device tpu: not on this machine"),
    ],
)
def test_flag_that_makes_no_sense_is_refused(arguments: list[str], message: str, refused: Refused) -> None:
    assert refused(*arguments).startswith(message)


def test_target_that_cannot_be_written_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    assert refused("--to", tmp_path / "file") == (
        f"{tmp_path}/file: cannot write here: File exists; --to names another folder"
    )
    assert (tmp_path / "file").read_text() == "kept"


def test_images_of_16_bit_are_recognised_too(
    refused: Refused, unseen_pairs: Path, pairs_folder: Path
) -> None:
    codes = pixels(pairs_folder / "train/clean/page-1.png").astype(np.uint16)
    write_png(unseen_pairs / "clean" / "leaf-0.png", (257 * codes)[..., None])
    assert to_tensor((257 * codes)[..., None]).max() <= 1
    assert "leaf-0 (as train page-1)" in refused("--test", unseen_pairs)
