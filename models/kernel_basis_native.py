"""Kernel basis attention by compiled code on the CPU: the wrapper of kernel_basis.cpp."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.native import Address, library

BAND_PIXELS = 800  # what fits the second-level cache with all that belongs to it


class NativeKernelBasis(torch.autograd.Function):
    """Float32 or bfloat16 in, `result_dtype` out; with `half`, products of bfloat16 and sums of float32.

    Saves only its inputs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        attention: Tensor,
        weight: Tensor,
        bias: Tensor,
        kernel_size: int,
        groups: int,
        half: bool,
        result_dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups, half, result_dtype
        call = _Call(x, attention, weight, bias, kernel_size, groups)
        result = torch.empty_like(call.inputs[0], dtype=known(result_dtype))
        shape = call.shape(result)
        function = library("kernel_basis").kernel_basis_forward
        function(shape, half, *map(Address, (*call.inputs, result, _working(shape, half, False))))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        kernel_size, groups, half, _ = ctx.sizes
        saved: tuple[Tensor, Tensor, Tensor, Tensor] = ctx.saved_tensors
        call = _Call(*saved, kernel_size=kernel_size, groups=groups)
        d_result = dense(d_result)
        gradients = [torch.empty_like(tensor) for tensor in call.inputs]
        shape = call.shape(d_result)
        function = library("kernel_basis").kernel_basis_backward
        function(
            shape, half, *map(Address, (*call.inputs, d_result, *gradients, _working(shape, half, True)))
        )
        d_inputs = (g.to(tensor.dtype) for g, tensor in zip(gradients, saved, strict=True))
        return *d_inputs, None, None, None, None


class _Call:
    """The inputs as the compiled code wants them, and how the work is divided."""

    def __init__(
        self, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
    ) -> None:
        dtype = known(weight.dtype)
        self.inputs = [
            dense(x),
            dense(attention),
            weight.to(dtype).contiguous(),
            bias.to(dtype).contiguous(),
        ]
        self.kernel_size, self.groups = kernel_size, groups

    def shape(self, image: Tensor) -> ctypes.Array[ctypes.c_int64]:
        """What the compiled code has to know; `image` is the result or its gradient."""
        x, attention, weight, _ = self.inputs
        batch, channels, height, width = x.shape
        bands = -(-height * (width + self.kernel_size - 1) // BAND_PIXELS)
        rows = -(-height // bands)
        bands = -(-height // rows)
        threads = torch.get_num_threads()
        # Every chunk has gradients of all weights: few chunks where these are many.
        spare = 4 if weight.numel() < 2**16 else 1
        chunks = max(1, min(batch * bands, spare * threads))
        layouts = (_channels_last(tensor) for tensor in (x, attention, image))
        halves = (tensor.dtype == torch.bfloat16 for tensor in (x, attention, weight, image))
        numbers = (
            *(batch, channels, height, width, attention.shape[1], self.kernel_size, self.groups),
            *(bands, rows, threads, chunks, *layouts, *halves),
        )
        return (ctypes.c_int64 * len(numbers))(*numbers)


def _working(shape: ctypes.Array[ctypes.c_int64], half: bool, training: bool) -> Tensor:
    """Memory for packed weights and sums."""
    size = library("kernel_basis").kernel_basis_working
    size.restype = ctypes.c_int64
    return torch.empty(size(shape, half, training))


def _channels_last(tensor: Tensor) -> bool:
    return not tensor.is_contiguous()


def known(dtype: torch.dtype) -> torch.dtype:
    """The type among those of the compiled code that holds `dtype` (float64 only nearly)."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def dense(images: Tensor) -> Tensor:
    """`images` in a type that is known, in their own memory order if that is one of the two known ones."""
    images = images.to(known(images.dtype))
    return images if images.is_contiguous(memory_format=torch.channels_last) else images.contiguous()
