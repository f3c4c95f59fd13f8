"""A column without its extremes: no figure of what is left rests on fewer than ten rows.

A sum over many rows may be one row's value in truth, where that value is large enough. So the outermost values on
either side count as the mean of the ten that come after the ten outermost. Ten rows or more then stand furthest out
together, and a single one never has more than a tenth of a column's variance. Of thousands of rows that changes twenty
or so, and figures hardly at all.
"""

from __future__ import annotations

import numpy as np

from fednb.protocols.features import MIN_ROWS
from fednb.protocols.rows import Floats

LEAST = 4 * MIN_ROWS  # values: ten outermost and the ten after them, on either side


def held_in(x: Floats) -> Floats:
    """x [n] with values outside `bounds` at the bounds."""
    return np.clip(x, *bounds(x))


def bounds(x: Floats) -> tuple[float, float]:
    """The means of the 11th to 20th lowest and of the 11th to 20th highest of x [n], at least LEAST finite values."""
    n, ten = len(x), MIN_ROWS
    ordered = np.partition(x, [ten, 2 * ten - 1, n - 2 * ten, n - ten - 1])
    return float(ordered[ten : 2 * ten].mean()), float(ordered[n - 2 * ten : n - ten].mean())


def varies(x: Floats) -> bool:
    """Whether x [n], held in, is more than one value."""
    return float(np.std(x)) > 1e-12 * max(1.0, float(np.abs(x).max()))
