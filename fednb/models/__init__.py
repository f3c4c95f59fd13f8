"""Models on vertical frames, with scikit-learn's conventions. Coordinator cells have these names preloaded."""

from __future__ import annotations

from fednb.models.binning import WoeBinning
from fednb.models.boosting import SecureBoostClassifier, SecureBoostRegressor
from fednb.models.coefficients import CoefficientSummary
from fednb.models.comparison import Comparison, ModelComparison, compare_models, compare_scores, score_stability
from fednb.models.correlation import FeatureCorrelation
from fednb.models.cost import Cost
from fednb.models.evaluation import Evaluation
from fednb.models.fit_quality import FitQuality
from fednb.models.linear import VerticalLinearRegression
from fednb.models.logistic import VerticalLogisticRegression
from fednb.models.one_vs_rest import ClassEvaluation, VerticalOneVsRest
from fednb.models.own import OwnLogisticRegression
from fednb.models.pipeline import VerticalPipeline
from fednb.models.poisson import VerticalPoissonRegression
from fednb.models.profile import FeatureProfile, profile_features
from fednb.models.regression import Withheld
from fednb.models.reject_inference import Parcelling, parcelling
from fednb.models.scorecard import Scorecard
from fednb.models.scores import Scores
from fednb.models.search import VerticalGridSearch, cross_validate
from fednb.models.segments import evaluate_by
from fednb.models.selection import select_features
from fednb.models.stability import feature_stability
from fednb.models.statistics import FeatureStatistics
from fednb.models.stepwise import ModelSelection, select_by_model
from fednb.models.transformers import (
    VerticalDateFeatures,
    VerticalImputer,
    VerticalLog,
    VerticalOneHotEncoder,
    VerticalRatio,
    VerticalScaler,
    VerticalWinsorizer,
)
from fednb.models.worth import partner_worth

__all__ = [
    "ClassEvaluation",
    "CoefficientSummary",
    "Comparison",
    "Cost",
    "Evaluation",
    "FeatureCorrelation",
    "FeatureProfile",
    "FeatureStatistics",
    "FitQuality",
    "ModelComparison",
    "ModelSelection",
    "OwnLogisticRegression",
    "Parcelling",
    "Scorecard",
    "Scores",
    "SecureBoostClassifier",
    "SecureBoostRegressor",
    "VerticalDateFeatures",
    "VerticalGridSearch",
    "VerticalImputer",
    "VerticalLinearRegression",
    "VerticalLog",
    "VerticalLogisticRegression",
    "VerticalOneHotEncoder",
    "VerticalOneVsRest",
    "VerticalPipeline",
    "VerticalPoissonRegression",
    "VerticalRatio",
    "VerticalScaler",
    "VerticalWinsorizer",
    "Withheld",
    "WoeBinning",
    "compare_models",
    "compare_scores",
    "cross_validate",
    "evaluate_by",
    "feature_stability",
    "parcelling",
    "partner_worth",
    "profile_features",
    "score_stability",
    "select_by_model",
    "select_features",
]
