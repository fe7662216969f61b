"""Faults put into a training run: a lack of memory, numbers that are not finite, signals at any step."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data.files import Pair
from data.sources import Split
from search.inference import Precision, is_lack_of_memory, restore_image
from search.inference.evaluate import TILE_OVERLAP
from search.trial import BEST_WEIGHTS, Diverged, Stopped, TrialConfig
from search.trial.losses.base import ImageObjective
from search.trial.optimizers import masked_step
from search.trial.training import TrialResult

CPU = torch.device("cpu")
MakeConfig = Callable[..., TrialConfig]
Run = Callable[..., TrialResult]
MakeRecord = Callable[..., Any]
BATCH_NORM = {"kind": "dncnn", "channels": 1, "width": 4, "layers": 4, "batch_norm": True}


class Allocator:
    """Fails like CUDA's on batches of more than `largest` crops, from call number `first` of the loss on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, largest: int, first: int) -> None:
        self.sizes: list[int] = []
        loss = ImageObjective.forward

        def forward(objective: ImageObjective, restored: Tensor, pair: Pair) -> Tensor:
            self.sizes.append(len(restored))
            if len(self.sizes) > first and len(restored) > largest:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return loss(objective, restored, pair)

        monkeypatch.setattr(ImageObjective, "forward", forward)


