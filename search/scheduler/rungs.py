"""The rungs of a training, and the ranking of trials at each rung."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOP = 100
"""The last rung: the end of a training. Rungs are named by their share of it, in percent."""
MIN_STEPS_TO_COMPARE = 5
"""Scores after fewer steps are not compared: they depend on the random initialisation, and favour large networks."""


class LadderConfig(BaseModel):
    """A trial pauses at each rung, and continues if it is among the best there.

    Asynchronous successive halving (ASHA, arXiv 1810.05934), with pauses in place of ends: nothing is
    trained twice, and a trial that was not promoted at first may be promoted when worse trials have followed.
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
        """A copy with at most so many rungs."""
        return self.model_copy(update={"rungs": min(rungs, self.rungs)})

    def shares(self) -> tuple[float, ...]:
        """The rungs from the lowest to the end, as shares of a whole training."""
        return tuple(_shares(self.factor, self.rungs).values())

    def percents(self) -> tuple[int, ...]:
        """The rungs from the lowest to the end, in whole percent: their names."""
        return tuple(_shares(self.factor, self.rungs))

    def share(self, percent: int) -> float:
        """The share of a training at a rung; 0 for 0."""
        return _shares(self.factor, self.rungs).get(percent, 0.0)

    def unreliable_rungs(self, steps: int) -> frozenset[int]:
        """Rungs at which so long a training has made fewer than `MIN_STEPS_TO_COMPARE` steps; none for 0 steps."""
        shares = zip(self.percents(), self.shares(), strict=True)
        return frozenset(
            percent for percent, share in shares if steps and round(steps * share) < MIN_STEPS_TO_COMPARE
        )

    def above(self, percent: int) -> int:
        """The next rung after `percent`."""
        return next(rung for rung in self.percents() if rung > percent)


@cache
def _shares(factor: int, rungs: int) -> Mapping[int, float]:
    """Shares of a training by rung in percent. Cached, because simulations need it often."""
    shares = (factor ** (rung - rungs) for rung in range(rungs + 1))
    return {round(TOP * share): share for share in shares}


class State(Enum):
    """State of a trial."""

    QUEUED = auto()
    """Waits for its first step."""
    RUNNING = auto()
    PAUSED = auto()
    """Waits at the rung that was its goal."""
    INTERRUPTED = auto()
    """Waits for a worker before it has reached its goal."""
    COMPLETE = auto()
    PRUNED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class TrialView:
    """The facts about a trial on which the next action depends."""

    number: int
    state: State
    scores: Mapping[int, float] = field(default_factory=dict)
    """PSNR in dB by rung in percent. Empty for a failed trial."""
    unreliable_rungs: frozenset[int] = frozenset()
    """Rungs at which it has made fewer than `MIN_STEPS_TO_COMPARE`."""
    goal: int | None = None
    """The rung up to which it is or was last trained; None if it has not begun."""
    steps: int = 0
    """Steps of its whole training."""
    steps_done: int = 0
    seconds: float = 0.0
    """Time that it has taken so far."""
    seconds_per_step: float = 0.0
    """Time of a step, scoring not counted."""
    scored: int = 0
    """Number of scores so far."""
    scores_to_come: float = 0.0
    """Number of scores up to its end; the final one has more images and counts as several."""
    is_known: bool = False
    """True if its recipe was known before the search."""
    is_retry: bool = False
    """True if it retries another trial."""

    @property
    def rung(self) -> int:
        """The highest rung reached, in percent; 0 for none."""
        return max(self.scores, default=0)

    @property
    def is_paused(self) -> bool:
        return self.state is State.PAUSED


def promotable(trials: Iterable[TrialView], ladder: LadderConfig) -> list[TrialView]:
    """Paused trials in the top 1/`factor` of all that reached their rung; the highest rung and the best first."""
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
    """The best trial at the highest rung reached, the end not counted."""
    trials = list(trials)
    for rung in ladder.percents()[-2::-1]:
        if best := ranked(trials, rung):
            return best[0]
    return None


def surplus_paused(trials: Iterable[TrialView], ladder: LadderConfig, keep: int) -> list[TrialView]:
    """Paused trials that are worse than the `keep` best paused at the same rung."""
    paused = [trial for trial in trials if trial.is_paused]
    return [
        trial
        for rung in ladder.percents()[:-1]
        for trial in ranked([one for one in paused if one.rung == rung], rung)[keep:]
    ]


def ranked(trials: Iterable[TrialView], rung: int) -> list[TrialView]:
    """All trials that reached `rung`, best first; of equal ones the earlier first.

    Trials for which the rung is unreliable come last.
    """
    there = [trial for trial in trials if rung in trial.scores]
    return sorted(
        there, key=lambda trial: (rung in trial.unreliable_rungs, -trial.scores[rung], trial.number)
    )
