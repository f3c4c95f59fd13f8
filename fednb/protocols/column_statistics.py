"""What each party's features look like on the rows of a frame: one column at a time, from each owner by itself.

    coordinator                                party, each by itself (values)
        ── run "column_statistics" ─────────────> missing, mean, sd, quantiles, levels and a histogram, a column each

Nothing passes between the parties. Figures are those of a column without extremes (see `outermost`), rounded to
about a thousandth of its range; a quantile is the mean of ten rows around it; counts below ten are not told, nor are
texts. Columns that are no numbers, hold one value or none are named, with the reason. Bins of the rows by tenths stay
with the owner, so that `bin_stability` can compare other rows with these.

| role | learns |
|---|---|
| party | nothing: the figures are its own |
| coordinator, analyst | of each column: its kind, missing values, mean, sd, seven quantiles, how many of its values |
|  | ten rows or more have, and a histogram with ten rows or more a bar |
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Integers, fit_cuts
from fednb.protocols.features import MIN_ROWS
from fednb.protocols.outermost import LEAST, held_in, varies
from fednb.protocols.rows import Floats
from fednb.protocols.scores import pooled, smooth_quantile
from fednb.typed import known
from fednb.wire.link import Link

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BARS = 16
BINS = 10  # for comparing other rows with these
MOST_LEVELS = 1_000
DIGITS = 3  # of the range, of which figures are told

# constant: but for fewer than ten rows; empty: fewer than ten rows have a value; few: too few values for figures
Kind = Literal["number", "constant", "empty", "few", "text", "date", "mixed", "infinite"]
Count = Annotated[int, Meta(ge=0)]


class StatisticsParams(Params):
    """The columns are those of the data."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One column, as its owner releases it."""

    name: str
    kind: Kind
    rows: Count
    missing: Count  # 0 where fewer than ten rows are missing
    some_missing: bool = False  # ... and this, if any is
    levels: Count = 0  # values that ten rows or more have, each; MOST_LEVELS at most
    others: bool = False  # ten rows or more have a value that fewer than ten share
    mean: float | None = None
    sd: float | None = None
    quantiles: Annotated[list[float], Meta(max_length=len(SHARES))] = []  # at SHARES
    edges: Annotated[list[float], Meta(max_length=BARS + 1)] = []
    counts: Annotated[list[Count], Meta(max_length=BARS)] = []
    note: str = ""  # why there are no figures


def party(link: Link, data: Dataset, params: StatisticsParams, run: RunContext) -> Outcome:
    if data.X is None:
        raise DataError(f"{link.me} brought no table of features.")
    X, names = np.asarray(data.X, dtype=np.float64), data.columns
    if len(X) < LEAST:
        raise DataError(f"{link.me} has {len(X)} rows in this frame; statistics need at least {LEAST}.")
    place = {name: j for j, name in enumerate(names)}
    found, fitted = [], []
    for step, name in enumerate([*names, *data.unfit], 1):
        run.check()
        if name in place:
            x = X[:, place[name]]
            found.append(numeric(name, x))
            if found[-1].kind == "number":
                fitted.append(_bins(name, x))
        else:
            kind, codes = data.unfit[name]
            found.append(of_levels(name, kind, codes))
        run.progress("describe", step, len(names) + len(data.unfit))
    part: dict[str, Any] = {key: [each[key] for each in fitted] for key in ("columns", "points", "woe", "bin", "rows")}
    return Outcome(
        private={**part, "special": []}, public={"rows": len(X), "columns": [msgspec.to_builtins(c) for c in found]}
    )


