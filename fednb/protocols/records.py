"""A party's rows before they are numbers: columns of numbers, texts and dates, as its owner prepares them.

A `Table` is what the steps of a preparation work on, one after the other. It loads a column when a step, or the end,
asks for it, and it knows which columns must go along as they are: the label above all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError
from fednb.protocols.features import rows_said
from fednb.protocols.rows import Floats

Kind = Literal["number", "text", "date"]
Dates = npt.NDArray[np.datetime64]
Texts = npt.NDArray[np.object_]

A = {"number": "a number", "text": "text", "date": "a date"}


@dataclass(frozen=True)
class Column:
    """[n] values of one kind."""

    kind: Kind
    values: npt.NDArray[Any]  # float64, NaN: missing; str objects, None: missing; datetime64[s], NaT: missing

    def __repr__(self) -> str:
        return f"<Column of {len(self.values)} rows, {self.kind}>"

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        if self.kind == "text":
            return np.array([value is None for value in self.values], dtype=np.bool_)
        return np.asarray(np.isnan(self.values) if self.kind == "number" else np.isnat(self.values), dtype=np.bool_)


class Records(Protocol):
    """Some rows of a party's table, by column."""

    columns: tuple[str, ...]  # that were asked for, in their order
    taken: frozenset[str]  # names of all columns that these rows have anywhere, ids and labels too
    rows: int

    def __getitem__(self, name: str, /) -> Column:
        """One column, read now."""
        ...


class Table:
    """Columns by name, in their order, while steps change them. Rows never change."""

    def __init__(self, party: str, records: Records, carried: Iterable[str]) -> None:
        self.party = party
        self.rows = records.rows
        self.notes: list[str] = []
        self._records = records
        self._columns: dict[str, Column | None] = dict.fromkeys(records.columns)  # None: not read yet
        self._carried = frozenset(carried)

    @property
    def names(self) -> list[str]:
        """Columns that steps may use, those that go along as they are left out."""
        return [name for name in self._columns if name not in self._carried]

    def all(self) -> Iterator[tuple[str, Column]]:
        """Every column, in order, those that go along too."""
        return ((name, self._column(name)) for name in list(self._columns))

    def chosen(self, asked: Sequence[str] | None, *kinds: Kind) -> list[str]:
        """The columns asked for, or all of these kinds. DataError for one that is not here."""
        if asked is None:
            return [name for name in self.names if self.kind(name) in kinds]
        return [self._usable(name) for name in asked]

    def kind(self, name: str) -> Kind:
        return self._column(name).kind

    def column(self, name: str) -> Column:
        return self._column(self._usable(name))

    def numbers(self, name: str) -> Floats:
        """[n], NaN where missing. DataError for a date, text that is no number, and infinite values."""
        column = self.column(name)
        if column.kind == "date":
            raise self.wrong(name, "is a date. Take its parts first, with VerticalDateFeatures")
        values = column.values if column.kind == "number" else self._parsed(name, column)
        endless = int(np.isinf(values).sum())
        if endless:
            raise self.wrong(name, f"has infinite values in {rows_said(endless)}. Replace them first")
        return np.asarray(values, dtype=np.float64)

    def texts(self, name: str) -> Texts:
        """[n], None where missing; a whole number as "3"."""
        column = self.column(name)
        if column.kind == "date":
            raise self.wrong(name, "is a date. Take its parts first, with VerticalDateFeatures")
        if column.kind == "text":
            return column.values
        return np.array([None if np.isnan(x) else f"{x:.15g}" for x in column.values], dtype=object)

    def dates(self, name: str, parse: Callable[[Texts], Dates]) -> Dates:
        """[n] datetime64[s], NaT where missing; text is read by `parse`, which gives NaT for what is no date."""
        column = self.column(name)
        if column.kind == "number" and not column.missing.all():
            raise self.wrong(name, "is a number, not a date")
        if column.kind != "text":
            return np.asarray(column.values, dtype="datetime64[s]")
        found = parse(column.values)
        bad = int((np.isnat(found) & ~column.missing).sum())
        if bad:
            raise self.wrong(
                name,
                f"is text, and {rows_said(bad)} of {self.rows:,} hold no date in that form. Say how dates are written, "
                'as format="%d/%m/%Y", or leave the column out',
            )
        return found

    def replace(self, name: str, values: npt.NDArray[Any], kind: Kind = "number") -> None:
        self._columns[name] = Column(kind, values)

    def add(self, name: str, values: Floats) -> None:
        """A new column. DataError when there is one of that name anywhere: it could pass for that one."""
        if name in self._columns or name in self._records.taken:
            raise DataError(
                f"{self.party}'s table has a column {name!r} already, which this step would make. Leave that column "
                "out, or rename one."
            )
        self._columns[name] = Column("number", values)

    def drop(self, name: str) -> None:
        del self._columns[name]

    def wrong(self, name: str, what: str) -> DataError:
        """An error about a column."""
        return DataError(f"{self.party}'s {name!r} {what}.")

    def check_schema(self, fitted: dict[str, Kind]) -> None:
        """DataError, naming columns, unless these are of the kinds that they had when the steps were fitted."""
        absent = [repr(name) for name in fitted if name not in self._columns]
        if absent:
            raise DataError(
                f"{self.party}'s {', '.join(absent)} of the rows that this was fitted on {_are(absent)} not in these "
                "rows. Prepare a table that has the same columns, or fit again."
            )
        changed = [
            f"{name!r} was {A[kind]} and is {A[self.kind(name)]} now"
            for name, kind in fitted.items()
            if self.kind(name) != kind and not self._column(name).missing.all()
        ]
        if changed:
            raise DataError(
                f"{self.party}'s columns have changed since this was fitted: {'; '.join(changed)}. Give them their "
                "types back, or fit again."
            )
        for name, kind in fitted.items():
            if self.kind(name) != kind:  # nothing but missing values has no kind of its own
                self._columns[name] = _nothing(kind, self.rows)

    def _usable(self, name: str) -> str:
        if name in self._carried:
            raise self.wrong(name, "is the label, or was to be left as it is: no step changes or uses it")
        if name not in self._columns:
            raise DataError(f"{self.party} has no column {name!r} here; it has {', '.join(self.names) or 'none'}.")
        return name

    def _column(self, name: str) -> Column:
        found = self._columns[name]
        if found is None:
            found = self._columns[name] = self._records[name]
        return found

    def _parsed(self, name: str, column: Column) -> Floats:
        found = np.array([np.nan if value is None else _number(value) for value in column.values], dtype=np.float64)
        bad = int((np.isnan(found) & ~column.missing).sum())
        if bad:
            raise self.wrong(
                name,
                f"is text, and {rows_said(bad)} of {self.rows:,} hold no number. Use VerticalOneHotEncoder on it, or "
                "leave it out",
            )
        return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _nothing(kind: Kind, rows: int) -> Column:
    if kind == "text":
        return Column(kind, np.full(rows, None, dtype=object))
    return Column(kind, np.full(rows, np.nan if kind == "number" else np.datetime64("NaT", "s")))


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
