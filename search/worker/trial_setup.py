"""Preparing a trial: drawing its config, resolving its starting weights, facts that are recorded beforehand."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import optuna
import torch

from models import count_parameters
from search.database import facts_of, load_study, study_facts_of
from search.inference import device_name
from search.study import StudySpec, close_recipe, fill_leaves, with_replacements
from search.trial import InitialConfig, TrialConfig, forward_macs
from search.worker.trained_trial import load_best

COST_SIDE = 256  # multiply-adds are stated for an image of this side, as in the field's tables


def draw_config(spec: StudySpec, trial: optuna.Trial, channels: int) -> TrialConfig:
    """Config of a trial: the sampler fills the open settings, the study and the data give what the recipe omits."""
    facts = facts_of(trial)
    tree = fill_leaves(with_replacements(spec.recipe, facts.replaced), trial)
    tree["model"] = {"channels": channels, **tree["model"]}
    tree.setdefault("seed", (spec.seed * 1_000_003 + trial.number) % 2**32)
    tree.setdefault("pauses", spec.ladder.shares()[:-1])
    if "steps" not in tree:
        tree["steps"] = {"teramacs": study_facts_of(trial.study).full_teramacs}
    config = close_recipe(tree)
    if facts.length is not None:
        config = config.with_step_mapping(*facts.length)
    return config


def resolve_starting_point(initial: InitialConfig, url: str, out: Path) -> InitialConfig:
    """`initial` with the file of the best weights in place of the study's name. `UserError` if it has none."""
    if initial.study is None:
        return initial
    weights = load_best(load_study(initial.study, url), out).weights
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    return InitialConfig(file=weights, match=initial.match, sha256=digest)


def circumstances(config: TrialConfig, fingerprint: str, device: torch.device) -> dict[str, Any]:
    """Facts about a trial that are known before it starts. `fingerprint` is that of the pairs."""
    return {
        "config": config,
        "parameters": count_parameters(config.model.build()),
        "gmacs_at_256": forward_macs(config.model, COST_SIDE) / 1e9,
        "steps": config.total_steps,
        "seed": config.seed,
        "data": fingerprint,
        "device": device_name(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "optuna": optuna.__version__,
        },
    }
