"""What partners' features are worth to the party that holds the label, on a sample and before any contract."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models.binning import WoeBinning
from fednb.models.comparison import Comparison, compare_scores
from fednb.models.logistic import VerticalLogisticRegression
from fednb.models.own import OwnLogisticRegression


def partner_worth(
    frame: VerticalFrame,
    y: str,
    *,
    estimator: Any = None,
    test_size: float | int = 0.3,
    random_state: int | None = 0,
    bad_rate: float | None = None,
) -> Comparison:
    """What the other parties of `frame` add to a model of the label's party: changes of AUC, KS and approvals.

    The same recipe twice on the same training rows: with the label's party's features alone, which nobody else takes
    part in, and with everybody's. Both are compared on rows that neither was fitted on. What is released are figures
    over all these rows, with intervals (DeLong's covariance, paired bootstrap); scores stay at the label's party.

    The frame is one on a sample that all owners agreed to, as a rule: each owner names the tables, protocols and
    partners of an analyst in its own file, and its policy refuses whatever else is asked.

    Parameters
    ----------
    estimator : a `VerticalLogisticRegression`, or a Pipeline that ends in one. None: weights of evidence before one.
    test_size, random_state : as in `VerticalFrame.split`.
    bad_rate : share of positives among those approved at which approvals are compared; None: half of all rows' rate.

    Returns a Comparison: `.table()`, and `.auc`, `.ks`, `.approved`, each with first, second, change, low, high and p.
    Raises DataError, Refused, QuotaExceeded.
    """
    party, _ = frame.find_label(y)
    partners = [name for name in frame.parties if name != party]
    if estimator is None:
        estimator = make_pipeline(WoeBinning(), VerticalLogisticRegression(standardize=False, clip=None))
    whole = clone(estimator)
    last = whole[-1] if isinstance(whole, Pipeline) else whole
    if not isinstance(last, VerticalLogisticRegression):
        raise DataError(
            f"a partner's worth is measured by logistic regression, and this ends in {type(last).__name__}. For other "
            "models compare the scores of two fits with compare_scores."
        )
    train, test = frame.split(test_size, random_state)
    if isinstance(whole, Pipeline) and len(whole) > 1:
        head = whole[:-1].fit(train, y)
        train, test = head.transform(train), head.transform(test)
    own = OwnLogisticRegression(
        last.C, standardize=last.standardize, clip=last.clip, class_weight=last.class_weight
    ).fit(train, y)
    last.fit(train, y)
    return compare_scores(
        own.predict_proba(test),
        last.predict_proba(test),
        y,
        bad_rate=bad_rate,
        names=(f"{party} alone", f"with {' and '.join(partners)}"),
    )
