"""Blocks that are computed again for the gradients, against blocks that keep everything."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models import KBNetSConfig, NAFNetConfig
from models.kernel_basis.operator import native_kernel_basis_works

SHAPE: dict[str, Any] = {
    "width": 8,
    "encoder_blocks": (1, 2),
    "middle_blocks": 2,
    "decoder_blocks": (1, 2),
    "drop_path": 0.4,
}
both = pytest.mark.parametrize("config", [KBNetSConfig(**SHAPE), NAFNetConfig(**SHAPE)], ids=lambda c: c.kind)


def networks(config: Any) -> list[torch.nn.Module]:
    """The same network keeping and recomputing, with weights that let gradients through."""
    plain = config.build()
    for parameter in plain.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    again = config.model_copy(update={"recompute": True}).build()
    again.load_state_dict(plain.state_dict())
    return [plain, again]


def trained(network: torch.nn.Module, half: bool) -> list[Tensor]:
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        restored = network(torch.linspace(0, 1, 3 * 3 * 17 * 23).view(3, 3, 17, 23))
    gradients = torch.autograd.grad(restored.square().mean(), list(network.parameters()))
    return [restored.detach(), *gradients, torch.rand(3)]


@both
@pytest.mark.parametrize("half", [False, True])
def test_gradients_and_random_numbers_are_the_same_bits(config: Any, half: bool) -> None:
    torch.manual_seed(0)
    plain, again = (trained(network, half) for network in networks(config))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_first_call_that_checks_the_compiled_code_can_be_recomputed() -> None:
    native_kernel_basis_works.cache_clear()
    assert trained(networks(KBNetSConfig(**SHAPE))[1], half=False)[0].isfinite().all()


@both
def test_little_more_than_the_inputs_of_the_blocks_is_kept(config: Any) -> None:
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    totals = []
    for network in networks(config.model_copy(update={"drop_path": 0.0})):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            network(torch.rand(2, 3, 64, 96))
        totals.append(sum(kept))
    assert totals[1] < totals[0] / 5


@both
def test_the_setting_changes_nothing_in_evaluation(config: Any) -> None:
    plain, again = (network.eval() for network in networks(config))
    image = torch.rand(1, 3, 17, 23)
    assert torch.equal(plain(image), again(image))
    assert again(image).grad_fn is not None
