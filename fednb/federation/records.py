"""Some rows of a table by column, each read when it is asked for: numbers, texts and dates, whatever the source has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fednb.federation.columns import Columns, kind_of
from fednb.protocols.records import Column

if TYPE_CHECKING:
    import pandas as pd

SECONDS_A_DAY = 86_400.0


class TableRecords:
    """As `protocols.records.Records` has them."""

    def __init__(
        self, found: Columns, columns: Sequence[str], rows: npt.NDArray[np.int64] | None, taken: Iterable[str]
    ) -> None:
        self.columns = tuple(columns)
        self.taken = frozenset(taken)
        self.rows = found.rows if rows is None else len(rows)
        self._found = found
        self._rows = rows

    def __getitem__(self, name: str, /) -> Column:
        series = self._found.series(name)
        # a column's kind is that of the whole table, not of the rows that happen to be asked for
        kind = self._found.kind(name)
        return column_of(series if self._rows is None else series.iloc[self._rows], kind)

    def __repr__(self) -> str:
        return f"<TableRecords of {self.rows} rows, {len(self.columns)} columns>"


def column_of(series: pd.Series, kind: str) -> Column:
    """[n] as numbers, texts or dates; `kind` in the words of `ColumnInfo`. Durations become days."""
    import pandas as pd
    from pandas.api import types

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.dtype.categories.dtype)
        kind = kind_of(series)
    if kind == "date" and types.is_timedelta64_dtype(series.dtype):
        return Column("number", (series.dt.total_seconds() / SECONDS_A_DAY).to_numpy(dtype=np.float64))
    if kind == "date":
        dates = pd.to_datetime(series, utc=True, errors="coerce")
        return Column("date", dates.dt.tz_localize(None).to_numpy().astype("datetime64[s]"))
    if kind == "text":
        missing = series.isna().to_numpy(dtype=bool)
        texts = np.array([str(value) for value in series.to_numpy(dtype=object)], dtype=object)
        texts[missing] = None
        return Column("text", texts)
    return Column("number", series.to_numpy(dtype=np.float64, na_value=np.nan))
