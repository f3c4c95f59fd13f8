"""A party's rows, some at a time: a table may be larger than memory, and then its features lie in a file.

Whoever works on rows asks for a part of them, or for one column; an array can give both, and so can a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fednb.crypto.threads import slices

Floats = npt.NDArray[np.float64]

ROWS_AT_ONCE = 1 << 16  # whose ciphertexts travel together: enough for fast products, and 6 to 10 MB a message


EACH_WAY = 8192  # rows of a part at least, where parts are there to keep both sides at work
PARTS = 4  # that are enough for that


class Matrix(Protocol):
    """[n, d] numbers, in memory or not."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, which: Any, /) -> Floats:
        """X[a:b], neighbouring rows; X[index], ascending ones; or X[:, j], a column."""
        ...


class Without:
    """X [n, d] without one of its columns."""

    def __init__(self, X: Matrix, column: int) -> None:
        self._X = X
        self._kept = [j for j in range(X.shape[1]) if j != column]

    @property
    def shape(self) -> tuple[int, int]:
        return self._X.shape[0], len(self._kept)

    def __getitem__(self, which: Any, /) -> Floats:
        if isinstance(which, tuple):
            rows, j = which
            return self._X[rows, self._kept[j]]
        return self._X[which][:, self._kept]


def parts(n: int) -> list[slice]:
    """0..n in parts of nearly equal size, ROWS_AT_ONCE at most. Everybody in a run computes the same."""
    return slices(n, -(-n // ROWS_AT_ONCE))


def travelling(n: int) -> list[slice]:
    """0..n in parts whose ciphertexts travel together: more of them than `parts`, so that one side multiplies what
    the other has sent while that encrypts the next."""
    return slices(n, max(-(-n // ROWS_AT_ONCE), min(PARTS, n // EACH_WAY)))


def by_part(work: Callable[[slice], Floats], n: int) -> Floats:
    """What `work` makes of each part of n rows, end to end."""
    return np.concatenate([work(rows) for rows in parts(n)])


def columns_of(X: Matrix) -> Iterator[Floats]:
    """Each column [n], one after the other."""
    return (X[:, j] for j in range(X.shape[1]))
