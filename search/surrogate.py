"""What scores at low rungs and the settings say about the end of a training: a Gaussian process over both."""

from copy import copy
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import Bounds, minimize
from torch import Tensor

Floats = NDArray[np.float64]

REACH = 1.0  # over which scores stay alike, in lengths of a number's range
NOISE = 1e-2  # variance that nothing explains; the variance of all scores is 1
MEAN_VARIANCE = 4.0  # of what all recipes have in common
RUNG_VARIANCE = 1.0  # of what all have in common at one rung
STEPS = 20  # of the optimiser
FARTHEST = 4.0  # that a parameter may be from what is expected, in standard deviations of it

# What the parameters of a surrogate are expected to be, and the standard deviation of that: logarithms of
# variances, logits of correlations from one rung to the next, a slope. Of the effect of each setting and of
# all together (these share a variance of 1), then of what is a training's own.
EFFECT_DOUBT = 1.5
OWN = {"log variance": (-0.5, 1.0), "effects stay": (2.0, 1.0), "own stays": (1.0, 1.0), "grows": (0.0, 0.2)}


@dataclass(frozen=True)
class Observed:
    """Scores, (scores,) each: of which recipe (row), at which rung (0 is the lowest), and what came out."""

    recipe: NDArray[np.int64]
    rung: Floats
    score: Floats


