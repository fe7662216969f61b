"""Speed of kernel basis attention, and of a training step with it, compared with the published formulation.

    python -m tests.benchmarks.kernel_basis             operator, inference, training steps
    python -m tests.benchmarks.kernel_basis --only operator --processes 9
    python -m tests.benchmarks.kernel_basis --march haswell   as processors without AVX-512 run it

Both sides run in turns within one process; medians. Memory is the highest resident size above that before
the call (Linux). "Published" follows the definition step by step: the kernels of all pixels, the patches of
all pixels, their product; backward makes them again. In a training step it stands in the published block, with
the published norm and memory order. How long the published formulation takes depends on the process as well: it
takes hundreds of MB anew, and now it gets them as they are, now page by page. --processes measures in several.

What was tried and did not win (one thread, medians): layer norm in compiled code, a pixel at a time, 1.0 to 2.2 times
as long as torch's; gates in compiled code, 1.0 to 3.5 times as fast by themselves, and a training step of width 8 and
16 as long as before (272 to 288 ms, 487 to 490 ms in bfloat16); inputs innermost in the packed bases, so that sums
into the gradient of x do not overlap, no gain there and 7 % slower forward at (4, 256, 16); working memory kept
between calls instead of taken anew, no gain; products of d_out and x stored in whole vectors for the gradients of
the bases, no gain; several small images per pass over the bases, a block of channels read at once, and prefetching,
1 % together; sizes that the compiler knows, no gain; in bfloat16, two columns at once instead of two rows, with even
and odd pixels apart, 4 % slower.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import KBNetSConfig
from models.kbnet_s import KernelBasisBlock
from models.kernel_basis import build, kernel_basis_attention
from models.kernel_basis.operator import native_kernel_basis_works
from models.layers import LayerNorm2d

SHAPES = ((4, 16, 128), (4, 64, 64), (4, 256, 16))
BASES, KERNEL_SIZE, GROUP_SIZE = 32, 3, 4
SMALL = {"encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}
ORIGIN = {"encoder_blocks": (2, 3, 4), "middle_blocks": 4, "decoder_blocks": (4, 3, 2)}
STEPS = (
    (8, SMALL, 8, 64),
    (8, SMALL, 4, 128),
    (16, SMALL, 4, 128),
    (32, SMALL, 4, 128),
    (16, ORIGIN, 4, 128),
)

NAME = 44  # characters of a line that say what it is about
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Published(torch.autograd.Function):
    """Every intermediate in full, in the type of the inputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups
        coefficients, kernels, patches = Published.intermediates(x, attention, weight, kernel_size, groups)
        filtered = (kernels @ patches.unsqueeze(-1)).flatten(2) + coefficients @ bias
        return filtered.transpose(1, 2).reshape(x.shape)

    @staticmethod
    def intermediates(
        x: Tensor, attention: Tensor, weight: Tensor, kernel_size: int, groups: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, P, N) coefficients, (B, P, groups, D, D * k^2) kernels, (B, P, groups, D * k^2) patches."""
        depth = x.shape[1] // groups
        coefficients = attention.flatten(2).transpose(1, 2)
        kernels = (coefficients @ weight).unflatten(2, (groups, depth, depth * kernel_size**2))
        patches = (
            F.unfold(x, kernel_size, padding=kernel_size // 2).unflatten(1, (groups, -1)).permute(0, 3, 1, 2)
        )
        return coefficients, kernels, patches

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, attention, weight, bias = ctx.saved_tensors
        kernel_size, groups = ctx.sizes
        coefficients, kernels, patches = Published.intermediates(x, attention, weight, kernel_size, groups)
        flat = d_out.flatten(2).transpose(1, 2)
        grouped = flat.reshape(*kernels.shape[:4], 1)
        d_patches = (kernels.transpose(-1, -2) @ grouped).squeeze(-1).permute(0, 2, 3, 1).flatten(1, 2)
        d_kernels = (grouped @ patches.unsqueeze(-2)).flatten(2)
        d_x = F.fold(d_patches, x.shape[2:], kernel_size, padding=kernel_size // 2)
        d_attention = flat @ bias.transpose(1, 2) + d_kernels @ weight.transpose(1, 2)
        d_weight = (coefficients.transpose(1, 2) @ d_kernels).sum(0, keepdim=True)
        d_bias = (coefficients.transpose(1, 2) @ flat).sum(0, keepdim=True)
        return d_x, d_attention.transpose(1, 2).reshape(attention.shape), d_weight, d_bias, None, None


def published_attention(*inputs: Any) -> Tensor:
    """`Published` for a network; it has no autocast of its own, so it runs in float32 there."""
    with torch.autocast("cpu", enabled=False):
        tensors = (tensor.float() for tensor in inputs[:4])
        return Published.apply(*tensors, *inputs[4:])  # type: ignore[no-any-return, no-untyped-call]


def plain_norm(self: LayerNorm2d, x: Tensor) -> Tensor:
    """Layer normalisation as the published network computes it, from single operations."""
    mean = x.mean(1, keepdim=True)
    deviation = ((x - mean).square().mean(1, keepdim=True) + self.eps).sqrt()
    return self.weight.view(1, -1, 1, 1) * ((x - mean) / deviation) + self.bias.view(1, -1, 1, 1)


def published_block(self: KernelBasisBlock, features: Tensor) -> Tensor:
    """The block as it was published: every scale is a product with an image."""
    x = self.norm1(features)
    attention = self.conv2(x) * self.attgamma + self.conv211(x)
    plain = self.conv21(self.conv1(x))
    mixed = published_attention(plain, attention, self.w, self.b, KERNEL_SIZE, self.groups)
    gated = (mixed * self.ga1 + plain) * self.conv11(x) * self.sca(x)
    y = features + self.conv3(gated) * self.beta
    refined = self.conv5(self.gate(self.conv4(self.norm2(y))))
    return y + refined * self.gamma  # type: ignore[no-any-return]


@contextmanager
def published_network() -> Iterator[None]:
    """KBNet_s with the published block, operator, norm and memory order."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(KernelBasisBlock, "compute", published_block))
        stack.enter_context(patch("models.layers.ushape.fast_layout", lambda images: images))
        stack.enter_context(patch.object(LayerNorm2d, "forward", plain_norm))
        yield


