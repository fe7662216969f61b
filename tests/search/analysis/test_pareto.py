"""Quality against cost: which trials are on the front, what is printed and drawn, and exports within limits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from optuna.trial import FrozenTrial
from rich.console import Console

from search.__main__ import main
from search.analysis import write_pareto
from search.analysis.pareto import pareto_front, pareto_points
from search.database import (
    COMPLETE,
    FAILED,
    PRUNED,
    Record,
    TrialFacts,
    default_storage_url,
    load_study,
    ranked_trials,
)
from search.database.records import Rung
from search.errors import UserError
from search.launch import run_in_process
from search.study import LimitsConfig, load_spec
from search.worker import RunOptions, load_best

StudyFile = Callable[..., Path]
Trials = Callable[..., list[FrozenTrial]]
BEATEN = {"state": PRUNED}


def record(number: int, cost: float, psnr_db: float | None, **changes: Any) -> Record:
    """A complete trial, unless told otherwise."""
    facts = {"parameters": round(1000 * cost), "gmacs_at_256": cost, "ms_per_megapixel": 100 / cost}
    plain = {"trial_id": number, "state": COMPLETE, "facts": TrialFacts(facts), "settings": {"width": number}}
    return Record(**{"number": number, "psnr_db": psnr_db, **plain, **changes})


def test_front_is_what_no_other_beats_in_both() -> None:
    records = [record(0, 1, 20), record(1, 2, 19), record(2, 3, 25), record(3, 3, 24), record(4, 9, 25)]
    found = pareto_points(records, "gmacs")
    on_front = {point.record.number for point in pareto_front(found)}
    beaten = {
        a.record.number
        for a in found
        for b in found
        if b is not a and b.cost <= a.cost and b.psnr_db >= a.psnr_db
    }
    assert on_front == {0, 2} == set(range(5)) - beaten


def test_front_turns_with_the_cost() -> None:
    records = [record(0, 1, 20), record(1, 2, 25)]
    assert [p.record.number for p in pareto_front(pareto_points(records, "gmacs"))] == [0, 1]
    # The larger one is the faster one here: nothing speaks for the other.
    assert [p.record.number for p in pareto_front(pareto_points(records, "ms"))] == [1]


def test_pruned_trials_count_at_their_last_rung_and_failed_ones_not() -> None:
    rungs = (Rung(1.6, 18.0), Rung(6.2, 21.5))
    records = [
        record(0, 1, None, rungs=rungs, **BEATEN),
        record(1, 1, None, state=FAILED, rungs=rungs),
        record(2, 1, None, **BEATEN),  # over a limit: it has no score
        record(3, 1, 22.0, facts=TrialFacts()),  # of a time when nothing was measured
    ]
    (point,) = pareto_points(records, "parameters")
    assert (point.record.number, point.psnr_db, point.percent) == (0, 21.5, 6.2)


def test_table_marks_what_was_not_trained_to_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        record(0, 45, 30.0),
        record(1, 9, None, rungs=(Rung(6.25, 27.5),), label="by hand", **BEATEN),
        record(2, 90, 29.0),
    ]
    write_pareto("kbnet", records, "parameters", tmp_path / "new" / "p.png", Console(width=100))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 of 3 trials are on the front, the cheapest first"
    assert lines[2].split()[:6] == ["1", "9.0k", "27.50", "6.25", "%", "by"]
    assert lines[3].split()[:4] == ["0", "45.0k", "30.00", "whole"]
    assert lines[4].split()[:4] == ["2", "90.0k", "29.00", "whole"]
    assert "not trained to the end" in lines[5]
    drawn = cv2.imread(str(tmp_path / "new" / "p.png"))
    assert drawn is not None
    assert drawn.std() > 5


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    console = Console(quiet=True)
    with pytest.raises(UserError, match="has no finished trial yet"):
        write_pareto("kbnet", [], "gmacs", tmp_path / "p.png", console)
    old = [record(0, 1, 20.0, facts=TrialFacts(), rungs=(Rung(100, 20.0),))]
    with pytest.raises(UserError, match="recorded no ms per megapixel"):
        write_pareto("kbnet", old, "ms", tmp_path / "p.png", console)
    with pytest.raises(UserError, match=r"p\.jpg: the drawing is a PNG"):
        write_pareto("kbnet", [record(0, 1, 20.0)], "gmacs", tmp_path / "p.jpg", console)


def test_command_and_export_take_the_best_within(
    study_file: StudyFile, out: Path, trials: Trials, capsys: pytest.CaptureFixture[str]
) -> None:
    known = "\n".join(f'[[first]]\nname = "width {width}"\n"model.width" = {width}' for width in (4, 6))
    spec = load_spec(str(study_file(more=known)))
    options = RunOptions(storage=default_storage_url(out), out=out, device=torch.device("cpu"), quiet=True)
    run_in_process(spec, options)
    places = ["--out", str(out)]
    assert main(["pareto", "tiny", "--by", "gmacs", *places]) == 0
    assert (out / "tiny" / "pareto.png").is_file()
    assert "width 6" in capsys.readouterr().out

    opened = load_study("tiny", options.storage)
    small, large = (trial.user_attrs["parameters"] for trial in trials())
    assert small < large
    for allowed, number in ((small, 0), (large, ranked_trials(opened)[0].number)):
        assert load_best(opened, out, LimitsConfig(parameters=allowed)).trial.number == number
    assert main(["export-best", "--study", "tiny", "--max-parameters", str(small - 1), *places]) == 2
    error = capsys.readouterr().err
    assert f"none of its 2 complete trials is known to be within parameters <= {small - 1}" in error
    assert main(["export-best", "--study", "tiny", "--max-gmacs", "-3", *places]) == 2
    assert "--max-gmacs: Input should be greater than 0 (found -3.0)" in capsys.readouterr().err
