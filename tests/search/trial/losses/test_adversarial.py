"""The critic and the loss it gives, against the formulas of the papers."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from data.files import Pair
from models import count_macs
from search.inference import Precision
from search.trial import TrialConfig
from search.trial.losses.adversarial import Adversarial, AdversarialConfig

CPU = torch.device("cpu")
SMALL = {"width": 4, "layers": 1}


@pytest.fixture
def pair() -> Pair:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 1, 17, 23, generator=generator)
    return Pair((clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean)


def built(**settings: object) -> Adversarial:
    torch.manual_seed(0)
    config = AdversarialConfig.model_validate({"critic": SMALL, **settings})
    return config.objective_for(1, Precision("fp32", CPU))


@pytest.mark.parametrize("objective", ["bce", "least_squares"])
def test_loss_is_the_one_of_the_paper(objective: str, pair: Pair) -> None:
    adversarial = built(objective=objective, pixel={"kind": "mse"}, pixel_weight=7.0)
    restored = pair.degraded * 0.9
    opinion = adversarial.critic(pair.degraded, restored).double()
    expected = -opinion.sigmoid().log().mean() if objective == "bce" else ((opinion - 1) ** 2).mean()
    expected += 7 * ((restored - pair.clean).double() ** 2).mean()
    assert adversarial(restored, pair).item() == pytest.approx(expected.item(), rel=1e-5)


def test_models_step_leaves_the_critic_without_gradient(pair: Pair) -> None:
    adversarial = built()
    restored = pair.degraded.clone().requires_grad_()
    adversarial(restored, pair).backward()
    assert restored.grad is not None
    assert restored.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in adversarial.critic.parameters())


def test_critic_takes_the_step_that_adam_takes_on_the_mean_of_its_two_terms(pair: Pair) -> None:
    steps, lr = 10, 1e-3
    adversarial = built(
        lr=lr, critic={**SMALL, "norm": "none"}, schedule={"kind": "exponential", "final": 0.1}
    )
    twin = built(critic={**SMALL, "norm": "none"}).critic
    optimizer = torch.optim.Adam(twin.parameters(), lr=lr, betas=(0.5, 0.999))
    for step in range(3):
        for part in pair.parts(2):  # gradients of micro-batches add up
            adversarial.learn(part.degraded, part, share=0.5)
        adversarial.step(step, steps, lr_scale=1.0)
        adversarial.zero_grad()
        optimizer.param_groups[0]["lr"] = lr * 0.1 ** (step / steps)
        optimizer.zero_grad()
        real, fake = twin(pair.degraded, pair.clean), twin(pair.degraded, pair.degraded)
        loss = (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(adversarial.critic.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_critic_learns_to_tell_restored_from_clean(pair: Pair) -> None:
    adversarial = built(lr=1e-2)
    for step in range(60):
        adversarial.zero_grad()
        adversarial.learn(pair.degraded, pair, share=1.0)
        adversarial.step(step, 1000, lr_scale=1.0)
    with torch.no_grad():
        clean = adversarial.critic(pair.degraded, pair.clean).mean()
        restored = adversarial.critic(pair.degraded, pair.degraded).mean()
    assert clean > 1
    assert restored < -1


def test_work_of_the_critic_counts_as_compute() -> None:
    tree = {
        "model": {"kind": "dncnn", "channels": 1, "width": 4, "layers": 4},
        "steps": 1,
        "crops": {"batch": 2, "patch": 16},
    }
    alone = TrialConfig.model_validate(tree).teramacs_per_step
    judged = TrialConfig.model_validate({**tree, "loss": {"kind": "adversarial", "critic": SMALL}})
    critic = AdversarialConfig.model_validate({"critic": SMALL}).critic.build(1)
    # By hand: 2 -> 4 channels at 8 x 8 with 4x4 kernels, 4 -> 8 at 7 x 7, 8 -> 1 at 6 x 6.
    forward = 64 * 16 * 2 * 4 + 49 * 16 * 4 * 8 + 36 * 16 * 8
    assert count_macs(critic, 1, 16, 16, inputs=2) == forward
    assert judged.teramacs_per_step - alone == pytest.approx(2 * 8 * forward / 1e12)


def test_pixel_loss_counts_in_cost_and_smallest_patch() -> None:
    features = {"kind": "perceptual", "layers": {"relu5_1": 1.0}}
    summed = {"kind": "sum", "terms": {"l1": {"loss": {"kind": "l1"}}, "vgg": {"loss": features}}}
    alone = AdversarialConfig.model_validate({"critic": SMALL})
    config = AdversarialConfig.model_validate({"critic": SMALL, "pixel": summed})
    assert (alone.smallest_patch, config.smallest_patch) == (6, 16)
    assert config.macs(1, 32) == alone.macs(1, 32) + config.pixel.macs(1, 32)
    assert config.pixel.macs(1, 32) > 0


def test_crops_that_the_critic_cannot_judge_are_refused() -> None:
    tree = {
        "model": {"kind": "dncnn"},
        "steps": 1,
        "crops": {"patch": 16},
        "loss": {"kind": "adversarial", "critic": {"layers": 3}},
    }
    with pytest.raises(ValidationError, match=r"crops.patch is 16, but loss 'adversarial' as set needs 24"):
        TrialConfig.model_validate(tree)
