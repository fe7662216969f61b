"""Tiles against the whole image: the same pixels, whatever the model has to know of the whole."""

import copy

import pytest
import torch
from torch import Tensor, nn

from models.layers import Whole, calibrated, global_layers, sees_whole, traits
from search.inference import ImageSample, Precision, TiledImage, Tiles, Tiling, measure_margin
from search.inference.tiling import spans
from tests.models.examples import EXAMPLES, Example

FP32 = Precision("fp32", torch.device("cpu"))
NETWORKS = [example for example in EXAMPLES if example.config.kind != "classical"]
GLOBAL = {
    "kbnet_s",
    "nafnet",
    "srresnet_group_silu",
    "srresnet_instance_gelu",
    "pix2pix_instance",
    "luminance_nafnet",
}


def lively(example: Example) -> nn.Module:
    """The model with random weights, none of which leaves its blocks without effect."""
    torch.manual_seed(0)
    model: nn.Module = example.config.build().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("beta", "gamma")):
                parameter.fill_(0.5)
    return model


def picture(height: int, width: int, channels: int = 3) -> Tensor:
    """Brighter to one side, busy in one corner: tiles of it are unlike each other."""
    generator = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0.1, 0.7, width) * torch.linspace(1, 0.5, height)[:, None]
    noise = torch.rand(channels, height, width, generator=generator) * torch.linspace(0, 0.5, width)
    return (ramp + noise).clamp(0, 1)


def in_tiles(tiles: Tiles, degraded: Tensor, tiling: Tiling, whole: Whole | None) -> Tensor:
    result = torch.full(degraded.shape, torch.nan)

    def write(top: int, rows: Tensor) -> None:
        assert result[:, top : top + rows.shape[1]].isnan().all(), "every row is written once"
        result[:, top : top + rows.shape[1]] = rows

    tiles.restore(as_image(degraded), tiling, write, whole, lambda pixels: None)
    return result


def as_image(degraded: Tensor) -> TiledImage:
    return TiledImage(lambda rows, columns: degraded[:, rows, columns], *degraded.shape[1:])


