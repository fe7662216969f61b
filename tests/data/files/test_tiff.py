"""Every kind of TIFF: its pixels come out as they went in, or the file is refused by what is in it."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from data.files import DataError, decode_image, open_document, read_header
from data.files.images import read_image

Array = NDArray[Any]
RNG = np.random.default_rng(19)
H, W = 17, 23
GRAY, RGB = (RNG.integers(0, 256, shape, np.uint8) for shape in ((H, W), (H, W, 3)))
DEEP_GRAY, DEEP_RGB = (RNG.integers(0, 65536, shape).astype(np.uint16) for shape in ((H, W), (H, W, 3)))
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[40:210:17j, 60:230:23j], np.float64(120)), -1).astype(
    np.uint8
)

SHORT, LONG = 3, 4


def plain(data: bytes, order: str = "<", **tags: Any) -> bytes:
    """A TIFF of one uncompressed strip, written tag by tag; `tags` are numbers with the tag's number after a t."""
    values: dict[int, Any] = {256: W, 257: H, 258: 8, 259: 1, 262: 1, 277: 1, 278: H, 279: len(data)}
    values |= {int(name[1:]): value for name, value in tags.items()} | {273: 0}
    size = 8 + 2 + 12 * len(values) + 4
    entries, behind = b"", b""
    for tag in sorted(values):
        numbers = values[tag] if isinstance(values[tag], tuple) else (values[tag],)
        kind = LONG if tag in (273, 279) else SHORT
        body = struct.pack(f"{order}{len(numbers)}{'I' if kind == LONG else 'H'}", *numbers)
        if len(body) > 4:
            place = size + len(behind)
            behind += body + bytes(len(body) % 2)
            body = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")
    start = size + len(behind)
    at = entries.index(struct.pack(f"{order}HHI", 273, LONG, 1)) + 8
    entries = entries[:at] + struct.pack(f"{order}I", start) + entries[at + 4 :]
    mark = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return mark + struct.pack(f"{order}H", len(values)) + entries + bytes(4) + behind + data


def packed(rows: Array, bits: int) -> bytes:
    """Each row of values as a string of bits, the first of each value the highest, filled up to whole bytes."""
    lines = ["".join(f"{value:0{bits}b}" for value in row) for row in rows.reshape(len(rows), -1)]
    return b"".join(
        int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8)) for line in lines
    )


def with_tifffile(data: Array, **how: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **{"metadata": None, **how})
    return buffer.getvalue()


def with_pillow(image: Image.Image, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **how)
    return buffer.getvalue()


def levels(bits: int, *more: int) -> Array:
    return RNG.integers(0, 2**bits, (H, W, *more))


def stretched(values: Array, bits: int) -> Array:
    """The nearest of the levels of 8 or 16 bits."""
    white, kind = (255, np.uint8) if bits <= 8 else (65535, np.uint16)
    return np.floor(values * white / (2**bits - 1) + 0.5).astype(kind)


