"""Ablation of the winner: its recipe with one setting changed at a time, trained for equal compute and compared."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.table import Table

from data.sources import Split
from search.analysis.ablation_configs import AS_IT_IS, OTHER_SEED, Change, changes_of
from search.analysis.ranking_table import PERCENT
from search.database import (
    FrozenTrial,
    Study,
    ablation_folder,
    best_trial,
    record_study,
    study_facts_of,
    study_folder,
)
from search.errors import UserError
from search.inference import Precision, score_pairs
from search.statistics import ENOUGH_GROUPS, Estimate, bootstrap_mean
from search.terminal import Progress
from search.text import clock
from search.trial import Diverged, Stopped, TrialConfig, load_weights, measure_pace, train
from search.worker import (
    RepeatCallback,
    StopSignals,
    held_out_images,
    open_images,
    refuse_other_images,
    stored_config,
)

SAFETY = 0.85  # of the budget: the rest is scoring and starting
PATIENCE_SHARE = 0.002  # of the budget, for measuring the speed of one recipe
EVALUATIONS = 2  # scores on the way


@dataclass(frozen=True)
class TrainedChange:
    """A trained change, with the `psnr_db` of each validation image; without images if it diverged."""

    question: str
    text: str
    steps: int
    seconds: float
    psnr_db: tuple[float, ...]


@dataclass(frozen=True)
class Ablation:
    """All that was trained around one trial, `teramacs` (10^12 multiply-adds) each."""

    trial: int
    budget: float
    teramacs: float
    images: tuple[int, ...]
    fresh: bool
    """True if no trial of the search was scored on those validation images."""
    done: tuple[TrainedChange, ...] = ()


@dataclass(frozen=True)
class AblationOptions:
    """Settings of an ablation."""

    out: Path
    device: torch.device
    budget: float
    """Seconds for all trainings together."""
    quiet: bool = False


def run_ablation(study: Study, options: AblationOptions) -> bool:
    """Train the changes that are not trained yet; True if the run was asked to stop.

    The same call continues. Raises `UserError` without a winner, without anything to train, or for other images.
    """
    trial = best_trial(study)
    if trial is None:
        raise UserError(
            f"study {study.study_name!r} has no finished trial yet; "
            f"`python -m search run --study {study.study_name}` goes on"
        )
    winner = stored_config(trial)
    if not winner.total_steps:
        raise UserError(f"study {study.study_name!r}: its winner is a filter, there is nothing to train")
    split = open_images(study, winner, options.out)
    refuse_other_images(trial, split)
    changes = list(changes_of(winner, options.device))
    with (
        StopSignals() as stop,
        Progress(
            study.study_name, float("nan"), len(changes), time.monotonic() + options.budget, options.quiet
        ) as progress,
    ):
        check = _stored_or_new(study, trial, changes, winner, split, options, progress)
        for change in changes:
            if any(entry.question == change.question for entry in check.done):
                continue
            folder = ablation_folder(study_folder(options.out, study), trial.number, change.question)
            try:
                entry = _train(change, check, split, options.device, folder, progress, stop)
            except Stopped:
                return True
            check = Ablation(**{**vars(check), "done": (*check.done, entry)})
            record_study(study, one_change=asdict(check))
            shutil.rmtree(folder, ignore_errors=True)
            progress.ended("done", None, trial.number)
            score = f"{fmean(entry.psnr_db):.2f} dB" if entry.psnr_db else "diverged"
            progress.say(f"{change.text}: {score}  ({clock(entry.seconds)}, {entry.steps} steps)")
            if stop.requested:
                return True
    return False


def read_ablation(study: Study) -> Ablation | None:
    """The stored ablation of a study, with the changes trained so far."""
    stored = study_facts_of(study).one_change
    if stored is None:
        return None
    done = tuple(TrainedChange(**{**entry, "psnr_db": tuple(entry["psnr_db"])}) for entry in stored["done"])
    return Ablation(**{**stored, "images": tuple(stored["images"]), "done": done})


def ablation_differences(check: Ablation) -> list[tuple[TrainedChange, Estimate | None]]:
    """Each change and how much better or worse it restores than the winner's recipe; None where it diverged."""
    base = next((entry for entry in check.done if entry.question == AS_IT_IS), None)
    if base is None or not base.psnr_db:
        return []
    found: list[tuple[TrainedChange, Estimate | None]] = []
    for entry in check.done:
        if entry is not base:
            gains = [a - b for a, b in zip(entry.psnr_db, base.psnr_db, strict=False)]
            found.append((entry, bootstrap_mean(gains, range(len(gains))) if gains else None))
    return found


