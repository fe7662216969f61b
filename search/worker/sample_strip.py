"""Sample strips: the same crops of the validation images for every trial, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.files import write_png
from data.sources import PairSet
from models import ModelConfig
from search.inference import Precision, restore_image, to_codes
from search.trial import load_weights

STRIP_CROPS = 3
CROP_SIDE = 192
ERROR_GAIN = 4  # the error map shows absolute differences this many times brighter
GAP = 4
BACKDROP = 190  # between the pictures: neither the white of a page nor the black of an error map
HEADINGS = ("degraded", "restored", "clean", f"error x{ERROR_GAIN}")
HEADING_HEIGHT = 22


def save_strip(
    path: Path, model_config: ModelConfig, weights: Path, pairs: PairSet, device: torch.device
) -> None:
    """Write a PNG: one row per crop, columns degraded | restored | clean | error.

    Restores whole images (crops would change what global pooling sees), then cuts.
    """
    model = model_config.build().to(device).eval()
    load_weights(weights, model)
    precision = Precision("fp32", device)
    rows = []
    for index in sorted({n * len(pairs) // STRIP_CROPS for n in range(STRIP_CROPS)}):
        pair = pairs.whole(index)
        window = _window(*pair.clean.shape[1:])
        restored = restore_image(model, pair.degraded, precision)
        degraded, ours, clean = (
            to_codes(image[..., *window]) for image in (pair.degraded, restored, pair.clean)
        )
        rows.append(Crops(degraded, ours, clean))
    write_crop_rows(path, rows)


@dataclass(frozen=True, eq=False)
class Crops:
    """The same crop of a degraded, a restored and a clean image, (H, W, 1 or 3), 8-bit codes."""

    degraded: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    clean: NDArray[np.uint8]


def write_crop_rows(path: Path, crops: Sequence[Crops]) -> None:
    """Write a PNG with one row per crop."""
    rows = [_row(crop.degraded, crop.restored, crop.clean) for crop in crops]
    widest = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, GAP), (0, widest - row.shape[1]), (0, 0)), constant_values=BACKDROP) for row in rows
    ]
    write_png(path, np.concatenate([_heading(widest), *padded]))


def _window(height: int, width: int) -> tuple[slice, slice]:
    """The central crop."""
    top, left = max(height - CROP_SIDE, 0) // 2, max(width - CROP_SIDE, 0) // 2
    return slice(top, top + CROP_SIDE), slice(left, left + CROP_SIDE)


def _row(
    degraded: NDArray[np.uint8], restored: NDArray[np.uint8], clean: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    error = cv2.convertScaleAbs(cv2.absdiff(restored, clean), alpha=ERROR_GAIN).reshape(clean.shape)
    cells = []
    for image in (degraded, restored, clean, error):
        colour = np.broadcast_to(image, (*image.shape[:2], 3))
        missing = max(CROP_SIDE - image.shape[1], 0)
        cells.append(np.pad(colour, ((0, 0), (0, missing + GAP), (0, 0)), constant_values=BACKDROP))
    return np.concatenate(cells, axis=1)


def _heading(width: int) -> NDArray[np.uint8]:
    heading = np.full((HEADING_HEIGHT, width, 3), BACKDROP, np.uint8)
    for column, text in enumerate(HEADINGS):
        left = column * (CROP_SIDE + GAP) + 2
        cv2.putText(heading, text, (left, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return heading