def right() -> Iterator[tuple[str, bytes, Array, int]]:
    """Name, file, pixels, and how far the pixels may be off where the file is lossy."""
    for order in "<>":
        yield f"gray 8 {order}", plain(GRAY.tobytes(), order), GRAY, 0
        yield (
            f"gray 16 {order}",
            plain(DEEP_GRAY.astype(f"{order}u2").tobytes(), order, t258=16),
            DEEP_GRAY,
            0,
        )
        colours = DEEP_RGB.astype(f"{order}u2").tobytes()
        yield f"RGB 16 {order}", plain(colours, order, t258=(16,) * 3, t262=2, t277=3), DEEP_RGB, 0
    for bits in (1, 2, 4, 6, 10, 12, 14):
        values = levels(bits)
        yield f"gray {bits}", plain(packed(values, bits), t258=bits), stretched(values, bits), 0
        white = 2**bits - 1
        inverse = plain(packed(white - values, bits), t258=bits, t262=0)
        yield f"gray {bits}, white is zero", inverse, stretched(values, bits), 0
    for bits in (4, 10, 12, 14):
        values = levels(bits, 3)
        file = plain(packed(values, bits), t258=(bits,) * 3, t262=2, t277=3)
        yield f"RGB {bits}", file, stretched(values, bits), 0
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed(GRAY & 1, 1))
    yield "gray 1, lowest bit first", plain(reversed_bits, t258=1, t266=2), stretched(GRAY & 1, 1), 0
    yield "gray 8, white is zero", plain((255 - GRAY).tobytes(), t262=0), GRAY, 0
    yield "gray 16, white is zero", with_tifffile(65535 - DEEP_GRAY, photometric="miniswhite"), DEEP_GRAY, 0

    for bits in (1, 2, 4, 8):
        places = levels(bits)
        palette = RNG.integers(0, 256, (2**bits, 3))
        map_16 = tuple((palette.T.ravel() * 257).tolist())
        yield (
            f"palette {bits}",
            plain(packed(places, bits), t258=bits, t262=3, t320=map_16),
            palette[places],
            0,
        )
    map_8 = tuple(palette.T.ravel().tolist())
    yield "palette of 8-bit values", plain(packed(places, 8), t262=3, t320=map_8), palette[places], 0
    grays = np.repeat(RNG.integers(0, 256, (256, 1)), 3, 1)
    gray_map = tuple((grays.T.ravel() * 257).tolist())
    yield "palette of grays", plain(GRAY.tobytes(), t262=3, t320=gray_map), grays[GRAY, :1], 0

    for name, image in (("8", RGB), ("16", DEEP_RGB)):
        for kind in (None, "zlib", "lzw", "packbits", "lzma", "zstd"):
            for predictor in (False, True) if kind and kind != "packbits" else (False,):
                how: dict[str, Any] = {"photometric": "rgb", "compression": kind, "predictor": predictor}
                also = f"{kind}{' with predictor' if predictor else ''}"
                yield f"RGB {name}, {also}", with_tifffile(image, **how), image, 0
                apart = with_tifffile(image.transpose(2, 0, 1), planarconfig="separate", **how)
                yield f"RGB {name}, {also}, planes apart", apart, image, 0
        tiles = with_tifffile(image, photometric="rgb", tile=(16, 16), compression="lzw")
        yield f"RGB {name}, tiles", tiles, image, 0
        tiles = with_tifffile(
            image.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", tile=(16, 16)
        )
        yield f"RGB {name}, tiles, planes apart", tiles, image, 0
        strips = with_tifffile(image, photometric="rgb", compression="zlib", rowsperstrip=3)
        yield f"RGB {name}, strips", strips, image, 0
        yield f"RGB {name}, 64-bit offsets", with_tifffile(image, photometric="rgb", bigtiff=True), image, 0
        lossless = with_tifffile(
            image, photometric="rgb", compression="jpeg2000", compressionargs={"level": 0}
        )
        yield f"RGB {name}, JPEG 2000", lossless, image, 0
    yield "RGB 8, WebP", with_tifffile(RGB, photometric="rgb", compression="webp"), RGB, 0
    bilevel = Image.fromarray(GRAY > 127)
    shown = np.where(GRAY > 127, 255, 0).astype(np.uint8)
    for kind in ("group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw"):
        yield f"fax {kind}", with_pillow(bilevel, compression=kind), shown, 0
    yield "fax white is zero", with_pillow(bilevel, compression="group4", tiffinfo={262: 0}), shown, 0
    yield "JPEG gray", with_tifffile(SMOOTH[..., 0], compression="jpeg"), SMOOTH[..., 0], 6
    yield "JPEG RGB", with_tifffile(SMOOTH, photometric="rgb", compression="jpeg"), SMOOTH, 12
    yield "JPEG of Pillow", with_pillow(Image.fromarray(SMOOTH), compression="jpeg", quality=95), SMOOTH, 12
    ycbcr = np.asarray(Image.fromarray(SMOOTH).convert("YCbCr"))
    yield "JPEG YCbCr", with_tifffile(ycbcr, photometric="ycbcr", compression="jpeg"), SMOOTH, 12
    yield "YCbCr", with_tifffile(ycbcr, photometric="ycbcr"), SMOOTH, 3
    no_ends = plain(ycbcr.tobytes(), t258=(8,) * 3, t262=6, t277=3, t530=(1, 1))
    yield "YCbCr without its ends", no_ends, SMOOTH, 3

    for name, image, white in (("8", RGB, 255), ("16", DEEP_RGB, 65535)):
        inks = np.concatenate((white - image, np.zeros_like(image[..., :1])), 2)
        yield f"CMYK {name} without black", with_tifffile(inks, photometric="separated"), image, 0
        dark = np.concatenate((image, np.full_like(image[..., :1], white)), 2)
        yield f"CMYK {name} all black", with_tifffile(dark, photometric="separated"), np.zeros_like(image), 0
    of_pillow = with_pillow(Image.fromarray(RGB).convert("CMYK"))
    yield "CMYK of Pillow", of_pillow, RGB, 1

    for name, image, gray, white in (("8", RGB, GRAY, 255), ("16", DEEP_RGB, DEEP_GRAY, 65535)):
        alpha = RNG.integers(0, white + 1, (H, W, 1))
        laid = np.floor((image * alpha + white * (white - alpha)) / white + 0.5).astype(image.dtype)
        rgba = np.concatenate((image, alpha.astype(image.dtype)), 2)
        yield f"RGBA {name}", with_tifffile(rgba, photometric="rgb", extrasamples=["unassalpha"]), laid, 0
        apart = rgba.transpose(2, 0, 1)
        how = {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]}
        yield f"RGBA {name}, planes apart", with_tifffile(apart, **how), laid, 0
        product = np.floor(image * (alpha / white) + 0.5).astype(image.dtype)
        times = np.concatenate((product, rgba[..., 3:]), 2)
        yield (
            f"RGBA {name}, multiplied",
            with_tifffile(times, photometric="rgb", extrasamples=["assocalpha"]),
            laid,
            1,
        )
        four = with_tifffile(rgba, photometric="rgb", extrasamples=["unspecified"])
        yield f"RGB {name} and infrared", four, image, 0
        both = np.stack((gray, alpha[..., 0].astype(gray.dtype)), -1)
        how = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
        laid = np.floor((gray * alpha[..., 0] + white * (white - alpha[..., 0])) / white + 0.5)
        yield f"gray and alpha {name}", with_tifffile(both, **how), laid.astype(gray.dtype), 0

    for kind in (np.float16, np.float32, np.float64):
        name = np.dtype(kind).name
        for image in (GRAY, RGB):
            photometric = "minisblack" if image.ndim == 2 else "rgb"
            values = (image / 255).astype(kind)
            wanted = np.rint(values.astype(np.float64) * 65535).astype(np.uint16)
            yield f"{photometric} {name}", with_tifffile(values, photometric=photometric), wanted, 1
        if kind is not np.float16:
            how = {"compression": "zlib", "predictor": 3}
            yield f"{name} with predictor", with_tifffile(values, photometric="rgb", **how), wanted, 0
    inverse = with_tifffile((1 - GRAY / 255).astype(np.float32), photometric="miniswhite")
    yield "float, white is zero", inverse, (GRAY.astype(np.uint16) * 257), 1
    said = [(340, 3, 1, 0, True), (341, 3, 1, 255, True)]
    of_255 = with_tifffile(GRAY.astype(np.float32), photometric="minisblack", extratags=said)
    yield "float of 0 to 255, as it says", of_255, GRAY.astype(np.uint16) * 257, 0


