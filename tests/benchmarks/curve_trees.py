"""A model of learning curves for configurations that were not recorded: an ensemble of trees."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.benchmarks.curve_model import CurveModel
from tests.benchmarks.recording import Curve, Floats

TREES = 400
ASKED = 60
"""Trees that answer for one configuration: more take longer and say nearly the same."""


class TreeModel(CurveModel):
    """`CurveModel` with extremely randomised trees (Geurts et al., 2006) in place of ridge regression.

    Residuals are those of trees that did not see the configuration.
    """

    def __init__(self, recorded: Sequence[Curve], recipe: Mapping[str, Any]) -> None:
        super().__init__(recorded, recipe)
        try:
            from sklearn.ensemble import ExtraTreesRegressor
        except ImportError:
            raise SystemExit("--trees needs scikit-learn: pip install scikit-learn") from None
        targets = self.targets
        self.mean, self.deviation = targets.mean(axis=0), targets.std(axis=0)
        forest = ExtraTreesRegressor(
            TREES, min_samples_leaf=3, max_features=0.5, bootstrap=True, oob_score=True, random_state=0
        )
        forest.fit(self.filled, (targets - self.mean) / self.deviation)
        self.residuals = targets - (forest.oob_prediction_ * self.deviation + self.mean)
        self.trees = [tree.tree_ for tree in forest.estimators_[:ASKED]]

    def expected(self, encoded: Floats) -> Floats:
        row = encoded.astype(np.float32)[None]
        answers = [tree.predict(row)[0] for tree in self.trees]
        return np.asarray(np.mean(answers, axis=0)).reshape(-1) * self.deviation + self.mean
