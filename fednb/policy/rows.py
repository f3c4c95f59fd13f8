"""The rows of a plan: which rows of which tables they are, and the columns computed on them.

Every column can be had in two ways: as values, which stay at the party, and as a shape (`shapes`), which says what
of it may leave. A column is worked out once however often a plan names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fednb.errors import DataError, Refused
from fednb.policy import plan as p
from fednb.policy import rowwise
from fednb.policy.columns import BaseTable
from fednb.policy.ledger import Positions
from fednb.policy.shapes import Array, Bare, Factor, Known, Linear, Private, Shape, linear, moved

if TYPE_CHECKING:
    import pandas as pd

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "value": lambda x: x,
    "abs": np.abs,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "inverse": lambda x: 1.0 / x,
}
Find = Callable[[str], "BaseTable | p.Rows"]  # a table of the party's, or the plan of one that was saved
MOST_SAVED = 20  # of saved tables, one made from another


class Source:
    """A table that rows come from, and the row of it [n]; -1: none (a left join without a match)."""

    def __init__(self, table: BaseTable, at: Positions) -> None:
        self.table = table
        self.at = at
        self._positions: dict[str, Positions] = {}
        self._distinct: bool | None = None

    def take(self, rows: Array) -> Source:
        return Source(self.table, self.at[rows])

    def positions(self, unit: str) -> Positions:
        """[n] places in the ledger; -1 where there is no row."""
        if unit not in self._positions:
            self._positions[unit] = np.where(self.at >= 0, self.table.units[unit][self.at], -1)
        return self._positions[unit]

    @property
    def entity(self) -> Positions:
        """[n] whose row it is."""
        return self.positions("id" if "id" in self.table.units else "row")

    @property
    def distinct(self) -> bool:
        """Whether every row here is another id's."""
        if self._distinct is None:
            self._distinct = len(np.unique(self.entity)) == len(self.entity)
        return self._distinct

    def series(self, column: str) -> pd.Series:
        values = self.table.frame[column]
        if (self.at >= 0).all():
            return values.take(self.at).reset_index(drop=True)
        return values.reindex(self.at).reset_index(drop=True)


class Cell:
    """One column, worked out when it is asked for."""

    def __init__(
        self, kind: rowwise.Type, values: Callable[[], pd.Series], shape: Callable[[], Shape], derived: bool = False
    ) -> None:
        self.kind = kind
        self.derived = derived
        self._make_values, self._make_shape = values, shape
        self._values: pd.Series | None = None
        self._shape: Shape | None = None

    def values(self) -> pd.Series:
        if self._values is None:
            self._values = self._make_values()
        return self._values

    def shape(self) -> Shape:
        if self._shape is None:
            self._shape = self._make_shape()
        return self._shape

    def take(self, rows: Array) -> Cell:
        def values() -> pd.Series:
            return self.values().take(rows).reset_index(drop=True)

        return Cell(self.kind, values, lambda: self.shape().take(rows), self.derived)


class Relation:
    """Rows of one or more tables. `filtered`: some rows of the first table are not among them."""

    def __init__(self, member: str, sources: list[Source], columns: Mapping[str, Cell], filtered: bool) -> None:
        self.member = member
        self.sources = sources
        self.columns = dict(columns)
        self.filtered = filtered

    @property
    def n(self) -> int:
        return len(self.sources[0].at)

    def cell(self, name: str) -> Cell:
        found = self.columns.get(name)
        if found is None:
            listed = ", ".join(list(self.columns)[:30]) or "none"
            raise DataError(f"{self.member} has no column {name!r} here. There are: {listed}.")
        return found

    def shape(self, name: str) -> Shape:
        return self.cell(name).shape()

    def take(self, rows: Array) -> Relation:
        return Relation(
            self.member,
            [source.take(rows) for source in self.sources],
            {name: cell.take(rows) for name, cell in self.columns.items()},
            self.filtered or len(rows) < self.n,
        )

    # ------------------------------------------------------------ values of shapes

    def factor(self, factor: Factor) -> Array:
        """[n] NaN where missing."""
        return applied(self.sources[factor.source].series(factor.column), factor)

    def term(self, term: tuple[Factor, ...]) -> Array:
        made = np.ones(self.n)
        for factor in term:
            made = made * self.factor(factor)
        return made

    def numbers(self, shape: Linear) -> Array:
        """[n] NaN where any term that counts is missing."""
        made = np.zeros(self.n) + shape.constant
        for term, weight in shape.weights.items():
            made = made + np.where(np.asarray(weight) == 0, 0.0, weight * self.term(term))
        return made


