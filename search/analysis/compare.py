"""Several studies on the same pairs: equal training time for each, then their winners side by side."""

import math
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from data import DataConfig, image_groups
from data.files import DataError, some_names
from data.sources import PairsConfig, PairSet, Split, shared_images
from search.analysis.ranking_table import CHART, CSV, MARKDOWN, show_ranking, write_ranking
from search.database import (
    ChangedRecipe,
    Study,
    TrialState,
    best_trial,
    facts_of,
    load_study,
    make_writable,
    open_study,
)
from search.errors import UserError
from search.inference import Precision, device_name, ms_per_megapixel, score_image, score_pairs
from search.launch import run_in_process
from search.statistics import Effort, Entry, rank_entries
from search.study import SpaceError, StudySpec
from search.terminal import Terminal
from search.text import clock
from search.worker import RunOptions, check_channels, data_of, load_best, refuse_other_images

SMALLEST_SHARE = 0.05  # of the budget: less is not worth another start
OVERDRAWN = 1.1  # times the budget: more is mentioned in the remarks


@dataclass(frozen=True)
class CompareOptions:
    """Settings of a comparison: the time for each study, the images, the output folder."""

    budget_seconds: float
    """Training time of each study, earlier runs included; 0 compares what there is."""
    to: Path
    test: Path | None = None
    """Folder of pairs on which to score instead of the validation pairs."""
    groups: str | None = None
    force: bool = False
    """Allow test images that training or validation has, too."""


@dataclass(frozen=True)
class CompareOutcome:
    """Result of a comparison: whether it was stopped, and the reason for each study that is not in the table."""

    stopped: bool
    failures: dict[str, str]


def compare_studies(specs: Sequence[StudySpec], how: RunOptions, options: CompareOptions) -> CompareOutcome:
    """Train each study for what is left of its budget, score the winners, write the ranking.

    Faults in the arguments are reported before anything is trained. A study that fails later does not hold
    up the others. Calling it again goes on where it was stopped.
    """
    console = Terminal(quiet=how.quiet, highlight=False)
    make_writable(how.out)
    make_writable(options.to, "--to")
    data = _common_data(specs)
    split = data.open(seed=0, cache=how.out)
    scored_pairs = _pairs_to_score(data, split, how.out, options)
    group_of = image_groups(options.groups, [scored_pairs.name(index) for index in range(len(scored_pairs))])
    for spec in specs:
        check_channels(spec, split.channels)
    for spec in specs:
        _refuse_unfit(spec, how, options.budget_seconds)

    failures: dict[str, str] = {}
    for spec in specs:
        try:
            if _train(spec, how, options.budget_seconds, console):
                return CompareOutcome(stopped=True, failures=failures)
        except (UserError, DataError, SpaceError) as error:
            failures[spec.name] = str(error)

    entries = [_unchanged(scored_pairs)]
    for spec in specs:
        if spec.name not in failures:
            console.print(f"{spec.name}: judging its winner on {len(scored_pairs)} images", soft_wrap=True)
            try:
                entries.append(_entry(spec.name, how, split, scored_pairs))
            except UserError as error:
                failures[spec.name] = str(error)
    if len(entries) > 1:
        ranking = rank_entries(entries, group_of)
        part = "validation" if options.test is None else "test"
        title = f"{len(scored_pairs)} {part} images of {_name_of_images(data, options)}"
        remarks = [*_remarks(entries, how, split, options), *_left_out(failures)]
        console.print()
        show_ranking(ranking, console, remarks)
        write_ranking(options.to, ranking, title, remarks)
        written = f"written: {options.to}/{CSV}, {MARKDOWN}, {CHART}"
        console.print(written, markup=False, soft_wrap=True)
    for line in _left_out(failures):
        print(f"search compare: {line}", file=sys.stderr)
    return CompareOutcome(stopped=False, failures=failures)


