"""Kernel basis attention: every pixel is filtered with its own mix of learned kernels.

KBNet, arXiv 2303.02881 section 3.1. For image b and pixel p, output channel o of group g is

    sum over n: attention[b, n, p] * (bias[n, g, o] + sum over i, j: weight[n, g, o, i, j] * x[b, g, i, p + j])

where i runs over the channels of the group and j over the kernel_size^2 pixels around p, zeros outside.
One call, several ways to compute it: compiled code (CPU), Triton (NVIDIA GPUs), matrix products on bands of
rows (everywhere), a grouped convolution (exported graphs), and the definition as it stands (tests).
"""

import functools
import importlib.util
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.kernel_basis.blocked import BlockedKernelBasis
from models.kernel_basis.build import Unavailable, library, load_library
from models.kernel_basis.cpu import NativeKernelBasis
from models.layers import autocast_is_on, compute_dtype, full_precision


def kernel_basis_attention(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
) -> Tensor:
    """`x` filtered at every pixel with the mix of `weight` that `attention` asks for there.

    Shapes, for C channels in groups of D = C / groups and N bases: x (B, C, H, W), attention (B, N, H, W),
    weight (1, N, C * D * kernel_size^2), bias (1, N, C), result (B, C, H, W); `kernel_size` is odd.
    Under autocast the products run in the autocast type, the sums and the result are float32.
    """
    if x.device.type == "meta":  # nothing to compute; what counts is the products of the definition
        return kernel_basis_reference(x, attention, weight, bias, kernel_size, groups)
    if torch.compiler.is_exporting():  # other programs know plain operations
        return kernel_basis_convolution(x, attention, weight, bias, kernel_size, groups)
    dtype = compute_dtype(x)
    result_dtype = torch.float32 if autocast_is_on(x) else dtype
    if torch.compiler.is_compiling():
        # As one operation, which the compiler leaves as it is. A call of it costs more than one of the
        # function behind it (tests/benchmarks/kernel_basis_op.py), so it is for the compiler alone.
        with full_precision(x):
            return torch.ops.restune.kernel_basis(  # type: ignore[no-any-return]
                x, attention, weight, bias, kernel_size, groups, dtype, result_dtype
            )
    function, settings = _fastest(x, kernel_size, groups, dtype, result_dtype)
    if function is NativeKernelBasis:  # has no operations that autocast would change
        return function.apply(x, attention, weight, bias, *settings)  # type: ignore[no-any-return, no-untyped-call]
    with full_precision(x):
        inputs = _as_wanted(function, dtype, x, attention, weight, bias)
        return function.apply(*inputs, *settings).to(result_dtype)  # type: ignore[no-any-return, no-untyped-call]


def _fastest(
    x: Tensor, kernel_size: int, groups: int, dtype: torch.dtype, result_dtype: torch.dtype
) -> tuple[type[torch.autograd.Function], tuple[Any, ...]]:
    """The fastest function that works here, and its settings: what its `apply` takes after the tensors."""
    if x.device.type == "cpu" and dtype != torch.float64 and native_kernel_basis_works():
        return NativeKernelBasis, (kernel_size, groups, dtype == torch.bfloat16, result_dtype)
    if x.device.type == "cuda" and dtype != torch.float64:
        products = _triton_products(dtype)
        if triton_kernel_basis_works(x.device, products):
            from models.kernel_basis.triton import TritonKernelBasis

            return TritonKernelBasis, (kernel_size, groups, products, result_dtype)
    return BlockedKernelBasis, (kernel_size, groups)


def _as_wanted(
    function: type[torch.autograd.Function], dtype: torch.dtype, *inputs: Tensor
) -> tuple[Tensor, ...]:
    """`inputs` in one type where the function does not see to that by itself."""
    return tuple(tensor.to(dtype) for tensor in inputs) if function is BlockedKernelBasis else inputs


def _triton_products(dtype: torch.dtype) -> str:
    """Type of the products; float32 as matrix products outside have it (`torch.set_float32_matmul_precision`)."""
    half = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype)
    return half or ("tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32")


@functools.cache
def native_kernel_basis_works() -> bool:
    """True if the compiled code is there and agrees with the definition on a small example, both ways."""
    try:
        library("kernel_basis")
    except Unavailable:
        return False
    cpu = torch.device("cpu")
    return all(
        _agrees(NativeKernelBasis, cpu, 7, tolerance, half)
        for half, tolerance in ((False, 1e-5), (True, 2e-2))
    )


def why_not_compiled() -> str | None:
    """The reason why compiled code is not used on the CPU, in a few words; None where it is used."""
    reason = load_library("kernel_basis")
    if isinstance(reason, str):
        return reason
    return None if native_kernel_basis_works() else "it differs from its definition"


@functools.cache
def triton_kernel_basis_works(device: torch.device, products: str) -> bool:
    """True if Triton is there, makes code for this device, and the code agrees with the definition.

    `RESTUNE_NATIVE=0` switches it off, too.
    """
    if os.environ.get("RESTUNE_NATIVE", "1") == "0" or not importlib.util.find_spec("triton"):
        return False
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from models.kernel_basis.triton import TritonKernelBasis

        tolerance = 5e-5 if products == "tf32x3" else 2e-2
        return _agrees(TritonKernelBasis, device, 32, tolerance, products, torch.float32)
    except Exception:  # a compiler and a driver can fail in many ways; the other form is as right
        return False


