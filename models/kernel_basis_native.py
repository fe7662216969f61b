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
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups, half
        call = _Call(x, attention, weight, bias, kernel_size, groups)
        result = torch.empty_like(call.inputs[0])
        function = library("kernel_basis").kernel_basis_forward
        function(call.shape(), half, *map(Address, (*call.inputs, result, call.packed())))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        kernel_size, groups, half = ctx.sizes
        saved: tuple[Tensor, Tensor, Tensor, Tensor] = ctx.saved_tensors
        call = _Call(*saved, kernel_size=kernel_size, groups=groups)
        x, attention, weight, bias = call.inputs
        d_result = _dense(d_result)
        gradients = [
            torch.empty_like(x),
            torch.empty_like(attention),
            torch.empty_like(weight),
            torch.empty_like(bias),
        ]
        function = library("kernel_basis").kernel_basis_backward
        working = (call.terms(), call.halos(), call.packed())
        function(call.shape(d_result), half, *map(Address, (*call.inputs, d_result, *gradients, *working)))
        return *(g.to(tensor.dtype) for g, tensor in zip(gradients, saved, strict=True)), None, None, None


class _Call:
    """The inputs as the compiled code wants them, how the work is divided, and the working memory."""

    def __init__(
        self, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
    ) -> None:
        self.inputs = [_dense(x), _dense(attention), weight.float().contiguous(), bias.float().contiguous()]
        self.kernel_size, self.groups = kernel_size, groups
        self.batch, self.channels, self.height, width = x.shape
        self.patch = self.channels // groups * kernel_size**2 + 1
        self.width, self.bases = width, attention.shape[1]
        self.stride = width + kernel_size - 1
        bands = -(-self.height * self.stride // BAND_PIXELS)
        self.rows = -(-self.height // bands)
        self.bands = -(-self.height // self.rows)
        self.threads = torch.get_num_threads()
        self.chunks = max(1, min(self.batch * self.bands, 4 * self.threads))

    def shape(self, d_result: Tensor | None = None) -> ctypes.Array[ctypes.c_int64]:
        layouts = [_channels_last(tensor) for tensor in (*self.inputs[:2], d_result) if tensor is not None]
        sizes = (
            self.batch,
            self.channels,
            self.height,
            self.width,
            self.bases,
            self.kernel_size,
            self.groups,
        )
        return (ctypes.c_int64 * 14)(*sizes, self.bands, self.rows, self.threads, self.chunks, *layouts)

    def halos(self) -> Tensor:
        """The gradient of x, band by band with the rows that a band shares with its neighbours."""
        return torch.empty(
            self.batch * self.bands * self.channels * (self.rows + self.kernel_size - 1) * self.stride
        )

    def packed(self) -> Tensor:
        """The weights in the order they are read."""
        return torch.empty(self.channels * (self.bases + 1) * (self.patch + 1) * 2)

    def terms(self) -> Tensor:
        """The gradients of weight and bias, of each chunk apart."""
        return torch.empty(self.chunks * self.channels * self.patch * -(-self.bases // 32) * 32)


def _channels_last(tensor: Tensor) -> bool:
    return not tensor.is_contiguous()


def _dense(images: Tensor) -> Tensor:
    """`images` as float32, in their own memory order if that is one of the two known ones."""
    images = images.float()
    return images if images.is_contiguous(memory_format=torch.channels_last) else images.contiguous()
