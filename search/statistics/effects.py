"""Effects of settings on the score, other settings being equal: an additive model, permutations, and bootstrap.

A search varies everything at once. The effect of one setting is read off a linear model of the scores with an
indicator for every group of every setting; how sure it is comes from drawing trials anew, and whether there is one
at all from shuffling what the model without the setting leaves over (Freedman and Lane 1983).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
FEWEST_TRIALS = 20  # trials
FEWEST_ON_A_SIDE = 5
TRIALS_PER_COLUMN = (
    3  # settings are left out of the model until there are so many trials for each group in it
)
SHUFFLES = 999
RESAMPLES = 999
SIGNIFICANCE = 0.05
FAR_OUT = 3.0  # robust standard deviations below the median: scores further down count as that
PER_CELL = 3  # trials in each corner of a pair of settings
OTHERS = "rare ones"


@dataclass(frozen=True)
class Effect:
    """The best group of a setting against the rest, in dB, other settings being equal."""

    best: str
    rest: tuple[str, ...]
    trials: int
    """Of the best group."""
    others: int
    gain_db: float
    low: float
    high: float
    chance: float
    """Share of the shuffles in which the groups differ as much: the p-value."""


@dataclass(frozen=True)
class SettingPair:
    """Two settings whose best groups together do better (or worse) than their single gains add up to."""

    first: str
    second: str
    groups: tuple[str, str]
    excess_db: float
    chance: float
    """Share of the shuffles in which the strongest of all pairs is as strong: the p-value."""
    trials: int


def limit_low_outliers(scores: Sequence[float]) -> Matrix:
    """The scores, with those far below the others raised to a lower limit: a failed training may give any low score."""
    values = np.asarray(scores, dtype=float)
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return np.maximum(values, middle - FAR_OUT * spread) if spread else values


def pool_rare_groups(groups: Sequence[str]) -> list[str]:
    """The groups, with all of too few trials joined into one."""
    counts = {name: groups.count(name) for name in set(groups)}
    return [name if counts[name] >= FEWEST_ON_A_SIDE else OTHERS for name in groups]


def estimate_effect(
    scores: Sequence[float], settings: Mapping[str, Sequence[str]], setting: str
) -> Effect | None:
    """The effect of `setting`; None where fewer than two groups have enough trials.

    `settings` holds the group of each trial for every setting; the others are taken into the model in
    their order, as far as the number of trials allows.
    """
    values, groups = limit_low_outliers(scores), pool_rare_groups(settings[setting])
    names = [name for name in sorted(set(groups)) if groups.count(name) >= FEWEST_ON_A_SIDE]
    if len(names) < 2 or len(values) < FEWEST_TRIALS:
        return None
    own = _indicators(groups)
    others = _other_settings(settings, setting, len(values) // TRIALS_PER_COLUMN - own.shape[1])
    design = np.hstack([others, own])
    levels = _levels(design, values[:, None], groups)[0]
    best = max(names, key=lambda name: levels[name])
    inside = np.array([group == best for group in groups])
    gains = _gains(others, own, inside, values)
    return Effect(
        best=best,
        rest=tuple(name for name in sorted(set(groups)) if name != best),
        trials=int(inside.sum()),
        others=int((~inside).sum()),
        gain_db=_gain(others, own, inside, values),
        low=float(np.quantile(gains, 0.025)),
        high=float(np.quantile(gains, 0.975)),
        chance=_chance(others, own, values),
    )


def strongest_pair(scores: Sequence[float], settings: Mapping[str, Sequence[str]]) -> SettingPair | None:
    """The pair of settings with the clearest interaction, of those with trials in all four corners; None without.

    A setting has two groups here: the group that does best in the additive model, and all others.
    """
    values = limit_low_outliers(scores)
    if len(values) < FEWEST_TRIALS:
        return None
    groups_by_setting = {name: pool_rare_groups(groups) for name, groups in settings.items()}
    design = _other_settings(settings, None, len(values) // TRIALS_PER_COLUMN)
    q = _basis(design)
    left = values - q @ (q.T @ values)
    best: dict[str, tuple[str, Matrix]] = {}
    for name, groups in groups_by_setting.items():
        if len(set(groups)) > 1:
            levels = _levels(np.hstack([design, _indicators(groups)]), values[:, None], groups)[0]
            top = max(levels, key=lambda group: levels[group])
            best[name] = (top, np.array([group == top for group in groups], dtype=float))
    columns, pairs = [], []
    for first, second in combinations(best, 2):
        a, b = best[first][1], best[second][1]
        if min((x * y).sum() for x in (a, 1 - a) for y in (b, 1 - b)) >= PER_CELL:
            product = a * b
            product = product - q @ (q.T @ product)
            if product @ product > 1e-6 * len(values):
                columns.append(product)
                pairs.append((first, second))
    if not pairs:
        return None
    matrix = np.stack(columns, axis=1)
    length = np.linalg.norm(matrix, axis=0)
    strength = np.abs(matrix.T @ left) / length
    rng = np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(left, (SHUFFLES, 1)), axis=1)
    reached = (np.abs(shuffled @ matrix) / length).max(axis=1)
    strongest = int(np.argmax(strength))
    first, second = pairs[strongest]
    return SettingPair(
        first,
        second,
        (best[first][0], best[second][0]),
        float(matrix[:, strongest] @ left / length[strongest] ** 2),
        (1 + int((reached >= strength[strongest] - 1e-12).sum())) / (SHUFFLES + 1),
        len(values),
    )


def holm_adjusted(chances: Sequence[float]) -> list[float]:
    """P-values corrected for multiple comparisons (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    adjusted, highest = [0.0] * len(chances), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, chances[index] * (len(chances) - place)))
        adjusted[index] = highest
    return adjusted


