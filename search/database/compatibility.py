"""Comparison of a study's stored recipe with a changed one, and refusal of changes that Optuna cannot store."""

import json
from typing import Any

import optuna

from search.errors import UserError
from search.study import Choices, Range, StudySpec, open_leaves


def recipe_differences(old: Any, new: Any, name: str = "recipe") -> list[str]:
    """Up to three differences between two recipes, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            missing = object()
            before, after = old.get(key, missing), new.get(key, missing)
            if before is missing:
                found.append(f"{name}.{key} is new")
            elif after is missing:
                found.append(f"{name}.{key} is gone")
            else:
                found += recipe_differences(before, after, f"{name}.{key}")
        return found[:3]
    old, new = json.loads(json.dumps([old, new]))
    return [] if old == new else [f"{name} was {json.dumps(old)}, now {json.dumps(new)}"]


def refuse_changed_distributions(study: optuna.Study, spec: StudySpec) -> None:
    """Raises `UserError` if choices or the kind of a range have changed for a setting that trials already have."""
    now = {name: distribution_of_leaf(leaf) for name, leaf in open_leaves(spec.recipe)}
    for trial in study.get_trials(deepcopy=False):
        for name, before in trial.distributions.items():
            try:
                optuna.distributions.check_distribution_compatibility(before, now.get(name, before))
            except ValueError:
                raise UserError(
                    f"study {spec.name!r}: {name} was {_in_words(before)}, now it is {_in_words(now[name])}; "
                    f"Optuna cannot mix them, start a new study (--name {spec.name}-2)"
                ) from None


def distribution_of_leaf(leaf: Range | Choices) -> optuna.distributions.BaseDistribution:
    """An open leaf as Optuna stores it with a trial."""
    if isinstance(leaf, Choices):
        return optuna.distributions.CategoricalDistribution(leaf.names)
    if leaf.whole:
        return optuna.distributions.IntDistribution(
            int(leaf.low), int(leaf.high), log=leaf.log, step=int(leaf.step or 1)
        )
    return optuna.distributions.FloatDistribution(leaf.low, leaf.high, log=leaf.log, step=leaf.step)


def _in_words(distribution: optuna.distributions.BaseDistribution) -> str:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return f"a choice of {', '.join(map(str, distribution.choices))}"
    log = "log " if getattr(distribution, "log", False) else ""
    whole = "whole " if isinstance(distribution, optuna.distributions.IntDistribution) else ""
    return f"a {log}range of {whole}numbers"
