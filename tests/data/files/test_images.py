"""Single files: every kind that is allowed, and every way in which one can be broken."""

import io
import logging
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from data.files import DataError, decode_image, read_header, to_tensor, with_bits, with_channels, write_png
from data.files.images import read_image
from tests.data.conftest import noise_image, save

LOSSLESS = (".png", ".bmp", ".tif", ".tiff")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("extension", LOSSLESS)
def test_lossless_files_give_back_their_pixels_in_rgb_order(
    tmp_path: Path, extension: str, channels: int
) -> None:
    image = noise_image(1, channels=channels)
    save(tmp_path / f"a{extension}", image)
    np.testing.assert_array_equal(decode_image(tmp_path / f"a{extension}"), image)


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_files_come_close_to_their_pixels(tmp_path: Path, extension: str) -> None:
    rows, columns = np.mgrid[:17, :23]
    image = np.stack([rows * 10, columns * 8, rows + columns], -1).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / f"a{extension}", quality=95)
    found = decode_image(tmp_path / f"a{extension}")
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).mean() < 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bit_files_keep_every_bit(tmp_path: Path, extension: str, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 65536, (17, 23, channels)).astype(np.uint16)
    save(tmp_path / f"a{extension}", image)
    found = decode_image(tmp_path / f"a{extension}")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_written_png_is_read_back_unchanged(tmp_path: Path, dtype: type, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7, channels)).astype(dtype)
    write_png(tmp_path / "a.png", image)
    found = decode_image(tmp_path / "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_tiny_images_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "a.png", noise_image(0, *size))
    assert decode_image(tmp_path / "a.png").shape == (*size, 3)


def test_palette_image_shows_its_colours_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    palette = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 128, 0, 0, 0, 64])
    palette.save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        found = read_image(tmp_path / "a.png")
    assert found.tolist() == [[[255, 0, 0], [0, 128, 0]], [[0, 0, 64], [255, 0, 0]]]
    assert len(caplog.records) == 1
    assert "1 image with palette" in caplog.text


def test_gray_palette_counts_as_gray(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 10, 10, 200, 200, 200])
    palette.save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").tolist() == [[[10], [200]]]


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [200, 100, 0, 128]]], np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    share = 128 / 255
    blended = [round(c * share + 255 * (1 - share)) for c in (200, 100, 0)]
    assert decode_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [0, 0, 0], blended]]


def test_transparent_colour_and_gray_alpha_lie_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 90]], np.uint8)).save(tmp_path / "key.png", transparency=7)
    Image.merge("LA", (Image.new("L", (1, 1), 0), Image.new("L", (1, 1), 0))).save(tmp_path / "la.png")
    assert decode_image(tmp_path / "key.png").tolist() == [[[255], [90]]]
    assert decode_image(tmp_path / "la.png").tolist() == [[[255]]]


def test_16_bit_alpha_lies_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[1000, 2000, 3000, 65535], [5, 6, 7, 0]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), rgba[..., [2, 1, 0, 3]])
    assert decode_image(tmp_path / "a.png").tolist() == [[[1000, 2000, 3000], [65535] * 3]]
    assert read_header(tmp_path / "a.png").simplified


def test_16_bit_gray_with_alpha_stays_gray(tmp_path: Path) -> None:
    raw = struct.pack(">BHHHH", 0, 1000, 65535, 30000, 0)
    (tmp_path / "a.png").write_bytes(_png(width=2, height=1, depth=16, colour_type=4, raw=raw))
    assert decode_image(tmp_path / "a.png").tolist() == [[[1000], [65535]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_opencv_applies_it(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = cv2.GaussianBlur(noise_image(3, 16, 24), (0, 0), 3)
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    found = decode_image(tmp_path / "a.jpg")
    assert found.shape == shown.shape == (read_header(tmp_path / "a.jpg").height, shown.shape[1], 3)
    assert np.abs(found.astype(int) - shown).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_16_bit_colour_is_that_of_its_8_bit_twin(
    tmp_path: Path, orientation: int
) -> None:
    image = noise_image(3, 5, 7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", exif=exif)
    deep = cv2.imencode(".png", with_bits(image, 16)[..., ::-1])[1].tobytes()
    chunk = _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(deep[:33] + chunk + deep[33:])
    twin = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), with_bits(twin, 16))


@pytest.mark.parametrize("extension", [*LOSSLESS, ".jpg", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.95])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_truncated_file_is_refused_by_name(tmp_path: Path, extension: str, share: float) -> None:
    path = tmp_path / f"torn{extension}"
    save(path, noise_image(0, 60, 80))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="torn"):
        decode_image(path)


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_truncated_16_bit_colour_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"torn{extension}"
    save(path, np.random.default_rng(0).integers(0, 65536, (60, 80, 3)).astype(np.uint16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(0.7 * len(whole))])
    with pytest.raises(DataError, match="torn"):
        decode_image(path)


def test_zero_byte_missing_and_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "void.png").touch()
    (tmp_path / "words.png").write_text("this is no image")
    for name, complaint in (
        ("void.png", "empty"),
        ("gone.png", "no such"),
        ("words.png", "not a readable image"),
    ):
        for read in (decode_image, read_header):
            with pytest.raises(DataError, match=rf"{name}.*{complaint}"):
                read(tmp_path / name)


def test_only_the_first_page_is_read_and_that_is_said(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 3), shade) for shade in (50, 60)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert np.unique(decode_image(tmp_path / "a.tif")).tolist() == [50]
    assert read_header(tmp_path / "a.tif").simplified


def test_bilevel_and_cmyk_files_are_shown_as_gray_and_colour(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "fax.tif", compression="group4")
    Image.new("CMYK", (2, 3), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert decode_image(tmp_path / "fax.tif").tolist() == [[[255], [0]]]
    assert decode_image(tmp_path / "print.jpg").mean((0, 1)).tolist() == pytest.approx([255, 0, 0], abs=3)


def test_tensor_is_the_fraction_of_the_white_level() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = torch.arange(256).reshape(1, 16, 16) / 255
    assert torch.equal(to_tensor(image), expected)
    assert torch.equal(to_tensor(with_bits(image, 16)), expected)


def test_gray_and_colour_convert_into_each_other() -> None:
    gray = noise_image(0, channels=1)
    np.testing.assert_array_equal(with_channels(with_channels(gray, 3), 1), gray)
    colour = noise_image(1).astype(np.uint16) * 257
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(with_channels(colour, 1)[..., 0] - luma).max() < 8


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int, colour_type: int, raw: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)
