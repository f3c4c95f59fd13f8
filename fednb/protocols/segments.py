"""How well scores separate in each segment of the rows, by a column of the active party's.

    coordinator                         active (label, a column, scores of an earlier run)
        ── run "segments" ─────────────────> figures of each segment with ten rows of each class; small ones pooled

| role | learns |
|---|---|
| active | nothing new: scores, labels and the column are its own |
| coordinator, analyst | values with ten rows of each class; of each rows, positives, mean score, AUC, KS, intervals |

Segments that are too small are pooled, together with the smallest of the others if need be: one that was only left out
could be found by subtraction from figures of all rows.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.evaluation import MIN_ROWS, Estimate, Floats, ranking, scores_of
from fednb.protocols.features import check_label
from fednb.wire.link import Link

MOST = 50  # segments


class SegmentParams(Params):
    """The column is the only one in the data."""

    level: Annotated[float, Meta(gt=0, lt=1)] = 0.95  # of the intervals
    seed: int = 0  # of the bootstrap


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One segment, or several small ones together."""

    values: Annotated[list[float | None], Meta(max_length=MOST + 1)]  # None: missing; only those that are large enough
    others: bool  # and small ones: which, is not said
    rows: int
    positives: int
    auc: Estimate
    ks: Estimate
    mean_score: float


def active(link: Link, data: Dataset, params: SegmentParams, run: RunContext) -> Outcome:
    scores = scores_of(link.me, data)
    y = check_label(link.me, data.y, data.label, len(scores))
    if data.X is None or data.X.shape != (len(y), 1):
        raise DataError(f"{link.me} takes segments from one column of its own.")
    values, of_row = np.unique(data.X[:, 0], return_inverse=True)  # a missing value is the last one
    if len(values) > MOST + 1:
        raise DataError(
            f"{link.me}'s {data.columns[0]!r} has {len(values)} values, too many for segments. Save a table with a "
            f"column of at most {MOST}."
        )
    counts = [np.bincount(of_row, weights=c).astype(np.float64) for c in (1 - y, y)]
    groups, large = pooled(*counts), np.minimum(*counts) >= MIN_ROWS
    if not groups:
        raise DataError(f"{link.me} has no {MIN_ROWS} rows of each class to evaluate.")
    found = [_segment(group, values, large, np.isin(of_row, group), y, scores, params) for group in groups]
    run.progress("evaluate", 1, 1)
    return Outcome(public={"segments": msgspec.to_builtins(found)})


def pooled(negatives: Floats, positives: Floats) -> list[list[int]]:
    """Segments by number, each with MIN_ROWS of both classes; the small ones are together in the last."""
    fits = (negatives >= MIN_ROWS) & (positives >= MIN_ROWS)
    alone = [[int(k)] for k in np.flatnonzero(fits)]
    rest = [int(k) for k in np.flatnonzero(~fits)]
    if not rest:
        return alone
    by_size = sorted(alone, key=lambda group: float(min(negatives[group[0]], positives[group[0]])))
    while min(negatives[rest].sum(), positives[rest].sum()) < MIN_ROWS:
        if not by_size:
            return []
        smallest = by_size.pop(0)
        alone.remove(smallest)
        rest += smallest
    return [*alone, sorted(rest)]


def _segment(
    group: list[int],
    values: Floats,
    large: np.ndarray,
    rows: np.ndarray,
    y: Floats,
    scores: Floats,
    params: SegmentParams,
) -> Segment:
    label, own = y[rows], scores[rows]
    area, distance = ranking(label, own, params.level, np.random.default_rng(params.seed))
    return Segment(
        values=[None if np.isnan(values[k]) else float(values[k]) for k in group if large[k]],
        others=not large[group].all(),
        rows=len(label),
        positives=int(label.sum()),
        auc=area,
        ks=distance,
        mean_score=float(own.mean()),
    )


PROTOCOL = Protocol(
    name="segments",
    version=2,
    params=SegmentParams,
    roles={"active": Role(active, needs=("X", "missing", "y", "part"), figures=True)},
    learns={"active": "nothing new", "coordinator": "figures of segments with 10 rows of each class"},
)
