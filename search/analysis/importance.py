"""Importance of settings for being a good trial: PED-ANOVA (arXiv 2304.10255, conditional settings 2601.20800)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from search.database import FrozenTrial, Study

TOP = 0.25  # share of the trials that count as good
# Optuna advises at least five good trials.
FEWEST_RANKED = 20
SHUFFLES = 39  # chance exceeds all of them once in 40 times
END = 100


@dataclass(frozen=True)
class Importance:
    """Shares that sum to 1, the largest first; none where there are too few trials to say."""

    trials: int
    percent: int
    """The rung at which all of these trials were compared, in percent of the budget; 100: the end."""
    shares: dict[str, float] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    """A limit for each share that a setting without any effect rarely exceeds."""


def setting_importance(study: Study) -> Importance:
    """Importances from the scores at the highest rung that enough trials have reached.

    Most trials of a good search are stopped early; the few others have similar settings. At an early
    rung more can be compared.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
    at = {
        percent: [(t, t.intermediate_values[percent]) for t in trials if percent in t.intermediate_values]
        for percent in {percent for trial in trials for percent in trial.intermediate_values}
    }
    at[END] = [
        (trial, trial.value)
        for trial in trials
        if trial.state == optuna.trial.TrialState.COMPLETE and trial.value is not None
    ]
    rungs = sorted(at, reverse=True)
    percent = next((rung for rung in rungs if len(at[rung]) >= FEWEST_RANKED), None)
    if percent is None:
        percent = max(rungs, key=lambda rung: (len(at[rung]), rung))
        return Importance(len(at[percent]), percent)
    return Importance(len(at[percent]), percent, *_weigh(at[percent]))


def _weigh(scored: Sequence[tuple[FrozenTrial, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Importances that sum to 1, the largest first, and for each the value that chance gives by the same measure.

    Chance: the largest importance of the setting in `SHUFFLES` random permutations of the scores.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=score)
            for trial, score in scored
        ]
    )
    scores = [score for _, score in scored]
    found, random = _measure(study, scores), Random(0)
    chance = dict.fromkeys(found, 0.0)
    for _ in range(SHUFFLES):
        random.shuffle(scores)
        for name, value in _measure(study, scores).items():
            chance[name] = max(chance[name], value)
    total = sum(found.values()) or 1.0
    ordered = sorted(found, key=lambda name: -found[name])
    return {name: found[name] / total for name in ordered}, {name: chance[name] / total for name in ordered}


def _measure(study: Study, scores: Sequence[float]) -> dict[str, float]:
    with warnings.catch_warnings():
        # Branches of a conditional space may have few trials; the values by chance show how much that matters.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(
            study,
            evaluator=PedAnovaImportanceEvaluator(target_quantile=TOP),
            target=lambda trial: -scores[trial.number],
            normalize=False,
        )
