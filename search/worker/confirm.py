"""Confirmation of the winner: finalists are trained again from new seeds and scored on held-out images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from data.sources import Split
from search.database import CONFIRMED, FrozenTrial, Study, facts_of
from search.inference import Precision, Score, score_pairs
from search.scheduler import RepeatView, best_repeated
from search.statistics import bootstrap_mean
from search.terminal import Shows
from search.text import clock
from search.trial import Diverged, TrialConfig, load_weights, train
from search.worker.callback import StopSignals


@dataclass(frozen=True)
class Repeat:
    """A finalist trained again; `psnr_db` is that of each held-out image, empty if the training diverged."""

    trial: int
    seed: int
    steps: int
    seconds: float
    psnr_db: tuple[float, ...]
    fresh: bool = True
    """True if no trial had been scored on these images."""


class RepeatCallback:
    """Callback of a repeat: displays its progress, passes on requests to stop."""

    def __init__(self, label: str, steps: int, progress: Shows, stop: StopSignals) -> None:
        self.label, self.steps, self.progress, self.stop = label, steps, progress, stop

    def begun(self, step: int, rungs: list[Score], seconds: float) -> None:
        self.progress.start(self.label, step, self.steps)

    def stepped(self, step: int, steps: int, loss: Tensor) -> None:
        self.progress.stepped(step, steps, loss)

    def scored(self, score: Score, dense: bool) -> None:
        self.progress.scored(score.psnr_db)

    def rescued(self, note: str) -> None:
        self.progress.say(f"{self.label}: {note}")

    def stop_requested(self) -> bool:
        return self.stop.requested


def held_out_images(split: Split, config: TrialConfig) -> tuple[list[int], bool]:
    """Validation images on which no trial was scored, and True; all images and False if fewer than two are left."""
    used = {
        *split.val.representative(config.val_megapixels),
        *split.val.representative(config.rung_megapixels),
    }
    free = [index for index in range(len(split.val)) if index not in used]
    return (free, True) if len(free) > 1 else (list(range(len(split.val))), False)


def retrain_finalist(
    trial: FrozenTrial,
    seed: int,
    steps: int,
    split: Split,
    device: torch.device,
    folder: Path,
    report: RepeatCallback,
) -> Repeat:
    """Train the recipe of `trial` from scratch for `steps` and score it. After `Stopped`, the same call continues."""
    config = TrialConfig.model_validate(facts_of(trial).config)
    changes = {"seed": (config.seed + seed) % 2**32, "steps": steps, "pauses": (), "evaluations": 4}
    config = config.as_planned(**changes)
    try:
        result = train(config, split, device, folder, report)
    except Diverged:
        return Repeat(trial.number, seed, steps, 0.0, ())
    model = config.model.build().to(device).eval()
    load_weights(result.weights, model)
    images, fresh = held_out_images(split, config)
    scores = score_pairs(model, (split.val.whole(index) for index in images), Precision("fp32", device))
    psnr_db = tuple(score.psnr_db for score in scores)
    return Repeat(trial.number, seed, steps, result.score.seconds, psnr_db, fresh)


def read_repeats(study: Study) -> list[Repeat]:
    """All repeats recorded so far."""
    attributes = study.user_attrs
    stored = [json.loads(attributes[name]) for name in sorted(attributes) if name.startswith(CONFIRMED)]
    found = [Repeat(**{**entry, "psnr_db": tuple(entry["psnr_db"])}) for entry in stored]
    return sorted(found, key=lambda entry: (entry.seed, entry.trial))


def repeat_views(done: Sequence[Repeat]) -> list[RepeatView]:
    """Repeats in the form that the scheduler takes."""
    return [
        RepeatView(entry.trial, entry.seed, entry.steps, fmean(entry.psnr_db) if entry.psnr_db else -inf)
        for entry in done
    ]


def record_repeat(study: Study, done: Repeat) -> None:
    """Store a repeat with the study."""
    study.set_user_attr(f"{CONFIRMED}{done.trial}.{done.seed}", json.dumps(asdict(done)))


def repeat_sentences(study: Study) -> list[str]:
    """A line for each finalist with its mean score over the repeats; empty without repeats."""
    done = read_repeats(study)
    if not done:
        return []
    trials = study.get_trials(deepcopy=False)
    order = best_repeated(repeat_views(done))
    first = order[0]
    images = max(len(entry.psnr_db) for entry in done)
    which = (
        "that had scored no trial"
        if all(entry.fresh for entry in done)
        else "of the search (there are no others)"
    )
    lines = [
        f"{len(order)} finalists trained again from {len({entry.seed for entry in done})} new seeds, "
        f"judged on {images} validation images {which}:"
    ]
    for number in order:
        runs = [fmean(entry.psnr_db) for entry in done if entry.trial == number and entry.psnr_db]
        steps = next(entry.steps for entry in done if entry.trial == number)
        seconds = fmean(entry.seconds for entry in done if entry.trial == number)
        label = facts_of(trials[number]).label
        name = f"trial {number}" + (f" ({label})" if label else "")
        if not runs:
            lines.append(f"{name}: diverged")
            continue
        line = f"{name}: {fmean(runs):.2f} dB (seeds {min(runs):.2f} to {max(runs):.2f}"
        line += f"; {steps} steps, {clock(seconds)} each)"
        lines.append(line + (_behind(done, trials, first, number) if number != first else ""))
    return lines


def _behind(done: Sequence[Repeat], trials: Sequence[FrozenTrial], first: int, number: int) -> str:
    ahead = [a - b for a, b in zip(_by_image(done, first), _by_image(done, number), strict=True)]
    lead = bootstrap_mean(ahead, range(len(ahead)))
    text = f", behind by {lead.mean:.2f} dB ({lead.low:.2f} to {lead.high:.2f}, paired over images)"
    ours, theirs = (trials[n].intermediate_values for n in (first, number))
    common = max((percent for percent in ours if percent in theirs), default=None)
    if common is not None:
        text += f"; in the search by {ours[common] - theirs[common]:.2f} dB at {common} %"
    return text


def _by_image(done: Sequence[Repeat], number: int) -> list[float]:
    """The mean over seeds for each image."""
    runs = [entry.psnr_db for entry in done if entry.trial == number and entry.psnr_db]
    return [fmean(values) for values in zip(*runs, strict=True)]
