"""A column of a guarded party: an expression, and the questions that may be asked of it. It holds no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import numpy as np

from fednb.errors import DataError, Refused
from fednb.federation import released
from fednb.policy import plan as p

if TYPE_CHECKING:
    import pandas as pd

_UFUNCS: Mapping[Any, str] = {
    np.log: "log",
    np.log1p: "log1p",
    np.exp: "exp",
    np.sqrt: "sqrt",
    np.absolute: "abs",
    np.negative: "-",
}
_BINARY: Mapping[Any, str] = {
    np.add: "+",
    np.subtract: "-",
    np.multiply: "*",
    np.true_divide: "/",
    np.power: "**",
    np.equal: "==",
    np.not_equal: "!=",
    np.less: "<",
    np.less_equal: "<=",
    np.greater: ">",
    np.greater_equal: ">=",
    np.logical_and: "and",
    np.logical_or: "or",
    np.bitwise_and: "and",
    np.bitwise_or: "or",
}


def no_rows(member: str, what: str) -> NoReturn:
    """What a person is told who asks a handle for rows."""
    raise Refused(
        f"{member} is guarded: its rows stay there, so there is no {what}. Allowed are aggregates (describe, mean, "
        "groupby, value_counts, crosstab, quantile, hist, corr, ols, logit), and derived columns that stay: "
        "fed.save(name, table).",
        member=member,
        rule="rows stay",
    )


def _plain(op: str) -> Callable[[GuardedColumn, Any], GuardedColumn]:
    return lambda self, other: self._binary(op, other)


def _mirrored(op: str) -> Callable[[GuardedColumn, Any], GuardedColumn]:
    return lambda self, other: self._mirror(op, other)


class GuardedColumn:
    """Looks like a pandas Series. Arithmetic makes new expressions; aggregates are asked of the party's gate."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, counter: released.Counter, rows: p.Rows, x: p.Expr, name: str | None) -> None:
        self._counter = counter
        self._rows = rows
        self._x = x
        self.name = name

    def __repr__(self) -> str:
        return f"<column {self.name or '(derived)'} at {self._counter.member}: rows stay there; ask for aggregates>"

    # ------------------------------------------------------------ expressions

    def _new(self, x: p.Expr, name: str | None = None) -> GuardedColumn:
        return GuardedColumn(self._counter, self._rows, x, name or self.name)

    def _other(self, value: Any) -> p.Expr:
        if isinstance(value, GuardedColumn):
            if value._rows != self._rows:
                raise DataError("the two columns belong to different rows; filter or join the tables first.")
            return value._x
        return literal(value)

    def _binary(self, op: Any, other: Any) -> GuardedColumn:
        return self._new(p.Binary(op, self._x, self._other(other)))

    def _mirror(self, op: Any, other: Any) -> GuardedColumn:
        return self._new(p.Binary(op, self._other(other), self._x))

    __add__, __radd__ = _plain("+"), _mirrored("+")
    __sub__, __rsub__ = _plain("-"), _mirrored("-")
    __mul__, __rmul__ = _plain("*"), _mirrored("*")
    __truediv__, __rtruediv__ = _plain("/"), _mirrored("/")
    __pow__ = _plain("**")
    __and__, __rand__ = _plain("and"), _mirrored("and")
    __or__, __ror__ = _plain("or"), _mirrored("or")
    __lt__, __le__, __gt__, __ge__ = _plain("<"), _plain("<="), _plain(">"), _plain(">=")
    __eq__ = _plain("==")  # type: ignore[assignment]
    __ne__ = _plain("!=")  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            return NotImplemented
        if ufunc in _UFUNCS and len(inputs) == 1:
            return self._new(p.Unary(_UFUNCS[ufunc], self._x))  # type: ignore[arg-type]
        if ufunc is np.logical_not or ufunc is np.invert:
            return ~self
        if ufunc is np.square:
            return self**2
        if ufunc in _BINARY and len(inputs) == 2:
            left, right = (each if isinstance(each, GuardedColumn) else None for each in inputs)
            if left is not None:
                return left._binary(_BINARY[ufunc], inputs[1])
            if right is not None:
                return right._mirror(_BINARY[ufunc], inputs[0])
        return NotImplemented

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        no_rows(self._counter.member, "array of values")

    def __iter__(self) -> NoReturn:
        no_rows(self._counter.member, "loop over values")

    def __bool__(self) -> NoReturn:
        raise TypeError("a column of a guarded party has no truth value; combine conditions with &, | and ~.")

    def __len__(self) -> int:
        return int(released.one(self._counter, self._rows, p.Figure("size")))

    def __invert__(self) -> GuardedColumn:
        return self._new(p.Unary("not", self._x))

    def __neg__(self) -> GuardedColumn:
        return self._new(p.Unary("-", self._x))

    def abs(self) -> GuardedColumn:
        return self._new(p.Unary("abs", self._x))

    __abs__ = abs

    def isna(self) -> GuardedColumn:
        return self._new(p.Unary("isna", self._x))

    def notna(self) -> GuardedColumn:
        return ~self.isna()

    isnull, notnull = isna, notna

    def isin(self, values: Iterable[Any]) -> GuardedColumn:
        return self._new(p.OneOf(self._x, [literal(value).value for value in values]))

    def between(self, left: Any, right: Any, inclusive: str = "both") -> GuardedColumn:
        low = self._binary(">=" if inclusive in ("both", "left") else ">", left)
        return low & self._binary("<=" if inclusive in ("both", "right") else "<", right)

    def fillna(self, value: Any) -> GuardedColumn:
        return self._new(p.Fill(self._x, literal(value).value))

    def clip(self, lower: float | None = None, upper: float | None = None) -> GuardedColumn:
        bounds = [None if bound is None else float(bound) for bound in (lower, upper)]
        return self._new(p.Clip(self._x, *bounds))

    def where(self, condition: GuardedColumn, other: Any) -> GuardedColumn:
        return self._new(p.Choose(self._other(condition), self._x, self._other(other)))

    def mask(self, condition: GuardedColumn, other: Any) -> GuardedColumn:
        return self._new(p.Choose(self._other(condition), self._other(other), self._x))

    def astype(self, kind: Any) -> GuardedColumn:
        """Numbers and conditions count as numbers anyway; the party keeps its own types."""
        if np.dtype(kind).kind not in "bif":
            raise DataError(f"astype({kind!r}): a guarded party turns columns into numbers only.")
        return self

    def cut(self, edges: Iterable[float]) -> GuardedColumn:
        """Intervals [edge, next edge) as text, like pandas.cut(right=False) with open ends."""
        return self._new(p.Cut(self._x, [float(edge) for edge in edges]))

    def rename(self, name: str) -> GuardedColumn:
        return self._new(self._x, name)

    # ------------------------------------------------------------ questions

    def _asked(self) -> tuple[p.Columns, str]:
        name = self.name or "value"
        return p.Columns(self._rows, [p.Named(name, self._x)]), name

    def _one(self, statistic: Any, q: float | None = None) -> Any:
        rows, name = self._asked()
        return released.one(self._counter, rows, p.Figure(statistic, name, q))

    def count(self) -> Any:
        return self._one("count")

    def sum(self) -> Any:
        return self._one("sum")

    def mean(self) -> Any:
        return self._one("mean")

    def std(self) -> Any:
        return self._one("std")

    def var(self) -> Any:
        return self._one("var")

    def median(self) -> Any:
        return self._one("quantile", 0.5)

    def quantile(self, q: float | Iterable[float] = 0.5) -> Any:
        """A mean of the rows around the quantile."""
        if isinstance(q, int | float):
            return self._one("quantile", float(q))
        wanted = [float(each) for each in q]
        rows, name = self._asked()
        table = released.aggregate(self._counter, rows, [p.Figure("quantile", name, each) for each in wanted])
        row = table.iloc[0]
        row.index = wanted
        return row.rename(name)

    def describe(self) -> pd.Series:
        rows, name = self._asked()
        return released.describe(self._counter, rows, [name])[name]

    def value_counts(self, normalize: bool = False) -> pd.Series:
        rows, name = self._asked()
        return released.counts(self._counter, rows, [name], normalize)

    def histogram(self, bins: int = 10) -> pd.DataFrame:
        """Released counts of each bin."""
        rows, name = self._asked()
        return released.histogram(self._counter, rows, name, bins)

    def hist(self, bins: int = 10) -> Any:
        """A histogram drawn from released counts. Returns matplotlib's axes."""
        return released.bars(self.histogram(bins), self.name or "value")

    def corr(self, other: GuardedColumn) -> float:
        columns = [p.Named("x", self._x), p.Named("y", self._other(other))]
        answer = self._counter.ask(p.Correlate(p.Columns(self._rows, columns), ["x", "y"]))
        return float(released.frame(self._counter, answer).to_numpy(dtype=float)[0, 1])

    def __getattr__(self, name: str) -> Any:
        return _no_attribute(self._counter.member, "column", name)


