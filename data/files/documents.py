"""Image files page by page with all that belongs to them: transparency, colour profile, EXIF, resolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from data.files.images import EXTENSIONS, DataError, Pixels, cannot_read, header_of, layers, open_image

PDF = ".pdf"
DOCUMENTS = (*EXTENSIONS, PDF)

ORIENTATION = 0x0112
EXIF_FOLDERS = (0x8769, 0x8825)  # camera settings, GPS
DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
"""Description, maker, model, software, date, artist, copyright: tags that say nothing of how pixels are stored."""


@dataclass(frozen=True, eq=False)
class Page:
    """One image: gray or RGB pixels (H, W, 1 or 3), uint8 or uint16, upright, and what came with them."""

    pixels: Pixels
    alpha: Pixels | None = None
    """(H, W, 1) of the same type as the pixels, which are not multiplied by it."""
    profile: bytes | None = None
    """ICC colour profile."""
    exif: Image.Exif | None = None
    dpi: tuple[float, float] | None = None
    """Across and down."""
    notes: list[str] = field(default_factory=list)
    """Contents of the file that are not in here."""


class Document(Protocol):
    """An open file of one or more pages."""

    pages: int
    size: tuple[int, int]
    """Height and width of the first page."""

    def read(self, number: int) -> Page:
        """Page `number`, from 0. Raises DataError for what cannot be read."""


@contextmanager
def open_document(path: Path, pdf_dpi: float) -> Iterator[Document]:
    """The document in a file; PDF pages are drawn at `pdf_dpi`. Raises DataError for what is none."""
    if path.suffix.lower() == PDF:
        with _opened_pdf(path, pdf_dpi) as document:
            yield document
        return
    try:
        image = open_image(path)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for broken files
        raise DataError(cannot_read(path, error)) from error
    with image:
        yield _Images(path, image)


class _Images:
    """Images that Pillow opens. Several frames are pages in TIFF alone; elsewhere they are a film or previews."""

    def __init__(self, path: Path, image: Image.Image) -> None:
        self.path, self.image, self.size = path, image, (image.height, image.width)
        try:
            frames = int(getattr(image, "n_frames", 1))
        except Exception as error:
            raise DataError(cannot_read(path, error)) from error
        self.pages = frames if image.format == "TIFF" else 1
        self.notes = (
            [f"the first of {frames} pictures was taken"]
            if frames > 1 and image.format in ("WEBP", "GIF", "PNG")
            else []
        )

    def read(self, number: int) -> Page:
        try:
            if self.pages > 1:
                self.image.seek(number)
            return self._page(number)
        except DataError:
            raise
        except Exception as error:
            raise DataError(cannot_read(self.path, error)) from error

    def _page(self, number: int) -> Page:
        image, notes = self.image, list(self.notes)
        header = header_of(image, self.path)
        mode = image.mode
        profile, dpi = _of_tiff(image) if image.format == "TIFF" else _of_info(image)
        exif = _exif(image)
        pixels = layers(image, self.path, header, number)
        alpha = pixels[..., 3:] if pixels.shape[2] == 4 else None
        if mode in ("CMYK", "YCCK") and profile:
            # A profile of inks is wrong for red, green and blue.
            profile, notes = None, [*notes, "CMYK became RGB, without its colour profile"]
        elif mode == "1":
            notes.append("black and white became gray")
        return Page(
            pixels=np.ascontiguousarray(pixels[..., : header.channels]),
            alpha=None if alpha is None else np.ascontiguousarray(alpha),
            profile=profile or None,
            exif=exif,
            dpi=dpi,
            notes=notes,
        )


def _exif(image: Image.Image) -> Image.Exif | None:
    """Metadata of how the file was made, without what it says of its storage; the pixels are upright now."""
    # A PNG whose EXIF does not precede its pixels would be decoded to look for it.
    if image.format == "PNG" and "exif" not in image.info:
        return None
    found, kept = image.getexif(), Image.Exif()
    tags = DESCRIPTIVE if image.format == "TIFF" else [tag for tag in found if tag not in EXIF_FOLDERS]
    for tag in tags:
        if tag in found:
            kept[tag] = found[tag]
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    for folder in EXIF_FOLDERS:
        if inside := found.get_ifd(folder):
            kept.get_ifd(folder).update(inside)
    return kept if len(kept) or any(kept.get_ifd(folder) for folder in EXIF_FOLDERS) else None


def _of_info(image: Image.Image) -> tuple[bytes | None, tuple[float, float] | None]:
    """Profile and resolution."""
    return image.info.get("icc_profile"), _resolution(image.info.get("dpi"))


def _of_tiff(image: Image.Image) -> tuple[bytes | None, tuple[float, float] | None]:
    """The same of the page that `image` is at; its `info` still has what earlier pages said."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    across, down, unit = (tags.get(tag) for tag in (0x011A, 0x011B, 0x0128))
    per_inch = {2: 1.0, 3: 2.54}.get(unit or 2)
    if across is None or down is None or per_inch is None:
        return tags.get(0x8773), None
    return tags.get(0x8773), _resolution((per_inch * float(across), per_inch * float(down)))


def _resolution(dpi: Any) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 < across < 1e5 and 1 < down < 1e5 else None


@contextmanager
def _opened_pdf(path: Path, dpi: float) -> Iterator[Document]:
    try:
        import pypdfium2
    except ImportError:
        raise DataError(f"{path}: PDF needs pypdfium2: pip install 'restune[pdf]'") from None
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise DataError(f"{path}: not a readable PDF ({error})") from error
    try:
        yield _Pdf(path, document, dpi)
    finally:
        document.close()


class _Pdf:
    """Pages drawn as a viewer shows them; text and links become pixels."""

    def __init__(self, path: Path, document: Any, dpi: float) -> None:
        self.path, self.document, self.dpi = path, document, dpi
        self.pages = len(document)
        width, height = document[0].get_size() if self.pages else (0.0, 0.0)
        self.size = round(height * dpi / 72), round(width * dpi / 72)

    def read(self, number: int) -> Page:
        try:
            page = self.document[number]
            bitmap = page.render(scale=self.dpi / 72, rev_byteorder=True)
            pixels = np.array(bitmap.to_numpy())
        except Exception as error:
            raise DataError(f"{self.path}, page {number + 1}: cannot be drawn ({error})") from error
        if (pixels[..., :1] == pixels[..., 1:3]).all():
            pixels = pixels[..., :1]
        pixels = np.ascontiguousarray(pixels[..., :3])
        return Page(
            pixels,
            dpi=(self.dpi, self.dpi),
            notes=["PDF pages are pictures now: their text cannot be searched"],
        )
