"""How large and how slow a model may be: `[limits]` of a study, and what a model measures up to."""

import time
import weakref
from collections.abc import Callable
from statistics import median
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.errors import UserError
from search.trial.evaluate import restore
from search.trial.precision import Precision
from search.trial_facts import TrialFacts

TIMED_RUNS = 3
PROBE_SIDE = 256
PROBE_SECONDS = 0.5
# The fact about a trial that each limit is for.
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
    def of(cls, **limits: float | None) -> Self | None:
        """Limits from flags, `--max-NAME`, that may be missing; None if all are. `UserError` if one is not a limit."""
        given = {name: value for name, value in limits.items() if value is not None}
        try:
            return cls.model_validate(given) if given else None
        except ValidationError as error:
            problem = error.errors()[0]
            flag = str(problem["loc"][0]).replace("_", "-")
            raise UserError(f"--max-{flag}: {problem['msg']} (found {problem['input']})") from None

    def excess(self, facts: TrialFacts) -> dict[str, float]:
        """How far a model is over each limit, as a share of it; below zero where it is within.

        What its trial has not recorded is left out.
        """
        return {
            name: found / limit - 1
            for name, fact in _LIMITED.items()
            if (limit := getattr(self, name)) is not None and (found := getattr(facts, fact)) is not None
        }

    def refusal(self, facts: TrialFacts) -> str | None:
        """Why a model with these facts is refused, in words; None if it is not."""
        over = [name for name, excess in self.excess(facts).items() if excess > 0]
        if not over:
            return None
        reasons = (_WORDS[name].format(getattr(facts, _LIMITED[name]), getattr(self, name)) for name in over)
        return f"over the limits: {', '.join(reasons)}"

    def within(self, facts: TrialFacts) -> bool:
        """Whether everything limited has been recorded and is within its limit."""
        limited = {name for name in _LIMITED if getattr(self, name) is not None}
        excess = self.excess(facts)
        return excess.keys() == limited and max(excess.values(), default=0.0) <= 0

    def __str__(self) -> str:
        """For people: "parameters <= 20000, ms_per_megapixel <= 40"."""
        limits = self.model_dump(exclude_none=True)
        return ", ".join(f"{name} <= {value:g}" for name, value in limits.items())


def probe(model: nn.Module, channels: int, device: torch.device) -> dict[str, float]:
    """What restoring with `model` takes, per 10^6 pixels: time and memory, as facts about a trial."""
    model = model.to(device).eval()
    image = torch.rand(channels, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    precision = Precision("fp32", device)
    held = peak_bytes(lambda: restore(model, image, precision)) / (PROBE_SIDE**2 / 1e6)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {
        "ms_per_megapixel": ms_per_megapixel(model, image, precision, PROBE_SECONDS),
        "mb_per_megapixel": (held + weights) / 2**20,
    }


def ms_per_megapixel(
    model: nn.Module, degraded: Tensor, precision: Precision, patience: float = float("inf")
) -> float:
    """Milliseconds to restore a whole image, per 10^6 pixels: the median of a few runs after a warm-up.

    A model that needs all of `patience`, in seconds, for one run is not run again.
    """
    seconds: list[float] = []
    while len(seconds) <= TIMED_RUNS and sum(seconds) < patience:
        started = time.perf_counter()
        restore(model, degraded, precision)  # ends on the CPU, so nothing is left in a queue
        seconds.append(time.perf_counter() - started)
    return 1e3 * median(seconds[1:] or seconds) / (degraded[0].numel() / 1e6)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made inside `call` hold at one time.

    Counted, not observed from outside: equal for equal models, whatever the process did before. What
    libraries take for themselves is not in it.
    """
    living = _Living()
    with living:
        call()
    return living.peak


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of tensors from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage(), given)
        return result

    def _count(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        # A view, or a result written in place, has the storage of what went in.
        if id(storage) in given or storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.now -= size
