"""What a row-level expression is, as far as its sums may leave: a closed little algebra.

    Known     depends on keys only: it may filter, group and weigh
    Bare      a column as it stands
    Linear    sum of weight * term + constant: weights known, terms a product of at most two functions of one column
              each (x, log x, x * y, x / y, "is missing", "is level v"), none with a constant that could be tuned
    Private   anything else: it stays at the party, and says why

Only sums of Linear leave, so what can be learnt of one set of rows is bounded by the few terms there are. A function
with a free constant (a threshold, say) would be a needle: `1 / (1e-9 + (income - 98765)**2)` asks for one row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fednb.policy.answer import ColumnSpec

Array: TypeAlias = npt.NDArray[Any]
MOST_FACTORS = 2  # in what an analyst writes; a variance doubles them


class Factor(NamedTuple):
    """One function of one column of one source."""

    function: str  # "value", "filled" (0 where missing), "log", ..., "inverse", "isna", "level", "at least"
    source: int
    column: str
    detail: bool | int | float | str = 0  # the level, the cut point

    @property
    def label(self) -> str:
        """As the ledger calls it: a sum of filled values is one of the values that are there."""
        name = "value" if self.function == "filled" else self.function
        return f"{name} {self.detail}" if name in ("level", "at least") else name


Term: TypeAlias = tuple[Factor, ...]


@dataclass(frozen=True)
class Known:
    values: Array  # [n] or 0-dimensional, of any type

    def take(self, rows: Array) -> Known:
        return self if self.values.ndim == 0 else Known(self.values[rows])


@dataclass(frozen=True)
class Bare:
    source: int
    column: str
    spec: ColumnSpec
    missing: bool  # whether any value may be missing here

    def take(self, rows: Array) -> Bare:
        return self


@dataclass(frozen=True)
class Linear:
    weights: Mapping[Term, Array] = field(default_factory=dict)
    constant: Array = field(default_factory=lambda: np.float64(0.0))  # type: ignore[arg-type, return-value]
    truth: bool = False  # each value is 0 or 1

    def take(self, rows: Array) -> Linear:
        def cut(array: Array) -> Array:
            return array if np.ndim(array) == 0 else array[rows]

        return replace(self, weights={t: cut(w) for t, w in self.weights.items()}, constant=cut(self.constant))


@dataclass(frozen=True)
class Private:
    why: str

    def take(self, rows: Array) -> Private:
        return self


Shape: TypeAlias = Known | Bare | Linear | Private


def moved(shape: Shape, by: int) -> Shape:
    """The same with its sources' numbers raised."""
    if isinstance(shape, Bare):
        return replace(shape, source=shape.source + by)
    if isinstance(shape, Linear):
        terms = {
            tuple(sorted(f._replace(source=f.source + by) for f in term)): weight
            for term, weight in shape.weights.items()
        }
        return replace(shape, weights=terms)
    return shape


def single(function: str, bare: Bare, detail: bool | int | float | str = 0) -> Linear:
    """One function of one column."""
    term = (Factor(function, bare.source, bare.column, detail),)
    return Linear({term: np.float64(1.0)}, truth=function in ("isna", "level", "at least"))  # type: ignore[dict-item]


def linear(shape: Shape) -> Linear | Private:
    """The shape as numbers to be added up."""
    if isinstance(shape, Bare):
        if shape.spec.role == "id":
            return Private(f"{shape.column!r} is an id: no figure is made of it")
        if shape.spec.kind == "number":
            return single("value", shape)
        if set(shape.spec.levels) <= {False, True} and shape.spec.levels:
            return single("level", shape, True)
        return Private(f"{shape.column!r} is a category: count it (value_counts, crosstab), or compare it with a level")
    if isinstance(shape, Known):
        if shape.values.dtype.kind not in "bif":
            return Private("it is text; count it instead")
        return Linear({}, shape.values.astype(np.float64), truth=shape.values.dtype.kind == "b")
    return shape


def plus(a: Shape, b: Shape, sign: float = 1.0) -> Shape:
    if isinstance(a, Known) and isinstance(b, Known):
        return known(a.values + b.values if sign > 0 else a.values - b.values)
    left, right = linear(a), linear(b)
    if isinstance(left, Private):
        return left
    if isinstance(right, Private):
        return right
    weights = dict(left.weights)
    for term, weight in right.weights.items():
        weights[term] = weights.get(term, np.float64(0.0)) + sign * weight
    return Linear(weights, left.constant + sign * right.constant)


def times(a: Shape, b: Shape, most: int = MOST_FACTORS) -> Shape:
    if isinstance(a, Known) and isinstance(b, Known):
        return known(a.values * b.values)
    left, right = linear(a), linear(b)
    if isinstance(left, Private):
        return left
    if isinstance(right, Private):
        return right
    weights: dict[Term, Array] = {}

    def add(term: Term, weight: Array) -> None:
        weights[term] = weights[term] + weight if term in weights else weight

    for term, weight in left.weights.items():
        add(term, weight * right.constant)
        for other, factor in right.weights.items():
            if len(term) + len(other) > most:
                return Private("it multiplies more than two columns")
            # a truth times itself is itself
            both = term if term == other and left.truth and right.truth else tuple(sorted((*term, *other), key=_order))
            add(both, weight * factor)
    for other, factor in right.weights.items():
        add(other, left.constant * factor)
    weights = {term: weight for term, weight in weights.items() if np.any(weight != 0)}
    return Linear(weights, left.constant * right.constant, truth=left.truth and right.truth)


def over(a: Shape, b: Shape) -> Shape:
    if isinstance(b, Known):
        with np.errstate(all="ignore"):
            inverse = 1.0 / b.values.astype(np.float64) if b.values.dtype.kind in "bif" else np.float64(np.nan)
        if not np.all(np.isfinite(inverse)):
            return Private("it divides by zero, or by what is no number")
        return times(a, Known(np.asarray(inverse)))
    if isinstance(b, Bare) and b.spec.kind == "number":
        return times(a, single("inverse", b))
    return b if isinstance(b, Private) else Private("it divides by an expression; only a column can be the divisor")


def known(values: Any) -> Shape:
    array = np.asarray(values)
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        return Private("it is infinite or no number in some rows")
    return Known(array)


def is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _order(factor: Factor) -> tuple[str, int, str, str]:
    return factor.function, factor.source, factor.column, str(factor.detail)
