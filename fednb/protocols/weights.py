"""How much each class counts in training; nobody but the party with the labels learns which row counts how much.

Class weights multiply the residuals that the active party encrypts and its own factors; nobody else sees a weight of a
row. The others need two things that follow from the agreed parameters alone: the unit in which weights are counted
(it turns C into each party's penalty) and the bits by which weighted residuals may be larger (for the packing).

"balanced" weights are n / (2 · rows of the class), as in scikit-learn. They would tell the number of positives, so
their unit is 1, which is their mean, and their bits are fixed: classes rarer than 1 in 256 need explicit weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

Floats = npt.NDArray[np.float64]
ClassWeight = Literal["balanced"] | tuple[float, float]  # weights of class 0 and class 1

BALANCED_BITS = 7
LARGEST_BITS = 10  # of explicit weights: the heavier class counts at most 2048 times the lighter one


@dataclass(frozen=True)
class Weighting:
    """What everybody knows of the weights."""

    choice: ClassWeight | None
    unit: float  # weights are counted in this
    bits: int  # every weight is at most unit · 2**bits

    @classmethod
    def of(cls, choice: ClassWeight | None) -> Weighting:
        """DataError for weights that cannot be used."""
        if choice is None:
            return cls(choice, 1.0, 0)
        if choice == "balanced":
            return cls(choice, 1.0, BALANCED_BITS)
        low, high = min(choice), max(choice)
        if not (low > 0 and math.isfinite(high)):
            raise DataError(f"class weights are positive numbers, not {choice[0]:g} and {choice[1]:g}.")
        unit = min(high, 2 * low)  # near the mean weight when the heavier class is the rarer one
        bits = math.ceil(math.log2(high / unit))
        if bits > LARGEST_BITS:
            raise DataError(
                f"class weights of {low:g} and {high:g} are too far apart: at most a factor of {2 << LARGEST_BITS}."
            )
        return cls(choice, unit, bits)

    def rows(self, y: Floats) -> Floats | None:
        """For the party with the labels y [n]: each row's weight in units, or None when all count the same."""
        if self.choice is None:
            return None
        positives = float(y.sum())
        pair = self.choice
        if pair == "balanced":
            pair = (len(y) / (2 * (len(y) - positives)), len(y) / (2 * positives))
        if max(pair) > self.unit * 2**self.bits:
            raise DataError(
                f"one class stands in fewer than 1 of {2 << self.bits} rows. Balanced weights cannot say so without "
                "telling other parties; give class_weight={0: ..., 1: ...}, or align more rows of that class."
            )
        return np.where(y == 1, pair[1], pair[0]) / self.unit
