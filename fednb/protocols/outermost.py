"""A column without extremes: no figure of what is left is one row's in truth.

A sum over many rows may come down to one of them, where its value is large enough. So where a single row has more than
a tenth of a column's variance, the outermost values on either side count as the mean of the ten that come after the
ten outermost: ten rows or more then stand furthest out together. Most columns are left as they are.
"""

from __future__ import annotations

import numpy as np

from fednb.protocols.features import MIN_ROWS
from fednb.protocols.rows import Floats

LEAST = 4 * MIN_ROWS  # values: ten outermost and the ten after them, on either side
MOST_SHARE = 1 / MIN_ROWS  # of the variance, that one row may have


def held_in(x: Floats) -> Floats:
    """x [n], at least LEAST finite values; with those outside `bounds` at the bounds where a row says too much."""
    away = (x - x.mean()) ** 2
    return np.clip(x, *bounds(x)) if away.max() > MOST_SHARE * away.sum() else x


def bounds(x: Floats) -> tuple[float, float]:
    """The means of the 11th to 20th lowest and of the 11th to 20th highest of x [n], at least LEAST finite values."""
    n, ten = len(x), MIN_ROWS
    ordered = np.partition(x, [ten, 2 * ten - 1, n - 2 * ten, n - ten - 1])
    return float(ordered[ten : 2 * ten].mean()), float(ordered[n - 2 * ten : n - ten].mean())


def varies(x: Floats) -> bool:
    """Whether x [n], held in, is more than one value."""
    return float(np.std(x)) > 1e-12 * max(1.0, float(np.abs(x).max()))
