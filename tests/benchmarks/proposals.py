"""Proposals for a simulated search: recorded configurations at random, or those of a sampler."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from search.samplers.make import SamplerWithAllTrials
from search.study import RandomSuggester, fill_leaves
from tests.benchmarks.curve_model import Answers, CurveModel
from tests.benchmarks.recording import Curve

Sampler = Callable[[int], optuna.samplers.BaseSampler]
"""From the number of a trial, as in search/samplers/make.py."""
Recipe = Mapping[str, Any]


class Proposer(Protocol):
    """Hands out configurations, numbered from 0 in their order."""

    def next(self) -> Curve | None:
        """The next configuration; None when there is none left."""

    def scored(self, number: int, percent: int, psnr_db: float) -> None:
        """It has a score at that share of its training."""

    def ended(self, number: int, psnr_db: float | None) -> None:
        """It has its final score; or none: it was pruned, or diverged."""


class IgnoresScores:
    """A proposer that ignores scores."""

    def scored(self, number: int, percent: int, psnr_db: float) -> None: ...
    def ended(self, number: int, psnr_db: float | None) -> None: ...


class Recorded(IgnoresScores):
    """The recorded configurations, each once, in random order."""

    def __init__(self, recorded: list[Curve], seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(recorded))
        self.left = [recorded[number] for number in order]

    def next(self) -> Curve | None:
        return self.left.pop() if self.left else None


class AtRandom(IgnoresScores):
    """Random configurations, with curves from the model."""

    def __init__(self, model: CurveModel, recipe: Recipe, seed: int) -> None:
        self.model, self.recipe = model, recipe
        self.suggester, self.rng = RandomSuggester(seed), np.random.default_rng(seed)

    def next(self) -> Curve:
        draw = Draw(self.suggester)
        fill_leaves(self.recipe, draw)
        return self.model.curve(draw.settings, self.rng)


class Draw(Answers):
    """Random settings."""

    def __init__(self, suggester: RandomSuggester) -> None:
        super().__init__()
        self.suggester = suggester

    def answer(self, name: str, distribution: BaseDistribution) -> Any:
        d = distribution
        if isinstance(d, optuna.distributions.CategoricalDistribution):
            return self.suggester.suggest_categorical(name, list(d.choices))
        if isinstance(d, optuna.distributions.IntDistribution):
            return self.suggester.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
        assert isinstance(d, optuna.distributions.FloatDistribution)
        return self.suggester.suggest_float(name, d.low, d.high, step=d.step, log=d.log)


class Sampled:
    """Configurations that an Optuna sampler proposes, their curves from the model.

    Paused trials are presented to it as in a real search.
    """

    def __init__(self, model: CurveModel, recipe: Recipe, sampler: Sampler, seed: int) -> None:
        self.model, self.recipe, self.sampler = model, recipe, sampler
        self.rng = np.random.default_rng(seed)
        self.study = optuna.create_study(direction="maximize")
        self.ids: list[int] = []

    def next(self) -> Curve:
        proposal = SamplerProposal(
            self.study, SamplerWithAllTrials(self.sampler(len(self.ids))), len(self.ids)
        )
        fill_leaves(self.recipe, proposal)
        trial = create_trial(
            state=TrialState.RUNNING, params=proposal.settings, distributions=proposal.distributions
        )
        self.ids.append(self.study._storage.create_new_trial(self.study._study_id, template_trial=trial))
        return self.model.curve(proposal.settings, self.rng)

    def scored(self, number: int, percent: int, psnr_db: float) -> None:
        self.study._storage.set_trial_intermediate_value(self.ids[number], percent, psnr_db)

    def ended(self, number: int, psnr_db: float | None) -> None:
        state = TrialState.PRUNED if psnr_db is None else TrialState.COMPLETE
        values = None if psnr_db is None else [psnr_db]
        self.study._storage.set_trial_state_values(self.ids[number], state=state, values=values)


class SamplerProposal(Answers):
    """Fills open settings with the proposal of a sampler, without a change to the study."""

    def __init__(self, study: optuna.Study, sampler: SamplerWithAllTrials, number: int) -> None:
        super().__init__()
        self.study, self.sampler = study, sampler
        self.trial = create_trial(state=TrialState.RUNNING)
        self.trial.number = number

    def answer(self, name: str, distribution: BaseDistribution) -> Any:
        return self.sampler.sample_independent(self.study, self.trial, name, distribution)
