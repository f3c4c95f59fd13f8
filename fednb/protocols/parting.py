"""How a node parts rows: by a cut of a number, or by sets of categories; and which way rows go.

Values below a cut go left. Of categories, those of one set go left and those of another right. Whatever is in neither,
and a missing value, goes the node's default way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

Sets = Mapping[int, tuple[Sequence[int], Sequence[int]]]  # by node: codes that go left, and right


@dataclass(frozen=True)
class Cut:
    """How a split parts one column's cells."""

    column: int
    default_left: bool
    bin: int = 0  # of a number: the last bin that goes left
    left: tuple[int, ...] | None = None  # of categories: those that go left; None: it is a number
    right: tuple[int, ...] = ()

    def goes_left(self, cells: npt.NDArray[np.int32], missing: int) -> Truths:
        """[n]: which way each cell goes; `missing` is the last cell of the column."""
        if self.left is None:
            return np.where(cells == missing, self.default_left, cells <= self.bin)
        return way(missing, self.left, self.right, self.default_left)[cells]

    @property
    def sets(self) -> tuple[list[int], list[int]] | None:
        """For `Sets`."""
        return None if self.left is None else (list(self.left), list(self.right))


def way(missing: int, left: Iterable[int], right: Iterable[int], default_left: bool) -> Truths:
    """[missing + 1]: which way each category goes, and the last one, missing."""
    table = np.full(missing + 1, default_left)
    table[list(left)] = True
    table[list(right)] = False
    return table


def goes_left(
    X: Floats, column: Sequence[int], threshold: Sequence[float], default_left: Sequence[bool], sets: Sets
) -> Truths:
    """[n, nodes]: which way each row of X goes at each node; `sets` are by place among these nodes."""
    values = X[:, np.asarray(column, dtype=np.int64)]
    below = values < np.asarray(threshold, dtype=np.float64)
    found = np.where(np.isnan(values), np.asarray(default_left, dtype=np.bool_), below)
    for node, (left, right) in sets.items():
        codes = values[:, node]
        last = int(max([*left, *right, np.nanmax(codes, initial=-1.0)])) + 1
        table = way(last, left, right, bool(default_left[node]))
        found[:, node] = table[np.where(np.isnan(codes), last, codes).astype(np.int64)]
    return found


def sets_to_part(sets: Sets) -> Integers:
    """[k, 3] node, code, and 1 for left, for a party's own store."""
    rows = [(node, code, side) for node, ways in sets.items() for side in (1, 0) for code in ways[1 - side]]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def sets_from_part(rows: npt.ArrayLike) -> dict[int, tuple[list[int], list[int]]]:
    found: dict[int, tuple[list[int], list[int]]] = {}
    for node, code, side in np.asarray(rows, dtype=np.int64).reshape(-1, 3).tolist():
        found.setdefault(node, ([], []))[1 - side].append(code)
    return found
