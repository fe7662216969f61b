"""Pairs of networks of one kind where the wider or deeper one can start from the trained weights of the other."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models import ModelConfig

# Settings that add channels behind the ones there are, or blocks after them: names keep their meaning.
EXTENSIBLE_SETTINGS: Mapping[str, frozenset[str]] = {
    "kbnet_s": frozenset({"width", "encoder_blocks", "middle_blocks", "decoder_blocks"}),
    "nafnet": frozenset({"width", "encoder_blocks", "middle_blocks", "decoder_blocks"}),
    "srresnet": frozenset({"width", "blocks"}),
    "unet": frozenset({"width"}),
    "dncnn": frozenset({"width"}),
    "pix2pix": frozenset({"width"}),
}
# Settings of training and of memory, not of the weights.
_FREE = frozenset({"drop_path", "dropout", "recompute"})


def is_wider_or_deeper(large: "ModelConfig", small: "ModelConfig") -> bool:
    """True if `large` is `small` with more channels or more blocks, and else the same network."""
    return _is_wider_or_deeper(large.model_dump(), small.model_dump())


def any_wider_or_deeper(models: "Iterable[ModelConfig]") -> bool:
    """True if there is such a pair."""
    extensible = [
        model
        for model in dict.fromkeys(models)
        if model.kind in EXTENSIBLE_SETTINGS or model.kind == "luminance"
    ]
    return any(
        is_wider_or_deeper(one, other) or is_wider_or_deeper(other, one)
        for one, other in combinations(extensible, 2)
    )


def _is_wider_or_deeper(large: Mapping[str, Any], small: Mapping[str, Any]) -> bool:
    if large["kind"] != small["kind"] or large["channels"] != small["channels"]:
        return False
    if large["kind"] == "luminance":
        return _is_wider_or_deeper(large["model"], small["model"])
    extensible = EXTENSIBLE_SETTINGS.get(large["kind"], frozenset())
    if any(large[name] != small[name] for name in large if name not in extensible | _FREE):
        return False
    sizes = [(_sizes(large[name]), _sizes(small[name])) for name in extensible]
    # Another number of scales gives the same names to other scales.
    same_scales = all(len(ours) == len(theirs) for ours, theirs in sizes)
    no_smaller = all(a >= b for ours, theirs in sizes for a, b in zip(ours, theirs, strict=False))
    return same_scales and no_smaller and any(ours != theirs for ours, theirs in sizes)


def _sizes(setting: int | tuple[int, ...]) -> tuple[int, ...]:
    return setting if isinstance(setting, tuple) else (setting,)
