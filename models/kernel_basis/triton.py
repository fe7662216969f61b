"""Kernel basis attention on NVIDIA GPUs: calls the Triton kernels; imported only where Triton is installed."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.kernel_basis.triton_kernels import (
    backward_attention_kernel,
    backward_image_kernel,
    backward_weight_kernel,
    forward_kernel,
)


class TritonKernelBasis(torch.autograd.Function):
    """Any mix of float types up to float32 in, `result_dtype` out, any strides. Saves only its inputs.

    `products` is the type of the products: "bf16", "fp16", "tf32" or "tf32x3", the last one as exact as float32.
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
        products: str,
        result_dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups, products, result_dtype
        call = _Call(x, attention, weight, bias, kernel_size, groups, products)
        result = torch.empty_like(x, dtype=result_dtype)
        if result.numel():
            call.forward(result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        call = _Call(*inputs, *ctx.sizes[:3])
        if not d_result.numel():
            return *(torch.zeros_like(tensor) for tensor in inputs), *(None,) * 4
        d_weight, d_bias = call.backward_weight(d_result)
        return (
            call.backward_image(d_result),
            call.backward_attention(d_result),
            d_weight,
            d_bias,
            *(None,) * 4,
        )


class _Call:
    """The sizes of one call as the kernels want them, and how its work is divided."""

    def __init__(
        self,
        x: Tensor,
        attention: Tensor,
        weight: Tensor,
        bias: Tensor,
        kernel_size: int,
        groups: int,
        products: str,
    ) -> None:
        self.x, self.attention, self.weight, self.bias = x, attention, weight.contiguous(), bias.contiguous()
        self.batch, self.channels, self.height, self.width = x.shape
        self.bases, self.groups, self.kernel_size = attention.shape[1], groups, kernel_size
        self.depth, self.pixels = self.channels // groups, self.batch * self.height * self.width
        self.patch = self.depth * kernel_size**2
        wide = triton.next_power_of_2(self.depth)
        self.sizes = {
            "scale": self.pixels.bit_length(),
            "depth": self.depth,
            "num_bases": self.bases,
            "kernel_size": kernel_size,
            "products": products,
            "wide": wide,
            "bases": max(triton.next_power_of_2(self.bases), 16 // wide),  # matrix units take 16 at least
        }

    def forward(self, result: Tensor) -> None:
        def grid(choice: dict[str, int]) -> tuple[int, int]:
            return _parts(self.pixels, choice["pixels"]), _parts(self.groups, choice["share"])

        with self._on_device():
            forward_kernel[grid](
                self.x, self.attention, self.weight, self.bias, result,
                self.batch, self.channels, self.height, self.width, self.groups,
                *self.x.stride(), *self.attention.stride(), *result.stride(), **self.sizes,
            )  # fmt: skip

    def backward_attention(self, d_result: Tensor) -> Tensor:
        # Few pixels: the groups are divided among several programs, and their sums added up.
        share = _parts(self.groups, _parts(self._programs(), _parts(self.pixels, 64)))
        splits = _parts(self.groups, share)
        dtype = self.attention.dtype if splits == 1 else torch.float32
        d_attention = self.attention.new_empty((splits, *self.attention.shape), dtype=dtype)

        def grid(choice: dict[str, int]) -> tuple[int, int]:
            return _parts(self.pixels, choice["pixels"]), splits

        with self._on_device():
            backward_attention_kernel[grid](
                self.x, d_result, self.weight, self.bias, d_attention,
                self.batch, self.channels, self.height, self.width, self.groups, share,
                *self.x.stride(), *d_result.stride(), *d_attention.stride(), **self.sizes,
            )  # fmt: skip
        return (d_attention[0] if splits == 1 else d_attention.sum(0)).to(self.attention.dtype)

    def backward_image(self, d_result: Tensor) -> Tensor:
        d_x, reach = torch.empty_like(self.x), self.kernel_size // 2
        taps = triton.next_power_of_2(self.kernel_size)

        def grid(choice: dict[str, int]) -> tuple[int, int]:
            positions = self.height * (self.width + reach)
            return self.batch * _parts(positions, choice["pixels"] - 2 * reach), self.groups

        with self._on_device():
            backward_image_kernel[grid](
                self.attention, d_result, self.weight, d_x, self.channels, self.height, self.width,
                *self.attention.stride(), *d_result.stride(), *d_x.stride(), **self.sizes,
                taps=taps, inputs=max(self.sizes["wide"], 16 // taps),
            )  # fmt: skip
        return d_x

    def backward_weight(self, d_result: Tensor) -> tuple[Tensor, Tensor]:
        splits = max(1, min(_parts(self._programs(), self.groups), _parts(self.pixels, 256)))
        d_joined = self.x.new_empty((splits, self.bases, self.channels, self.patch + 1), dtype=torch.float32)

        def grid(choice: dict[str, int]) -> tuple[int, int, int]:
            return splits, self.groups, _parts(self.patch + 1, choice["step"])

        with self._on_device():
            backward_weight_kernel[grid](
                self.x, self.attention, d_result, d_joined,
                self.batch, self.channels, self.height, self.width,
                *self.x.stride(), *self.attention.stride(), *d_result.stride(), **self.sizes,
            )  # fmt: skip
        joined = d_joined.sum(0)
        d_weight = joined[..., :-1].reshape(self.weight.shape).to(self.weight.dtype)
        return d_weight, joined[None, ..., -1].to(self.bias.dtype)

    def _on_device(self) -> AbstractContextManager[object]:
        return torch.cuda.device(self.x.device) if self.x.is_cuda else nullcontext()

    def _programs(self) -> int:
        """Number of programs that keep the device busy."""
        if not self.x.is_cuda:
            return 4
        return 4 * torch.cuda.get_device_properties(self.x.device).multi_processor_count


def _parts(total: int, size: int) -> int:
    """Number of parts of `size` that make up `total`."""
    return -(-total // size)