@pytest.mark.parametrize("first", [0, 5])
def test_lack_of_memory_halves_the_micro_batch_and_keeps_the_batch(
    first: int, config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    trial = config(crops={"batch": 6, "patch": 8})
    undisturbed = record()
    expected = run(trial, tmp_path / "whole", undisturbed)
    allocator = Allocator(monkeypatch, largest=2, first=first)
    report = record()
    result = run(trial, tmp_path / "parts", report)
    # 6 crops fail, 3 crops fail, parts of 2, 2, 1 and 1 do it: from then on at once.
    assert allocator.sizes[first : first + 6] == [6, 3, 2, 2, 1, 1]
    assert allocator.sizes[first + 6 :] == [2, 2, 1, 1] * (trial.total_steps - first - 1)
    assert report.losses == pytest.approx(undisturbed.losses, rel=1e-4)
    assert result.score.psnr_db == pytest.approx(expected.score.psnr_db, abs=0.01)
    assert result.rescues == report.notes
    assert report.notes == [
        f"out of memory at step {first}: batches of 6 in {parts} parts from here" for parts in (2, 4)
    ]


def test_what_is_known_about_memory_survives_a_stop(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    trial = config(crops={"batch": 4, "patch": 8})
    Allocator(monkeypatch, largest=2, first=0)
    with pytest.raises(Stopped):
        run(trial, tmp_path, record(stop_after=3))
    resumed = record()
    allocator = Allocator(monkeypatch, largest=2, first=0)
    result = run(trial, tmp_path, resumed)
    assert set(allocator.sizes) == {2}
    assert resumed.notes == []
    assert len(result.rescues) == 1


def test_batch_norm_is_told_about_smaller_batches(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    Allocator(monkeypatch, largest=2, first=0)
    report = record()
    run(config(model=BATCH_NORM, crops={"batch": 4, "patch": 8}), tmp_path, report)
    assert report.notes[0].endswith("so batch norm sees smaller batches")


def test_a_single_crop_that_does_not_fit_ends_the_run(
    config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    Allocator(monkeypatch, largest=0, first=0)
    with pytest.raises(torch.OutOfMemoryError):
        run(config(), tmp_path)


def test_steps_in_parts_equal_whole_steps(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    whole, parts = record(), record()
    run(config(crops={"batch": 6, "patch": 8}), tmp_path / "whole", whole)
    run(config(crops={"batch": 6, "patch": 8, "parts": 4}), tmp_path / "parts", parts)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


class Poison:
    """Makes the loss NaN in the given calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
        self.count = 0
        loss = ImageObjective.forward

        def forward(objective: ImageObjective, restored: Tensor, pair: Pair) -> Tensor:
            self.count += 1
            return loss(objective, restored, pair) * (float("nan") if self.count - 1 in calls else 1.0)

        monkeypatch.setattr(ImageObjective, "forward", forward)


@pytest.mark.parametrize(("bad", "back_to"), [(1, 0), (7, 6), (9, 8)])
def test_divergence_goes_back_once_to_the_last_good_state_at_half_the_rate(
    bad: int, back_to: int, config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    trial = config(precision="bf16")
    rates: list[float] = []
    precisions: list[str] = []

    def noting(model: Any, optimizer: Any, precision: Precision, mask: Any, max_norm: float) -> None:
        rates.append(optimizer.param_groups[0]["lr"])
        precisions.append(precision.name)
        masked_step(model, optimizer, precision, mask, max_norm)

    monkeypatch.setattr("search.trial.state.masked_step", noting)
    run(trial, tmp_path / "whole")
    usual, rates[:] = list(rates), []
    precisions.clear()
    Poison(monkeypatch, bad)
    report = record()
    result = run(trial, tmp_path / "poisoned", report)
    assert result.score.step == trial.total_steps
    assert rates == usual[: bad + 1] + [rate / 2 for rate in usual[back_to:]]
    assert precisions == ["bf16"] * (bad + 1) + ["fp32"] * (trial.total_steps - back_to)
    (note,) = report.notes
    assert f"back to step {back_to}, in float32 with half the learning rate" in note
    assert note.startswith(f"diverged at step {bad + 1} (loss nan")
    assert [score.step for score in result.rungs] == [2, 4, 6, 8, 10]


def test_rescued_trial_equals_one_that_was_stopped_after_the_rescue(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    Poison(monkeypatch, 5)
    expected = run(config(), tmp_path / "whole")
    monkeypatch.undo()
    poison = Poison(monkeypatch, 5)
    with pytest.raises(Stopped):
        run(config(), tmp_path / "stopped", record(stop_after=7))
    poison.count = 1000
    result = run(config(), tmp_path / "stopped")
    assert result.image_scores == expected.image_scores
    assert result.rescues == expected.rescues


def test_second_divergence_ends_the_trial_with_its_weights_so_far(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: Any
) -> None:
    Poison(monkeypatch, 5, 8)
    report = record()
    with pytest.raises(Diverged, match="diverged at step 7"):
        run(config(), tmp_path, report)
    assert [score.step for score in report.scores] == [2, 4, 6]
    assert (tmp_path / BEST_WEIGHTS).is_file()


def test_signals_at_twenty_random_steps_change_nothing(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    trial = config(steps=30, sparsity={"kind": "dsd"}, model=BATCH_NORM)
    expected = run(trial, tmp_path / "whole")
    rng = random.Random(0)
    stops = 0
    while stops < 20:
        try:
            run(trial, tmp_path / "stopped", record(stop_after=rng.randint(1, 2)))
        except Stopped:
            stops += 1
        else:
            break
    result = run(trial, tmp_path / "stopped")
    assert stops > 10
    assert result.image_scores == expected.image_scores
    assert [replace(s, seconds=0) for s in result.rungs] == [replace(s, seconds=0) for s in expected.rungs]


def test_validation_falls_back_to_tiles(split: Split, config: MakeConfig) -> None:
    # A model of known reach: tiles with their margin give the same pixels as the whole image.
    torch.manual_seed(0)
    model = config().model.build().eval()
    image = torch.rand(1, 200, 330, generator=torch.Generator().manual_seed(0))
    expected = restore_image(model, image, Precision("fp32", CPU))
    limit = (100 + TILE_OVERLAP) * (165 + TILE_OVERLAP)
    body, sizes = model.body, []

    def failing(degraded: Tensor) -> Tensor:
        sizes.append(degraded[0, 0].numel())
        if degraded[0, 0].numel() > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")
        return body(degraded)  # type: ignore[no-any-return]

    model.body = failing
    found = restore_image(model, image, Precision("fp32", CPU))
    assert sizes[:3] == [200 * 330, limit, limit]
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_bugs(error: Exception, expected: bool) -> None:
    assert is_lack_of_memory(error) is expected
