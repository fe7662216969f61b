"""Whether what a study says of its questions is true: planted effects, planted noise, and a check that retrains."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search.__main__ import main
from search.analysis import ablation
from search.analysis.ablation import Ablation, TrainedChange
from search.analysis.ablation_configs import changes_of
from search.analysis.mattered import comparable
from search.analysis.questions import LOSS, QUESTIONS, RATE, WIDTH, trial_groups
from search.database import Record, default_storage_url, load_study
from search.statistics import effects
from search.trial import TrialConfig

Groups = dict[str, list[str]]


def planted(trials: int, seed: int, loss: float = 0.0, both: float = 0.0) -> tuple[list[float], Groups]:
    """Scores with noise of 0.5 dB, an effect of `loss` for l1, and `both` more where l1 meets a wide model."""
    dice = random.Random(seed)
    groups = {
        "loss": [dice.choice(["l1", "mse", "psnr"]) for _ in range(trials)],
        "width": [dice.choice(["8", "16"]) for _ in range(trials)],
        "rate": [dice.choice(["low", "middle", "high"]) for _ in range(trials)],
    }
    scores = [
        25
        + loss * (a == "l1")
        + both * (a == "l1" and b == "16")
        + 2.0 * (c == "middle")
        + dice.gauss(0, 0.5)
        for a, b, c in zip(*groups.values(), strict=True)
    ]
    return scores, groups


def test_effect_is_the_difference_of_means_where_nothing_else_varies() -> None:
    scores = [random.Random(n).gauss(20 + (n % 3 == 0), 1) for n in range(31)]
    loss = ["l1" if n % 3 == 0 else "mse" for n in range(31)]
    found = effects.estimate_effect(scores, {"loss": loss}, "loss")
    assert found is not None
    means = {name: np.mean([s for s, g in zip(scores, loss, strict=True) if g == name]) for name in set(loss)}
    assert found.gain_db == pytest.approx(abs(means["l1"] - means["mse"]))
    assert (found.trials, found.others) in ((11, 20), (20, 11))


def test_effect_is_told_from_that_of_a_setting_that_goes_with_it() -> None:
    scores, loss, rate = [], [], []
    for n in range(60):
        dice = random.Random(n)
        loss.append("l1" if n % 2 else "mse")
        rate.append("good" if dice.random() < (0.8 if n % 2 else 0.2) else "bad")
        scores.append(20 + 3 * (rate[-1] == "good") + dice.gauss(0, 0.2))
    alone = effects.estimate_effect(scores, {"loss": loss}, "loss")
    beside = effects.estimate_effect(scores, {"rate": rate, "loss": loss}, "loss")
    assert alone is not None
    assert beside is not None
    assert alone.gain_db > 1
    assert abs(beside.gain_db) < 0.2


def test_planted_effect_lies_in_its_interval_and_chance_is_ruled_out() -> None:
    scores, groups = planted(60, seed=1, loss=1.0)
    found = effects.estimate_effect(scores, groups, "loss")
    assert found is not None
    assert found.best == "l1"
    assert found.low < 1.0 < found.high
    assert found.chance < 0.01


def test_noise_passes_for_an_effect_no_more_often_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "SHUFFLES", 99)
    monkeypatch.setattr(effects, "RESAMPLES", 9)
    chances = []
    for seed in range(60):
        found = effects.estimate_effect(*planted(30, seed), "loss")
        if found is not None:
            chances.append(found.chance)
    assert len(chances) > 50
    assert np.mean([chance < 0.05 for chance in chances]) < 0.12  # 5 %, and what 60 throws add to it
    assert 0.35 < np.mean(chances) < 0.65


def test_few_trials_or_few_on_a_side_are_no_evidence() -> None:
    assert effects.estimate_effect(*planted(19, seed=1, loss=5.0), "loss") is None
    groups = {"loss": ["l1"] * 26 + ["mse"] * 4}
    assert effects.estimate_effect([float(n) for n in range(30)], groups, "loss") is None


def test_failed_trainings_do_not_drown_the_rest() -> None:
    scores, groups = planted(60, seed=1, loss=1.0)
    scores[3] = -400.0
    found = effects.estimate_effect(scores, groups, "loss")
    assert found is not None
    assert 0.5 < found.gain_db < 1.5


def test_pair_is_found_where_it_was_planted_and_not_in_noise() -> None:
    found = effects.strongest_pair(*planted(80, seed=2, both=2.0))
    assert found is not None
    assert {found.first, found.second} == {"loss", "width"}
    assert found.excess_db == pytest.approx(2.0, abs=0.7)
    assert found.chance < 0.01
    by_chance = [effects.strongest_pair(*planted(40, seed)) for seed in range(20)]
    assert np.mean([pair.chance < 0.05 for pair in by_chance if pair]) <= 0.2


def test_holm_by_hand() -> None:
    assert effects.holm_adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def records(configs: Sequence[dict[str, Any]], **more: Any) -> list[Record]:
    return [Record(n, n, "pruned", config=config, steps=100, **more) for n, config in enumerate(configs)]


def test_numbers_fall_into_thirds_and_few_values_stay_apart() -> None:
    rates = [{"optimizer": {"lr": 0.001 * (n + 1)}} for n in range(9)]
    assert (
        trial_groups(RATE, records(rates))
        == ["0.001 to 0.003"] * 3 + ["0.004 to 0.006"] * 3 + ["0.007 to 0.009"] * 3
    )
    widths = [{"model": {"width": width}} for width in (8, 16, 8)]
    assert trial_groups(WIDTH, [*records(widths), *records([{}])]) == ["8", "16", "8", None]


def test_names_of_sides() -> None:
    summed = {"kind": "sum", "terms": {"a": {"loss": {"kind": "ssim"}}, "b": {"loss": {"kind": "l1"}}}}
    tree = {
        "model": {"kind": "luminance", "model": {"width": 8, "encoder_blocks": [1, 2], "middle_blocks": 3}},
        "loss": summed,
        "augmentation": {"flips": True, "rotations": False, "rescale": 0.0, "rescale_limit": 2.0},
    }
    said = {question.name: question.answer(tree) for question in QUESTIONS}
    assert said["loss"] == "l1 + ssim"
    assert said["augmentation"] == "flips"
    assert (said["width"], said["depth"]) == (8.0, 6.0)


def test_sparsity_and_schedule_are_judged_only_late_enough() -> None:
    tree = {"sparsity": {"kind": "dsd", "dense_share": 0.6, "sparse_share": 0.15}, "loss": {"kind": "l1"}}
    trials = records([tree] * 25, reported={25: 20.0, 50: 21.0, 75: 22.0, 88: 23.0})
    by_name = {question.name: question for question in QUESTIONS}
    assert comparable(trials, by_name["DSD"])[0] == 88
    few = [*trials[:10], *records([tree] * 15, reported={25: 20.0})]
    assert comparable(few, LOSS)[0] == 25
    percent, scored = comparable(few, by_name["DSD"])
    assert (percent, len(scored)) == (88, 10)


def test_changes_are_one_each_and_of_like_compute() -> None:
    winner = TrialConfig.model_validate(
        {
            "model": {"kind": "dncnn", "channels": 1, "width": 16, "layers": 3},
            "steps": 100,
            "crops": {"batch": 2, "patch": 64},
        }
    )
    found = {change.question: change.config for change in changes_of(winner, torch.device("cpu"))}
    assert {"winner", "seed", "loss", "augmentation", "learning rate", "schedule", "DSD"} <= found.keys()
    before = winner.model_dump()
    for question, config in found.items():
        differ = [key for key, value in config.model_dump().items() if value != before[key]]
        assert len(differ) == (question != "winner"), question
    deeper = found["width against depth"]
    assert deeper.model.width == 8
    assert 0.5 < deeper.teramacs_per_step / winner.teramacs_per_step < 2
    assert found["batch and patch"].crops.batch == 8


def test_sentences_give_paired_differences_and_what_luck_makes() -> None:
    def trained(question: str, *psnr_db: float) -> TrainedChange:
        return TrainedChange(question, question, 50, 1.0, psnr_db)

    check = Ablation(
        3,
        60.0,
        0.1,
        (0, 1, 2),
        True,
        (
            trained("winner", 20.0, 22.0, 30.0),
            trained("seed", 20.1, 22.3, 30.2),
            trained("loss", 19.0, 21.0, 29.0),
            trained("augmentation", 20.1, 22.1, 30.1),
            trained("DSD", 20.5, 21.5, 30.0),
            trained("precision"),
        ),
    )
    lines = ablation.ablation_sentences(check)
    assert lines[1] == "seed: +0.20 dB (95 % over images: +0.10 to +0.30): so much is luck."
    assert lines[2].startswith("loss: -1.00 dB (95 % over images: -1.00 to -1.00)")
    assert lines[3].endswith("no more than another seed makes.")
    assert lines[4].endswith("not enough evidence, the interval holds 0.")
    assert lines[5] == "precision: diverged."
    assert ablation.ablation_sentences(None) == []


def test_check_stopped_goes_on_with_what_is_missing(
    study_file: Callable[..., Path],
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = study_file()
    places = ["--out", str(out)]
    command = ["mattered", "tiny", "--check", "--budget", "1s", "--quiet", *places]
    assert main(["run", "--study", str(path), "--trials", "1", "--quiet", *places]) == 0
    trained: list[str] = []
    train = ablation._train

    def stopping(change: Any, *rest: Any) -> TrainedChange:
        trained.append(change.question)
        if len(trained) == 2:
            rest[-1].request()
        return train(change, *rest)

    monkeypatch.setattr(ablation, "_train", stopping)
    assert main(command) == 130
    first = ablation.read_ablation(load_study("tiny", default_storage_url(out)))
    assert first is not None
    assert len(first.done) == 1
    monkeypatch.setattr(ablation, "_train", train)
    assert main(command) == 0
    second = ablation.read_ablation(load_study("tiny", default_storage_url(out)))
    assert second is not None
    assert second.done[:1] == first.done
    assert second.teramacs == first.teramacs
    questions = [entry.question for entry in second.done]
    assert len(set(questions)) == len(questions) >= 7
    assert not list((out / "tiny").glob("check-*"))
    shown = capsys.readouterr().out
    assert "Did the loss matter? Not enough evidence" in shown
    assert "another seed" in shown


def test_mistakes_get_one_line(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mattered", "none", "--budget", "soon", "--out", str(out)]) == 2
    assert "--budget" in capsys.readouterr().err
    assert main(["mattered", "none", "--budget", "0s", "--out", str(out)]) == 2
    assert main(["mattered", "none", "--out", str(out)]) == 2
    assert "no such database" in capsys.readouterr().err
