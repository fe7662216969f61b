"""Opening an image file with the library that reads its format right."""

import contextlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from data.files.formats import EXTENSIONS, OPTIONAL
from data.files.header import DataError, Header, Pixels, check_memory, check_size
from data.files.tiff import SIGNATURES, TiffFile

# Sizes are checked by `check_size`, which names them; Pillow would take a scan of a large sheet for an attack.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112


class ImageFile(Protocol):
    """An open image file of one or more pages."""

    format: str
    """PNG, JPEG, TIFF, ..., whatever its name says."""
    pages: int

    def header(self, number: int) -> Header:
        """Of page `number`, from 0; decodes no pixels. Raises DataError for pixels that are not read."""

    def orientation(self, number: int) -> int:
        """The EXIF orientation, 1 (upright) to 8."""

    def layers(self, number: int) -> Pixels:
        """The pixels as they are stored, not turned: (H, W, C), C = 1, 3 or, with alpha, 4 (RGBA).

        Gray images with alpha are RGBA too. Raises whatever the decoders raise.
        """

    def profile(self, number: int) -> bytes | None:
        """The ICC profile."""

    def resolution(self, number: int) -> tuple[float, float] | None:
        """Dots per inch, across and down."""

    def exif(self, number: int) -> Image.Exif | None: ...

    def close(self) -> None: ...


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile]:
    """The open file. Raises DataError for what is no image."""
    with reading(path):
        opened = _opened(path)
    with contextlib.closing(opened):
        yield opened


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Every exception that reading a file raises becomes a DataError that names it."""
    try:
        yield
    except DataError:
        raise
    # Decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error, ... for broken files.
    except Exception as error:
        raise DataError(_cannot_read(path, error)) from error


def upright_layers(path: Path, file: ImageFile, number: int) -> Pixels:
    """The pixels of a page as they are shown: (H, W, C), C = 1, 3 or 4 (RGBA)."""
    header = file.header(number)
    pixels = _upright(file.layers(number), file.orientation(number))
    if pixels.shape[:2] != (header.height, header.width):
        raise DataError(f"{path}: header promises {header.width}x{header.height}, pixels are {pixels.shape}")
    return pixels


def _opened(path: Path) -> ImageFile:
    if not path.is_file():
        raise DataError(f"{path}: no such image file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    with path.open("rb") as file:
        start = file.read(16)
    if start[:4] in SIGNATURES:
        return TiffFile(path)
    module = "pillow_heif" if _is_heic(start) else "pillow_jxl" if _is_jxl(start) else None
    if module is not None:
        _register(path, module)
    try:
        return _PillowFile(path, Image.open(path))
    except UnidentifiedImageError:
        if not start.startswith(b"\xff\xd8"):
            raise
        raise DataError(
            f"{path}: a JPEG of a kind that is not supported (12 bit, lossless or damaged); save as PNG or TIFF"
        ) from None


def _register(path: Path, module: str) -> None:
    """Let Pillow know the package that reads a file. Raises DataError with the command that installs it."""
    try:
        package = importlib.import_module(module)
    except ImportError:
        extra = next(extra for name, extra in OPTIONAL.values() if name == module)
        raise DataError(
            f"{path}: {extra.upper()} is not supported without a further package: pip install 'restune[{extra}]'"
        ) from None
    if module == "pillow_heif":
        package.register_heif_opener()


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def _is_jxl(start: bytes) -> bool:
    return start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))


class _PillowFile:
    """A file that Pillow opens: all but TIFF. Several frames are a film or previews, never pages."""

    pages = 1

    def __init__(self, path: Path, image: Image.Image) -> None:
        self.path, self.image, self.format = path, image, image.format or ""
        self.mode = image.mode
        # To look for EXIF behind the pixels of a PNG, they would be decoded; it does not count there.
        self.has_exif = self.format != "PNG" or "exif" in image.info
        self.png_bits = self._png(24) if self.format == "PNG" else 8

    def close(self) -> None:
        self.image.close()

    def header(self, number: int) -> Header:
        image, mode = self.image, self.mode
        check_size(self.path, image.height, image.width)
        if mode in ("F", "I", "LAB", "HSV"):
            raise DataError(f"{self.path}: pixels of type {mode}; allowed are gray and RGB with 8 or 16 bit")
        palette = mode in ("P", "PA")
        gray = mode in ("1", "L", "LA", "La") or mode.startswith("I;16") or (palette and _gray_palette(image))
        deep = mode.startswith("I;16")
        if self.format == "PNG":
            # Pillow shows 16-bit colour as 8-bit, and gray with alpha as RGBA.
            deep, gray = self.png_bits == 16, gray or self._png(25) == 4
        width, height = image.size
        if self.orientation(number) >= 5:
            width, height = height, width
        # A phone's MPO is a JPEG with previews behind it, not a film.
        film = self.frames > 1 and self.format != "MPO"
        return Header(
            height=height,
            width=width,
            channels=1 if gray else 3,
            bits=16 if deep else 8,
            simplified=palette or film or "A" in mode or "a" in mode or "transparency" in image.info,
            stored_bits=16 if deep else 8,
            inks=mode in ("CMYK", "YCCK"),
            losses=self._losses(),
        )

    def _png(self, place: int) -> int:
        """A byte of the header: 24 is the bit depth, 25 the kind of colour."""
        with self.path.open("rb") as file:
            return file.read(26)[place]

    @cached_property
    def frames(self) -> int:
        return int(getattr(self.image, "n_frames", 1))

    def _losses(self) -> tuple[str, ...]:
        if self.frames > 1 and self.format in ("WEBP", "GIF", "PNG", "AVIF", "HEIF"):
            return (f"the first of {self.frames} pictures was taken",)
        return ("black and white became gray",) if self.mode == "1" else ()

    def orientation(self, number: int) -> int:
        value = self.image.getexif().get(_ORIENTATION, 1) if self.has_exif else 1
        return value if isinstance(value, int) and 1 <= value <= 8 else 1

    def layers(self, number: int) -> Pixels:
        header = self.header(number)
        # A WebP is decoded as a film: two frames besides the pixels.
        copies = 3 if self.format == "WEBP" else 1
        check_memory(self.path, header.height, header.width, copies * 4 * header.bits // 8)
        if header.bits == 16:
            return self._decode_deep()
        clear = self.image.info.get("transparency")
        if self.mode == "L" and isinstance(clear, int):
            # Pillow widens gray of 2 and 4 bits to 8, and not the value that is transparent.
            self.image.info["transparency"] = clear * (255 // (2 ** min(self.png_bits, 8) - 1))
        if self.mode == "1" and isinstance(clear, int):
            # Versions of Pillow differ in whether they take the value for transparent, and as 1 or as 255.
            gray = np.asarray(self.image.convert("L"))[..., None]
            return np.concatenate(
                (gray, gray, gray, np.where(gray == (255 if clear else 0), 0, 255)), 2
            ).astype(np.uint8)
        pixels = _decode_8bit(self.image)
        # Many programs leave the fourth byte of a BMP empty; no picture is transparent all over.
        empty = self.format == "BMP" and pixels.shape[2] == 4 and not pixels[..., 3].any()
        return pixels[..., :3] if empty else pixels

    def profile(self, number: int) -> bytes | None:
        return self.image.info.get("icc_profile")

    def resolution(self, number: int) -> tuple[float, float] | None:
        try:
            across, down = (float(value) for value in self.image.info.get("dpi"))  # type: ignore[union-attr]
        except (TypeError, ValueError, ZeroDivisionError):
            return None
        return across, down

    def exif(self, number: int) -> Image.Exif | None:
        return self.image.getexif() if self.has_exif else None

    def _decode_deep(self) -> Pixels:
        image = self.image
        image.load()  # raises for truncated files, which OpenCV may fill up silently
        if image.mode.startswith("I;16"):
            pixels = np.asarray(image).astype(np.uint16)[..., None]
            clear = image.info.get("transparency")
            if isinstance(clear, int):
                alpha = np.where(pixels == clear, 0, 65535).astype(np.uint16)
                pixels = np.concatenate((np.repeat(pixels, 3, 2), alpha), 2)
        else:
            # Pillow cuts 16-bit colour to 8 bits.
            found = cv2.imdecode(np.frombuffer(self.path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if found is None or found.dtype != np.uint16:
                raise DataError(
                    f"{self.path}: this kind of 16-bit image is not supported; PNG and TIFF with RGB are"
                )
            pixels = np.atleast_3d(found)
            if pixels.shape[2] >= 3:
                pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
        return pixels


def _gray_palette(image: Image.Image) -> bool:
    colours = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _decode_8bit(image: Image.Image) -> Pixels:
    if image.mode in ("PA", "LA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "RGBA"):
        image = image.convert("RGB")
    return np.atleast_3d(np.asarray(image))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Applies an EXIF orientation to an (H, W, C) array."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _cannot_read(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and "nsufficient memory" in str(error)
    ):
        return f"{path}: not enough memory to decode this image"
    if isinstance(error, UnidentifiedImageError):
        return f"{path}: not a readable image (allowed: {' '.join(EXTENSIONS)})"
    said = str(error).removeprefix(f"<tifffile.TiffFile '{path.name}'> ")
    return f"{path}: cannot be read, damaged or cut short ({said})"
