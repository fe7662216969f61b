"""The page of `check`: one HTML file with the pictures in question, that needs nothing beside it."""

import base64
import html
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.doctor import CheckReport, Finding
from data.files import DataError, Pixels, decode_image, with_channels

PICTURES = 12
"""So many findings of a kind have their pictures."""
SIDE = 240
_DETAIL, _ZOOM = 80, 3
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 64rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem } .advice { color: #555; margin: 0 0 .6rem }
.verdict { font-size: 1.1rem; padding: .7rem 1rem; border-left: .4rem solid #2b8a3e; background: #f4f7f4 }
.verdict.spoiled { border-color: #c92a2a; background: #fbf3f3 }
.tag { color: #fff; border-radius: .3rem; padding: .1rem .5rem; font-size: .8rem; vertical-align: middle }
.error { background: #c92a2a } .warning { background: #b35c00 } .note { background: #1864ab }
.finding { border-top: 1px solid #ddd; padding: .5rem 0; overflow-wrap: anywhere }
figure { display: inline-block; margin: .4rem .8rem .2rem 0; vertical-align: top }
figcaption { font-size: .8rem; color: #555; max-width: 15rem } img { display: block; border: 1px solid #ccc }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e6e6e6 } .advice, figcaption { color: #aaa }
  .verdict { background: #1d241e } .verdict.spoiled { background: #2a1c1c } .finding { border-color: #333 } }
@media print { .finding { break-inside: avoid } }
"""


def check_page(report: CheckReport, summary: str) -> str:
    """The whole page."""
    name = _text(report.folder)
    sections = "".join(
        _section(list(same), report.folder)
        for _, same in groupby(report.findings, lambda finding: (finding.severity, finding.kind))
    )
    spoiled = " spoiled" if report.spoiled else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>check {name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f'<body><h1>{name}: {len(report.measured)} pairs</h1>\n<p class="verdict{spoiled}">{_text(summary)}</p>\n'
        f"{sections}</body></html>\n"
    )


def _section(findings: list[Finding], folder: Path) -> str:
    first = findings[0]
    word = first.severity.name.lower()
    rows = "".join(
        _row(finding, folder, pictures=number < PICTURES) for number, finding in enumerate(findings)
    )
    return (
        f'<h2><span class="tag {word}">{word}</span> {_text(first.title)} ({len(findings)})</h2>\n'
        f'<p class="advice">{_text(first.advice)}</p>\n{rows}'
    )


def _row(finding: Finding, folder: Path, pictures: bool) -> str:
    where = "" if finding.whole_set else ", ".join(_text(key) for key in finding.pairs[:4])
    if not where and len(finding.files) == 1:
        path = finding.files[0]
        where = _text(path.relative_to(folder) if path.is_relative_to(folder) else path)
    shots = "".join(_figures(finding, folder)) if pictures and finding.kind != "ignored" else ""
    start = f"<b>{where}</b>: " if where else ""
    return f'<div class="finding">{start}{_text(finding.found)}<br>{shots}</div>\n'


def _figures(finding: Finding, folder: Path) -> Iterator[str]:
    """Up to four pictures; for a shift also a detail with both sides over each other."""
    images = {}
    for path in finding.files[:4]:
        try:
            with warnings.catch_warnings(action="ignore"):
                images[path] = _plain(decode_image(path))
        except (DataError, OSError):
            continue
    for path, image in images.items():
        caption = path.relative_to(folder) if path.is_relative_to(folder) else path
        yield _figure(_small(image), f"{caption}, {image.shape[1]}x{image.shape[0]}")
    if finding.kind in ("shift", "wrong-partner") and len(images) == 2:
        one, other = images.values()
        if one.shape == other.shape:
            yield _figure(_overlay(one, other), "detail: degraded red, clean blue and green")


def _plain(image: Pixels) -> NDArray[np.uint8]:
    colour = with_channels(image, 3)
    return np.asarray(colour if colour.dtype == np.uint8 else colour >> 8, np.uint8)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(SIDE / max(image.shape[:2]), 1.0)
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _overlay(scan: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A detail with both images in one, the clean one in cyan, the scan in red: coloured fringes show the shift."""
    gray = with_channels(clean, 1)[..., 0].astype(np.float32)
    busy = cv2.boxFilter(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), -1, (_DETAIL // 2, _DETAIL // 2))
    top, left = (int(number) for number in np.unravel_index(int(busy.argmax()), busy.shape))
    top = min(max(top - _DETAIL // 2, 0), max(gray.shape[0] - _DETAIL, 0))
    left = min(max(left - _DETAIL // 2, 0), max(gray.shape[1] - _DETAIL, 0))
    window = (slice(top, top + _DETAIL), slice(left, left + _DETAIL))
    red, rest = (with_channels(side[window], 1)[..., 0] for side in (scan, clean))
    both = np.stack([red, rest, rest], -1)
    return np.asarray(cv2.resize(both, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST), np.uint8)


def _figure(image: NDArray[np.uint8], caption: str) -> str:
    done, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    assert done, "OpenCV encodes every small uint8 image as JPEG"
    data = base64.b64encode(encoded.tobytes()).decode()
    height, width = image.shape[:2]
    return (
        f'<figure><img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
        f'alt="{_text(caption)}"><figcaption>{_text(caption)}</figcaption></figure>'
    )


def _text(value: object) -> str:
    """A value escaped for HTML, also for unusual file names."""
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode())
