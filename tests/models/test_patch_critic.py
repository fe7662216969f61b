"""The PatchGAN critic: published names and sizes, what a logit sees, and which patches are too small."""

import pytest
import torch
from torch import Tensor

from models import PatchCriticConfig, count_parameters, smallest_patch
from models.pix2pix import NormName


def test_names_and_size_are_the_published_ones() -> None:
    with torch.device("meta"):
        critic = PatchCriticConfig().build(3)
    assert count_parameters(critic) == 2_768_705
    kernels = {name: tuple(p.shape) for name, p in critic.named_parameters() if p.ndim == 4}
    assert kernels == {
        "model.0.weight": (64, 6, 4, 4),
        "model.2.weight": (128, 64, 4, 4),
        "model.5.weight": (256, 128, 4, 4),
        "model.8.weight": (512, 256, 4, 4),
        "model.11.weight": (1, 512, 4, 4),
    }
    assert {name.removesuffix(".bias") for name, _ in critic.named_parameters() if name.endswith("bias")} == {
        f"model.{index}" for index in (0, 3, 6, 9, 11)
    }


@pytest.mark.parametrize(("layers", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_logit_sees_as_many_pixels_as_published(layers: int, pixels: int) -> None:
    torch.manual_seed(0)
    critic = PatchCriticConfig(width=4, layers=layers, norm="none").build(1)
    image = torch.rand(1, 1, 160, 160, requires_grad=True)
    logits = critic(torch.rand(1, 1, 160, 160), image)
    side = logits.shape[-1]
    logits[..., side // 2, side // 2].sum().backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    assert seen.any(0).sum() == seen.any(1).sum() == pixels


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_the_smallest_patch_can_be_judged_alone_and_smaller_ones_are_refused(
    layers: int, norm: NormName
) -> None:
    critic = PatchCriticConfig(width=4, layers=layers, norm=norm).build(3)

    def judge(height: int, width: int) -> Tensor:
        logits: Tensor = critic(torch.rand(1, 3, height, width), torch.rand(1, 3, height, width))
        return logits

    side = smallest_patch(layers)
    logits = judge(side, side)
    assert logits.shape == (1, 1, 1, 1)
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())
    assert judge(side + 17, side + 23).shape[-2:] == (
        (side + 17) // 2**layers - 2,
        (side + 23) // 2**layers - 2,
    )
    message = f"{side - 1} pixels is too small for a critic of {layers} layers; allowed: patches from {side}"
    with pytest.raises(ValueError, match=message):
        judge(side + 5, side - 1)


def test_the_published_critic_judges_patches_of_32_pixels() -> None:
    assert smallest_patch(PatchCriticConfig().layers) <= 32


def test_both_images_are_judged() -> None:
    torch.manual_seed(0)
    critic = PatchCriticConfig(width=4).build(3).eval()
    degraded, image, other = torch.rand(3, 2, 3, 32, 32)
    logits = critic(degraded, image)
    assert not torch.allclose(logits, critic(other, image))
    assert not torch.allclose(logits, critic(degraded, other))


def test_middle_gray_is_zero_inside() -> None:
    critic = PatchCriticConfig(width=4, norm="none").build(1)
    gray = torch.full((1, 1, 32, 32), 0.5)
    assert torch.equal(critic(gray, gray), torch.zeros(1, 1, 2, 2))


def test_fresh_kernels_have_the_published_spread() -> None:
    torch.manual_seed(0)
    critic = PatchCriticConfig(width=16).build(3)
    for name, parameter in critic.named_parameters():
        if parameter.ndim == 4:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