def _indicators(groups: Sequence[str]) -> Matrix:
    """A column for each group but the first, 1 for its trials."""
    names = sorted(set(groups))[1:]
    return np.array([[float(group == name) for name in names] for group in groups]).reshape(len(groups), -1)


def _other_settings(settings: Mapping[str, Sequence[str]], setting: str | None, most: int) -> Matrix:
    """A constant, and the indicators of as many settings other than `setting` as fit into `most` columns."""
    trials = len(next(iter(settings.values())))
    columns = [np.ones((trials, 1))]
    for name, groups in settings.items():
        block = _indicators(pool_rare_groups(groups))
        if name != setting and sum(c.shape[1] for c in columns) + block.shape[1] <= most:
            columns.append(block)
    return np.hstack(columns)


def _basis(design: Matrix) -> Matrix:
    """Orthonormal columns that span those of `design`."""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    return np.asarray(u[:, s > 1e-9 * s[0]], dtype=float)


def _levels(design: Matrix, values: Matrix, groups: Sequence[str]) -> list[dict[str, float]]:
    """For each column of values, what the model adds for each group; its last columns are theirs."""
    fitted = np.linalg.lstsq(design, values, rcond=None)[0]
    names = sorted(set(groups))
    own = fitted[len(fitted) - len(names) + 1 :]
    return [dict(zip(names, [0.0, *column], strict=True)) for column in own.T]


def _gain(others: Matrix, own: Matrix, inside: NDArray[np.bool_], values: Matrix) -> float:
    weights = np.ones((1, len(values)))
    return float(_weighted_gain(others, own, inside, values, weights)[0])


def _gains(others: Matrix, own: Matrix, inside: NDArray[np.bool_], values: Matrix) -> Matrix:
    """Bootstrap gains; trials are drawn within the best group and within the rest, so that neither is empty."""
    rng = np.random.default_rng(0)
    weights = np.zeros((RESAMPLES, len(values)))
    for side in (inside, ~inside):
        count = int(side.sum())
        weights[:, side] = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return _weighted_gain(others, own, inside, values, weights)


def _weighted_gain(
    others: Matrix, own: Matrix, inside: NDArray[np.bool_], values: Matrix, weights: Matrix
) -> Matrix:
    """Mean level of the best group less that of the rest, for each row of weights."""
    design = np.hstack([others, own])
    squares = np.einsum("np,nq->npq", design, design).reshape(len(values), -1)
    width = design.shape[1]
    normal = (weights @ squares).reshape(-1, width, width)
    right = weights @ (design * values[:, None])
    fitted = np.einsum("bpq,bq->bp", np.linalg.pinv(normal, rcond=1e-9, hermitian=True), right)
    levels = fitted[:, others.shape[1] :] @ own.T
    return np.asarray(
        (levels * weights * inside).sum(1) / (weights * inside).sum(1)
        - (levels * weights * ~inside).sum(1) / (weights * ~inside).sum(1)
    )


def _chance(others: Matrix, own: Matrix, values: Matrix) -> float:
    """The p-value: the share of shuffles in which the setting explains the residuals of the other settings as well."""
    base = _basis(others)
    more = _basis(np.hstack([others, own]))
    fitted = base @ (base.T @ values)
    left = values - fitted
    rng = np.random.default_rng(0)
    played = np.vstack([left, rng.permuted(np.tile(left, (SHUFFLES, 1)), axis=1)])
    unexplained = (played**2).sum(1) - ((played @ more) ** 2).sum(1)
    without = (played**2).sum(1) - ((played @ base) ** 2).sum(1)
    ratio = (without - unexplained) / np.maximum(unexplained, 1e-12 * max(float((left**2).sum()), 1e-300))
    return float((ratio >= ratio[0] * (1 - 1e-9)).mean())
