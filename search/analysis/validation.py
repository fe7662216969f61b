"""The winner and its competitors, scored on the same validation images: gains, and pictures."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from data.sources import Split
from models import ClassicalConfig
from search.database import FrozenTrial, Study, best_trial, facts_of, studies_beside
from search.errors import UserError
from search.inference import ImageScore, Precision, mean_score, restore_image, score_image, to_codes
from search.statistics import ENOUGH_GROUPS, Estimate, bootstrap_mean
from search.worker import TrainedTrial, load_trained_trial, open_images, refuse_other_images, stored_config

MEGAPIXELS = 6.0  # most validation pixels scored, in 10^6: minutes for a large model on a CPU
CROP_HEIGHT, CROP_WIDTH = 400, 560

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gain:
    """The winner's gain over another restorer, from scores of the same images."""

    over: str
    psnr_db: float
    """Of the other one, mean over images."""
    gain_db: Estimate


@dataclass(frozen=True, eq=False)
class ScoredCrop:
    """A crop of a validation image, 8 bit (height, width, channels), and the scores of the whole image."""

    name: str
    rank: str
    """best, median or worst gain."""
    before_db: float
    after_db: float
    degraded: NDArray[np.uint8]
    restored: NDArray[np.uint8]
    clean: NDArray[np.uint8]


@dataclass(frozen=True)
class Validation:
    """The winner's mean scores over some validation images, and its gains over the input and over competitors."""

    images: int
    of_images: int
    searched: int
    """So many of them chose the winner in the search."""
    psnr_db: Estimate
    ssim: float
    mae: float
    input_ssim: float
    input_mae: float
    gains: tuple[Gain, ...]
    """Over the input first, then over the rivals whose weights are there."""
    samples: tuple[ScoredCrop, ...]

    @property
    def conclusive(self) -> bool:
        """True if there are enough images to speak of significance."""
        return self.images >= ENOUGH_GROUPS


INPUT = "the input"


def validate_winner(
    study: Study,
    trial: FrozenTrial,
    competitors: Sequence[tuple[str, FrozenTrial, Study]],
    out: Path,
    say: Say,
) -> tuple[Validation, Split]:
    """Restore validation images with the winner and with each competitor (its name, its trial, its study).

    Raises `UserError` or `DataError` if the winner's weights or data are gone or changed; a rival without
    weights is left out.
    """
    winner = load_trained_trial(study, trial, out)
    split = open_images(study, winner.config, out)
    refuse_other_images(trial, split)
    chosen = split.val.representative(MEGAPIXELS)
    searched = set(split.val.representative(winner.config.val_megapixels))
    say(f"trial {trial.number}: restoring {len(chosen)} validation images")
    inputs = [score_image(pair.degraded, pair.clean) for pair in map(split.val.whole, chosen)]
    ours = _scores(winner, split, chosen)
    gains = [_gain(INPUT, ours, inputs)]
    for what, competitor, home in competitors:
        try:
            other = load_trained_trial(home, competitor, out)
            refuse_other_images(competitor, split)
        except UserError:
            continue
        say(f"{what}: restoring the same")
        gains.append(_gain(what, ours, _scores(other, split, chosen)))
    after, before = mean_score(ours, 0, 0.0), mean_score(inputs, 0, 0.0)
    return Validation(
        images=len(chosen),
        of_images=len(split.val),
        searched=len(searched.intersection(chosen)),
        psnr_db=_mean(_psnr(ours)),
        ssim=after.ssim,
        mae=after.mae,
        input_ssim=before.ssim,
        input_mae=before.mae,
        gains=tuple(gains),
        samples=_samples(winner, split, chosen, inputs, ours),
    ), split


def best_filter(study: Study, trial: FrozenTrial) -> tuple[str, FrozenTrial, Study] | None:
    """The best filter of any study in the same database on the same images, unless the winner is one itself."""
    if facts_of(trial).gmacs_at_256 == 0:
        return None
    found = []
    for other in studies_beside(study):
        best = best_trial(other) if other.study_name != study.study_name else None
        if best is not None and facts_of(best).data == facts_of(trial).data:
            model = stored_config(best).model
            if isinstance(model, ClassicalConfig):
                name = model.filter.kind.replace("_", " ")
                found.append((best.value or 0.0, (f"the best filter ({name})", best, other)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _scores(winner: TrainedTrial, split: Split, chosen: Sequence[int]) -> list[ImageScore]:
    scores = []
    for index in track(chosen, "restoring", transient=True, disable=not sys.stdout.isatty()):
        pair = split.val.whole(index)
        scores.append(score_image(_restore(winner, pair.degraded), pair.clean))
    return scores


def _restore(winner: TrainedTrial, degraded: Tensor) -> Tensor:
    return restore_image(winner.model, degraded, Precision("fp32", torch.device("cpu")))


def _psnr(scores: Sequence[ImageScore]) -> NDArray[np.float64]:
    return np.array([score.psnr_db for score in scores])


def _mean(values: NDArray[np.float64]) -> Estimate:
    return bootstrap_mean(values, np.arange(len(values)))


def _gain(over: str, ours: Sequence[ImageScore], theirs: Sequence[ImageScore]) -> Gain:
    return Gain(over, float(_psnr(theirs).mean()), _mean(_psnr(ours) - _psnr(theirs)))


def _samples(
    winner: TrainedTrial,
    split: Split,
    chosen: Sequence[int],
    inputs: Sequence[ImageScore],
    ours: Sequence[ImageScore],
) -> tuple[ScoredCrop, ...]:
    """The images with the best, the median and the worst gain; fewer where there are fewer images."""
    order = np.argsort(_psnr(inputs) - _psnr(ours), kind="stable")
    positions = {"best gain": 0, "median gain": len(order) // 2, "worst gain": len(order) - 1}
    samples: list[ScoredCrop] = []
    seen: set[int] = set()
    for rank, position in positions.items():
        number = int(order[position])
        if number in seen:
            continue
        seen.add(number)
        pair = split.val.whole(chosen[number])
        window = _busiest((pair.degraded - pair.clean).square().sum(0).numpy())
        degraded, restored, clean = (
            to_codes(image[..., *window])
            for image in (pair.degraded, _restore(winner, pair.degraded), pair.clean)
        )
        samples.append(
            ScoredCrop(
                name=split.val.name(chosen[number]),
                rank=rank,
                before_db=inputs[number].psnr_db,
                after_db=ours[number].psnr_db,
                degraded=degraded,
                restored=restored,
                clean=clean,
            )
        )
    return tuple(samples)


def _busiest(error: NDArray[np.float32]) -> tuple[slice, slice]:
    """The window of the size of a crop that holds most of the squared error."""
    height, width = min(CROP_HEIGHT, error.shape[0]), min(CROP_WIDTH, error.shape[1])
    total = np.pad(error.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    held = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    top, left = np.unravel_index(np.argmax(held), held.shape)
    return slice(int(top), int(top) + height), slice(int(left), int(left) + width)
