"""Before a search: code compiled, pairs, the study in the database, and what it starts with."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from data import DataConfig, PairsConfig, Split
from models.kernel_basis import why_not_compiled
from models.native import is_to_be_built
from search import checkup, leases, space, storage, warm
from search.device import device_name
from search.errors import UserError
from search.length import affordable, training_speed
from search.records import flat
from search.samples import ProbeConfigs
from search.storage import LABEL, REPLACED
from search.study import ANY_LENGTH, StudySpec, close
from search.trial.config import TrialConfig
from search.trial.evaluate import Score, mean_score, score_image
from search.worker import Options, starting_point

SPEC = "spec"  # study attribute: the study as it is searched now, for workers that join
FINGERPRINT = "data"  # study attribute: which pairs it works on

Measure = Callable[[StudySpec, Split, torch.device], float]
"""How fast the study's models train, in 10^12 multiply-adds a second."""


@dataclass(frozen=True)
class Opened:
    """A study that is ready to be worked on, and what there is to say about it."""

    spec: StudySpec
    """With as many rungs as it has time for."""
    study: storage.Study
    split: Split
    input_psnr_db: float
    lines: tuple[str, ...]


def open_search(spec: StudySpec, options: Options, measure: Measure | None = None) -> Opened:
    """Everything that is done once, before any worker begins. `UserError` for whatever is wrong.

    Trials that a run left behind when it died are handed back. `measure` is `training_speed` unless given.
    """
    split = open_data(spec, options.out)
    study = storage.open_study(spec, options.storage, continue_with_changes=options.continue_with_changes)
    for corner in (close(ANY_LENGTH | tree) for tree in space.corners(spec.recipe)):
        if corner.initial is not None:
            starting_point(corner.initial, options.storage, options.out)
    left = leases.Watchman().dead(study)
    for trial in left:
        leases.bury(study, trial)
    if "steps" not in spec.recipe:
        if storage.FULL not in study.user_attrs:
            speed = (measure or training_speed)(spec, split, options.device)
            length = affordable(spec, speed, ProbeConfigs(spec, split.channels))
            study.set_user_attr(storage.RUNGS, length.rungs)
            study.set_user_attr(storage.FULL, length.teramacs)
        rungs = study.user_attrs.get(storage.RUNGS, spec.ladder.rungs)
        spec = spec.with_changes(ladder=spec.ladder.at_most(rungs))
    is_new, said = not study.trials, list[str]()
    if options.warm_start is not None:
        warm.start(study, spec, options.warm_start, options.storage, split.fingerprint, said.append)
    if is_new:
        for known in spec.first:
            study.enqueue_trial(
                dict(known.values), user_attrs={LABEL: known.name, REPLACED: dict(known.recipe)}
            )
    if options.typed:
        storage.remember_command(study, options.typed)
    study.set_user_attr(SPEC, spec.model_dump_json())
    study.set_user_attr(FINGERPRINT, split.fingerprint)
    judged = split.val.representative(any_config(spec).val_megapixels)
    input_psnr_db = unchanged(split, judged).psnr_db
    lines = [
        f"{spec.name}: {split.note}; {device_name(options.device)}",
        f"trials are scored on {len(judged)} validation pairs, input {input_psnr_db:.2f} dB",
        *said,
    ]
    if isinstance(data := data_of(spec), PairsConfig):
        found = checkup.warnings_for_a_search(data.dir, data.scan_dir, data.clean_dir)
        lines += [f"check: {line}" for line in found]
    if _runs_compiled_code(spec, options) and (why := why_not_compiled()):
        lines.append(f"KBNet's operator is not compiled ({why}): it trains several times slower")
    if left:
        numbers = ", ".join(str(trial.number) for trial in left)
        lines.append(f"going on with trial {numbers}, left behind by a run that died")
    return Opened(spec, study, split, input_psnr_db, tuple(lines))


def compile_operator(spec: StudySpec, options: Options) -> None:
    """Compile what trials of the study need, once per machine. That is no time of the search.

    `UserError` or `DataError` for what is wrong with the pairs: nobody should wait for that.
    """
    if _runs_compiled_code(spec, options) and is_to_be_built("kernel_basis"):
        open_data(spec, options.out)
        if not options.quiet:
            print("compiling KBNet's operator for this processor, once: up to two minutes", flush=True)
        why_not_compiled()


def _runs_compiled_code(spec: StudySpec, options: Options) -> bool:
    """Whether trials of the study run code that is compiled on this machine, if it has a compiler."""
    models = [flat(corner["model"]).values() for corner in space.corners(spec.recipe)]
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
    return close(ANY_LENGTH | space.fill(spec.recipe, space.RandomSuggester(0)))


def check_channels(spec: StudySpec, channels: int) -> None:
    """Raises `UserError` if the recipe fixes another number of channels than the images have."""
    for corner in space.corners(spec.recipe):
        fixed = corner["model"].get("channels", channels)
        if fixed != channels:
            raise UserError(
                f"recipe.model.channels is {fixed}, but the images have {channels}: "
                f"leave it out, or set recipe.data.channels = {fixed}"
            )


def unchanged(split: Split, indices: Iterable[int]) -> Score:
    """What these validation images score as they are."""
    pairs = (split.val.whole(index) for index in indices)
    return mean_score([score_image(pair.degraded, pair.clean) for pair in pairs], step=0, seconds=0.0)
