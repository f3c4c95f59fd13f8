"""A model of the active party's own features: what it has without any partner, for comparison, and when one is missing.

    coordinator                         active (X_a, y)
        ── run "own_logistic" ─────────────> scikit-learn's logistic regression on its own rows; its part is kept
        ── run "own_score" ────────────────> scores of its own rows, kept

| role | learns |
|---|---|
| active | nothing new: features and labels are its own |
| coordinator, analyst | the active party's coefficients and intercept, as of a model with partners; number of rows |
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.features import check_features, check_label, check_training, fit_scaling
from fednb.protocols.separable import sigmoid
from fednb.protocols.vertical_score import own_part
from fednb.wire.link import Link

TOL = 1e-8
ITERATIONS = 10_000


class OwnParams(Params):
    C: Annotated[float, Meta(gt=0)] = 1.0
    standardize: bool = True
    clip: Annotated[float, Meta(gt=0)] | None = 4.0
    class_weight: Literal["balanced"] | tuple[float, float] | None = None  # of class 0 and class 1


class NoParams(Params):
    """Nothing to choose."""


def fit(link: Link, data: Dataset, params: OwnParams, run: RunContext) -> Outcome:
    from sklearn.linear_model import LogisticRegression

    X = check_features(link.me, data.X, data.columns)[slice(None)]
    if not data.columns:
        raise DataError(f"{link.me} has no features of its own in this frame.")
    check_training(link.me, X, data.columns)
    y = check_label(link.me, data.y, data.label, len(X))
    scaling = fit_scaling(X, standardize=params.standardize, clip=params.clip)
    weights = dict(enumerate(params.class_weight)) if isinstance(params.class_weight, tuple) else params.class_weight
    model = LogisticRegression(C=params.C, class_weight=weights, tol=TOL, max_iter=ITERATIONS)
    model.fit(scaling.apply(X), y)
    coef, intercept = np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0])
    run.progress("train", 1, 1)
    part = {"coef": coef, "columns": list(data.columns), "intercept": intercept, **scaling.to_part()}
    return Outcome(private=part, public={"coef": coef.tolist(), "intercept": intercept, "rows": len(y)})


def score(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    linear = own_part(link.me, data) + float(data.part["intercept"])
    run.progress("score", 1, 1)
    return Outcome(private={"scores": sigmoid(linear), "linear": linear}, public={"rows": len(linear)})


_LEARNS = {"active": "nothing new", "coordinator": "the active party's coefficients"}
PROTOCOL = Protocol(
    name="own_logistic",
    version=1,
    params=OwnParams,
    roles={"active": Role(fit, needs=("X", "y"), figures=True)},
    learns=_LEARNS,
)
SCORE = Protocol(
    name="own_score",
    version=1,
    params=NoParams,
    roles={"active": Role(score, needs=("X", "part"))},
    learns=_LEARNS,
)
