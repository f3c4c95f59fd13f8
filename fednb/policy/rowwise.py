"""Row-level expressions: their values, which stay, and their shapes, which say what of their sums may leave."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from fednb.errors import DataError
from fednb.policy import plan as p
from fednb.policy.answer import ColumnSpec
from fednb.policy.columns import OTHER
from fednb.policy.shapes import (
    Array,
    Bare,
    Known,
    Linear,
    Private,
    Shape,
    is_finite,
    known,
    linear,
    over,
    plus,
    single,
    times,
)

if TYPE_CHECKING:
    import pandas as pd

Type = Literal["number", "truth", "text"]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "and": operator.and_,
    "or": operator.or_,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "-": operator.neg,
    "abs": abs,
    "log": np.log,
    "log1p": np.log1p,
    "exp": np.exp,
    "sqrt": np.sqrt,
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


class Cells(Protocol):
    """What an expression needs of the rows it is computed on."""

    @property
    def n(self) -> int: ...

    def cell(self, name: str) -> Any: ...

    def numbers(self, shape: Linear) -> Array: ...


def intervals(edges: list[float]) -> list[str]:
    """Names of the intervals between edges, each with its lower edge and without its upper one."""
    inner = [f"[{low:g}, {high:g})" for low, high in zip(edges, edges[1:], strict=False)]
    return [f"< {edges[0]:g}", *inner, f">= {edges[-1]:g}"]


def cut(x: pd.Series, edges: list[float]) -> pd.Series:
    import pandas as pd

    edges = sorted(set(edges))
    numbers = x.to_numpy(dtype=np.float64, na_value=np.nan)
    names = np.array(intervals(edges), dtype=object)[np.digitize(numbers, edges)]
    return pd.Series(np.where(np.isnan(numbers), None, names), dtype=object)


def key_values(x: pd.Series, spec: ColumnSpec) -> pd.Series:
    """A key column as groups: its levels, with rare ones together, or its intervals."""
    if spec.cuts:
        return cut(x, spec.cuts)
    if not spec.levels:
        return x.astype(object).where(x.isna(), OTHER)
    return x.astype(object).where(x.isin(spec.levels) | x.isna(), OTHER)


def rank(meaning: Any, shape: Shape) -> tuple[int, Any]:
    """In what order groups are shown."""
    if isinstance(shape, Bare) and shape.spec.cuts and isinstance(meaning, str):
        names = intervals(sorted(set(shape.spec.cuts)))
        return (0, names.index(meaning)) if meaning in names else (2, 0)
    if meaning in (OTHER, "(missing)"):
        return (3, str(meaning))
    return (0, float(meaning)) if isinstance(meaning, bool | int | float) else (1, str(meaning))


# ---------------------------------------------------------------- types


def kind(cells: Cells, x: p.Expr) -> Type:
    """The type of an expression, by the types of its columns alone.

    Raises DataError where they do not fit. Whether an expression can be worked out must not depend on values: an error
    in one row would tell that there is such a row.
    """
    if isinstance(x, p.Column):
        found: Type = cells.cell(x.name).kind
        return found
    if isinstance(x, p.Literal_):
        return _kind_of(x.value)
    if isinstance(x, p.Unary):
        inner = kind(cells, x.x)
        if x.op == "isna":
            return "truth"
        _need(inner, ("truth",) if x.op == "not" else ("number", "truth"), x.op)
        return "truth" if x.op == "not" else "number"
    if isinstance(x, p.Binary):
        return _binary_kind(x.op, kind(cells, x.left), kind(cells, x.right))
    if isinstance(x, p.OneOf):
        inner = kind(cells, x.x)
        for value in x.values:
            _same(inner, _kind_of(value), "isin")
        return "truth"
    if isinstance(x, p.Choose):
        _need(kind(cells, x.condition), ("truth",), "where")
        return _same(kind(cells, x.x), kind(cells, x.other), "where")
    if isinstance(x, p.Fill):
        return _same(kind(cells, x.x), _kind_of(x.value), "fillna")
    _need(kind(cells, x.x), ("number", "truth"), "clip" if isinstance(x, p.Clip) else "cut")
    return "number" if isinstance(x, p.Clip) else "text"


def _binary_kind(op: str, left: Type, right: Type) -> Type:
    if op in ("and", "or"):
        _need(left, ("truth",), op)
        _need(right, ("truth",), op)
        return "truth"
    if op in _COMPARE:
        if _same(left, right, op) == "text" and op not in ("==", "!="):
            raise DataError(f"{op}: text can be compared with == and != only.")
        return "truth"
    _need(left, ("number", "truth"), op)
    _need(right, ("number", "truth"), op)
    return "number"


def _kind_of(value: object) -> Type:
    return "truth" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _need(found: Type, wanted: tuple[Type, ...], what: str) -> None:
    if found not in wanted:
        raise DataError(f"{what}: a {wanted[0]} is needed here, and a {found} is there.")


def _same(a: Type, b: Type, what: str) -> Type:
    if (a == "text") != (b == "text"):
        raise DataError(f"{what}: numbers and text do not mix.")
    return a if a == b else "number"


# ---------------------------------------------------------------- values


def values(cells: Cells, x: p.Expr) -> pd.Series:
    """[n] of an expression whose types fit: floats, truths, or text."""
    import pandas as pd

    with np.errstate(all="ignore"):
        made = _values(cells, x)
    return made if isinstance(made, pd.Series) else pd.Series(np.full(cells.n, made))


def _values(cells: Cells, x: p.Expr) -> Any:
    if isinstance(x, p.Column):
        return cells.cell(x.name).values()
    if isinstance(x, p.Literal_):
        return x.value
    if isinstance(x, p.Unary):
        if x.op == "isna":
            return values(cells, x.x).isna()
        if x.op == "not":
            return ~_truths(values(cells, x.x))
        return _FUNCTIONS[x.op](_floats(values(cells, x.x)))
    if isinstance(x, p.Binary):
        return _worked_out(x.op, values(cells, x.left), values(cells, x.right))
    if isinstance(x, p.OneOf):
        return values(cells, x.x).isin(x.values)
    if isinstance(x, p.Choose):
        return _like(cells, x.x, x.other).where(_truths(values(cells, x.condition)), _like(cells, x.other, x.x))
    if isinstance(x, p.Fill):
        return _like(cells, x.x, p.Literal_(x.value)).fillna(x.value)
    if isinstance(x, p.Clip):
        low, high = (None if bound is None or np.isnan(bound) else bound for bound in (x.low, x.high))
        return _floats(values(cells, x.x)).clip(low, high)
    return cut(values(cells, x.x), x.edges)


def _worked_out(op: str, left: pd.Series, right: pd.Series) -> pd.Series:
    if op in ("and", "or"):
        made: pd.Series = _ARITHMETIC[op](_truths(left), _truths(right))
        return made
    numbers = all(each.dtype.kind in "biuf" for each in (left, right))
    if numbers:
        left, right = _floats(left), _floats(right)
    made = (_COMPARE | _ARITHMETIC)[op](left, right)
    return _truths(made) if op in _COMPARE else made


def _like(cells: Cells, x: p.Expr, other: p.Expr) -> pd.Series:
    """The values of one expression in the type that they share with another's."""
    series = values(cells, x)
    same = kind(cells, x) == kind(cells, other)
    return series.astype(object) if kind(cells, x) == "text" else series if same else _floats(series)


