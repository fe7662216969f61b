"""Surrogate of a search: a Gaussian process over the settings of recipes and the rungs at which they were scored.

Symbols and shapes:

    m                settings of the space
    n                scores seen
    x[i] (m,)        settings of the recipe that score i belongs to, encoded (search/samplers/encoding.py)
    t[i], r[i]       its training, and its rung: 0 is the lowest, T the top
    y[i]             the score, standardised
    a[d]             variance of the effect of setting d
    b                variance of the effect of all settings together
    v                variance of a training's own part: its seed, and all that no setting says
    rho, tau         correlation from one rung to the next, of effects and of a training's own part
    g                how much scores differ more (or less) from one rung to the next
    L, M, R, N       LENGTH_SCALE, MEAN_VARIANCE, RUNG_VARIANCE, NOISE

The covariance of the scores i and j, with h = |r[i] - r[j]|:

    k(i, j) = exp(-g (2 T - r[i] - r[j])) * ( (sum_d a[d] c_d + b w) rho^h + v [t[i] = t[j]] tau^h )
              + M rho^h + R [h = 0]                                                  (+ N [i = j])

    c_d = exp(-(x[i, d] - x[j, d])^2 / (2 L^2)), for a choice [x[i, d] = x[j, d]]
    w   = exp(-4 mean_d (x[i, d] - x[j, d])^2), for a choice 1 in the place of a difference

A multi-task Gaussian process (Bonilla et al., NIPS 2007), additive in the settings (Duvenaud et al., arXiv 1112.4394),
with rungs for tasks as in freeze-thaw optimisation (Swersky et al., arXiv 1406.3896).
"""

from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import Bounds, minimize
from torch import Tensor

Floats = NDArray[np.float64]

LENGTH_SCALE = 1.0  # in lengths of a number's range
NOISE = 1e-2  # variance of the noise; the variance of all scores is 1
MEAN_VARIANCE = 4.0  # of the mean of all recipes
RUNG_VARIANCE = 1.0  # of the mean at one rung
STEPS = 20  # of the optimiser
BOUND = 4.0  # that a hyperparameter may be from its prior mean, in prior standard deviations

# Normal priors, mean and standard deviation, of what is optimised: logarithms of variances, logits of correlations, a
# slope. The effects of the settings share a variance of 1.
EFFECT_DEVIATION = 1.5
OTHER_PRIORS = {"log v": (-0.5, 1.0), "logit rho": (2.0, 1.0), "logit tau": (1.0, 1.0), "g": (0.0, 0.2)}


@dataclass(frozen=True)
class Observations:
    """Scores, (n,) each: index of the recipe (row), rung (0 is the lowest), and score."""

    recipe: NDArray[np.int64]
    rung: Floats
    score: Floats


@dataclass(frozen=True)
class Hyperparameters:
    """Parameters that are fitted to the scores; the letters are those at the top of this file."""

    effect_variances: Tensor
    """(m + 1,): a, then b."""
    training_variance: Tensor
    """v"""
    rung_correlation: Tensor
    """rho"""
    training_rung_correlation: Tensor
    """tau"""
    growth: Tensor
    """g"""

    @classmethod
    def from_unbounded(cls, flat: Tensor) -> Self:
        """From logarithms, logits and the slope that the optimiser moves, (m + 5,)."""
        log_v, logit_rho, logit_tau, growth = flat[-len(OTHER_PRIORS) :]
        return cls(
            effect_variances=flat[: -len(OTHER_PRIORS)].exp(),
            training_variance=log_v.exp(),
            rung_correlation=torch.sigmoid(logit_rho),
            training_rung_correlation=torch.sigmoid(logit_tau),
            growth=growth,
        )


@dataclass(frozen=True)
class Similarities:
    """Ingredients of the covariance of some scores (rows) with the n that were seen."""

    settings: Tensor
    """(rows, n, m): c_d"""
    all_settings: Tensor
    """(rows, n): w"""
    same_training: Tensor
    """(rows, n): 1 where t is the same, else 0."""
    rungs_apart: Tensor
    """(rows, n): h"""
    rungs_below_top: Tensor
    """(rows, n): of both together, 2 T - r[i] - r[j]."""


def covariance(p: Hyperparameters, s: Similarities) -> Tensor:
    """k of the formula at the top of this file, (rows, n), without noise."""
    rho_h = p.rung_correlation**s.rungs_apart
    tau_h = p.training_rung_correlation**s.rungs_apart
    effects = (s.settings @ p.effect_variances[:-1] + p.effect_variances[-1] * s.all_settings) * rho_h
    own = s.same_training * p.training_variance * tau_h
    common = MEAN_VARIANCE * rho_h + RUNG_VARIANCE * (s.rungs_apart == 0)
    return torch.exp(-p.growth * s.rungs_below_top) * (effects + own) + common


