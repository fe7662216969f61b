"""Scoring and restoring: tiles change nothing, subsets are spread evenly."""

from statistics import fmean
from typing import Any

import pytest
import torch

from data.files import Pair
from models import DnCNNConfig
from search.inference import ImageScore, Precision, evaluate, mean_score, restore_image, score_image, to_codes
from search.inference.metrics import IDENTICAL_PSNR_DB, psnr_db

FP32 = Precision("fp32", torch.device("cpu"))


def local_model(layers: int = 3) -> torch.nn.Module:
    """Sees `layers` pixels to each side, no further; far from the identity."""
    torch.manual_seed(0)
    model = DnCNNConfig(channels=1, width=8, layers=layers).build().eval()
    with torch.no_grad():
        model.model[-1].weight.mul_(100)
    return model


def pairs(*sizes: tuple[int, int]) -> list[Pair]:
    return [Pair(torch.rand(1, *size), torch.rand(1, *size)) for size in sizes]


@pytest.mark.parametrize("size", [(17, 23), (16, 8), (1, 50), (33, 5)])
def test_tiled_restore_equals_whole_restore_for_a_local_model(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, degraded = local_model(), torch.rand(1, *size)
    whole = restore_image(model, degraded, FP32)
    seen: list[torch.Size] = []

    def body(tile: torch.Tensor, body: Any = model.body) -> torch.Tensor:
        seen.append(tile.shape)
        return body(tile)  # type: ignore[no-any-return]

    monkeypatch.setattr(model, "body", body)
    monkeypatch.setattr(evaluate, "TILE_PIXELS", 20)
    monkeypatch.setattr(evaluate, "TILE_SIDE", 6)
    monkeypatch.setattr(evaluate, "TILE_OVERLAP", 3)
    tiled = restore_image(model, degraded, FP32)
    assert torch.allclose(tiled, whole, atol=1e-5)
    assert len(seen) == -(-size[0] // 6) * -(-size[1] // 6)
    assert max(max(shape[-2:]) for shape in seen) <= 12


def test_tiles_without_overlap_would_show_at_their_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    model, degraded = local_model(), torch.rand(1, 17, 23)
    whole = restore_image(model, degraded, FP32)
    monkeypatch.setattr(evaluate, "TILE_PIXELS", 20)
    monkeypatch.setattr(evaluate, "TILE_SIDE", 6)
    monkeypatch.setattr(evaluate, "TILE_OVERLAP", 0)
    assert not torch.allclose(restore_image(model, degraded, FP32), whole, atol=1e-3)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_restored_images_have_the_size_of_the_degraded_in_float32(name: str) -> None:
    precision = Precision(name, torch.device("cpu"))  # type: ignore[arg-type]
    for size in ((1, 1), (2, 5), (17, 23)):
        restored = restore_image(local_model(), torch.rand(1, *size), precision)
        assert restored.shape == (1, *size)
        assert restored.dtype == torch.float32
        assert not restored.requires_grad


def test_evaluate_scores_each_pair_by_what_the_model_makes_of_it() -> None:
    val, model = pairs((17, 23), (9, 12)), local_model()
    for pair, score in zip(val, evaluate.score_pairs(model, val, FP32), strict=True):
        with torch.no_grad():
            restored = model(pair.degraded[None])[0]
        assert score == score_image(restored, pair.clean)
        codes = to_codes(restored), to_codes(pair.clean)
        assert score.psnr_db == psnr_db(*codes)


def test_mean_score_is_the_mean_over_images_not_over_pixels() -> None:
    scores = [ImageScore(30.0, 0.9, 0.01), ImageScore(20.0, 0.5, 0.03)]
    score = mean_score(scores, step=7, seconds=1.5)
    assert (score.step, score.seconds) == (7, 1.5)
    assert (score.psnr_db, score.ssim) == (25.0, pytest.approx(0.7))
    assert score.mae == fmean([0.01, 0.03])


def test_identical_images_have_a_finite_score() -> None:
    image = torch.rand(3, 17, 23)
    assert score_image(image, image.clone()).psnr_db == IDENTICAL_PSNR_DB
