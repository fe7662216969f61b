"""Limits of a model's size, time and memory: `[limits]` of a study."""

from typing import Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import UserError

# The cost that each limit is for.
_LIMITED = {
    "parameters": "parameters",
    "gmacs": "gmacs_at_256",
    "ms_per_megapixel": "ms_per_megapixel",
    "memory_mb": "mb_per_megapixel",
}
_WORDS = {
    "parameters": "{:,.0f} parameters (limit {:,.0f})",
    "gmacs": "{:.3g} GMACs at 256 x 256 (limit {:.3g})",
    "ms_per_megapixel": "{:.3g} ms per megapixel (limit {:.3g})",
    "memory_mb": "{:.3g} MB per megapixel (limit {:.3g})",
}


class ModelCosts(Protocol):
    """Costs of a model, as the facts of a trial hold them; None where a cost is not known."""

    @property
    def parameters(self) -> int | None: ...
    @property
    def gmacs_at_256(self) -> float | None: ...
    @property
    def ms_per_megapixel(self) -> float | None: ...
    @property
    def mb_per_megapixel(self) -> float | None: ...


class LimitsConfig(BaseModel):
    """A model that is over one of these is not trained. What is left out is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    parameters: int | None = Field(None, gt=0, description="most trainable numbers")
    gmacs: float | None = Field(None, gt=0, description="most 10^9 multiply-adds for 256 x 256 pixels")
    ms_per_megapixel: float | None = Field(
        None, gt=0, description="longest time to restore 10^6 pixels, in milliseconds on this device"
    )
    memory_mb: float | None = Field(
        None, gt=0, description="most memory for tensors while 10^6 pixels are restored at once, in MB"
    )

    @classmethod
    def from_flags(cls, **limits: float | None) -> Self | None:
        """Limits from flags, `--max-NAME`, that may be missing; None if all are. `UserError` if one is not a limit."""
        given = {name: value for name, value in limits.items() if value is not None}
        try:
            return cls.model_validate(given) if given else None
        except ValidationError as error:
            problem = error.errors()[0]
            flag = str(problem["loc"][0]).replace("_", "-")
            raise UserError(f"--max-{flag}: {problem['msg']} (found {problem['input']})") from None

    def excess(self, costs: ModelCosts) -> dict[str, float]:
        """Excess of a model over each limit, as a share of it; below zero where it is within.

        Unknown costs are left out.
        """
        return {
            name: found / limit - 1
            for name, cost in _LIMITED.items()
            if (limit := getattr(self, name)) is not None and (found := getattr(costs, cost)) is not None
        }

    def refusal(self, costs: ModelCosts) -> str | None:
        """The reason why a model with these costs is refused, in words; None if it is not."""
        over = [name for name, excess in self.excess(costs).items() if excess > 0]
        if not over:
            return None
        reasons = (_WORDS[name].format(getattr(costs, _LIMITED[name]), getattr(self, name)) for name in over)
        return f"over the limits: {', '.join(reasons)}"

    def within(self, costs: ModelCosts) -> bool:
        """True where everything that is limited is known and within its limit."""
        limited = {name for name in _LIMITED if getattr(self, name) is not None}
        excess = self.excess(costs)
        return excess.keys() == limited and max(excess.values(), default=0.0) <= 0

    def __str__(self) -> str:
        """For people: "parameters <= 20000, ms_per_megapixel <= 40"."""
        limits = self.model_dump(exclude_none=True)
        return ", ".join(f"{name} <= {value:g}" for name, value in limits.items())
