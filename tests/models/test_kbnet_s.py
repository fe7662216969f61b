"""The block of KBNet_s, whose scales go into weights, against the published formula, where they multiply images."""

import pytest
import torch
from torch import Tensor

from models.kbnet_s import KERNEL_SIZE, KernelBasisBlock
from models.kernel_basis import kernel_basis_attention
from models.kernel_basis.operator import kernel_basis_reference


def published(block: KernelBasisBlock, features: Tensor, reference: bool = True) -> Tensor:
    operator = kernel_basis_reference if reference else kernel_basis_attention
    x = block.norm1(features)
    attention = block.conv2(x) * block.attgamma + block.conv211(x)
    plain = block.conv21(block.conv1(x))
    mixed = operator(plain, attention, block.w, block.b, KERNEL_SIZE, block.groups)
    gated = (mixed * block.ga1 + plain) * block.conv11(x) * block.sca(x)
    y = features + block.conv3(gated) * block.beta
    return y + block.conv5(block.gate(block.conv4(block.norm2(y)))) * block.gamma  # type: ignore[no-any-return]


def random_block(channels: int, lightweight: bool) -> KernelBasisBlock:
    """With scales that differ and are large enough to be seen."""
    torch.manual_seed(0)
    block = KernelBasisBlock(channels, 2 * channels, lightweight)
    for scale in (block.ga1, block.attgamma, block.beta, block.gamma):
        torch.nn.init.uniform_(scale, 0.5, 1.5)
    return block


def with_gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    direction = torch.linspace(-1, 1, result.numel(), dtype=torch.float64).view_as(result).to(result.dtype)
    return [result.detach(), *torch.autograd.grad(result, inputs, direction)]


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30)).item()


@pytest.mark.parametrize("lightweight", [False, True])
@pytest.mark.parametrize("size", [(2, 8, 17, 23), (1, 8, 1, 1), (0, 8, 5, 6)])
def test_block_and_its_gradients_equal_the_published_formula(
    size: tuple[int, int, int, int], lightweight: bool
) -> None:
    block = random_block(size[1], lightweight).double()
    inputs = [torch.randn(size, dtype=torch.float64).requires_grad_(), *block.parameters()]
    expected = with_gradients(published(block, inputs[0]), inputs)
    for value, right in zip(with_gradients(block(inputs[0]), inputs), expected, strict=True):
        assert torch.allclose(value, right, rtol=1e-9, atol=1e-9)


def test_block_in_bfloat16_errs_like_the_published_formula_there() -> None:
    block = random_block(16, lightweight=False)
    names = ("result", "features", *(name for name, _ in block.named_parameters()))
    ours, theirs = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for seed in range(8):  # one sum of a few numbers is rounded well or badly by chance
        torch.manual_seed(seed)
        inputs = [torch.randn(2, 16, 17, 23).requires_grad_(), *block.parameters()]
        exact = with_gradients(published(block, inputs[0]), inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found, rounded = block(inputs[0]), published(block, inputs[0], reference=False)
        assert found.dtype == torch.float32
        results = with_gradients(found, inputs), with_gradients(rounded, inputs), exact
        for name, value, other, right in zip(names, *results, strict=True):
            ours[name] += relative_error(value, right)
            theirs[name] += relative_error(other, right)
    assert all(ours[name] <= 1.5 * theirs[name] for name in names)