def numeric(name: str, x: Floats) -> Column:
    """A column of numbers, x [n], with NaN where a value is missing."""
    values = x[~np.isnan(x)]
    missing, some = _told(len(x) - len(values))
    if len(values) < MIN_ROWS:
        why = "every value is missing" if len(values) == 0 else f"fewer than {MIN_ROWS} rows have a value"
        return Column(name=name, kind="empty", rows=len(x), missing=len(x), note=why)
    if len(values) < LEAST:
        why = f"fewer than {LEAST} rows have a value: too few for figures"
        return Column(name=name, kind="few", rows=len(x), missing=missing, some_missing=some, note=why)
    levels, others = _levels(np.unique(values, return_counts=True)[1].astype(np.int64))
    held = held_in(values)
    if not varies(held):
        same = bool((values == values[0]).all())
        why = "every value is the same" if same else f"all but a few rows have the same value (fewer than {MIN_ROWS})"
        return Column(
            name=name, kind="constant", rows=len(x), missing=missing, some_missing=some, levels=levels, note=why
        )
    ordered = np.sort(held)
    low, high = (smooth_quantile(ordered, share) for share in (SHARES[0], SHARES[-1]))
    if low == high:  # a few rows, ten or more, have another value
        low, high = (smooth_quantile(ordered, share) for share in (0.0, 1.0))
    decimals = DIGITS - math.floor(math.log10(high - low))

    def rounded(value: float) -> float:
        return round(value, decimals)

    edges, counts = pooled(np.clip(values, low, high), np.linspace(low, high, BARS + 1))
    return Column(
        name=name,
        kind="number",
        rows=len(x),
        missing=missing,
        some_missing=some,
        levels=levels,
        others=others,
        mean=rounded(float(held.mean())),
        sd=rounded(float(held.std())),
        quantiles=[rounded(smooth_quantile(ordered, share)) for share in SHARES],
        edges=[rounded(edge) for edge in edges.tolist()],
        counts=counts.tolist(),
    )


def of_levels(name: str, kind: str, codes: Integers) -> Column:
    """A column that is no numbers; `codes` [n] says which rows have the same value, -1 where it is missing."""
    counts = np.bincount(codes[codes >= 0]).astype(np.int64)
    missing, some = _told(int((codes < 0).sum()))
    if int(counts.sum()) < MIN_ROWS:
        why = "every value is missing" if not counts.sum() else f"fewer than {MIN_ROWS} rows have a value"
        return Column(name=name, kind="empty", rows=len(codes), missing=len(codes), note=why)
    levels, others = _levels(counts)
    why = {
        "text": "it is text: encode it as numbers (one column for each category, say) to use it",
        "date": "it is a date: make a number of it (days since a fixed day, say) to use it",
        "mixed": "some of its values are numbers and others are text: see which are meant, and make all of one kind",
        "infinite": "some of its values are infinite: replace them to use it",
    }[kind]
    if kind == "text" and others and levels < 2:
        why += "; hardly any two rows share a value, as in a name or an id"
    return Column(
        name=name,
        kind=msgspec.convert(kind, known(Kind)),
        rows=len(codes),
        missing=missing,
        some_missing=some,
        levels=levels,
        others=others,
        note=why,
    )


def _told(missing: int) -> tuple[int, bool]:
    """How many are said to be missing, and whether it is some that are not counted."""
    return (missing, False) if missing >= MIN_ROWS or not missing else (0, True)


def _levels(counts: Integers) -> tuple[int, bool]:
    """Values that ten rows or more have; whether ten rows or more have others."""
    common = counts >= MIN_ROWS
    return min(int(common.sum()), MOST_LEVELS), int(counts[~common].sum()) >= MIN_ROWS


def _bins(name: str, x: Floats) -> dict[str, Any]:
    """As a binning keeps a column, without weights: see `vertical_binning.cuts_of`."""
    cuts = fit_cuts(x, bins=BINS, method="quantile", least=MIN_ROWS)
    rows = np.bincount(cuts.cells(x), minlength=cuts.size).astype(np.int64)
    return {
        "columns": name,
        "points": cuts.points,
        "woe": np.zeros(cuts.size),
        "bin": np.arange(cuts.size),
        "rows": rows,
    }


PROTOCOL = Protocol(
    name="column_statistics",
    version=1,
    params=StatisticsParams,
    roles={"party": Role(party, many=True, needs=("X", "missing", "unfit"), figures=True, columns=True)},
    learns={
        "party": "nothing new",
        "coordinator": "of each column its kind, missing values, mean, sd, quantiles and a histogram, over 10 rows "
        "or more",
    },
)