def milliseconds(call: Callable[[], object], clock: str) -> float:
    start = CLOCKS[clock]()
    call()
    return (CLOCKS[clock]() - start) * 1e3


def compare(
    published: Callable[[], object], ours: Callable[[], object], repeats: int, clock: str
) -> tuple[float, float]:
    """Medians of both in ms, measured in turns after a first call of each."""
    published()
    ours()
    pairs = [(milliseconds(published, clock), milliseconds(ours, clock)) for _ in range(repeats)]
    first, second = (statistics.median(times) for times in zip(*pairs, strict=True))
    return first, second


def extra_memory(call: Callable[[], object]) -> float:
    """MB that the process grows at most while `call` runs; nan where the system does not say."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or it would be used again unnoticed
        Path("/proc/self/clear_refs").write_text("5")
        before, _ = _resident()
        result = call()
        _, highest = _resident()
    except (OSError, AttributeError):
        return float("nan")
    del result
    return (highest - before) / 1024


def _resident() -> tuple[int, int]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]), int(fields["VmHWM"].split()[0])


def operator_inputs(batch: int, channels: int, height: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    sizes = (
        (batch, channels, height, width),
        (batch, BASES, height, width),
        (1, BASES, channels * GROUP_SIZE * KERNEL_SIZE**2),
        (1, BASES, channels),
    )
    inputs = [torch.randn(size).to(dtype) for size in sizes]
    return [*(tensor.contiguous(memory_format=torch.channels_last) for tensor in inputs[:2]), *inputs[2:]]


def line(name: str, times: tuple[float, float], memory: tuple[float, float] | None = None) -> None:
    published, ours = times
    text = f"{name:{NAME}s} {published:9.1f} {ours:8.1f} {published / ours:7.1f}x"
    if memory:
        text += f" {memory[0]:9.0f} {memory[1]:7.0f} {memory[0] / max(memory[1], 0.1):6.1f}x"
    print(text, flush=True)


def heading(name: str) -> None:
    print(
        f"\n{name:{NAME}s} {'published':>9s} {'ours ms':>8s} {'ratio':>8s} {'MB':>9s} {'ours':>7s} {'ratio':>7s}"
    )


def operator(repeats: int, clock: str) -> None:
    heading("operator, forward and backward")
    for batch, channels, side in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = [
                tensor.requires_grad_() for tensor in operator_inputs(batch, channels, side, side, dtype)
            ]
            direction = torch.randn_like(inputs[0])
            sizes = KERNEL_SIZE, channels // GROUP_SIZE

            def train(function: Callable[..., Tensor], given: Any = (inputs, sizes, direction)) -> object:
                tensors, numbers, d_out = given
                return torch.autograd.grad(function(*tensors, *numbers), tensors, d_out)

            calls = (lambda: train(Published.apply)), (lambda: train(kernel_basis_attention))
            times = compare(*calls, repeats, clock)
            memory = extra_memory(calls[0]), extra_memory(calls[1])
            line(f"{(batch, channels, side, side)} {str(dtype)[6:]}", times, memory)


def inference(repeats: int, clock: str) -> None:
    heading("operator, inference, 1 megapixel")
    for dtype in (torch.float32, torch.bfloat16):
        with torch.no_grad():
            inputs = operator_inputs(1, 16, 1024, 1024, dtype)
            sizes = KERNEL_SIZE, 16 // GROUP_SIZE
            calls = (
                lambda inputs=inputs, sizes=sizes: Published.apply(*inputs, *sizes),  # type: ignore[misc]
                lambda inputs=inputs, sizes=sizes: kernel_basis_attention(*inputs, *sizes),  # type: ignore[misc]
            )
            line(
                f"(1, 16, 1024, 1024) {str(dtype)[6:]}",
                compare(*calls, repeats, clock),
                (extra_memory(calls[0]), extra_memory(calls[1])),
            )


def training_step(model: nn.Module, images: Tensor, half: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        restored = model(images)
    (restored - images).abs().mean().backward()
    model.zero_grad()


def steps(repeats: int, clock: str) -> None:
    heading("KBNet_s training step")
    for width, blocks, batch, side in STEPS:
        model = KBNetSConfig.model_validate({"width": width, **blocks}).build()
        images = torch.rand(batch, 3, side, side)
        for half in (False, True):

            def published(given: Any = (model, images, half)) -> None:
                with published_network():
                    training_step(*given)

            def ours(given: Any = (model, images, half)) -> None:
                training_step(*given)

            name = f"width {width} {blocks['encoder_blocks']} {batch} x {side} px"
            times = compare(published, ours, repeats, clock)
            line(
                f"{name} {'bfloat16' if half else 'float32'}",
                times,
                (extra_memory(published), extra_memory(ours)),
            )


def in_processes(count: int, options: list[str]) -> None:
    """The operator's lines of `count` processes put together: medians, and the ratios' range."""
    command = [sys.executable, "-m", "tests.benchmarks.kernel_basis", "--only", "operator", *options]
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(count):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for text in output.splitlines():
            if text.startswith("("):
                published, ours = text[NAME:].split()[:2]
                times.setdefault(text[:NAME].rstrip(), []).append((float(published), float(ours)))
    print(
        f"{'operator, forward and backward':{NAME}s} {'published':>9s} {'ours ms':>8s} {'ratio':>8s}   from, to"
    )
    for name, pairs in times.items():
        published, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [one / other for one, other in pairs]
        middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"{name:{NAME}s} {published:9.1f} {ours:8.1f} {middle:7.1f}x   {low:.1f} to {high:.1f}x")


PARTS = {"operator": operator, "inference": inference, "steps": steps}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="one part alone (default: all)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument("--threads", type=int, help="threads (default: as torch finds)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: time of the processor, for a busy machine and 1 thread",
    )
    parser.add_argument("--march", help="compile for another processor that this one can stand in for")
    parser.add_argument("--processes", type=int, help="measure the operator alone, in so many processes")
    arguments = parser.parse_args()
    if arguments.processes:
        options = ["--repeats", str(arguments.repeats), "--clock", arguments.clock]
        options += ["--threads", str(arguments.threads)] if arguments.threads else []
        options += ["--march", arguments.march] if arguments.march else []
        in_processes(arguments.processes, options)
        sys.exit()
    if arguments.march:
        build.FLAGS = build.compiler_flags(arguments.march)
    torch.manual_seed(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, compiled: {native_kernel_basis_works()}"
    )
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            part(arguments.repeats, arguments.clock)
