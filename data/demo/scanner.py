"""Simulation of age and a bad scanner on a sheet of paper: paper, stains, folds, shadows, dust, noise, JPEG.

Every effect is a random map, made from the generator it is given; `poor_scan` puts them in the order in
which they happen to a real sheet.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.files import Pixels, jpeg_round_trip

Map = NDArray[np.floating[Any]]
"""A factor or amount for each pixel, (H, W) or (H, W, 3)."""

_BROWN = (0.45, 0.65, 0.95)


@dataclass(frozen=True)
class Wear:
    """Severity of the damage of a sheet. Chances are 0 to 1, the rest are (lowest, highest) of a uniform draw."""

    papers: tuple[tuple[float, float, float], ...]
    """Share of red, green and blue light that the blank paper may send back."""
    fading: tuple[float, float]
    """Share of the ink's contrast that is lost."""
    stain_chance: float
    fold_chance: float
    crumple_chance: float
    shadow: tuple[float, float]
    """Darkest shadow, as a share of the light."""
    noise: tuple[float, float]
    """Standard deviation of the sensor noise at mid gray, on a scale of 0 to 255."""
    dust_per_megapixel: tuple[float, float]
    jpeg_quality: tuple[int, int]


PAGE = Wear(
    papers=(
        (0.98, 0.97, 0.96),
        (0.96, 0.94, 0.88),
        (0.93, 0.88, 0.76),
        (0.91, 0.91, 0.90),
        (0.94, 0.95, 0.92),
    ),
    fading=(0.05, 0.3),
    stain_chance=0.6,
    fold_chance=0.55,
    crumple_chance=0.3,
    shadow=(0.05, 0.28),
    noise=(3, 12),
    dust_per_megapixel=(50, 400),
    jpeg_quality=(40, 85),
)
PHOTO = Wear(
    papers=((0.99, 0.98, 0.97), (0.97, 0.96, 0.93)),
    fading=(0.0, 0.12),
    stain_chance=0.2,
    fold_chance=0.35,
    crumple_chance=0.1,
    shadow=(0.0, 0.12),
    noise=(6, 16),
    dust_per_megapixel=(100, 600),
    jpeg_quality=(50, 90),
)


def poor_scan(clean: Pixels, wear: Wear, rng: np.random.Generator, back: Pixels | None = None) -> Pixels:
    """A scan of the worn sheet `clean` (H, W, 3), uint8; `back` is what its other side shows."""
    shape = clean.shape[:2]
    ink = 1 - clean.astype(np.float32) / 255
    ink *= 1 - rng.uniform(*wear.fading) * (0.75 + 0.25 * _clouds(shape, 60, rng))[..., None]
    crease, worn = _folds(shape, wear.fold_chance, rng)
    sheet: Map = 1 - ink * (1 - worn)[..., None]
    if back is not None:
        sheet *= _bleed_through(back, rng)[..., None]
    sheet *= _paper(shape, wear, rng)
    for _ in range(rng.binomial(2, wear.stain_chance / 2)):
        sheet *= _stain(shape, rng)
    sheet *= crease[..., None]
    if rng.random() < wear.crumple_chance:
        sheet *= _crumple(shape, rng)[..., None]
    sheet *= _shadow(shape, rng.uniform(*wear.shadow), rng)[..., None]
    sheet = _dusty(sheet, rng.uniform(*wear.dust_per_megapixel), rng)
    soft = cv2.GaussianBlur(sheet, (0, 0), rng.uniform(0.4, 0.9))
    seen = _sensed(np.asarray(soft), rng.uniform(*wear.noise) / 255, rng)
    return jpeg_round_trip(_as_8bit(seen), int(rng.integers(*wear.jpeg_quality, endpoint=True)))


