"""A table by its columns: from a DataFrame in memory, or from a Parquet file of which one column is read at a time."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BETWEEN = "\x1f"  # joins several id columns into one id; it stands in no id
ROWS_AT_ONCE = 1 << 16


class Ids(Protocol):
    """[n] raw ids as text, "" where one is missing. Can be gone through more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...


class Columns(Protocol):
    """What a table store asks of a table."""

    names: list[str]
    rows: int
    bytes: int  # that it keeps in memory

    def kind(self, name: str) -> str:
        """The column's type, in the words of `ColumnInfo`."""

    def series(self, name: str) -> pd.Series:
        """[rows] one column."""

    def frame(self) -> pd.DataFrame:
        """All of it, in memory."""

    def ids(self, on: Sequence[str]) -> Ids:
        """Several columns are joined into one id."""

    def batches(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Some columns, some rows at a time."""

    def without(self, names: Sequence[str]) -> Columns:
        """The table as if it did not have these columns."""


class InMemory:
    """A DataFrame's columns."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.names = [str(name) for name in frame.columns]
        self.rows = len(frame)
        self.bytes = int(frame.memory_usage(deep=False).sum())

    def kind(self, name: str) -> str:
        return kind_of(self._frame[name])

    def series(self, name: str) -> pd.Series:
        return self._frame[name]

    def frame(self) -> pd.DataFrame:
        return self._frame

    def ids(self, on: Sequence[str]) -> npt.NDArray[np.object_]:
        return _joined([_text(self._frame[column]) for column in on])

    def batches(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        yield self._frame[list(names)]

    def without(self, names: Sequence[str]) -> InMemory:
        return InMemory(self._frame.drop(columns=list(names), errors="ignore"))


class InParquet:
    """The columns of a Parquet file that is open: who replaces it meanwhile changes nothing here. For any thread."""

    def __init__(self, source: pa.NativeFile, columns: Sequence[str] | None, text: Sequence[str]) -> None:
        """`columns` in this order, or all; those of `text` as exact text. Raises pyarrow's errors, and DataError."""
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(source)
        self._lock = threading.Lock()
        schema = self._file.schema_arrow
        self.names = list(schema.names if columns is None else columns)
        self._types = {name: schema.field(name).type for name in self.names}
        self._text = frozenset(text)
        self.rows = int(self._file.metadata.num_rows)
        self.bytes = 0
        if self.rows == 0 or not self._file.num_row_groups:
            return
        for name in self._text.intersection(self.names):
            _exact(self._file.schema_arrow.empty_table().select([name]), name)  # says now what cannot be text

    def kind(self, name: str) -> str:
        return "text" if name in self._text else _arrow_kind(self._types[name])

    def series(self, name: str) -> pd.Series:
        with self._lock:
            table = self._file.read(columns=[name], use_threads=False)
        if name in self._text:
            table = _exact(table, name)
        return _pandas(table)[name]

    def frame(self) -> pd.DataFrame:
        with self._lock:
            table = self._file.read(columns=self.names).select(self.names)
        for name in self._text.intersection(self.names):
            table = _exact(table, name)
        return _pandas(table)

    def ids(self, on: Sequence[str]) -> Ids:
        return _StoredIds(self, tuple(on))

    def batches(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        import pyarrow as pa

        with self._lock:
            for batch in self._file.iter_batches(ROWS_AT_ONCE, columns=list(names), use_threads=False):
                table = pa.Table.from_batches([batch])
                for name in self._text.intersection(names):
                    table = _exact(table, name)
                yield _pandas(table)

    def without(self, names: Sequence[str]) -> InParquet:
        fewer = copy.copy(self)  # of the same open file
        fewer.names = [name for name in self.names if name not in names]
        return fewer


class _StoredIds:
    def __init__(self, stored: InParquet, on: tuple[str, ...]) -> None:
        self._stored, self._on = stored, on

    def __len__(self) -> int:
        return self._stored.rows

    def __iter__(self) -> Iterator[str]:
        for frame in self._stored.batches(self._on):
            yield from _joined([_text(frame[column]) for column in self._on])


def _pandas(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True, date_as_object=False)
    return frame


def _exact(table: pa.Table, name: str) -> pa.Table:
    """With that column as text, before pandas sees it: whole numbers would become floats where one is missing."""
    import pyarrow as pa

    at = table.schema.get_field_index(name)
    try:
        return table.set_column(at, name, table.column(at).cast(pa.string()))
    except pa.ArrowException:
        raise DataError(f"column {name!r} is an id but of type {table.schema.field(at).type}.") from None


def _joined(parts: Sequence[npt.NDArray[np.object_]]) -> npt.NDArray[np.object_]:
    if len(parts) == 1:
        return parts[0]
    rows = [BETWEEN.join(row) if all(row) else "" for row in zip(*parts, strict=True)]
    return np.array(rows, dtype=object)


def _text(series: pd.Series) -> npt.NDArray[np.object_]:
    import pandas as pd

    missing = series.isna().to_numpy(dtype=bool)
    if pd.api.types.is_float_dtype(series.dtype):
        # whole numbers become floats where one is missing; an id is never 17.0
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)
        values = [str(int(x)) if ok else str(x) for x, ok in zip(numbers, whole, strict=True)]
    else:
        values = [str(value) for value in series.to_numpy(dtype=object)]
    result = np.array(values, dtype=object)
    result[missing] = ""
    return result


def kind_of(series: pd.Series) -> str:
    """A column's type in the words of `ColumnInfo`."""
    from pandas.api import types

    if isinstance(series.dtype, types.CategoricalDtype):
        return "category"
    if types.is_bool_dtype(series.dtype):
        return "bool"
    if types.is_integer_dtype(series.dtype):
        return "int"
    if types.is_float_dtype(series.dtype):
        return "float"
    if types.is_datetime64_any_dtype(series.dtype) or types.is_timedelta64_dtype(series.dtype):
        return "date"
    if series.dtype == object:
        found = types.infer_dtype(series, skipna=True)
        return {"decimal": "float", "date": "date", "datetime": "date", "boolean": "bool"}.get(found, "text")
    return "text"


def _arrow_kind(type: pa.DataType) -> str:
    """The same of a Parquet file's column, from its schema alone."""
    from pyarrow import types

    if types.is_dictionary(type):
        return "category"
    if types.is_boolean(type):
        return "bool"
    if types.is_integer(type):
        return "int"
    if types.is_floating(type) or types.is_decimal(type):
        return "float"
    if types.is_date(type) or types.is_timestamp(type) or types.is_duration(type):
        return "date"
    return "text"
