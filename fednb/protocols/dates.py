"""Dates as numbers: how many days before a day of reference, and what of the calendar they are."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.records import Dates, Table, Texts
from fednb.protocols.rows import Floats
from fednb.protocols.transforms import ColumnName, Fitted, Names, Step

Part = Literal["age_days", "year", "quarter", "month", "day", "weekday"]


class DateParts(Step, frozen=True, kw_only=True, tag="dates"):
    """New columns "opened_month" and so on, in place of a column of dates.

    reference : by party, for "age_days": a day, "2024-12-31", or another of its columns of dates. Later dates have a
        negative age. weekday : 0 is Monday.
    """

    parts: Annotated[list[Part], Meta(min_length=1)]
    reference: dict[str, ColumnName] = {}
    format: Annotated[str, Meta(max_length=100)] | None = None  # of text, as `strptime` has it; None: ISO 8601

    def fit(self, table: Table) -> DatesTaken:
        names = table.chosen(self.own(table), "date")
        reference, day = self.reference.get(table.party, ""), ""
        if names and "age_days" in self.parts:
            day = _day(reference)
            if not day and reference not in table.names:
                raise DataError(
                    f"{table.party}'s dates need a reference for their age: a day, such as '2024-12-31', or a column "
                    f"of dates, not {reference!r}."
                )
            names = [name for name in names if name != reference]
        parse = reader(self.format)
        for name in names:
            if np.isnat(table.dates(name, parse)).all():
                raise table.wrong(name, "has no date in any training row. Leave the column out")
        return DatesTaken(
            names=names, parts=list(self.parts), day=day, reference="" if day else reference, format=self.format
        )


class DatesTaken(Fitted, frozen=True, kw_only=True, tag="dates"):
    """Which columns, and from which day."""

    names: Names
    parts: list[Part]
    day: str
    reference: str
    format: str | None

    def apply(self, table: Table) -> None:
        parse = reader(self.format)
        aged = bool(self.names) and "age_days" in self.parts
        since = np.array(self.day or "NaT", "datetime64[s]")
        if aged and self.reference:
            since = table.dates(self.reference, parse)
        for name in self.names:
            dates = table.dates(name, parse)
            table.drop(name)
            for part in self.parts:
                table.add(f"{name}_{part}", _age(dates, since) if part == "age_days" else _calendar(dates, part))
        if aged and self.reference:
            table.drop(self.reference)  # as the others, it has become numbers


def _age(dates: Dates, since: Dates) -> Floats:
    seconds = (since - dates) / np.timedelta64(1, "s")
    return np.floor(np.asarray(seconds, dtype=np.float64) / 86_400)


def _calendar(dates: Dates, part: Part) -> Floats:
    """[n], NaN where there is no date."""
    days = dates.astype("datetime64[D]")
    months = days.astype("datetime64[M]").astype(np.int64)  # since January 1970
    if part == "year":
        found = 1970 + months // 12
    elif part == "quarter":
        found = 1 + months % 12 // 3
    elif part == "month":
        found = 1 + months % 12
    elif part == "day":
        found = 1 + (days - days.astype("datetime64[M]")).astype(np.int64)
    else:
        found = (days.astype(np.int64) + 3) % 7  # weekday: 1 January 1970 was a Thursday
    return np.where(np.isnat(dates), np.nan, found.astype(np.float64))


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        return ""


def reader(form: str | None) -> Callable[[Texts], Dates]:
    """Reads texts; what is no date in that form, or is missing, becomes NaT."""
    import pandas as pd

    def read(texts: Texts) -> Dates:
        found = pd.to_datetime(pd.Series(texts, dtype="str"), errors="coerce", format=form or "ISO8601", utc=True)
        return found.dt.tz_localize(None).to_numpy().astype("datetime64[s]")

    return read