def _floats(series: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.Series(series.to_numpy(dtype=np.float64, na_value=np.nan))


def _truths(series: pd.Series) -> pd.Series:
    import pandas as pd

    return pd.Series(series.to_numpy(dtype=object, na_value=False).astype(bool))


# ---------------------------------------------------------------- shapes


def shape(cells: Cells, x: p.Expr) -> Shape:
    """What of an expression may leave."""
    if isinstance(x, p.Column):
        found: Shape = cells.cell(x.name).shape()
        return found
    if isinstance(x, p.Literal_):
        return known(x.value)
    if isinstance(x, p.Unary):
        return _unary(x.op, shape(cells, x.x))
    if isinstance(x, p.Binary):
        return _binary(cells, x)
    if isinstance(x, p.OneOf):
        return _one_of(cells, x)
    if isinstance(x, p.Choose):
        return _choose(shape(cells, x.condition), shape(cells, x.x), shape(cells, x.other))
    if isinstance(x, p.Fill):
        return _fill(cells, x)
    if isinstance(x, p.Clip):
        return _clip(cells, x)
    return _cut(cells, x)


def _unary(op: str, inner: Shape) -> Shape:
    if isinstance(inner, Private):
        return inner
    if op == "-":
        return times(inner, Known(np.asarray(-1.0)))
    if op == "not":
        return _not(inner)
    if op == "isna":
        if isinstance(inner, Known):
            return Known(np.asarray(False))
        if isinstance(inner, Bare):
            return single("isna", inner) if inner.missing else Known(np.asarray(False))
        return Private("whether a derived value is missing depends on several columns; ask it of a column")
    if isinstance(inner, Known):
        if inner.values.dtype.kind not in "bif":
            return Private("it is text")
        with np.errstate(all="ignore"):
            return known(getattr(np, op)(inner.values.astype(np.float64)))
    if isinstance(inner, Bare) and inner.spec.kind == "number" and inner.spec.role != "id" and op != "exp":
        return single(op, inner)
    return Private(f"{op} may be taken of a column, not of an expression" if op != "exp" else "it is an exponential")


def _not(inner: Shape) -> Shape:
    if isinstance(inner, Known):
        return Known(~inner.values) if inner.values.dtype.kind == "b" else Private("it is no condition")
    truth = _truth(inner)
    if truth is None:
        return Private("it is no condition on levels")
    made = plus(Known(np.asarray(1.0)), truth, -1.0)
    return Linear(made.weights, made.constant, truth=True) if isinstance(made, Linear) else made


def _truth(inner: Shape) -> Linear | None:
    made = linear(inner)
    return made if isinstance(made, Linear) and made.truth else None


def _binary(cells: Cells, x: p.Binary) -> Shape:
    left, right = shape(cells, x.left), shape(cells, x.right)
    if isinstance(left, Private):
        return left
    if isinstance(right, Private):
        return right
    if x.op in _COMPARE:
        return _compare(cells, x, left, right)
    if x.op in ("and", "or"):
        return _logic(x.op, left, right)
    if x.op in ("+", "-"):
        if any(isinstance(each, Known) and each.values.dtype.kind in "UOS" for each in (left, right)):
            return Private("it is text")
        return plus(left, right, 1.0 if x.op == "+" else -1.0)
    if x.op == "*":
        return times(left, right)
    if x.op == "/":
        return over(left, right)
    power = right.values.item() if isinstance(right, Known) and right.values.ndim == 0 else None
    if power == 2:
        return times(left, left)
    if power == 0.5:
        return _unary("sqrt", left)
    if power == -1:
        return over(Known(np.asarray(1.0)), left)
    return Private("only the powers 2, 0.5 and -1 may leave")


def _logic(op: str, left: Shape, right: Shape) -> Shape:
    if isinstance(left, Known) and isinstance(right, Known):
        if left.values.dtype.kind != "b" or right.values.dtype.kind != "b":
            return Private("it is no condition")
        return Known(left.values & right.values if op == "and" else left.values | right.values)
    a, b = _truth(left), _truth(right)
    if a is None or b is None:
        return Private("it is no condition on keys or levels")
    both = times(a, b)
    if not isinstance(both, Linear):
        return both
    made = both if op == "and" else plus(plus(a, b), both, -1.0)
    return Linear(made.weights, made.constant, truth=True) if isinstance(made, Linear) else made


def _compare(cells: Cells, x: p.Binary, left: Shape, right: Shape) -> Shape:
    op = x.op
    if isinstance(left, Known) and isinstance(right, Known):
        return Known(np.asarray(_COMPARE[op](left.values, right.values), dtype=bool))
    name = x.left
    if isinstance(left, Known):
        left, right, op, name = right, left, _MIRRORED.get(op, op), x.right  # type: ignore[assignment]
    if not isinstance(left, Bare) or not isinstance(right, Known) or right.values.ndim:
        return Private("it compares a measure or an expression with something")
    spec, value = left.spec, right.values.item()
    if spec.role == "id":
        return Private(f"{left.column!r} is an id")
    if spec.cuts or (spec.kind == "number" and op not in ("==", "!=")):
        edges = spec.edges if op in ("<", ">=") or spec.cuts else [float(level) for level in spec.levels[:-1]]
        if op not in ("<", ">=") and spec.cuts:
            return Private(f"{left.column!r} is divided by < and >= at its cut points, not by {op}")
        if value not in edges:
            listed = ", ".join(f"{edge:g}" for edge in edges) or "none"
            return Private(f"{left.column!r} may be divided at {listed}")
        if spec.role != "key":
            return Private(f"{left.column!r} is a measure; see its distribution with hist() and quantile()")
        return Known(_COMPARE[op](_plain_values(cells, name), value))
    if op not in ("==", "!="):
        return Private(f"{left.column!r} is a category: compare it with == or !=")
    if value not in spec.levels or type(value) is bool and spec.kind == "number":
        return Private(
            f"{left.column!r} has the levels {', '.join(map(str, spec.levels)) or 'none'}; rarer ones cannot be named"
        )
    if spec.role == "key":
        return Known(_COMPARE[op](_plain_values(cells, name), value))
    return single("level", left, value) if op == "==" else _not(single("level", left, value))


def _plain_values(cells: Cells, x: p.Expr) -> Array:
    series = values(cells, x)
    if series.dtype.kind in "iuf":
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.astype(object).where(series.notna(), None).to_numpy()


def _one_of(cells: Cells, x: p.OneOf) -> Shape:
    inner = shape(cells, x.x)
    if isinstance(inner, Private):
        return inner
    if isinstance(inner, Known):
        return Known(np.isin(inner.values, np.array(x.values, dtype=inner.values.dtype)))
    made: Shape = Known(np.asarray(False))
    for value in dict.fromkeys(x.values):
        each = _compare(cells, p.Binary("==", x.x, p.Literal_(value)), inner, known(value))
        made = _logic("or", made, each) if not isinstance(each, Private) else each
        if isinstance(made, Private):
            return made
    return made


def _choose(condition: Shape, a: Shape, b: Shape) -> Shape:
    for each in (condition, a, b):
        if isinstance(each, Private):
            return each
    if isinstance(condition, Known):
        if condition.values.dtype.kind != "b":
            return Private("its condition is none")
        if isinstance(a, Known) and isinstance(b, Known):
            if {a.values.dtype.kind in "bif", b.values.dtype.kind in "bif"} == {True, False}:
                return Known(np.where(condition.values, a.values.astype(object), b.values.astype(object)))
            return Known(np.where(condition.values, a.values, b.values))
        weight: Shape = Known(condition.values.astype(np.float64))
    else:
        truth = _truth(condition)
        if truth is None:
            return Private("its condition depends on a measure")
        weight = truth
    return plus(times(weight, a), times(plus(Known(np.asarray(1.0)), weight, -1.0), b))


def _fill(cells: Cells, x: p.Fill) -> Shape:
    inner = shape(cells, x.x)
    if isinstance(inner, Known | Private):
        return inner
    if isinstance(inner, Bare) and not inner.missing:
        return inner
    if (
        isinstance(inner, Bare)
        and inner.spec.kind == "number"
        and isinstance(x.value, int | float)
        and is_finite(x.value)
    ):
        return plus(single("filled", inner), times(single("isna", inner), Known(np.asarray(float(x.value)))))
    if isinstance(inner, Bare) and inner.spec.role == "key" and isinstance(x.value, str):
        return Known(key_values(values(cells, x.x), inner.spec).fillna(x.value).to_numpy(dtype=object))
    return Private("missing values may be filled in a column of numbers, with a number")


def _clip(cells: Cells, x: p.Clip) -> Shape:
    inner = shape(cells, x.x)
    if isinstance(inner, Private):
        return inner
    if isinstance(inner, Known):
        return known(np.clip(inner.values, x.low, x.high))
    if not isinstance(inner, Bare) or inner.spec.kind != "number" or not inner.spec.cuts:
        return Private("values may be clipped in a column of numbers, at its cut points")
    numbers = values(cells, x.x).to_numpy(dtype=np.float64, na_value=np.nan)
    inside = np.ones(len(numbers))
    made: Shape = Known(np.asarray(0.0))
    for bound in (x.low, x.high):
        if bound is None:
            continue
        if bound not in inner.spec.cuts:
            return Private(f"{inner.column!r} may be clipped at {', '.join(f'{each:g}' for each in inner.spec.cuts)}")
        beyond = single("at least", inner, bound)
        outside = numbers < bound if bound is x.low else numbers >= bound
        inside = np.where(outside, 0.0, inside)
        part = _not(beyond) if bound is x.low else beyond
        made = plus(made, times(part, Known(np.asarray(float(bound)))))
    return plus(made, times(single("value", inner), Known(inside)))


def _cut(cells: Cells, x: p.Cut) -> Shape:
    inner = shape(cells, x.x)
    if isinstance(inner, Bare) and inner.spec.role == "key" and inner.spec.kind == "number":
        if set(x.edges) <= set(inner.spec.edges):
            names = cut(values(cells, x.x), x.edges)
            return Known(names.where(names.notna(), "(missing)").to_numpy(dtype=object))
        return Private(f"{inner.column!r} may be cut at {', '.join(f'{each:g}' for each in inner.spec.edges)}")
    if isinstance(inner, Private):
        return inner
    return Private("it cuts what is no numeric key; see a measure's distribution with hist() and quantile()")
