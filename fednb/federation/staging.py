"""What a query or a large CSV file gives, written once into a Parquet file without a name, a part at a time.

Then a run reads the rows that its alignment saw, column by column, and the party's memory does not grow with them.
DuckDB does the work within `MEMORY`; what it has to put aside meanwhile goes into the member's folder as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednb.errors import DataError
from fednb.federation.columns import InParquet

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

MEMORY = "512MB"
GROUP = 1 << 16  # rows of the Parquet file that are read and written together
LARGE_CSV = 1 << 27  # bytes of a CSV file, beyond which it is not read whole
_PREFIX = "staged-"


def clear(folder: Path) -> None:
    """Remove what a member that was killed while it wrote has left behind."""
    for left in folder.glob(f"{_PREFIX}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def settings(folder: Path) -> dict[str, Any]:
    """Of a DuckDB connection whose result will be staged in `folder`."""
    return {"memory_limit": MEMORY, "temp_directory": str(folder / f"{_PREFIX}spilled")}


def exact(rows: duckdb.DuckDBPyRelation, text: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """With the columns of `text` as text, and decimals as the floats that pandas makes of them."""
    casts = {name: "VARCHAR" for name in text if name in rows.columns}
    for name, kind in zip(rows.columns, rows.types, strict=True):
        if str(kind).startswith("DECIMAL"):
            casts.setdefault(name, "DOUBLE")
    if not casts:
        return rows
    replaced = ", ".join(f"CAST({_quoted(name)} AS {kind}) AS {_quoted(name)}" for name, kind in casts.items())
    return rows.project(f"* REPLACE ({replaced})")


def stage(rows: duckdb.DuckDBPyRelation, folder: Path, columns: Sequence[str] | None) -> InParquet:
    """The result, in a file in `folder` that is gone when nobody uses it. Raises duckdb's errors, and DataError."""
    missing = [column for column in columns or () if column not in rows.columns]
    if missing:
        raise DataError(f"the query gives no column {missing[0]!r}.")
    return _written(folder, columns, lambda name: rows.write_parquet(name, row_group_size=GROUP, use_tmp_file=False))


def stage_frames(read: Callable[[Mapping[str, str]], Iterable[pd.DataFrame]], folder: Path) -> InParquet:
    """The rows that `read` gives some at a time, when told the columns' types; it is asked twice.

    Types are those that suit all rows: whole numbers and numbers make numbers, and whatever else differs is text.
    """
    import pyarrow as pa
    import pyarrow.parquet

    seen: dict[str, set[str]] = {}
    for frame in read({}):
        for name in frame.columns:
            seen.setdefault(name, set()).add(str(frame[name].dtype))
    types = {name: _common(kinds) for name, kinds in seen.items()}
    schema = pa.schema([(name, {"str": pa.string(), "bool": pa.bool_()}.get(t) or t) for name, t in types.items()])

    def write(name: str) -> None:
        with pyarrow.parquet.ParquetWriter(name, schema) as writer:
            for frame in read(types):
                writer.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False))

    return _written(folder, None, write)


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1 and kinds <= {"bool", "int64", "float64"}:
        return kinds.pop()
    return "float64" if kinds <= {"int64", "uint64", "float64"} else "str"


def _written(folder: Path, columns: Sequence[str] | None, write: Callable[[str], object]) -> InParquet:
    import pyarrow as pa

    handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=folder)  # 0600
    try:
        os.close(handle)
        write(name)
        source = pa.OSFile(name)
    except OSError as error:
        raise DataError(f"rows cannot be kept in {folder}: {os.strerror(error.errno or 0)}.") from None
    finally:
        os.unlink(name)
    return InParquet(source, columns, ())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
