"""The moving average of weights against a loop over its formula."""

import pytest
import torch

from models import DnCNNConfig
from search.trial.ema import WeightAverage


def test_average_follows_its_formula_while_its_memory_grows_up_to_the_decay() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.5)
    expected = model.weight.detach().double().clone()
    for update in range(12):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(update)))
        average.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
        assert torch.allclose(average.model.weight.double(), expected, atol=1e-6)


def test_average_of_a_model_that_stands_still_is_that_model() -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build()
    average = WeightAverage(model, decay=0.999)
    for _ in range(5):
        average.update(model)
    for ours, theirs in zip(average.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_decay_the_average_is_the_model_itself() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.0)
    with torch.no_grad():
        model.weight.fill_(7.0)
    average.update(model)
    assert torch.equal(average.model.weight, model.weight)


def test_batch_norm_statistics_are_copied_not_averaged() -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3, batch_norm=True).build()
    average = WeightAverage(model, decay=0.9)
    model.train()
    for _ in range(3):
        model(torch.rand(2, 1, 9, 11))
        average.update(model)
    buffers = dict(model.named_buffers())
    assert buffers
    for name, buffer in average.model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_average_is_frozen_and_judges_in_evaluation_mode() -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3, batch_norm=True).build().train()
    average = WeightAverage(model, decay=0.9)
    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert model.training


def test_training_the_model_leaves_the_average_alone_until_it_is_updated() -> None:
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.5)
    before = average.model.weight.clone()
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(average.model.weight, before)
    average.update(model)
    assert average.model.weight.detach().abs().sum() == pytest.approx(
        0.1 * before.abs().sum().item(), rel=1e-5
    )
