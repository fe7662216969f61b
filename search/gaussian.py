"""A sampler that learns from few trials, those at low rungs too: expected improvement under a Gaussian process."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from search.places import Places, Rows
from search.planned import PlannedSampler
from search.rungs import TOP, LadderConfig
from search.surrogate import Floats, Observed, Surrogate

STARTUP = 6  # trials with scores, before a surrogate is asked
MOST_SCORES = 120  # that a surrogate is fitted to: of the highest rungs, and the latest of the lowest
DRAWN = 150  # recipes at random that are weighed up
LEADERS = 5  # trials near which others are
NEAR = 8  # of each
ROUNDS = 10  # of variations of the most promising ones
PROMISING = 10

Worth = Callable[[Rows], Floats]


class GaussianSampler(PlannedSampler):
    """Proposes the recipe that is expected to improve most on the best one at the end of a training.

    Expected improvement (Jones et al., 1998) over the best trial as the surrogate sees it, weighted with the
    probability that all limits are kept (Gardner et al., ICML 2014), and made large by variation: random
    recipes and neighbours of the best trials, then neighbours of the most promising of these, round after round.
    Trials that others are at work on count as if they had scored what is foretold for them, so that several
    workers do not all propose the same. A trial that diverged before its first rung counts as bad as the worst.
    As long as fewer than six trials have a score, at random within the limits.
    """

    def __init__(self, recipe: Mapping[str, Any], ladder: LadderConfig, seed: int) -> None:
        super().__init__(seed)
        self._places = Places(recipe)
        self._levels = {percent: level for level, percent in enumerate(ladder.percents())}
        self._dice = np.random.default_rng(seed)

    def plan(self, trials: Sequence[FrozenTrial], number: int) -> Mapping[str, Any]:
        if not self._places.settings:
            return {}
        limits = self._limits([trial for trial in trials if trial.constraints])
        known, scores = self._scored(trials)
        improvement: Worth = _indifferent
        leaders = np.empty((0, len(self._places.settings)))
        if len(known) >= STARTUP:
            improvement, leaders = self._improvement(known, scores, trials)
        elif not limits:
            return {}
        tried = {_key(row) for row in self._rows([trial for trial in trials if trial.params])}

        def worth(rows: Rows) -> Floats:
            gain = improvement(rows)
            for limit in limits:
                excess, doubt = limit.foretell(rows)
                gain = gain * norm.cdf(-excess / doubt)
            return np.where([_key(row) in tried for row in rows], -1.0, gain)

        return self._places.params(self._best(worth, leaders))

    def _improvement(
        self,
        known: Sequence[FrozenTrial],
        scores: Sequence[Mapping[int, float]],
        trials: Sequence[FrozenTrial],
    ) -> tuple[Worth, Rows]:
        """What is expected of recipes beyond the best trial, in dB, and the rows of the best trials."""
        rows = self._rows(known)
        surrogate = Surrogate(rows, self._places.is_choice, _observed(scores), self._levels[TOP])
        finals, _ = surrogate.foretell(rows, np.arange(len(rows)))
        if at_work := [trial for trial in trials if trial.state == TrialState.RUNNING and trial.params]:
            surrogate = surrogate.believing(self._rows(at_work))

        def improvement(rows: Rows) -> Floats:
            mean, deviation = surrogate.foretell(rows)
            ahead = (mean - finals.max()) / deviation
            return np.asarray(deviation * (ahead * norm.cdf(ahead) + norm.pdf(ahead)))

        return improvement, rows[np.argsort(-finals, kind="stable")[:LEADERS]]

    def _best(self, worth: Worth, leaders: Rows) -> Rows:
        near = self._places.varied(np.repeat(leaders, NEAR, axis=0), self._dice)
        rows = np.concatenate([self._places.drawn(DRAWN, self._dice), near])
        value = worth(rows)
        for _ in range(ROUNDS):
            kept = np.argsort(-value, kind="stable")[:PROMISING]
            others = self._places.varied(np.repeat(rows[kept], NEAR, axis=0), self._dice)
            rows = np.concatenate([rows[kept], others])
            value = np.concatenate([value[kept], worth(others)])
        return np.asarray(rows[value.argmax()])

    def _rows(self, trials: Sequence[FrozenTrial]) -> Rows:
        return np.stack([self._places.row(trial.params) for trial in trials])

    def _scored(self, trials: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], list[dict[int, float]]]:
        """Trials with their scores by rung: those on the highest rungs, and the latest below."""
        scores = {trial.number: self._scores(trial) for trial in trials}
        worst = min((score for one in scores.values() for score in one.values()), default=0.0)
        for trial in trials:
            kept = all(excess <= 0 for excess in trial.constraints.values())
            if trial.state == TrialState.PRUNED and not scores[trial.number] and kept:
                scores[trial.number] = {0: worst}
        known = [trial for trial in trials if scores[trial.number]]
        known.sort(key=lambda trial: (max(scores[trial.number]), trial.number), reverse=True)
        room = np.cumsum([len(scores[trial.number]) for trial in known])
        telling = [trial for trial, count in zip(known, room, strict=True) if count <= MOST_SCORES]
        return telling, [scores[trial.number] for trial in telling]

    def _scores(self, trial: FrozenTrial) -> dict[int, float]:
        reported = trial.intermediate_values.items()
        scores = {self._levels[percent]: score for percent, score in reported if percent in self._levels}
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            scores[self._levels[TOP]] = trial.value
        return {level: score for level, score in scores.items() if np.isfinite(score)}

    def _limits(self, trials: Sequence[FrozenTrial]) -> list[Surrogate]:
        """How far recipes are over each limit that any of the latest trials was over."""
        trials = trials[-MOST_SCORES:]
        names = sorted({name for trial in trials for name, over in trial.constraints.items() if over > 0})
        found = []
        for name in names:
            told = [trial for trial in trials if name in trial.constraints]
            excesses = [{0: trial.constraints[name]} for trial in told]
            found.append(Surrogate(self._rows(told), self._places.is_choice, _observed(excesses), top=0))
        return found


def _indifferent(rows: Rows) -> Floats:
    return np.ones(len(rows))


def _key(row: Rows) -> bytes:
    """The same for rows that differ by rounding alone."""
    return (np.round(row, 6) + 0.0).tobytes()


def _observed(scores: Sequence[Mapping[int, float]]) -> Observed:
    entries = [(n, level, score) for n, one in enumerate(scores) for level, score in one.items()]
    recipe, rung, score = (np.array(column) for column in zip(*entries, strict=True))
    return Observed(recipe.astype(np.int64), rung.astype(np.float64), score.astype(np.float64))
