"""Two models on the same rows, and the scores of one model at two times: what may be said of them beside each other.

    coordinator                         active (label, scores of two earlier runs)
        ── run "comparison" ───────────────> differences of AUC, KS and approvals, with their intervals
        ── run "score_stability" ──────────> one index, of two lots of rows

| role | learns |
|---|---|
| active | nothing new: scores and labels are its own |
| coordinator, analyst | rows, positives; differences over all rows and their intervals; one stability index |
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.bin_stability import DIGITS, index
from fednb.protocols.evaluation import RESAMPLES, Floats, ks_of, placements
from fednb.protocols.features import check_label
from fednb.wire.link import Link

LEAST = 100  # rows, and TEN of each class
TEN = 10
BINS = 10


class CompareParams(Params):
    bad_rate: Annotated[float, Meta(gt=0, lt=1)] | None = None  # among those approved; None: half of all rows' rate
    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95
    seed: int = 0  # of the bootstrap


class NoParams(Params):
    """Nothing to choose."""


class Difference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first model's figure, the second's, and the second's minus the first's with its interval."""

    first: float
    second: float
    change: float
    low: float
    high: float
    p: float  # of a change this large either way if there were none


class Compared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two models on the same rows."""

    rows: int
    positives: int
    bad_rate: float
    auc: Difference
    ks: Difference
    approved: Difference  # largest share of rows with at most `bad_rate` positives among them


def compare(
    y: Floats, first: Floats, second: Floats, *, bad_rate: float | None = None, level: float = 0.95, seed: int = 0
) -> Compared:
    """Differences of scores [n] against labels y [n] of 0 and 1.

    AUC by the covariance of placements (DeLong et al. 1988), KS and approvals by the standard error of paired
    bootstraps.
    """
    limit = float(y.mean()) / 2.0 if bad_rate is None else bad_rate
    a, b = placements(y, first), placements(y, second)
    change = [q - p for p, q in zip(a, b, strict=True)]
    error = math.sqrt(sum(c.var(ddof=1) / len(c) for c in change))
    rng, n = np.random.default_rng(seed), len(y)
    distances = [ks_of(y, scores) for scores in (first, second)]
    ordered = [(np.argsort(scores, kind="stable"), y) for scores in (first, second)]
    drawn = np.array(
        [
            [f(counts) for f in distances] + [approved(y, order, counts, limit) for order, _ in ordered]
            for counts in (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(RESAMPLES))
        ]
    )
    ones = np.ones(n)
    ks = [f(ones) for f in distances]
    share = [approved(y, order, ones, limit) for order, _ in ordered]
    return Compared(
        rows=n,
        positives=int(y.sum()),
        bad_rate=limit,
        auc=_difference(float(a[0].mean()), float(b[0].mean()), error, level),
        ks=_difference(ks[0], ks[1], float((drawn[:, 1] - drawn[:, 0]).std()), level),
        approved=_difference(share[0], share[1], float((drawn[:, 3] - drawn[:, 2]).std()), level),
    )


def approved(y: Floats, order: np.ndarray, counts: np.ndarray, limit: float) -> float:
    """The largest share of rows, lowest scores (`order`) first, with at most `limit` positives among them."""
    rows, bad = np.cumsum(counts[order]), np.cumsum((counts * y)[order])
    fits = np.flatnonzero(bad <= limit * rows)
    return float(rows[fits[-1]] / rows[-1]) if len(fits) else 0.0


def active(link: Link, data: Dataset, params: CompareParams, run: RunContext) -> Outcome:
    scores = _scores(link.me, data, 2)
    y = check_label(link.me, data.y, data.label, len(scores[0]))
    positives = int(y.sum())
    if len(scores[0]) != len(scores[1]) or len(y) < LEAST or min(positives, len(y) - positives) < TEN:
        raise DataError(
            f"{link.me} compares models on the same rows, {LEAST} or more with {TEN} of each class; here are "
            f"{len(scores[0])} and {len(scores[1])}."
        )
    run.progress("compare", 0, 1)
    found = compare(y, *scores, bad_rate=params.bad_rate, level=params.level, seed=params.seed)
    run.progress("compare", 1, 1)
    return Outcome(public=msgspec.to_builtins(found))


def stability(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    """The population stability index of scores then and now, over tenths of the scores then."""
    then, now = _scores(link.me, data, 2)
    if min(len(then), len(now)) < LEAST:
        raise DataError(f"{link.me} has {len(then)} and {len(now)} scores; an index needs {LEAST} each.")
    cuts = np.unique(np.quantile(then, np.arange(1, BINS) / BINS))
    counts = [np.bincount(np.searchsorted(cuts, x, side="right"), minlength=len(cuts) + 1) for x in (then, now)]
    run.progress("compare", 1, 1)
    return Outcome(public={"psi": round(index(counts[0], counts[1]), DIGITS)})


def _scores(party: str, data: Dataset, count: int) -> list[Floats]:
    if len(data.parts) != count or any("scores" not in part for part in data.parts):
        raise DataError(f"{party} holds no scores of these {count} runs; predict first.")
    return [np.asarray(part["scores"], dtype=np.float64) for part in data.parts]


def _difference(first: float, second: float, error: float, level: float) -> Difference:
    change, normal = second - first, NormalDist()
    reach = normal.inv_cdf(0.5 + level / 2.0) * error
    p = 2.0 * normal.cdf(-abs(change) / error) if error > 0 else float(change == 0)
    return Difference(first, second, change, change - reach, change + reach, p)


PROTOCOL = Protocol(
    name="comparison",
    version=1,
    params=CompareParams,
    roles={"active": Role(active, needs=("y",), figures=True)},
    learns={"active": "nothing new", "coordinator": "differences of AUC, KS and approvals over all rows"},
)
STABILITY = Protocol(
    name="score_stability",
    version=1,
    params=NoParams,
    roles={"active": Role(stability, needs=("part",), figures=True)},
    learns={"active": "nothing new", "coordinator": "one stability index, to two digits"},
)
