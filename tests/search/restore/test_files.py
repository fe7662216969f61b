"""The command `restore`: what it makes of files of every kind, and what it refuses."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from data.files import decode_image, open_document, open_writer, to_tensor, write_png
from data.files.documents import Page
from data.files.images import read_image
from models import ClassicalConfig, DnCNNConfig, KBNetSConfig
from models.filters import Gaussian, Unchanged
from search.__main__ import main
from search.export import load_exported
from search.export.settings import FORMAT, SETTINGS, WEIGHTS
from search.inference import to_codes
from search.restore import RestorerOptions, files
from search.restore.restorer import Restorer
from search.trial import save_weights
from tests.broken_images import write_all

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def export(folder: Path, config: Any, seed: int = 0) -> Path:
    """A model with random weights, as `export-best` lays it out."""
    torch.manual_seed(seed)
    folder.mkdir()
    model = config.build()
    if config.kind != "classical":
        save_weights(folder / WEIGHTS, model)
    settings = {
        "format": FORMAT,
        "model": config.model_dump(mode="json"),
        "input": {"size_multiple": int(model.size_multiple)},
    }
    (folder / SETTINGS).write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives images back as they are: what is lost is lost on the way."""
    folder = tmp_path_factory.mktemp("models")
    return export(folder / "unchanged", ClassicalConfig(filter=Unchanged()))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return export(
        folder / "net", KBNetSConfig(width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
    )


def run(*arguments: object) -> int:
    return main(["restore", *map(str, arguments)])


def noise(*shape: int, deep: bool = False) -> np.ndarray[Any, Any]:
    kind = np.uint16 if deep else np.uint8
    return RNG.integers(0, np.iinfo(kind).max + 1, shape, dtype=kind)


def test_restored_files_hold_what_the_network_makes_of_the_pixels(network: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "colour.png", noise(17, 23, 3))
    write_png(tmp_path / "gray.png", noise(18, 5, 1))
    assert run(network, tmp_path / "colour.png", tmp_path / "gray.png", "-o", tmp_path / "out") == 0
    model = load_exported(network).model
    for name, copies in (("colour", 1), ("gray", 3)):
        image = to_tensor(decode_image(tmp_path / f"{name}.png")).repeat(copies, 1, 1)
        with torch.inference_mode():
            expected = model(image[None])[0]
        if copies == 3:
            expected = expected.mean(0, keepdim=True)
        np.testing.assert_array_equal(decode_image(tmp_path / "out" / f"{name}.png"), to_codes(expected))


def test_a_gray_model_restores_red_green_and_blue_one_by_one(tmp_path: Path) -> None:
    model = export(tmp_path / "m", DnCNNConfig(channels=1, width=4, layers=3))
    colours = noise(17, 23, 3)
    write_png(tmp_path / "a.png", colours)
    for plane in range(3):
        write_png(tmp_path / f"{plane}.png", np.ascontiguousarray(colours[..., plane : plane + 1]))
    assert run(model, *(tmp_path / f"{n}.png" for n in "a012"), "-o", tmp_path / "out", "--quiet") == 0
    together = decode_image(tmp_path / "out" / "a.png")
    for plane in range(3):
        np.testing.assert_array_equal(
            together[..., plane : plane + 1], decode_image(tmp_path / "out" / f"{plane}.png")
        )


@pytest.mark.parametrize("deep", [False, True])
def test_tiles_of_any_size_make_the_image_that_is_made_at_once(deep: bool, tmp_path: Path) -> None:
    exported = load_exported(export(tmp_path / "m", DnCNNConfig(width=8, layers=5)))
    with torch.no_grad():
        exported.model.model[-1].weight.mul_(100)  # type: ignore[index, union-attr, operator]
    image = noise(211, 173, 3, deep=deep)
    whole, trace = Restorer(exported, RestorerOptions(CPU, "fp32", tile=4096)).restore(image)
    assert trace.tile is None and whole.dtype == image.dtype
    tiled, trace = Restorer(exported, RestorerOptions(CPU, "fp32", tile=64)).restore(image)
    assert trace.tile is not None and trace.tile < 64 and trace.difference < 1e-5
    assert np.abs(tiled.astype(int) - whole).max() <= 1


def test_where_memory_runs_out_tiles_become_smaller(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = load_exported(network)
    image = noise(150, 170, 3)
    expected, _ = Restorer(exported, RestorerOptions(CPU, "fp32")).restore(image)
    body = exported.model.body

    def failing(tile: torch.Tensor) -> torch.Tensor:
        if tile[0, 0].numel() > 100 * 100:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return body(tile)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(exported.model, "body", failing)
    monkeypatch.setattr("search.restore.restorer.measure_bytes_per_pixel", lambda *_: 100.0)
    told: list[int] = []
    found, trace = Restorer(exported, RestorerOptions(CPU, "fp32")).restore(image, told.append)
    assert trace.tile is not None and sum(told) == 150 * 170
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_tiles_fit_into_the_memory_that_is_given(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.restore.restorer.measure_bytes_per_pixel", lambda *_: 1000.0)
    monkeypatch.setattr("search.restore.restorer.resident_bytes", lambda: 10**8)
    exported, image = load_exported(network), noise(300, 400, 3)
    largest = 0
    body = exported.model.body

    def watched(tile: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, tile[0, 0].numel())
        return body(tile)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(exported.model, "body", watched)
    Restorer(exported, RestorerOptions(CPU, "fp32", memory=10**8 + 42_000_000)).restore(image)
    assert 20_000 < largest < 42_000
    Restorer(exported, RestorerOptions(CPU, "fp32", memory=10**9)).restore(image)
    assert largest == 300 * 400


@pytest.mark.parametrize("extension", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
def test_nothing_is_lost_where_the_format_can_hold_it(
    unchanged: Path, tmp_path: Path, extension: str, channels: int, deep: bool, alpha: bool
) -> None:
    exif = _exif()
    page = Page(
        pixels=noise(17, 23, channels, deep=deep),
        alpha=noise(17, 23, 1, deep=deep) if alpha else None,
        profile=b"profile" * 20,
        exif=exif,
        dpi=(300.0, 200.0),
    )
    source = tmp_path / f"a.{extension}"
    with open_writer(source) as writer:
        assert writer.add(page) == []
    assert run(unchanged, source, "-o", tmp_path / "out", "--quiet") == 0
    with open_document(tmp_path / "out" / source.name, 300) as document:
        found = document.read(0)
    expected = page.pixels
    if alpha and channels == 1 and deep:  # libraries have no such images: they are written in colour
        expected = found.pixels[..., :1]
        np.testing.assert_array_equal(found.pixels, page.pixels.repeat(found.pixels.shape[2], 2))
    np.testing.assert_array_equal(found.pixels[..., : expected.shape[2]], expected)
    if alpha:
        assert found.alpha is not None
        np.testing.assert_array_equal(found.alpha, page.alpha)
    assert found.profile == page.profile
    assert found.dpi == pytest.approx(page.dpi, abs=0.01)
    assert found.exif is not None and found.exif[0x010F] == "Maker"
    assert found.exif.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"


def _exif() -> Any:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 1
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return exif


def test_pages_of_a_document_stay_together_or_become_files(unchanged: Path, tmp_path: Path) -> None:
    pages = [Page(noise(17, 23, 3)), Page(noise(9, 31, 1, deep=True), dpi=(400.0, 400.0))]
    with open_writer(tmp_path / "book.tif") as writer:
        for page in pages:
            writer.add(page)
    assert run(unchanged, tmp_path / "book.tif", "-o", tmp_path / "out") == 0
    with open_document(tmp_path / "out" / "book.tif", 300) as document:
        assert document.pages == 2
        for number, page in enumerate(pages):
            found = document.read(number)
            np.testing.assert_array_equal(found.pixels, page.pixels)
            assert found.dpi == page.dpi
    assert run(unchanged, tmp_path / "book.tif", "-o", tmp_path / "out", "--format", "png") == 0
    for number, page in enumerate(pages, start=1):
        np.testing.assert_array_equal(decode_image(tmp_path / "out" / f"book-{number:03}.png"), page.pixels)


def test_a_pdf_stays_a_pdf_of_its_size(unchanged: Path, tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="PDF is not tested")
    smooth = cv2.GaussianBlur(noise(80, 60, 3), (0, 0), 5)
    with open_writer(tmp_path / "a.pdf") as writer:
        for pixels in (smooth, smooth[::-1].copy()):
            writer.add(Page(pixels, dpi=(72.0, 72.0)))
    assert run(unchanged, tmp_path / "a.pdf", "-o", tmp_path / "out", "--pdf-dpi", "144") == 0
    with open_document(tmp_path / "out" / "a.pdf", 72) as document:
        assert document.pages == 2 and document.size == (80, 60)
        assert np.abs(document.read(0).pixels.astype(int) - smooth).mean() < 4


def test_folders_are_mirrored_and_existing_results_kept(
    unchanged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    for place in ("a.png", "deep/er/b.png", ".hidden/c.png", "deep/.d.png", "notes.txt"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        write_png(source / place, noise(5, 7, 1))
    out = source / "restored"  # below the inputs: must not be taken for one of them
    assert run(unchanged, source, "-o", out) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == ["a.png", "deep/er/b.png"]
    (out / "a.png").write_bytes(b"mine")
    assert run(unchanged, source, "-o", out) == 0
    assert "2 kept" in capsys.readouterr().out
    assert (out / "a.png").read_bytes() == b"mine"
    assert run(unchanged, source, "-o", out, "--overwrite") == 0
    np.testing.assert_array_equal(decode_image(out / "a.png"), decode_image(source / "a.png"))


def test_patterns_suffixes_and_formats_name_the_results(unchanged: Path, tmp_path: Path) -> None:
    for name in ("x1.png", "x2.png", "y.png"):
        write_png(tmp_path / name, noise(5, 7, 3))
    write_png(tmp_path / "x1.bmp", noise(5, 7, 3))
    pattern = str(tmp_path / "x*")
    assert run(unchanged, pattern, "-o", tmp_path / "out", "--suffix", "_r", "--format", "tiff") == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["x1_r.bmp.tif", "x1_r.png.tif", "x2_r.tif"]


def test_broken_files_are_named_and_stop_nothing(
    unchanged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readable = write_all(tmp_path / "in")
    assert run(unchanged, tmp_path / "in", "-o", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    written = {path.name for path in (tmp_path / "out").iterdir()}
    directories = {path.name for path in (tmp_path / "in").iterdir() if path.is_dir()}
    assert written == {name for name, can_be_read in readable.items() if can_be_read}
    assert told.out.count("failed: ") == len(readable) - len(written) - len(directories)
    for name in written:
        before, after = (tmp_path / folder / name for folder in ("in", "out"))
        assert decode_image(before).shape[:2] == decode_image(after).shape[:2]
    capsys.readouterr()
    assert run(unchanged, tmp_path / "in", "-o", tmp_path / "out") == 1, (
        "they fail again, the others are kept"
    )
    assert f"{len(written)} kept" in capsys.readouterr().out


def test_a_file_that_fails_while_it_is_written_leaves_nothing(
    unchanged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.tif", "b.tif"):
        with open_writer(tmp_path / name) as writer:
            writer.add(Page(noise(5, 7, 1)))
            writer.add(Page(noise(6, 8, 1)))
    restored = Restorer.restore

    def failing(self: Restorer, pixels: Any, done: Any) -> Any:
        if pixels.shape[0] == 6:
            raise OSError(28, "No space left on device")
        return restored(self, pixels, done)

    monkeypatch.setattr(Restorer, "restore", failing)
    assert run(unchanged, tmp_path / "a.tif", tmp_path / "b.tif", "-o", tmp_path / "out") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "No space left" in capsys.readouterr().out


def test_an_interrupt_leaves_whole_files(
    unchanged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in "abc":
        write_png(tmp_path / "in" / f"{name}.png", noise(5, 7, 1))
    one = files._restore_job

    def interrupted(job: Any, *rest: Any) -> None:
        if job.source.name == "b.png":
            raise KeyboardInterrupt
        one(job, *rest)

    monkeypatch.setattr(files, "_restore_job", interrupted)
    assert run(unchanged, tmp_path / "in", "-o", tmp_path / "out") == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert run(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("search restore: ") and message.count("\n") <= 2
    return message


def test_inputs_are_never_written_over(
    unchanged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "a.png", noise(5, 7, 1))
    (tmp_path / "there").symlink_to(tmp_path)
    before = (tmp_path / "a.png").read_bytes()
    assert "is the input folder" in refused(capsys, unchanged, tmp_path, "-o", tmp_path / "there")
    for out in (tmp_path, tmp_path / "there"):
        assert "over an input" in refused(capsys, unchanged, tmp_path / "a.png", "-o", out, "--overwrite")
    assert run(unchanged, tmp_path / "a.png", "-o", tmp_path, "--suffix", "_new") == 0
    assert (tmp_path / "a.png").read_bytes() == before


def test_mistakes_are_told_in_a_line(
    unchanged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("words")
    write_png(tmp_path / "a.png", noise(5, 7, 1))
    assert "no such file or folder" in refused(capsys, unchanged, tmp_path / "none.png", "-o", out)
    assert "no images" in refused(capsys, unchanged, tmp_path / "empty", "-o", out)
    assert "matches no images" in refused(capsys, unchanged, tmp_path / "*.jp2", "-o", out)
    assert "not an image" in refused(capsys, unchanged, tmp_path / "text.txt", "-o", out)
    assert "--tile" in refused(capsys, unchanged, tmp_path, "-o", out, "--tile", "3")
    assert "no such model" in refused(capsys, tmp_path / "none", tmp_path / "a.png", "-o", out)


Spoil = Callable[[Path], Any]


def _config(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        settings = json.loads((folder / SETTINGS).read_text())
        change(settings)
        (folder / SETTINGS).write_text(json.dumps(settings))

    return spoil


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return spoil


class Trap:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / WEIGHTS).write_bytes(pickle.dumps(Trap())),
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        lambda folder: (folder / WEIGHTS).unlink(),
        _weights(lambda tensors: tensors.pop("intro.bias")),
        _weights(lambda tensors: tensors.update({"intro.bias": torch.zeros(5)})),
        _weights(lambda tensors: tensors["intro.bias"].fill_(torch.nan)),
        lambda folder: (folder / SETTINGS).write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / SETTINGS).write_text("[" * 100_000),
        lambda folder: (folder / SETTINGS).write_text("[1]"),
        _config(lambda settings: settings.update(format="other")),
        _config(lambda settings: settings.pop("model")),
        _config(lambda settings: settings["model"].update(kind="os.system")),
        _config(lambda settings: settings["model"].update(width=10**9)),
        _config(lambda settings: settings["model"].update(extra=1)),
    ],
)
def test_tampered_models_are_refused(
    network: Path,
    tmp_path: Path,
    spoil: Spoil,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    for path in network.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder)
    write_png(tmp_path / "a.png", noise(5, 7, 3))
    assert str(folder) in refused(capsys, folder, tmp_path / "a.png", "-o", tmp_path / "out")
    assert not (tmp_path / "trapped").exists() and not (tmp_path / "out").exists()


def test_pickles_are_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Trap()))
    write_png(tmp_path / "a.png", noise(5, 7, 3))
    message = refused(capsys, tmp_path / "model.pth", tmp_path / "a.png", "-o", tmp_path / "out")
    assert "not a model that is opened here" in message


def graph(path: Path, channels: int, scale: int = 1, stride: int = 1) -> Path:
    """An ONNX graph from elsewhere: a mean over 3 x 3 pixels, perhaps at half resolution and back."""
    kernel = np.full((channels, 1, 3, 3), 1 / 9, np.float32)
    nodes = [
        helper.make_node(
            "Conv", ["x", "k"], ["y"], pads=[1, 1, 1, 1], group=channels, strides=[stride, stride]
        ),
        helper.make_node("Resize", ["y", "", "s"], ["z"], mode="nearest"),
    ]
    factors = np.array([1, 1, stride * scale, stride * scale], np.float32)
    constants = [onnx.numpy_helper.from_array(kernel, "k"), onnx.numpy_helper.from_array(factors, "s")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, f"{name}h", f"{name}w"])
        for name in "xz"
    ]
    made = helper.make_graph(nodes, "blur", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_graph_from_elsewhere_restores(tmp_path: Path) -> None:
    image = noise(17, 23, 3)
    write_png(tmp_path / "a.png", image)
    assert run(graph(tmp_path / "blur.onnx", 3), tmp_path / "a.png", "-o", tmp_path / "out") == 0
    padded = np.pad(image.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    expected = cv2.blur(padded, (3, 3))[1:-1, 1:-1]
    np.testing.assert_allclose(decode_image(tmp_path / "out" / "a.png"), expected, atol=0.51)
    assert load_exported(graph(tmp_path / "half.onnx", 1, stride=2)).multiple == 2


def test_graphs_that_do_not_restore_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a.png", noise(5, 7, 3))
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 99)
    for path in (
        tmp_path / "junk.onnx",
        graph(tmp_path / "large.onnx", 3, scale=2),
        graph(tmp_path / "four.onnx", 4),
    ):
        assert str(path) in refused(capsys, path, tmp_path / "a.png", "-o", tmp_path / "out")


def test_half_precision_that_does_not_hold_is_not_used(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = load_exported(network)
    monkeypatch.setattr("search.inference.precision.half_precision", lambda device: "bf16")
    body = exported.model.body

    def coarse(tile: torch.Tensor) -> torch.Tensor:
        restored: torch.Tensor = body(tile)  # type: ignore[operator]
        return (restored * 20).round() / 20 if torch.is_autocast_enabled("cpu") else restored

    monkeypatch.setattr(exported.model, "body", coarse)
    restorer = Restorer(exported, RestorerOptions(CPU))
    image = noise(300, 300, 3)
    found, _ = restorer.restore(image)
    assert restorer.note.startswith("precision fp32: with bf16")
    expected, _ = Restorer(exported, RestorerOptions(CPU, "fp32")).restore(image)
    np.testing.assert_array_equal(found, expected)


def test_a_filter_restores_as_its_library_does(tmp_path: Path) -> None:
    model = export(tmp_path / "m", ClassicalConfig(filter=Gaussian(sigma=1.3)))
    image = noise(17, 23, 3)
    write_png(tmp_path / "a.png", image)
    assert run(model, tmp_path / "a.png", "-o", tmp_path / "out") == 0
    expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.3)
    np.testing.assert_allclose(read_image(tmp_path / "out" / "a.png"), expected, atol=0.51)
