"""Kernel basis attention by matrix products on bands of rows: for any device and floating type."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Intermediate numbers of one band; on a GPU the launch of a kernel costs more than a trip to memory.
BAND_NUMBERS = {"cpu": 2**18, "cuda": 2**24}


class BlockedKernelBasis(torch.autograd.Function):
    """By matrix products, a band of rows at a time: all bases applied to the patches, then mixed.

    Any floating type; products in that type, sums over bases in float32 at least. Saves only its
    inputs and goes through the bands again for the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.sizes = kernel_size, groups
        bands = _Bands(x, attention, weight, bias, kernel_size, groups)
        result = torch.empty(x.shape, dtype=bands.wide, device=x.device)
        for rows in bands.rows():
            coefficients = attention[:, :, rows].flatten(2)
            mixed = (bands.filtered(rows) * coefficients[:, None, :, None]).sum(2)
            result[:, :, rows] = mixed.view(result[:, :, rows].shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, attention, weight, bias = ctx.saved_tensors
        bands = _Bands(x, attention, weight, bias, *ctx.sizes)
        d_padded = torch.zeros(bands.padded.shape, dtype=bands.wide, device=x.device)
        d_attention = torch.empty_like(attention)
        d_kernels = torch.zeros(bands.kernels.shape, dtype=bands.wide, device=x.device)
        for rows in bands.rows():
            d_out = (
                d_result[:, :, rows]
                .to(x.dtype)
                .reshape(x.shape[0], bands.groups, 1, bands.depth, bands.pixels(rows))
            )
            products = (bands.filtered(rows) * d_out).sum((1, 3))
            d_attention[:, :, rows] = products.view(d_attention[:, :, rows].shape).to(x.dtype)
            d_filtered = (attention[:, :, rows].flatten(2)[:, None, :, None] * d_out).flatten(2, 3)
            patches = bands.patches(rows)
            d_kernels += (d_filtered @ patches.transpose(-1, -2)).sum(0, dtype=bands.wide)
            d_patches = bands.kernels.transpose(-1, -2) @ d_filtered
            bands.add_patches(d_padded, d_patches, rows)
        pad = bands.kernel_size // 2
        d_x = d_padded[:, :, pad : d_padded.shape[2] - pad, pad : d_padded.shape[3] - pad].to(x.dtype)
        d_weight, d_bias = bands.unpack(d_kernels.to(weight.dtype))
        return d_x, d_attention, d_weight, d_bias, None, None


class _Bands:
    """The patches of an image in bands of rows, and the bases as matrices: (groups, N * D, D * k^2 + 1).

    The last row of a patch is 1, so that the last column of the matrices is the bias.
    """

    def __init__(
        self, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
    ) -> None:
        self.kernel_size, self.groups, self.depth = kernel_size, groups, x.shape[1] // groups
        self.bases, self.shape = attention.shape[1], x.shape
        self.wide = torch.promote_types(x.dtype, torch.float32)
        self.padded = F.pad(x, [kernel_size // 2] * 4)
        patch = self.depth * kernel_size**2
        kernels = weight.view(self.bases, groups, self.depth, patch)
        joined = torch.cat((kernels, bias.view(self.bases, groups, self.depth, 1)), 3)
        self.kernels = joined.transpose(0, 1).flatten(1, 2)

    def rows(self) -> list[slice]:
        batch, channels, height, width = self.shape
        limit = BAND_NUMBERS.get(self.padded.device.type, BAND_NUMBERS["cuda"])
        count = max(1, limit // max(1, batch * channels * self.bases * width))
        return [slice(first, min(first + count, height)) for first in range(0, height, count)]

    def pixels(self, rows: slice) -> int:
        return int(rows.stop - rows.start) * self.shape[-1]

    def patches(self, rows: slice) -> Tensor:
        """(B, groups, D * k^2 + 1, pixels)"""
        batch, _, _, width = self.shape
        count, k = rows.stop - rows.start, self.kernel_size
        block = self.padded[:, :, rows.start : rows.stop + k - 1]
        views = [block[:, :, y : y + count, x : x + width] for y in range(k) for x in range(k)]
        stacked = torch.stack(views, 2).reshape(batch, self.groups, self.depth * k * k, count * width)
        return torch.cat((stacked, stacked.new_ones(batch, self.groups, 1, count * width)), 2)

    def add_patches(self, to: Tensor, d_patches: Tensor, rows: slice) -> None:
        """The transpose of `patches`: adds to the padded image `to`."""
        batch, channels, _, width = self.shape
        count, k = rows.stop - rows.start, self.kernel_size
        spread = d_patches[:, :, :-1].reshape(batch, channels, k, k, count, width)
        for y in range(k):
            for x in range(k):
                to[:, :, rows.start + y : rows.stop + y, x : x + width] += spread[:, :, y, x]

    def filtered(self, rows: slice) -> Tensor:
        """Output of every basis for the band, bias included: (B, groups, N, D, pixels), wide."""
        product = self.kernels @ self.patches(rows)
        return product.to(self.wide).view(*product.shape[:2], self.bases, self.depth, product.shape[-1])

    def unpack(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """`weight` and `bias` from their matrices."""
        joined = kernels.view(self.groups, self.bases, self.depth, -1).transpose(0, 1)
        return joined[..., :-1].reshape(1, self.bases, -1), joined[..., -1].reshape(1, self.bases, -1)
