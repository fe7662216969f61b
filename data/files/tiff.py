"""TIFF files: the samples that scanners, cameras and programs store in them, as gray or RGB pixels.

tifffile undoes compression, predictors and byte order. What samples mean is decided here, from the tags of
TIFF 6.0 (Adobe, 1992). What is not known to be right is refused by name.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from data.files.header import DataError, Header, Pixels, check_memory, check_size

# What it finds odd either does not matter or ends in an exception.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_BITS, _PHOTOMETRIC, _ORIENTATION, _INK_SET, _ICC = 258, 262, 274, 332, 34675
_RESOLUTION = (282, 283, 296)
_YCBCR_WEIGHTS, _REFERENCE_BLACK_WHITE = 529, 532
_SMALLEST, _LARGEST = 340, 341
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_REFUSED = {
    4: "a transparency mask",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "the raw mosaic of a camera",
    32844: "LogL values",
    32845: "LogLuv values",
    34892: "raw values of a camera",
    51177: "a depth map",
}
_ALLOWED = (
    "allowed are gray, RGB, palette, CMYK and YCbCr of up to 16 bits, or gray and RGB floats from 0 to 1"
)
_JPEG = (6, 7, 33007, 34892)
"""Compressions that give RGB where the file says YCbCr."""
_MOST_OUTSIDE = 0.1
"""Floats of which more than this share lies outside of 0 to 1 are meant in another range."""
_BRIGHTEST = 16.0
"""As are floats beyond this: the brightest highlights of a picture whose white is 1 stay below."""


class TiffFile:
    """An open TIFF file. `pages` are its pictures; reduced copies and masks are none."""

    format = "TIFF"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = tifffile.TiffFile(path)
        try:
            found: Sequence[Any] = [self._file.pages[n] for n in range(len(self._file.pages))]
        except BaseException:
            self.close()
            raise
        self._pages = [page for page in found if not page.is_reduced and not page.is_mask] or found
        self.pages = len(self._pages)
        # ImageJ writes stacks of which only the first picture has tags.
        of_imagej = (self._file.imagej_metadata or {}).get("images", 1) if self._file.is_imagej else 1
        self._pictures = max(int(of_imagej), self.pages)

    def close(self) -> None:
        self._file.close()

    def header(self, number: int) -> Header:
        """Of page `number`, from 0. Raises DataError for pixels that are not read."""
        page = self._pages[number]
        check_size(self.path, page.imagelength, page.imagewidth)
        photometric, depth = self._known(page)
        height, width = page.imagelength, page.imagewidth
        if self.orientation(number) >= 5:
            height, width = width, height
        floats = _is_float(page)
        channels: Literal[1, 3] = 1 if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) else 3
        if photometric == _PALETTE and _is_gray(_palette(page)):
            channels = 1
        more = page.samplesperpixel > _COLOURS[photometric]
        return Header(
            height=height,
            width=width,
            channels=channels,
            bits=16 if floats or (depth > 8 and photometric != _PALETTE) else 8,
            simplified=photometric == _PALETTE or more or self._pictures > 1,
            stored_bits=depth,
            note=_note(depth, _float_white(page)) if floats else "",
            inks=photometric == _CMYK,
            losses=(*self._hidden(), *_losses(page, photometric, depth)),
        )

    def orientation(self, number: int) -> int:
        """1 (upright) to 8."""
        value = _value(self._pages[number], _ORIENTATION, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    def layers(self, number: int) -> Pixels:
        """The pixels as they are stored, not turned: (H, W, C), C = 1, 3 or, with alpha, 4 (RGBA)."""
        page = self._pages[number]
        photometric, depth = self._known(page)
        check_memory(self.path, page.imagelength, page.imagewidth, page.samplesperpixel * max(depth // 8, 1))
        self._check_length(page)
        samples = page.asarray(maxworkers=1).reshape(page.shaped)
        # From (separate samples, depth, height, width, interleaved samples), of which one kind is 1.
        samples = np.moveaxis(samples[:, 0], 0, -2).reshape(page.imagelength, page.imagewidth, -1)
        colours = _COLOURS[photometric]
        alpha, multiplied = _alpha(page, colours)
        if _is_float(page):
            pixels = self._of_floats(page, samples[..., [*range(colours), *alpha]])
            if photometric == _WHITE_IS_ZERO:
                pixels[..., 0] = 65535 - pixels[..., 0]
            return _with_alpha(pixels[..., :colours], pixels[..., colours:], multiplied)
        white = 2**depth - 1
        found = samples[..., :colours]
        match photometric:
            case 0:  # white is zero
                found = (white - found.astype(np.uint32)).astype(np.uint16)
            case 3:
                found, white = _palette(page)[found[..., 0].astype(np.intp)], 255
            case 5:
                found = _from_inks(found, white)
            case 6 if page.compression not in _JPEG:
                found = self._from_ycbcr(page, found, white)
        seen = _scaled(found, white)
        of_alpha = _scaled(samples[..., alpha], 2**depth - 1)
        if of_alpha.dtype != seen.dtype:  # 16-bit indices of an 8-bit palette
            of_alpha = (of_alpha // 257).astype(seen.dtype)
        return _with_alpha(seen, of_alpha, multiplied)

    def profile(self, number: int) -> bytes | None:
        """The ICC profile."""
        found = _value(self._pages[number], _ICC, None)
        return bytes(found) if found else None

    def resolution(self, number: int) -> tuple[float, float] | None:
        """Dots per inch, across and down."""
        across, down, unit = (_value(self._pages[number], tag, None) for tag in _RESOLUTION)
        per_inch = {2: 1.0, 3: 2.54}.get(int(unit or 2))
        try:
            return (per_inch * across[0] / across[1], per_inch * down[0] / down[1]) if per_inch else None
        except (TypeError, IndexError, ZeroDivisionError):
            return None

    def exif(self, number: int) -> Image.Exif:
        """All tags of the page, and its folders of camera settings and place. Read from the open file."""
        found = Image.Exif()
        found.endian, found.bigtiff = self._file.byteorder, self._file.is_bigtiff
        found.load_from_fp(cast(IO[bytes], self._file.filehandle), self._pages[number].offset)
        return found

    def _hidden(self) -> tuple[str, ...]:
        return (f"the first of {self._pictures} pictures was taken",) if self._pictures > self.pages else ()

    def _known(self, page: Any) -> tuple[int, int]:
        """PhotometricInterpretation and bits of a sample, of pixels that are read. Raises DataError for others."""
        if _PHOTOMETRIC not in page.tags:
            raise self._refusal("does not say whether it is gray or colour (no PhotometricInterpretation)")
        photometric, depth = int(page.photometric), page.bitspersample
        if photometric in _REFUSED or photometric not in _COLOURS:
            raise self._refusal(f"holds {_REFUSED.get(photometric, f'colours of kind {photometric}')}")
        bits = _value(page, _BITS, depth)
        if isinstance(bits, tuple) and len(set(bits)) > 1:
            raise self._refusal(f"has samples of {', '.join(map(str, bits))} bits in one pixel")
        kind = {1: "whole numbers", 2: "signed whole numbers", 3: "floats", 6: "complex numbers"}.get(
            int(page.sampleformat), "values of no known kind"
        )
        floats = _is_float(page)
        wrong = photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) if floats else depth > 16
        if wrong or int(page.sampleformat) not in (1, 3, 4) or page.dtype is None:
            raise self._refusal(f"holds pixels of type {depth}-bit {kind}")
        if page.imagedepth != 1:
            raise self._refusal("holds a volume")
        more = page.samplesperpixel - _COLOURS[photometric]
        gray = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)
        if more < 0 or (gray and more > 0 and not _alpha(page, _COLOURS[photometric])[0]):
            raise self._refusal(f"has {page.samplesperpixel} samples a pixel, and does not say of what")
        if photometric == _CMYK and _value(page, _INK_SET, 1) != 1:
            raise self._refusal("holds inks other than cyan, magenta, yellow and black")
        if (
            photometric == _YCBCR
            and page.compression not in _JPEG
            and tuple(page.subsampling or ()) != (1, 1)
        ):
            raise self._refusal("holds YCbCr colours with fewer samples of Cb and Cr, not compressed as JPEG")
        return photometric, depth

    def _refusal(self, what: str) -> DataError:
        return DataError(f"{self.path}: {what}, which is not supported; {_ALLOWED}")

    def _check_length(self, page: Any) -> None:
        end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        length = self.path.stat().st_size
        if end > length or not page.dataoffsets or 0 in page.databytecounts:
            raise DataError(
                f"{self.path}: cannot be read, damaged or cut short (of {end} bytes {length} are there)"
            )

    def _of_floats(self, page: Any, samples: Pixels) -> Pixels:
        """16-bit pixels of floats whose black is 0 and whose white is 1, or as the file says."""
        values: NDArray[np.floating] = samples.astype(
            np.float64 if samples.dtype.itemsize == 8 else np.float32
        )
        if (bad := int((~np.isfinite(values)).any(2).sum())) > 0:
            raise DataError(
                f"{self.path}: {bad} of {values.shape[0] * values.shape[1]} pixels are no numbers (NaN or infinite)"
            )
        values = values / values.dtype.type(_float_white(page))
        low, high = float(values.min()), float(values.max())
        outside = float(((values < 0) | (values > 1)).mean())
        if outside > _MOST_OUTSIDE or high > _BRIGHTEST or low < -_BRIGHTEST:
            white = _float_white(page)
            raise self._refusal(f"holds pixels of type float from {low * white:.4g} to {high * white:.4g}")
        return np.asarray(np.rint(values.clip(0, 1) * 65535)).astype(np.uint16)

    def _from_ycbcr(self, page: Any, samples: Pixels, white: int) -> Pixels:
        """RGB of the same range (TIFF 6.0, section 21)."""
        red, green, blue = _fractions(_value(page, _YCBCR_WEIGHTS, None), 3) or (0.299, 0.587, 0.114)
        middle = (white + 1) // 2
        usual = (0, white, middle, white, middle, white)
        ends = np.array(_fractions(_value(page, _REFERENCE_BLACK_WHITE, None), 6) or usual, np.float64)
        ranges = np.array([white, white - middle, white - middle])
        y, cb, cr = np.moveaxis((samples - ends[::2]) * ranges / (ends[1::2] - ends[::2]), -1, 0)
        r, b = cr * (2 - 2 * red) + y, cb * (2 - 2 * blue) + y
        g = (y - blue * b - red * r) / green
        return np.asarray(np.rint(np.stack((r, g, b), -1).clip(0, white))).astype(np.uint16)


def _value(page: Any, tag: int, default: Any) -> Any:
    return page.tags[tag].value if tag in page.tags else default


def _fractions(value: Any, count: int) -> tuple[float, ...] | None:
    """Numbers from pairs of numerator and denominator."""
    if not isinstance(value, tuple) or len(value) != 2 * count or 0 in value[1::2]:
        return None
    return tuple(a / b for a, b in zip(value[::2], value[1::2], strict=True))


def _is_float(page: Any) -> bool:
    return int(page.sampleformat) == 3


def _float_white(page: Any) -> float:
    """The value of white: 1, or a whole number that the file says with 0 as black.

    Programs also write the darkest and brightest value of the picture there, which would stretch it.
    """
    low, high = (_value(page, tag, None) for tag in (_SMALLEST, _LARGEST))
    low, high = (min(value) if isinstance(value, tuple) and value else value for value in (low, high))
    whole = isinstance(high, (int, float)) and high >= 1 and float(high).is_integer()
    return float(high) if low == 0 and whole else 1.0


def _note(depth: int, white: float) -> str:
    return (
        f"floats of {depth} bits, read with 0 as black and {white:g} as white; what lies outside is clipped"
    )


def _losses(page: Any, photometric: int, depth: int) -> tuple[str, ...]:
    if _is_float(page):
        return (
            f"floats of {depth} bits became whole numbers of 16, cut off below 0 and above {_float_white(page):g}",
        )
    if depth == 1 and photometric != _PALETTE:
        return ("black and white became gray",)
    alpha, _ = _alpha(page, _COLOURS[photometric])
    more = page.samplesperpixel - _COLOURS[photometric] - len(alpha)
    return (f"{more} further samples of each pixel are gone",) if more else ()


def _palette(page: Any) -> Pixels:
    """(colours, 3) uint8. Some programs write values of 8 bits into it and not of 16."""
    colours = np.asarray(page.colormap).reshape(3, -1).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _is_gray(palette: Pixels) -> bool:
    return bool((palette == palette[:, :1]).all())


def _alpha(page: Any, colours: int) -> tuple[list[int], bool]:
    """The position of the alpha sample, in a list of one or none, and whether colours are multiplied by it."""
    for place, kind in enumerate(page.extrasamples):
        if int(kind) in (1, 2):
            return [colours + place], int(kind) == 1
    return [], False


def _from_inks(samples: Pixels, white: int) -> Pixels:
    """RGB of the same range: inks that each take away their share of the light."""
    inks = samples.astype(np.uint32)
    left = white - inks[..., :3]
    black = white - inks[..., 3:]
    return np.asarray((left * black + white // 2) // white).astype(np.uint16)


def _scaled(samples: Pixels, white: int) -> Pixels:
    """Whole numbers from 0 to `white` as uint8 up to 255, else as uint16, over their full range."""
    full = 255 if white <= 255 else 65535
    if white != full:
        samples = (samples.astype(np.uint32) * full + white // 2) // white
    return samples.astype(np.uint8 if full == 255 else np.uint16)


def _with_alpha(pixels: Pixels, alpha: Pixels, multiplied: bool) -> Pixels:
    """RGBA where there is alpha; colours that are multiplied by it are divided again."""
    if not alpha.shape[2]:
        return pixels
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, 2)
    if multiplied:
        white = np.uint64(np.iinfo(pixels.dtype).max)
        share = np.maximum(alpha, 1).astype(np.uint64)
        pixels = np.minimum((pixels * white + share // 2) // share, white).astype(pixels.dtype)
    return np.concatenate((pixels, alpha), 2)
