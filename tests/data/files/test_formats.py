"""Files of every format that is read, and what is said of those that are not."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from data.files import DataError, decode_image, left_out, open_document, read_header
from data.files.formats import CAMERA_RAW

Array = NDArray[Any]
RNG = np.random.default_rng(7)
H, W = 17, 23
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[40:210:17j, 60:230:23j], np.float64(120)), -1).astype(
    np.uint8
)


def png(depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes], interlace: int = 0) -> bytes:
    """A PNG of W x H, chunk by chunk; each of `rows` begins with its filter."""
    head = struct.pack(">IIBBBBB", W, H, depth, kind, 0, 0, interlace)
    parts = ((b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )


def rows(values: Array, depth: int) -> bytes:
    lines = ["".join(f"{value:0{depth}b}" for value in row) for row in values.reshape(len(values), -1)]
    return b"".join(
        b"\0" + int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8)) for line in lines
    )


def interlaced(values: Array, depth: int) -> bytes:
    """The seven passes of Adam7."""
    passes = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    parts = (values[top::down, left::right] for top, down, left, right in passes)
    return b"".join(rows(part, depth) for part in parts if part.size)


def on_white(colour: Array, alpha: Array, white: int) -> Array:
    return np.floor((colour * alpha + white * (white - alpha)) / white + 0.5)


def pngs() -> dict[str, tuple[bytes, Array]]:
    """File and pixels by name."""
    made: dict[str, tuple[bytes, Array]] = {}
    for depth in (1, 2, 4, 8, 16):
        full = 255 if depth <= 8 else 65535
        scale, gray = full // (2**depth - 1), RNG.integers(0, 2**depth, (H, W, 1))
        made[f"gray {depth}"] = png(depth, 0, rows(gray, depth)), gray * scale
        made[f"gray {depth}, interlaced"] = png(depth, 0, interlaced(gray, depth), interlace=1), gray * scale
        key = int(gray[3, 4, 0])
        shown = np.where(gray == key, full, gray * scale)
        made[f"gray {depth}, one value clear"] = (
            png(depth, 0, rows(gray, depth), (b"tRNS", struct.pack(">H", key))),
            shown,
        )
        if depth <= 8:
            palette = RNG.integers(0, 256, (2**depth, 3))
            table = (b"PLTE", palette.astype(np.uint8).tobytes())
            made[f"palette {depth}"] = png(depth, 3, rows(gray, depth), table), palette[gray[..., 0]]
            alpha = RNG.integers(0, 256, 2**depth)
            clear = (b"tRNS", alpha.astype(np.uint8).tobytes())
            shown = on_white(palette, alpha[:, None], 255)[gray[..., 0]]
            made[f"palette {depth}, partly clear"] = png(depth, 3, rows(gray, depth), table, clear), shown
        if depth >= 8:
            colour, alpha = RNG.integers(0, full + 1, (H, W, 3)), RNG.integers(0, full + 1, (H, W, 1))
            made[f"RGB {depth}"] = png(depth, 2, rows(colour, depth)), colour
            made[f"RGB {depth}, interlaced"] = png(depth, 2, interlaced(colour, depth), interlace=1), colour
            gamma = (b"gAMA", struct.pack(">I", 100000))
            made[f"RGB {depth} with gamma"] = png(depth, 2, rows(colour, depth), gamma), colour
            key = tuple(colour[3, 4].tolist())
            shown = np.where((colour == key).all(2, keepdims=True), full, colour)
            one = (b"tRNS", struct.pack(">HHH", *key))
            made[f"RGB {depth}, one colour clear"] = png(depth, 2, rows(colour, depth), one), shown
            rgba = np.concatenate((colour, alpha), 2)
            made[f"RGBA {depth}"] = png(depth, 6, rows(rgba, depth)), on_white(colour, alpha, full)
            made[f"RGBA {depth}, interlaced"] = (
                png(depth, 6, interlaced(rgba, depth), interlace=1),
                on_white(colour, alpha, full),
            )
            both = np.concatenate((gray, alpha), 2)
            made[f"gray and alpha {depth}"] = png(depth, 4, rows(both, depth)), on_white(gray, alpha, full)
    return made


PNGS = pngs()


@pytest.mark.parametrize("kind", PNGS)
def test_png_shows_the_pixels_that_were_written(tmp_path: Path, kind: str) -> None:
    file, pixels = PNGS[kind]
    (tmp_path / "a.png").write_bytes(file)
    found = decode_image(tmp_path / "a.png")
    assert found.dtype == (np.uint16 if "16" in kind else np.uint8)
    np.testing.assert_array_equal(found, pixels)
    header = read_header(tmp_path / "a.png")
    assert (header.height, header.width, header.channels, header.bits) == (*found.shape, 8 * found.itemsize)


def encoded(image: Image.Image, kind: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def others() -> dict[str, tuple[str, bytes, Array, int]]:
    """Extension, file, pixels, and the largest difference, by name."""
    picture, gray = Image.fromarray(SMOOTH), Image.fromarray(SMOOTH[..., 0])
    inverse = Image.fromarray(255 - np.concatenate((SMOOTH, np.full((H, W, 1), 255, np.uint8)), 2), "CMYK")
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette = picture.quantize(255)
    shown = np.asarray(palette.convert("RGB"))
    bgr555 = (SMOOTH >> 3).astype(np.uint16)
    words = (bgr555[..., 0] << 10 | bgr555[..., 1] << 5 | bgr555[..., 2]).astype("<u2")
    lines = np.pad(words, ((0, 0), (0, W % 2)))[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 16, 0, len(lines), 2835, 2835, 0, 0)
    bmp555 = b"BM" + struct.pack("<IHHI", 54 + len(lines), 0, 0, 54) + head + lines
    alpha = RNG.integers(0, 256, (H, W, 1), np.uint8)
    rgba = Image.fromarray(np.concatenate((SMOOTH, alpha), 2))
    laid = on_white(SMOOTH.astype(int), alpha.astype(int), 255)
    return {
        "JPEG": (".jpg", encoded(picture, "JPEG", quality=95), SMOOTH, 10),
        "JPEG, progressive": (".jpg", encoded(picture, "JPEG", quality=95, progressive=True), SMOOTH, 10),
        "JPEG, gray": (".jpg", encoded(gray, "JPEG", quality=95), SMOOTH[..., :1], 6),
        "JPEG, stored as RGB": (".jpg", encoded(picture, "JPEG", quality=95, keep_rgb=True), SMOOTH, 6),
        "JPEG, CMYK": (".jpg", encoded(inverse, "JPEG", quality=95), SMOOTH, 6),
        "JPEG, turned": (".jpg", encoded(picture, "JPEG", quality=95, exif=turned), np.rot90(SMOOTH, -1), 10),
        "JPEG with a profile": (".jpg", encoded(picture, "JPEG", quality=95, icc_profile=wide), SMOOTH, 10),
        "WebP": (".webp", encoded(picture, "WEBP", lossless=True), SMOOTH, 0),
        "WebP, lossy": (".webp", encoded(picture, "WEBP", quality=95), SMOOTH, 12),
        "WebP with alpha": (".webp", encoded(rgba, "WEBP", lossless=True, exact=True), laid, 0),
        "WebP, turned": (".webp", encoded(picture, "WEBP", lossless=True, exif=turned), np.rot90(SMOOTH, -1), 0),
        "AVIF": (".avif", encoded(picture, "AVIF", quality=100, subsampling="4:4:4"), SMOOTH, 4),
        "AVIF, turned": (
            ".avif",
            encoded(picture, "AVIF", quality=100, subsampling="4:4:4", exif=turned),
            np.rot90(SMOOTH, -1),
            4,
        ),
        "BMP": (".bmp", encoded(picture, "BMP"), SMOOTH, 0),
        "BMP, gray": (".bmp", encoded(gray, "BMP"), SMOOTH[..., :1], 0),
        "BMP, palette": (".bmp", encoded(palette, "BMP"), shown, 0),
        "BMP, 1 bit": (".bmp", encoded(gray.convert("1", dither=0), "BMP"), np.where(SMOOTH[..., :1] > 127, 255, 0), 0),
        "BMP, 5 bits a colour": (".bmp", bmp555, np.floor(bgr555 * 255 / 31 + 0.5), 1),
        "GIF under another name": (".png", encoded(palette, "GIF"), shown, 0),
    }  # fmt: skip


OTHERS = others()


@pytest.mark.parametrize("kind", OTHERS)
def test_other_formats_show_the_pixels_that_were_written(tmp_path: Path, kind: str) -> None:
    extension, file, pixels, off = OTHERS[kind]
    (tmp_path / f"a{extension}").write_bytes(file)
    found = decode_image(tmp_path / f"a{extension}")
    assert found.shape == pixels.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - pixels).max() <= off
    header = read_header(tmp_path / f"a{extension}")
    assert (header.height, header.width, header.channels) == found.shape


def test_adobe_ycck_jpeg_is_read_as_opencv_reads_it(tmp_path: Path) -> None:
    # Pillow writes CMYK alone. With the transform of Adobe's marker set to 2 the same samples are YCCK.
    inks = Image.fromarray(np.concatenate((SMOOTH, SMOOTH[..., :1]), 2), "CMYK")
    file = encoded(inks, "JPEG", quality=95)
    at = file.index(b"Adobe") + 11
    (tmp_path / "a.jpg").write_bytes(file[:at] + b"\2" + file[at + 1 :])
    other = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decode_image(tmp_path / "a.jpg").astype(int) - other).max() <= 3


@pytest.mark.parametrize(
    ("module", "kind", "extension"), [("pillow_heif", "HEIF", ".heic"), ("pillow_jxl", "JXL", ".jxl")]
)
def test_formats_of_further_packages_are_read_where_these_are_installed(
    tmp_path: Path, module: str, kind: str, extension: str
) -> None:
    package = pytest.importorskip(module)
    if kind == "HEIF":
        package.register_heif_opener()
    large = np.kron(SMOOTH, np.ones((4, 4, 1), np.uint8))  # small ones are padded
    options = {"quality": 100} | ({"chroma": 444} if kind == "HEIF" else {"lossless": True})
    file = encoded(Image.fromarray(large), kind, **options)
    for name in (f"a{extension}", "under another name.jpg"):
        (tmp_path / name).write_bytes(file)
        assert np.abs(decode_image(tmp_path / name).astype(int) - large).max() <= 6
    with open_document(tmp_path / f"a{extension}", 72) as document:
        assert document.size == large.shape[:2]


@pytest.mark.parametrize(
    ("module", "start"), [("pillow_heif", b"\0\0\0\x18ftypheic"), ("pillow_jxl", b"\xff\x0a")]
)
def test_missing_package_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, start: bytes
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "phone.jpg").write_bytes(start + bytes(100))
    extra = {"pillow_heif": "heic", "pillow_jxl": "jxl"}[module]
    with pytest.raises(DataError, match=rf"phone\.jpg.*pip install 'restune\[{extra}\]'"):
        decode_image(tmp_path / "phone.jpg")


def test_files_left_out_are_counted_by_format_with_what_to_do() -> None:
    names = ("a.GIF", "b.gif", "c.cr2", "d.pdf", "e.png", "notes.txt", "Thumbs.db", "f.exr")
    said = left_out(map(Path, names))
    assert said == (
        "1 file left out: .cr2 is not read (camera RAW: develop it to TIFF or PNG); "
        "1 file left out: .exr is not read (save as PNG or TIFF); "
        "2 files left out: .gif is not read (save as PNG or TIFF); "
        "1 file left out: .pdf is not read (draw its pages as PNG; restore reads it)"
    )
    assert ".pdf" not in left_out(map(Path, names), documents=True)
    assert left_out([Path("a.png"), Path("notes.txt")]) == ""
    assert all(left_out([Path(f"a{extension}")]) for extension in CAMERA_RAW)


def test_formats_without_their_package_are_left_out_with_its_command() -> None:
    code = (
        "import importlib.util as u; found = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name.startswith('pillow_') else found(name, *a); "
        "from pathlib import Path; from data.files.formats import EXTENSIONS, left_out; "
        "assert not {'.heic', '.jxl'} & {*EXTENSIONS}; print(left_out([Path('a.heic'), Path('b.HEIC'), Path('c.jxl')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout == (
        "2 files left out: .heic is not read (pip install 'restune[heic]'); "
        "1 file left out: .jxl is not read (pip install 'restune[jxl]')\n"
    ), done.stderr


def bmp_with_masks(alpha: int) -> bytes:
    """A BMP of 32 bits that says where its alpha is, filled with one value of it."""
    pixels = np.concatenate((SMOOTH[..., ::-1], np.full((H, W, 1), alpha, np.uint8)), 2)[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, W, H, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(64)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


@pytest.mark.parametrize(
    ("alpha", "shown"), [(0, SMOOTH), (255, SMOOTH), (51, on_white(SMOOTH.astype(int), np.array(51), 255))]
)
def test_bmp_whose_alpha_is_empty_is_not_clear_all_over(tmp_path: Path, alpha: int, shown: Array) -> None:
    (tmp_path / "a.bmp").write_bytes(bmp_with_masks(alpha))
    np.testing.assert_array_equal(decode_image(tmp_path / "a.bmp"), shown)


def test_jpeg_of_12_bits_is_refused_as_such(tmp_path: Path) -> None:
    file = bytearray(encoded(Image.fromarray(SMOOTH), "JPEG"))
    file[file.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(file)
    with pytest.raises(DataError, match=r"a\.jpg: a JPEG of a kind that is not supported \(12 bit"):
        decode_image(tmp_path / "a.jpg")


def test_jpeg_without_its_last_bytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(SMOOTH), "JPEG")[:-40])
    with pytest.raises(DataError, match=r"a\.jpg.*cut short"):
        decode_image(tmp_path / "a.jpg")


def test_orientation_in_png_counts_only_before_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    body = rows(SMOOTH.astype(int), 8)
    before = png(8, 2, body, chunk)
    name, content = chunk
    end = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    plain = png(8, 2, body)
    for file, shown in ((before, np.rot90(SMOOTH, -1)), (plain[:-12] + end + plain[-12:], SMOOTH)):
        (tmp_path / "a.png").write_bytes(file)
        np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), shown)