def _agrees(
    function: type[torch.autograd.Function],
    device: torch.device,
    bases: int,
    tolerance: float,
    *settings: object,
) -> bool:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 8, 5, 19), (2, bases, 5, 19), (1, bases, 8 * 4 * 9), (1, bases, 8))
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        # The first call may be one that is recorded for recomputing; what is kept here is none of its business.
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor),
    ):
        inputs = [torch.randn(size, generator=generator) for size in sizes]
        x, attention, weight, bias = exact = [tensor.double().requires_grad_() for tensor in inputs]
        direction = torch.randn(sizes[0], generator=generator)
        expected = kernel_basis_reference(x, attention, weight, bias, 3, 2)
        right = _with_gradients(expected, exact, direction.double())
        inputs = [tensor.to(device).requires_grad_() for tensor in inputs]
        result = function.apply(*inputs, 3, 2, *settings)  # type: ignore[no-untyped-call]
        found = _with_gradients(result, inputs, direction.to(device))
    return all(
        bool((value.cpu().double() - wanted).norm() <= tolerance * wanted.norm())
        for value, wanted in zip(found, right, strict=True)
    )


def _with_gradients(result: Tensor, inputs: list[Tensor], direction: Tensor) -> list[Tensor]:
    return [result.detach(), *torch.autograd.grad(result, inputs, direction)]


def kernel_basis_reference(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
) -> Tensor:
    """The definition, written down: mix the kernels of each pixel, then apply them. Slow and large."""
    batch, channels, height, width = x.shape
    depth = channels // groups
    patch = depth * kernel_size**2
    kernels = torch.einsum("bnp,ngoj->bgpoj", attention.flatten(2), weight.view(-1, groups, depth, patch))
    patches = F.unfold(x, kernel_size, padding=kernel_size // 2).view(batch, groups, patch, height * width)
    filtered = torch.einsum("bgpoj,bgjp->bgop", kernels, patches).reshape(batch, channels, height * width)
    shift = torch.einsum("bnp,nc->bcp", attention.flatten(2), bias[0])
    return (filtered + shift).view(batch, channels, height, width)


def kernel_basis_convolution(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
) -> Tensor:
    """The same as a grouped convolution with all bases, then a weighted sum over them.

    Made of plain convolutions and products: the form for exported graphs.
    """
    batch, channels, height, width = x.shape
    bases, depth = weight.shape[1], channels // groups
    kernels = weight.view(bases, channels, depth, kernel_size, kernel_size).transpose(0, 1)
    filtered = F.conv2d(x, kernels.flatten(0, 1), padding=kernel_size // 2, groups=groups)
    mixed = (filtered.view(batch, channels, bases, height, width) * attention.unsqueeze(1)).sum(2)
    return mixed + F.conv2d(attention, bias[0].t()[..., None, None])


class _Saved:
    """A replacement for the context of an autograd function, for calls without autograd."""

    def __init__(self, sizes: tuple[Any, ...] = (), *tensors: Tensor) -> None:
        self.sizes = sizes
        self.save_for_backward(*tensors)

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors


@torch.library.custom_op("restune::kernel_basis", mutates_args=())
def kernel_basis_operation(
    x: Tensor,
    attention: Tensor,
    weight: Tensor,
    bias: Tensor,
    kernel_size: int,
    groups: int,
    dtype: torch.dtype,
    result_dtype: torch.dtype,
) -> Tensor:
    """Kernel basis attention as one operation for torch.compile; contiguous whatever the inputs are."""
    function, settings = _fastest(x, kernel_size, groups, dtype, result_dtype)
    inputs = _as_wanted(function, dtype, x, attention, weight, bias)
    result: Tensor = function.forward(_Saved(), *inputs, *settings)
    return result.to(result_dtype).contiguous()


@torch.library.custom_op("restune::kernel_basis_backward", mutates_args=())
def kernel_basis_gradients(
    d_result: Tensor,
    x: Tensor,
    attention: Tensor,
    weight: Tensor,
    bias: Tensor,
    kernel_size: int,
    groups: int,
    dtype: torch.dtype,
    result_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of the four tensors, each in its own type."""
    function, settings = _fastest(x, kernel_size, groups, dtype, result_dtype)
    inputs = _as_wanted(function, dtype, x, attention, weight, bias)
    gradients = function.backward(_Saved(settings, *inputs), d_result)
    d_x, d_attention, d_weight, d_bias = (
        gradient.to(tensor.dtype).contiguous()
        for gradient, tensor in zip(gradients[:4], (x, attention, weight, bias), strict=True)
    )
    return d_x, d_attention, d_weight, d_bias


@kernel_basis_operation.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape, dtype=others[-1])


@kernel_basis_gradients.register_fake
def _(d_result: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:4])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.settings = inputs[4:]


def _gradients(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
    return *kernel_basis_gradients(d_result, *ctx.saved_tensors, *ctx.settings), *(None,) * 4


kernel_basis_operation.register_autograd(_gradients, setup_context=_keep)