def with_label(spec: StudySpec, label: str) -> StudySpec:
    """The same study under the name STUDY-LABEL."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", label):
        raise UserError(f"--label: {label!r} has more than letters, digits, '.', '_' and '-'")
    return spec.with_changes(name=f"{spec.name}-{label}")


def _common_data(specs: Sequence[StudySpec]) -> DataConfig:
    first, *others = ((spec.name, data_of(spec)) for spec in specs)
    for name, data in others:
        if data != first[1]:
            raise UserError(
                f"studies {first[0]!r} and {name!r} name different data; --data DIR gives all the same"
            )
    return first[1]


def _pairs_to_score(data: DataConfig, split: Split, out: Path, options: CompareOptions) -> PairSet:
    """The images on which winners are scored: validation pairs, or those of --test."""
    if options.test is None:
        return split.val
    # A folder of pairs is read in the way of the training pairs.
    config = (
        data.model_copy(update={"dir": options.test})
        if isinstance(data, PairsConfig)
        else PairsConfig(dir=options.test)
    )
    pairs = config.open_all(cache=out)
    channels = pairs.whole(0).clean.shape[0]
    if channels != split.channels:
        kinds = {1: "gray", 3: "colour"}
        raise UserError(
            f"--test {options.test}: the images are {kinds[channels]}, those of training are {kinds[split.channels]}"
        )
    twins = shared_images(pairs, split)
    if twins and not options.force:
        named = some_names(f"{name} (as {twin})" for name, twin in twins.items())
        raise UserError(
            f"--test {options.test}: {len(twins)} of {len(pairs)} images have the pixels of training or "
            f"validation images: {named}\n--force judges by them all the same"
        )
    return pairs


def _refuse_unfit(spec: StudySpec, how: RunOptions, budget_seconds: float) -> None:
    """Raises `UserError` for a study that could not be run, or, without a budget, has nothing to compare."""
    if budget_seconds == 0:
        if best_trial(load_study(spec.name, how.storage)) is None:
            raise UserError(f"study {spec.name!r} has no finished trial yet: --budget gives it time")
        return
    try:
        open_study(spec, how.storage, continue_with_changes=False, out=how.out)
    except ChangedRecipe as error:
        raise UserError(
            f"{str(error).splitlines()[0]}\n--label NAME compares new studies, called {spec.name}-NAME and so on"
        ) from None


def _train(spec: StudySpec, how: RunOptions, budget_seconds: float, console: Console) -> bool:
    """Train for the rest of a study's budget; True if asked to stop. `UserError` if no trial is finished then."""
    if budget_seconds == 0:
        return False
    study = load_study(spec.name, how.storage)
    seconds = _seconds_left(study, budget_seconds)
    spent = sum(_spent(study))
    console.print(
        f"{spec.name}: {clock(spent)} of {clock(budget_seconds)} trained", markup=False, soft_wrap=True
    )
    if seconds and run_in_process(spec.with_changes(timeout=seconds), how).stopped:
        return True
    if best_trial(study) is None:
        raise UserError(f"no trial was finished in {clock(budget_seconds)}; a larger --budget goes on")
    return False


def _spent(study: Study) -> list[float]:
    """Seconds of each trial that has begun, in whatever state it is."""
    trials = study.get_trials(deepcopy=False)
    return [facts.seconds for trial in trials if (facts := facts_of(trial)).seconds > 0]


def _seconds_left(study: Study, budget_seconds: float) -> float:
    """Seconds that are left of a study's training budget; 0 if no trial fits into them."""
    spent = _spent(study)
    left = budget_seconds - sum(spent)
    for trial in study.get_trials(deepcopy=False):
        begun = trial.state == TrialState.RUNNING or (
            trial.state == TrialState.WAITING and trial.datetime_start is not None
        )
        if begun:  # what was interrupted is brought to its end
            return max(left, 1.0)
    fits = max(SMALLEST_SHARE * budget_seconds, statistics.median(spent) if spent else 0.0)
    return left if left >= fits else 0.0


def _unchanged(scored_pairs: PairSet) -> Entry:
    pairs = (scored_pairs.whole(index) for index in range(len(scored_pairs)))
    return Entry("unchanged", [score_image(pair.degraded, pair.clean) for pair in pairs])


def _entry(name: str, how: RunOptions, split: Split, scored_pairs: PairSet) -> Entry:
    """The winner of a study, scored on each image and timed."""
    study = load_study(name, how.storage)
    winner = load_best(study, how.out)
    refuse_other_images(winner.trial, split)
    model, precision = winner.model.to(how.device), Precision("fp32", how.device)
    scores = score_pairs(model, (scored_pairs.whole(index) for index in range(len(scored_pairs))), precision)
    largest = max(range(len(scored_pairs)), key=lambda index: math.prod(scored_pairs.size(index)))
    facts = facts_of(winner.trial)
    assert facts.parameters is not None and facts.gmacs_at_256 is not None
    effort = Effort(
        kind=winner.config.model.kind,
        trial=winner.trial.number,
        trials=sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)),
        training_seconds=sum(_spent(study)),
        parameters=facts.parameters,
        gmacs_at_256=facts.gmacs_at_256,
        ms_per_megapixel=ms_per_megapixel(model, scored_pairs.whole(largest).degraded, precision),
    )
    return Entry(name, scores, effort)


def _name_of_images(data: DataConfig, options: CompareOptions) -> str:
    if options.test is not None:
        return options.test.resolve().name
    return data.dir.name if isinstance(data, PairsConfig) else data.kind


def _remarks(entries: Sequence[Entry], how: RunOptions, split: Split, options: CompareOptions) -> list[str]:
    """Remarks below the table on the limits of the comparison."""
    remarks = [f"studies worked on {split.note}; {device_name(how.device)}"]
    if options.test is None:
        remarks.append("these images chose the winners, which flatters all of them a little: see --test")
    budget = options.budget_seconds
    over = [
        f"{entry.name} {clock(entry.effort.training_seconds)}"
        for entry in entries
        if entry.effort and entry.effort.training_seconds > OVERDRAWN * budget
    ]
    if budget == 0:
        remarks.append("training times were not made equal (--budget 0)")
    elif over:
        remarks.append(f"had more than the budget of {clock(budget)}: {', '.join(over)}")
    return remarks


def _left_out(failures: dict[str, str]) -> list[str]:
    return [f"{name} is not in the table: {why}" for name, why in failures.items()]
