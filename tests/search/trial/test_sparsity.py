"""Dense-sparse-dense: what is held at zero, for how long, and that nothing of the old weights comes back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from models import DnCNNConfig, KBNetSConfig
from search.inference import Precision
from search.trial import Stopped, TrialConfig
from search.trial.ema import WeightAverage
from search.trial.optimizers import (
    AdamConfig,
    AdamWConfig,
    NAdamConfig,
    OptimizerConfig,
    SGDConfig,
    masked_step,
)
from search.trial.sparsity import DenseConfig, DSDConfig, Mask, Phase, enter_phase, magnitude_mask
from search.trial.training import TrialResult

CPU = torch.device("cpu")
SPARSE = Phase("sparse", 0, 10, sparsity=0.5, lr_scale=0.1)
DENSE = Phase("re-dense", 10, 20, sparsity=0.0, lr_scale=0.1)
KBNET = KBNetSConfig(channels=1, width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,))
DSD = {"kind": "dsd", "sparsity": 0.4, "dense_share": 0.4, "sparse_share": 0.3}
ADAMW = AdamWConfig(lr=1e-2, weight_decay=0.1)
OPTIMIZERS: list[OptimizerConfig] = [
    ADAMW,
    AdamConfig(lr=1e-2, weight_decay=0.1),
    NAdamConfig(lr=1e-2, weight_decay=0.1),
    SGDConfig(lr=1e-2, weight_decay=0.1),
    SGDConfig(lr=1e-2, weight_decay=0.1, momentum=0.0, nesterov=False),
]


class Trained:
    """A model with its optimizer and average, trained a little so that moments are in full swing."""

    def __init__(self, model: nn.Module, optimizer: OptimizerConfig = ADAMW) -> None:
        self.model = model
        self.average = WeightAverage(model, decay=0.99)
        self.optimizer = optimizer.build(model)
        self.precision = Precision("fp32", CPU)
        self.steps(5, Mask({}))

    def steps(self, count: int, mask: Mask) -> None:
        for seed in range(count):
            pair = torch.rand(2, 2, 1, 9, 11, generator=torch.Generator().manual_seed(seed))
            loss = (self.model(pair[0]) - pair[1]).square().mean()
            self.optimizer.zero_grad()
            self.precision.backward(loss)
            masked_step(self.model, self.optimizer, self.precision, mask, max_norm=1.0)
            self.average.update(self.model)
            mask.zero_copy(self.average.model)

    def enter(self, phase: Phase) -> Mask:
        return enter_phase(phase, self.model, self.average.model, self.optimizer)


@pytest.fixture(params=[DnCNNConfig(channels=1, width=6, layers=4), KBNET], ids=lambda config: config.kind)
def trained(request: pytest.FixtureRequest) -> Trained:
    torch.manual_seed(0)
    return Trained(request.param.build())


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(1,), (7, 3), (6, 6, 3, 3), (1, 32, 36)])
def test_mask_drops_exactly_the_smallest_share(shape: tuple[int, ...], sparsity: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = magnitude_mask(weight, sparsity)
    assert mask.shape == weight.shape
    assert int((~mask).sum()) == round(sparsity * weight.numel())
    dropped, kept = weight[~mask].abs(), weight[mask].abs()
    if len(dropped) and len(kept):
        assert dropped.max() <= kept.min()


def test_mask_of_equal_weights_still_drops_the_exact_share() -> None:
    assert int((~magnitude_mask(torch.ones(10, 10), 0.3)).sum()) == 30


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 101, 2000])
def test_phases_cover_every_step_once_in_order(steps: int, share: float) -> None:
    for config in (DenseConfig(), DSDConfig(sparsity=share)):
        covered = [step for phase in config.phases(steps) for step in range(phase.first, phase.last)]
        assert covered == list(range(steps))


def test_published_shares_prune_in_the_middle_only_and_drop_the_rate_to_a_tenth() -> None:
    dense, sparse, redense = DSDConfig(sparsity=0.3).phases(100)
    assert (dense.first, dense.last, dense.sparsity, dense.lr_scale) == (0, 60, 0.0, 1.0)
    assert (sparse.first, sparse.last, sparse.sparsity) == (60, 75, 0.3)
    assert (redense.first, redense.last, redense.sparsity, redense.lr_scale) == (75, 100, 0.0, 0.1)


def test_dense_control_has_the_phases_and_rates_of_the_sparse_run() -> None:
    pruned = DSDConfig(sparsity=0.5).phases(997)
    control = DSDConfig(sparsity=0.0).phases(997)
    assert [(p.name, p.first, p.last, p.lr_scale) for p in pruned] == [
        (p.name, p.first, p.last, p.lr_scale) for p in control
    ]
    assert all(phase.sparsity == 0 for phase in control)


def test_shares_that_leave_no_last_phase_are_refused() -> None:
    with pytest.raises(ValueError, match="their sum is to be below 1"):
        DSDConfig(dense_share=0.6, sparse_share=0.4)


def test_pruned_weights_stay_exactly_zero_under_momentum_and_decay(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    trained.steps(10, mask)
    for name, parameter in trained.model.prunable():
        dropped = round(0.5 * parameter.numel())
        assert int((parameter == 0).sum()) == dropped, name
        assert not parameter[~mask.kept[name][1]].any(), name


def test_weights_that_survive_pruning_go_on_learning(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    before = {name: parameter.detach().clone() for name, parameter in trained.model.named_parameters()}
    trained.steps(2, mask)
    for name, parameter in trained.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_norms_biases_and_scales_stay_dense(trained: Trained) -> None:
    trained.enter(SPARSE)
    pruned = {name for name, parameter in trained.model.named_parameters() if (parameter == 0).any()}
    assert pruned == {name for name, _ in trained.model.prunable()}
    assert not any(name.endswith(("bias", ".b", "beta", "gamma", "ga1")) for name in pruned)


def test_kbnet_prunes_its_kernel_bases_but_neither_intro_nor_ending_nor_channel_attention() -> None:
    trained = Trained(KBNET.build())
    trained.enter(SPARSE)
    pruned = {name for name, parameter in trained.model.named_parameters() if (parameter == 0).any()}
    bases = [name for name, _ in trained.model.named_parameters() if name.endswith(".w")]
    assert len(bases) == 3
    assert set(bases) < pruned
    assert not {"intro.weight", "ending.weight"} & pruned
    assert not any(".sca." in name for name in pruned)
    # Half of every prunable tensor is much of this network: the bases alone are most of it.
    zeros = sum(int((p == 0).sum()) for p in trained.model.parameters())
    assert zeros > 0.4 * sum(p.numel() for p in trained.model.parameters())


def test_dncnn_prunes_all_but_its_first_and_last_kernels() -> None:
    trained = Trained(DnCNNConfig(channels=1, width=6, layers=4).build())
    trained.enter(SPARSE)
    pruned = [name for name, parameter in trained.model.named_parameters() if (parameter == 0).any()]
    assert pruned == ["model.2.weight", "model.4.weight"]


def test_revived_weights_start_from_zero_and_first_move_by_one_learning_rate(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    trained.steps(3, mask)
    assert trained.enter(DENSE).kept == {}
    for name, parameter in trained.model.prunable():
        assert not parameter[~mask.kept[name][1]].any(), name
    trained.steps(1, Mask({}))
    for name, parameter in trained.model.prunable():
        moved = parameter.detach()[~mask.kept[name][1]].abs()
        assert moved.any(), name
        # Adam's first step is the sign of the gradient; with stale step counts it would be 3 times that.
        assert moved.max() <= 1.001 * trained.optimizer.param_groups[0]["lr"], name


def test_optimizer_starts_every_phase_from_fresh_state(trained: Trained) -> None:
    for phase in (SPARSE, DENSE):
        assert trained.optimizer.state
        mask = trained.enter(phase)
        assert not trained.optimizer.state
        trained.steps(1, mask)
        assert {float(state["step"]) for state in trained.optimizer.state.values()} == {1.0}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_every_optimizer_holds_pruned_weights_at_zero_and_forgets_them_when_they_come_back(
    optimizer: OptimizerConfig,
) -> None:
    torch.manual_seed(0)
    trained = Trained(KBNET.build(), optimizer)
    mask = trained.enter(SPARSE)
    trained.steps(5, mask)
    for name, (parameter, kept) in mask.kept.items():
        assert not parameter[~kept].any(), name
        assert parameter[kept].all(), name
    assert trained.enter(DENSE).kept == {}
    # From here on it moves as an optimizer that has never seen the network.
    twin = Trained(KBNET.build(), optimizer)
    twin.model.load_state_dict(trained.model.state_dict())
    twin.optimizer = optimizer.build(twin.model)
    for either in (trained, twin):
        either.steps(3, Mask({}))
    for (name, ours), theirs in zip(trained.model.named_parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_moments_of_pruned_weights_stay_zero(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    trained.steps(4, mask)
    for name, parameter in trained.model.prunable():
        state = trained.optimizer.state[parameter]
        assert not state["exp_avg"][~mask.kept[name][1]].any(), name
        assert not state["exp_avg_sq"][~mask.kept[name][1]].any(), name


def test_average_is_as_sparse_as_the_model(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    averaged = dict(trained.average.model.named_parameters())
    for name, (_, kept) in mask.kept.items():
        assert not averaged[name][~kept].any(), name
    trained.steps(3, mask)
    for name, (_, kept) in mask.kept.items():
        assert not averaged[name][~kept].any(), name
        assert averaged[name][kept].all(), name


def test_mask_comes_back_from_its_state(trained: Trained) -> None:
    mask = trained.enter(SPARSE)
    again = Mask.from_state(trained.model.prunable(), mask.state())
    assert again.kept.keys() == mask.kept.keys()
    for name, (parameter, kept) in again.kept.items():
        assert parameter is mask.kept[name][0]
        assert torch.equal(kept, mask.kept[name][1])


@pytest.mark.parametrize("model", [{"kind": "dncnn", "width": 16, "layers": 4}, KBNET.model_dump()])
def test_state_saved_in_the_sparse_phase_has_the_stated_sparsity(
    model: dict[str, object],
    config: Callable[..., TrialConfig],
    run: Callable[..., TrialResult],
    record: Callable[..., object],
    tmp_path: Path,
) -> None:
    trial = config(model={**model, "channels": 1}, sparsity=DSD)  # sparse in steps 4, 5 and 6
    with pytest.raises(Stopped):
        run(trial, tmp_path, record(stop_after=6))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    prunable = [name for name, _ in trial.model.build().prunable()]
    for part in ("model", "average"):
        zeros = sum(int((state[part][name] == 0).sum()) for name in prunable)
        total = sum(state[part][name].numel() for name in prunable)
        assert zeros / total == pytest.approx(0.4, abs=0.001), part


def test_state_saved_after_the_sparse_phase_is_dense_again(
    config: Callable[..., TrialConfig],
    run: Callable[..., TrialResult],
    record: Callable[..., object],
    tmp_path: Path,
) -> None:
    trial = config(model=KBNET.model_dump(), sparsity=DSD)
    with pytest.raises(Stopped):
        run(trial, tmp_path, record(stop_after=9))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for name, _ in trial.model.build().prunable():
        assert (state["model"][name] == 0).float().mean() < 0.01, name


def test_scores_are_unsettled_only_while_weights_are_held_at_zero(
    config: Callable[..., TrialConfig],
    run: Callable[..., TrialResult],
    record: Callable[..., object],
    tmp_path: Path,
) -> None:
    for folder, sparsity, expected in (
        ("pruned", 0.4, [True] * 4 + [False] * 3 + [True] * 3),
        ("control", 0.0, [True] * 10),
    ):
        report = record(stop_after=None)
        run(config(sparsity={**DSD, "sparsity": sparsity}, evaluations=10), tmp_path / folder, report)
        assert report.dense == expected  # type: ignore[attr-defined]
