"""Which crops a step gets, stage by stage."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from data import TrainLoader
from data.cropping import Augmentation
from data.sources import Split
from search.trial import TrialConfig
from search.trial.batches import Batches, CropsConfig

CPU, META = torch.device("cpu"), torch.device("meta")
PROGRESSIVE = {
    "batch": 1,
    "patch": 16,
    "before": [{"share": 0.5, "batch": 4, "patch": 8}, {"share": 0.3, "batch": 2, "patch": 12}],
}


def shares_of(steps: int) -> Callable[[float], int]:
    return lambda share: round(share * steps)


def batches(split: Split, steps: int, device: torch.device = CPU) -> Batches:
    config = CropsConfig.model_validate(PROGRESSIVE)
    return Batches(config, split.train, Augmentation(), seed=0, steps_at=shares_of(steps), device=device)


def test_crops_grow_at_their_shares_of_the_steps(split: Split) -> None:
    ours = batches(split, steps=10)
    shapes = [tuple(ours.batch(step).clean.shape) for step in range(10)]
    assert shapes == [(4, 1, 8, 8)] * 5 + [(2, 1, 12, 12)] * 3 + [(1, 1, 16, 16)] * 2


def test_plain_crops_are_those_of_the_loader(split: Split) -> None:
    config = CropsConfig(batch=3, patch=8)
    ours = Batches(config, split.train, Augmentation(), seed=5, steps_at=shares_of(4), device=CPU)
    loader = TrainLoader(split.train, batch=3, patch=8, augmentation=Augmentation(), seed=5)
    for step in range(4):
        assert torch.equal(ours.batch(step).degraded, loader.batch(step).degraded)


def test_cutting_ahead_gives_every_step_its_own_crops(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another device than the CPU, whose copy is left out: only the order of work differs."""
    ahead, usual = batches(split, 10, META), batches(split, 10)
    monkeypatch.setattr("data.Pair.to", lambda pair, device, non_blocking: pair)
    for step in (0, 1, 2, 7, 8, 3, 4, 9):  # in order, and after a jump
        assert torch.equal(ahead.batch(step).clean, usual.batch(step).clean)


def test_cost_of_a_step_is_the_mean_over_the_stages() -> None:
    tree = {"model": {"kind": "dncnn", "channels": 1, "width": 4, "layers": 3}, "steps": 10}
    progressive = TrialConfig.model_validate({**tree, "crops": PROGRESSIVE}).teramacs_per_step
    per_pixel = 9 * (4 + 16 + 4)
    pixels = 0.5 * 4 * 64 + 0.3 * 2 * 144 + 0.2 * 256
    assert progressive == pytest.approx(3 * per_pixel * pixels / 1e12)


def test_stages_that_leave_no_steps_are_refused() -> None:
    stage = {"share": 0.5, "batch": 1, "patch": 8}
    with pytest.raises(ValidationError, match="the shares add up to 1; they are to leave steps"):
        CropsConfig.model_validate({"before": [stage, stage]})
