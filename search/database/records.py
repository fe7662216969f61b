"""Records: each trial of a study as plain values, for reports and analysis."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.database.studies import FrozenTrial, Study, TrialState
from search.database.trial_facts import RungScore, TrialFacts, facts_of

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
RUNNING, PAUSED, WAITING = "running", "paused", "waiting"
FINISHED = (COMPLETE, PRUNED, FAILED)
_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
    TrialState.WAITING: WAITING,
}
_ARTIFACT = "artifacts:"  # prefix of Optuna's attributes for files attached to a trial


@dataclass(frozen=True)
class Rung:
    """A score at a percentage of the trial's training."""

    percent: float
    psnr_db: float


@dataclass(frozen=True)
class Record:
    """One trial. Values that are not known (yet) are None, zero or empty."""

    number: int
    trial_id: int
    state: str
    """complete, pruned, failed, running, paused (has begun, can continue) or waiting."""
    ended: str = ""
    """Reason of its end, in words."""
    label: str | None = None
    """Name of a known recipe."""
    had_last_stretch: bool = False
    """True if it was chosen for the last stretch: trained to the end in the remaining time, longer than others."""
    psnr_db: float | None = None
    """Final score of a complete trial."""
    rungs: tuple[Rung, ...] = ()
    """The whole learning curve."""
    reported: Mapping[int, float] = field(default_factory=dict)
    """Scores by percentage of the training, as reported to Optuna; comparable between trials."""
    steps_done: int = 0
    steps: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    """Part of `seconds` that was spent in training steps; most of the rest is validation."""
    teramacs: float = 0.0
    """10^12 multiply-adds spent in training; 0 if its length was given in steps."""
    parameters: int | None = None
    gmacs_at_256: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of the open settings, by dotted path."""
    replaced: Mapping[str, Any] = field(default_factory=dict)
    """Parts of the study's recipe that this trial replaces."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its full config, as nested plain values."""
    notes: tuple[str, ...] = ()
    """Sentences about recoveries from lack of memory or divergence."""
    pictures: tuple[str, ...] = ()
    """Ids of its artifacts."""
    facts: TrialFacts = field(default_factory=TrialFacts)
    """All facts recorded with it."""

    @property
    def name(self) -> str:
        return f"trial {self.number}" + (f" ({self.label})" if self.label else "")

    @property
    def last_rung(self) -> Rung | None:
        return self.rungs[-1] if self.rungs else None


def read_records(study: Study) -> list[Record]:
    """All trials of a study, in the order of their numbers."""
    return [record_of_trial(trial) for trial in study.get_trials(deepcopy=False)]


def record_of_trial(trial: FrozenTrial) -> Record:
    facts = facts_of(trial)
    state = _STATES[trial.state]
    begun = trial.datetime_start is not None
    steps, steps_done, seconds, config = facts.steps, facts.steps_done, facts.seconds, facts.config
    return Record(
        number=trial.number,
        trial_id=trial._trial_id,
        state=PAUSED if state == WAITING and begun else state,
        ended=facts.ended,
        label=facts.label,
        had_last_stretch=facts.length is not None,
        psnr_db=trial.values[0] if state == COMPLETE and trial.values else None,
        rungs=_rungs(trial, facts.rungs, steps),
        reported=dict(sorted(trial.intermediate_values.items())),
        steps_done=steps_done,
        steps=steps,
        seconds=seconds,
        training_seconds=min(facts.seconds_per_step * steps_done, seconds),
        teramacs=_teramacs(config, steps_done / steps if steps else 0.0),
        parameters=facts.parameters,
        gmacs_at_256=facts.gmacs_at_256,
        settings=dict(trial.params),
        replaced=facts.replaced,
        config=config,
        notes=tuple(facts.rescues),
        pictures=picture_ids(trial),
        facts=facts,
    )


def picture_ids(trial: FrozenTrial) -> tuple[str, ...]:
    """Names of the files that are attached to a trial. What is no plain name, and might lead elsewhere, is left out."""
    names = (key.removeprefix(_ARTIFACT) for key in trial.system_attrs if key.startswith(_ARTIFACT))
    return tuple(name for name in names if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name))


def best_record(records: list[Record]) -> Record | None:
    """The complete trial with the highest score; of equal ones the first."""
    done = [record for record in records if record.psnr_db is not None]
    return max(done, key=lambda record: (record.psnr_db or 0.0, -record.number), default=None)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted path."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _rungs(trial: FrozenTrial, recorded: Sequence[RungScore], steps: int) -> tuple[Rung, ...]:
    """The recorded learning curve; before it is recorded, the scores reported so far."""
    if recorded and steps:
        return tuple(Rung(round(100 * score.step / steps, 1), score.psnr_db) for score in recorded)
    return tuple(Rung(percent, score) for percent, score in sorted(trial.intermediate_values.items()))


def _teramacs(config: Mapping[str, Any], share: float) -> float:
    planned = config.get("steps")
    return planned["teramacs"] * share if isinstance(planned, Mapping) else 0.0
