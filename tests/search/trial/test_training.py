"""The training loop: repeatable, resumable at every step, and honest about how it ended."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data.sources import Split
from search.inference import Precision, Score, mean_score, score_pairs
from search.trial import BEST_WEIGHTS, Diverged, Stopped, TrialConfig, train
from search.trial.checkpoint import STATE
from search.trial.losses.pixel import L1Config
from search.trial.sparsity import Mask, Phase, enter_phase
from search.trial.training import TrialResult

CPU = torch.device("cpu")
DSD = {"kind": "dsd", "sparsity": 0.4, "dense_share": 0.4, "sparse_share": 0.3}  # of 10 steps: 4, 3, 3
KBNET = {
    "kind": "kbnet_s",
    "channels": 1,
    "width": 4,
    "encoder_blocks": [1],
    "middle_blocks": 1,
    "decoder_blocks": [1],
}
BATCH_NORM = {"kind": "dncnn", "channels": 1, "width": 4, "layers": 4, "batch_norm": True}
CRITIC = {
    "kind": "adversarial",
    "pixel_weight": 10.0,
    "critic": {"width": 4, "layers": 1},
    "schedule": {"kind": "cosine"},
}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "dsd": {"sparsity": DSD},
    "dsd of kernel bases": {"sparsity": DSD, "model": KBNET},
    "dsd with batch norm": {"sparsity": DSD, "model": BATCH_NORM},
    "bf16": {"precision": "bf16"},
    "fp16 with dsd": {"precision": "fp16", "sparsity": DSD},
    "adam with dsd": {"optimizer": {"kind": "adam", "weight_decay": 0.1}, "sparsity": DSD},
    "nadam with dsd": {"optimizer": {"kind": "nadam", "weight_decay": 0.1}, "sparsity": DSD},
    "nadam in fp16": {"optimizer": {"kind": "nadam"}, "precision": "fp16"},
    "sgd with dsd": {"optimizer": {"kind": "sgd", "weight_decay": 0.1}, "sparsity": DSD},
    "sgd in fp16": {"optimizer": {"kind": "sgd", "nesterov": False}, "precision": "fp16"},
    "sgd without momentum": {"optimizer": {"kind": "sgd", "momentum": 0.0, "nesterov": False}},
    "restarts": {"schedule": {"kind": "warm_restarts", "decay": 0.5}},
    "warm-up": {"schedule": {"kind": "cosine", "warmup": 0.3}},
    "drop path in parts": {
        "model": {"kind": "srresnet", "channels": 1, "width": 4, "blocks": 3, "drop_path": 0.5},
        "crops": {"batch": 3, "patch": 8, "parts": 2},
    },
    "critic with dsd": {"loss": CRITIC, "sparsity": DSD},
    "critic in bf16": {"loss": CRITIC, "precision": "bf16"},
    "critic in fp16": {"loss": {**CRITIC, "objective": "least_squares"}, "precision": "fp16"},
}

MakeConfig = Callable[..., TrialConfig]
Run = Callable[..., TrialResult]
MakeRecord = Callable[..., Any]


def timeless(scores: list[Score]) -> list[Score]:
    return [replace(score, seconds=0.0) for score in scores]


def assert_equal(one: TrialResult, other: TrialResult) -> None:
    assert one.image_scores == other.image_scores
    assert timeless([one.score, *one.rungs]) == timeless([other.score, *other.rungs])
    assert one.weights.read_bytes() == other.weights.read_bytes()


def test_equal_configs_give_equal_scores_and_weights_bit_for_bit(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    trial = config(sparsity=DSD, model=KBNET)
    reports = record(), record()
    one, other = (run(trial, tmp_path / str(n), report) for n, report in enumerate(reports))
    assert_equal(one, other)
    assert reports[0].losses == reports[1].losses


def test_another_seed_gives_other_weights(config: MakeConfig, run: Run, tmp_path: Path) -> None:
    one, other = (run(config(seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert one.weights.read_bytes() != other.weights.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_trial_equals_uninterrupted_trial_wherever_it_was_stopped(
    kind: str, config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    trial = config(evaluations=4, **KINDS[kind])
    unbroken = record()
    whole = run(trial, tmp_path / "whole", unbroken)
    for stop in range(1, trial.total_steps):
        folder = tmp_path / f"stopped-{stop}"
        first, second = record(stop_after=stop), record()
        with pytest.raises(Stopped, match=f"step {stop} of 10"):
            run(trial, folder, first)
        resumed = run(trial, folder, second)
        assert second.begun_at == stop
        assert second.rungs_before == first.scores
        assert first.losses + second.losses == unbroken.losses
        assert timeless(first.scores + second.scores) == timeless(unbroken.scores)
        assert_equal(resumed, whole)


def test_trial_stopped_after_every_step_equals_uninterrupted_trial(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    trial = config(sparsity=DSD, model=BATCH_NORM, evaluations=3)
    whole = run(trial, tmp_path / "whole")
    for _ in range(9):
        with pytest.raises(Stopped):
            run(trial, tmp_path / "pieces", record(stop_after=1))
    assert_equal(run(trial, tmp_path / "pieces"), whole)


def test_state_is_saved_between_rungs_that_lie_far_apart(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(Exception):
        pass

    def cut(step: int, steps: int, loss: torch.Tensor) -> None:
        if step == 7:
            raise PowerCut

    trial = config(evaluations=1)
    whole = run(trial, tmp_path / "whole")
    for seconds, begun_at in ((300.0, 0), (0.0, 6)):
        monkeypatch.setattr("search.trial.training.SAVE_EVERY_S", seconds)
        dying, again = record(), record()
        monkeypatch.setattr(dying, "stepped", cut)
        with pytest.raises(PowerCut):
            run(trial, tmp_path / f"{seconds}", dying)
        assert_equal(run(trial, tmp_path / f"{seconds}", again), whole)
        assert again.begun_at == begun_at


def test_time_of_earlier_sittings_counts(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        run(config(), tmp_path, record(stop_after=5))
    path = tmp_path / STATE
    state = torch.load(path, weights_only=True)
    torch.save({**state, "seconds": 1000.0}, path)
    assert 1000 < run(config(), tmp_path).score.seconds < 1100


@pytest.mark.parametrize("damage", ["truncated", "another config"])
def test_state_that_cannot_be_used_starts_the_trial_anew(
    damage: str, config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    earlier = config(seed=5) if damage == "another config" else config()
    with pytest.raises(Stopped):
        run(earlier, tmp_path / "used", record(stop_after=6))
    if damage == "truncated":
        path = tmp_path / "used" / STATE
        path.write_bytes(path.read_bytes()[:-500])
    report = record()
    result = run(config(), tmp_path / "used", report)
    assert report.begun_at == 0
    assert_equal(result, run(config(), tmp_path / "fresh"))


def test_what_report_raises_passes_through_and_the_best_weights_stay(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    error = LookupError("enough of this trial")
    with pytest.raises(LookupError) as caught:
        run(config(), tmp_path, record(error=error))
    assert caught.value is error
    weights = load_file(tmp_path / BEST_WEIGHTS)
    assert weights.keys() == config().model.build().state_dict().keys()


def test_finished_trial_leaves_its_best_weights_and_no_state(
    config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    result = run(config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [BEST_WEIGHTS]
    assert result.weights == tmp_path / BEST_WEIGHTS


def test_score_of_a_trial_is_that_of_its_best_weights_on_all_pairs(
    config: MakeConfig, run: Run, split: Split, tmp_path: Path
) -> None:
    trial = config(steps=40, rung_megapixels=1e-6)
    result = run(trial, tmp_path)
    model = trial.model.build().eval()
    model.load_state_dict(load_file(result.weights))
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    again = score_pairs(model, pairs, Precision("fp32", CPU))
    assert result.image_scores == again
    assert len(again) == len(pairs) > 1
    assert result.score.psnr_db == mean_score(again, 0, 0).psnr_db
    # Rungs are scored on a subset, here of a single image.
    best_rung = max(score.psnr_db for score in result.rungs)
    assert best_rung == score_pairs(model, pairs[:1], Precision("fp32", CPU))[0].psnr_db


@pytest.mark.parametrize("kind", ["classical", "dncnn"])
def test_no_steps_score_the_model_as_it_is(
    kind: str, config: MakeConfig, run: Run, record: MakeRecord, split: Split, tmp_path: Path
) -> None:
    trial, report = config(steps=0, model={"kind": kind, "channels": 1}), record()
    result = run(trial, tmp_path, report)
    assert (report.begun_at, report.losses, report.scores) == (0, [], [])
    torch.manual_seed(trial.seed)
    model = trial.model.build().eval()
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    assert result.image_scores == score_pairs(model, pairs, Precision("fp32", CPU))
    assert load_file(result.weights).keys() == model.state_dict().keys()
    assert_equal(run(trial, tmp_path), result)


def test_weights_are_those_of_the_best_rung_not_of_the_last(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = iter([20.0, 30.0, 25.0, 10.0, 29.0])
    kept: list[bytes] = []

    def scored(image_scores: object, step: int, seconds: float) -> Score:
        return Score(step, next(offered, 0.0), 0.5, 0.1, seconds)

    class Copies(record):  # type: ignore[misc, valid-type]
        def scored(self, score: Score, dense: bool) -> None:
            kept.append((tmp_path / BEST_WEIGHTS).read_bytes())

    monkeypatch.setattr("search.trial.training.mean_score", scored)
    run(config(), tmp_path, Copies())
    assert kept[0] != kept[1] == kept[2] == kept[3] == kept[4] == (tmp_path / BEST_WEIGHTS).read_bytes()


def test_rungs_are_reported_in_order_with_their_steps(
    config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    report = record()
    result = run(config(steps=17, evaluations=4), tmp_path, report)
    assert [score.step for score in report.scores] == [4, 8, 13, 17]
    assert report.scores == result.rungs
    assert len(report.losses) == 17


def test_training_beats_the_untouched_scan(
    config: MakeConfig, run: Run, split: Split, tmp_path: Path
) -> None:
    pairs = [split.val.whole(index) for index in range(len(split.val))]
    unchanged = mean_score(score_pairs(nn.Identity(), pairs, Precision("fp32", CPU)), 0, 0)
    result = run(config(steps=150, optimizer={"kind": "adamw", "lr": 5e-3}), tmp_path)
    assert result.score.psnr_db > unchanged.psnr_db + 3


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_losses_are_computed_in_float32(
    precision: str, config: MakeConfig, run: Run, record: MakeRecord, tmp_path: Path
) -> None:
    types: set[torch.dtype] = set()

    class Types(record):  # type: ignore[misc, valid-type]
        def stepped(self, step: int, steps: int, loss: Tensor) -> None:
            types.add(loss.dtype)

    run(config(precision=precision, steps=2), tmp_path, Types())
    assert types == {torch.float32}


def test_learning_rates_follow_phases_and_schedule(
    config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[float, list[float]] = {}
    for sparsity in (0.4, 0.0):
        seen = rates.setdefault(sparsity, [])
        monkeypatch.setattr(
            "search.trial.state.set_learning_rate", lambda optimizer, lr, s=seen: s.append(lr)
        )
        run(
            config(
                sparsity={**DSD, "sparsity": sparsity, "sparse_lr": 0.5, "redense_lr": 0.1},
                schedule={"kind": "exponential", "final": 0.01},
                optimizer={"kind": "adamw", "lr": 0.001},
            ),
            tmp_path / str(sparsity),
        )
    expected = [
        0.001 * scale * 0.01 ** (n / length)
        for scale, length in ((1, 4), (0.5, 3), (0.1, 3))
        for n in range(length)
    ]
    assert rates[0.4] == pytest.approx(expected)
    assert rates[0.0] == rates[0.4]


@pytest.mark.parametrize("steps", [7, 20])
def test_all_phases_and_rates_are_gone_through_at_another_tempo(
    steps: int, config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    entered: list[tuple[int, str]] = []

    def enter(phase: Phase, *others: Any) -> Mask:
        entered.append((len(rates), phase.name))
        return enter_phase(phase, *others)

    monkeypatch.setattr("search.trial.state.set_learning_rate", lambda optimizer, lr: rates.append(lr))
    monkeypatch.setattr("search.trial.training.enter_phase", enter)
    planned = config(
        sparsity={**DSD, "sparse_lr": 0.5, "redense_lr": 0.1},
        schedule={"kind": "exponential", "final": 0.01},
        optimizer={"kind": "adamw", "lr": 0.001},
    )
    run(planned.with_length(steps, since=4), tmp_path)  # of 10 steps, 4 dense, 3 sparse and 3 dense again
    each = (steps - 4) // 2
    assert entered == [(0, "dense"), (4, "sparse"), (4 + each + steps % 2, "re-dense")]
    planned_steps = [0.0, 1, 2, 3, *(4 + n * 6 / (steps - 4) for n in range(steps - 4))]
    parts = [(0, 4, 1), (4, 3, 0.5), (7, 3, 0.1)]
    expected = [
        0.001 * scale * 0.01 ** ((at - first) / length)
        for first, length, scale in parts
        for at in planned_steps
        if first <= at < first + length
    ]
    assert rates == pytest.approx(expected)


def test_enormous_learning_rate_ends_as_diverged_with_the_step(
    config: MakeConfig, run: Run, tmp_path: Path
) -> None:
    trial = config(
        optimizer={"kind": "adamw", "lr": 1.0},
        steps=200,
        model={"kind": "dncnn", "channels": 1, "width": 16, "layers": 8},
    )
    with pytest.raises(Diverged, match=r"diverged at step \d+ \(loss .*, largest restored value"):
        run(trial, tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_ends_as_diverged(
    value: float, config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(nn.Module):
        def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
            return (restored - clean).mean() * 0 + value

    monkeypatch.setattr(L1Config, "build", lambda self: Broken())
    with pytest.raises(Diverged, match="diverged at step 1"):
        run(config(), tmp_path)


def test_trial_that_diverges_before_its_first_rung_leaves_no_weights_of_another(
    config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(model=BATCH_NORM), tmp_path)
    monkeypatch.setattr("search.trial.training.EXPLODED", 0.0)
    with pytest.raises(Diverged):
        run(config(), tmp_path)
    assert not (tmp_path / BEST_WEIGHTS).exists()


def test_compiled_training_equals_plain_training(
    config: MakeConfig, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that only traces: the real ones take minutes to start."""
    traced: list[int] = []
    plain = torch.compile

    def tracing(model: nn.Module) -> Any:
        traced.append(1)
        return plain(model, backend="eager")

    monkeypatch.setattr(torch, "compile", tracing)
    trial = config(sparsity=DSD)
    expected = run(trial, tmp_path / "plain")
    assert not traced
    result = run(config(sparsity=DSD, compile=True), tmp_path / "compiled")
    assert traced
    assert result.score.psnr_db == pytest.approx(expected.score.psnr_db, abs=1e-3)
    assert load_file(result.weights).keys() == load_file(expected.weights).keys()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_compiled_training_runs_on_a_gpu(
    config: MakeConfig, split: Split, record: MakeRecord, tmp_path: Path
) -> None:
    result = train(config(compile=True), split, torch.device("cuda"), tmp_path, record())
    assert result.score.psnr_db > 5