def _clouds(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> Map:
    """Smooth random values of about mean 0 and deviation 0.5 that change over `cell` pixels."""
    height, width = shape
    grid = rng.normal(0, 0.7, (int(height / cell) + 4, int(width / cell) + 4)).astype(np.float32)
    large = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    top, left = int(cell), int(cell)
    return np.asarray(large[top : top + height, left : left + width])


def _grid(shape: tuple[int, ...]) -> tuple[Map, Map]:
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return rows, columns


def _paper(shape: tuple[int, ...], wear: Wear, rng: np.random.Generator) -> Map:
    """Colour of the paper with its mottling and fibres."""
    colour = np.array(wear.papers[rng.integers(len(wear.papers))], np.float32)
    fibres = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), 0.9)
    texture = 1 + 0.02 * _clouds(shape, 35, rng) + 0.02 * _clouds(shape, 6, rng) + 0.03 * fibres
    return np.asarray(colour * texture[..., None])


def _bleed_through(back: Pixels, rng: np.random.Generator) -> Map:
    """The light left after the print on the other side, mirrored and softened by the paper."""
    other = 1 - cv2.cvtColor(back, cv2.COLOR_RGB2GRAY)[:, ::-1].astype(np.float32) / 255
    soft = cv2.GaussianBlur(other, (0, 0), rng.uniform(1.0, 2.0))
    return np.asarray(1 - rng.uniform(0.08, 0.28) * (1 + 0.4 * _clouds(back.shape[:2], 80, rng)) * soft)


def _stain(shape: tuple[int, ...], rng: np.random.Generator) -> Map:
    """A ring left by a cup, or a dried blot: both pale inside with a dark, uneven rim."""
    height, width = shape
    rows, columns = _grid(shape)
    dy, dx = rows - rng.uniform(0, height), columns - rng.uniform(0, width)
    ring = rng.random() < 0.5
    radius = rng.uniform(60, 130) if ring else rng.uniform(20, 70)
    ragged = (2 if ring else 0.25 * radius) * _clouds(shape, 40, rng) + 1.5 * _clouds(shape, 7, rng)
    inside = radius - np.hypot(dx, dy) + ragged
    rim = rng.uniform(3, 7)
    patchy = np.clip(0.6 + 0.8 * _clouds(shape, 45, rng), 0.05, 1.2)
    edge = np.exp(-np.square(inside - rim / 2) / (0.35 * rim) ** 2 / 2)
    fill = 1 / (1 + np.exp(-inside.clip(-30, 30) * 1.5))
    amount = rng.uniform(0.15, 0.5) * patchy * (edge + (0.12 if ring else 0.5) * fill)
    return np.asarray(1 - np.clip(amount, 0, 0.85)[..., None] * np.array(_BROWN, np.float32))


def _folds(shape: tuple[int, ...], chance: float, rng: np.random.Generator) -> tuple[Map, Map]:
    """Light around the folds (1 away from them), and the share of ink that has flaked off along them."""
    light, worn = np.ones(shape, np.float32), np.zeros(shape, np.float32)
    height, width = shape
    rows, columns = _grid(shape)
    for direction in range(2):  # one across and one down, as letters are folded
        if rng.random() >= chance:
            continue
        angle = direction * np.pi / 2 + rng.normal(0, 0.03)
        through = rng.uniform(0.2, 0.8) * height, rng.uniform(0.2, 0.8) * width
        distance = (rows - through[0]) * np.cos(angle) + (columns - through[1]) * np.sin(angle)
        distance += 1.2 * _clouds(shape, 50, rng)
        strength = rng.uniform(0.4, 1.0)
        slope = np.sign(distance) * np.exp(-np.abs(distance) / rng.uniform(8, 40))
        shadow = np.exp(-np.square(distance - 1.8) / 3)
        light *= 1 - strength * (0.1 * rng.choice([-1, 1]) * slope + 0.3 * shadow)
        rough = np.clip(0.5 + 0.9 * _clouds(shape, 4, rng), 0, 1)
        worn = np.maximum(worn, strength * rough * np.exp(-np.square(distance) / 2))
    return light, worn


