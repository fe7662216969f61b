"""The contents of a report, gathered from the database and by restoring images with the winner."""

import datetime
import importlib.metadata
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from data.files import DataError
from data.sources import Split
from search.analysis import (
    Importance,
    Say,
    Validation,
    ablation_sentences,
    best_filter,
    conclusion_sentences,
    find_what_mattered,
    headline,
    known_recipe_name,
    known_recipe_trials,
    read_ablation,
    setting_importance,
    validate_winner,
)
from search.database import (
    COMPLETE,
    FAILED,
    FINISHED,
    PRUNED,
    FrozenTrial,
    Record,
    Study,
    best_trial,
    command_without_passwords,
    default_storage_url,
    flatten,
    read_records,
    study_facts_of,
)
from search.errors import UserError
from search.text import clock, format_setting
from search.worker import Repeat, read_repeats, repeat_sentences

_BEATEN = ("beaten", "pruned")  # how the reason of a trial begins that was simply not good enough
_HIDDEN = ("data.", "seed", "steps", "pauses")  # parts of a config that do not tell recipes apart


@dataclass(frozen=True)
class Spent:
    """Time that went into one kind of trials, in seconds."""

    what: str
    trials: int
    training: float
    validation: float
    """All but training steps: scoring, pictures, starting."""

    @property
    def total(self) -> float:
        return self.training + self.validation


@dataclass(frozen=True)
class Failure:
    """Trials that ended for the same kind of reason."""

    kind: str
    trials: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class Group:
    """Trials that share a setting."""

    value: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """Standard deviation over trials."""
        return stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Contrast:
    """A setting of interest, and the trials' scores for each of its values. Not paired: other settings differ, too."""

    what: str
    percent: int
    """The rung of the scores; 100: the end."""
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class ReportFacts:
    """Everything that a report shows."""

    study: str
    made: str
    headline: str
    sentences: tuple[str, ...]
    trials: tuple[Record, ...]
    best: Record | None
    validation: Validation | None
    no_validation_reason: str
    """Reason why there is no validation."""
    known: tuple[Record, ...]
    """Recipes that the study names."""
    compared: tuple[tuple[str, tuple[str, ...]], ...]
    """Settings in which they differ: name, the winner's value, theirs."""
    importance: Importance
    spent: tuple[Spent, ...]
    failures: tuple[Failure, ...]
    contrasts: tuple[Contrast, ...]
    confirmed: tuple[str, ...]
    """Sentences on the finalists that were trained again from new seeds."""
    mattered: tuple[str, ...]
    """An answer to each question about settings, and the results of an ablation if there is one."""
    environment: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


def gather_facts(
    study: Study, out: Path, url: str, say: Callable[[str], None], *, restore_images: bool = True
) -> ReportFacts:
    """The facts of a study; without `restore_images` no image is restored, which takes most of the time."""
    trials = read_records(study)
    best, validation, no_validation_reason, split = best_trial(study), None, "", None
    record = next((trial for trial in trials if best is not None and trial.number == best.number), None)
    if best is not None and record is not None:
        if restore_images:
            validation, no_validation_reason, split = _validate(study, trials, record, best, out, say)
        else:
            no_validation_reason = "it was not asked for."
    known = known_recipe_trials(trials, record) if record else []
    importances = setting_importance(study)
    return ReportFacts(
        study=study.study_name,
        made=datetime.datetime.now().strftime("%Y-%m-%d %H:%M"),
        headline=headline(record, validation),
        sentences=tuple(conclusion_sentences(trials, record, validation, no_validation_reason)),
        trials=tuple(trials),
        best=record,
        validation=validation,
        no_validation_reason=no_validation_reason,
        known=tuple(known),
        compared=tuple(_compared([record, *known])) if record else (),
        importance=importances,
        spent=tuple(_spent(trials, read_repeats(study))),
        failures=tuple(_failures(trials)),
        contrasts=tuple(_contrasts(trials)),
        confirmed=tuple(repeat_sentences(study)),
        mattered=(
            *find_what_mattered(study, importances).sentences,
            *ablation_sentences(read_ablation(study)),
        ),
        environment=tuple(_environment(trials, record, split)),
        commands=tuple(_commands(study, record, out, url)),
    )


def _validate(
    study: Study, trials: Sequence[Record], record: Record, best: FrozenTrial, out: Path, say: Say
) -> tuple[Validation | None, str, Split | None]:
    by_number = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    done = [trial for trial in known_recipe_trials(trials, record) if trial.psnr_db is not None]
    competitors = []
    if done:
        top = max(done, key=lambda trial: trial.psnr_db or 0.0)
        competitors.append((known_recipe_name(top), by_number[top.number], study))
    try:
        if (filter_ := best_filter(study, best)) is not None:
            competitors.append(filter_)
        validation, split = validate_winner(study, best, competitors, out, say)
    except (UserError, DataError) as error:
        return None, f"{error}.", None
    return validation, "", split