def known_exactly(tiles: Tiles, degraded: Tensor) -> Whole:
    """The statistics that the layers themselves find in the whole image."""
    height, width = (-(-side // tiles.multiple) * tiles.multiple for side in degraded.shape[1:])
    whole = Whole()
    everything = slice(0, height), slice(0, width)
    tiles.forward(as_image(degraded).piece(*everything), everything, whole)
    whole.mode = "apart"
    return whole


def test_global_layers_are_found_in_the_models_that_have_them() -> None:
    assert {e.name for e in NETWORKS if global_layers(e.config.build())} == GLOBAL


@pytest.mark.parametrize("example", NETWORKS, ids=lambda example: example.name)
def test_tiles_that_know_the_whole_give_the_pixels_of_the_whole_image(example: Example) -> None:
    model, degraded = lively(example), picture(101, 133)
    tiles = Tiles(model, FP32)
    with torch.inference_mode():
        expected = model(degraded[None])[0]
    whole = known_exactly(tiles, degraded) if example.name in GLOBAL else None
    margin = -(-48 // tiles.multiple) * tiles.multiple
    change = float((expected - degraded).abs().max())
    for ramp in (0, tiles.multiple):
        found = in_tiles(tiles, degraded, Tiling(48, margin, ramp), whole)
        assert float((found - expected).abs().max()) < 2e-3 * change
    if whole is not None:
        assert whole.seen.keys() == whole.known.keys()
        for name, moments in whole.seen.items():
            torch.testing.assert_close(moments.mean, whole.known[name].mean, atol=2e-3, rtol=2e-3)
            # Two ramps make two passes, each of which counts every pixel once.
            assert moments.pixels == 2 * whole.known[name].pixels


@pytest.mark.parametrize("name", sorted(GLOBAL - {"luminance_nafnet"}))
def test_a_sample_and_one_pass_are_enough_to_know_the_whole(name: str) -> None:
    (example,) = (example for example in NETWORKS if example.name == name)
    model, degraded = lively(example), picture(233, 297)
    tiles = Tiles(model, FP32)
    with torch.inference_mode():
        expected = model(degraded[None])[0]

    def distance(whole: Whole | None) -> float:
        return float((in_tiles(tiles, degraded, Tiling(80, 32), whole) - expected).abs().max())

    blind = distance(None)
    sample = ImageSample.drawn_from(as_image(degraded), tiles.multiple, 2**18)
    whole = tiles.estimate_statistics(sample)
    first = distance(whole)
    moved = tiles.calibrate_statistics(whole, sample)
    second = distance(whole)
    assert first < 0.5 * blind
    limit = distance(known_exactly(tiles, degraded))  # what the margin leaves
    assert second - limit < 0.7 * (first - limit) or second < 0.1 * blind
    assert moved < 2 * first + 1e-6


def test_the_mean_over_all_turns_is_that_of_the_turned_images() -> None:
    model, degraded = lively(NETWORKS[0]), picture(64, 96)
    total = torch.zeros_like(degraded)
    with torch.inference_mode():
        for quarter in range(4):
            for mirrored in (False, True):
                turned = torch.rot90(degraded.flip(2) if mirrored else degraded, quarter, (1, 2))
                back = torch.rot90(model(turned[None])[0], -quarter, (1, 2))
                total += back.flip(2) if mirrored else back
    tiles = Tiles(model, FP32, turns=8)
    found = in_tiles(tiles, degraded, Tiling(32, 32), known_exactly(tiles, degraded))
    torch.testing.assert_close(found, total / 8, atol=1e-4, rtol=0)
    assert float((found - in_tiles(Tiles(model, FP32), degraded, Tiling(96, 0), None)).abs().max()) > 1e-3


@pytest.mark.parametrize("length", [1, 7, 63, 64, 65, 129, 1000, 1003])
@pytest.mark.parametrize(("side", "ramp", "multiple"), [(64, 0, 1), (64, 16, 8), (8, 4, 4), (256, 0, 256)])
def test_spans_cover_a_length_once_and_begin_at_multiples(
    length: int, side: int, ramp: int, multiple: int
) -> None:
    found = spans(length, Tiling(side, 0, ramp), multiple)
    assert [place for start, stop in found for place in range(start, stop)] == list(range(length))
    assert all(start % multiple == 0 for start, _ in found)
    assert all(stop - start <= 1.25 * side + 2 * ramp + multiple for start, stop in found)
    assert len(found) == 1 or all(stop - start >= 2 * ramp for start, stop in found)


def test_the_margin_of_a_plain_stack_is_its_depth() -> None:
    (example,) = (example for example in NETWORKS if example.name == "dncnn_r")
    model = lively(example)
    with torch.no_grad():
        model.model[-1].weight.mul_(100)  # type: ignore[index, union-attr, operator]
    tiles, image = Tiles(model, FP32), as_image(picture(300, 300))
    found = measure_margin(tiles, image, (150, 150), None, 256, 64)
    assert found.is_exact and 6 <= found.margin <= 8  # 8 layers of 3x3


def test_a_model_that_looks_everywhere_gets_the_widest_margin_and_its_difference_is_told() -> None:
    class Everywhere(nn.Module):
        size_multiple = 1

        def body(self, degraded: Tensor) -> Tensor:
            return degraded - degraded.mean((2, 3), keepdim=True)

    found = measure_margin(Tiles(Everywhere(), FP32), as_image(picture(300, 300)), (150, 150), None, 256, 64)
    assert found.margin == 64 and found.difference > 0.01


def test_calibrated_weights_reproduce_the_mean_of_what_they_know() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 17, 23, generator=generator) * torch.rand(40, 1, 1, 1, generator=generator)
    known = traits(images)
    target = known[:5].mean(0)
    weights = calibrated(known, target)
    assert float(weights.sum()) == pytest.approx(1)
    plain, better = (
        float((w @ known - target).abs().max()) for w in (torch.full((40,), 1 / 40).double(), weights)
    )
    assert better < 0.35 * plain


def test_a_model_is_as_before_after_it_has_seen_the_whole() -> None:
    model = lively(NETWORKS[0])
    names, image = set(vars(model)), torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        before = model(image)
        with pytest.raises(ZeroDivisionError), sees_whole(model, Whole()):
            raise ZeroDivisionError
        assert torch.equal(model(image), before)
    assert set(vars(model)) == names
    copy.deepcopy(model)
