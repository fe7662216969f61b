"""Overhead of the operator as a registered torch operation, compared with the function that it wraps, on the CPU.

    python -m tests.benchmarks.kernel_basis_op              a call on small images, both ways in turns
    python -m tests.benchmarks.kernel_basis_op --compile    a compiled block with it, and with plain convolutions

Medians. The second takes minutes, most of them in the compiler.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import Tensor

from models.kbnet_s import KernelBasisBlock
from models.kernel_basis import kernel_basis_attention
from models.kernel_basis.operator import kernel_basis_convolution, kernel_basis_operation
from tests.benchmarks.kernel_basis import compare

FLOAT = torch.float32
SHAPES = ((1, 8, 8), (1, 16, 32), (4, 16, 64))


def microseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def calls(repeats: int) -> None:
    print(f"{'(batch, channels, side)':28s} {'function us':>12s} {'operation us':>13s} {'more':>8s}")
    for batch, channels, side in SHAPES:
        sizes = (
            (batch, channels, side, side),
            (batch, 32, side, side),
            (1, 32, channels * 36),
            (1, 32, channels),
        )
        inputs = [torch.randn(size).requires_grad_() for size in sizes]
        direction = torch.randn(sizes[0])
        groups = channels // 4

        def function(inputs: list[Tensor] = inputs, groups: int = groups) -> Tensor:
            x, attention, weight, bias = inputs
            return kernel_basis_attention(x, attention, weight, bias, 3, groups)

        def operation(inputs: list[Tensor] = inputs, groups: int = groups) -> Tensor:
            return kernel_basis_operation(*inputs, 3, groups, FLOAT, FLOAT)

        def train(call: Callable[[], Tensor], inputs: list[Tensor] = inputs, d: Tensor = direction) -> object:
            return torch.autograd.grad(call(), inputs, d)

        def look(call: Callable[[], Tensor]) -> object:
            with torch.no_grad():
                return call()

        for name, way in (("forward", look), ("both ways", train)):
            for _ in range(20):
                way(function), way(operation)
            pairs = [
                (microseconds(lambda: way(function)), microseconds(lambda: way(operation)))  # noqa: B023
                for _ in range(repeats)
            ]
            first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
            print(
                f"{(batch, channels, side)!s:16s} {name:11s} {first:12.0f} {second:13.0f} {second / first - 1:+8.0%}"
            )


def compiling(repeats: int) -> None:
    block = KernelBasisBlock(16, 32, lightweight=True)
    features = torch.randn(4, 16, 64, 64)

    def step(network: Callable[[Tensor], Tensor]) -> None:
        network(features).square().mean().backward()  # type: ignore[no-untyped-call]
        block.zero_grad()

    def compiled() -> Callable[[], None]:
        torch._dynamo.reset()
        start = time.perf_counter()
        network = torch.compile(block, dynamic=False)
        step(network)
        print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
        return lambda: step(network)

    with patch("models.kbnet_s.kernel_basis_attention", kernel_basis_convolution):
        with_convolutions = compiled()
        convolution, _ = compare(with_convolutions, with_convolutions, repeats, "wall")
    plain, operation = compare(lambda: step(block), compiled(), repeats, "wall")
    print("block of 16 channels, batch 4, 64 px, forward and backward, ms:")
    print(
        f"plain {plain:.1f}, compiled with the operation {operation:.1f}, with convolutions {convolution:.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compile", action="store_true", help="the compiled block instead of single calls")
    parser.add_argument("--repeats", type=int, default=300, help="measurements of each side (default: 300)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    (compiling if arguments.compile else calls)(arguments.repeats)
