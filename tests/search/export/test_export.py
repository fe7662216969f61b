"""What export-best writes, and what it refuses."""

import ast
import importlib
import json
import pickle
import re
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from data.files import write_png
from data.files.images import read_image
from search.__main__ import main
from search.database import best_trial, default_storage_url, load_study, ranked_trials
from search.errors import UserError
from search.export import load_exported, load_model
from search.export.formats import CHECK_SIZES
from search.export.model_card import CURVE
from search.export.settings import read_export_settings
from search.launch import run_in_process
from search.study import load_spec
from search.worker import RunOptions
from tests.conftest import write_pairs

STUDY = """
name = "tiny"
trials = 2
timeout = "10m"
ladder = {{ rungs = 0 }}

[recipe]
steps = 12
evaluations = 3
precision = "fp32"
ema_decay = 0.5
val_megapixels = 0.0008
crops = {{ batch = 2, patch = 8 }}

[recipe.model]
kind = "kbnet_s"
width = 4
encoder_blocks = [1]
middle_blocks = 1
decoder_blocks = [1]
lightweight = true

[recipe.optimizer]
kind = "adamw"
lr = {{ low = 1e-3, high = 1e-2, log = true }}

[recipe.data]
kind = "pairs"
dir = "{data}"

[[first]]
name = "by hand"
"optimizer.lr" = 2e-3
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a finished study; its data in `data` beside it."""
    folder = tmp_path_factory.mktemp("finished")
    write_pairs(folder / "data" / "train", [f"page-{n}" for n in range(4)], seed=1)
    write_pairs(folder / "data" / "val", [f"page-{n}" for n in range(4, 8)], seed=2)
    (folder / "tiny.toml").write_text(STUDY.format(data=folder / "data"), encoding="utf-8")
    arguments = ["run", "--study", str(folder / "tiny.toml"), "--out", str(folder / "runs"), "--quiet"]
    assert main(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    assert main(["export-best", "--study", "tiny", "--out", str(finished / "runs")]) == 0
    return finished / "runs" / "tiny" / "export"


@pytest.fixture
def again(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the runs folder, to be spoilt."""
    yield Path(shutil.copytree(finished / "runs", tmp_path / "runs"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["export-best", *arguments]) == 2
    message = capsys.readouterr().err
    assert message.startswith("search export-best: ") and message.count("\n") <= 2
    return message


def test_the_folder_holds_all_that_other_programs_need(exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == {
        "model.safetensors",
        "model.onnx",
        "config.json",
        "README.md",
        "learning_curve.png",
        "sample.png",
    }
    for picture in ("learning_curve.png", "sample.png"):
        assert read_image(exported / picture).std() > 10


@pytest.mark.parametrize("size", [*CHECK_SIZES, (1, 1), (2, 64)], ids=str)
def test_onnx_and_safetensors_restore_alike(exported: Path, size: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *size)
    with torch.inference_mode():
        expected = load_model(exported)(image)
    multiple = json.loads((exported / "config.json").read_text())["input"]["size_multiple"]
    padding = ((0, 0), (0, 0), (0, -size[0] % multiple), (0, -size[1] % multiple))
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    for n in range(2):  # the graph takes one image at a time
        (found,) = session.run(None, {"degraded": np.pad(image[n : n + 1].numpy(), padding)})
        np.testing.assert_allclose(found[0, :, : size[0], : size[1]], expected[n].numpy(), atol=1e-4)


def test_other_tools_load_the_file_and_restore_the_same_pixels(exported: Path, spandrel: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library
        loaded = spandrel.ModelLoader().load_from_file(exported / "model.safetensors").eval()
    image = torch.rand(1, 1, 17, 23)
    with torch.inference_mode():
        np.testing.assert_allclose(
            loaded.model(image).numpy(), load_model(exported)(image).numpy(), atol=1e-5
        )


def test_stored_score_is_the_score_of_the_exported_weights(finished: Path, exported: Path) -> None:
    from data.sources import PairsConfig
    from search.inference import score_image

    split = PairsConfig(dir=finished / "data").open(seed=0, cache=finished / "cache")
    model = load_model(exported)
    picked = split.val.representative(0.0008)
    assert 0 < len(picked) < len(split.val)
    with torch.inference_mode():
        pairs = [split.val.whole(index) for index in picked]
        scores = [score_image(model(pair.degraded[None])[0], pair.clean).psnr_db for pair in pairs]
    study = load_study("tiny", default_storage_url(finished / "runs"))
    best = best_trial(study)
    assert best is not None and best.value == pytest.approx(np.mean(scores), abs=0.01)


def test_card_names_scores_recipes_and_both_ways_of_use(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| degraded input \| \d+\.\d\d \|", card)
    assert re.search(r"\| restored \| \d+\.\d\d \|", card)
    assert re.search(r"\| by hand \| \d+\.\d\d \| 12 \|", card)
    assert "4 validation pairs" in card and "learning_curve.png" in card and "`optimizer.lr`" in card


def offered_imports(code: str) -> set[str]:
    """The project's names that `code` imports; fails for one that its package does not offer."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in (
            "search",
            "data",
            "models",
        ):
            package = importlib.import_module(str(node.module))
            names = {name.name for name in node.names}
            assert hasattr(package, "__path__") and names <= set(package.__all__)
            found |= names
    return found


def test_code_in_the_card_runs(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    scan = np.random.default_rng(0).integers(0, 256, (17, 23, 1), np.uint8)
    write_png(tmp_path / "scan.png", scan)
    monkeypatch.chdir(tmp_path)
    assert {"load_model", "decode_image", "write_png"} <= offered_imports(first)
    exec(first.replace("FOLDER OF THIS FILE", str(exported)), {})
    restored = read_image(tmp_path / "restored.png")
    assert restored.shape == scan.shape
    shutil.copy(exported / "model.onnx", tmp_path)
    (tmp_path / "restored.png").unlink()
    exec(second, {})
    np.testing.assert_allclose(read_image(tmp_path / "restored.png"), restored, atol=1)


def test_graph_takes_a_batch_and_says_what_it_is(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert given.shape == made.shape == ["batch", 1, "height", "width"]
    about, settings = session.get_modelmeta().custom_metadata_map, read_export_settings(exported)
    assert about["name"] == "tiny" and about["channels"] == "1" and about["input_range"] == "0 to 1"
    multiple = int(about["size_multiple"])
    assert multiple == settings["input"]["size_multiple"]
    assert re.search(
        rf"\| restored \| {float(about['psnr_db']):.2f} \|", (exported / "README.md").read_text("utf-8")
    )
    images = np.random.default_rng(0).random((3, 1, 4 * multiple, 7 * multiple), np.float32)
    (together,) = session.run(None, {"degraded": images})
    with torch.inference_mode():
        np.testing.assert_allclose(
            together, load_model(exported)(torch.from_numpy(images)).numpy(), atol=1e-4
        )


def test_name_of_a_stranger_does_no_harm_in_a_card(finished: Path, tmp_path: Path) -> None:
    out, name = (
        Path(shutil.copytree(finished / "runs", tmp_path / "runs")),
        "<script>a</script> [x](javascript:a)",
    )
    with sqlite3.connect(out / "search.db") as database:
        database.execute("update studies set study_name = ?", (name,))
    database.close()
    assert main(["export-best", "--study", name, "--out", str(out)]) == 0  # renamed: its folder is found
    card = (out / "tiny" / "export" / "README.md").read_text("utf-8")
    assert not re.search(r"(?<!\\)(<script|\[x\]\()", card)
    assert card.startswith(r"# \<script\>a\</script\> \[x\]")


def test_export_of_a_newer_version_is_said_to_be_so(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, "format": "restune-99"}), "utf-8")
    with pytest.raises(UserError, match=r"another version of this program .format 'restune-99', this one"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.pt2", "model.pt", "model.pth", "model.pkl", "model.ckpt"])
def test_file_that_would_be_unpickled_is_not_opened(name: str, exported: Path, tmp_path: Path) -> None:
    folder, mark = Path(shutil.copytree(exported, tmp_path / "export")), tmp_path / "ran"
    for file in (name, "model.safetensors"):
        (folder / file).write_bytes(pickle.dumps(_Touches(str(mark))))
        with pytest.raises(UserError):
            load_exported(folder / file)
    assert not mark.exists()


class _Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


FILTERS = """
name = "filters"
trials = 3
ladder = {{ rungs = 0 }}

[recipe]
steps = 0
val_megapixels = 0.0008

[recipe.model]
kind = "classical"

[recipe.model.filter.choices.unchanged]
kind = "unchanged"

[recipe.model.filter.choices.gaussian]
kind = "gaussian"
sigma = {{ low = 0.5, high = 1.5, step = 0.1 }}

[recipe.data]
kind = "pairs"
dir = "{data}"

[[first]]
name = "unchanged"
"model.filter" = "unchanged"

[[first]]
name = "some blur"
"model.filter" = "gaussian"
"model.filter.gaussian.sigma" = 0.8
"""


@pytest.fixture(scope="module")
def filtered(finished: Path) -> Path:
    """The export of a study of filters."""
    study, out = finished / "filters.toml", str(finished / "runs")
    study.write_text(FILTERS.format(data=finished / "data"), encoding="utf-8")
    assert main(["run", "--study", str(study), "--out", out, "--quiet"]) == 0
    assert main(["export-best", "--study", "filters", "--out", out]) == 0
    return finished / "runs" / "filters" / "export"


def test_a_filter_is_exported_as_its_settings_alone(filtered: Path) -> None:
    assert {path.name for path in filtered.iterdir()} == {"config.json", "README.md", "sample.png"}
    settings = json.loads((filtered / "config.json").read_text("utf-8"))
    assert settings["onnx"] is None
    assert settings["model"]["filter"]["kind"] == "gaussian"
    image = torch.rand(1, 1, 17, 23)
    blurred = cv2.GaussianBlur(image[0, 0].numpy(), (0, 0), settings["model"]["filter"]["sigma"])
    np.testing.assert_allclose(load_model(filtered)(image)[0, 0].numpy(), blurred, atol=1e-6)


def test_card_of_a_filter_tells_of_no_training_and_no_graph(
    filtered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (filtered / "README.md").read_text(encoding="utf-8")
    for absent in ("parameters,", "safetensors", "onnx", CURVE, "had the compute", "0 steps"):
        assert absent not in card
    assert re.search(r"\| some blur \| \d+\.\d\d \|", card) and "A classical filter" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    scan = np.random.default_rng(0).integers(0, 256, (17, 23, 1), np.uint8)
    write_png(tmp_path / "scan.png", scan)
    monkeypatch.chdir(tmp_path)
    assert {"load_model", "decode_image", "write_png"} <= offered_imports(code)
    exec(code.replace("FOLDER OF THIS FILE", str(filtered)), {})
    assert read_image(tmp_path / "restored.png").std() < scan.std()


LUMINANCE = """
name = "y"
trials = 1
ladder = {{ rungs = 0 }}

[recipe]
steps = 20
precision = "fp32"
ema_decay = 0.5
crops = {{ batch = 2, patch = 8 }}
optimizer = {{ kind = "adamw", lr = 3e-3 }}

[recipe.model]
kind = "luminance"

[recipe.model.model]
kind = "dncnn"
width = 4
layers = {{ choices = [3, 4] }}

[recipe.data]
kind = "pairs"
dir = "{data}"
"""


def test_a_model_of_luminance_is_exported_as_one_for_colour_images(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 2)):
        write_pairs(tmp_path / "data" / part, [f"{part}-{n}" for n in range(count)], count, channels=3)
    text = LUMINANCE.format(data=tmp_path / "data")
    (tmp_path / "y.toml").write_text(text, encoding="utf-8")
    assert main(["run", "--study", str(tmp_path / "y.toml"), "--out", str(tmp_path), "--quiet"]) == 0
    assert main(["export-best", "--study", "y", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "y" / "export"
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    assert (settings["model"]["kind"], settings["model"]["model"]["kind"]) == ("luminance", "dncnn")
    assert (settings["input"]["channels"], settings["model"]["model"]["channels"]) == (3, 1)
    assert "each behind `model.`" in (folder / "README.md").read_text(encoding="utf-8")
    image = np.random.default_rng(0).random((17, 23, 3), np.float32)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"degraded": image.transpose(2, 0, 1)[None]})
    restored = np.ascontiguousarray(found[0].transpose(1, 2, 0))
    before, after = (cv2.cvtColor(colours, cv2.COLOR_RGB2YCrCb) for colours in (image, restored))
    assert np.abs(after[..., 0] - before[..., 0]).max() > 1e-3
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-3)
    with torch.inference_mode():
        again = load_model(folder)(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_allclose(again[0].permute(1, 2, 0), restored, atol=1e-4)


def test_export_into_a_named_folder_and_over_an_earlier_export(finished: Path, tmp_path: Path) -> None:
    arguments = ["export-best", *at(finished, tmp_path / "m", "--format", "safetensors")]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert (tmp_path / "m" / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def at(finished: Path, target: Path, *more: str) -> list[str]:
    return ["--study", "tiny", "--out", str(finished / "runs"), "--to", str(target), *more]


@pytest.fixture(scope="module")
def half(finished: Path) -> Path:
    """An export with float16 weights, and a PyTorch program beside them."""
    target = finished / "half"
    assert main(["export-best", *at(finished, target, "--half", "--format", "pt2")]) == 0
    return target


def test_half_weights_are_the_nearest_of_float16_and_are_computed_in_float32(
    half: Path, exported: Path
) -> None:
    stored, full = load_file(half / "model.safetensors"), load_file(exported / "model.safetensors")
    assert stored.keys() == full.keys()
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor.numpy(), full[name].numpy().astype(np.float16), strict=True)
    model = load_model(half)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    image = torch.rand(1, 1, 17, 23)
    with torch.inference_mode():
        assert 0 < (model(image) - load_model(exported)(image)).abs().max() < 0.01


def test_card_states_what_half_weights_cost(half: Path, exported: Path, finished: Path) -> None:
    from data.sources import PairsConfig
    from search.inference import score_image

    split = PairsConfig(dir=finished / "data").open(seed=0, cache=finished / "cache")
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    means = []
    with torch.inference_mode():
        for model in map(load_model, (half, exported)):
            means.append(np.mean([score_image(model(p.degraded[None])[0], p.clean).psnr_db for p in pairs]))
        first = pairs[0].degraded[None]
        apart = float((load_model(half)(first) - load_model(exported)(first)).abs().max())
    card = (half / "README.md").read_text("utf-8")
    assert f"{means[0]:.3f} dB, {means[0] - means[1]:+.4f} dB to float32 weights" in card
    assert f"largest difference {apart:.1e} of 1" in card


def test_torch_program_restores_alike_without_this_program(half: Path) -> None:
    assert not (half / "model.onnx").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own parts
        program = torch.export.load(half / "model.pt2").module()
    for height, width in CHECK_SIZES:
        image = torch.rand(1, 1, height, width)
        padded = torch.zeros(1, 1, height + height % 2, width + width % 2)
        padded[..., :height, :width] = image
        with torch.inference_mode():
            found, expected = program(padded)[..., :height, :width], load_model(half)(image)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)
    card = (half / "README.md").read_text("utf-8")
    assert "onnxruntime" not in card and "unpickles parts of a .pt2" in card and "at least 4" in card


def test_restore_opens_no_file_that_torch_would_unpickle(half: Path) -> None:
    from search.errors import UserError

    with pytest.raises(UserError, match="not a model that is opened here"):
        load_exported(half / "model.pt2")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--format", "onxx"), "did you mean onnx?"),
        (("--trial", "7"), "allowed: 0 to 1"),
        (("--top", "0"), "allowed: 1 or more"),
        (("--trial", "0", "--max-parameters", "9"), "give one of them"),
    ],
    ids=str,
)
def test_wrong_flags_are_named(
    more: tuple[str, ...], said: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *at(finished, tmp_path / "m", *more))
    assert not list(tmp_path.iterdir())


