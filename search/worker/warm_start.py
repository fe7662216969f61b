"""Warm start: a study tries the best recipes of an earlier study first, and its sampler learns from that study."""

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
from search.samplers import trial_for_other_studies
from search.scheduler import TOP
from search.study import KnownSuggester, Plain, SpaceError, StudySpec, fill_leaves, open_leaves

BEST = 3  # recipes that are tried first
MOST_SHOWN = 500  # of the latest earlier trials that the sampler is given
SAME_LENGTH = (
    1.25  # full lengths that differ by no more than this factor count as the same: speeds are measured
)
_SCORING_SETTINGS = ("rung_megapixels", "val_megapixels")

Say = Callable[[str], None]


def start_warm(study: Study, spec: StudySpec, name: str, url: str, fingerprint: str, say: Say) -> None:
    """Enqueue the best recipes of study `name`; give its trials to the sampler if scores are comparable.

    A second call does nothing. `UserError` if the study does not exist or shares no setting with this one. Call it
    after the length of a training is fixed.
    """
    facts = study_facts_of(study)
    done = facts.warm_start
    if name in done:
        return
    if name == study.study_name:
        raise UserError(f"--warm-start {name}: that is the study itself; it goes on without the flag")
    other = load_study(name, url)
    enqueued = {facts_of(trial).label for trial in study.get_trials(deepcopy=False)}
    recipes = _best_recipes(other, spec)
    if not recipes:
        raise UserError(
            f"--warm-start {name}: none of its {len(other.get_trials(deepcopy=False))} trials has a score and a "
            f"setting that exists in study {spec.name!r} (there: "
            f"{', '.join(leaf for leaf, _ in open_leaves(spec.recipe)) or 'no open settings'})"
        )
    for number, values in recipes:
        label = f"from {name}, trial {number}"
        if label not in enqueued:  # an interrupted start may have enqueued some
            study.enqueue_trial(values, user_attrs=as_stored(label=label))
    why = _why_not_comparable(study, spec, other)
    earlier = (
        []
        if why
        else [trial_for_other_studies(t) for t in _comparable_trials(other, spec, fingerprint)][-MOST_SHOWN:]
    )
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


def _best_recipes(other: Study, spec: StudySpec) -> list[tuple[int, dict[str, Any]]]:
    """Trial numbers and settings of the best distinct recipes, by the highest rung reached."""
    found: list[tuple[int, dict[str, Any]]] = []
    for trial in sorted(other.get_trials(deepcopy=False), key=_rank, reverse=True):
        values = _compatible_settings(trial, spec) if _rank(trial)[0] else {}
        if values and values not in [known for _, known in found]:
            found.append((trial.number, values))
        if len(found) == BEST:
            break
    return found


def _rank(trial: FrozenTrial) -> tuple[int, float, int]:
    """Sort key: highest rung, score at it, earlier trials first. A failed trial ranks last, at rung 0."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return TOP, trial.value, -trial.number
    if trial.state == TrialState.FAIL or not trial.intermediate_values:
        return 0, -math.inf, -trial.number
    rung = max(trial.intermediate_values)
    return rung, trial.intermediate_values[rung], -trial.number


class _CompatibleSuggester(KnownSuggester):
    """Takes those values that this study allows, and lists them in `taken`; draws the others at random."""

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


def _compatible_settings(trial: FrozenTrial, spec: StudySpec) -> dict[str, Any]:
    """Settings of a trial that are open settings of this study, including those that were fixed in its own."""
    suggester = _CompatibleSuggester({**_flat(facts_of(trial).config), **trial.params})
    fill_leaves(spec.recipe, suggester)
    return suggester.taken


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values by dotted path; others are left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Plain):
            found[f"{prefix}{key}"] = value
    return found


def _why_not_comparable(study: Study, spec: StudySpec, other: Study) -> str:
    """Reason why scores of the two studies are not comparable; empty if they are."""
    theirs, ours = study_facts_of(other), study_facts_of(study)
    before = theirs.recipe or {}
    if any(before.get(key) != spec.recipe.get(key) for key in _SCORING_SETTINGS):
        return "scores are of other images (rung_megapixels, val_megapixels)"
    steps = before.get("steps"), spec.recipe.get("steps")
    lengths = [one.full_teramacs for one in (theirs, ours) if one.full_teramacs is not None]
    if steps != (None, None):
        return "" if steps[0] == steps[1] else "full lengths differ"
    if len(lengths) < 2 or max(lengths) > SAME_LENGTH * min(lengths):
        return "full lengths differ"
    return ""


def _comparable_trials(other: Study, spec: StudySpec, fingerprint: str) -> list[FrozenTrial]:
    """Trials scored on the same images whose settings all have the same range in this study."""
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
