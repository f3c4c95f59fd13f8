"""One party's columns in bins, and the splits of a node that they offer: what active and passive parties do alike.

Bins follow `cuts`: cell b of a column holds values below its cut b, and the last cell the missing ones. A split after
bin b sends cells up to b left. It is offered only if it leaves `least` rows on either side, so that no sum over fewer
rows is ever shown; of splits that part the node's rows alike, one is offered.

Of a column of categories, cells are its levels. What is offered then is each level with `least` rows in the node by
itself: sums of it alone, of which the party with the labels makes sets that go left. All other rows, those without a
value among them, go together, one way or the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fednb.errors import DataError
from fednb.protocols.cuts import Cuts, fit_cuts
from fednb.protocols.parting import Cut
from fednb.protocols.trees import Floats, Integers, Truths

NUMBER, ONEHOT, PARTITION, MIXED = range(4)  # kinds of columns; MIXED: of all of a party's columns together
MISSING_RIGHT, MISSING_LEFT = 1, 2  # bits of `allowed`


@dataclass(frozen=True)
class Offer:
    """Splits of one node by one party's columns. Of a column with missing values the last one parts values from none.

    [f] is by column in use, [c] by split, column after column.
    """

    counts: Integers  # [f] splits of each column
    missing: Truths  # [f] whether rows of the node have no value there (of categories: or a level with few rows)
    column: Integers  # [c] place among the columns in use
    bin: Integers  # [c] the last bin that goes left; of categories, the level
    last: Integers  # [c] ... and the last one that parts the same rows
    allowed: Integers  # [c] where missing values may go; 0: only its sums are needed

    def cut(self, place: int, columns: Integers, default_left: bool, left: Truths | None = None) -> Cut:
        """How a split parts rows. `left`: of categories, which of those on offer in its column go left.

        A number is cut after the last bin that a scan from the side away from the missing values finds.
        """
        at = int(self.column[place])
        if left is None:
            return Cut(int(columns[at]), default_left, int((self.last if default_left else self.bin)[place]))
        levels = self.bin[self.of(at)]
        return Cut(
            int(columns[at]), default_left, left=tuple(levels[left].tolist()), right=tuple(levels[~left].tolist())
        )

    def of(self, at: int) -> slice:
        """Where the splits of one of the columns in use stand."""
        end = int(self.counts[: at + 1].sum())
        return slice(end - int(self.counts[at]), end)


class Binned:
    """Columns X [n, d] of one party, cut on the first `training` rows. DataError for infinite values.

    `kinds` [d]: columns that are not NUMBER hold codes of categories, from 0 up.
    """

    def __init__(
        self,
        party: str,
        X: Floats,
        columns: Sequence[str],
        training: int,
        max_bin: int,
        kinds: Integers | None = None,
    ) -> None:
        self.kinds = np.zeros(len(columns), dtype=np.int64) if kinds is None else kinds
        endless = [repr(name) for j, name in enumerate(columns) if np.isinf(X[:, j]).any()]
        if endless:
            raise DataError(f"{party} has infinite values in {', '.join(endless)}. Replace them first.")
        self.cuts: list[Cuts] = [
            fit_cuts(x, bins=max_bin, method="quantile", least=1) if kind == NUMBER else _levels(x)
            for x, kind in zip(X[:training].T, self.kinds, strict=True)
        ]
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
        found = [
            self._offer(counts[a:b], least) if kind == NUMBER else self._levels_on_offer(counts[a:b], least, kind)
            for a, b, kind in zip(starts, starts[1:], self.kinds[columns].tolist(), strict=False)
        ]
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

    @staticmethod
    def _levels_on_offer(counts: Integers, least: int, kind: int) -> tuple[Integers, Integers, Integers, bool]:
        """The same of a column of categories: each level by itself, and where all others may go."""
        levels = np.flatnonzero(counts[:-1] >= max(least, 1))
        offered = int(counts[levels].sum())
        rest = int(counts.sum()) - offered
        if kind == PARTITION:
            left = right = np.full(len(levels), len(levels) > 1)
        else:  # one level goes right, the others left, and the rest with either
            left = offered - counts[levels] + rest >= least
            right = offered - counts[levels] >= least
        allowed = np.where(left, MISSING_LEFT, 0) + np.where(right & (rest > 0), MISSING_RIGHT, 0)
        keep = np.full(len(levels), bool(allowed.any()))
        return levels[keep], levels[keep], allowed[keep].astype(np.int64), rest > 0

    def goes_left(self, rows: Integers, cut: Cut) -> Truths:
        """Which way each of `rows` goes at a split of a column."""
        return cut.goes_left(self.cells[rows, cut.column], int(self.sizes[cut.column]) - 1)

    def threshold(self, cut: Cut) -> float:
        """Of a number: values below it go left."""
        points = self.cuts[cut.column].points
        return float(points[cut.bin]) if cut.left is None and cut.bin < len(points) else float("inf")


def _levels(codes: Floats) -> Cuts:
    """A cell for each code."""
    return Cuts(np.arange(1, 1 + int(np.nanmax(codes, initial=0.0)), dtype=np.float64))
