"""Kernel basis attention on an NVIDIA GPU: speed beside the published formulation, or the code that Triton makes.

    python -m tests.benchmarks.kernel_basis_cuda            needs a CUDA device
    python -m tests.benchmarks.kernel_basis_cuda --code     needs Triton alone: registers, spills, shared memory

Both sides run in turns within one process; medians. Memory is the peak above that before the call. The
matmul peak is that of two 8192 x 8192 bfloat16 matrices; of the products only those of the definition count.
"""

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from models import KBNetSConfig
from models.kernel_basis import kernel_basis_attention, triton_kernel_basis_works
from tests.benchmarks.kernel_basis import Published, published_network

SHAPES = ((8, 64, 128), (8, 64, 256))
KERNELS = ("forward", "backward_attention", "backward_image", "backward_weight")
PRODUCTS = {"bf16": "*bf16", "fp16": "*fp16", "tf32": "*fp32", "tf32x3": "*fp32"}
CONTIGUOUS = ("xx", "ax", "rx")
ALIGNED = ("channels", "height", "width", "xb", "xc", "xy", "ab", "an", "ay", "rb", "rc", "ry")


def milliseconds(call: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def compare(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    for _ in range(3):
        first(), second()
    pairs = [(milliseconds(first), milliseconds(second)) for _ in range(repeats)]
    one, two = (statistics.median(times) for times in zip(*pairs, strict=True))
    return one, two


def extra_megabytes(call: Callable[[], object]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def line(name: str, published: Callable[[], object], ours: Callable[[], object], repeats: int) -> float:
    """Prints both; the median of ours in ms."""
    times = compare(published, ours, repeats)
    memory = extra_megabytes(published), extra_megabytes(ours)
    print(
        f"{name:44s} {times[0]:9.2f} {times[1]:8.2f} {times[0] / times[1]:7.1f}x"
        f" {memory[0]:9.0f} {memory[1]:7.0f} {memory[0] / max(memory[1], 0.1):6.1f}x",
        flush=True,
    )
    return times[1]


def published_half(*inputs: Any) -> Tensor:
    """`Published` for a network under autocast, in bfloat16 throughout."""
    with torch.autocast(inputs[0].device.type, enabled=False):
        return Published.apply(*(tensor.bfloat16() for tensor in inputs[:4]), *inputs[4:])  # type: ignore[no-any-return, no-untyped-call]


def speed(repeats: int) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    assert triton_kernel_basis_works(device, "bf16"), "the Triton form does not work here"
    square = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    quickest = min(milliseconds(lambda: square @ square) for _ in range(20))
    peak = 2 * 8192**3 / quickest / 1e9
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, matmul peak {peak:.0f} TFLOP/s")
    print(f"{'':44s} {'published':>9s} {'ours ms':>8s} {'ratio':>8s} {'MB':>9s} {'ours':>7s} {'ratio':>7s}")
    for batch, channels, side in SHAPES:
        sizes = (
            (batch, channels, side, side),
            (batch, 32, side, side),
            (1, 32, channels * 36),
            (1, 32, channels),
        )
        inputs = [torch.randn(size, device=device, dtype=torch.bfloat16).requires_grad_() for size in sizes]
        direction = torch.randn_like(inputs[0])

        def train(function: Callable[..., Tensor], given: Any = (inputs, channels // 4, direction)) -> object:
            tensors, groups, d_out = given
            return torch.autograd.grad(function(*tensors, 3, groups), tensors, d_out)

        name = f"operator {(batch, channels, side, side)} bfloat16"
        ours = line(name, lambda: train(Published.apply), lambda: train(kernel_basis_attention), repeats)
        products = 4 * 2 * batch * side * side * channels * 32 * 36  # forward, again, image, weights
        print(f"{'':44s} {products / ours / 1e9 / peak:.0%} of the matmul peak")
    for side in (128, 256):
        model = KBNetSConfig(width=64).build().to(device)
        images = torch.rand(4, 3, side, side, device=device)

        def step(model: Any = model, images: Tensor = images) -> None:
            with torch.autocast("cuda", torch.bfloat16):
                restored = model(images)
            (restored - images).abs().mean().backward()
            model.zero_grad()

        def published(step: Callable[[], None] = step) -> None:
            with published_network(), patch("models.kbnet_s.kernel_basis_attention", published_half):
                step()

        line(f"training step width 64, 4 x {side} px bfloat16", published, step, repeats)


def code() -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.kernel_basis import triton_kernels

    tool = Path(triton.__path__[0]) / "backends/nvidia/bin/cuobjdump"
    print(f"Triton {triton.__version__}; 32 bases, groups of 4 channels, 3 x 3; first choice of sizes")
    print(
        f"{'kernel':20s} {'products':8s} {'device':>6s} {'registers':>9s} {'stack B':>8s} {'shared kB':>9s} mma"
    )
    for capability in (80, 90):
        for products, pointer in PRODUCTS.items():
            for name in KERNELS:
                tuner = getattr(triton_kernels, name)
                kernel, config = tuner.fn, tuner.configs[0]
                fixed = {
                    "depth": 4, "num_bases": 32, "kernel_size": 3, "products": products, "wide": 4, "bases": 32,
                    **({"inputs": 4, "taps": 4} if name == "backward_image" else {}),
                    **config.kwargs, **dict.fromkeys(CONTIGUOUS, 1),
                }  # fmt: skip
                pointers = {
                    **dict.fromkeys(("x", "attention", "d_x", "d_attention"), pointer),
                    **dict.fromkeys(("weight", "bias", "result", "d_result", "d_joined"), "*fp32"),
                }
                names = kernel.arg_names
                signature = {n: "constexpr" if n in fixed else pointers.get(n, "i32") for n in names}
                source = ASTSource(
                    kernel,
                    signature,
                    constexprs={(names.index(n),): value for n, value in fixed.items() if n in names},
                    attrs={
                        (i,): [["tt.divisibility", 16]]
                        for i, n in enumerate(names)
                        if n not in fixed and (n in pointers or n in ALIGNED)
                    },
                )
                made = triton.compile(
                    source, GPUTarget("cuda", capability, 32), {"num_warps": config.num_warps}
                )
                with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                    file.write(made.asm["cubin"])
                    file.flush()
                    text = subprocess.run(
                        [tool, "-res-usage", file.name], capture_output=True, text=True
                    ).stdout
                usage = dict(
                    item.split(":")[:2] for item in text.split() if item.count(":") == 1 and item[-1] != ":"
                )
                units = sum(made.asm["ptx"].count(word) for word in ("mma.sync", "wgmma.mma_async"))
                print(
                    f"{name:20s} {products:8s} {capability:6d} {usage['REG']:>9s} {usage['STACK']:>8s}"
                    f" {made.metadata.shared / 1024:9.0f} {units}",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--code", action="store_true", help="compile for two GPUs and look, without any GPU")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each side (default: 9)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.code:
        code()
    elif torch.cuda.is_available():
        speed(arguments.repeats)
    else:
        parser.error("no CUDA device here; --code needs none")
