"""Setting up a search: data, study, starting points, length of a training, first trials, messages."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data import DataConfig
from data.sources import PairsConfig, Split
from models.kernel_basis import is_to_be_built, why_not_compiled
from search.database import (
    LeaseMonitor,
    Study,
    as_stored,
    command_without_passwords,
    flatten,
    open_study,
    record_command,
    record_study,
    release_abandoned_trial,
    study_facts_of,
    study_folder,
)
from search.datacheck import warnings_for_a_search
from search.errors import UserError
from search.inference import Score, device_name, mean_score, score_image
from search.study import ANY_LENGTH, RandomSuggester, StudySpec, close_recipe, corner_recipes, fill_leaves
from search.trial import TrialConfig
from search.worker.probe_configs import ProbeConfigs
from search.worker.run_options import RunOptions
from search.worker.training_budget import affordable_length, measure_training_speed
from search.worker.trial_setup import resolve_starting_point
from search.worker.warm_start import start_warm

Measure = Callable[[StudySpec, Split, torch.device], float]
"""Measures the training speed of the study's models, in 10^12 multiply-adds a second."""


@dataclass(frozen=True)
class PreparedSearch:
    """A study that is ready for workers, and messages about it."""

    spec: StudySpec
    """The number of rungs is reduced to what the time allows."""
    study: Study
    split: Split
    input_psnr_db: float
    """Score of the degraded validation images themselves."""
    lines: tuple[str, ...]
    """Messages for the display."""


def prepare_search(spec: StudySpec, options: RunOptions, measure: Measure | None = None) -> PreparedSearch:
    """Everything that is done once, before workers start. `UserError` for anything that is wrong.

    Trials that an earlier run abandoned are released. `measure` is `measure_training_speed` by default.
    """
    split = open_data(spec, options.out)
    study = open_study(
        spec,
        options.storage,
        continue_with_changes=options.continue_with_changes,
        out=options.out,
        data=split.fingerprint,
    )
    check_starting_points(spec, options)
    abandoned_lines = release_abandoned_trials(study)
    spec = fix_length(study, spec, split, options.device, measure or measure_training_speed)
    warm_start_lines = enqueue_first_trials(study, spec, options, split.fingerprint)
    if options.command:
        record_command(study, command_without_passwords(options.command))
    record_study(study, spec=spec, data=split.fingerprint)
    scored_pairs = split.val.representative(any_config(spec).val_megapixels)
    input_psnr_db = input_score(split, scored_pairs).psnr_db
    lines = description_of_search(spec, split, options.device, scored_pairs, input_psnr_db)
    if (folder := study_folder(options.out, study)).name != spec.name:
        lines.append(f"its files are in {folder}")
    lines += [*warm_start_lines, *warnings(spec, options), *abandoned_lines]
    return PreparedSearch(spec, study, split, input_psnr_db, tuple(lines))


def check_starting_points(spec: StudySpec, options: RunOptions) -> None:
    """Raises `UserError` if the recipe starts from the weights of a study that has none."""
    for corner in (close_recipe(ANY_LENGTH | tree) for tree in corner_recipes(spec.recipe)):
        if corner.initial is not None:
            resolve_starting_point(corner.initial, options.storage, options.out)


def release_abandoned_trials(study: Study) -> list[str]:
    """Put abandoned trials back in the queue; a message if there were any."""
    abandoned = LeaseMonitor().abandoned_trials(study)
    for trial in abandoned:
        release_abandoned_trial(study, trial)
    numbers = ", ".join(str(trial.number) for trial in abandoned)
    return [f"going on with trial {numbers}, left behind by a run that died"] if abandoned else []


def fix_length(
    study: Study, spec: StudySpec, split: Split, device: torch.device, measure: Measure
) -> StudySpec:
    """`spec` with the rungs that its time allows. The length of a whole training is measured once for each study.

    Where the recipe fixes the length, nothing is measured and `spec` is returned as it is.
    """
    if "steps" in spec.recipe:
        return spec
    if study_facts_of(study).full_teramacs is None:
        length = affordable_length(spec, measure(spec, split, device), ProbeConfigs(spec, split.channels))
        record_study(study, rungs=length.rungs, full_teramacs=length.teramacs)
    rungs = study_facts_of(study).rungs
    return spec if rungs is None else spec.with_changes(ladder=spec.ladder.at_most(rungs))