class Surrogate:
    """Scores are a mean per rung, plus an effect of the settings, plus what is a training's own.

    The effect of the settings is a sum of one part for each setting and a part for all of them together; what
    is a training's own is its seed, and all that no setting says. Both change from rung to rung,
    and are the less alike the further apart these are: a rung that foretells little counts for little.
    Variances and correlations are the most likely ones given the scores and what is expected of them (maximum a
    posteriori, L-BFGS). A multi-task Gaussian process (Bonilla et al., NIPS 2007), additive in the settings
    (Duvenaud et al., arXiv 1112.4394), with rungs for tasks as in freeze-thaw optimisation (arXiv 1406.3896).

    `places` (recipes, settings) are as in search/places.py; `is_choice` (settings,); `top` is the highest rung.
    """

    def __init__(self, places: Floats, is_choice: NDArray[np.bool_], observed: Observed, top: int) -> None:
        self.places, self.is_choice, self.top, self.observed = places, is_choice, top, observed
        low, high = np.quantile(observed.score, [0.25, 0.75])
        # However bad the worst are, they are bad: how much says nothing about the best.
        score = np.maximum(observed.score, low - 1.5 * (high - low))
        self.center, self.scale = float(score.mean()), float(score.std()) or 1.0
        self.score = (score - self.center) / self.scale
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # matrices this small take longer with more
        try:
            self.parameters = self._most_likely()
            self._condition()
        finally:
            torch.set_num_threads(threads)

    def foretell(self, rows: Floats, recipes: NDArray[np.int64] | None = None) -> tuple[Floats, Floats]:
        """Mean and standard deviation at the top for the settings in `rows`, (rows,) each.

        With `recipes`, of the trainings that these are, own share included; else of new ones, whose own
        share nobody can know: what is meant is the effect of their settings.
        """
        top = np.full(len(rows), float(self.top))
        shared = self._covariance(
            self.parameters, *self._between(rows, np.array([-1]) if recipes is None else recipes, top)
        ).numpy()
        explained = solve_triangular(self.factor[0], shared.T, lower=True)
        effects = self.parameters[: len(self.is_choice) + 1].exp().sum()
        own = 0.0 if recipes is None else self.parameters[len(self.is_choice) + 1].exp()
        before = float(effects + own) + MEAN_VARIANCE + RUNG_VARIANCE
        variance = np.maximum(before - np.square(explained).sum(axis=0), 1e-9)
        return shared @ self.weights * self.scale + self.center, np.sqrt(variance) * self.scale

    def believing(self, rows: Floats) -> Self:
        """The same, as if trainings with these settings had ended as they are foretold to."""
        other = copy(self)
        means, _ = self.foretell(rows)
        numbers = np.arange(len(rows)) + len(self.places)
        other.places = np.concatenate([self.places, rows])
        other.observed = Observed(
            np.concatenate([self.observed.recipe, numbers]),
            np.concatenate([self.observed.rung, np.full(len(rows), float(self.top))]),
            np.concatenate([self.observed.score, means]),
        )
        other.score = np.concatenate([self.score, (means - self.center) / self.scale])
        other._condition()
        return other

    def _condition(self) -> None:
        covariance = self._covariance(self.parameters, *self._among()).numpy()
        self.factor = cho_factor(covariance + NOISE * np.eye(len(self.score)), lower=True)
        self.weights = cho_solve(self.factor, self.score)

    def _among(self) -> tuple[Tensor, ...]:
        return self._between(self.places[self.observed.recipe], self.observed.recipe, self.observed.rung)

    def _between(self, rows: Floats, recipes: NDArray[np.int64], rung: Floats) -> tuple[Tensor, ...]:
        """What the covariance of these with all that was observed is made of.

        How alike they are in each setting (rows, scores, settings), and in all together (rows, scores); whether they
        are the same training; and how many rungs are between, and below the top.
        """
        apart = np.abs(rows[:, None] - self.places[self.observed.recipe])
        apart = np.square(np.where(self.is_choice, apart > 0, apart))
        parts = np.where(self.is_choice, 1 - apart, np.exp(-apart / (2 * REACH**2)))
        whole = np.exp(-4 * apart.mean(axis=2))
        same = (recipes[:, None] == self.observed.recipe).astype(np.float64) * np.ones_like(whole)
        between = np.abs(rung[:, None] - self.observed.rung)
        below = 2 * self.top - rung[:, None] - self.observed.rung
        return tuple(torch.from_numpy(value) for value in (parts, whole, same, between, below))

    def _covariance(
        self, parameters: Tensor, parts: Tensor, whole: Tensor, same: Tensor, between: Tensor, below: Tensor
    ) -> Tensor:
        settings = len(self.is_choice)
        effects, together = parameters[:settings].exp(), parameters[settings].exp()
        own, stay, own_stays, grows = parameters[settings + 1 :]
        stays = torch.sigmoid(stay) ** between
        shared = (parts @ effects + together * whole) * stays
        alone = same * own.exp() * torch.sigmoid(own_stays) ** between
        spread = torch.exp(-grows * below)  # scores may differ more, or less, from one rung to the next
        mean = MEAN_VARIANCE * stays + RUNG_VARIANCE * (between == 0)
        return cast(Tensor, spread * (shared + alone) + mean)

    def _most_likely(self) -> Tensor:
        settings = len(self.is_choice) + 1
        effects = [-np.log(settings)] * settings
        expected = torch.tensor([*effects, *(mean for mean, _ in OWN.values())], dtype=torch.float64)
        doubt = torch.tensor(
            [EFFECT_DOUBT] * settings + [doubt for _, doubt in OWN.values()], dtype=torch.float64
        )
        inputs, score = self._among(), torch.from_numpy(self.score)
        noise = NOISE * torch.eye(len(score), dtype=torch.float64)

        def loss(flat: Floats) -> tuple[float, Floats]:
            parameters = torch.from_numpy(flat.copy()).requires_grad_()
            factor = torch.linalg.cholesky(self._covariance(parameters, *inputs) + noise)
            white = torch.linalg.solve_triangular(factor, score[:, None], upper=False)
            misfit = white.square().sum() / 2 + factor.diagonal().log().sum()
            value = misfit + ((parameters - expected) / doubt).square().sum() / 2
            value.backward()
            assert parameters.grad is not None
            return value.item(), parameters.grad.numpy()

        bounds = Bounds(*((expected + side * FARTHEST * doubt).numpy() for side in (-1, 1)))
        found = minimize(
            loss, expected.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS}
        )
        return torch.from_numpy(found.x)