RIGHT = list(right())


@pytest.mark.parametrize(
    ("file", "pixels", "off"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT]
)
def test_tiff_is_read_with_the_pixels_that_were_written(
    tmp_path: Path, file: bytes, pixels: Array, off: int
) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(file)
    found = decode_image(path)
    wanted = np.atleast_3d(pixels)
    assert found.shape == wanted.shape
    assert found.dtype == (np.uint8 if wanted.dtype != np.uint16 else np.uint16)
    # By rounding alone; a share of white where colours that are nearly clear are divided by their alpha.
    assert np.abs(found.astype(int) - wanted).max() <= off
    header = read_header(path)
    assert (header.height, header.width, header.channels) == found.shape
    assert header.bits == 8 * found.itemsize


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["gray", "deep gray", "deep RGB", "palette", "fax", "LZW", "float"])
def test_tiff_is_turned_as_it_says(tmp_path: Path, kind: str, orientation: int) -> None:
    bilevel = np.where(GRAY > 127, 255, 0).astype(np.uint8)
    tag = [(274, 3, 1, orientation, True)]
    turned: dict[str, tuple[bytes, Array]] = {
        "gray": (plain(GRAY.tobytes(), t274=orientation), GRAY),
        "deep gray": (with_pillow(Image.fromarray(DEEP_GRAY), tiffinfo={274: orientation}), DEEP_GRAY),
        "deep RGB": (with_tifffile(DEEP_RGB, photometric="rgb", extratags=tag), DEEP_RGB),
        "palette": (with_pillow(Image.fromarray(GRAY).convert("P"), tiffinfo={274: orientation}), GRAY),
        "fax": (
            with_pillow(Image.fromarray(GRAY > 127), compression="group4", tiffinfo={274: orientation}),
            bilevel,
        ),
        "LZW": (with_pillow(Image.fromarray(RGB), compression="tiff_lzw", tiffinfo={274: orientation}), RGB),
        "float": (with_tifffile(GRAY / np.float32(255), extratags=tag), GRAY.astype(np.uint16) * 257),
    }
    file, stored = turned[kind]
    (tmp_path / "a.tif").write_bytes(file)
    # What the first row and the first column are, from the specification's list.
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), np.atleast_3d(shown))
    header = read_header(tmp_path / "a.tif")
    assert (header.height, header.width) == shown.shape[:2]
    with open_document(tmp_path / "a.tif", 300) as document:
        np.testing.assert_array_equal(document.read(0).pixels, np.atleast_3d(shown))