def applied(series: pd.Series, factor: Factor) -> Array:
    """[n] one function of a column, NaN where it has no value."""
    if factor.function == "isna":
        return series.isna().to_numpy(dtype=np.float64)
    if factor.function == "levels":
        return np.where(series.isna(), np.nan, 1.0)
    if factor.function == "level":
        same = (series == factor.detail).to_numpy(dtype=np.float64, na_value=0.0)
        return np.where(series.isna(), np.nan, same)
    x = series.to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(all="ignore"):
        if factor.function == "filled":
            return np.where(np.isnan(x), 0.0, x)
        if factor.function == "at least":
            return np.where(np.isnan(x), np.nan, x >= float(factor.detail))
        made = _FUNCTIONS[factor.function](x)
    return np.where(np.isfinite(made), made, np.nan)


def build(rows: p.Rows, find: Find, member: str, saved: int = 0) -> Relation:
    """Raises DataError for names that are not there, Refused for a filter that may not be."""
    if isinstance(rows, p.Table):
        found = find(rows.name)
        if not isinstance(found, BaseTable):
            if saved >= MOST_SAVED:
                raise DataError(
                    f"{rows.name!r} was made from {MOST_SAVED} tables in a row; start again from the first."
                )
            return build(found, find, member, saved + 1)
        return _table(found, member)
    if isinstance(rows, p.Where):
        return _where(build(rows.rows, find, member, saved), rows.condition)
    if isinstance(rows, p.Columns):
        inner = build(rows.rows, find, member, saved)
        made = {named.name: _computed(inner, named.x) for named in rows.columns}
        if len(made) < len(rows.columns):
            raise DataError("two columns have the same name; rename one.")
        return Relation(member, inner.sources, made, inner.filtered)
    return _join(build(rows.left, find, member, saved), build(rows.right, find, member, saved), rows)


def _table(table: BaseTable, member: str) -> Relation:
    source = Source(table, np.arange(len(table.frame), dtype=np.int64))
    cells = {}
    for name, spec in table.specs.items():
        bare = Bare(0, name, spec, spec.nullable)
        truth = table.frame[name].dtype.kind == "b"
        kind: rowwise.Type = "truth" if truth else "number" if spec.kind == "number" else "text"
        cells[name] = Cell(kind, lambda name=name: source.series(name), lambda bare=bare: bare)  # type: ignore[misc]
    return Relation(member, [source], cells, filtered=False)


def _computed(relation: Relation, x: p.Expr) -> Cell:
    if isinstance(x, p.Column):
        return relation.cell(x.name)
    kind = rowwise.kind(relation, x)  # now: what is refused later should not be a misspelt name
    return Cell(kind, lambda: rowwise.values(relation, x), lambda: rowwise.shape(relation, x), derived=True)


def _where(relation: Relation, condition: p.Expr) -> Relation:
    rowwise.kind(relation, condition)
    return relation.take(np.flatnonzero(mask(relation, rowwise.shape(relation, condition))))


def mask(relation: Relation, shape: Shape) -> Array:
    """[n] which rows a filter keeps: decided by keys, or by whether a value is there, and by nothing else."""
    if isinstance(shape, Known) and shape.values.dtype.kind == "b":
        return np.broadcast_to(shape.values, (relation.n,))
    number = linear(shape) if isinstance(shape, Linear) else shape
    if isinstance(number, Linear) and number.truth and _only_missing(number):
        return relation.numbers(number) > 0.5
    why = shape.why if isinstance(shape, Private) else "it depends on a measure, or is no condition"
    raise Refused(
        f"{relation.member} declined a filter: {why}. Filters may use key columns, at their levels or cut points "
        "(the table's `.columns_info` lists them), and whether a value is missing.",
        member=relation.member,
        rule="filter",
    )


