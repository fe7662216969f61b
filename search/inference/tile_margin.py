"""Margin that tiles need: how far into a tile its edge changes the result."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers import Whole
from search.inference.tiling import TiledImage, Tiles

EXACT = 2e-6  # of image intensity: what the order of sums changes anyway
UNSEEN = 0.05 / 255
FIRST_WINDOW = 256
SAFETY = 1.5  # outside the measured window the edge may have an effect from farther away


@dataclass(frozen=True)
class TileMargin:
    """A margin in pixels, and the largest difference to the whole image that it leaves, as far as was seen."""

    margin: int
    difference: float

    @property
    def is_exact(self) -> bool:
        return self.difference <= EXACT


@torch.inference_mode()
def measure_margin(
    tiles: Tiles,
    image: TiledImage,
    spot: tuple[int, int],
    whole: Whole | None,
    largest: int,
    most_margin: int,
) -> TileMargin:
    """The margin that tiles of `image` need, up to `most_margin`, found in a window around `spot`.

    A window is restored, then two of its quarters alone: how much they differ, by the distance from where they
    were cut. Windows grow up to the side `largest` until the difference vanishes within them.
    """
    side = min(FIRST_WINDOW, largest)
    while True:
        profile = _profile(tiles, image, spot, whole, side)
        exact = _first_below(profile, EXACT, tiles.multiple)
        if exact is not None and exact <= most_margin:
            return TileMargin(exact, EXACT)
        unseen = _first_below(profile, UNSEEN, tiles.multiple)
        if unseen is not None or 2 * side > largest:
            break
        side *= 2
    margin = most_margin if unseen is None else min(_rounded(SAFETY * unseen, tiles.multiple), most_margin)
    return TileMargin(margin, float(profile[min(margin, len(profile) - 1)]))


def _profile(
    tiles: Tiles, image: TiledImage, spot: tuple[int, int], whole: Whole | None, side: int
) -> Tensor:
    """At position d: the largest difference at pixels that are d or farther from a cut."""
    multiple = tiles.multiple
    side = max(_rounded(side, 2 * multiple), 2 * multiple)
    top, left = (
        max(0, min(place - side // 2, length - side)) // multiple * multiple
        for place, length in zip(spot, (image.height, image.width), strict=True)
    )
    window = image.piece(slice(top, top + side), slice(left, left + side))
    half = side // 2
    first, second = slice(0, half), slice(half, side)
    restored = tiles.forward(window, (slice(0, side), slice(0, side)), whole)
    area = (slice(0, half), slice(0, half))
    differences = [
        (tiles.forward(window[:, :, part, part].contiguous(), area, whole) - restored[:, :, part, part]).abs()
        for part in (first, second)
    ]
    if whole is not None:
        whole.seen = {}
    # Distances are counted from the cut: the far end of the first quarter, the near end of the second.
    both = torch.maximum(differences[0].flip(2, 3).amax((0, 1)), differences[1].amax((0, 1)))
    places = torch.arange(half)
    nearest = torch.minimum(places[:, None], places[None])
    by_distance = torch.zeros(half).scatter_reduce_(0, nearest.flatten(), both.flatten(), "amax")
    return by_distance.flip(0).cummax(0).values.flip(0)


def _first_below(profile: Tensor, limit: float, multiple: int) -> int | None:
    """The smallest multiple that is far enough; None if there is none well inside the window."""
    for margin in range(0, len(profile) * 3 // 4 + 1, multiple):
        if profile[margin] <= limit:
            return margin
    return None


def _rounded(length: float, multiple: int) -> int:
    return -int(-length // multiple) * multiple
