"""Setting up a search: data, study, starting points, length of a training, known recipes, and what to say."""

from collections.abc import Callable, Iterable
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
    hand_back_dead,
    open_study,
    record_study,
    remember_command,
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
"""How fast the study's models train, in 10^12 multiply-adds a second."""


@dataclass(frozen=True)
class Opened:
    """A study that is ready to be worked on, and what there is to say about it."""

    spec: StudySpec
    """With as many rungs as it has time for."""
    study: Study
    split: Split
    input_psnr_db: float
    """What the images that judge trials score as they are."""
    lines: tuple[str, ...]
    """For whoever started the search."""


def open_search(spec: StudySpec, options: RunOptions, measure: Measure | None = None) -> Opened:
    """Everything that is done once, before any worker begins. `UserError` for whatever is wrong.

    Trials that a run left behind when it died are handed back. `measure` is `training_speed` unless given.
    """
    split = open_data(spec, options.out)
    study = open_study(
        spec, options.storage, continue_with_changes=options.continue_with_changes, out=options.out
    )
    check_starting_points(spec, options)
    left_behind = hand_back_left_behind(study)
    spec = fix_length(study, spec, split, options.device, measure or measure_training_speed)
    carried_on = enqueue_first_trials(study, spec, options, split.fingerprint)
    if options.typed:
        remember_command(study, command_without_passwords(options.typed))
    record_study(study, spec=spec, data=split.fingerprint)
    judged = split.val.representative(any_config(spec).val_megapixels)
    input_psnr_db = input_score(split, judged).psnr_db
    lines = greeting(spec, split, options.device, len(judged), input_psnr_db)
    if (folder := study_folder(options.out, study)).name != spec.name:
        lines.append(f"its files are in {folder}")
    lines += [*carried_on, *warnings(spec, options), *left_behind]
    return Opened(spec, study, split, input_psnr_db, tuple(lines))


def check_starting_points(spec: StudySpec, options: RunOptions) -> None:
    """Raises `UserError` if trials are to begin from the weights of a study that has none."""
    for corner in (close_recipe(ANY_LENGTH | tree) for tree in corner_recipes(spec.recipe)):
        if corner.initial is not None:
            resolve_starting_point(corner.initial, options.storage, options.out)


def hand_back_left_behind(study: Study) -> list[str]:
    """Put trials whose worker is dead back in the queue; a line that says so, if there were any."""
    left = LeaseMonitor().dead(study)
    for trial in left:
        hand_back_dead(study, trial)
    numbers = ", ".join(str(trial.number) for trial in left)
    return [f"going on with trial {numbers}, left behind by a run that died"] if left else []


def fix_length(
    study: Study, spec: StudySpec, split: Split, device: torch.device, measure: Measure
) -> StudySpec:
    """`spec` with the rungs that there is time for; a study keeps for good how long a whole training is.

    Where the recipe says how long, nothing is measured and nothing changes.
    """
    if "steps" in spec.recipe:
        return spec
    if study_facts_of(study).full_teramacs is None:
        length = affordable_length(spec, measure(spec, split, device), ProbeConfigs(spec, split.channels))
        record_study(study, rungs=length.rungs, full_teramacs=length.teramacs)
    rungs = study_facts_of(study).rungs
    return spec if rungs is None else spec.with_changes(ladder=spec.ladder.at_most(rungs))


def enqueue_first_trials(study: Study, spec: StudySpec, options: RunOptions, fingerprint: str) -> list[str]:
    """Enqueue what is tried first: the best of the study to carry on from, then the known recipes if all is new.

    What there is to say about it. To be called once the length of a training is fixed.
    """
    is_new, said = not study.trials, list[str]()
    if options.warm_start is not None:
        start_warm(study, spec, options.warm_start, options.storage, fingerprint, said.append)
    for known in spec.first if is_new else ():
        facts = as_stored(label=known.name, replaced=dict(known.recipe))
        study.enqueue_trial(dict(known.values), user_attrs=facts)
    return said


def greeting(
    spec: StudySpec, split: Split, device: torch.device, judged: int, input_psnr_db: float
) -> list[str]:
    """What is searched, on what, and what is to be beaten: the score of the `judged` images as they are."""
    return [
        f"{spec.name}: {split.note}; {device_name(device)}",
        f"trials are scored on {judged} validation pairs, input {input_psnr_db:.2f} dB",
    ]


def warnings(spec: StudySpec, options: RunOptions) -> list[str]:
    """What is doubtful about the pairs, and what makes training slow."""
    found = list[str]()
    if isinstance(data := data_of(spec), PairsConfig):
        doubts = warnings_for_a_search(data.dir, data.scan_dir, data.clean_dir)
        found += [f"check: {doubt}" for doubt in doubts]
    if _runs_compiled_code(spec, options) and (why := why_not_compiled()):
        found.append(f"KBNet's operator is not compiled ({why}): it trains several times slower")
    return found


def compile_operator(spec: StudySpec, options: RunOptions) -> None:
    """Compile what trials of the study need, once per machine. That is no time of the search.

    `UserError` or `DataError` for what is wrong with the pairs: nobody should wait for that.
    """
    if _runs_compiled_code(spec, options) and is_to_be_built("kernel_basis"):
        open_data(spec, options.out)
        if not options.quiet:
            print("compiling KBNet's operator for this processor, once: up to two minutes", flush=True)
        why_not_compiled()


def _runs_compiled_code(spec: StudySpec, options: RunOptions) -> bool:
    """Whether trials of the study run code that is compiled on this machine, if it has a compiler."""
    models = [flatten(corner["model"]).values() for corner in corner_recipes(spec.recipe)]
    return options.device.type == "cpu" and any("kbnet_s" in model for model in models)


def open_data(spec: StudySpec, out: Path) -> Split:
    """The pairs that a study works on. The split never depends on the study's seed."""
    split = data_of(spec).open(seed=0, cache=out)
    check_channels(spec, split.channels)
    return split


def data_of(spec: StudySpec) -> DataConfig:
    """Where the pairs of a study come from: never an open leaf."""
    return any_config(spec).data


def any_config(spec: StudySpec) -> TrialConfig:
    """A trial of the study: for what is the same in all of them."""
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
    """What these validation images score as they are."""
    pairs = (split.val.whole(index) for index in indices)
    return mean_score([score_image(pair.degraded, pair.clean) for pair in pairs], step=0, seconds=0.0)
