"""Stochastic depth: what is left out, how often, and that nothing is in evaluation."""

import torch
from torch import Tensor, nn

from models.layers import Residuals


class PlusOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def test_blocks_are_left_out_at_their_rate_for_each_image_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    stage = Residuals(PlusOne(), drop=0.25)
    change = stage(torch.zeros(4000, 1, 2, 3))
    assert set(change.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    per_image = change.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    share = (per_image[:, 0] > 0).float().mean().item()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5
    assert abs(change.mean().item() - 1) < 0.04


def test_evaluation_and_no_drop_use_every_block() -> None:
    x = torch.zeros(50, 1, 2, 3)
    blocks = PlusOne(), PlusOne(), PlusOne()
    assert torch.equal(Residuals(*blocks, drop=0.9).eval()(x), x + 3)
    assert torch.equal(Residuals(*blocks, drop=0.0).train()(x), x + 3)
