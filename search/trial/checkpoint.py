"""Files of a trial: its best weights, and the state from which it can go on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

STATE = "state.pt"
BEST_WEIGHTS = "best.safetensors"


def config_fingerprint(config_json: str) -> str:
    """A short name for a configuration: a state is only ever resumed by one with the same past."""
    return hashlib.sha256(config_json.encode()).hexdigest()[:16]


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write `state` whole or not at all."""
    target = folder / STATE
    partial = target.with_suffix(".partial")
    torch.save(dict(state), partial)
    partial.replace(target)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The last saved state; None where there is none.

    A truncated or foreign file counts as none: the trial then starts from its first step.
    """
    try:
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    # A damaged file makes torch raise nearly anything: UnpicklingError, IndexError, struct.error, ...
    except Exception:
        return None
    return state if isinstance(state, dict) and {"past", "step"} <= state.keys() else None


def drop_state(folder: Path) -> None:
    """Forget the resumable state of a finished trial."""
    (folder / STATE).unlink(missing_ok=True)


def save_weights(path: Path, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """The state dict of `model` as safetensors, whole or not at all; counters stay whole numbers."""
    tensors: dict[str, Tensor] = {
        name: tensor.detach().cpu().to(dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(tensors))  # `save_file` would make it readable by its owner only
    partial.replace(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill `model` from a safetensors file; every name and shape must match, float16 becomes what `model` has."""
    model.load_state_dict(load_file(path))
