"""Training batches: which crops make up step number n, as a pure function of the seed and n."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data.cropping import Augmentation, Crop, offset_bounds
from data.files import Pair
from data.sources import PairSet

# Streams of random numbers that share a seed are kept apart by these.
_ORDER, _PLACES, _NOISE, _SIDES, _VARIATION, _PASTE = range(6)


class TrainLoader:
    """Batches of random, randomly turned crops; every image once per epoch, in a new order each time.

    `batch(step)` depends on (seed, step) alone, so a stopped run goes on with the same batches and nothing
    has to be saved. Large and small images are drawn equally often; one that is smaller than the patch is
    extended by reflection.
    """

    def __init__(
        self, pairs: PairSet, *, batch: int, patch: int, augmentation: Augmentation, seed: int
    ) -> None:
        assert len(pairs) > 0 and batch > 0 and patch > 0 and seed >= 0
        self._pairs, self._batch, self._patch, self._seed = pairs, batch, patch, seed
        self._augmentation, self._elements = augmentation, np.array(augmentation.elements())
        self._sizes = np.array([pairs.size(index) for index in range(len(pairs))], np.int64)
        # Only a memory: recomputing gives the same order.
        self._order = lru_cache(maxsize=4)(self._epoch_order)

    def batch(self, step: int) -> Pair:
        """The batch of step `step` (0, 1, 2, ...): float32, (batch, C, patch, patch), contiguous."""

        def vary(images: NDArray[np.float32]) -> None:
            self._augmentation.vary(images, self._rng(_VARIATION, step))

        pair = self._pairs.crops(self.plan(step), self._patch, vary, (self._seed, _NOISE, step))
        self._augmentation.paste(pair, self._rng(_PASTE, step))
        return pair

    def plan(self, step: int) -> list[Crop]:
        """The crops of step `step`, before any pixel is touched."""
        images = self._images(step)
        sides = self._augmentation.sides(self._patch, self._batch, self._rng(_SIDES, step))
        rng = self._rng(_PLACES, step)
        offsets = rng.integers(*offset_bounds(self._sizes[images], sides[:, None]), endpoint=True)
        elements = self._elements[rng.integers(len(self._elements), size=self._batch)]
        columns = images, *offsets.T, sides, elements
        return [Crop(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _images(self, step: int) -> NDArray[np.int64]:
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        epochs, within = np.divmod(places, len(self._pairs))
        return np.array([self._order(int(e))[w] for e, w in zip(epochs, within, strict=True)], np.int64)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        return self._rng(_ORDER, epoch).permutation(len(self._pairs))

    def _rng(self, stream: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, stream, number))
