"""How well predictions of numbers fit: R², errors, deviance, and their calibration by tenths of the rows.

    coordinator                         active (label, predictions of an earlier run)
        ── run "fit_quality" ──────────────> figures over all rows; means of ten rows or more

| role | learns |
|---|---|
| active | nothing new: predictions and labels are its own |
| coordinator, analyst | rows, R², root mean squared and mean absolute error, D²; means of tenths of the rows |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.features import check_numbers
from fednb.wire.link import Link

MIN_ROWS = 10  # behind each mean
LEAST = 50  # rows: figures of fewer would say something of single ones
BINS = 10

Floats = npt.NDArray[np.float64]
Means = Annotated[list[float], Meta(max_length=BINS)]


class QualityParams(Params):
    """Nothing to choose."""


class Quality(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures of predictions, weighted by the exposure where there is one."""

    rows: int
    r2: float
    rmse: float
    mae: float
    d2: float | None  # of counts
    predicted: Means
    observed: Means
    in_bin: Annotated[list[int], Meta(max_length=BINS)]


def assess(y: Floats, predicted: Floats, exposure: Floats | None = None, *, counts: bool = False) -> Quality:
    """Figures of `predicted` rates [n] against `y` [n] (per `exposure` [n]); with `counts` also of their deviance."""
    weight = np.ones(len(y)) if exposure is None else exposure
    rate = y / weight
    mean = float(np.average(rate, weights=weight))
    error = rate - predicted
    squares = float(np.average(error**2, weights=weight))
    ends = np.unique(np.rint(np.linspace(0, len(y), min(BINS, len(y) // MIN_ROWS) + 1)).astype(int))
    order = np.argsort(predicted, kind="stable")
    bins = [order[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    d2 = None
    if counts:
        d2 = 1.0 - _deviance(rate, predicted, weight) / _deviance(rate, np.full(len(y), mean), weight)
    return Quality(
        rows=len(y),
        r2=1.0 - squares / float(np.average((rate - mean) ** 2, weights=weight)),
        rmse=squares**0.5,
        mae=float(np.average(np.abs(error), weights=weight)),
        d2=d2,
        predicted=[float(np.average(predicted[rows], weights=weight[rows])) for rows in bins],
        observed=[float(np.average(rate[rows], weights=weight[rows])) for rows in bins],
        in_bin=[len(rows) for rows in bins],
    )


def active(link: Link, data: Dataset, params: QualityParams, run: RunContext) -> Outcome:
    if "scores" not in data.part or data.part.get("family", "logistic") == "logistic":
        raise DataError(f"{link.me} holds no predictions of numbers of that run; predict first.")
    predicted = np.asarray(data.part["scores"], dtype=np.float64)
    y = check_numbers(link.me, data.y, data.label, len(predicted))
    if len(y) < LEAST or y.std() == 0:
        raise DataError(f"{link.me} has {len(y)} rows; figures need {LEAST} whose labels differ.")
    exposure = None
    if data.columns:
        exposure = np.asarray(data.X)[:, 0]
        if not (exposure > 0).all():
            raise DataError(f"{link.me}'s exposure {data.columns[0]!r} must be above 0 in every row.")
    found = assess(y, predicted, exposure, counts=data.part["family"] == "poisson")
    run.progress("evaluate", 1, 1)
    return Outcome(public=msgspec.structs.asdict(found))


def _deviance(rate: Floats, mean: Floats, weight: Floats) -> float:
    """Twice the weighted mean of rate·ln(rate/mean) - rate + mean."""
    positive = rate > 0
    logs = np.where(positive, rate * np.log(np.where(positive, rate, 1.0) / mean), 0.0)
    return float(2.0 * np.average(logs - rate + mean, weights=weight))


PROTOCOL = Protocol(
    name="fit_quality",
    version=1,
    params=QualityParams,
    roles={"active": Role(active, needs=("X", "y", "part"), figures=True)},
    learns={"active": "nothing new", "coordinator": "R², errors, D², and means of at least 10 rows"},
)
