"""A study carries on from another of the same database: its best recipes first, its trials as prior knowledge."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from search.database import (
    FrozenTrial,
    Study,
    TrialState,
    as_stored,
    distribution_of_leaf,
    facts_of,
    load_study,
    record_study,
    study_facts_of,
)
from search.errors import UserError
from search.samplers import prior_trial
from search.scheduler import TOP
from search.study import KnownSuggester, Plain, SpaceError, StudySpec, fill_leaves, open_leaves

BEST = 3  # recipes that are tried first
MOST_SHOWN = 500  # earlier trials that the sampler is shown, the latest
SAME_LENGTH = (
    1.25  # full lengths that differ by no more than this factor count as the same: speeds are measured
)
_JUDGED = ("rung_megapixels", "val_megapixels")

Say = Callable[[str], None]


def start_warm(study: Study, spec: StudySpec, name: str, url: str, fingerprint: str, say: Say) -> None:
    """Enqueue the best recipes of study `name`, and show its trials to the sampler where they compare.

    Does nothing the second time. `UserError` if there is no such study, or nothing of it fits. To be called once
    the full length of the study is known.
    """
    facts = study_facts_of(study)
    done = facts.warm_start
    if name in done:
        return
    if name == study.study_name:
        raise UserError(f"--warm-start {name}: that is the study itself; it goes on without the flag")
    other = load_study(name, url)
    there = {facts_of(trial).label for trial in study.get_trials(deepcopy=False)}
    recipes = _best(other, spec)
    if not recipes:
        raise UserError(
            f"--warm-start {name}: none of its {len(other.get_trials(deepcopy=False))} trials has a score and a "
            f"setting that exists in study {spec.name!r} (there: "
            f"{', '.join(leaf for leaf, _ in open_leaves(spec.recipe)) or 'no open settings'})"
        )
    for number, values in recipes:
        label = f"from {name}, trial {number}"
        if label not in there:  # left by a start that was cut off
            study.enqueue_trial(values, user_attrs=as_stored(label=label))
    why = _unlike(study, spec, other)
    earlier = [] if why else [prior_trial(t) for t in _alike(other, spec, fingerprint)][-MOST_SHOWN:]
    if earlier:
        record_study(study, earlier_trials=[*facts.earlier_trials, *earlier])
    record_study(study, warm_start=[*done, name])
    numbers = ", ".join(str(number) for number, _ in recipes)
    say(
        f"carries on from {name}: its trials {numbers} first; "
        + (
            f"{len(earlier)} of its trials shown to the sampler"
            if earlier
            else f"its trials are not shown to the sampler: {why or 'other settings, ranges or images'}"
        )
    )


def _best(other: Study, spec: StudySpec) -> list[tuple[int, dict[str, Any]]]:
    """Numbers and settings, as far as they exist here, of the best distinct recipes by the highest rung reached."""
    found: list[tuple[int, dict[str, Any]]] = []
    for trial in sorted(other.get_trials(deepcopy=False), key=_rank, reverse=True):
        values = _fitting(trial, spec) if _rank(trial)[0] else {}
        if values and values not in [known for _, known in found]:
            found.append((trial.number, values))
        if len(found) == BEST:
            break
    return found


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    """How far a trial came, its score there, and the earlier first; nothing for one that failed."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return TOP, trial.value, -trial.number
    if trial.state == TrialState.FAIL or not trial.intermediate_values:
        return 0, -math.inf, -trial.number
    rung = max(trial.intermediate_values)
    return rung, trial.intermediate_values[rung], -trial.number


class _Fitting(KnownSuggester):
    """Takes over the values that are possible here, and notes them; draws the others at random."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.taken: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return float(self._take(name, super().suggest_float, low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._take(name, super().suggest_int, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Plain:
        picked: Plain = self._take(name, super().suggest_categorical, choices)
        return picked

    def _take(self, name: str, suggest: Callable[..., Any], *limits: Any, **more: Any) -> Any:
        try:
            value = suggest(name, *limits, **more)
        except SpaceError:
            self.values = {key: value for key, value in self.values.items() if key != name}
            return suggest(name, *limits, **more)
        if name in self.values:
            self.taken[name] = value
        return value


def _fitting(trial: FrozenTrial, spec: StudySpec) -> dict[str, Any]:
    """The trial's settings that exist here; what its study had fixed counts where it is open here."""
    suggester = _Fitting({**_flat(facts_of(trial).config), **trial.params})
    fill_leaves(spec.recipe, suggester)
    return suggester.taken


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values by dotted path."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Plain):
            found[f"{prefix}{key}"] = value
    return found


def _unlike(study: Study, spec: StudySpec, other: Study) -> str:
    """Why no score of the other study compares with those of this one; empty if they do."""
    theirs, ours = study_facts_of(other), study_facts_of(study)
    before = theirs.recipe or {}
    if any(before.get(key) != spec.recipe.get(key) for key in _JUDGED):
        return "scores are of other images (rung_megapixels, val_megapixels)"
    steps = before.get("steps"), spec.recipe.get("steps")
    lengths = [one.full_teramacs for one in (theirs, ours) if one.full_teramacs is not None]
    if steps != (None, None):
        return "" if steps[0] == steps[1] else "full lengths differ"
    if len(lengths) < 2 or max(lengths) > SAME_LENGTH * min(lengths):
        return "full lengths differ"
    return ""


def _alike(other: Study, spec: StudySpec, fingerprint: str) -> list[FrozenTrial]:
    """Trials with a score on the same images, every setting of which is open here over the same range."""
    here = {name: distribution_of_leaf(leaf) for name, leaf in open_leaves(spec.recipe)}
    return [
        trial
        for trial in other.get_trials(deepcopy=False)
        if _rank(trial)[0]
        and trial.params
        and facts_of(trial).data == fingerprint
        and not facts_of(trial).replaced
        and all(here.get(name) == distribution for name, distribution in trial.distributions.items())
    ]
