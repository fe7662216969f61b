"""Trials as plain values and as tables, against what the database has."""

import io
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from rich.console import Console

from search.__main__ import main
from search.analysis import (
    FEWEST_RANKED,
    setting_importance,
    show_trials,
    sort_trials,
    trials_csv,
    varying_settings,
)
from search.analysis.trials_table import trials_frame
from search.database import Record, best_record, default_storage_url, load_study, read_records
from search.database.records import Rung
from tests.search.conftest import NASTY


def record(number: int, psnr_db: float | None = None, **more: object) -> Record:
    state = "pruned" if psnr_db is None else "complete"
    return Record(number=number, trial_id=number, state=state, psnr_db=psnr_db, **more)  # type: ignore[arg-type]


def printed(found: list[Record], width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    show_trials(found, console, best_record(found))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_table_has_what_the_database_has(explored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", "tiny", "--out", str(explored), "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out)).set_index("number")
    database = load_study("tiny", default_storage_url(explored)).trials
    assert len(table) == len(database) == 3
    for trial in database:
        row = table.loc[trial.number]
        assert row["state"] == "complete"
        assert row["psnr_db"] == trial.value
        assert row["steps"] == row["steps_done"] == 8
        assert row["parameters"] == trial.user_attrs["parameters"]
        assert row["setting.optimizer.lr"] == trial.params["optimizer.lr"]
        assert 0 < row["training_seconds"] <= row["seconds"]
    assert table["best"].sum() == 1
    assert table["psnr_db"].idxmax() == table["best"].idxmax() == table.index[0]


def test_frame_is_the_table_before_it_is_written(explored: Path) -> None:
    found = read_records(load_study("tiny", default_storage_url(explored)))
    table = trials_frame(found, best_record(found))
    assert table["number"].tolist() == [0, 1, 2]
    assert table["parameters"].dtype == "Int64"
    assert [column for column in table if column.startswith("setting.")] == [
        f"setting.{name}" for name in found[0].settings
    ]


def test_best_trials_come_first_then_those_that_came_furthest() -> None:
    found = [
        record(0, reported={25: 30.0}),
        record(1, 20.0),
        record(2, reported={25: 10.0, 50: 12.0}),
        record(3, 21.0),
        record(4),
        record(5, 21.0),
    ]
    assert [trial.number for trial in sort_trials(found, "psnr")] == [3, 5, 1, 2, 0, 4]
    assert [trial.number for trial in sort_trials(found[::-1], "number")] == [0, 1, 2, 3, 4, 5]
    timed = [record(0, 1.0, seconds=3), record(1, 1.0, seconds=5), record(2, 1.0, seconds=3)]
    assert [trial.number for trial in sort_trials(timed, "seconds")] == [1, 0, 2]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_lines_fit_the_terminal(explored: Path, width: int) -> None:
    found = read_records(load_study("tiny", default_storage_url(explored)))
    found.append(
        record(3, rungs=(Rung(25, 19.5),), ended="pruned at 25 %: 19.50 dB", steps=100, steps_done=25)
    )
    lines = printed(found, width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("(19.50)" in line and "25/100" in line and "pruned at 25 %" in line for line in lines)


def test_names_are_shown_as_they_are_written() -> None:
    found = [record(0, 1.0, label="[red]x[/red] [link=http://a]b", settings={"a.b": 1, "c.b": 2, "d": 0.25})]
    assert "[red]x[/red] [link=http://a]b; a.b=1 c.b=2 d=0.25" in printed(found, 160)


def test_settings_that_all_trials_share_are_left_out() -> None:
    found = [record(n, 1.0, settings={"same": 1, "lr": n, **({"only": 1} if n else {})}) for n in range(2)]
    assert varying_settings(found) == {"lr", "only"}
    assert varying_settings(found[:1]) == {"same", "lr"}  # of one trial all is news


def test_no_text_is_a_formula_for_a_spreadsheet(explored: Path) -> None:
    found = [record(n, -1.5, label=text) for n, text in enumerate(["=1+1", "@x", "-2", "+3", "fine"])]
    table = pd.read_csv(io.StringIO(trials_csv(found, None)))
    assert table["name"].tolist() == ["'=1+1", "'@x", "'-2", "'+3", "fine"]
    assert (table["psnr_db"] == -1.5).all()


def test_markdown_keeps_its_columns_whatever_the_names(
    explored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trials", "tiny", "--out", str(explored), "--format", "md"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 + 3
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    shown = NASTY
    for sign in "`<>|":
        shown = shown.replace(sign, f"\\{sign}")
    assert sum(shown in line for line in lines) == 1


def test_filters_have_no_columns_for_training(explored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", "filters", "--out", str(explored)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert "PSNR" in head
    assert "steps" not in head


def test_unknown_study_is_one_line(explored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", "tinny", "--out", str(explored)]) == 2
    told = capsys.readouterr().err
    assert "no study 'tinny'" in told and "tiny" in told
    assert len(told.strip().splitlines()) == 1


def planted(trials_of: int) -> optuna.Study:
    """A study whose score depends on `matters` alone."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")
    spread = optuna.distributions.FloatDistribution(0, 1)
    for _ in range(trials_of):
        params = {name: rng.uniform() for name in ("matters", "noise", "more_noise")}
        trial = optuna.trial.create_trial(
            params=params,
            distributions=dict.fromkeys(params, spread),
            value=-((params["matters"] - 0.3) ** 2),
        )
        study.add_trial(trial)
    return study


def test_only_a_setting_that_matters_exceeds_chance() -> None:
    found = setting_importance(planted(60))
    assert found.trials == 60
    assert sum(found.shares.values()) == pytest.approx(1)
    assert next(iter(found.shares)) == "matters"
    assert {name for name in found.shares if found.shares[name] > found.chance[name]} == {"matters"}


def test_too_few_trials_say_nothing() -> None:
    found = setting_importance(planted(FEWEST_RANKED - 1))
    assert (found.trials, found.shares) == (FEWEST_RANKED - 1, {})


def test_importance_goes_down_to_the_rung_that_enough_trials_reached() -> None:
    study = optuna.create_study(direction="maximize")
    spread = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for n in range(30):
        rungs = {6: n / 30, 25: n / 30} if n >= 5 else {6: n / 30}
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": n / 30},
                distributions=spread,
                intermediate_values=rungs,
                state=optuna.trial.TrialState.COMPLETE if n > 27 else optuna.trial.TrialState.PRUNED,
                value=1.0 if n > 27 else None,
            )
        )
    found = setting_importance(study)
    assert (found.percent, found.trials) == (25, 25)
    assert found.shares == {"x": 1.0}
