"""16-bit files that hold values of fewer bits: read by their white, told, restored as they were stored."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.doctor import check
from data.files import DataError, decode_image, write_png
from data.sources import PairsConfig
from models import ClassicalConfig
from models.filters import Gaussian
from search.__main__ import main
from search.export.settings import SETTINGS
from tests.data.examples import degraded, scene
from tests.search.restore.test_files import export


def write_pairs(folder: Path, scan_white: int, clean_white: int, count: int = 10) -> Path:
    for number in range(count):
        clean = scene(number)
        for side, pixels, white in (
            ("scan", degraded(clean, number), scan_white),
            ("clean", clean, clean_white),
        ):
            (folder / side).mkdir(parents=True, exist_ok=True)
            stored = np.floor(pixels * (white / 255) + 0.5).astype(np.uint16)
            write_png(folder / side / f"{number}.png", stored)
    return folder


@pytest.mark.parametrize("white", [255, 1023, 4095, 16383])
def test_pairs_of_fewer_bits_are_read_as_their_8_bit_twins(tmp_path: Path, white: int) -> None:
    split = PairsConfig(dir=write_pairs(tmp_path / "pairs", white, white)).open(seed=0, cache=tmp_path)
    assert split.white_level == white
    assert f"values of {white.bit_length()} bit ({white} is white)" in split.note
    for index in range(len(split.train)):
        clean = scene(int(split.train.name(index))).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(split.train.whole(index).clean.numpy(), clean, atol=0.51 / white)


def test_one_file_of_the_full_range_is_enough_to_take_values_as_they_are(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 1023, 1023)
    write_png(folder / "clean" / "3.png", (scene(3) * 257.0).astype(np.uint16))
    split = PairsConfig(dir=folder).open(seed=0, cache=tmp_path)
    assert split.white_level == 65535 and "bit (" not in split.note


def test_16_bit_files_among_8_bit_ones_are_scaled_and_the_others_are_not(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", 1023, 1023)
    write_png(folder / "clean" / "3.png", scene(3))
    write_png(folder / "scan" / "3.png", degraded(scene(3), 3))
    split = PairsConfig(dir=folder).open(seed=0, cache=tmp_path)
    for part in (split.train, split.val):
        for index in range(len(part)):
            clean = scene(int(part.name(index))).transpose(2, 0, 1) / 255
            np.testing.assert_allclose(part.whole(index).clean.numpy(), clean, atol=0.51 / 1023)


def test_check_tells_fewer_bits_of_the_set_and_of_one_side(tmp_path: Path) -> None:
    both = check.check_pairs(write_pairs(tmp_path / "both", 1023, 1023), jobs=1)
    (finding,) = [finding for finding in both.findings if finding.kind == "range"]
    assert "1023 of 65535 (10 bit)" in finding.found and finding.whole_set and not both.spoiled
    one = check.check_pairs(write_pairs(tmp_path / "one", 1023, 65535), jobs=1)
    (finding,) = [finding for finding in one.findings if finding.kind == "range-differs"]
    assert "the degraded side ends at 1023 of 65535" in finding.found and one.spoiled
    full = check.check_pairs(write_pairs(tmp_path / "full", 65535, 65535), jobs=1)
    assert not [finding for finding in full.findings if finding.kind.startswith("range")]


def test_model_of_fewer_bits_restores_files_as_they_are_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ClassicalConfig(filter=Gaussian(sigma=1.5))
    model, known = export(tmp_path / "model", config), export(tmp_path / "known", config)
    settings = json.loads((known / SETTINGS).read_text())
    settings["input"]["white_level"] = 1023
    (known / SETTINGS).write_text(json.dumps(settings))
    image = (scene(1).astype(np.float64) * 1023 / 255).round().astype(np.uint16)
    write_png(tmp_path / "page.png", image)
    write_png(tmp_path / "full.png", image * 64)

    assert main(["restore", str(known), str(tmp_path / "page.png"), "-o", str(tmp_path / "out")]) == 0
    assert "1023 of 65535 was taken as white" in capsys.readouterr().out
    assert main(["restore", str(model), str(tmp_path / "full.png"), "-o", str(tmp_path / "out")]) == 0
    found, wanted = (decode_image(tmp_path / "out" / name) for name in ("page.png", "full.png"))
    assert found.max() <= 1023
    assert (
        np.abs(found.astype(float) * 64 - wanted).max() <= 80
    )  # the steps of 10 bits, and 1023 * 64 for white

    assert main(["restore", str(model), str(tmp_path / "page.png"), "-o", str(tmp_path / "out2")]) == 0
    assert "values are nearly black" in capsys.readouterr().out


def test_not_a_number_in_one_file_leaves_the_others_usable(tmp_path: Path) -> None:
    import tifffile

    folder = tmp_path / "pairs"
    for number in range(10):
        for side in ("scan", "clean"):
            (folder / side).mkdir(parents=True, exist_ok=True)
            values = scene(number).astype(np.float32) / (255 if side == "clean" else 300)
            if (side, number) == ("scan", 4):
                values[0, 0] = np.nan
            tifffile.imwrite(folder / side / f"{number}.tif", values, photometric="rgb")
    with pytest.raises(DataError) as error:
        PairsConfig(dir=folder).open(seed=0, cache=tmp_path)
    assert str(error.value).startswith(f"{folder / 'scan' / '4.tif'}: 1 of ") and "cannot be read" not in str(
        error.value
    )
    report = check.check_pairs(folder, jobs=1)
    ill = [finding for finding in report.findings if finding.kind == "unsupported"]
    assert [path.name for finding in ill for path in finding.files] == ["4.tif"]
    (folder / "scan" / "4.tif").unlink()
    (folder / "clean" / "4.tif").unlink()
    assert len(PairsConfig(dir=folder).open(seed=0, cache=tmp_path / "other").train) > 0
