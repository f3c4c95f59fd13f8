"""The share of one row's value that everything released so far explains.

A sum over a set of rows is one linear equation in the unknown values of a column. Stack all of them, orthonormalise,
and the squared length of row i in that basis is its leverage: the share of the variance of x_i (values independent, of
equal variance) that is explained. Two sums whose difference is one row give it leverage 1, however large the sets are;
a sum over k rows gives each 1/k. It needs the rows of the sets and not the values.

Rows that every released set treats alike form an atom, and the basis is kept on atoms: few, until regressions
split them.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = Any  # scipy.sparse.csr_array [g, n]: weights of n rows in g sums; scipy has no types
Floats = npt.NDArray[np.float64]

_LEAST = 1e-5  # of a new direction, relative; answers of a few digits do not show less

_SAFE = 1e-4  # of what is left of a vector, squared: with that much, one pass is exact to 14 digits


class Basis:
    """An orthonormal basis of all sums that were released of one quantity, over rows 0 .. n-1."""

    def __init__(self) -> None:
        self.atom = np.zeros(0, dtype=np.int64)  # [n] which atom a row is in
        self._size = np.zeros(0)  # [atoms] rows in it
        self._basis = np.zeros((0, 0))  # [rank, atoms], orthonormal; a row of an atom has entry / sqrt(size)
        self._square = np.zeros(0)  # [atoms] squared length of the basis there

    @property
    def rank(self) -> int:
        return len(self._basis)

    def grow(self, n: int) -> None:
        """New rows, in no sum so far."""
        more = n - len(self.atom)
        if more > 0:
            self.atom = np.concatenate([self.atom, np.full(more, len(self._size), dtype=np.int64)])
            self._size = np.append(self._size, float(more))
            self._basis = np.column_stack([self._basis, np.zeros(self.rank)])
            self._square = np.append(self._square, 0.0)

    def leverage(self) -> Floats:
        """[n] of each row, between 0 and 1."""
        share: Floats = (self._square / self._size)[self.atom]
        return share

    def trial(self, vectors: Vectors) -> tuple[Floats, Floats]:
        """The new directions that `vectors` would add [r, atoms], and the leverage [n] that rows would have then."""
        first = self._refine(vectors)
        coordinates = vectors[:, first].toarray().T * np.sqrt(self._size)[:, None]
        length = np.linalg.norm(coordinates, axis=0)
        new = coordinates[:, length > 0] / length[length > 0]
        for _ in range(2):  # twice is enough (Giraud, Langou 2002)
            new = new - self._basis.T @ (self._basis @ new)
            strength, mix = np.linalg.eigh(new.T @ new)  # the Gram matrix: far cheaper than a QR of long columns
            lasting = strength > _LEAST**2
            new = new @ (mix[:, lasting] / np.sqrt(strength[lasting]))
            if strength[lasting].min(initial=1.0) > _SAFE:
                break
        then = self._square + (new**2).sum(axis=1)
        return new.T, (then / self._size)[self.atom]

    def add(self, directions: Floats) -> None:
        """Keep what `trial` has just given."""
        self._basis = np.vstack([self._basis, directions])
        self._square = (self._basis**2).sum(axis=0)

    def _refine(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """Split atoms so that each vector is constant on every atom; gives one row of each."""
        # equal columns have equal random sums; rows that are split needlessly would cost time, nothing else
        mark = vectors.T @ np.random.default_rng(0).standard_normal(vectors.shape[0])
        _, code = np.unique(mark, return_inverse=True)
        pair = self.atom * (int(code.max(initial=0)) + 1) + code
        _, first, atom = np.unique(pair, return_index=True, return_inverse=True)
        if len(first) > len(self._size):
            before = self.atom[first]
            size = np.bincount(atom).astype(np.float64)
            self._basis = self._basis[:, before] * np.sqrt(size / self._size[before])
            self._square = self._square[before] * size / self._size[before]
            self.atom, self._size = atom, size
            found: npt.NDArray[np.int64] = first
            return found
        first_of = np.zeros(len(self._size), dtype=np.int64)
        first_of[self.atom[first]] = first
        return first_of