REFUSED = {
    "8-bit signed": (with_tifffile(GRAY.astype(np.int8)), "8-bit signed whole numbers"),
    "16-bit signed": (with_tifffile(DEEP_GRAY.astype(np.int16)), "16-bit signed whole numbers"),
    "32 bit": (with_tifffile(DEEP_GRAY.astype(np.uint32)), "32-bit whole numbers"),
    "64 bit": (with_tifffile(DEEP_GRAY.astype(np.uint64)), "64-bit whole numbers"),
    "complex": (with_tifffile(GRAY.astype(np.complex64)), "complex numbers"),
    "Lab": (with_pillow(Image.merge("LAB", Image.fromarray(RGB).split())), r"CIE L\*a\*b\* colours"),
    "raw mosaic": (plain(DEEP_GRAY.tobytes(), t258=16, t262=32803), "the raw mosaic of a camera"),
    "raw values": (plain(DEEP_RGB.tobytes(), t258=(16,) * 3, t262=34892, t277=3), "raw values of a camera"),
    "depth": (plain(DEEP_GRAY.tobytes(), t258=16, t262=51177), "a depth map"),
    "mask": (plain(packed(GRAY & 1, 1), t258=1, t262=4), "a transparency mask"),
    "5, 6 and 5 bits": (plain(DEEP_GRAY.tobytes(), t258=(5, 6, 5), t262=2, t277=3), "5, 6, 5 bits"),
    "other inks": (plain(RGB.tobytes() + GRAY.tobytes(), t258=(8,) * 4, t262=5, t277=4, t332=2), "other than cyan"),
    "channels of nobody knows what": (with_tifffile(RGB, photometric="minisblack", planarconfig="contig"), "3 samples"),
    "too few samples": (plain(GRAY.tobytes(), t262=2), "1 samples"),
    "thinned YCbCr": (plain(RGB.tobytes(), t258=(8,) * 3, t262=6, t277=3, t530=(2, 2)), "fewer samples of Cb and Cr"),
    "float of 0 to 255": (with_tifffile(RGB.astype(np.float32), photometric="rgb"), "float from 0 to 255"),
    "float of negative numbers": (with_tifffile(GRAY / np.float32(128) - 1), "float from -0.99"),
    "float with rare lights": (with_tifffile(np.where(GRAY > 250, 80.0, GRAY / 255)), "float from 0.003922 to 80"),
    "CMYK of floats": (with_tifffile(np.ones((H, W, 4), np.float32), photometric="separated"), "32-bit floats"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_tiff_that_is_not_known_to_be_read_right_is_refused_by_what_it_holds(
    tmp_path: Path, kind: str
) -> None:
    file, said = REFUSED[kind]
    (tmp_path / "a.tif").write_bytes(file)
    with pytest.raises(DataError, match=rf"a\.tif.*{said}.*allowed are gray, RGB") as error:
        decode_image(tmp_path / "a.tif")
    assert "\n" not in str(error.value)


def test_not_a_number_is_counted_by_pixel(tmp_path: Path) -> None:
    values = RGB / np.float32(255)
    values[3, 4, 1] = values[3, 4, 2] = np.nan
    values[5, 6, 0] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    with pytest.raises(DataError, match=rf"a\.tif: 2 of {H * W} pixels are no numbers"):
        decode_image(tmp_path / "a.tif")


def test_floats_beyond_white_are_clipped_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.array([[0, 0.25, 0.5, 1, 1.5, -0.1] + [0.75] * 20], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = read_image(tmp_path / "a.tif")
    assert found[0, :6, 0].tolist() == [0, 16384, 32768, 65535, 65535, 0]
    assert "1 image of floats of 32 bits" in caplog.text and "what lies outside is clipped" in caplog.text


def test_range_of_the_picture_is_not_taken_for_black_and_white(tmp_path: Path) -> None:
    values = np.array([[0, 0.25, 0.75]], np.float32)
    tags = [(340, 11, 1, 0.0, True), (341, 11, 1, 0.75, True)]
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=tags)
    assert decode_image(tmp_path / "a.tif").ravel().tolist() == [0, 16384, 49151]


@pytest.mark.parametrize(
    "kind", [None, "zlib", "lzw", "packbits", "lzma", "zstd", "jpeg", "jpeg2000", "webp"]
)
@pytest.mark.parametrize("share", [0.3, 0.95])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_tiff_cut_short_is_refused_whatever_compresses_it(
    tmp_path: Path, kind: str | None, share: float
) -> None:
    image = RNG.integers(0, 256, (60, 80, 3), np.uint8)
    whole = with_tifffile(image, photometric="rgb", compression=kind)
    (tmp_path / "torn.tif").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="torn"):
        decode_image(tmp_path / "torn.tif")


def test_small_copies_of_a_picture_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(RGB, photometric="rgb", metadata=None)
        file.write(RGB[::-1], photometric="rgb", metadata=None)
    with open_document(tmp_path / "a.tif", 300) as document:
        assert document.pages == 2
        np.testing.assert_array_equal(document.read(0).pixels, RGB)
        np.testing.assert_array_equal(document.read(1).pixels, RGB[::-1])
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), RGB)


def test_pages_of_one_file_may_differ_in_every_way(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GRAY, photometric="minisblack", metadata=None)
        file.write(DEEP_RGB, photometric="rgb", compression="lzw", metadata=None)
    with open_document(tmp_path / "a.tif", 300) as document:
        np.testing.assert_array_equal(document.read(0).pixels[..., 0], GRAY)
        np.testing.assert_array_equal(document.read(1).pixels, DEEP_RGB)


def test_stack_of_imagej_with_the_tags_of_one_picture_is_told(tmp_path: Path) -> None:
    stack = RNG.integers(0, 65536, (5, H, W)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, truncate=True)
    assert read_header(tmp_path / "stack.tif").simplified
    with open_document(tmp_path / "stack.tif", 300) as document:
        page = document.read(0)
    np.testing.assert_array_equal(page.pixels[..., 0], stack[0])
    assert page.notes == ["the first of 5 pictures was taken"]
