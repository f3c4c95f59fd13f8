"""How well scores separate: AUC, KS, Gini and log loss with their intervals, and curves of ten rows or more a point.

    coordinator                         active (label, scores of an earlier run)
        ── run "evaluation" ───────────────> figures and binned curves; no score, no label

`assess` is the same for arrays in one's own hands.

| role | learns |
|---|---|
| active | nothing new: scores and labels are its own |
| coordinator, analyst | rows, positives, the figures; rows and positives by bin of score, no bin below 10 rows |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link

MIN_ROWS = 10  # of each class, and behind each point of a curve
MAX_BINS = 100
CALIBRATION_BINS = 10
RESAMPLES = 300

Floats = npt.NDArray[np.float64]


class EvaluationParams(Params):
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95  # of the intervals
    seed: int = 0  # of the bootstrap


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Roc:
    """From (0, 0) to (1, 1), at the edges of bins of score."""

    fpr: list[float]
    tpr: list[float]
    threshold: list[float] = field(
        default_factory=list
    )  # of each point but the first: the mean of the ten scores there


@dataclass(frozen=True)
class Gains:
    """Share of all positives among the share of rows with the highest scores, from (0, 0) to (1, 1)."""

    rows: list[float]
    positives: list[float]


@dataclass(frozen=True)
class Calibration:
    """Mean predicted probability and share of positives by bin of score, lowest first."""

    predicted: list[float]
    observed: list[float]
    rows: list[int]


@dataclass(frozen=True)
class Assessment:
    """What may be said of scores without showing them."""

    rows: int
    positives: int
    level: float
    auc: Estimate
    ks: Estimate
    gini: Estimate
    log_loss: Estimate
    roc: Roc
    gains: Gains
    calibration: Calibration
    brier: Estimate | None = None  # mean squared difference of probability and label


def assess(
    y: npt.ArrayLike, scores: npt.ArrayLike, *, level: float = 0.95, rng: np.random.Generator | None = None
) -> Assessment:
    """Figures of probabilities `scores` [n] against labels `y` [n] of 0 and 1.

    Intervals: AUC by DeLong et al. 1988, KS by a bootstrap's standard error (a percentile interval of a maximum would
    be biased upwards), log loss and Brier score by their standard errors. Raises ValueError for fewer than 10 rows of a
    class.
    """
    label = np.asarray(y, dtype=np.float64)
    p = np.asarray(scores, dtype=np.float64)
    _check(label, p)
    rng = rng or np.random.default_rng(0)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    area, ks = ranking(label, p, level, rng)
    safe = np.clip(p, 1e-15, 1.0 - 1e-15)
    losses = -np.where(label == 1, np.log(safe), np.log1p(-safe))
    return Assessment(
        rows=len(label),
        positives=int(label.sum()),
        level=level,
        auc=area,
        ks=ks,
        gini=Estimate(2 * area.value - 1, 2 * area.low - 1, 2 * area.high - 1),
        log_loss=_mean(losses, z),
        brier=_mean((p - label) ** 2, z),
        **_curves(label, p),
    )


def ranking(y: Floats, scores: Floats, level: float, rng: np.random.Generator) -> tuple[Estimate, Estimate]:
    """AUC and KS with their intervals."""
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    (area, area_error), (distance, error) = delong(y, scores), _ks(y, scores, rng)
    return _estimate(area, area_error, z, 0.0, 1.0), _estimate(distance, error, z, 0.0, 1.0)


def active(link: Link, data: Dataset, params: EvaluationParams, run: RunContext) -> Outcome:
    scores = scores_of(link.me, data)
    if data.y is None:
        raise DataError(f"{link.me} brought no label to evaluate against.")
    run.progress("evaluate", 0, 1)
    try:
        said = assess(data.y, scores, level=params.level, rng=np.random.default_rng(params.seed))
    except ValueError as error:
        raise DataError(f"{link.me}'s scores cannot be evaluated: {error}") from None
    run.progress("evaluate", 1, 1)
    return Outcome(public=dataclasses.asdict(said))


def scores_of(party: str, data: Dataset) -> Floats:
    """[n] probabilities of an earlier run, or of several over disjoint rows, one after the other."""
    parts = data.parts or (data.part,)
    if any("scores" not in part for part in parts):
        raise DataError(f"{party} holds no scores of that run; predict first.")
    if any(part.get("family", "logistic") != "logistic" for part in parts):
        raise DataError(f"{party}'s scores of that run are no probabilities; use the model's own evaluate.")
    return np.concatenate([np.asarray(part["scores"], dtype=np.float64) for part in parts])


def auc(y: Floats, scores: Floats) -> float:
    """Share of pairs of a positive and a negative row in which the positive one scores higher."""
    positives = y == 1
    m = int(positives.sum())
    return float((midranks(scores)[positives].mean() - (m + 1) / 2.0) / (len(y) - m))


def delong(y: Floats, scores: Floats) -> tuple[float, float]:
    """AUC and its standard error (DeLong et al. 1988, by midranks as in Sun and Xu 2014)."""
    above, below = placements(y, scores)
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    return float(above.mean()), float(math.sqrt(variance))


def placements(y: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """For each positive, the share of negatives that it beats; for each negative, of positives that beat it."""
    positive, negative = scores[y == 1], scores[y == 0]
    ranks = midranks(scores)
    above = (ranks[y == 1] - midranks(positive)) / len(negative)
    return above, 1.0 - (ranks[y == 0] - midranks(negative)) / len(positive)


def midranks(x: Floats) -> Floats:
    """Ranks from 1, ties in their middle."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def _ks(y: Floats, scores: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Largest distance of the two classes' distributions of scores, and its standard error."""
    distance, n = ks_of(y, scores), len(y)
    drawn = [distance(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(RESAMPLES)]
    return distance(np.ones(n)), float(np.std(drawn))


def ks_of(y: Floats, scores: Floats) -> Callable[[npt.NDArray[Any]], float]:
    """KS as a function of how often each row counts, [n]."""
    order = np.argsort(scores, kind="stable")
    label = y[order]
    ends = np.flatnonzero(np.diff(scores[order], append=np.inf))  # last row of each run of equal scores

    def distance(weight: npt.NDArray[Any]) -> float:
        of_positive, of_all = np.cumsum(weight * label)[ends], np.cumsum(weight)[ends]
        positives, rows = of_positive[-1], of_all[-1]
        if not 0 < positives < rows:
            return 0.0
        return float(np.abs(of_positive / positives - (of_all - of_positive) / (rows - positives)).max())

    return lambda counts: distance(counts[order])


def _curves(y: Floats, scores: Floats) -> dict[str, Any]:
    """Curves at the edges of bins of equal scores that hold MIN_ROWS rows or more, highest scores first."""
    order = np.argsort(-scores, kind="stable")
    label, ordered = y[order], scores[order]
    rows = _bin_ends(ordered, MAX_BINS)
    positives = np.cumsum(label)[rows - 1]
    total, n = label.sum(), len(label)
    roc = Roc(
        fpr=[0.0, *((rows - positives) / (n - total)).tolist()],
        tpr=[0.0, *(positives / total).tolist()],
        threshold=[_around(ordered, end) for end in rows.tolist()],
    )
    gains = Gains(rows=[0.0, *(rows / n).tolist()], positives=[0.0, *(positives / total).tolist()])
    ends = _bin_ends(ordered, CALIBRATION_BINS)
    sizes = np.diff(ends, prepend=0)
    calibration = Calibration(
        predicted=(np.diff(np.cumsum(ordered)[ends - 1], prepend=0.0) / sizes)[::-1].tolist(),
        observed=(np.diff(np.cumsum(label)[ends - 1], prepend=0.0) / sizes)[::-1].tolist(),
        rows=sizes[::-1].tolist(),
    )
    return {"roc": roc, "gains": gains, "calibration": calibration}


def _around(ordered: Floats, end: int) -> float:
    """The mean of MIN_ROWS sorted scores around a place: a score there would be one row's own."""
    low = max(0, min(end - MIN_ROWS // 2, len(ordered) - MIN_ROWS))
    return float(ordered[low : low + MIN_ROWS].mean())


def _bin_ends(ordered: Floats, bins: int) -> npt.NDArray[np.int64]:
    """How many rows lie up to the end of each bin of sorted scores; equal scores share a bin."""
    n = len(ordered)
    bins = max(1, min(bins, n // MIN_ROWS))
    whole = np.append(np.flatnonzero(np.diff(ordered)) + 1, n)  # where a bin may end without parting equal scores
    wanted = np.rint(np.arange(1, bins + 1) * n / bins).astype(np.int64)
    ends = np.unique(whole[np.searchsorted(whole, wanted)])
    kept: list[int] = []
    for end in ends.tolist():
        if end - (kept[-1] if kept else 0) >= MIN_ROWS:
            kept.append(end)
    if kept[-1] != n:
        kept[-1] = n
    return np.array(kept, dtype=np.int64)


def _mean(values: Floats, z: float) -> Estimate:
    return _estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))), z, 0.0, math.inf)


def _estimate(value: float, error: float, z: float, lowest: float, highest: float) -> Estimate:
    return Estimate(value, max(lowest, value - z * error), min(highest, value + z * error))


def _check(y: Floats, scores: Floats) -> None:
    if y.ndim != 1 or y.shape != scores.shape:
        raise ValueError(f"{y.size} labels and {scores.size} scores do not belong together")
    if not bool(np.isin(y, (0.0, 1.0)).all()):
        raise ValueError("labels must be 0 or 1")
    if not bool(np.all((scores >= 0) & (scores <= 1))):
        raise ValueError("scores must be probabilities between 0 and 1")
    positives = int(y.sum())
    if min(positives, len(y) - positives) < MIN_ROWS:
        raise ValueError(f"{positives} of {len(y)} rows are positive, and at least {MIN_ROWS} of each class are needed")


PROTOCOL = Protocol(
    name="evaluation",
    version=1,
    params=EvaluationParams,
    roles={"active": Role(active, needs=("y", "part"), figures=True)},
    learns={"active": "nothing new", "coordinator": "AUC, KS, Gini, log loss and curves of at least 10 rows a point"},
)
