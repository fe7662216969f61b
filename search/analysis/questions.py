"""Questions about settings (which loss, how wide, ...), and the group that a trial belongs to for each of them."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search.database import Record
from search.text import format_setting

Config = Mapping[str, Any]
Value = str | float | None
_THIRDS = 3  # groups of a number that takes many values
_FEW_VALUES = 4


@dataclass(frozen=True)
class Question:
    """A question, and its answer for a config: a name, a number, or None where it does not apply."""

    name: str
    asked: str
    answer: Callable[[Config], Value]
    leaves: str
    """Regular expression for the names of its settings."""
    since: Callable[[Config], float] = lambda config: 0.0
    """Scores say nothing about it before this share of a training."""


def trial_groups(question: Question, trials: Sequence[Record]) -> list[str | None]:
    """The group of each trial, in words. Numbers with many values fall into thirds of the trials."""
    values = [question.answer(trial.config) for trial in trials]
    numbers = sorted(value for value in values if isinstance(value, float))
    if not numbers or len(set(numbers)) <= _FEW_VALUES:
        return [value if isinstance(value, str | None) else format_setting(value) for value in values]
    ends = np.quantile(numbers, [n / _THIRDS for n in range(1, _THIRDS)], method="inverted_cdf")
    place = [int(np.searchsorted(ends, value)) if isinstance(value, float) else -1 for value in values]
    names = []
    for third in range(_THIRDS):
        inside = [value for value, p in zip(values, place, strict=True) if p == third]
        numbers = sorted(value for value in inside if isinstance(value, float))
        names.append(_between(numbers) if numbers else "")
    return [names[p] if p >= 0 else None for p in place]


def _between(numbers: Sequence[float]) -> str:
    low, high = format_setting(numbers[0]), format_setting(numbers[-1])
    return low if low == high else f"{low} to {high}"


def _network(config: Config) -> Config:
    """The model, or the network that restores luminance for it."""
    model: Config = config.get("model", {})
    inner = model.get("model")
    return inner if isinstance(inner, Mapping) else model


def _loss(config: Config) -> Value:
    return _loss_name(config.get("loss", {}))


def _loss_name(loss: Config) -> str:
    if loss.get("kind") == "sum":
        return " + ".join(sorted(_loss_name(term["loss"]) for term in loss["terms"].values()))
    if loss.get("kind") == "adversarial":
        return f"adversarial + {_loss_name(loss['pixel'])}"
    return str(loss.get("kind"))


def _augmentation(config: Config) -> Value:
    on = [name.replace("_", " ") for name, value in config.get("augmentation", {}).items() if value]
    return " + ".join(name for name in on if name != "rescale limit") or "none"


def _width(config: Config) -> Value:
    width = _network(config).get("width")
    return None if width is None else float(width)


def _depth(config: Config) -> Value:
    """Blocks, or layers, of all levels together."""
    network = _network(config)
    counts = [
        sum(value) if isinstance(value, list | tuple) else value
        for name, value in network.items()
        if name == "blocks" or name.endswith("_blocks") or name in ("layers", "depth")
    ]
    return float(sum(counts)) if counts else None


def _rate(config: Config) -> Value:
    rate = config.get("optimizer", {}).get("lr")
    return None if rate is None else float(rate)


def _schedule(config: Config) -> Value:
    kind = config.get("schedule", {}).get("kind")
    return None if kind is None else str(kind).replace("_", " ")


def _sparsity(config: Config) -> Value:
    kind = config.get("sparsity", {}).get("kind")
    return {"dsd": "dense-sparse-dense", "dense": "dense all the way"}.get(kind)


def _crops(config: Config) -> Value:
    crops = config.get("crops", {})
    if "batch" not in crops:
        return None
    return f"{crops['batch']} of side {crops['patch']}" + (", growing" if crops.get("before") else "")


def _precision(config: Config) -> Value:
    return config.get("precision")


def _until_sparse_is_over(config: Config) -> float:
    sparsity = config.get("sparsity", {})
    return float(sparsity.get("dense_share", 0.0) + sparsity.get("sparse_share", 0.0))


LOSS = Question("loss", "Did the loss matter?", _loss, r"loss(\..*)?")
WIDTH = Question("width", "Width against depth: did the width matter?", _width, r"model(\..*)?\.width")
DEPTH = Question(
    "depth",
    "Width against depth: did the number of blocks matter?",
    _depth,
    r"model(\..*)?\.(\w*blocks|layers|depth)",
)
RATE = Question("learning rate", "Did the learning rate matter?", _rate, r"optimizer(\..*)?\.lr")
# The order is that in which they are taken into account where there are too few trials for all.
QUESTIONS = (
    RATE,
    LOSS,
    WIDTH,
    DEPTH,
    Question("batch and patch", "Did batch and patch matter?", _crops, r"crops(\..*)?"),
    Question("augmentation", "Did augmentation matter?", _augmentation, r"augmentation(\..*)?"),
    # Schedules differ in how they end.
    Question("schedule", "Did the schedule matter?", _schedule, r"schedule(\..*)?", lambda config: 0.5),
    Question("DSD", "Did dense-sparse-dense matter?", _sparsity, r"sparsity(\..*)?", _until_sparse_is_over),
    Question("precision", "Did mixed precision matter?", _precision, r"precision"),
)


def importance_share(question: Question, shares: Mapping[str, float]) -> float:
    """The importances of the settings that belong to a question, together; nan where none was open."""
    found = [share for name, share in shares.items() if re.fullmatch(question.leaves, name)]
    return sum(found) if found else math.nan
