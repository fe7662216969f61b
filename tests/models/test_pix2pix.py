"""The Pix2Pix generator: published names and sizes, its equations, and training at one pixel."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from models import count_macs, count_parameters
from models.pix2pix import NormName, Pix2PixConfig

each_norm = pytest.mark.parametrize("norm", ["batch", "instance", "none"])


def block_prefix(level: int) -> str:
    """Where the published names put the block that makes halving number `level`, from 0."""
    return "model.model." + "1.model." * min(level, 1) + "3.model." * (level - 1)


def published_shapes(depth: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published generator with batch norm."""
    wide = [width * min(2**level, 8) for level in range(depth)]
    shapes: dict[str, tuple[int, ...]] = {
        "model.model.0.weight": (width, 3, 4, 4),
        "model.model.3.weight": (2 * width, 3, 4, 4),
        "model.model.3.bias": (3,),
    }
    for level in range(1, depth):
        prefix, innermost = block_prefix(level), level == depth - 1
        norms = {4: wide[level - 1]} if innermost else {2: wide[level], 6: wide[level - 1]}
        shapes[f"{prefix}1.weight"] = (wide[level], wide[level - 1], 4, 4)
        up = 3 if innermost else 5
        shapes[f"{prefix}{up}.weight"] = (wide[level] * (1 if innermost else 2), wide[level - 1], 4, 4)
        for index, size in norms.items():
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}{index}.{name}"] = (size,)
            shapes[f"{prefix}{index}.num_batches_tracked"] = ()
    return shapes


def by_the_equations(weights: dict[str, Tensor], degraded: Tensor, depth: int) -> Tensor:
    """C64-C128-... down and up again (section 6.1.1) with the weights of a model with batch norm, in eval form."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = F.conv2d(degraded * 2 - 1, weights["model.model.0.weight"], stride=2, padding=1)
    skips = [x]
    for level in range(1, depth):
        x = F.conv2d(F.leaky_relu(x, 0.2), weights[f"{block_prefix(level)}1.weight"], stride=2, padding=1)
        if level < depth - 1:
            x = norm(x, f"{block_prefix(level)}2")
            skips.append(x)
    for level in range(depth - 1, 0, -1):
        up, after = (3, 4) if level == depth - 1 else (5, 6)
        x = F.conv_transpose2d(x.relu(), weights[f"{block_prefix(level)}{up}.weight"], stride=2, padding=1)
        x = torch.cat([skips[level - 1], norm(x, f"{block_prefix(level)}{after}")], 1)
    last = "model.model.3"
    x = F.conv_transpose2d(x.relu(), weights[f"{last}.weight"], weights[f"{last}.bias"], 2, 1)
    return (x.tanh() + 1) / 2


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = Pix2PixConfig().build()
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == published_shapes(
        8, 64
    )
    assert count_parameters(model) == 54_413_955


def test_products_are_those_of_its_convolutions() -> None:
    """Halving n has 16 taps for each of its outputs, the doubling back 16 for each of its inputs."""
    products = 0
    for name, shape in published_shapes(7, 16).items():
        if len(shape) == 4:
            level = 0 if name.startswith(("model.model.0", "model.model.3.w")) else name.count("model") - 2
            products += 16 * shape[0] * shape[1] * (128 // 2 ** (level + 1)) ** 2
    assert count_macs(Pix2PixConfig(width=16, depth=7).build(), 3, 128, 128) == products


def test_restored_images_equal_the_equations_in_float64() -> None:
    torch.manual_seed(0)
    model = Pix2PixConfig(width=4, depth=4).build().double()
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 1:
            nn.init.uniform_(tensor, 0.1 if "var" in name else -1.0, 1.0)
        elif tensor.ndim == 4:
            nn.init.normal_(tensor, std=0.1)
    degraded = torch.rand(2, 3, 32, 48, dtype=torch.float64)
    restored = model.eval()(degraded)
    assert (restored - by_the_equations(model.state_dict(), degraded, depth=4)).abs().max() < 1e-12
    assert restored.std() > 0.01


@each_norm
def test_a_single_patch_as_small_as_the_bottom_allows_can_be_learnt_from(norm: NormName) -> None:
    torch.manual_seed(0)
    model = Pix2PixConfig(width=4, depth=7, norm=norm).build()
    restored = model(torch.rand(1, 3, 128, 128))
    restored.square().mean().backward()
    kernels = [p for p in model.parameters() if p.ndim == 4]
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in kernels)


@each_norm
def test_residual_output_starts_from_the_degraded_image(norm: NormName) -> None:
    torch.manual_seed(0)
    degraded = torch.rand(2, 3, 17, 23)
    restored = Pix2PixConfig(width=16, depth=4, norm=norm, output="residual").build()(degraded)
    assert 0 < (restored - degraded).square().mean() < 1e-3


def test_tanh_output_stays_in_the_range_of_images() -> None:
    torch.manual_seed(0)
    model = Pix2PixConfig(width=4, depth=3, norm="none").build()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    restored = model(torch.rand(2, 3, 17, 23))
    assert restored.min() < 0.01
    assert restored.max() > 0.99
    assert restored.min() >= 0
    assert restored.max() <= 1


@pytest.mark.parametrize(("depth", "levels"), [(8, [4, 5, 6]), (4, [1, 2]), (2, [])])
def test_dropout_follows_the_three_ups_after_the_innermost(depth: int, levels: list[int]) -> None:
    model = Pix2PixConfig(width=4, depth=depth).build()
    dropped = {name for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert dropped == {f"{block_prefix(level)}7" for level in levels}
    kept = Pix2PixConfig(width=4, depth=depth, dropout=0.0).build()
    assert not [module for module in kept.modules() if isinstance(module, nn.Dropout)]


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    model = Pix2PixConfig(width=4, depth=3, norm="instance").build()
    degraded = torch.rand(1, 3, 16, 16)
    assert not torch.equal(model(degraded), model(degraded))
    model.eval()
    assert torch.equal(model(degraded), model(degraded))


def test_norms_differ_in_parameters_but_not_in_names_of_kernels() -> None:
    kernels = {
        norm: [
            name for name, p in Pix2PixConfig(width=4, norm=norm).build().named_parameters() if p.ndim == 4
        ]
        for norm in ("batch", "instance", "none")
    }
    assert kernels["batch"] == kernels["instance"] == kernels["none"]


def test_prunable_are_the_kernels_between_the_first_and_the_last() -> None:
    names = {name for name, _ in Pix2PixConfig(width=4, depth=3).build().prunable()}
    assert names == {
        f"{block_prefix(level)}{index}.weight" for level, index in ((1, 1), (1, 5), (2, 1), (2, 3))
    }


@pytest.mark.parametrize("settings", [{"depth": 1}, {"depth": 9}, {"dropout": 1.0}, {"norm": "layer"}])
def test_what_cannot_be_built_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Pix2PixConfig.model_validate(settings)
