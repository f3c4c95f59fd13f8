"""Other bins for features that were binned before: some are joined or parted, and counted anew.

    recount        the exchange of `vertical_binning`, for the features of passive parties that change
    own_recount    the active party by itself, on its own features

A passive party's bins are changed by cell: the fit cut each column into numbered cells with ten rows of both
classes, and a bin begins at those cells that are named. So every recount is about unions of the same cells: whatever is
asked in a row, no difference is about fewer rows or one class, and nobody needs a value. What is counted is the new
bins, one encrypted sum each, against the same quota. A party of the run is told which cells belong together by the
place of a column among those that change, not by name.

The active party's own features may be cut at values instead. Edges so close to those that somebody chose before that
fewer than ten rows lie between are refused: the difference of two counts would tell of these rows.

A bin with one class only is joined with its neighbour, as in a fit with merge="none".

| role | learns |
|---|---|
| active | of each passive party: rows and positives of each new bin of the features that change; no name or value |
| passive | of these features of its own: the positives of each bin; all positives; never a label |
| coordinator | rows; each passive party's number of new bins; otherwise uniform random bits |
| coordinator, analyst | of each feature that changes: information value, rows and positives of each bin |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols import vertical_binning
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Cuts, Floats, Integers, fit_cuts
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.features import MIN_ROWS, check_label
from fednb.protocols.vertical_binning import Feature, bins_by, cuts_of, follow, lead, positives_of
from fednb.wire.link import Link

MOST_EDGES = 100
KEPT = ("columns", "points", "woe", "bin", "rows", "atoms", "special", "given", "label")  # of a binning's part

Starts = Annotated[list[Annotated[int, Meta(ge=1, le=MOST_EDGES)]], Meta(max_length=MOST_EDGES)]
Edges = Annotated[list[float], Meta(max_length=MOST_EDGES)]


class RecountParams(Params):
    # party -> for each of the columns that it brings: the cells, from 0, at which a new bin begins
    starts: dict[str, list[Starts]] = {}
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits


class OwnRecountParams(Params):
    # for each of the columns that it brings: cells as above, or the values at which a new bin begins
    starts: list[Starts | None] = []
    edges: list[Edges | None] = []


def active(link: Link, data: Dataset, params: RecountParams, run: RunContext) -> Outcome:
    y = check_label(link.me, data.y, data.label, 0 if data.y is None else len(data.y))
    lead(link, y, params, run, bins_by(y, "none", MIN_ROWS, MOST_EDGES))
    return Outcome(public={"rows": len(y)})


def passive(link: Link, data: Dataset, params: RecountParams, run: RunContext) -> Outcome:
    starts = params.starts.get(link.me, [])
    if not starts:
        raise DataError(f"{link.me} was asked to count none of its features anew.")
    own = _features(link.me, data, starts, [None] * len(starts))
    return _outcome(link.me, data, own, follow(link, own, params, run))


def own(link: Link, data: Dataset, params: OwnRecountParams, run: RunContext) -> Outcome:
    features = _features(link.me, data, params.starts, params.edges)
    y = check_label(link.me, data.y, data.label, len(data.X))
    for name, feature, edges in zip(data.columns, features, params.edges, strict=True):
        if edges is not None:
            run.apart(name, feature.cells)
    bins_of = bins_by(y, "none", MIN_ROWS, MOST_EDGES)
    all_positives = int(y.sum())
    results = [f.result(*bins_of(f.ordered, f.rows, positives_of(f, y)), len(y), all_positives) for f in features]
    run.progress("count", 1, 1)
    return _outcome(link.me, data, features, results)


def _features(
    party: str, data: Dataset, starts: list[Starts] | list[Starts | None], edges: list[Edges | None]
) -> list[Feature]:
    """The columns that change, by their new bins. DataError where they cannot be."""
    part = data.part
    if "woe" not in part or "points" not in part or "atoms" not in part:
        raise DataError(f"{party} holds no binning of this run; fit one first.")
    if data.X is None or len(starts) != len(data.columns) or len(edges) != len(data.columns):
        raise DataError(f"{party} was asked for new bins of {len(starts)} features, and brought {len(data.columns)}.")
    fitted, then = cuts_of(part), dict(zip(part["columns"], part["rows"], strict=True))
    given, parts = set(part["given"]), dict(zip(part["columns"], part["atoms"], strict=True))
    found = []
    for j, name in enumerate(data.columns):
        if name not in fitted:
            raise DataError(f"{party}'s binning was not fitted on {name!r}; fit one on this frame.")
        cuts, x = fitted[name][0], np.asarray(data.X[:, j], dtype=np.float64)
        rows = np.bincount(cuts.cells(x), minlength=cuts.size)
        if not np.array_equal(rows, np.asarray(then[name])):
            raise DataError(f"these are not the rows that {party}'s {name!r} was binned on. Use the frame of the fit.")
        at, cells = edges[j], starts[j]
        if (at is None) == (cells is None):
            raise DataError(f"new bins of {party}'s {name!r} are given either by cells or by values.")
        if at is not None:
            found.append(_cut_at(party, name, x, cuts, at))
        else:
            atoms = np.asarray(parts[name])
            units = _units(party, name, cuts, atoms, cells or [])
            found.append(Feature.of(cuts, x, units, given=name in given, atoms=atoms))
    return found


def _units(party: str, name: str, cuts: Cuts, atoms: Integers, starts: Starts) -> Integers:
    """Which new bin each cell belongs to; missing and special values stay by themselves."""
    last = max(0, int(atoms.max(initial=NEUTRAL)))
    beyond = [str(cell) for cell in starts if cell > last]
    if beyond:
        raise DataError(f"{party}'s {name!r} has cells 0 to {last}, and no {', '.join(beyond)}.")
    joined = np.searchsorted(np.unique(np.asarray(starts, dtype=np.int64)), atoms, side="right")
    return np.concatenate([joined, joined[-1] + 1 + np.arange(cuts.size - cuts.ordered)]).astype(np.int64)


def _cut_at(party: str, name: str, x: Floats, before: Cuts, edges: Edges) -> Feature:
    if not np.isfinite(edges).all():
        raise DataError(f"edges of {party}'s {name!r} must be finite numbers.")
    cuts = fit_cuts(x, bins=2, method="quantile", least=MIN_ROWS, special=before.special, given=edges)
    lost = sorted({float(edge) for edge in edges} - set(cuts.points.tolist()))
    if lost:
        named = ", ".join(f"{edge:g}" for edge in lost)
        raise DataError(
            f"{party}'s {name!r} has fewer than {MIN_ROWS} rows between {named} and a neighbouring edge or end. "
            "Use fewer edges, or such as are further away."
        )
    return Feature.of(cuts, x, given=True)


def _outcome(party: str, data: Dataset, features: list[Feature], results: list[dict[str, Any]]) -> Outcome:
    """The party's part of the binning with the new bins in place of the old, and these for everybody."""
    part = {name: data.part[name] for name in KEPT if name in data.part}
    columns = [str(name) for name in part["columns"]]
    changed = dict(zip(data.columns, results, strict=True))
    kept: dict[str, list[Any]] = {
        what: [changed[name][what] if name in changed else old for name, old in zip(columns, part[what], strict=True)]
        for what in ("points", "woe", "bin", "rows", "atoms")
    }
    given = set(part["given"]) | {name for name, f in zip(data.columns, features, strict=True) if f.given}
    return Outcome(
        private={**part, **kept, "given": sorted(given)},
        public={
            "features": [{"column": name, **result["bins"]} for name, result in changed.items()],
            "rows": len(features[0].cells),
            "notes": _notes(party, changed, features),
        },
    )


