"""Kernel basis attention: every pixel is filtered with its own mix of learned kernels.

KBNet, arXiv 2303.02881 section 3.1. For image b and pixel (y, x), output channel o of group g is

    sum over n: attention[b, n, y, x] * (bias[n, o] + sum over i, j: weight[n, g, o, i, j] * x[b, g, i, j])

where i runs over the channels of the group and j over the kernel_size^2 pixels around (y, x), zeros outside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel_basis_attention(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, kernel_size: int, groups: int
) -> Tensor:
    """`x` filtered at every pixel with the mix of `weight` that `attention` asks for there.

    Shapes, for C channels in groups of D = C / groups and N bases: x (B, C, H, W), attention (B, N, H, W),
    weight (1, N, C * D * kernel_size^2), bias (1, N, C), result (B, C, H, W). `kernel_size` is odd.
    Under autocast the products run in the autocast type and the result has it.
    """
    if x.device.type == "meta":  # nothing to compute; its products are those of the definition
        return kernel_basis_reference(x, attention, weight, bias, kernel_size, groups)
    return kernel_basis_convolution(x, attention, weight, bias, kernel_size, groups)


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
    depth = channels // groups
    bases = weight.shape[1]
    kernels = weight.view(bases, groups * depth, depth, kernel_size, kernel_size).transpose(0, 1)
    filtered = F.conv2d(x, kernels.flatten(0, 1), padding=kernel_size // 2, groups=groups)
    mixed = (filtered.view(batch, channels, bases, height, width) * attention.unsqueeze(1)).sum(2)
    return mixed.to(filtered.dtype) + F.conv2d(attention, bias[0].t()[..., None, None])