def enqueue_first_trials(study: Study, spec: StudySpec, options: RunOptions, fingerprint: str) -> list[str]:
    """Enqueue the best recipes of the `warm_start` study, then, in a new study, the known recipes; messages about it.

    Call it after the length of a training is fixed.
    """
    is_new, said = not study.trials, list[str]()
    if options.warm_start is not None:
        start_warm(study, spec, options.warm_start, options.storage, fingerprint, said.append)
    for known in spec.first if is_new else ():
        facts = as_stored(label=known.name, replaced=dict(known.recipe))
        study.enqueue_trial(dict(known.values), user_attrs=facts)
    return said


def description_of_search(
    spec: StudySpec, split: Split, device: torch.device, scored_pairs: Sequence[int], input_psnr_db: float
) -> list[str]:
    """Messages: study, data, device, the validation pairs that are scored, the score of the input, remarks."""
    beside = ""
    if split.leaked:
        unseen = [index for index in scored_pairs if split.val.name(index) not in split.leaked]
        score = f"{input_score(split, unseen).psnr_db:.2f} dB on " if unseen else ""
        beside = f" ({score}{len(unseen)} that share nothing with training)"
    return [
        f"{spec.name}: {split.note}; {device_name(device)}",
        f"trials are scored on {len(scored_pairs)} validation pairs, input {input_psnr_db:.2f} dB{beside}",
        *split.remarks,
    ]


def warnings(spec: StudySpec, options: RunOptions) -> list[str]:
    """Warnings about the pairs, and about slow training."""
    found = list[str]()
    if isinstance(data := data_of(spec), PairsConfig):
        doubts = warnings_for_a_search(data.dir, data.scan_dir, data.clean_dir, data.pair_by)
        found += [f"check: {doubt}" for doubt in doubts]
    if _runs_compiled_code(spec, options) and (why := why_not_compiled()):
        found.append(f"KBNet's operator is not compiled ({why}): it trains several times slower")
    return found


def compile_operator(spec: StudySpec, options: RunOptions) -> None:
    """Compile the operator that the study's models use, once per machine; it does not count as time of the search.

    Opens the pairs first, so that `UserError` or `DataError` about them comes before the long wait.
    """
    if _runs_compiled_code(spec, options) and is_to_be_built("kernel_basis"):
        open_data(spec, options.out)
        if not options.quiet:
            print("compiling KBNet's operator for this processor, once: up to two minutes", flush=True)
        why_not_compiled()


def _runs_compiled_code(spec: StudySpec, options: RunOptions) -> bool:
    """True if trials of the study use the compiled operator."""
    models = [flatten(corner["model"]).values() for corner in corner_recipes(spec.recipe)]
    return options.device.type == "cpu" and any("kbnet_s" in model for model in models)


def open_data(spec: StudySpec, out: Path) -> Split:
    """The pairs of a study, split into train and val. The split does not depend on the study's seed."""
    split = data_of(spec).open(seed=0, cache=out)
    check_channels(spec, split.channels)
    return split


def data_of(spec: StudySpec) -> DataConfig:
    """Data source of a study. It is the same for all trials."""
    return any_config(spec).data


def any_config(spec: StudySpec) -> TrialConfig:
    """Config of an arbitrary trial, for the settings that all trials have in common."""
    return close_recipe(ANY_LENGTH | fill_leaves(spec.recipe, RandomSuggester(0)))


def check_channels(spec: StudySpec, channels: int) -> None:
    """Raises `UserError` if the recipe fixes another number of channels than the images have."""
    for corner in corner_recipes(spec.recipe):
        fixed = corner["model"].get("channels", channels)
        if fixed != channels:
            raise UserError(
                f"recipe.model.channels is {fixed}, but the images have {channels}: "
                f"leave it out, or set recipe.data.channels = {fixed}"
            )


def input_score(split: Split, indices: Iterable[int]) -> Score:
    """Mean score of these degraded validation images themselves."""
    pairs = (split.val.whole(index) for index in indices)
    return mean_score([score_image(pair.degraded, pair.clean) for pair in pairs], step=0, seconds=0.0)