def _notes(party: str, changed: Mapping[str, dict[str, Any]], features: list[Feature]) -> list[str]:
    return [
        f"{party}'s {name!r}: some of the new bins had one class only and were joined with their neighbours."
        for (name, result), feature in zip(changed.items(), features, strict=True)
        if len(result["bins"]["rows"]) < len(feature.rows)
    ]


PROTOCOL = Protocol(
    name="recount",
    version=1,
    params=RecountParams,
    roles={
        "active": Role(active, needs=("y",), figures=True),
        "passive": Role(passive, many=True, needs=("X", "missing", "part"), figures=True),
        "coordinator": Role(vertical_binning.coordinator),
    },
    sends=vertical_binning.PROTOCOL.sends,
    learns={
        "active": "rows and positives of the new bins of each passive party's features that change",
        "passive": "the positives of each of its own new bins",
        "coordinator": "rows, numbers of bins; information value, rows and positives of each new bin",
    },
    learns_with_key=vertical_binning.PROTOCOL.learns_with_key,
)
OWN = Protocol(
    name="own_recount",
    version=1,
    params=OwnRecountParams,
    roles={"active": Role(own, needs=("X", "missing", "y", "part"), figures=True)},
    learns={
        "active": "nothing new",
        "coordinator": "information value, rows and positives of each new bin of the active party's features",
    },
)
