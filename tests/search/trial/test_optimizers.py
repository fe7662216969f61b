"""AdamW: what decays, and the update against its published formula."""

import pytest
import torch

from models import DnCNNConfig, KBNetSConfig
from search.trial.optimizers import AdamWConfig, set_learning_rate


def test_kernels_decay_and_norms_biases_and_scales_do_not() -> None:
    model = KBNetSConfig(
        channels=1, width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,)
    ).build()
    decaying, others = AdamWConfig(weight_decay=0.1).build(model).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decaying["params"]) + len(others["params"]) == len(names)
    kernels = {names[id(parameter)] for parameter in decaying["params"]}
    assert "encoders.0.0.w" in kernels
    assert "intro.weight" in kernels
    assert not any("norm" in name or name.endswith(("bias", "beta", "gamma", "ga1")) for name in kernels)


def test_update_follows_loshchilov_and_hutter_algorithm_2() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    config = AdamWConfig(lr=0.01, weight_decay=0.2, beta1=0.8, beta2=0.95)
    optimizer = config.build(model)
    weight = model.weight.detach().clone()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 6):
        gradient = torch.randn(2, 3, dtype=torch.float64)
        model.weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        unbiased = mean / (1 - 0.8**step) / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
        weight = weight - 0.01 * unbiased - 0.01 * 0.2 * weight
        assert torch.allclose(model.weight.detach(), weight, atol=1e-12)


def test_learning_rate_is_set_for_every_parameter() -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build()
    optimizer = AdamWConfig(lr=1e-3).build(model)
    set_learning_rate(optimizer, 0.25)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert (old - parameter).detach().mean().item() == pytest.approx(0.25, rel=1e-4)
