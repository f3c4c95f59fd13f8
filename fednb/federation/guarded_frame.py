"""The handle that `fed.load` gives in a guarded party's kernel: like a DataFrame, without the data.

It knows the table's columns and their roles, and writes down what is asked of it as a plan. Filters, arithmetic and
joins make new handles; aggregates go to the party's gate and come back as ordinary pandas objects, so plots are drawn
from what was released.

>>> loans = fed.load("loans")
>>> loans[loans.age >= 30].groupby("region")["income"].mean()
>>> fed.save("features", loans.assign(debt_ratio=loans.bill / loans.limit))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from fednb.errors import DataError
from fednb.federation import released
from fednb.federation.guarded_column import GuardedColumn, _no_attribute, literal, no_rows, size_of
from fednb.policy import plan as p
from fednb.policy.answer import ColumnSpec, Schema

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = ("count", "sum", "mean", "std", "var", "median", "size")


class GuardedFrame:
    """Rows of a guarded party and expressions on them. It holds no data."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        counter: released.Counter,
        rows: p.Rows,
        columns: Mapping[str, p.Expr],
        specs: Mapping[str, ColumnSpec],
        name: str,
        label: str | None = None,
    ) -> None:
        self._counter = counter
        self._rows = rows
        self._columns = dict(columns)
        self._specs = dict(specs)
        self._name = name
        self._label = label if label in columns else None

    @classmethod
    def of(cls, counter: released.Counter, schema: Schema) -> GuardedFrame:
        columns = {spec.name: p.Column(spec.name) for spec in schema.columns}
        specs = {spec.name: spec for spec in schema.columns}
        return cls(counter, p.Table(schema.name), columns, specs, schema.name, schema.label)

    def __repr__(self) -> str:
        lines = [f"{self._name} at {self._counter.member} (guarded: rows stay there; ask for aggregates)"]
        for name in self._columns:
            spec = self._specs.get(name)
            lines.append(f"  {name}: {_in_words(spec) if spec else 'derived'}")
        return "\n".join(lines)

    @property
    def columns_info(self) -> pd.DataFrame:
        """Each column's role and kind, and at which levels or cut points it may be divided."""
        import pandas as pd

        listed = [(name, self._specs.get(name)) for name in self._columns]
        return pd.DataFrame(
            {
                "role": [spec.role if spec else "derived" for _, spec in listed],
                "kind": [spec.kind if spec else "" for _, spec in listed],
                "levels": [list(spec.levels) if spec else [] for _, spec in listed],
                "cuts": [list(spec.cuts) if spec else [] for _, spec in listed],
                "missing": [spec.nullable if spec else None for _, spec in listed],
            },
            index=pd.Index([name for name, _ in listed], name="column"),
        )

    # ------------------------------------------------------------ columns and rows

    @property
    def columns(self) -> pd.Index:
        import pandas as pd

        return pd.Index(list(self._columns))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self._columns)

    def __len__(self) -> int:
        return int(released.one(self._counter, self._plan(), p.Figure("size")))

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Any:
        return iter(list(self._columns))

    def __bool__(self) -> NoReturn:
        raise TypeError("a guarded table has no truth value.")

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        no_rows(self._counter.member, "array of values")

    def __dataframe__(self, *args: Any, **kwargs: Any) -> NoReturn:
        no_rows(self._counter.member, "data")

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return GuardedColumn(self._counter, self._rows, self._expr(key), key)
        if isinstance(key, GuardedColumn):
            if key._rows != self._rows:
                raise DataError("the condition belongs to other rows; make it from this table.")
            return self._with(rows=p.Where(self._rows, key._x))
        if isinstance(key, list) and all(isinstance(each, str) for each in key):
            return self._with({name: self._expr(name) for name in key})
        no_rows(self._counter.member, "row by position")

    def __setitem__(self, name: str, value: Any) -> None:
        self._columns = self.assign(**{name: value})._columns
        self._specs.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        columns: Mapping[str, p.Expr] = self.__dict__.get("_columns", {})
        if name in columns:
            return self[name]
        if "_counter" not in self.__dict__:
            raise AttributeError(name)
        return _no_attribute(self._counter.member, "table", name)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(name for name in self._columns if name.isidentifier())]

    def assign(self, **columns: Any) -> GuardedFrame:
        """New columns: expressions of this table's, constants, or functions of the table."""
        made = self
        for name, value in columns.items():
            if callable(value) and not isinstance(value, GuardedColumn):
                value = value(made)
            if isinstance(value, GuardedColumn):
                if value._rows != self._rows:
                    raise DataError(f"{name!r} is made from other rows than this table's.")
                x: p.Expr = value._x
            else:
                x = literal(value)
            if size_of(x) > p.MOST_NODES:
                raise DataError(f"the expression of {name!r} is too large; save the table half-way (fed.save).")
            same = x == made._columns.get(name)
            specs = made._specs if same else {n: spec for n, spec in made._specs.items() if n != name}
            made = made._with({**made._columns, name: x}, specs=specs)
        return made

    def drop(self, columns: str | Sequence[str]) -> GuardedFrame:
        gone = {columns} if isinstance(columns, str) else set(columns)
        for name in gone:
            self._expr(name)
        return self._with({name: x for name, x in self._columns.items() if name not in gone})

    def rename(self, columns: Mapping[str, str]) -> GuardedFrame:
        names = {name: columns.get(name, name) for name in self._columns}
        made = self._with(
            {names[name]: x for name, x in self._columns.items()},
            specs={names[name]: spec for name, spec in self._specs.items() if name in names},
        )
        made._label = names.get(self._label or "", self._label)
        return made

    def fillna(self, value: Any) -> GuardedFrame:
        """A number for all columns that have missing values, or one for each (a dict, or a released Series)."""
        if hasattr(value, "to_dict"):
            value = value.to_dict()
        if not isinstance(value, Mapping):
            value = {n: value for n in self._columns if self._is_number(n) and self._nullable(n)}
        return self.assign(**{name: self[name].fillna(each) for name, each in value.items() if name in self._columns})

    def clip(self, lower: float | None = None, upper: float | None = None) -> GuardedFrame:
        return self.assign(**{n: self[n].clip(lower, upper) for n in self._columns if self._is_number(n)})

    def dropna(self, subset: str | Sequence[str] | None = None) -> GuardedFrame:
        """Without the rows in which a value is missing."""
        names = [subset] if isinstance(subset, str) else list(self._columns) if subset is None else list(subset)
        made = self
        for name in names:
            if self._nullable(name):
                made = made[made[name].notna()]
        return made

    def get_dummies(self, columns: str | Sequence[str], drop_first: bool = False) -> GuardedFrame:
        """0/1 columns for the levels of categories, in place of these."""
        made = self
        for name in [columns] if isinstance(columns, str) else columns:
            spec = self._specs.get(name)
            if spec is None or not spec.levels:
                raise DataError(f"{name!r} has no levels: only a category as it stands can become dummies.")
            made = made.assign(
                **{f"{name}_{level}": (self[name] == level) * 1.0 for level in spec.levels[int(drop_first) :]}
            ).drop(name)
        return made

    def merge(
        self, right: GuardedFrame, on: str | Sequence[str], how: str = "inner", suffix: str = "_right"
    ) -> GuardedFrame:
        """Join with another table of the party, on ids or keys that identify its rows."""
        if how not in ("inner", "left"):
            raise DataError(f'how={how!r}: tables of a guarded party are joined "inner" or "left".')
        on = [on] if isinstance(on, str) else list(on)
        rows = p.Join(self._plan(), right._plan(), on, how, suffix)  # type: ignore[arg-type]
        names = list(self._columns)
        specs = dict(self._specs)
        for name in right._columns:
            if name not in on:
                target = name + suffix if name in self._columns else name
                names.append(target)
                if name in right._specs:
                    specs[target] = right._specs[name]
        return self._with({name: p.Column(name) for name in names}, rows=rows, specs=specs)

    # ------------------------------------------------------------ questions

    def groupby(self, by: str | Sequence[str] | GuardedColumn) -> GuardedGroups:
        if isinstance(by, GuardedColumn):
            name = by.name or "key"
            return GuardedGroups(self.assign(**{name: by}), [name])
        return GuardedGroups(self, [by] if isinstance(by, str) else list(by))

    def _figures(self, statistic: str, columns: Sequence[str] | None = None, q: float | None = None) -> pd.Series:
        names = self._numbers() if columns is None else list(columns)
        table = released.aggregate(self._counter, self._plan(names), [_figure(statistic, n, q) for n in names])
        row = table.iloc[0]
        row.index = names
        row.name = None
        return row

    def mean(self) -> pd.Series:
        return self._figures("mean")

    def sum(self) -> pd.Series:
        return self._figures("sum")

    def std(self) -> pd.Series:
        return self._figures("std")

    def var(self) -> pd.Series:
        return self._figures("var")

    def median(self) -> pd.Series:
        return self._figures("median")

    def count(self) -> pd.Series:
        return self._figures("count", [n for n in self._columns if not self._is_id(n)])

    def quantile(self, q: float = 0.5) -> pd.Series:
        return self._figures("quantile", q=q)

    def isna(self) -> GuardedFrame:
        """0/1 columns that say what is missing: `isna().mean()` gives shares."""
        names = [n for n in self._columns if not self._is_id(n)]
        return self._with({n: p.Unary("isna", self._columns[n]) for n in names}, specs={})

    isnull = isna

    def describe(self) -> pd.DataFrame:
        return released.describe(self._counter, self._plan(), self._numbers())

    def value_counts(self, columns: str | Sequence[str], normalize: bool = False) -> pd.Series:
        names = [columns] if isinstance(columns, str) else list(columns)
        return released.counts(self._counter, self._plan(names), names, normalize)

    def crosstab(self, index: str, columns: str) -> pd.DataFrame:
        """Counts by two columns; rows that would have a small cell are pooled."""
        table = released.frame(self._counter, self._counter.ask(p.Count(self._plan(), [index, columns])))
        return table["count"].unstack(columns, fill_value=0)

    def corr(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        return self._pairs(columns, covariance=False)

    def cov(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        return self._pairs(columns, covariance=True)

    def _pairs(self, columns: Sequence[str] | None, covariance: bool) -> pd.DataFrame:
        names = list(columns) if columns is not None else self._numbers()
        return released.frame(self._counter, self._counter.ask(p.Correlate(self._plan(names), names, covariance)))

    def hist(self, column: str, bins: int = 10) -> Any:
        return self[column].hist(bins)

    def ols(self, y: str, x: str | Sequence[str]) -> pd.DataFrame:
        """Least squares: coefficients, standard errors, t."""
        return self._regress(y, x, "ols")

    def logit(self, y: str, x: str | Sequence[str]) -> pd.DataFrame:
        """Logistic regression: coefficients, standard errors, z."""
        return self._regress(y, x, "logit")

    def _regress(self, y: str, x: str | Sequence[str], family: Any) -> pd.DataFrame:
        names = [x] if isinstance(x, str) else list(x)
        question = p.Regress(self._plan([y, *names]), y, names, family)
        return released.frame(self._counter, self._counter.ask(question))

    # ------------------------------------------------------------ plans

    def kept(self, name: str, id: str | Sequence[str] | None = None, label: str | None = None) -> p.Keep:
        """The plan of a table that stays. Raises DataError when nothing identifies its rows."""
        ids = self.ids if id is None else [id] if isinstance(id, str) else list(id)
        if not ids:
            raise DataError(f"which column identifies a row? {self._name} is saved with its id column; keep that.")
        return p.Keep(self._plan(), name, ids, self._label if label is None else label)

    def _plan(self, columns: Sequence[str] | None = None) -> p.Columns:
        names = list(dict.fromkeys(columns)) if columns is not None else list(self._columns)
        return p.Columns(self._rows, [p.Named(name, self._expr(name)) for name in names])

    def _expr(self, name: str) -> p.Expr:
        if name not in self._columns:
            raise DataError(f"{self._name} has no column {name!r}. It has {', '.join(self._columns)}.")
        return self._columns[name]

    def _with(
        self,
        columns: Mapping[str, p.Expr] | None = None,
        rows: p.Rows | None = None,
        specs: Mapping[str, ColumnSpec] | None = None,
    ) -> GuardedFrame:
        return GuardedFrame(
            self._counter,
            self._rows if rows is None else rows,
            self._columns if columns is None else columns,
            self._specs if specs is None else specs,
            self._name,
            self._label,
        )

    def _is_id(self, name: str) -> bool:
        spec = self._specs.get(name)
        return spec is not None and spec.role == "id"

    def _is_number(self, name: str) -> bool:
        spec = self._specs.get(name)
        return spec is not None and spec.kind == "number" and spec.role != "id"

    def _nullable(self, name: str) -> bool:
        spec = self._specs.get(name)
        return spec is not None and spec.nullable and spec.role != "id"

    def _numbers(self) -> list[str]:
        """Numeric columns, and derived ones, about which the gate decides."""
        found = [n for n in self._columns if n not in self._specs or self._is_number(n)]
        if not found:
            raise DataError(f"{self._name} has no numeric column here.")
        return found

    @property
    def ids(self) -> list[str]:
        """Columns that identify rows."""
        return [name for name in self._columns if self._is_id(name)]


class GuardedGroups:
    """`groupby(...)`: statistics of columns in each group. Small groups come pooled."""

    def __init__(self, frame: GuardedFrame, by: list[str], columns: list[str] | None = None, single: bool = False):
        self._frame = frame
        self._by = by
        self._columns = columns
        self._single = single

    def __getitem__(self, columns: str | list[str]) -> GuardedGroups:
        names = [columns] if isinstance(columns, str) else list(columns)
        return GuardedGroups(self._frame, self._by, names, isinstance(columns, str))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._frame._columns:
            return self[name]
        return _no_attribute(self._frame._counter.member, "groupby", name)

    def agg(self, what: Any = None, /, **named: tuple[str, str]) -> pd.DataFrame:
        """As in pandas: a statistic, a list of them, a dict by column, or name=(column, statistic)."""
        wanted: list[tuple[Any, str, str]] = []
        if named:
            wanted = [(name, column, statistic) for name, (column, statistic) in named.items()]
        elif isinstance(what, Mapping):
            for column, statistics in what.items():
                several = [statistics] if isinstance(statistics, str) else list(statistics)
                wanted += [
                    (column if isinstance(statistics, str) else (column, each), column, each) for each in several
                ]
        elif isinstance(what, str):
            wanted = [(column, column, what) for column in self._names()]
        else:
            wanted = [
                (each if self._single else (column, each), column, each) for column in self._names() for each in what
            ]
        figures = [_figure(statistic, column) for _, column, statistic in wanted]
        rows = self._frame._plan([*self._by, *(column for _, column, _ in wanted)])
        return released.aggregate(self._frame._counter, rows, figures, self._by, [name for name, _, _ in wanted])

    def size(self) -> pd.Series:
        table = released.aggregate(
            self._frame._counter, self._frame._plan(self._by), [p.Figure("size")], self._by, ["size"]
        )
        return table["size"]

    def describe(self) -> pd.DataFrame:
        return self.agg(["count", "mean", "std", "median"])

    def quantile(self, q: float = 0.5) -> Any:
        names = self._names()
        figures = [p.Figure("quantile", name, q) for name in names]
        rows = self._frame._plan([*self._by, *names])
        return self._shown(released.aggregate(self._frame._counter, rows, figures, self._by, names))

    def _one(self, statistic: str) -> Any:
        return self._shown(self.agg(statistic))

    def _shown(self, table: pd.DataFrame) -> Any:
        return table.iloc[:, 0] if self._single else table

    def _names(self) -> list[str]:
        return self._columns or [name for name in self._frame._numbers() if name not in self._by]


def _statistics() -> None:
    def asked(name: str) -> Callable[[GuardedGroups], Any]:
        return lambda self: self._one(name)

    for name in STATISTICS:
        if name != "size":
            setattr(GuardedGroups, name, asked(name))


_statistics()


def _figure(statistic: str, column: str, q: float | None = None) -> p.Figure:
    if statistic == "median":
        return p.Figure("quantile", column, 0.5)
    if statistic == "quantile":
        return p.Figure("quantile", column, q)
    if statistic not in STATISTICS:
        raise DataError(f"{statistic!r} is no statistic of a guarded party; there are {', '.join(STATISTICS)}.")
    return p.Figure(statistic, "" if statistic == "size" else column)  # type: ignore[arg-type]


def _in_words(spec: ColumnSpec) -> str:
    words: list[str] = [spec.role, spec.kind]
    if spec.levels:
        words.append(f"levels {', '.join(map(str, spec.levels[:12]))}{', ...' if len(spec.levels) > 12 else ''}")
    if spec.role == "key" and spec.cuts:
        words.append(f"divided at {', '.join(f'{cut:g}' for cut in spec.cuts)}")
    if spec.nullable:
        words.append("with missing values")
    return ", ".join(words)
