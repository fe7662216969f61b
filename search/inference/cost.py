"""Costs of restoring with a model, measured: time and memory per megapixel."""

import time
import weakref
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from search.inference.evaluate import restore_image
from search.inference.precision import Precision

TIMED_RUNS = 3
PROBE_SIDE = 256
PROBE_SECONDS = 0.5


def measure_inference_cost(model: nn.Module, channels: int, device: torch.device) -> dict[str, float]:
    """Time and memory of restoring with `model`, per 10^6 pixels, by the names of facts about a trial."""
    model = model.to(device).eval()
    image = torch.rand(channels, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    precision = Precision("fp32", device)
    held = peak_bytes(lambda: restore_image(model, image, precision)) / (PROBE_SIDE**2 / 1e6)
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
        restore_image(model, degraded, precision)  # ends on the CPU, so nothing is left in a queue
        seconds.append(time.perf_counter() - started)
    return 1e3 * median(seconds[1:] or seconds) / (degraded[0].numel() / 1e6)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that tensors made inside `call` hold at one time.

    Counted, not observed from outside: equal for equal models, whatever the process did before. What
    libraries take for themselves is not in it.
    """
    living = _LiveTensors()
    with living:
        call()
    return living.peak


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
