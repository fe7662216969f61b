"""Writing images with all that belongs to them, whole or not at all."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from data.files.atomic import whole_file
from data.files.documents import DESCRIPTIVE, EXIF_FOLDERS, Page
from data.files.formats import FORMATS, SEVERAL_PAGES
from data.files.header import Pixels
from data.files.images import on_white

JPEG_QUALITY = 95


class Writer(Protocol):
    """Takes the pages of one file, one after another."""

    def add(self, page: Page) -> list[str]:
        """Write the next page; what of it the format cannot hold."""

    def close(self) -> None: ...


@contextmanager
def open_writer(path: Path) -> Iterator[Writer]:
    """A file in the format that its name says. It appears under its name when all is written, else not at all."""
    kind = FORMATS[path.suffix.lower()]
    with whole_file(path) as temporary:
        writer: Writer = _Tiff(temporary) if kind == "TIFF" else _Single(temporary, kind)
        try:
            yield writer
            writer.close()
        except BaseException:
            with suppress(OSError):
                writer.close()
            raise


class _Single:
    """Formats of one page, and PDF, to which pages are added."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind, self.pages = path, kind, 0

    def add(self, page: Page) -> list[str]:
        assert self.pages == 0 or self.kind in SEVERAL_PAGES
        self.pages += 1
        if self.kind == "PNG" and page.pixels.dtype == np.uint16:
            self.path.write_bytes(_deep_png(page))
            return []
        lost: list[str] = []
        pixels, alpha = page.pixels, page.alpha
        if pixels.dtype == np.uint16:
            pixels, alpha = _narrow(pixels), None if alpha is None else _narrow(alpha)
            lost.append(f"{self.kind} has 8 bits: the others are gone")
        if alpha is not None and self.kind in ("JPEG", "PDF"):
            colour = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
            pixels, alpha = on_white(np.concatenate((colour, alpha), 2))[..., : pixels.shape[2]], None
            lost.append(f"{self.kind} has no transparency: laid on white")
        image = _as_pillow(pixels, alpha)
        options: dict[str, Any] = {"icc_profile": page.profile, "dpi": page.dpi}
        if page.exif is not None and self.kind in ("PNG", "JPEG", "WEBP"):
            options["exif"] = page.exif.tobytes()
        match self.kind:
            case "JPEG":
                options |= {"quality": JPEG_QUALITY, "subsampling": 0}
            case "WEBP":
                options |= {"quality": JPEG_QUALITY, "exact": True}
            case "PDF":
                dpi = page.dpi or (72.0, 72.0)
                options = {"dpi": dpi, "quality": JPEG_QUALITY, "append": self.pages > 1}
        image.save(
            self.path, self.kind, **{name: value for name, value in options.items() if value is not None}
        )
        return lost

    def close(self) -> None:
        """Each page was written at once."""


def _narrow(pixels: Pixels) -> Pixels:
    """The nearest of 256 levels."""
    return np.asarray((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _as_pillow(pixels: Pixels, alpha: Pixels | None) -> Image.Image:
    if alpha is not None:
        pixels = np.concatenate((pixels, alpha), 2)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _deep_png(page: Page) -> bytes:
    """A PNG of 16 bits, which Pillow cannot write in colour, and the chunks that OpenCV does not."""
    order = page.pixels[..., ::-1]
    if page.alpha is not None:
        if order.shape[2] == 1:
            order = np.repeat(order, 3, 2)
        order = np.concatenate((order, page.alpha), 2)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(order))
    assert done, "OpenCV encodes every uint16 image as PNG"
    content = encoded.tobytes()
    chunks = b""
    if page.profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(page.profile))
    if page.dpi:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in page.dpi), 1))
    if page.exif is not None:
        chunks += _chunk(b"eXIf", page.exif.tobytes().removeprefix(b"Exif\0\0"))
    header = 8 + 25  # signature, IHDR
    return content[:header] + chunks + content[header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class _Tiff:
    """TIFF of 8 and 16 bits and any number of pages, losslessly compressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exifs: list[Image.Exif | None] = []
        self.file: tifffile.TiffWriter | None = None

    def add(self, page: Page) -> list[str]:
        if self.file is None:
            # Offsets of 64 bits where 4 GB may not do; not all programs read them.
            self.file = tifffile.TiffWriter(self.path, bigtiff=False)
        pixels = page.pixels
        if page.alpha is not None:
            if pixels.dtype == np.uint16 and pixels.shape[2] == 1:  # which Pillow cannot read
                pixels = np.repeat(pixels, 3, 2)
            pixels = np.concatenate((pixels, page.alpha), 2)
        self.exifs.append(page.exif)
        self.file.write(
            pixels[..., 0] if pixels.shape[2] == 1 else pixels,
            photometric="minisblack" if pixels.shape[2] < 3 else "rgb",
            planarconfig=None if pixels.shape[2] == 1 else "contig",
            extrasamples=None if page.alpha is None else ["unassalpha"],
            compression="zlib",
            predictor=True,
            rowsperstrip=max(1, 2**18 // (pixels.shape[1] * pixels.shape[2])),
            resolution=page.dpi,
            resolutionunit="INCH" if page.dpi else None,
            iccprofile=page.profile,
            extratags=_tags(page.exif),
            metadata=None,
            software=False,
        )
        return []

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None
            for number, exif in enumerate(self.exifs):
                if exif is not None:
                    _fill_folders(self.path, number, exif)


def _tags(exif: Image.Exif | None) -> list[tuple[int, int, int, Any, bool]]:
    """For tifffile: code, type, count, value, and whether for the first page alone."""
    if exif is None:
        return []
    text, pointer = 2, 4
    tags = [(tag, text, 0, str(exif[tag]), False) for tag in DESCRIPTIVE if tag in exif]
    # Places for what follows behind the last page, under the number before theirs, which tifffile lets pass.
    return [*tags, *((folder - 1, pointer, 1, 0, False) for folder in EXIF_FOLDERS if exif.get_ifd(folder))]


def _fill_folders(path: Path, number: int, exif: Image.Exif) -> None:
    """Append the folders of EXIF tags, which tifffile does not write, and let their places point to them."""
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[number]
        for folder in EXIF_FOLDERS:
            if not (inside := exif.get_ifd(folder)):
                continue
            directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=_PREFIX[file.byteorder])
            for tag, value in inside.items():
                with suppress(Exception):  # a tag that Pillow read and cannot write is not worth the image
                    directory[tag] = value
            handle = file.filehandle
            handle.seek(0, io.SEEK_END)
            offset = handle.tell() + handle.tell() % 2
            handle.seek(offset)
            handle.write(directory.tobytes(offset))
            place = page.tags[folder - 1]  # type: ignore[union-attr]
            place.overwrite(offset)
            handle.seek(place.offset)
            handle.write(struct.pack(f"{file.byteorder}H", folder))


_PREFIX = {"<": b"II", ">": b"MM"}