def _compared(recipes: Sequence[Record]) -> Iterable[tuple[str, tuple[str, ...]]]:
    """The settings in which recipes differ, one value per recipe; a dash where a recipe has no such setting."""
    flats = [flatten(recipe.config) if recipe.config else None for recipe in recipes]
    names = dict.fromkeys(name for flat in flats if flat for name in flat)
    if not recipes[0].parameters:  # filters have nothing in common: those of the best one are enough
        names = dict.fromkeys(flats[0] or {})
    for name in names:
        if name.startswith(_HIDDEN):
            continue
        values = tuple(
            "?" if flat is None else format_setting(flat[name]) if name in flat else "-" for flat in flats
        )
        if len(set(values) - {"?"}) > 1:
            yield name, values


def _spent(trials: Sequence[Record], repeats: Sequence[Repeat]) -> Iterable[Spent]:
    kinds = {
        "trained at full length": [t for t in trials if t.had_last_stretch],
        "complete": [t for t in trials if t.state == COMPLETE and not t.had_last_stretch],
        "stopped early": [t for t in trials if t.state == PRUNED and not t.had_last_stretch],
        "failed": [t for t in trials if t.state == FAILED and not t.had_last_stretch],
        "waiting to go on": [
            t for t in trials if t.state not in FINISHED and not t.had_last_stretch and t.seconds
        ],
    }
    for what, those in kinds.items():
        if those:
            training = sum(trial.training_seconds for trial in those)
            yield Spent(what, len(those), training, sum(trial.seconds for trial in those) - training)
    if repeats:
        yield Spent(
            "trained again from new seeds", len(repeats), sum(entry.seconds for entry in repeats), 0.0
        )


def _failures(trials: Sequence[Record]) -> Iterable[Failure]:
    """Failures that ended trials, and problems that trials recovered from."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for trial in trials:
        reason = " ".join(trial.ended.split())
        if trial.state == FAILED or (trial.state == PRUNED and not reason.startswith(_BEATEN)):
            kinds.setdefault(_kind(reason) or "no reason recorded", []).append((trial.number, reason))
        for note in trial.notes:
            kinds.setdefault("rescued, went on", []).append((trial.number, note))
    for kind, those in sorted(kinds.items(), key=lambda item: -len(item[1])):
        yield Failure(kind, tuple(dict.fromkeys(number for number, _ in those)), those[-1][1])


def _kind(reason: str) -> str:
    """ "out of time at step 5 of 9 (0:30)" -> "out of time"; "ValueError: no" -> "ValueError"."""
    return re.sub(r"( at)?( step)?$", "", re.split(r"[:(\d]", reason)[0].strip())


def _contrasts(trials: Sequence[Record]) -> Iterable[Contrast]:
    """Sparsity and precision, where trials differ in them, at the highest rung that all groups have reached.

    Up to its sparse phase a training is a dense one, so that rungs before it say nothing about sparsity.
    """
    settings: dict[
        str, tuple[Callable[[Mapping[str, Any]], object], Callable[[Mapping[str, Any]], float]]
    ] = {
        "dense-sparse-dense": (
            lambda config: config.get("sparsity", {}).get("kind"),
            lambda config: config.get("sparsity", {}).get("dense_share", 0.0),
        ),
        "precision": (lambda config: config.get("precision"), lambda config: 0.0),
    }
    for what, (value_of, alike_until) in settings.items():
        trials_by_value: dict[str, list[Record]] = {}
        for trial in trials:
            if trial.steps and trial.config:
                trials_by_value.setdefault(str(value_of(trial.config)), []).append(trial)
        rungs = [
            {rung for t in those for rung in t.reported if rung > 100 * alike_until(t.config)}
            for those in trials_by_value.values()
        ]
        common = set.intersection(*rungs) if len(rungs) > 1 else set()
        if common:
            rung = max(common)
            groups = tuple(
                Group(name, tuple(t.reported[rung] for t in those if rung in t.reported))
                for name, those in sorted(trials_by_value.items())
            )
            yield Contrast(what, rung, groups)


def _environment(
    trials: Sequence[Record], best: Record | None, split: Split | None
) -> Iterable[tuple[str, str]]:
    source = best or next((trial for trial in reversed(trials) if trial.facts.versions), None)
    if source is None:
        return
    facts = source.facts
    versions = {"restune": importlib.metadata.version("restune"), **facts.versions}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "device", facts.device or "?"
    if split is not None:
        yield "data", split.note
    yield "fingerprint of the data", facts.data or "?"
    yield "seed of the trial", str("?" if facts.seed is None else facts.seed)
    if memory := max((t.facts.peak_memory_mb or 0 for t in trials), default=0):
        yield "most memory of a trial", f"{memory:,.0f} MB"
    yield "time of all trials", clock(sum(trial.seconds for trial in trials))


def _commands(study: Study, best: Record | None, out: Path, url: str) -> list[str]:
    """The commands that were typed, if they are recorded; else commands that give the same study."""
    location = [] if out == Path("runs") else ["--out", str(out)]
    if url != default_storage_url(out):
        location += ["--storage", url]
    name = ["--study", study.study_name]
    commands = list(study_facts_of(study).commands)
    if not commands:
        data = best.config.get("data", {}) if best else {}
        folder = ["--data", data["dir"]] if "dir" in data else []
        commands.append(shlex.join(["python", "-m", "search", "run", *name, *folder, *location]))
    if best is not None:
        commands.append(shlex.join(["python", "-m", "search", "export-best", *name, *location]))
    return [command_without_passwords(command) for command in commands]  # a report is passed on