def ablation_sentences(check: Ablation | None) -> list[str]:
    """The results in sentences, one for each change; none where nothing was trained."""
    found = ablation_differences(check) if check else []
    if check is None or not found:
        return []
    which = "that had scored no trial" if check.fresh else "of the search (there are no others)"
    steps = next(entry.steps for entry in check.done if entry.question == AS_IT_IS)
    lines = [
        f"The recipe of trial {check.trial}, one change at a time, trained anew from one seed for equal compute "
        f"({steps} steps of the recipe as it is), judged on {len(check.images)} validation images {which}:"
    ]
    luck = next((abs(e.mean) for t, e in found if t.question == OTHER_SEED and e is not None), None)
    for entry, gain in found:
        if gain is None:
            lines.append(f"{entry.text}: diverged.")
            continue
        text = f"{entry.text}: {gain.mean:+.2f} dB"
        if gain.low == gain.low:
            text += f" ({PERCENT} over images: {gain.low:+.2f} to {gain.high:+.2f})"
        lines.append(f"{text}{_significance_note(entry, gain, luck, len(check.images))}.")
    return lines


def show_ablation(check: Ablation, console: Console) -> None:
    """The table of differences."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("question", "change", "PSNR (dB)", "difference", PERCENT, "steps", "time"):
        table.add_column(name, justify="left" if name in ("question", "change") else "right")
    gains = {entry.question: gain for entry, gain in ablation_differences(check)}
    for entry in check.done:
        gain = gains.get(entry.question)
        table.add_row(
            entry.question,
            entry.text,
            f"{fmean(entry.psnr_db):.2f}" if entry.psnr_db else "diverged",
            f"{gain.mean:+.2f}" if gain else "",
            f"{gain.low:+.2f} to {gain.high:+.2f}" if gain and gain.low == gain.low else "",
            str(entry.steps),
            clock(entry.seconds),
            style="" if gain is None or gain.one_sided else "dim",
        )
    console.print(table)


def _stored_or_new(
    study: Study,
    trial: FrozenTrial,
    changes: Sequence[Change],
    winner: TrialConfig,
    split: Split,
    options: AblationOptions,
    progress: Progress,
) -> Ablation:
    """The check as stored, if it is one of this winner and budget; else a new one, its length from measured speed."""
    check = read_ablation(study)
    if check is not None and (check.trial, check.budget) == (trial.number, options.budget):
        return check
    if check is not None:
        progress.say(
            f"the check of trial {check.trial} for {clock(check.budget)} makes room for that of "
            f"trial {trial.number} for {clock(options.budget)}"
        )
    seconds_per_teramac = 0.0
    for change in changes:
        progress.start(f"measuring the speed: {change.text}", 0, 1)
        patience = PATIENCE_SHARE * options.budget
        seconds = measure_pace(change.config, split, options.device, patience).seconds_per_step
        seconds_per_teramac += seconds / change.config.teramacs_per_step
    images, fresh = held_out_images(split, winner)
    check = Ablation(
        trial.number,
        options.budget,
        SAFETY * options.budget / seconds_per_teramac,
        tuple(images),
        fresh,
    )
    record_study(study, one_change=asdict(check))
    return check


def _train(
    change: Change,
    check: Ablation,
    split: Split,
    device: torch.device,
    folder: Path,
    progress: Progress,
    stop: StopSignals,
) -> TrainedChange:
    """Train one change and score it. Raises `Stopped`; the same call continues."""
    length = {"steps": {"teramacs": check.teramacs}, "pauses": (), "evaluations": EVALUATIONS}
    config = change.config.as_planned(**length)
    try:
        report = RepeatCallback(change.text, config.total_steps, progress, stop)
        result = train(config, split, device, folder, report)
    except Diverged:
        return TrainedChange(change.question, change.text, config.total_steps, 0.0, ())
    model = config.model.build().to(device).eval()
    load_weights(result.weights, model)
    scores = score_pairs(model, (split.val.whole(index) for index in check.images), Precision("fp32", device))
    return TrainedChange(
        change.question,
        change.text,
        config.total_steps,
        result.score.seconds,
        tuple(score.psnr_db for score in scores),
    )


def _significance_note(entry: TrainedChange, gain: Estimate, luck: float | None, images: int) -> str:
    """Reasons to trust a difference, or to doubt it, in words."""
    if entry.question == OTHER_SEED:
        return ": so much is luck"
    if not gain.one_sided:
        return ": not enough evidence, the interval holds 0"
    if luck is not None and abs(gain.mean) <= luck:
        return ": no more than another seed makes"
    return "" if images >= ENOUGH_GROUPS else f" (fewer than {ENOUGH_GROUPS} images: a hint)"
