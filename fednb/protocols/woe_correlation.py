"""Which of a party's own features say much the same: correlations of their weights of evidence, from each owner by
itself.

    coordinator                                party, each by itself (values; its part of a binning)
        ── run "woe_correlation" ───────────────> pairs of features whose |r| is above a bound, to two digits

| role | learns |
|---|---|
| party | nothing: the figures are its own |
| coordinator, analyst | which pairs of features of one party go together, and their correlation to two digits |

Correlations between parties are not computed here: they take a protocol of their own.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.link import Link

MIN_ROWS = 100  # a correlation of fewer rows is noise, and would tell something of single ones
DIGITS = 2


class CorrelationParams(Params):
    above: Annotated[float, Meta(ge=0.3, le=1)] = 0.8


def party(link: Link, data: Dataset, params: CorrelationParams, run: RunContext) -> Outcome:
    if "bin" not in data.part or "woe" not in data.part:
        raise DataError(f"{link.me} holds no binning of this run; fit one first.")
    if data.X is None or len(data.X) < MIN_ROWS:
        raise DataError(f"{link.me} has fewer than {MIN_ROWS} rows in this frame, too few for a correlation.")
    fitted = cuts_of(data.part)
    strange = [repr(name) for name in data.columns if name not in fitted]
    if strange:
        raise DataError(f"{link.me}'s binning was not fitted on {', '.join(strange)}; fit one on this frame.")
    W = np.column_stack([fitted[name][1][fitted[name][0].cells(data.X[:, j])] for j, name in enumerate(data.columns)])
    W = W - W.mean(axis=0)
    sd = W.std(axis=0)
    r = (W.T @ W) / len(W) / np.maximum(np.outer(sd, sd), 1e-300)
    pairs = [
        [data.columns[i], data.columns[j], round(float(r[i, j]), DIGITS)]
        for i in range(len(sd))
        for j in range(i + 1, len(sd))
        if sd[i] > 0 and sd[j] > 0 and abs(r[i, j]) > params.above
    ]
    run.progress("compare", 1, 1)
    return Outcome(public={"pairs": pairs})


PROTOCOL = Protocol(
    name="woe_correlation",
    version=1,
    params=CorrelationParams,
    roles={"party": Role(party, many=True, needs=("X", "missing", "part"), figures=True)},
    learns={"party": "nothing new", "coordinator": "pairs of a party's features that go together"},
)
