"""Bayesian optimisation: expected improvement under a Gaussian process that also learns from low rungs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from search.samplers.base import PlannedSampler
from search.samplers.encoding import Encoding, Rows
from search.samplers.surrogate import Floats, Observations, Surrogate
from search.scheduler import TOP, LadderConfig

STARTUP = 6  # trials with scores before a surrogate is fitted
MOST_SCORES = 120  # limit for the fit of a surrogate; trials at higher rungs go first, then later ones
RANDOM_CANDIDATES = 150
BEST_TRIALS = 5  # that are mutated
MUTANTS = 8  # of each
ROUNDS = 10  # of mutating the candidates with the highest acquisition
KEPT_CANDIDATES = 10

Acquisition = Callable[[Rows], Floats]
"""Acquisition function of rows, (rows,); the recipe with the highest value is proposed."""


class GaussianSampler(PlannedSampler):
    """Proposes the recipe that is expected to improve most on the best one at the end of a training.

    The acquisition is expected improvement (Jones et al., 1998) over the best trial by the surrogate's prediction,
    weighted with the probability that all limits are kept (Gardner et al., ICML 2014). It is maximised by mutation:
    random recipes and mutants of the best trials, then in each round mutants of the best of these.
    Running trials count as if they had scored their predicted means, so that several workers do not propose the
    same recipe. A trial that diverged before its first rung gets the worst score of all.
    Until six trials have a score, recipes are random within the limits.
    """

    def __init__(self, recipe: Mapping[str, Any], ladder: LadderConfig, seed: int) -> None:
        super().__init__(seed)
        self._encoding = Encoding(recipe)
        self._levels = {percent: level for level, percent in enumerate(ladder.percents())}
        self._rng = np.random.default_rng(seed)

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Mapping[str, Any]:
        if not self._encoding.settings:
            return {}
        limits = self._limits([trial for trial in trials if trial.constraints])
        known, scores = self._scored(trials)
        improvement: Acquisition = _constant
        best = np.empty((0, len(self._encoding.settings)))
        if len(known) >= STARTUP:
            improvement, best = self._expected_improvement(known, scores, trials)
        elif not limits:
            return {}
        tried = {_key(row) for row in self._rows([trial for trial in trials if trial.params])}

        def acquisition(rows: Rows) -> Floats:
            value = improvement(rows)
            for limit in limits:
                excess, deviation = limit.predict(rows)
                value = value * norm.cdf(-excess / deviation)
            return np.where([_key(row) in tried for row in rows], -1.0, value)

        return self._encoding.decode(self._maximise(acquisition, best))

    def _expected_improvement(
        self,
        known: Sequence[FrozenTrial],
        scores: Sequence[Mapping[int, float]],
        trials: Sequence[FrozenTrial],
    ) -> tuple[Acquisition, Rows]:
        """Expected improvement over the best trial, in dB, and the rows of the best trials."""
        rows = self._rows(known)
        surrogate = Surrogate(rows, self._encoding.is_choice, _observations(scores), self._levels[TOP])
        finals, _ = surrogate.predict(rows, np.arange(len(rows)))
        if pending := [trial for trial in trials if trial.state == TrialState.RUNNING and trial.params]:
            surrogate = surrogate.with_pending(self._rows(pending))

        def improvement(rows: Rows) -> Floats:
            mean, deviation = surrogate.predict(rows)
            z = (mean - finals.max()) / deviation
            return np.asarray(deviation * (z * norm.cdf(z) + norm.pdf(z)))

        return improvement, rows[np.argsort(-finals, kind="stable")[:BEST_TRIALS]]

    def _maximise(self, acquisition: Acquisition, best: Rows) -> Rows:
        """The row with the highest acquisition found, starting from random rows and the best trials."""
        mutants = self._encoding.mutate(np.repeat(best, MUTANTS, axis=0), self._rng)
        rows = np.concatenate([self._encoding.sample(RANDOM_CANDIDATES, self._rng), mutants])
        value = acquisition(rows)
        for _ in range(ROUNDS):
            kept = np.argsort(-value, kind="stable")[:KEPT_CANDIDATES]
            mutants = self._encoding.mutate(np.repeat(rows[kept], MUTANTS, axis=0), self._rng)
            rows = np.concatenate([rows[kept], mutants])
            value = np.concatenate([value[kept], acquisition(mutants)])
        return np.asarray(rows[value.argmax()])

    def _rows(self, trials: Sequence[FrozenTrial]) -> Rows:
        return np.stack([self._encoding.encode(trial.params) for trial in trials])

    def _scored(self, trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[dict[int, float]]]:
        """At most `MOST_SCORES` scores by trial and rung; trials at higher rungs come first, then later ones."""
        scores = {trial.number: self._scores(trial) for trial in trials}
        worst = min((score for one in scores.values() for score in one.values()), default=0.0)
        for trial in trials:
            kept = all(excess <= 0 for excess in trial.constraints.values())
            if trial.state == TrialState.PRUNED and not scores[trial.number] and kept:
                scores[trial.number] = {0: worst}
        known = [trial for trial in trials if scores[trial.number]]
        known.sort(key=lambda trial: (max(scores[trial.number]), trial.number), reverse=True)
        total = np.cumsum([len(scores[trial.number]) for trial in known])
        fitted = [trial for trial, count in zip(known, total, strict=True) if count <= MOST_SCORES]
        return fitted, [scores[trial.number] for trial in fitted]

    def _scores(self, trial: FrozenTrial) -> dict[int, float]:
        reported = trial.intermediate_values.items()
        scores = {self._levels[percent]: score for percent, score in reported if percent in self._levels}
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            scores[self._levels[TOP]] = trial.value
        return {level: score for level, score in scores.items() if np.isfinite(score)}

    def _limits(self, trials: Sequence[FrozenTrial]) -> list[Surrogate]:
        """A surrogate for each limit that any of the latest trials exceeded; it predicts the excess."""
        trials = trials[-MOST_SCORES:]
        names = sorted({name for trial in trials for name, over in trial.constraints.items() if over > 0})
        found = []
        for name in names:
            measured = [trial for trial in trials if name in trial.constraints]
            excesses = [{0: trial.constraints[name]} for trial in measured]
            found.append(
                Surrogate(self._rows(measured), self._encoding.is_choice, _observations(excesses), top=0)
            )
        return found


def _constant(rows: Rows) -> Floats:
    return np.ones(len(rows))


def _key(row: Rows) -> bytes:
    """A hashable key; equal for rows that differ by rounding only."""
    return (np.round(row, 6) + 0.0).tobytes()


def _observations(scores: Sequence[Mapping[int, float]]) -> Observations:
    entries = [(n, level, score) for n, one in enumerate(scores) for level, score in one.items()]
    recipe, rung, score = (np.array(column) for column in zip(*entries, strict=True))
    return Observations(recipe.astype(np.int64), rung.astype(np.float64), score.astype(np.float64))
