"""Whether features are still distributed as when they were binned: one index a feature, from each owner by itself.

    coordinator                                party, each by itself (values; its part of a binning)
        ── run "bin_stability" ─────────────────> Σ over bins (q - p) · ln(q / p), a number a feature

p is a bin's share of the rows of the fit, q its share of these rows. What belongs to no bin counts as one more. Half a
row is added to each count, so that an empty bin gives a large index and no infinite one. An index is rounded to two
digits: with more, two lots of rows that differ in one would tell that row's bin.

| role | learns |
|---|---|
| party | nothing: the figures are its own |
| coordinator, analyst | the population stability index of each feature, to two digits |
"""

from __future__ import annotations

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Floats, Integers
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.link import Link

MIN_ROWS = 100  # an index of fewer rows is noise, and would tell something of single ones

DIGITS = 2  # customary bounds are 0.1 and 0.25


class StabilityParams(Params):
    """Nothing to choose: the binning says it all."""


def index(then: Integers, now: Integers) -> float:
    """The population stability index of two lots of rows in the same bins, [bins] each."""
    p, q = _shares(then), _shares(now)
    return float(np.sum((q - p) * np.log(q / p)))


def _shares(rows: Integers) -> Floats:
    return np.asarray((rows + 0.5) / (rows.sum() + 0.5 * len(rows)))


def party(link: Link, data: Dataset, params: StabilityParams, run: RunContext) -> Outcome:
    if "bin" not in data.part or "rows" not in data.part:
        raise DataError(f"{link.me} holds no binning of this run; fit one first.")
    if data.X is None or len(data.X) < MIN_ROWS:
        raise DataError(f"{link.me} has fewer than {MIN_ROWS} rows in this frame, too few to tell a shift from chance.")
    then = dict(zip(data.part["columns"], data.part["rows"], strict=True))
    fitted = cuts_of(data.part)
    found = {}
    for j, name in enumerate(data.columns):
        if name not in fitted:
            raise DataError(f"{link.me}'s binning was not fitted on {name!r}; fit one on this frame.")
        cuts, _, bins = fitted[name]
        place = np.where(bins == NEUTRAL, bins.max(initial=NEUTRAL) + 1, bins)
        size = int(place.max()) + 1
        before = np.bincount(place, weights=np.asarray(then[name]), minlength=size).astype(np.int64)
        found[name] = index(before, np.bincount(place[cuts.cells(data.X[:, j])], minlength=size).astype(np.int64))
    run.progress("compare", 1, 1)
    return Outcome(public={"psi": {name: round(value, DIGITS) for name, value in found.items()}})


PROTOCOL = Protocol(
    name="bin_stability",
    version=1,
    params=StabilityParams,
    roles={"party": Role(party, many=True, needs=("X", "missing", "part"), figures=True)},
    learns={"party": "nothing new", "coordinator": "the population stability index of each feature"},
)
