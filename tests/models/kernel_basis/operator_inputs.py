"""Random inputs of kernel basis attention, its result with all gradients, and how far two of these are apart."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.kernel_basis.operator import kernel_basis_reference

Operator = Callable[..., Tensor]


def inputs_of(
    batch: int,
    groups: int,
    depth: int,
    height: int,
    width: int,
    bases: int,
    kernel_size: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Tensor]:
    channels = groups * depth
    sizes = (
        (batch, channels, height, width),
        (batch, bases, height, width),
        (1, bases, channels * depth * kernel_size**2),
        (1, bases, channels),
    )
    return [torch.randn(size).to(device, dtype).requires_grad_() for size in sizes]


def with_gradients(operator: Operator, inputs: list[Tensor], kernel_size: int, groups: int) -> list[Tensor]:
    """The result and the gradients of a fixed sum of it."""
    result = operator(*inputs, kernel_size, groups)
    direction = torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view_as(result).to(result)
    return [result.detach(), *torch.autograd.grad(result, inputs, direction)]


def exactly(inputs: list[Tensor], kernel_size: int, groups: int) -> list[Tensor]:
    """The same by the definition in float64, on the CPU."""
    wide = [tensor.detach().cpu().double().requires_grad_() for tensor in inputs]
    return with_gradients(kernel_basis_reference, wide, kernel_size, groups)


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value.cpu().double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
