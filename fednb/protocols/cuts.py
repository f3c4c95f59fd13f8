"""Where a column is cut: bins of values, with bins of their own for missing and for special values.

    cell     0 ... c          values below the first cut, from the first to below the second, ..., from the last up
             c + 1            missing
             c + 2 ...        special values, one after the other

A value on a cut belongs to the upper bin. Cuts are made from training rows, by the column's owner, and stay there: a
quantile is some row's own value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Method = Literal["quantile", "width"]


@dataclass(frozen=True)
class Cuts:
    """One column's bins."""

    points: Floats  # [c], ascending
    special: tuple[float, ...] = ()

    @property
    def ordered(self) -> int:
        """How many cells hold ordinary values."""
        return len(self.points) + 1

    @property
    def size(self) -> int:
        """How many cells there are."""
        return self.ordered + 1 + len(self.special)

    def cells(self, x: Floats) -> Integers:
        """[n]: the cell of each value."""
        cells: Integers = np.searchsorted(self.points, x, side="right").astype(np.int64)
        cells[np.isnan(x)] = self.ordered
        for place, value in enumerate(self.special):
            cells[x == value] = self.ordered + 1 + place
        return cells

    def name(self, cell: int) -> str:
        """What a cell holds, in a word."""
        if cell < self.ordered:
            return "values"
        return "missing" if cell == self.ordered else f"special {cell - self.ordered}"


def fit_cuts(
    x: Floats,
    *,
    bins: int,
    method: Method,
    least: int,
    special: Sequence[float] = (),
    given: Sequence[float] | None = None,
) -> Cuts:
    """Cuts of the training rows x [n] into at most `bins` bins of at least `least` rows each.

    `given` cut points are taken instead, where enough rows lie between them.
    """
    values = np.sort(x[~np.isnan(x) & ~np.isin(x, np.asarray(special, dtype=np.float64))])
    if given is not None:
        points = np.unique(np.asarray(given, dtype=np.float64))
    elif len(values) == 0:
        points = np.empty(0)
    elif method == "width":
        points = np.linspace(values[0], values[-1], bins + 1)[1:-1]
    else:
        distinct = np.unique(values)
        shares = np.arange(1, bins) / bins
        points = distinct[1:] if len(distinct) <= bins else np.quantile(values, shares, method="inverted_cdf")
    return Cuts(_wide_enough(values, np.unique(points), least), tuple(special))


def _wide_enough(values: Floats, points: Floats, least: int) -> Floats:
    """The points that leave `least` of the sorted values in each bin, taken from the lowest up."""
    kept, below = [], 0
    for point, here in zip(points.tolist(), np.searchsorted(values, points, side="left").tolist(), strict=True):
        if here - below >= least and len(values) - here >= least:
            kept.append(point)
            below = here
    return np.array(kept, dtype=np.float64)
