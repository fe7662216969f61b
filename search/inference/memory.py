"""Memory that a model needs, measured, and the limit that it has to keep."""

import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import torch
from torch import Tensor

from search.inference.device import (
    allocated_memory,
    free_and_total_memory,
    has_own_memory,
    peak_memory,
    reset_peak_memory,
)

DEFAULT_LIMIT = 1800 * 2**20
PROBE_SIDE = 320
LEAST_BYTES_PER_PIXEL = 64.0
WATCH_SECONDS = 0.002
SLACK = 1.15  # allocators keep some of what they were given back
_MMAP_THRESHOLD = -3  # a parameter of glibc's mallopt


def memory_limit(device: torch.device, wanted: int | None) -> int:
    """Bytes that the process may hold: `wanted`, or by default 1.8 GB, but at most half of the free memory.

    On a GPU: bytes of its memory, `wanted` or by default nine tenths of the free memory.
    """
    if has_own_memory(device):
        free, _ = free_and_total_memory(device)
        return wanted or free * 9 // 10
    return wanted or min(DEFAULT_LIMIT, resident_bytes() + psutil.virtual_memory().available // 2)


def resident_bytes() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def measure_bytes_per_pixel(
    forward: Callable[[Tensor], Tensor], channels: int, multiple: int, device: torch.device
) -> float:
    """Bytes that `forward` needs for each pixel of an image (1, C, H, W), beside the image itself."""
    side = -(-PROBE_SIDE // multiple) * multiple
    forward(torch.zeros(1, channels, 2 * multiple, 2 * multiple))  # what is loaded and compiled once
    images = torch.rand(1, channels, side, side)
    grown = peak_memory_growth(lambda: forward(images), device)
    return max(SLACK * grown / side**2, LEAST_BYTES_PER_PIXEL)


def _give_back() -> None:
    """Return freed memory to the system, or it would be used again without being measured (Linux)."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # C libraries other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def peak_memory_growth(call: Callable[[], object], device: torch.device) -> int:
    """Bytes by which memory grows while `call` runs: of a GPU, or of the process, measured every few milliseconds."""
    if has_own_memory(device):
        reset_peak_memory(device)
        allocated = allocated_memory(device)
        call()
        return peak_memory(device) - allocated
    _give_back()
    process, done = psutil.Process(), threading.Event()
    before = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not done.wait(WATCH_SECONDS):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return int(max(highest, process.memory_info().rss) - before)


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
