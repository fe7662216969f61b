"""Image formats by extension: which are read, which are written, and what to do about the others."""

import importlib.util
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data.files.header import DataError

PDF = ".pdf"
OPTIONAL = {
    ".heic": ("pillow_heif", "heic"),
    ".heif": ("pillow_heif", "heic"),
    ".hif": ("pillow_heif", "heic"),
    ".jxl": ("pillow_jxl", "jxl"),
}
"""Extensions that a further package reads: its module, and the extra of this program that installs it."""

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".avif"),
    *(extension for extension, (module, _) in OPTIONAL.items() if importlib.util.find_spec(module)),
)
DOCUMENTS = (*EXTENSIONS, PDF)

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    PDF: "PDF",
}
"""What is written under an extension."""
SEVERAL_PAGES = ("TIFF", "PDF")

CAMERA_RAW = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
OTHER_IMAGES = (
    *(".gif", ".apng", ".ico", ".tga", ".psd", ".psb", ".xcf", ".svg", ".eps", ".ai", ".jp2", ".j2k", ".jpx"),
    *(
        ".exr",
        ".hdr",
        ".pfm",
        ".pgm",
        ".ppm",
        ".pnm",
        ".pbm",
        ".dds",
        ".djvu",
        ".jfif",
        ".npy",
        ".mat",
        ".fits",
    ),
)


def left_out(paths: Iterable[Path], documents: bool = False) -> str:
    """What there is to say of image files that are not read, by extension; empty where there are none.

    PDF is read where `documents` is true.
    """
    counts = Counter(path.suffix.lower() for path in paths)
    said = []
    for extension in sorted(counts):
        if advice := _advice(extension, documents):
            files = "file" if counts[extension] == 1 else "files"
            said.append(f"{counts[extension]} {files} left out: {extension} is not read ({advice})")
    return "; ".join(said)


def _advice(extension: str, documents: bool) -> str:
    """What would make files of an extension readable; empty for those that are read, or are no images."""
    if extension in EXTENSIONS or (documents and extension == PDF):
        return ""
    if extension in OPTIONAL:
        return f"pip install 'restune[{OPTIONAL[extension][1]}]'"
    if extension in CAMERA_RAW:
        return "camera RAW: develop it to TIFF or PNG"
    if extension == PDF:
        return "draw its pages as PNG; restore reads it"
    return "save as PNG or TIFF" if extension in OTHER_IMAGES else ""


def no_images(folder: Path, files: Iterable[Path]) -> DataError:
    """What there is to say of a folder in which none of these files is read."""
    others = left_out(files)
    return DataError(
        f"{folder}: no images (looked for {' '.join(EXTENSIONS)}{'; ' if others else ''}{others})"
    )


def is_left_out(path: Path) -> bool:
    """Whether a file is an image by its name that is not read."""
    return bool(_advice(path.suffix.lower(), documents=False))
