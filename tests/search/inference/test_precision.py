"""The one optimizer step in which order matters, and half precision that really is used."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import DnCNNConfig, KBNetSConfig
from search.inference import Precision
from search.trial.optimizers import masked_step
from search.trial.sparsity import Mask, magnitude_mask

CPU = torch.device("cpu")


def half_masked(model: nn.Linear) -> Mask:
    return Mask({"weight": (model.weight, magnitude_mask(model.weight, 0.5))})


def take_step(
    precision: Precision,
    loss: Tensor,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mask: Mask,
    max_norm: float,
) -> None:
    model.zero_grad()
    precision.backward(loss)
    masked_step(model, optimizer, precision, mask, max_norm)


class Recorder:
    """Notes the order in which a step does its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, precision: Precision, mask: Mask) -> None:
        self.order: list[str] = []
        for owner, method, name in (
            (precision.scaler, "unscale_", "unscale"),
            (mask, "zero_gradients", "mask gradients"),
            (nn.utils, "clip_grad_norm_", "clip"),
            (precision.scaler, "step", "step"),
            (mask, "zero_weights", "mask weights"),
        ):
            monkeypatch.setattr(owner, method, self._noting(getattr(owner, method), name))

    def _noting(self, function: Any, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.order.append(name)
            return function(*arguments, **options)

        return call


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_step_unscales_then_masks_then_clips_then_steps_then_masks(
    name: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(4, 4)
    precision, mask = Precision(name, CPU), half_masked(model)
    recorder = Recorder(monkeypatch, precision, mask)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    take_step(precision, model(torch.ones(1, 4)).sum(), model, optimizer, mask, max_norm=1.0)
    assert recorder.order == ["unscale", "mask gradients", "clip", "step", "mask weights"]


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_gradients_are_clipped_in_true_units_whatever_the_loss_scale(name: Any) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    precision = Precision(name, CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    # Each weight's gradient is 0.01 and each of the 4 biases' too: a norm of 0.01 sqrt(20) = 0.0447.
    take_step(precision, 0.01 * model(torch.ones(1, 4)).sum(), model, optimizer, Mask({}), max_norm=0.02)
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.02, rel=1e-3)
    take_step(precision, 0.01 * model(torch.ones(1, 4)).sum(), model, optimizer, Mask({}), max_norm=1.0)
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before - moved
    assert moved.norm().item() == pytest.approx(0.01 * math.sqrt(20), rel=1e-3)


def test_weights_held_at_zero_use_up_no_share_of_the_norm() -> None:
    model = nn.Linear(4, 4, bias=False)
    mask = half_masked(model)
    mask.zero_weights()
    before = model.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    take_step(
        Precision("fp32", CPU), 100 * model(torch.ones(1, 4)).sum(), model, optimizer, mask, max_norm=1.0
    )
    moved = (model.weight.detach() - before)[mask.kept["weight"][1]]
    assert moved.norm().item() == pytest.approx(1.0, rel=1e-5)


def test_fp16_overflow_skips_the_step_lowers_the_scale_and_still_masks() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    precision, mask = Precision("fp16", CPU), half_masked(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    kept = mask.kept["weight"][1]
    before = model.weight.detach().clone()
    scale = precision.scaler.get_scale()
    loss = model(torch.ones(1, 4)).sum() * torch.tensor(3e38)  # finite, but not once it is scaled
    take_step(precision, loss, model, optimizer, mask, max_norm=1.0)
    assert torch.equal(model.weight.detach()[kept], before[kept])
    assert not model.weight.detach()[~kept].any()
    assert precision.scaler.get_scale() == scale / 2


def test_step_equals_a_plain_clipped_step_in_full_precision() -> None:
    torch.manual_seed(0)
    model, twin = nn.Linear(4, 4), nn.Linear(4, 4)
    twin.load_state_dict(model.state_dict())
    ours, theirs = (torch.optim.AdamW(m.parameters(), lr=0.1, fused=True) for m in (model, twin))
    precision = Precision("fp32", CPU)
    for seed in range(3):
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        take_step(precision, model(x).square().sum(), model, ours, Mask({}), max_norm=0.5)
        theirs.zero_grad()
        twin(x).square().sum().backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        theirs.step()
    assert torch.equal(model.weight, twin.weight)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_forward_runs_convolutions_in_the_named_type_and_restores_in_float32(
    name: Any, dtype: torch.dtype
) -> None:
    model = DnCNNConfig(channels=1, width=4, layers=3).build()
    seen: list[torch.dtype] = []
    model.model[2].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with Precision(name, CPU).forward():
        restored = model(torch.rand(1, 1, 9, 11))
    assert seen == [dtype]
    assert restored.dtype == torch.float32


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "config",
    [
        DnCNNConfig(channels=1, width=4, layers=3),
        KBNetSConfig(channels=1, width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,)),
    ],
    ids=lambda config: config.kind,
)
def test_half_precision_trains(config: Any, name: Any) -> None:
    torch.manual_seed(0)
    model = config.build()
    precision = Precision(name, CPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True)
    clean = torch.rand(2, 1, 9, 11)
    losses = []
    for _ in range(25):
        with precision.forward():
            restored = model(0.5 * clean)
        loss = (restored.float() - clean).abs().mean()
        take_step(precision, loss, model, optimizer, Mask({}), max_norm=1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_auto_is_a_named_precision_and_never_scales_without_need() -> None:
    precision = Precision("auto", CPU)
    assert precision.name in ("fp32", "bf16")
    assert not precision.scaler.is_enabled()


CUDA = torch.device("cuda")  # its settings can be made without one
Flags = tuple[str, bool]


def flags() -> Flags:
    """What CUDA would multiply float32 in now: matrices, convolutions."""
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


class NotesFlags(torch.autograd.Function):
    """The identity; adds the flags of its forward and backward pass to a list."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, noted: list[Flags]) -> Tensor:
        ctx.noted = noted
        noted.append(flags())
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.noted.append(flags())
        return gradients[0], None


@pytest.mark.parametrize(("tf32", "expected"), [(False, ("highest", False)), (True, ("high", True))])
def test_float32_on_cuda_is_float32_unless_tf32_is_asked_for(tf32: bool, expected: Flags) -> None:
    before, benchmark = flags(), torch.backends.cudnn.benchmark
    noted: list[Flags] = []
    precision = Precision("fp32", CUDA, tf32=tf32)
    assert flags() == before
    with precision.forward():
        result = NotesFlags.apply(torch.ones(2, requires_grad=True), noted)  # type: ignore[no-untyped-call]
    assert flags() == before
    precision.backward(result.sum())
    assert noted == [expected, expected]
    assert (flags(), torch.backends.cudnn.benchmark) == (before, benchmark)


def test_scores_after_training_in_tf32_are_float32_again() -> None:
    noted: list[Flags] = []
    train, score = Precision("fp32", CUDA, tf32=True), Precision("fp32", CUDA)
    for precision in (train, score, train):
        with precision.forward():
            noted.append(flags())
    assert noted == [("high", True), ("highest", False), ("high", True)]


def test_training_in_tf32_leaves_a_cpu_alone() -> None:
    before = flags()
    with Precision("fp32", CPU, tf32=True).forward():
        assert flags() == before
