"""Which of its own features a party would leave out of a fitted regression: stepwise by AIC or BIC, or those at zero.

    coordinator                                party (its part of a run of `standard_errors`, or of a fit by L1)
        ── run "feature_choice" ────────────────> names of those to leave out, in their order

Stepwise selection usually fits a model a step. Each would score the training rows once more, and enough scores of a
row give a passive party's features away. But near its maximum the likelihood is a quadratic in the coefficients, and a
party knows it for its own: with coefficients b, their covariance V over all parties' features (see `standard_errors`)
and J = V⁻¹, a model that keeps K of them has a log-likelihood higher by hᵀJ⁻¹h/2 over K, where h = J·b, than one that
keeps none. So the steps take no other party and no further model (Lawless and Singhal 1978).

| role | learns |
|---|---|
| party | nothing: coefficients and covariance are its own |
| coordinator, analyst | which features it would leave out, in which order |
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.rows import Floats
from fednb.wire.link import Link

Direction = Literal["backward", "forward", "both"]
CHANGE = 1e-9  # of the criterion: less is no step


class ChoiceParams(Params):
    by: Literal["aic", "bic", "zero"] = "aic"
    direction: Direction = "backward"


def party(link: Link, data: Dataset, params: ChoiceParams, run: RunContext) -> Outcome:
    part = data.part
    if "coef" not in part or "columns" not in part:
        raise DataError(f"{link.me} holds no coefficients of this run; fit a model first.")
    coef = np.asarray(part["coef"], dtype=np.float64)
    columns = [str(name) for name in part["columns"]]
    if params.by == "zero":
        return Outcome(public={"dropped": [name for name, c in zip(columns, coef, strict=True) if c == 0.0]})
    if "covariance" not in part:
        raise DataError(f"{link.me} holds no covariance of its coefficients; have standard errors computed first.")
    price = 2.0 if params.by == "aic" else math.log(int(part["rows"]))
    covariance = np.asarray(part["covariance"], dtype=np.float64)
    run.progress("choose", 1, 1)
    return Outcome(public={"dropped": [columns[j] for j in dropped(coef, covariance, price, params.direction)]})


def dropped(coef: Floats, covariance: Floats, price: float, direction: Direction) -> list[int]:
    """Which of coefficients [d] with a covariance [d, d] to leave out, in the order of the steps.

    price : what a coefficient must add to twice the log-likelihood to stay: 2 for AIC, log n for BIC.
    direction : "backward" from all, "forward" from none, "both" from all with steps back.
    """
    d = len(coef)
    if not d:
        return []
    information = np.linalg.inv(covariance)
    h = information @ coef
    kept = [] if direction == "forward" else [*range(d)]
    out: list[int] = [*range(d)] if direction == "forward" else []
    while True:
        own = np.linalg.inv(information[np.ix_(kept, kept)])
        at = own @ h[kept]
        changes: list[tuple[float, int]] = []
        if direction != "forward":
            changes += [(float(at[i] ** 2 / own[i, i]) - price, j) for i, j in enumerate(kept)]
        if direction != "backward":
            for j in out:
                cross = information[j, kept]
                left = information[j, j] - cross @ own @ cross
                changes.append((price - float((h[j] - cross @ at) ** 2 / left), j))
        change, j = min(changes, default=(0.0, -1))
        if change >= -CHANGE:
            return out
        if j in kept:
            kept.remove(j)
            out.append(j)
        else:
            out.remove(j)
            kept = sorted([*kept, j])


PROTOCOL = Protocol(
    name="feature_choice",
    version=1,
    params=ChoiceParams,
    roles={"party": Role(party, needs=("part",), figures=True)},
    learns={"party": "nothing new", "coordinator": "which of its features it would leave out"},
)
