"""The rungs of a training, and the order of trials at each of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOP = 100
"""The last rung: the end of a training. Rungs are named by their share of it, in percent."""
TELLING_STEPS = 5
"""A score after fewer says nothing: large networks, which make few steps, would win by what they are at random."""


class LadderConfig(BaseModel):
    """A trial pauses at each rung; when it is among the best there, it goes on from where it stood.

    Asynchronous successive halving (ASHA, arXiv 1810.05934), with pauses in place of ends: nothing is
    trained twice, and a trial that was not promoted at first can still be once worse ones are below it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rungs: int = Field(4, ge=0, le=6, description="pauses of a training; 0: every trial runs to its end")
    factor: int = Field(
        3,
        ge=2,
        le=20,
        description="each rung is so many times as high as the one below; one in so many goes on",
    )
    fewest_steps: int = Field(
        20,
        ge=0,
        description="where the length of a training follows from the time: rungs that the study's first recipe "
        "reaches in fewer steps are left out, all but two",
    )

    @model_validator(mode="after")
    def _lowest_rung_has_a_name(self) -> Self:
        if self.factor**self.rungs > TOP:
            raise ValueError(
                f"{self.rungs} rungs with factor {self.factor}: the lowest would be at 1/{self.factor**self.rungs} "
                f"of a training; allowed is 1/{TOP}"
            )
        return self

    def at_most(self, rungs: int) -> Self:
        """With so many rungs, or its own if they are fewer."""
        return self.model_copy(update={"rungs": min(rungs, self.rungs)})

    def shares(self) -> tuple[float, ...]:
        """The rungs from the lowest to the end, as shares of a whole training."""
        return tuple(_shares(self.factor, self.rungs).values())

    def percents(self) -> tuple[int, ...]:
        """The rungs from the lowest to the end, in whole percent: their names."""
        return tuple(_shares(self.factor, self.rungs))

    def share(self, percent: int) -> float:
        """The share of a training that a rung stands for; nothing for 0."""
        return _shares(self.factor, self.rungs).get(percent, 0.0)

    def early(self, steps: int) -> frozenset[int]:
        """The rungs at which a training of so many steps has made fewer than `TELLING_STEPS`; none of one without."""
        shares = zip(self.percents(), self.shares(), strict=True)
        return frozenset(
            percent for percent, share in shares if steps and round(steps * share) < TELLING_STEPS
        )

    def above(self, percent: int) -> int:
        """The next rung after `percent`."""
        return next(rung for rung in self.percents() if rung > percent)


@cache
def _shares(factor: int, rungs: int) -> Mapping[int, float]:
    """The rungs of a ladder by their names. Kept: a simulated search asks a thousand times."""
    shares = (factor ** (rung - rungs) for rung in range(rungs + 1))
    return {round(TOP * share): share for share in shares}


class State(Enum):
    """What a trial does at the moment."""

    QUEUED = auto()
    """Waits for its first step."""
    RUNNING = auto()
    PAUSED = auto()
    """Waits at the rung that it was sent to."""
    INTERRUPTED = auto()
    """Waits for a worker on the way to that rung."""
    COMPLETE = auto()
    PRUNED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial, as far as it matters for what is done next."""

    number: int
    state: State
    scores: Mapping[int, float] = field(default_factory=dict)
    """PSNR in dB at the rungs that it reached, by their percent. None for a trial that failed."""
    early: frozenset[int] = frozenset()
    """Rungs at which it has made fewer than `TELLING_STEPS`."""
    goal: int | None = None
    """The rung that it was last sent to; None if it has never begun."""
    steps: int = 0
    """Of its whole training."""
    steps_done: int = 0
    seconds: float = 0.0
    """That it has taken so far."""
    seconds_per_step: float = 0.0
    """Scores not counted."""
    scored: int = 0
    """How often it was scored so far."""
    scores_to_come: float = 0.0
    """And will be up to its end; the last score, of more images, counts as several."""
    is_known: bool = False
    """Whether it tries a recipe that was known before the search."""
    is_retry: bool = False
    """Whether it tries the settings of another trial again."""

    @property
    def rung(self) -> int:
        """The highest rung reached, in percent; 0 for none."""
        return max(self.scores, default=0)

    @property
    def is_paused(self) -> bool:
        return self.state is State.PAUSED


def promotable(trials: Iterable[TrialView], ladder: LadderConfig) -> list[TrialView]:
    """Those paused among the best share of all that ever reached their rung: the highest rung and the best first."""
    trials = list(trials)
    paused = {trial.rung for trial in trials if trial.is_paused}
    found = []
    for rung in ladder.percents()[-2::-1]:
        if rung in paused:
            there = ranked(trials, rung)
            best = there[: len(there) // ladder.factor]
            found += [trial for trial in best if trial.is_paused and trial.rung == rung]
    return found


def leader(trials: Iterable[TrialView], ladder: LadderConfig) -> TrialView | None:
    """The best at the highest rung below the end that anyone has reached."""
    trials = list(trials)
    for rung in ladder.percents()[-2::-1]:
        if best := ranked(trials, rung):
            return best[0]
    return None


def surplus(trials: Iterable[TrialView], ladder: LadderConfig, keep: int) -> list[TrialView]:
    """Those paused behind `keep` others that are paused at the same rung."""
    paused = [trial for trial in trials if trial.is_paused]
    return [
        trial
        for rung in ladder.percents()[:-1]
        for trial in ranked([one for one in paused if one.rung == rung], rung)[keep:]
    ]


def ranked(trials: Iterable[TrialView], rung: int) -> list[TrialView]:
    """All that reached `rung`, the best there first; of equal ones the earlier first.

    Those that had made too few steps come after all others.
    """
    there = [trial for trial in trials if rung in trial.scores]
    return sorted(there, key=lambda trial: (rung in trial.early, -trial.scores[rung], trial.number))
