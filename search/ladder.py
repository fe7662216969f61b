"""Which trial goes on next: the best of those that wait at a rung, or none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOP = 100
"""The last rung: the end of a training. Rungs are named by their share of it, in percent."""
TELLING_STEPS = 5
"""A score after fewer says nothing: large networks, which make few steps, would win by what they are at random."""


class LadderConfig(BaseModel):
    """A trial pauses at each rung; when it is among the best there, it goes on from where it stood.

    Successive halving without waiting (ASHA, arXiv 1810.05934), with pauses in place of ends: nothing
    is trained twice, and a trial that looked beaten can still go on once worse ones are below it.
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
        return tuple(self.factor ** (rung - self.rungs) for rung in range(self.rungs + 1))

    def percents(self) -> tuple[int, ...]:
        """The rungs from the lowest to the end, in whole percent: their names."""
        return tuple(round(TOP * share) for share in self.shares())

    def share(self, percent: int) -> float:
        """The share of a training that a rung stands for; nothing for 0."""
        return dict(zip(self.percents(), self.shares(), strict=True)).get(percent, 0.0)

    def early(self, steps: int) -> frozenset[int]:
        """The rungs at which a training of so many steps has made fewer than `TELLING_STEPS`; none of one without."""
        shares = zip(self.percents(), self.shares(), strict=True)
        return frozenset(
            percent for percent, share in shares if steps and round(steps * share) < TELLING_STEPS
        )

    def above(self, percent: int) -> int:
        """The next rung after `percent`."""
        return next(rung for rung in self.percents() if rung > percent)


@dataclass(frozen=True)
class Climber:
    """A trial on the ladder: what it scored at its rungs, and whether it waits at the highest of them."""

    number: int
    scores: Mapping[int, float]
    waits: bool
    early: frozenset[int] = frozenset()
    """Rungs at which it has made fewer than `TELLING_STEPS`."""

    @property
    def rung(self) -> int:
        """The highest rung reached, in percent; 0 for none."""
        return max(self.scores, default=0)


def promotable(climbers: Iterable[Climber], ladder: LadderConfig) -> list[Climber]:
    """Those that wait among the best share of all that ever reached their rung: the highest rung and the best first."""
    climbers, found = list(climbers), []
    for rung in ladder.percents()[-2::-1]:
        best = ranked(climbers, rung)[: _number_at(climbers, rung) // ladder.factor]
        found += [climber for climber in best if climber.waits and climber.rung == rung]
    return found


def leader(climbers: Iterable[Climber], ladder: LadderConfig) -> Climber | None:
    """The best at the highest rung below the end that anyone has reached."""
    climbers = list(climbers)
    for rung in ladder.percents()[-2::-1]:
        if best := ranked(climbers, rung):
            return best[0]
    return None


def hopeless(climbers: Iterable[Climber], ladder: LadderConfig, keep: int) -> list[Climber]:
    """Those that wait behind `keep` others that wait at the same rung."""
    climbers = list(climbers)
    return [
        climber
        for rung in ladder.percents()[:-1]
        for climber in [c for c in ranked(climbers, rung) if c.waits and c.rung == rung][keep:]
    ]


def ranked(climbers: Iterable[Climber], rung: int) -> list[Climber]:
    """All that reached `rung`, the best there first; of equal ones the earlier first.

    Those that had made too few steps come after all others.
    """
    there = [climber for climber in climbers if rung in climber.scores]
    return sorted(there, key=lambda c: (rung in c.early, -c.scores[rung], c.number))


def _number_at(climbers: Iterable[Climber], rung: int) -> int:
    return sum(rung in climber.scores for climber in climbers)
