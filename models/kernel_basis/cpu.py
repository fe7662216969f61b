"""Kernel basis attention by compiled code on the CPU: the wrapper of kernel_basis.cpp."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernel_basis.build import library

BAND_PIXELS = 800  # a band of this size with its intermediate results fits into the second-level cache


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
        inputs = _as_read(x, attention, weight, bias)
        result = torch.empty_like(inputs[0], dtype=known(result_dtype))
        library("kernel_basis").kernel_basis_forward(_numbers(kernel_size, groups, half, [*inputs, result]))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        kernel_size, groups, half, _ = ctx.sizes
        saved: tuple[Tensor, Tensor, Tensor, Tensor] = ctx.saved_tensors
        inputs = _as_read(*saved)
        gradients = [torch.empty_like(tensor) for tensor in inputs]
        tensors = [*inputs, dense(d_result), *gradients]
        library("kernel_basis").kernel_basis_backward(_numbers(kernel_size, groups, half, tensors))
        d_inputs = (g.to(tensor.dtype) for g, tensor in zip(gradients, saved, strict=True))
        return *d_inputs, None, None, None, None


def _as_read(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """The inputs in the types and memory layouts that the compiled code expects."""
    dtype = known(weight.dtype)
    return [dense(x), dense(attention), weight.to(dtype).contiguous(), bias.to(dtype).contiguous()]


def _numbers(
    kernel_size: int, groups: int, half: bool, tensors: list[Tensor]
) -> ctypes.Array[ctypes.c_int64]:
    """All that the compiled code has to know: sizes, how the work is divided, types and addresses.

    `tensors`: the four inputs, the result or its gradient, the gradients of the inputs. They have to outlive the call.
    """
    x, attention, weight, _, image = tensors[:5]
    batch, channels, height, width = x.shape
    bands = -(-height * (width + kernel_size - 1) // BAND_PIXELS)
    rows = -(-height // bands)
    if height % 2 == 0:
        rows += rows % 2  # pairs of rows take fewer products, see minimal_filter.h
    bands = -(-height // rows)
    threads = torch.get_num_threads()
    # Every chunk has gradients of all weights: few chunks where these are many.
    spare = 4 if weight.numel() < 2**16 else 1
    chunks = max(1, min(batch * bands, spare * threads))
    numbers = (
        *(batch, channels, height, width, attention.shape[1], kernel_size, groups),
        *(bands, rows, threads, chunks),
        *[not tensor.is_contiguous() for tensor in (x, attention, image)],  # channels last
        *[tensor.dtype == torch.bfloat16 for tensor in (x, attention, weight, image)],
        half,
        *[tensor.data_ptr() for tensor in tensors],
    )
    return (ctypes.c_int64 * len(numbers))(*numbers)


def known(dtype: torch.dtype) -> torch.dtype:
    """The type among those of the compiled code that holds `dtype` (float64 only nearly)."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def dense(images: Tensor) -> Tensor:
    """`images` in a type that is known, in their own memory order if that is one of the two known ones."""
    images = images.to(known(images.dtype))
    return images if images.is_contiguous(memory_format=torch.channels_last) else images.contiguous()
