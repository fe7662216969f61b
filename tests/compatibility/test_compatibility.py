"""A database, a state and an export that version 0.1.0 wrote are still read, by the command line alone."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from data.files import to_tensor
from data.files.images import read_image
from search.export.export import load_model

KEPT = Path(__file__).parent
ROOT = KEPT.parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy to work in. What the old version recorded names its files from there."""
    for name in ("pairs", "made", "export"):
        shutil.copytree(KEPT / name, tmp_path / name)
    shutil.copy(KEPT / "study.toml", tmp_path)
    return tmp_path


def commands(folder: Path, *lines: str) -> list[str]:
    """What `python -m search LINE` prints for each line, all of them run at once in `folder`. They must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "search", *line.split()],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for line in lines
    ]
    printed = []
    try:
        for line, process in zip(lines, started, strict=True):
            stdout, stderr = process.communicate(timeout=600)
            assert process.returncode == 0, f"{line}: {process.returncode}\n{stdout}\n{stderr}"
            printed.append(stdout)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return printed


def trials(folder: Path) -> dict[int, dict[str, Any]]:
    """The attributes of every trial, and its state, read without Optuna."""
    found: dict[int, dict[str, Any]] = {}
    with sqlite3.connect(folder / "made" / "search.db") as database:
        for number, state in database.execute("SELECT number, state FROM trials"):
            found[number] = {"state": state}
        rows = database.execute(
            "SELECT number, key, value_json FROM trial_user_attributes JOIN trials USING (trial_id)"
        )
        for number, key, value in rows:
            found[number][key] = json.loads(value)
    database.close()
    return found


def scores(trial: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores on the way, each with its step and the seconds until then."""
    found: list[dict[str, Any]] = json.loads(trial["rungs"])
    return found


def test_status_and_trials_say_what_the_database_holds(folder: Path) -> None:
    status, table = commands(folder, "status kept --out made --json -", "trials kept --out made --format csv")
    (standing,) = json.loads(status)
    assert standing["trials"] == {"complete": 1, "waiting at a rung": 1, "interrupted": 1}
    assert standing["best"]["trial"] == 0
    rows = list(csv.DictReader(table.splitlines()))
    facts = trials(folder)
    assert [(row["state"], row["steps_done"]) for row in rows] == [
        ("complete", "240"),
        ("paused", "60"),
        ("paused", "29"),
    ]
    for row in rows:
        trial = facts[int(row["number"])]
        assert float(row["last_rung_psnr_db"]) == scores(trial)[-1]["psnr_db"]
        assert int(row["parameters"]) == trial["parameters"]


def test_interrupted_trial_goes_on_from_its_old_state(folder: Path) -> None:
    before = trials(folder)
    assert [before[number]["steps_done"] for number in (0, 1, 2)] == [240, 60, 29]
    commands(folder, "run --study study.toml --out made --workers 1 --device cpu --trials 3")
    after = trials(folder)
    assert {number: trial["state"] for number, trial in after.items()} == {
        0: "COMPLETE",
        1: "PRUNED",
        2: "COMPLETE",
    }
    # A trial that begins anew would reach the same scores, but never after the same seconds.
    old, new = scores(before[2]), scores(after[2])
    assert new[: len(old)] == old
    assert [score["step"] for score in new] == list(range(20, 241, 20))
    assert after[0] == before[0]
    commands(
        folder,
        "report kept --out made --no-pictures --format html,csv",
        "export-best kept --out made --to new --format safetensors",
        "worker --study kept --out made --device cpu",
    )
    assert (folder / "made" / "kept" / "report" / "report.html").stat().st_size > 10_000
    settings = json.loads((folder / "new" / "config.json").read_text("utf-8"))
    assert settings["trial"] == 2
    assert settings["psnr_db"] > 30


def test_export_restores_to_the_score_that_it_had(folder: Path) -> None:
    score = json.loads((folder / "export" / "config.json").read_text("utf-8"))["psnr_db"]
    commands(
        folder,
        "evaluate export --data pairs -o scores --device cpu --precision fp32",
        "restore export pairs/val/scan -o restored --device cpu --precision fp32",
    )
    rows = list(csv.DictReader((folder / "scores" / "scores.csv").read_text("utf-8").splitlines()))
    assert [row["name"] for row in rows] == ["page-4", "page-5", "page-6"]
    # Other processors round 8-bit values another way here and there.
    assert sum(float(row["psnr_db"]) for row in rows) / 3 == pytest.approx(score, abs=0.01)
    degraded = to_tensor(read_image(folder / "pairs" / "val" / "scan" / "page-4.png"))
    with torch.inference_mode():
        expected = load_model(folder / "export")(degraded[None])[0]
    restored = to_tensor(read_image(folder / "restored" / "page-4.png"))
    torch.testing.assert_close(restored, expected.clamp(0, 1), atol=1 / 255, rtol=0)
