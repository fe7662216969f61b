"""How much memory a model takes, measured; and how much it may take."""

import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import psutil
import torch
from torch import Tensor

DEFAULT_LIMIT = 1800 * 2**20
PROBE_SIDE = 320
LEAST_BYTES_PER_PIXEL = 64.0
WATCH_SECONDS = 0.002
SLACK = 1.15  # allocators keep some of what they were given back


def limit_for(device: torch.device, wanted: int | None) -> int:
    """Bytes that the process may hold: what is wanted, else 1.8 GB or half of what is free, if that is less.

    On a GPU: of its memory, what is wanted or nine tenths of what is free.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return wanted or free * 9 // 10
    return wanted or min(DEFAULT_LIMIT, resident() + psutil.virtual_memory().available // 2)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def bytes_per_pixel(
    forward: Callable[[Tensor], Tensor], channels: int, multiple: int, device: torch.device
) -> float:
    """What `forward` needs for each pixel of an image (1, C, H, W) beside the image itself."""
    side = -(-PROBE_SIDE // multiple) * multiple
    forward(torch.zeros(1, channels, 2 * multiple, 2 * multiple))  # what is loaded and compiled once
    images = torch.rand(1, channels, side, side)
    grown = peak_growth(lambda: forward(images), device)
    return max(SLACK * grown / side**2, LEAST_BYTES_PER_PIXEL)


def _give_back() -> None:
    """Let freed memory go back to the system, or it would be used again unnoticed (Linux)."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # C libraries other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def peak_growth(call: Callable[[], object], device: torch.device) -> int:
    """Bytes by which memory grows while `call` runs: of a GPU, or of the process, looked at every few milliseconds."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - allocated
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
