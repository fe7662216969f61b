"""All that depends on the kind of device: the list of devices, names, memory, random state, precision, out of memory.

Written for `torch.accelerator`, so that CUDA, Intel's xpu and Apple's mps go one way. No other file of the search names
`torch.cuda`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psutil
import torch
from torch import Tensor

# What allocators say whose errors have no type of their own (torch on a CPU, oneDNN, Metal).
_MEMORY_MESSAGES = (
    "can't allocate memory",
    "could not create a ",
    "not enough memory",
    "MPS backend out of memory",
)


def available_devices() -> list[torch.device]:
    """The devices of this machine: the CPU, then each accelerator."""
    cpu, kind = torch.device("cpu"), torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return [cpu]
    return [cpu, *(torch.device(kind.type, index) for index in range(torch.accelerator.device_count()))]


def graphics_cards() -> list[torch.device]:
    """The GPUs that "auto" chooses from. Others (xpu, mps) are used only when they are named."""
    return [device for device in available_devices() if device.type == "cuda"]


def has_own_memory(device: torch.device) -> bool:
    """True for an accelerator whose memory is not the computer's (mps shares it), and whose allocator keeps count."""
    return device.type in ("cuda", "xpu")


def free_and_total_memory(device: torch.device) -> tuple[int, int]:
    """Bytes of memory of a device with memory of its own."""
    _initialise(device)
    free, total = torch.accelerator.get_memory_info(device)
    return int(free), int(total)


def allocated_memory(device: torch.device) -> int:
    """Bytes that tensors of this process take on a device with memory of its own."""
    _initialise(device)
    return int(torch.accelerator.memory_allocated(device))


def peak_memory(device: torch.device) -> int:
    """The most that `allocated_memory` has been since `reset_peak_memory`."""
    _initialise(device)
    return int(torch.accelerator.max_memory_allocated(device))


def reset_peak_memory(device: torch.device) -> None:
    _initialise(device)
    torch.accelerator.reset_peak_memory_stats(device)


def memory_mb(device: torch.device) -> float:
    """Peak memory held on an accelerator; where it has none of its own, what is resident in this process right now."""
    if has_own_memory(device):
        return peak_memory(device) / 2**20
    return float(psutil.Process().memory_info().rss) / 2**20


def _initialise(device: torch.device) -> None:
    """Start the device's runtime: until then CUDA's allocator refuses every question with "Invalid device argument"."""
    torch.get_device_module(device).init()


def release_memory(device: torch.device) -> None:
    """Give cached memory back to an accelerator."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def is_lack_of_memory(error: BaseException) -> bool:
    """True for a failed allocation, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_MESSAGES)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given. A CPU never lags behind."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def random_state(device: torch.device) -> Tensor | None:
    """State of an accelerator's random numbers; None for the CPU, which has torch's own."""
    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    state: Tensor = module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)
    return state


def set_random_state(device: torch.device, state: Tensor | None) -> None:
    """Go on with what `random_state` gave; nothing is to be done for the state of another kind of device."""
    if device.type == "cpu" or state is None:
        return
    module = torch.get_device_module(device)
    if device.type == "mps":
        module.set_rng_state(state)
    else:
        module.set_rng_state(state, device)


def half_precision(device: torch.device) -> Literal["bf16", "fp16"] | None:
    """The half precision that the device computes faster than float32; None if it has none or only emulates it."""
    if device.type == "cuda":
        with torch.accelerator.device_index(device.index):  # torch asks about the current device
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "xpu":
        return "bf16"
    # 1.5 times faster for KBNet_s with AVX-512 BF16 (tests/benchmarks/kernel_basis.py); emulated, it is slower.
    return "bf16" if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else None


@contextmanager
def float32_products(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Products of float32 numbers are exact on CUDA in this context, or TF32 (10-bit mantissas, like fp16's).

    Torch's own default is mixed: TF32 for convolutions, none for matrices. Sizes hardly change in training and in
    tiles, so timing the convolution algorithms once pays.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32, cudnn.benchmark = tf32, True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


def device_name(device: torch.device) -> str:
    """The device, for people: "cpu (2 threads)", "cuda:0 (NVIDIA H200)"."""
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    if has_own_memory(device):
        return f"{device} ({torch.get_device_module(device).get_device_name(device)})"
    return str(device)


def model_and_capability(device: torch.device) -> str:
    """Facts of a device with memory of its own: "NVIDIA H200, compute 9.0"."""
    module = torch.get_device_module(device)
    found: str = module.get_device_name(device)
    if device.type == "cuda":
        major, minor = module.get_device_capability(device)
        found += f", compute {major}.{minor}"
    return found
