"""Kernel basis attention by compiled code on the CPU: the wrapper of kernel_basis.cpp."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.native import Address, library

BAND_PIXELS = 800  # what fits the second-level cache with all that belongs to it


class NativeKernelBasis(torch.autograd.Function):
    """Float32 in and out; with `half`, products of bfloat16 and sums of float32. Saves only its inputs."""

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
    ) -> Tensor:
        layout = _layout(x)
        tensors = [_dense(tensor, layout) for tensor in (x, attention, weight, bias)]
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups, half
        shape, _ = _shape(x, attention, kernel_size, groups)
        result = torch.empty_like(tensors[0])
        packed = _packed(x, attention, kernel_size, groups)
        library("kernel_basis").kernel_basis_forward(
            shape, half, *map(Address, tensors), Address(result), Address(packed)
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        kernel_size, groups, half = ctx.sizes
        saved = ctx.saved_tensors
        x, attention, weight, bias = tensors = [_dense(tensor, _layout(saved[0])) for tensor in saved]
        shape, halo = _shape(x, attention, kernel_size, groups)
        threads = torch.get_num_threads()
        gradients = [
            torch.empty_like(x),
            torch.empty_like(attention),
            torch.empty(threads, *weight.shape),
            torch.empty(threads, *bias.shape),
        ]
        library("kernel_basis").kernel_basis_backward(
            shape,
            half,
            *map(Address, tensors),
            Address(_dense(d_result, _layout(x))),
            *map(Address, gradients),
            Address(torch.empty(halo)),
            Address(_packed(x, attention, kernel_size, groups)),
        )
        gradients[2:] = gradients[2][0], gradients[3][0]
        return *(g.to(tensor.dtype) for g, tensor in zip(gradients, saved, strict=True)), None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    dense = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if dense else torch.channels_last


def _dense(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    return tensor.float().contiguous(memory_format=layout if tensor.ndim == 4 else torch.contiguous_format)


def _shape(
    x: Tensor, attention: Tensor, kernel_size: int, groups: int
) -> tuple[ctypes.Array[ctypes.c_int64], int]:
    """The numbers that the compiled code wants, and the floats of working memory for the gradient of x."""
    batch, channels, height, width = x.shape
    stride = width + kernel_size - 1
    bands = -(-height * stride // BAND_PIXELS)
    rows = -(-height // bands)
    bands = -(-height // rows)
    threads = torch.get_num_threads()
    numbers = (batch, channels, height, width, attention.shape[1], kernel_size, groups, bands, rows, threads)
    return (ctypes.c_int64 * 11)(*numbers, _layout(x) is torch.channels_last), batch * bands * channels * (
        rows + kernel_size - 1
    ) * stride


def _packed(x: Tensor, attention: Tensor, kernel_size: int, groups: int) -> Tensor:
    """Working memory for the weights in the order they are read."""
    channels, bases = x.shape[1], attention.shape[1]
    return torch.empty(channels * (bases + 1) * (channels // groups * kernel_size**2 + 2) * 2)