def test_core_ml_is_refused_in_a_line_where_its_converter_is_missing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    message = refused(capsys, *at(finished, tmp_path / "m", "--format", "coreml"))
    assert "pip install 'restune[coreml]'" in message and not list(tmp_path.iterdir())


def test_half_of_a_filter_is_refused(
    filtered: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--study", "filters", "--out", str(finished / "runs"), "--to", str(tmp_path / "m"), "--half"]
    assert "a filter has no weights" in refused(capsys, *arguments)


def by_score(finished: Path) -> list[Any]:
    return ranked_trials(load_study("tiny", default_storage_url(finished / "runs")))


def test_top_exports_the_best_in_order_and_says_that_there_are_fewer(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export-best", *at(finished, tmp_path, "--top", "3", "--format", "safetensors")]) == 0
    assert "2 instead of 3" in capsys.readouterr().out
    ranked = [trial.number for trial in by_score(finished)]
    found = [json.loads((tmp_path / rank / "config.json").read_text())["trial"] for rank in ("1", "2")]
    assert found == ranked and len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.glob("*/model.onnx"))


def test_a_better_export_stays_unless_forced(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, worse = by_score(finished)
    target = tmp_path / "m"
    weights = ("--format", "safetensors")
    assert main(["export-best", *at(finished, target, *weights)]) == 0
    other = at(finished, target, "--trial", str(worse.number), *weights)
    message = refused(capsys, *other)
    assert f"{best.value:.3f} dB" in message and f"{worse.value:.3f} dB" in message and "--force" in message
    assert json.loads((target / "config.json").read_text())["trial"] == best.number
    assert main(["export-best", *other, "--force"]) == 0
    assert json.loads((target / "config.json").read_text())["trial"] == worse.number
    assert main(["export-best", *at(finished, target, *weights)]) == 0


def test_settings_of_another_program_are_left_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["Bert"]}')
    assert "holds other files" in refused(capsys, *at(finished, tmp_path, "--force"))
    assert "Bert" in (tmp_path / "config.json").read_text()


def test_waiting_trial_is_exported_as_what_it_is(
    study_file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    spec = load_spec(str(study_file())).with_changes(ladder={"rungs": 2, "factor": 2}, trials=2)
    url = default_storage_url(out)
    run_in_process(spec, RunOptions(storage=url, out=out, device=torch.device("cpu"), quiet=True))
    opened = load_study("tiny", url)
    (number,) = (trial.number for trial in opened.trials if trial.state.name == "COMPLETE")
    arguments = ["--study", "tiny", "--out", str(out), "--format", "safetensors"]
    beaten = refused(capsys, *arguments, "--trial", str(1 - number))
    assert f"trial {1 - number} has no weights" in beaten and "beaten at" in beaten
    with sqlite3.connect(out / "search.db") as database:  # as it was before its last stretch
        database.execute("update trials set state = 'WAITING' where number = ?", (number,))
        database.execute("delete from trial_values")
    database.close()
    assert main(["export-best", *arguments, "--trial", str(number)]) == 0
    assert "not finished: waiting at 100 %" in capsys.readouterr().out
    folder = out / "tiny" / "export"
    reached = load_study("tiny", url).trials[number].intermediate_values
    assert json.loads((folder / "config.json").read_text())["psnr_db"] == max(reached.values())
    assert "**This trial is not finished: waiting at" in (folder / "README.md").read_text("utf-8")


def test_foreign_folder_is_left_alone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    message = refused(capsys, "--study", "tiny", "--out", str(finished / "runs"), "--to", str(tmp_path))
    assert "holds other files" in message
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_unknown_study_and_missing_database_are_named(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean tiny?" in refused(capsys, "--study", "tinny", "--out", str(finished / "runs"))
    assert "no such database" in refused(capsys, "--study", "tiny", "--out", str(tmp_path))


def test_changed_data_are_refused(
    again: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = finished / "data" / "val" / "clean" / "page-4.png"
    before = page.read_bytes()
    write_png(page, 255 - read_image(page))
    try:
        assert "have changed" in refused(capsys, "--study", "tiny", "--out", str(again))
    finally:
        page.write_bytes(before)


def test_weights_that_miss_their_score_are_refused(
    exported: Path, again: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (exported / "model.onnx").read_bytes()
    for path in again.glob("tiny/trial-*/best.safetensors"):
        save_file({name: 0.5 * tensor for name, tensor in load_file(path).items()}, path)
    message = refused(capsys, "--study", "tiny", "--out", str(again))
    assert "not exported" in message
    earlier = again / "tiny" / "export"
    assert not earlier.exists() or (earlier / "model.onnx").read_bytes() == before
    assert not earlier.with_name("export.partial").exists()


@pytest.mark.parametrize("content", [b"", b"junk" * 9], ids=repr)
def test_damaged_weights_are_named(again: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for path in again.glob("tiny/trial-*/best.safetensors"):
        path.write_bytes(content)
    assert "damaged" in refused(capsys, "--study", "tiny", "--out", str(again))


def test_lost_weights_are_named(again: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in again.glob("tiny/trial-*/best.safetensors"):
        path.unlink()
    assert "best.safetensors" in refused(capsys, "--study", "tiny", "--out", str(again))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "restune-1"}', b"\x80\x04junk"], ids=repr)
def test_damaged_export_is_refused(exported: Path, tmp_path: Path, name: str, content: bytes) -> None:
    from search.errors import UserError

    folder = Path(shutil.copytree(exported, tmp_path / "damaged"))
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match="missing"):
        load_model(folder)
