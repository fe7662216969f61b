"""A model of learning curves for configurations that were not recorded: main effects of the settings and residuals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import spearmanr

from search.study import Plain, fill_leaves
from tests.benchmarks.recording import FULL, Curve, Floats

RIDGE = 10.0
"""Penalty on effects of standardised settings: the best of 3, 10, 30 and 100 by the left-out error."""


class Answers:
    """Fills the open settings of a recipe, and keeps their values and distributions."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> Any:
        return self._keep(name, FloatDistribution(low, high, step=step, log=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> Any:
        return self._keep(name, IntDistribution(low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: list[Plain]) -> Any:
        return self._keep(name, CategoricalDistribution(choices))

    def _keep(self, name: str, distribution: BaseDistribution) -> Any:
        self.distributions[name] = distribution
        self.settings[name] = self.answer(name, distribution)
        return self.settings[name]

    def answer(self, name: str, distribution: BaseDistribution) -> Any:
        raise NotImplementedError


@dataclass
class Known(Answers):
    """Fills in the settings of a recorded configuration."""

    recorded: Mapping[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def answer(self, name: str, distribution: BaseDistribution) -> Any:
        value = self.recorded.get(name)
        if value is None or not distribution._contains(distribution.to_internal_repr(value)):
            raise SystemExit(f"recorded in another space: {name} is {value}, the study has {distribution}")
        return value


class CurveModel:
    """Ridge regression of all scores of a curve and of its costs on the settings.

    A number enters by its place in its (log) range, a choice as one column each, a setting that a
    configuration does not have as the mean. To the mean curve comes the whole left-out residual of a recorded
    configuration with the same sparse phases, drawn at random: so early and late scores are off together as they are
    in truth, and no model of the settings can foresee it. Beyond what was recorded, at the ends of the ranges,
    it is linear.
    """

    def __init__(self, recorded: Sequence[Curve], recipe: Mapping[str, Any]) -> None:
        self.recorded = [curve for curve in recorded if not np.isnan(curve.final)]
        self.distributions: dict[str, BaseDistribution] = {}
        for curve in self.recorded:
            known = Known(curve.settings)
            fill_leaves(recipe, known)
            self.distributions |= known.distributions
        encoded = np.stack([self._encode(curve.settings) for curve in self.recorded])
        self.absent = np.nanmean(encoded, axis=0)
        self.filled = np.where(np.isnan(encoded), self.absent, encoded)
        self.spread = np.where(np.ptp(self.filled, axis=0) > 0, self.filled.std(axis=0), 1.0)
        columns = (self.filled - self.absent) / self.spread
        targets = self.targets = np.stack([_targets(curve) for curve in self.recorded])
        self.mean = targets.mean(axis=0)
        solve = np.linalg.solve(columns.T @ columns + RIDGE * np.eye(columns.shape[1]), columns.T)
        self.effects = solve @ (targets - self.mean)
        leverage = np.diag(columns @ solve) + 1 / len(targets)
        # Of a linear smoother: the error at a point when it is left out.
        self.residuals = (targets - self.mean - columns @ self.effects) / (1 - leverage)[:, None]

    def curve(self, settings: Mapping[str, Any], rng: np.random.Generator) -> Curve:
        """A curve that a configuration might have had."""
        encoded = self._encode(settings)
        alike = [
            n
            for n, curve in enumerate(self.recorded)
            if curve.settings.get("sparsity") == settings.get("sparsity")
        ]
        filled = np.where(np.isnan(encoded), self.absent, encoded)
        values = self.expected(filled) + self.residuals[rng.choice(alike)]
        return Curve(
            settings=dict(settings),
            scores=values[:FULL],
            final=float(values[FULL]),
            training=float(np.exp(values[FULL + 1])),
            evaluation=float(np.expm1(values[FULL + 2])),
        )

    def expected(self, encoded: Floats) -> Floats:
        """All scores and costs, predicted from the settings."""
        return np.asarray(self.mean + (encoded - self.absent) / self.spread @ self.effects)

    def error(self) -> str:
        """Error of the predicted final score by leave-one-out, in words."""
        final = np.array([curve.final for curve in self.recorded])
        predicted = final - self.residuals[:, FULL]
        return (
            f"{self.residuals[:, FULL].std():.2f} dB (all vary by {final.std():.2f}), "
            f"Spearman {spearmanr(final, predicted).statistic:.2f}"
        )

    def _encode(self, settings: Mapping[str, Any]) -> Floats:
        columns: list[float] = []
        for name, distribution in sorted(self.distributions.items()):
            value = settings.get(name)
            if isinstance(distribution, CategoricalDistribution):
                columns += [float(value == choice) for choice in distribution.choices]
            else:
                assert isinstance(distribution, FloatDistribution | IntDistribution)
                place = np.nan if value is None else np.log(value) if distribution.log else value
                columns.append(float(place))
        return np.array(columns)


def _targets(curve: Curve) -> Floats:
    costs = np.log(curve.training), np.log1p(curve.evaluation)
    return np.array([*curve.scores, curve.final, *costs])
