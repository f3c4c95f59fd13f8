"""One party's columns in bins, and the splits of a node that they offer: what active and passive parties do alike.

Bins follow `cuts`: cell b of a column holds values below its cut b, and the last cell the missing ones. A split after
bin b sends cells up to b left. It is offered only if it leaves `least` rows on either side, so that no sum over fewer
rows is ever shown; of splits that part the node's rows alike, one is offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fednb.errors import DataError
from fednb.protocols.cuts import Cuts, fit_cuts
from fednb.protocols.trees import Floats, Integers, Truths

MISSING_RIGHT, MISSING_LEFT = 1, 2  # bits of `allowed`


@dataclass(frozen=True)
class Offer:
    """Splits of one node by one party's columns. Of a column with missing values the last one parts values from none.

    [f] is by column in use, [c] by split, column after column.
    """

    counts: Integers  # [f] splits of each column
    missing: Truths  # [f] whether rows of the node have no value there
    column: Integers  # [c] place among the columns in use
    bin: Integers  # [c] the last bin that goes left
    last: Integers  # [c] ... and the last one that parts the same rows
    allowed: Integers  # [c] where missing values may go; 0: only its sums are needed

    def cut(self, place: int, default_left: bool) -> int:
        """The last bin that goes left, as a scan from the side away from the missing values finds it."""
        return int((self.last if default_left else self.bin)[place])


class Binned:
    """Columns X [n, d] of one party, cut on the first `training` rows. DataError for infinite values."""

    def __init__(self, party: str, X: Floats, columns: Sequence[str], training: int, max_bin: int) -> None:
        endless = [repr(name) for j, name in enumerate(columns) if np.isinf(X[:, j]).any()]
        if endless:
            raise DataError(f"{party} has infinite values in {', '.join(endless)}. Replace them first.")
        self.cuts: list[Cuts] = [fit_cuts(x[:training], bins=max_bin, method="quantile", least=1) for x in X.T]
        self.sizes = np.array([cuts.size for cuts in self.cuts], dtype=np.int64)
        cells = [cuts.cells(x) for cuts, x in zip(self.cuts, X.T, strict=True)]
        self.cells = np.column_stack(cells).astype(np.int32) if cells else np.empty((len(X), 0), dtype=np.int32)

    def starts(self, columns: Integers) -> Integers:
        """Where each of some columns' cells begin when they stand end to end; and where they end."""
        return np.concatenate([[0], np.cumsum(self.sizes[columns])])

    def sums(self, rows: Integers, columns: Integers, values: Floats | None = None) -> Floats:
        """By cell of `columns`, end to end: how many of `rows`, or the sum of their `values` [n]."""
        starts = self.starts(columns)
        flat = (self.cells[np.ix_(rows, columns)] + starts[:-1]).ravel()
        weights = None if values is None else np.repeat(values[rows], len(columns))
        return np.asarray(np.bincount(flat, weights=weights, minlength=int(starts[-1])), dtype=np.float64)

    def offer(self, rows: Integers, columns: Integers, least: int) -> Offer:
        """What `columns` offer to a node with these rows."""
        counts, starts = self.sums(rows, columns).astype(np.int64), self.starts(columns)
        found = [self._offer(counts[a:b], least) for a, b in zip(starts, starts[1:], strict=False)]
        sizes = [len(bins) for bins, _, _, _ in found]
        bins, last, allowed = (
            np.concatenate([each[i] for each in found]) if found else np.empty(0, np.int64) for i in range(3)
        )
        return Offer(
            counts=np.array(sizes, dtype=np.int64),
            missing=np.array([missing for _, _, _, missing in found], dtype=np.bool_),
            column=np.repeat(np.arange(len(columns)), sizes),
            bin=bins,
            last=last,
            allowed=allowed,
        )

    @staticmethod
    def _offer(counts: Integers, least: int) -> tuple[Integers, Integers, Integers, bool]:
        """Of one column with these rows in each cell: bin, last and allowed of each split; whether any is missing."""
        missing, filled = int(counts[-1]), np.flatnonzero(counts[:-1])
        below = np.cumsum(counts[:-1])[filled]
        above = (below[-1] if len(below) else 0) - below
        right = np.minimum(below, above + missing) >= least
        left = (np.minimum(below + missing, above) >= least) & (missing > 0)
        allowed = MISSING_RIGHT * right + MISSING_LEFT * left
        keep = allowed > 0
        if missing and keep.any():
            keep[-1] = True
        last = np.append(filled[1:] - 1, len(counts) - 2)
        return filled[keep], last[: len(filled)][keep], allowed[keep].astype(np.int64), missing > 0

    def goes_left(self, rows: Integers, column: int, bin: int, default_left: bool) -> Truths:
        """Which way each of `rows` goes at a split of a column."""
        cells = self.cells[rows, column]
        missing = cells == self.cuts[column].ordered
        return np.where(missing, default_left, cells <= bin)

    def threshold(self, column: int, bin: int) -> float:
        """Values below it go left."""
        points = self.cuts[column].points
        return float(points[bin]) if bin < len(points) else float("inf")


def goes_left(X: Floats, column: Sequence[int], threshold: Sequence[float], default_left: Sequence[bool]) -> Truths:
    """[n, nodes]: which way each row of X goes at each node."""
    values = X[:, np.asarray(column, dtype=np.int64)]
    below = values < np.asarray(threshold, dtype=np.float64)
    return np.where(np.isnan(values), np.asarray(default_left, dtype=np.bool_), below)