def literal(value: Any) -> p.Literal_:
    """A constant of an expression. Raises DataError for what is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise DataError(
            f"a {type(value).__name__} cannot be part of an expression at a guarded party; numbers, text and columns "
            "of the same table can."
        )
    return p.Literal_(value)


_ROWS = frozenset(
    {
        *("head", "tail", "sample", "iloc", "loc", "at", "iat", "values", "array", "to_numpy", "to_list", "tolist"),
        *("to_dict", "to_csv", "to_parquet", "to_json", "to_frame", "items", "iterrows", "itertuples", "apply", "map"),
        *("transform", "pipe", "nlargest", "nsmallest", "sort_values", "unique", "drop_duplicates", "min", "max"),
        *("idxmin", "idxmax", "mode", "take", "T", "first", "last", "nth", "rolling", "cumsum", "diff", "shift"),
    }
)


def _no_attribute(member: str, what: str, name: str) -> NoReturn:
    if name in _ROWS:
        no_rows(member, name)
    raise AttributeError(f"a guarded {what} has no {name!r}; dir() lists what it has.")


def size_of(x: p.Expr) -> int:
    """How many parts an expression has, for one that grew without anybody noticing."""
    parts, stack = 0, list[p.Node]([x])
    while stack and parts <= p.MOST_NODES:
        part = stack.pop()
        parts += 1
        if isinstance(part, msgspec.Struct):
            stack += [each for name in part.__struct_fields__ if isinstance(each := getattr(part, name), p.Node)]
    return parts
