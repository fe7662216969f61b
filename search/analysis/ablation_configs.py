"""The winner's recipe with one thing changed, for each question that people ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from search.inference import Precision
from search.trial import TrialConfig

MOST_TIMES_DEEPER = 8
AS_IT_IS, OTHER_SEED = "winner", "seed"


@dataclass(frozen=True)
class Change:
    """The winner's recipe with one thing changed."""

    question: str
    text: str
    config: TrialConfig


def changes_of(winner: TrialConfig, device: torch.device) -> Iterator[Change]:
    """The winner as it is, from another seed, and with one change for each question that arises."""
    tree = winner.model_dump()

    def changed(question: str, text: str, **parts: Any) -> Iterator[Change]:
        try:
            yield Change(question, text, TrialConfig.model_validate({**tree, **parts}))
        except ValidationError:
            return  # the change is none for this model or loss

    yield Change(AS_IT_IS, "the winner's recipe", winner)
    yield from changed(OTHER_SEED, "another seed", seed=(winner.seed + 1) % 2**32)
    other = "mse" if winner.loss.kind == "l1" else "l1"
    yield from changed("loss", f"loss {other} for {winner.loss.kind}", loss={"kind": other})
    plain = {"flips": False, "rotations": False}
    if any(value for name, value in tree["augmentation"].items() if name != "rescale_limit"):
        yield from changed("augmentation", "no augmentation", augmentation=plain)
    else:
        yield from changed("augmentation", "flips and rotations", augmentation={})
    yield from _deeper(winner, tree)
    rate = winner.optimizer.lr / 3
    yield from changed(
        "learning rate",
        f"a third of the learning rate ({rate:.2g})",
        optimizer={**tree["optimizer"], "lr": rate},
    )
    kind = "cosine" if winner.schedule.kind == "constant_cooldown" else "constant_cooldown"
    shape = {"kind": kind, "warmup": min(winner.schedule.warmup, 0.5)}
    was = winner.schedule.kind.replace("_", " ")
    yield from changed("schedule", f"schedule {kind.replace('_', ' ')} for {was}", schedule=shape)
    if winner.sparsity.kind == "dsd":
        yield from changed("DSD", "dense all the way", sparsity={"kind": "dense"})
    else:
        yield from changed("DSD", "dense-sparse-dense", sparsity={"kind": "dsd"})
    fastest, used = Precision("auto", device).name, Precision(winner.precision, device).name
    if used != "fp32":
        yield from changed("precision", f"fp32 for {used}", precision="fp32")
    elif fastest != "fp32":
        yield from changed("precision", f"{fastest} for fp32", precision=fastest)
    batch, patch = winner.crops.batch, winner.crops.patch
    crops = {**tree["crops"], "before": (), "parts": 1}
    if patch >= 64:
        text = f"{4 * batch} crops of side {patch // 2} for {batch} of side {patch}"
        yield from changed("batch and patch", text, crops={**crops, "batch": 4 * batch, "patch": patch // 2})
    elif batch >= 2:
        text = f"{batch // 2} crops for {batch}"
        yield from changed("batch and patch", text, crops={**crops, "batch": batch // 2})


def _deeper(winner: TrialConfig, tree: Mapping[str, Any]) -> Iterator[Change]:
    """Half the width, and so many times the blocks that the compute of a step comes nearest to the winner's."""
    whole = tree["model"]
    network = whole["model"] if isinstance(whole.get("model"), Mapping) else whole
    counts = [name for name in network if name in ("blocks", "layers") or name.endswith("_blocks")]
    if "width" not in network or not counts:
        return
    found = []
    for times in range(2, MOST_TIMES_DEEPER + 1):
        more = {name: _times(network[name], times) for name in counts}
        model = {**network, "width": network["width"] // 2, **more}
        model = {**whole, "model": model} if network is not whole else model
        try:
            config = TrialConfig.model_validate({**tree, "model": model})
        except ValidationError:
            continue
        text = f"half the width and {times} times the {'layers' if 'layers' in counts else 'blocks'}"
        found.append(Change("width against depth", text, config))
    cost = winner.teramacs_per_step
    yield from sorted(found, key=lambda change: abs(change.config.teramacs_per_step - cost))[:1]


def _times(count: int | Sequence[int], times: int) -> int | tuple[int, ...]:
    return count * times if isinstance(count, int) else tuple(times * one for one in count)
