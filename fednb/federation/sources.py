"""Where tables come from: CSV and Parquet files, DuckDB and SQLite files, and databases that DuckDB attaches.

Ids must survive to the letter ("007" is not 7), so the columns named as text are read as text, before anything
guesses their type.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fednb.config import TableConfig
from fednb.errors import DataError
from fednb.federation import staging
from fednb.federation.columns import Columns, InMemory, InParquet
from fednb.typed import known

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

# pandas' own list, as documented for read_csv
_MISSING = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"]
_MISSING += ["NA", "NULL", "NaN", "None", "n/a", "nan", "null"]

# messages of SQLite about a query or a file, which quote no row
_SQLITE_SAYS = ("no such ", 'near "', "unable to open", "file is not a database", "database is locked")

_META = b"fednb"  # in a saved table's Parquet schema: its id and label columns


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    id: tuple[str, ...] = ()
    label: str | None = None
    origin: str = ""
    of_cells: bool = True
    by_rules: bool = False
    recipe: str = ""


def header(table: TableConfig) -> list[str] | None:
    """The column names of a file, read without its rows; None for what is not a file. Raises DataError."""
    if table.path is None:
        return None
    try:
        if table.path.suffix.lower() == ".csv":
            with open(table.path, newline="", encoding="utf-8-sig") as file:
                return next(csv.reader(file, delimiter=table.separator), [])
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(table.path).names)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table.path} cannot be read: {error}") from None


def stamp(table: TableConfig, saved: Path | None) -> str:
    """Changes when the file behind a table does; "" when nothing cheap could tell."""
    file = saved or table.path
    if file is None and table.source is not None:
        scheme, _, rest = table.source.partition(":///")
        if scheme in ("duckdb", "sqlite"):
            file = Path(rest)
    if file is None:
        return ""
    # both databases write to a log beside the file first
    parts = [file, Path(f"{file}-wal"), Path(f"{file}.wal")]
    found = [part.stat() for part in parts if part.exists()]
    return " ".join(f"{s.st_ino}:{s.st_size}:{s.st_mtime_ns}" for s in found) + f" {table.query} {table.columns}"


def open_table(table: TableConfig, saved: Path | None, text: Sequence[str], folder: Path | None) -> Columns:
    """A table's columns, rows in their order, with the columns of `text` as exact text. Raises DataError.

    What is not Parquet is read whole, or, given a `folder` of the member's own, made into Parquet there.
    """
    if saved is not None:
        return _parquet(saved, None, text)
    if table.path is not None and table.path.suffix.lower() == ".csv":
        return _csv(table, text, folder)
    if table.path is not None:
        return _parquet(table.path, table.columns, text)
    return _database(table, text, folder)


def save(file: Path, frame: pd.DataFrame, table: TableConfig) -> None:
    """Write a derived table, readable by its owner only, in one step. Raises DataError."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        arrow = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        # the text of such an error can quote a value
        raise DataError(
            f"table {table.name!r} cannot be saved: a column holds values of mixed or unknown types "
            f"({type(error).__name__}). Give every column one type."
        ) from None
    said = _Saved(table.id, table.label, table.origin, table.of_cells, table.by_rules, table.recipe)
    meta = msgspec.json.encode(said)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _META: meta})
    draft = file.with_suffix(".draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        pyarrow.parquet.write_table(arrow, out)
    os.replace(draft, file)


def saved(name: str, file: Path) -> TableConfig:
    """What `save` was told of a derived table."""
    import pyarrow.parquet

    meta = (pyarrow.parquet.read_schema(file).metadata or {}).get(_META, b"{}")
    found = msgspec.json.decode(meta, type=known(_Saved))
    return TableConfig(
        name=name,
        id=found.id,
        label=found.label,
        origin=found.origin,
        of_cells=found.of_cells,
        by_rules=found.by_rules,
        recipe=found.recipe,
    )


def content_digest(columns: Columns) -> str:
    """A digest of every value and of the rows' order."""
    import pandas as pd

    digest = hashlib.sha256(repr(columns.names).encode())
    for frame in columns.batches(columns.names):
        digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def _csv(table: TableConfig, text: Sequence[str], folder: Path | None) -> Columns:
    import pandas as pd

    names = header(table) or []
    exact = [column for column in text if column in names]
    options: dict[str, Any] = {
        "sep": table.separator,
        "encoding": "utf-8-sig",
        # an id may read "NA" or "null", so what counts as missing is said column by column
        "keep_default_na": False,
        "na_values": {column: _MISSING for column in names if column not in exact},
        "usecols": None if table.columns is None else list(table.columns),
    }

    def parts(types: Mapping[str, str]) -> Iterator[pd.DataFrame]:
        kinds = dict.fromkeys(exact, "str") | dict(types)
        with pd.read_csv(str(table.path), dtype=kinds, chunksize=staging.GROUP, **options) as reader:
            yield from reader

    try:
        if folder is not None and os.stat(str(table.path)).st_size > staging.LARGE_CSV:
            return staging.stage_frames(parts, folder)
        return InMemory(pd.read_csv(str(table.path), dtype=dict.fromkeys(exact, str), low_memory=False, **options))
    except (OSError, ValueError) as error:
        # a parser's message names lines and fields, but a converter's may quote a value
        known = isinstance(error, pd.errors.ParserError | pd.errors.EmptyDataError | UnicodeDecodeError | OSError)
        raise DataError(f"{table.path}: {error if known else type(error).__name__}") from None


def _parquet(file: Path, columns: Sequence[str] | None, text: Sequence[str]) -> Columns:
    import pyarrow as pa

    try:
        return InParquet(pa.OSFile(str(file)), columns, text)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{file}: {error}") from None


def _database(table: TableConfig, text: Sequence[str], folder: Path | None) -> Columns:
    source, query = str(table.source), str(table.query)
    if source.startswith("sqlite:///"):
        return _picked(_sqlite(source.removeprefix("sqlite:///"), query, text), table.columns)
    import duckdb

    config = staging.settings(folder) if folder else {}
    try:
        if source.startswith("duckdb:///"):
            connection = duckdb.connect(source.removeprefix("duckdb:///"), read_only=True, config=config)
        else:
            connection = _attached(source, config)
        with connection:
            rows = staging.exact(connection.sql(query), text)
            return staging.stage(rows, folder, table.columns) if folder else _picked(rows.df(), table.columns)
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise DataError("another program has the database open for writing; close it there first.") from None
        raise DataError("the database cannot be opened or read (IOException).") from None
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
        raise DataError(str(error).strip().partition("\n")[0]) from None  # of the query itself: no row was read yet
    except duckdb.Error as error:
        # a conversion's message quotes the value that it failed at
        raise DataError(f"the query fails at a row ({type(error).__name__}); run it in the database to see.") from None


def _attached(source: str, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    import duckdb

    scheme = source.partition("://")[0]
    kind = {"postgresql": "postgres", "mariadb": "mysql"}.get(scheme, scheme)
    connection = duckdb.connect(config=config)
    try:
        connection.load_extension(kind)
    except duckdb.Error:
        connection.close()
        raise DataError(
            f"DuckDB cannot attach {scheme!r} here: its extension is not installed. Where this party runs, once: "
            f"python -c \"import duckdb; duckdb.sql('INSTALL {kind}')\". Without it there are duckdb:/// and "
            "sqlite:/// sources, CSV and Parquet."
        ) from None
    target = source.replace("'", "''")
    try:
        connection.execute(f"ATTACH '{target}' AS source (TYPE {kind}, READ_ONLY)")
        connection.execute("USE source")
    except duckdb.Error as error:
        connection.close()
        # the message of a driver repeats the source, with user and password
        raise DataError(
            f"the {kind} database cannot be reached ({type(error).__name__}): check host, name, user and password."
        ) from None
    return connection


def _sqlite(file: str, query: str, text: Sequence[str]) -> pd.DataFrame:
    import contextlib
    import sqlite3

    import pandas as pd

    try:
        with contextlib.closing(sqlite3.connect(f"{Path(file).as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(query)
            names = [column[0] for column in rows.description or ()]
            values = list(zip(*rows.fetchall(), strict=True)) or [()] * len(names)
    except sqlite3.Error as error:
        said = str(error)
        if said.startswith(_SQLITE_SAYS):
            raise DataError(said) from None
        # others quote what they failed at: "Could not decode to UTF-8 column 'a' with text ..."
        raise DataError(f"the query fails ({type(error).__name__}); run it in the database to see why.") from None
    return pd.DataFrame(
        {
            name: [None if value is None else str(value) for value in column] if name in text else list(column)
            for name, column in zip(names, values, strict=True)
        }
    )


def _picked(frame: pd.DataFrame, columns: Sequence[str] | None) -> Columns:
    missing = [column for column in columns or () if column not in frame.columns]
    if missing:
        raise DataError(f"the query gives no column {missing[0]!r}.")
    return InMemory(frame if columns is None else frame[list(columns)])
