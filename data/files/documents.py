"""Image files page by page with all that belongs to them: transparency, colour profile, EXIF, resolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from data.files.formats import PDF
from data.files.header import DataError, Pixels, check_size
from data.files.readers import ImageFile, open_image, reading, upright_layers

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
    stored_bits: int = 8
    """Of a sample in the file."""
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
    with open_image(path) as file:
        with reading(path):
            document = _Images(path, file)
        yield document


class _Images:
    """The pages of an image file."""

    def __init__(self, path: Path, file: ImageFile) -> None:
        self.path, self.file, self.pages = path, file, file.pages
        header = file.header(0)
        self.size = header.height, header.width

    def read(self, number: int) -> Page:
        with reading(self.path):
            return self._page(number)

    def _page(self, number: int) -> Page:
        file = self.file
        header = file.header(number)
        pixels = upright_layers(self.path, file, number)
        alpha = pixels[..., 3:] if pixels.shape[2] == 4 else None
        profile, notes = file.profile(number), list(header.losses)
        if header.inks and profile:
            # A profile of inks is wrong for red, green and blue.
            profile, notes = None, [*notes, "CMYK became RGB, without its colour profile"]
        return Page(
            pixels=np.ascontiguousarray(pixels[..., : header.channels]),
            alpha=None if alpha is None else np.ascontiguousarray(alpha),
            profile=profile or None,
            exif=_exif(file, number),
            dpi=_resolution(file.resolution(number)),
            stored_bits=header.stored_bits,
            notes=notes,
        )


def _exif(file: ImageFile, number: int) -> Image.Exif | None:
    """Metadata of how the file was made, without what it says of its storage; the pixels are upright now."""
    found, kept = file.exif(number), Image.Exif()
    if found is None:
        return None
    tags = DESCRIPTIVE if file.format == "TIFF" else [tag for tag in found if tag not in EXIF_FOLDERS]
    for tag in tags:
        if tag in found:
            kept[tag] = found[tag]
    if ORIENTATION in kept:
        kept[ORIENTATION] = 1
    for folder in EXIF_FOLDERS:
        if inside := found.get_ifd(folder):
            kept.get_ifd(folder).update(inside)
    return kept if len(kept) or any(kept.get_ifd(folder) for folder in EXIF_FOLDERS) else None


def _resolution(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """What is credible of it."""
    return dpi if dpi is not None and all(1 < value < 1e5 for value in dpi) else None


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
        check_size(path, *self.size)

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
