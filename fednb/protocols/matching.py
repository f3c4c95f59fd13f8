"""Which points stand in several sets: by sorting, a set in a few arrays, no Python object a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fednb.crypto.curve import Points

Positions = npt.NDArray[np.int64]
_Keys = np.ndarray[Any, np.dtype[np.bytes_]]


class SortedPoints:
    """A set of points, [n, 32], ready to be searched. ValueError when a point stands in it twice."""

    def __init__(self, points: Points) -> None:
        keys = _keys(points)
        self.order: Positions = np.argsort(keys).astype(np.int64)
        self.keys = keys[self.order]
        if bool(np.any(self.keys[1:] == self.keys[:-1])):
            raise ValueError("a point stands in one set twice")

    @classmethod
    def restore(cls, points: Points, order: Positions) -> Self:
        """From `points` and `order` of an earlier one, without sorting again."""
        made = cls.__new__(cls)
        made.keys, made.order = _keys(points), order
        return made

    @property
    def points(self) -> Points:
        """[n, 32], sorted."""
        return self.keys.view(np.uint8).reshape(-1, 32)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: _Keys) -> Positions:
        """For each key where it stands in the set as it came, -1 where it does not; sorted keys are found fast."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.order[place], -1)


def common(sets: Sequence[SortedPoints]) -> list[Positions]:
    """For each set the ascending positions of the points that all sets have."""
    shared = min(sets, key=len).keys
    for each in sets:
        shared = shared[each.find(shared) >= 0]
    return [np.sort(each.find(shared)) for each in sets]


def _keys(points: Points) -> _Keys:
    # of one width, so that NumPy's disregard for zeros at the end confuses no two of them
    return np.ascontiguousarray(points).view("S32").ravel()
