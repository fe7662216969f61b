"""Optimizers: what decays, and updates against their published formulas."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from models import DnCNNConfig, KBNetSConfig
from search.trial.optimizers import (
    AdamConfig,
    AdamWConfig,
    NAdamConfig,
    OptimizerConfig,
    SGDConfig,
    set_learning_rate,
)

CONFIGS: list[OptimizerConfig] = [
    AdamWConfig(weight_decay=0.1),
    AdamConfig(weight_decay=0.1),
    NAdamConfig(weight_decay=0.1),
    SGDConfig(weight_decay=0.1),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_kernels_decay_and_norms_biases_and_scales_do_not(config: OptimizerConfig) -> None:
    model = KBNetSConfig(
        channels=1, width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,)
    ).build()
    decaying, others = config.build(model).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decaying["params"]) + len(others["params"]) == len(names)
    kernels = {names[id(parameter)] for parameter in decaying["params"]}
    assert "encoders.0.0.w" in kernels
    assert "intro.weight" in kernels
    assert not any("norm" in name or name.endswith(("bias", "beta", "gamma", "ga1")) for name in kernels)


def five_steps(config: OptimizerConfig) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Step, gradient, and the weight before and after it."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    optimizer = config.build(model)
    for step in range(1, 6):
        before = model.weight.detach().clone()
        gradient = torch.randn(2, 3, dtype=torch.float64)
        model.weight.grad = gradient.clone()
        optimizer.step()
        yield step, gradient, before, model.weight.detach().clone()


def test_adamw_follows_loshchilov_and_hutter_algorithm_2() -> None:
    mean, square = torch.zeros(2, 2, 3, dtype=torch.float64)
    for step, gradient, before, after in five_steps(
        AdamWConfig(lr=0.01, weight_decay=0.2, beta1=0.8, beta2=0.95)
    ):
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        unbiased = mean / (1 - 0.8**step) / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
        assert torch.allclose(after, before - 0.01 * unbiased - 0.01 * 0.2 * before, atol=1e-12)


def test_adam_follows_kingma_and_ba_algorithm_1_with_the_decay_in_its_gradient() -> None:
    mean, square = torch.zeros(2, 2, 3, dtype=torch.float64)
    for step, gradient, before, after in five_steps(
        AdamConfig(lr=0.01, weight_decay=0.2, beta1=0.8, beta2=0.95)
    ):
        penalised = gradient + 0.2 * before
        mean = 0.8 * mean + 0.2 * penalised
        square = 0.95 * square + 0.05 * penalised**2
        unbiased = mean / (1 - 0.8**step) / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
        assert torch.allclose(after, before - 0.01 * unbiased, atol=1e-12)


def test_nadam_follows_dozat_with_its_warming_momentum_and_a_decoupled_decay() -> None:
    def momentum(step: int) -> float:
        return float(0.8 * (1 - 0.5 * 0.96 ** (0.004 * step)))

    mean, square = torch.zeros(2, 2, 3, dtype=torch.float64)
    product = 1.0
    for step, gradient, before, after in five_steps(
        NAdamConfig(lr=0.01, weight_decay=0.2, beta1=0.8, beta2=0.95)
    ):
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        now, ahead = momentum(step), momentum(step + 1)
        product *= now
        looked_ahead = ahead * mean / (1 - product * ahead) + (1 - now) * gradient / (1 - product)
        update = looked_ahead / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
        assert torch.allclose(after, before - 0.01 * update - 0.01 * 0.2 * before, atol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_follows_sutskever_section_2(nesterov: bool) -> None:
    velocity = torch.zeros(2, 3, dtype=torch.float64)
    for _, gradient, before, after in five_steps(
        SGDConfig(lr=0.05, weight_decay=0.2, momentum=0.7, nesterov=nesterov)
    ):
        penalised = gradient + 0.2 * before
        velocity = 0.7 * velocity + penalised
        direction = penalised + 0.7 * velocity if nesterov else velocity
        assert torch.allclose(after, before - 0.05 * direction, atol=1e-12)


def test_looking_ahead_without_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed without: nesterov = false"):
        SGDConfig(momentum=0.0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_learning_rate_of_zero_moves_nothing(config: OptimizerConfig) -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build()
    optimizer = config.build(model)
    set_learning_rate(optimizer, 0.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("config", [AdamWConfig(), AdamConfig()], ids=lambda config: config.kind)
def test_learning_rate_is_set_for_every_parameter(config: Any) -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build()
    optimizer = config.build(model)
    set_learning_rate(optimizer, 0.25)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert (old - parameter).detach().mean().item() == pytest.approx(0.25, rel=1e-4)
