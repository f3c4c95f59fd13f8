"""What may be asked of scores that stay at the active party: a summary, or a table for its owner.

    coordinator                        active (scores of an earlier run)
        ── run "score_summary" ───────────> quantiles and a histogram, no bin with fewer than 10 rows
        ── run "score_table" ─────────────> a table at the active party, for its owner

| role | learns |
|---|---|
| active | nothing new: the scores are its own |
| coordinator, analyst | summary: count, mean, sd, nine deciles, counts of bins of 10 rows or more; table: its name |
"""

from __future__ import annotations

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link

MIN_ROWS = 10  # behind every released count


class NoParams(Params):
    """A summary needs none."""


class TableParams(Params):
    name: str  # of the table that the active party gets
    column: str = "score"


def summarise(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    """Deciles and a histogram of the scores."""
    scores = _scores(data)
    if scores.ndim != 1:
        raise DataError(f"{link.me} holds scores of several classes; a summary is of one. Save them as a table.")
    if len(scores) < 2 * MIN_ROWS:
        raise DataError(f"{link.me} has {len(scores)} scores; a summary needs at least {2 * MIN_ROWS}.")
    ordered = np.sort(scores)
    summary = {"mean": float(scores.mean()), "sd": float(scores.std())}
    summary |= {f"p{10 * k}": smooth_quantile(ordered, k / 10) for k in range(1, 10)}
    bins = min(20, len(scores) // MIN_ROWS)
    inner = [smooth_quantile(ordered, k / bins) for k in range(1, bins)]
    # the outer edges are the range of a probability, or means of ten rows: the true minimum is one row's score
    outer = (0.0, 1.0)
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        outer = (smooth_quantile(ordered, 0.0), smooth_quantile(ordered, 1.0))
    edges, counts = pooled(np.clip(scores, *outer), np.unique([outer[0], *inner, outer[1]]))
    return Outcome(public={"rows": len(scores), "summary": summary, "edges": edges.tolist(), "counts": counts.tolist()})


def tabulate(link: Link, data: Dataset, params: TableParams, run: RunContext) -> Outcome:
    """Hand the scores to their owner as a table with the ids of their rows."""
    scores = _scores(data)
    columns = {params.column: scores}
    if scores.ndim == 2:  # one column for each class
        columns = {f"{params.column}_{i}": scores[:, i] for i in range(scores.shape[1])}
    if "points" in data.part:  # of a scorecard
        columns["points"] = np.asarray(data.part["points"], dtype=np.float64)
    return Outcome(public={"table": params.name}, table=(params.name, columns))


def _scores(data: Dataset) -> np.ndarray:
    if "scores" not in data.part:
        raise DataError("the run named holds no scores; predict first.")
    return np.asarray(data.part["scores"], dtype=np.float64)


def smooth_quantile(ordered: np.ndarray, share: float) -> float:
    """The mean of the MIN_ROWS sorted values around a quantile: a plain quantile would be one row's own value."""
    middle = round(share * (len(ordered) - 1))
    low = int(np.clip(middle - MIN_ROWS // 2, 0, max(0, len(ordered) - MIN_ROWS)))
    return float(ordered[low : low + MIN_ROWS].mean())


def pooled(values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Histogram edges and counts, with neighbouring bins merged until each holds MIN_ROWS."""
    counts = np.histogram(values, edges)[0]
    kept_counts: list[int] = []
    kept_edges = [float(edges[0])]
    pending = 0
    for count, right in zip(counts, edges[1:], strict=True):
        pending += int(count)
        if pending >= MIN_ROWS:
            kept_counts.append(pending)
            kept_edges.append(float(right))
            pending = 0
    if pending:
        kept_counts[-1] += pending
        kept_edges[-1] = float(edges[-1])
    return np.array(kept_edges), np.array(kept_counts)


SUMMARY = Protocol(
    name="score_summary",
    version=1,
    params=NoParams,
    roles={"active": Role(summarise, needs=("part",), figures=True)},
    learns={"active": "nothing new", "coordinator": "deciles and pooled counts of the scores"},
)
TABLE = Protocol(
    name="score_table",
    version=1,
    params=TableParams,
    roles={"active": Role(tabulate, needs=("part",))},
    learns={"active": "nothing new", "coordinator": "that the table exists"},
)
