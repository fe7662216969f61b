"""Odd and broken image files, as they turn up in real folders."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 17, 23
_ORIENTATION = 0x0112


def write_all(folder: Path) -> dict[str, bool]:
    """Fills `folder`: file name -> whether a reader of gray and RGB images with 8 or 16 bit can show it.

    Whoever may read every file (root) can read the one without permission too. A name that the file
    system does not take is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    readable = {}
    for name, content, shows in _files():
        try:
            (folder / name).write_bytes(content)
        except OSError:
            continue
        readable[name] = shows
    (folder / "symlink loop.png").symlink_to("symlink loop.png")
    (folder / "dangling.png").symlink_to("not there.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    secret = folder / "no permission.png"
    secret.write_bytes(_encoded(_rgb(), "PNG"))
    secret.chmod(0)
    readable |= dict.fromkeys(("symlink loop.png", "dangling.png", "folder.png", "pipe.png"), False)
    return readable | {secret.name: os.access(secret, os.R_OK)}


def _files() -> Iterator[tuple[str, bytes, bool]]:
    png, jpeg, tiff = (_encoded(_rgb(), kind) for kind in ("PNG", "JPEG", "TIFF"))
    bmp, webp = _encoded(_rgb(), "BMP"), _encoded(_rgb(), "WEBP")
    gray16 = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 150)

    yield "empty.png", b"", False
    yield "empty.jpg", b"", False
    yield "cut.png", png[: len(png) // 2], False
    yield "cut.jpg", jpeg[: len(jpeg) * 3 // 4], False
    yield "cut.tif", tiff[: len(tiff) // 2], False
    yield "cut.bmp", bmp[: len(bmp) // 2], False
    yield "cut.webp", webp[: len(webp) // 2], False
    yield "header alone.png", png[:33], False
    yield "signature alone.png", png[:8], False
    yield "flipped bit.png", png[:60] + bytes([png[60] ^ 4]) + png[61:], False
    yield "more behind the end.png", png + b"PK\x03\x04" * 50, True
    yield "text.png", b"not an image\n", False
    yield "web page.jpg", b"<!doctype html><title>404 Not Found</title>", False
    yield "zeros.png", bytes(1000), False
    yield "random.tif", np.random.default_rng(0).bytes(1000), False
    yield "bomb.png", _huge_header(200_000, 200_000), False

    yield "PNG inside.jpg", png, True
    yield "JPEG inside.png", jpeg, True
    yield "TIFF inside.bmp", tiff, True
    yield "GIF inside.png", _encoded(_rgb().quantize(16), "GIF"), True

    yield "1x1.png", _encoded(_rgb(1, 1), "PNG"), True
    yield "1x23.png", _encoded(_rgb(1, 23), "PNG"), True
    yield "17x1.jpg", _encoded(_rgb(17, 1), "JPEG"), True
    yield "30000 wide.png", _encoded(_rgb(3, 30_000), "PNG"), True

    yield "CMYK.jpg", _encoded(_rgb().convert("CMYK"), "JPEG"), True
    yield "CMYK.tif", _encoded(_rgb().convert("CMYK"), "TIFF"), True
    yield "palette.png", _encoded(_rgb().quantize(7), "PNG"), True
    yield "palette, one colour clear.png", _encoded(_rgb().quantize(7), "PNG", transparency=2), True
    yield "1 bit.png", _encoded(_rgb().convert("1"), "PNG"), True
    yield "fax.tif", _encoded(_rgb().convert("1"), "TIFF", compression="group4"), True
    yield "alpha.png", _encoded(_rgb().convert("RGBA"), "PNG"), True
    yield "gray and alpha.png", _encoded(_rgb().convert("LA"), "PNG"), True
    yield "16 bit.png", _encoded(gray16, "PNG"), True
    yield "16 bit.tif", _encoded(gray16, "TIFF"), True
    yield "32 bit.tif", _encoded(gray16.convert("I"), "TIFF"), False
    yield "float.tif", _encoded(Image.fromarray(np.float32(gray16) / 65535), "TIFF"), True
    yield "Lab.tif", _encoded(Image.merge("LAB", _rgb().split()), "TIFF"), False

    yield "progressive.jpg", _encoded(_rgb(), "JPEG", progressive=True), True
    yield "turned.jpg", _encoded(_rgb(), "JPEG", exif=_orientation(6)), True
    yield "orientation 99.jpg", _encoded(_rgb(), "JPEG", exif=_orientation(99)), True
    yield "pages.tif", _encoded(_rgb(), "TIFF", save_all=True, append_images=[_rgb(31, 9)]), True
    yield "film.webp", _encoded(_rgb(), "WEBP", save_all=True, append_images=[_rgb(seed=1)]), True

    yield "UPPER CASE.PNG", png, True
    yield "이름 없는 스캔.png", png, True
    yield "two  spaces, 'quotes' and \"more\".png", png, True
    yield "-o.png", png, True
    yield "[a-z]*?.png", png, True
    yield "<b>&amp;.png", png, True
    yield "[red]markup[/red].png".replace("/", "\N{DIVISION SLASH}"), png, True
    yield "line\nbreak.png", png, True
    yield os.fsdecode(b"not utf-8 \xff.png"), png, True
    yield "\N{EYE}\N{VARIATION SELECTOR-16} emoji.png", png, True


def _rgb(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image.Image:
    """A colourful image with some noise: nothing in it is constant."""
    y, x = np.mgrid[:height, :width]
    planes = 128 + 60 * np.stack([np.sin(y / 5 + x / 9), np.cos(x / 4), np.sin((x + y) / 7)], -1)
    noise = np.random.default_rng(seed).normal(0, 9, planes.shape)
    return Image.fromarray((planes + noise).clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = value
    return exif


def _huge_header(height: int, width: int) -> bytes:
    """A PNG of a few bytes that promises gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