class Surrogate:
    """A Gaussian process fitted to scores: hyperparameters are the most likely ones a posteriori (L-BFGS).

    Low scores are clipped: differences among the worst scores do not help to predict the best.
    `rows` (recipes, m) are as in search/samplers/encoding.py; `is_choice` (m,); `top` is the highest rung.
    """

    def __init__(
        self, rows: Floats, is_choice: NDArray[np.bool_], observations: Observations, top: int
    ) -> None:
        self.rows, self.is_choice, self.top, self.observations = rows, is_choice, top, observations
        low, high = np.quantile(observations.score, [0.25, 0.75])
        score = np.maximum(observations.score, low - 1.5 * (high - low))
        self.center, self.scale = float(score.mean()), float(score.std()) or 1.0
        self.score = (score - self.center) / self.scale
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # matrices this small take longer with more
        try:
            self.hyperparameters = self._maximum_a_posteriori()
            self._factorise()
        finally:
            torch.set_num_threads(threads)

    def predict(self, rows: Floats, recipes: NDArray[np.int64] | None = None) -> tuple[Floats, Floats]:
        """Mean and standard deviation at the top rung for the settings in `rows`, (rows,) each.

        `recipes` are the indices of observed trainings, whose own part is then included. For new trainings (None) the
        own part is unknown: the prediction is the effect of their settings.
        """
        p, top = self.hyperparameters, np.full(len(rows), float(self.top))
        new = np.array([-1]) if recipes is None else recipes
        k = covariance(p, self._similarities(rows, new, top)).numpy()
        explained = solve_triangular(self.factor[0], k.T, lower=True)
        own = 0.0 if recipes is None else p.training_variance
        prior = float(p.effect_variances.sum() + own) + MEAN_VARIANCE + RUNG_VARIANCE
        variance = np.maximum(prior - np.square(explained).sum(axis=0), 1e-9)
        return k @ self.weights * self.scale + self.center, np.sqrt(variance) * self.scale

    def with_pending(self, rows: Floats) -> Self:
        """A copy that counts trainings with these settings as ended with their predicted means.

        The "Kriging believer" of Ginsbourger et al., 2010; the hyperparameters stay.
        """
        other = copy(self)
        means, _ = self.predict(rows)
        numbers = np.arange(len(rows)) + len(self.rows)
        other.rows = np.concatenate([self.rows, rows])
        other.observations = Observations(
            np.concatenate([self.observations.recipe, numbers]),
            np.concatenate([self.observations.rung, np.full(len(rows), float(self.top))]),
            np.concatenate([self.observations.score, means]),
        )
        other.score = np.concatenate([self.score, (means - self.center) / self.scale])
        other._factorise()
        return other

    def _factorise(self) -> None:
        k = covariance(self.hyperparameters, self._similarities_of_observations()).numpy()
        self.factor = cho_factor(k + NOISE * np.eye(len(self.score)), lower=True)
        self.weights = cho_solve(self.factor, self.score)

    def _similarities_of_observations(self) -> Similarities:
        seen = self.observations
        return self._similarities(self.rows[seen.recipe], seen.recipe, seen.rung)

    def _similarities(self, rows: Floats, recipes: NDArray[np.int64], rung: Floats) -> Similarities:
        seen = self.observations
        difference = np.abs(rows[:, None] - self.rows[seen.recipe])
        squared = np.square(np.where(self.is_choice, difference > 0, difference))
        settings = np.where(self.is_choice, 1 - squared, np.exp(-squared / (2 * LENGTH_SCALE**2)))
        all_settings = np.exp(-4 * squared.mean(axis=2))
        same = (recipes[:, None] == seen.recipe).astype(np.float64) * np.ones_like(all_settings)
        return Similarities(
            settings=torch.from_numpy(settings),
            all_settings=torch.from_numpy(all_settings),
            same_training=torch.from_numpy(same),
            rungs_apart=torch.from_numpy(np.abs(rung[:, None] - seen.rung)),
            rungs_below_top=torch.from_numpy(2 * self.top - rung[:, None] - seen.rung),
        )

    def _maximum_a_posteriori(self) -> Hyperparameters:
        effects = len(self.is_choice) + 1
        priors = [(-np.log(effects), EFFECT_DEVIATION)] * effects + list(OTHER_PRIORS.values())
        prior_mean, deviation = torch.tensor(priors, dtype=torch.float64).unbind(1)
        similarities, score = self._similarities_of_observations(), torch.from_numpy(self.score)
        noise = NOISE * torch.eye(len(score), dtype=torch.float64)

        def loss(flat: Floats) -> tuple[float, Floats]:
            """Negative logarithm of the posterior, up to a constant, and its gradient."""
            unbounded = torch.from_numpy(flat.copy()).requires_grad_()
            k = covariance(Hyperparameters.from_unbounded(unbounded), similarities)
            factor = torch.linalg.cholesky(k + noise)
            white = torch.linalg.solve_triangular(factor, score[:, None], upper=False)
            misfit = white.square().sum() / 2 + factor.diagonal().log().sum()
            value = misfit + ((unbounded - prior_mean) / deviation).square().sum() / 2
            value.backward()
            assert unbounded.grad is not None
            return value.item(), unbounded.grad.numpy()

        bounds = Bounds(*((prior_mean + side * BOUND * deviation).numpy() for side in (-1, 1)))
        start = prior_mean.numpy()
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
        return Hyperparameters.from_unbounded(torch.from_numpy(found.x))