def _only_missing(shape: Linear) -> bool:
    return all(factor.function == "isna" for term in shape.weights for factor in term)


def _join(left: Relation, right: Relation, how: p.Join) -> Relation:
    """Each row of the left gets the one row of the right that has the same ids or keys."""
    import pandas as pd

    if not how.on:
        raise DataError("a join needs the columns to join on.")
    for side in (left, right):
        for name in how.on:
            shape = side.shape(name)
            if not (isinstance(shape, Bare) and shape.spec.role in ("id", "key")):
                raise Refused(
                    f"{left.member} declined a join on {name!r}: tables are joined on id and key columns, as they are.",
                    member=left.member,
                    rule="join",
                )
    keys = [
        pd.MultiIndex.from_arrays([side.cell(name).values().astype(str) for name in how.on]) for side in (left, right)
    ]
    if not keys[1].is_unique:
        raise Refused(
            f"{left.member} declined a join: the right table has several rows for one {', '.join(how.on)}. "
            "Put it on the left, or join on columns that identify its rows.",
            member=left.member,
            rule="join",
        )
    match: Array = keys[1].get_indexer(keys[0]).astype(np.int64)
    rows = np.arange(left.n) if how.how == "left" else np.flatnonzero(match >= 0)
    match = match[rows]
    kept = left.take(rows)
    sources = kept.sources + [
        Source(source.table, np.where(match >= 0, source.at[match], -1)) for source in right.sources
    ]
    cells = dict(kept.columns)
    missing = bool((match < 0).any())
    for name, cell in right.columns.items():
        if name in how.on:
            continue
        target = name + how.suffix if name in cells else name
        if target in cells:
            raise DataError(f"two columns would be called {target!r} after the join; rename one.")
        cells[target] = _matched(cell, match, len(left.sources), missing)
    return Relation(left.member, sources, cells, kept.filtered)


def _matched(cell: Cell, match: Array, sources: int, missing: bool) -> Cell:
    def values() -> pd.Series:
        return cell.values().reindex(match).reset_index(drop=True)

    def shape() -> Shape:
        found = cell.shape()
        if missing and not isinstance(found, Bare):
            return Private("some rows found no partner in the join; join inner, or derive the column afterwards")
        taken = moved(found.take(match), sources)
        if isinstance(taken, Bare) and missing:
            return Bare(taken.source, taken.column, taken.spec, True)
        return taken

    return Cell(cell.kind, values, shape, cell.derived)


def labels(relation: Relation, name: str) -> tuple[Array, list[Any]]:
    """[n] codes of a column to group by, and what each code means. Raises Refused for one that is no key."""
    import pandas as pd

    shape = relation.shape(name)
    if isinstance(shape, Bare) and shape.spec.role == "key":
        values = rowwise.key_values(relation.cell(name).values(), shape.spec)
    elif isinstance(shape, Known):
        values = pd.Series(np.broadcast_to(shape.values, (relation.n,)))
    else:
        why = shape.why if isinstance(shape, Private) else f"{name!r} is no key column"
        raise Refused(
            f"{relation.member} declined groups by {name!r}: {why}. Groups are made by key columns, and by what is "
            "derived from keys alone.",
            member=relation.member,
            rule="group",
        )
    codes, found = pd.factorize(values, use_na_sentinel=True)
    meanings: list[Any] = [each.item() if isinstance(each, np.generic) else each for each in found]
    if (codes < 0).any():
        codes = np.where(codes < 0, len(meanings), codes)
        meanings.append("(missing)")
    order = sorted(range(len(meanings)), key=lambda i: rowwise.rank(meanings[i], shape))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[codes], [meanings[i] for i in order]
