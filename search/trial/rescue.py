"""What a trial survives: a lack of memory, and one divergence. Here is what happened, and what follows from it."""

import ctypes
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch


class Diverged(Exception):
    """The loss or the restored images are not finite, or far from any image."""


# What allocators say whose errors have no type of their own (torch on a CPU, oneDNN).
_MEMORY_MESSAGES = ("can't allocate memory", "could not create a ", "not enough memory")


@dataclass
class Rescue:
    """How a trial is trained since it was rescued; saved with its state."""

    parts: int = 1
    """Each batch goes through the model in so many micro-batches; gradients add up to those of the batch."""
    lr_scale: float = 1.0
    full_precision: bool = False
    notes: list[str] = field(default_factory=list)

    def halve_micro_batch(self, step: int, batch: int, normalised: bool) -> None:
        """Half the memory per micro-batch, the same gradient."""
        self.parts = min(2 * self.parts, batch)
        note = f"out of memory at step {step}: batches of {batch} in {self.parts} parts from here"
        if normalised:
            note += ", so batch norm sees smaller batches"
        self.notes.append(note)

    def go_back(self, problem: str, step: int) -> None:
        """A second attempt from `step`, slower and in float32."""
        self.lr_scale /= 2
        self.full_precision = True
        self.notes.append(f"{problem}: back to step {step}, in float32 with half the learning rate")


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_MESSAGES)


def release_memory(device: torch.device) -> None:
    """Give cached memory back to an accelerator."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


_MMAP_THRESHOLD = -3  # a parameter of glibc's mallopt


def limit_memory(size: int) -> None:
    """Let allocations fail once this process holds `size` bytes of its own, as they do on an accelerator.

    Raises `OSError` where the system has no such limit (it is Linux's RLIMIT_DATA), or for less than is held
    already.
    """
    if sys.platform != "linux":
        raise OSError("only Linux can limit the memory of a process")
    import resource

    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["VmData"].split()[0]) * 1024
    if size <= held:
        raise OSError(f"{size / 2**30:.1f} GiB are too little: {held / 2**30:.1f} GiB are in use already")
    # What a failed attempt held must go back to the system at once, and not wait in malloc's own heap.
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (size, resource.RLIM_INFINITY))
