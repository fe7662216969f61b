"""Changes of a run's length during training: how its steps correspond to those that were planned."""

import math
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mark = tuple[Annotated[int, Field(ge=0)], Annotated[float, Field(gt=0)]]


class StepMapping(BaseModel):
    """Correspondence between the steps of a run and the steps that were planned for it.

    Up to the first mark, a step is a planned step. From each mark on, a step counts as the number of planned steps
    that the mark says. Rates, phases, crops and rungs follow the planned step: the run goes through the whole
    plan in fewer or more steps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    planned: int = Field(ge=1, description="steps of the run as it was planned")
    marks: tuple[Mark, ...] = Field(
        (), description="step from which on, and how many planned steps each is worth there"
    )

    @model_validator(mode="after")
    def _marks_rise(self) -> Self:
        if not all(one[0] < other[0] for one, other in pairwise(self.marks)):
            raise ValueError(f"marks {list(self.marks)}: allowed are rising steps")
        return self

    def planned_step(self, step: int) -> float:
        """The planned step that `step` stands for."""
        first, low, worth = next(part for part in reversed(self._parts()) if part[0] <= step)
        return low + (step - first) * worth

    def step_at(self, planned_step: float) -> int:
        """The first step that stands for `planned_step` or more."""
        first, low, worth = next(part for part in reversed(self._parts()) if part[1] <= planned_step)
        # Sums of parts of steps may be a little more than the whole number that they stand for.
        return first + math.ceil((planned_step - low) / worth - 1e-6)

    def with_length(self, steps: int, since: int) -> Self:
        """The same before step `since`, and the end at `steps`, which is after that."""
        before = tuple(mark for mark in self.marks if mark[0] < since)
        worth = (self.planned - self.planned_step(since)) / (steps - since)
        return type(self)(planned=self.planned, marks=(*before, (since, worth)))

    def _parts(self) -> list[tuple[int, float, float]]:
        """The start of each part, in steps and in planned steps, and the planned steps for each step in it."""
        parts = [(0, 0.0, 1.0)]
        for step, worth in self.marks:
            first, low, before = parts[-1]
            parts.append((step, low + (step - first) * before, worth))
        return parts
