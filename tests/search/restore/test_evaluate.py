"""The command `evaluate`: the score that validation gave, for every model, and the report."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import decode_image, write_png
from data.files.images import read_image
from data.sources import PairsConfig
from models import ClassicalConfig, count_parameters
from models.filters import Unchanged
from search.__main__ import main
from search.export.settings import FORMAT, SETTINGS, WEIGHTS
from search.inference import Precision, mean_score, score_pairs
from search.trial import save_weights
from tests.conftest import write_pairs
from tests.models.examples import Example, each

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def colour_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colour")
    for part, seed in (("train", 1), ("val", 2)):
        write_pairs(folder / part, [f"{part}-{n}" for n in range(3)], seed, channels=3)
    return folder


def export(folder: Path, example: Example) -> torch.nn.Module:
    """A model with random weights as `export-best` lays it out; the model."""
    folder.mkdir()
    torch.manual_seed(0)
    model: torch.nn.Module = example.config.build().eval()
    if count_parameters(model):
        save_weights(folder / WEIGHTS, model)
    settings = {"format": FORMAT, "model": example.config.model_dump(mode="json")}
    (folder / SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    return model


def scores(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@each()
def test_an_exported_model_has_the_score_of_validation(
    example: Example, colour_pairs: Path, tmp_path: Path
) -> None:
    model = export(tmp_path / "model", example)
    split = PairsConfig(dir=colour_pairs).open(seed=0, cache=tmp_path / "cache")
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    expected = mean_score(score_pairs(model, pairs, Precision("fp32", CPU)), step=0, seconds=0.0)
    out = tmp_path / "out"
    assert (
        main(["evaluate", str(tmp_path / "model"), "--data", str(colour_pairs), "-o", str(out), "--quiet"])
        == 0
    )
    found = scores(out / "scores.csv")
    assert [row["name"] for row in found] == [split.val.name(index) for index in range(len(split.val))]
    for key, value in (
        ("psnr_db", expected.psnr_db),
        ("ssim", expected.ssim),
        ("mae_255", 255 * expected.mae),
    ):
        assert np.mean([float(row[key]) for row in found]) == pytest.approx(
            value, abs=0.01 if key == "psnr_db" else 1e-3
        )


@each()
def test_restored_files_are_what_was_evaluated(example: Example, colour_pairs: Path, tmp_path: Path) -> None:
    export(tmp_path / "model", example)
    model, out, val = str(tmp_path / "model"), tmp_path / "out", colour_pairs / "val"
    assert main(["restore", model, str(val / "scan"), "-o", str(out), "--quiet"]) == 0
    assert main(["evaluate", model, "--data", str(colour_pairs), "-o", str(out), "--quiet"]) == 0
    for row in scores(out / "scores.csv"):
        name = f"{row['name']}.png"
        error = decode_image(out / name).astype(float) - decode_image(val / "clean" / name)
        assert float(row["rmse_255"]) == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-4)
        assert float(row["mae_255"]) == pytest.approx(np.mean(np.abs(error)), abs=1e-4)


def test_the_report_says_what_the_images_were_before(
    colour_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(tmp_path / "model", Example("unchanged", ClassicalConfig(filter=Unchanged())))
    out = tmp_path / "out"
    assert main(["evaluate", str(tmp_path / "model"), "--data", str(colour_pairs), "-o", str(out)]) == 0
    for row in scores(out / "scores.csv"):
        for key in ("psnr_db", "ssim", "mae_255", "rmse_255"):
            assert row[key] == row[f"unchanged_{key}"]
    told = capsys.readouterr().out
    assert "+0.00 [+0.00, +0.00]" in told and "0 of 3" in told and "too few for a true 95 %" in told
    worst = min(scores(out / "scores.csv"), key=lambda row: float(row["psnr_db"]))
    assert f"lowest PSNR: {worst['name']}" in told
    assert read_image(out / "worst.png").std() > 10


def test_pairs_without_a_split_are_all_scored_and_groups_make_intervals_wider(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(tmp_path / "model", Example("unchanged", ClassicalConfig(filter=Unchanged())))
    write_pairs(tmp_path / "data", [f"{page}-{n}" for page in "abc" for n in range(3)], seed=0)
    common = [
        "evaluate",
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(common) == 0
    assert "bootstrap over 9 images" in capsys.readouterr().out
    assert main([*common, "--groups", r"^(\w)-"]) == 0
    assert "bootstrap over 3 groups" in capsys.readouterr().out
    assert {row["group"] for row in scores(tmp_path / "out" / "scores.csv")} == set("abc")


def test_pairs_that_do_not_match_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(tmp_path / "model", Example("unchanged", ClassicalConfig(filter=Unchanged())))
    write_pairs(tmp_path / "data", ["a", "b"], seed=0)
    write_png(tmp_path / "data" / "clean" / "b.png", np.zeros((5, 7, 1), np.uint8))
    common = [
        "evaluate",
        str(tmp_path / "model"),
        "--data",
        str(tmp_path / "data"),
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(common) == 2
    assert "both must have one size" in capsys.readouterr().err
    (tmp_path / "data" / "clean" / "b.png").unlink()
    assert main(common) == 2
    assert "no partner" in capsys.readouterr().err
