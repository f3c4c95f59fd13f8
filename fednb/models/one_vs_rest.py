"""Several classes by one binary regression each, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.models.logistic import VerticalLogisticRegression
from fednb.models.scores import Scores
from fednb.protocols.one_vs_rest import Classes, ClassFigures

if TYPE_CHECKING:
    import pandas as pd


class _Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    classes: Classes
    rows: list[int]


class VerticalOneVsRest(BaseEstimator):  # type: ignore[misc]
    """A logistic regression for each class of the label against all others; the most probable class is predicted.

    Each class has ten training rows or more. Every model that scores a row tells the label's party one more sum over
    its features, so there should be fewer classes than each passive party has features.

    Parameters
    ----------
    estimator : the regression that is cloned for each class.

    Attributes
    ----------
    classes_ : ndarray, the label's values; estimators_ : list of fitted regressions, in that order; label_ :
        "bank.grade".
    """

    def __init__(self, estimator: VerticalLogisticRegression) -> None:
        self.estimator = estimator

    def fit(self, frame: VerticalFrame, y: str) -> Self:
        """Train one model a class. Raises what the estimator raises, and DataError for a class of under ten rows."""
        active, label = frame.find_label(y)
        result = frame.federation.run(
            "label_classes",
            cast={"active": [active]},
            data={active: _label_of(frame, active, label)},
            title=f"Classes of {y}",
        )
        self.classes_ = np.array(result.read(active, _Found).classes)
        self.estimators_ = [clone(self.estimator).fit(frame, y, positive=value) for value in self.classes_.tolist()]
        self.label_ = y
        return self

    def evaluate(self, frame: VerticalFrame) -> ClassEvaluation:
        """Accuracy, log loss and a table of counts on the frame's rows, released as aggregates by the active party."""
        check_is_fitted(self, "estimators_")
        scores = [model.predict_proba(frame) for model in self.estimators_]
        return evaluate_classes(frame, self.label_, scores, self.classes_.tolist())


class ClassEvaluation:
    """Accuracy and log loss over all classes.

    Attributes
    ----------
    accuracy, log_loss : float; rows : int.
    """

    def __init__(self, figures: ClassFigures, classes: list[float]) -> None:
        self.rows, self.accuracy, self.log_loss = figures.rows, figures.accuracy, figures.log_loss
        self._counts, self._classes = figures.counts, classes

    def counts(self) -> pd.DataFrame:
        """Rows by true class (lines) and predicted class (columns); missing where there are fewer than ten."""
        import pandas as pd

        names: Any = pd.Index(self._classes, name="true")
        return pd.DataFrame(self._counts, index=names, columns=self._classes, dtype="Int64")

    def __repr__(self) -> str:
        return f"<ClassEvaluation: accuracy {self.accuracy:.4f}, log loss {self.log_loss:.4f}; {self.rows:,} rows>"


def evaluate_classes(
    frame: VerticalFrame, y: str, scores: Sequence[Scores], classes: Sequence[float]
) -> ClassEvaluation:
    """Have the holder of `scores` (one a class, or one of all) compare them with its label and release the figures."""
    active, label = frame.find_label(y)
    own = _label_of(frame, active, label)
    result = frame.federation.run(
        "one_vs_rest",
        cast={"active": [active]},
        data={active: msgspec.structs.replace(own, parts=[each.run for each in scores])},
        params={"classes": list(classes)},
        title=f"Evaluation on {len(frame)} rows",
    )
    return ClassEvaluation(result.read(active, ClassFigures), list(classes))


def _label_of(frame: VerticalFrame, active: str, label: str) -> DataRef:
    own = frame.refs()[active]
    return DataRef(frame=own.frame, rows=own.rows, columns=[], label=label)
