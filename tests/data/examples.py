"""Pairs with enough in them for the pair doctor: no two scenes are alike."""

from pathlib import Path

import cv2
import numpy as np

from data.files import Pixels, write_png

HEIGHT, WIDTH = 97, 131


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """(H, W, 3) uint8: soft colourful spots of several sizes, with some hard edges among them."""
    rng = np.random.default_rng(seed)
    spots = sum(
        blur * cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)), (0, 0), blur)
        for blur in (1.5, 4.0, 11.0)
    )
    image = 128 + 26 * np.asarray(spots)
    for _ in range(6):
        top, left = int(rng.integers(height - 20)), int(rng.integers(width - 20))
        image[top : top + 20, left : left + 14] += rng.uniform(-60, 60, 3)
    return image.round().clip(4, 250).astype(np.uint8)


def degraded(clean: Pixels, seed: int, sigma: float = 8.0) -> Pixels:
    """Darker, and with white noise."""
    noise = np.random.default_rng(1000 + seed).normal(0, sigma, clean.shape)
    return (0.8 * clean + noise).round().clip(0, 255).astype(np.uint8)


def write_scenes(folder: Path, names: list[str], seed: int) -> None:
    """folder/{scan,clean}/NAME.png."""
    for place, name in enumerate(names):
        clean = scene(100 * seed + place)
        for side, pixels in (("scan", degraded(clean, 100 * seed + place)), ("clean", clean)):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write_png(folder / side / f"{name}.png", pixels)
