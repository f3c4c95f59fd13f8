"""Which rows an iteration works on, when not on all: everybody computes the same from the run's id.

Of every `count` neighbouring rows each batch gets one, at random, so every batch is spread over the whole frame,
whatever order its ids stand in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fednb.protocols.rows import Floats, Matrix


class Batches:
    """`rows` rows in batches of about `size`; None: all rows in one."""

    def __init__(self, rows: int, size: int | None, run: str) -> None:
        self._rows = rows
        self.count = 1 if size is None else max(1, rows // size)
        self._of: npt.NDArray[np.int32] | None = None
        if self.count > 1:
            seed = int.from_bytes(hashlib.sha256(b"batches\0" + run.encode()).digest(), "big")
            groups = -(-rows // self.count)
            # the bits of a generator are the same in every version of NumPy; what is drawn from them may not be
            keys = np.random.PCG64(seed).random_raw(groups * self.count).reshape(groups, self.count)
            self._of = np.argsort(keys, axis=1, kind="stable").astype(np.int32).ravel()[:rows]

    def rows(self, iteration: int) -> npt.NDArray[np.int64] | slice:
        """The rows of an iteration, ascending."""
        if self._of is None:
            return slice(0, self._rows)
        return np.flatnonzero(self._of == iteration % self.count).astype(np.int64)

    def size(self, iteration: int) -> int:
        """How many rows that are."""
        return self._rows if self._of is None else int(np.count_nonzero(self._of == iteration % self.count))

    @property
    def smallest(self) -> int:
        """Rows of the smallest batch, at least."""
        return self._rows // self.count


@dataclass(frozen=True)
class Chosen:
    """Some rows of X, ascending, as a matrix of their own."""

    X: Matrix
    index: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.index), self.X.shape[1]

    def __getitem__(self, rows: slice) -> Floats:
        return self.X[self.index[rows]]


def choose(X: Matrix, rows: npt.NDArray[np.int64] | slice) -> Matrix:
    """Those rows of X, or X where they are all."""
    return X if isinstance(rows, slice) else Chosen(X, rows)
