"""Models on vertical frames, with scikit-learn's conventions. Coordinator cells have these names preloaded."""

from __future__ import annotations

from fednb.models.binning import WoeBinning
from fednb.models.boosting import SecureBoostClassifier, SecureBoostRegressor
from fednb.models.cost import Cost
from fednb.models.evaluation import Evaluation
from fednb.models.logistic import VerticalLogisticRegression, Withheld
from fednb.models.scorecard import Scorecard
from fednb.models.scores import Scores

__all__ = [
    "Cost",
    "Evaluation",
    "Scorecard",
    "Scores",
    "SecureBoostClassifier",
    "SecureBoostRegressor",
    "VerticalLogisticRegression",
    "Withheld",
    "WoeBinning",
]