def _crumple(shape: tuple[int, ...], rng: np.random.Generator) -> Map:
    """Light on paper that was crumpled and smoothed again: facets with sharp ridges, lit from one side."""
    height = np.zeros(shape, np.float32)
    for cell, weight in ((70.0, 26.0), (32.0, 9.0), (14.0, 2.5)):
        height += weight * (0.5 - np.abs(_clouds(shape, cell, rng)))
    angle = rng.uniform(0, 2 * np.pi)
    rise = np.cos(angle) * cv2.Sobel(height, -1, 1, 0) + np.sin(angle) * cv2.Sobel(height, -1, 0, 1)
    lit = cv2.GaussianBlur(rise / 8, (0, 0), 0.8)
    return np.asarray(1 + rng.uniform(0.1, 0.2) * np.tanh(lit))


def _shadow(shape: tuple[int, ...], darkest: float, rng: np.random.Generator) -> Map:
    """Uneven lamp, and towards one side the gutter of a book that does not lie flat."""
    rows, columns = _grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * rows / shape[0] + np.sin(angle) * columns / shape[1]
    across = (across - across.min()) / max(float(np.ptp(across)), 1e-6)
    lamp = 0.5 * across + 0.15 * (1 + _clouds(shape, 120, rng))
    from_side = columns if rng.random() < 0.5 else shape[1] - columns
    gutter = np.exp(-from_side / rng.uniform(15, 60)) * (rng.random() < 0.4)
    return np.asarray(1 - darkest * (lamp + 1.3 * gutter).clip(0, 1.5))


def _dusty(sheet: Map, per_megapixel: float, rng: np.random.Generator) -> Map:
    """Specks, most of them dark, and now and then a hair."""
    height, width = sheet.shape[:2]
    fine = 8  # fractional bits of OpenCV's coordinates
    for _ in range(rng.poisson(per_megapixel * height * width / 1e6)):
        centre = rng.uniform(0, width) * 2**fine, rng.uniform(0, height) * 2**fine
        radius = min(0.35 + rng.exponential(0.35), 2.5) * 2**fine
        shade = rng.uniform(0.1, 0.5) if rng.random() < 0.7 else 1.0
        place = int(centre[0]), int(centre[1])
        cv2.circle(sheet, place, int(radius), (shade, shade, shade), -1, cv2.LINE_AA, fine)
    for _ in range(rng.poisson(0.4)):
        turn = np.cumsum(rng.normal(0, 0.25, 24)) + rng.uniform(0, 2 * np.pi)
        steps = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], -1) * rng.uniform(1.5, 4), axis=0)
        points = ((steps + rng.uniform(0, 1, 2) * (width, height)) * 2**fine).astype(np.int32)
        over = sheet.copy()
        cv2.polylines(over, [points], False, (0.15, 0.14, 0.13), 1, cv2.LINE_AA, fine)
        sheet = np.asarray(0.4 * sheet + 0.6 * over)
    return sheet


def _sensed(light: Map, deviation: float, rng: np.random.Generator) -> Map:
    """The image of a cheap line sensor: photon noise, common to the colours in part, and streaks."""
    height, width, channels = light.shape
    own = rng.normal(0, 1, light.shape).astype(np.float32)
    common = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.6)
    noise = 0.75 * own + 0.9 * common[..., None]
    amount = deviation * np.sqrt(0.3 + 1.4 * light.clip(0, 1))
    # A sensor line moves down the page, so an uneven pixel of it leaves a streak down the page.
    streaks = rng.normal(0, 0.15 * deviation, (1, width, channels)).astype(np.float32)
    for _ in range(rng.poisson(0.5)):
        streaks[0, rng.integers(width)] -= rng.uniform(0.03, 0.12)
    return np.asarray(light + amount * noise + streaks)


def _as_8bit(light: Map) -> Pixels:
    return np.asarray(np.rint(light.clip(0, 1) * 255)).astype(np.uint8)
