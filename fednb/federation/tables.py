"""A party's tables: where they lie, what is in them, and how a protocol gets ids, features and a label from them.

Rows are known by their position in the file (or the query's result), so what a run reads must be what the
alignment saw: `digest` tells whether it still is. Errors name party, table and column and count rows; they never
quote a value.
"""

from __future__ import annotations

import difflib
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fednb.config import TableConfig
from fednb.errors import ConfigError, DataError
from fednb.federation import sources, staging
from fednb.federation.columns import Columns, Ids, InMemory, kind_of
from fednb.federation.messages import ColumnInfo, Name, TableInfo
from fednb.federation.records import TableRecords
from fednb.federation.row_keys import keys_of
from fednb.federation.spill import FileMatrix
from fednb.typed import known

if TYPE_CHECKING:
    import pandas as pd

CACHE_BYTES = 1 << 30
FEATURES_IN_MEMORY = 1 << 26  # bytes of features of one run, beyond which they are kept in a file
_ENCODE = {
    "feature": "Encode it with VerticalOneHotEncoder, or leave the column out.",
    "label": "Save a table whose label is a number, and align that.",
}
_FILL = {
    "feature": "Fill them with VerticalImputer, bin them with WoeBinning, or leave the column out.",
    "label": "Save a table without these rows, and align that.",
}
OF_CELLS = "tables of cells"  # the origin of those whose rows are in no declared table


class TableStore:
    """The tables of one member: those its owner declared and those saved from its kernel. Safe from any thread.

    `folder` keeps saved tables as Parquet, 0600 in 0700; without it they stay in memory (simulation).
    """

    def __init__(self, member: str, declared: Mapping[str, TableConfig], folder: Path | None = None) -> None:
        self.member = member
        self._declared = dict(declared)
        self._folder = folder
        self._memory: dict[str, tuple[TableConfig, _Snapshot]] = {}
        self._cache: OrderedDict[str, _Snapshot] = OrderedDict()
        self._aligned_on: dict[str, tuple[str, ...]] = {}
        self._lock = threading.RLock()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            staging.clear(folder)

    @classmethod
    def of_frames(cls, member: str, frames: Mapping[str, pd.DataFrame]) -> TableStore:
        """Tables that are DataFrames already."""
        store = cls(member, {})
        for name, frame in frames.items():
            store._keep(TableConfig(name=name), frame)
        return store

    def names(self) -> list[str]:
        """Declared tables in the order of the federation file, then saved ones."""
        with self._lock:
            saved = set(self._memory)
            if self._folder is not None:
                saved |= {file.stem for file in self._folder.glob("*.parquet")}
            return [*self._declared, *sorted(saved - set(self._declared))]

    def check(self) -> None:
        """Look at the header of each declared file. Raises ConfigError when an id or label column is not there."""
        for table in self._declared.values():
            header = sources.header(table)
            if header is None:
                continue  # a database is asked when it is used: it may come up later than this member
            wanted = {"id": table.id, "label": (table.label,) if table.label else (), "columns": table.columns or ()}
            wanted["roles"] = tuple(table.roles)
            for key, columns in wanted.items():
                for column in columns:
                    if column not in header:
                        problem = self._no_column(table.name, column, header)
                        raise ConfigError(f"party.{self.member}.tables.{table.name}.{key}: {problem}")

    def table(self, name: str) -> TableConfig:
        """What is declared of a table. Raises DataError for an unknown one."""
        with self._lock:
            if name in self._declared:
                return self._declared[name]
            if name in self._memory:
                return self._memory[name][0]
            if self._folder is not None and name in self.names():
                return sources.saved(name, self._folder / f"{name}.parquet")
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise DataError(f"{self.member} has no table {name!r}. It has {_listed(self.names())}{hint}")

    def describe(self) -> list[TableInfo]:
        """Names, types and row counts of every table; never values."""
        return [self._describe(name) for name in self.names()]

    def read(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table as a DataFrame, rows in their order; id columns of text sources are exact text."""
        import pandas as pd

        if columns is None:
            return self._snapshot(name).frame().copy(deep=False)
        found = self._columns(name)
        self._require(name, found, columns)
        return pd.DataFrame({column: found.series(column) for column in columns})

    def ids(self, name: str, on: Sequence[str] = ()) -> Ids:
        """[n] raw ids as str, "" where one is missing; several columns are joined into one id."""
        table = self.table(name)
        on = tuple(on) or table.id
        if not on:
            raise DataError(
                f"table {name!r} of {self.member} declares no id column; say which one to align on, "
                f"among {_listed(self._columns(name).names)}."
            )
        with self._lock:
            self._aligned_on[name] = on
            try:
                found = self._columns(name, fresh=True)
            except DataError:
                del self._aligned_on[name]
                raise
        self._require(name, found, on)
        return found.ids(on)

    def features(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        rows: npt.NDArray[np.int64] | None = None,
        *,
        missing: bool = False,
        parts: bool = False,
        levels: dict[str, tuple[str, ...]] | None = None,
        without: Container[str] = (),
    ) -> tuple[Any, tuple[str, ...]]:
        """[len(rows), d] and the names of the d columns; `columns=None`: all but ids and label; none of `without`.

        An array; with `parts` a `Matrix`, which lies in a file when it is large.

        Raises DataError for a column that is missing, not numeric, or has missing values in these rows; with
        `missing` such values come as NaN. Where `levels` are wanted, text is allowed: they get its different values,
        in order, and the array has the place of each row's.
        """
        table, found, columns = self._features(name, columns)
        columns = [column for column in columns if column not in without]
        shape = found.rows if rows is None else len(rows), len(columns)
        large = parts and 8 * shape[0] * shape[1] > FEATURES_IN_MEMORY and self._folder is not None
        X: Any = FileMatrix(self._folder, shape) if large and self._folder else np.empty(shape, dtype=np.float64)
        for j, column in enumerate(columns):
            if column in table.id:
                raise DataError(f"column {column!r} of table {name!r} of {self.member} is an id, not a feature.")
            series = found.series(column)
            texts = None if levels is None else _texts(series if rows is None else series.iloc[rows])
            if levels is not None and texts is not None:
                levels[column], X[:, j] = texts
            else:
                X[:, j] = self._numbers(name, series, rows, "feature", missing=missing)
        return X, tuple(columns)

    def unfit(
        self, name: str, columns: Sequence[str] | None = None, rows: npt.NDArray[np.int64] | None = None
    ) -> dict[str, tuple[str, npt.NDArray[np.int64]]]:
        """Of those columns that `features` would refuse: why ("text", "date", "mixed" with numbers, "infinite"), and
        [len(rows)] the place of each value among the column's, -1 where it is missing."""
        import pandas as pd

        _, found, columns = self._features(name, columns)
        described = {}
        for column in columns:
            series = found.series(column)
            kind = _unfit(series if rows is None else series.iloc[rows])
            if kind:
                codes = pd.factorize(series if rows is None else series.iloc[rows])[0]
                described[column] = kind, codes.astype(np.int64)
        return described

    def _features(self, name: str, columns: Sequence[str] | None) -> tuple[TableConfig, Columns, Sequence[str]]:
        """The table, and its columns that are asked for; None: all but ids and label."""
        table, found = self.table(name), self._columns(name)
        if columns is None:
            columns = [c for c in found.names if c not in table.id and c != table.label]
        self._require(name, found, columns)
        return table, found, columns

    def records(
        self, name: str, columns: Sequence[str] | None = None, rows: npt.NDArray[np.int64] | None = None
    ) -> TableRecords:
        """Columns as they are, whatever is in them; `columns=None`: all but ids. DataError for an unknown one."""
        table, found = self.table(name), self._columns(name)
        if columns is None:
            columns = [c for c in found.names if c not in table.id]
        self._require(name, found, columns)
        for column in columns:
            if column in table.id:
                raise DataError(f"column {column!r} of table {name!r} of {self.member} is an id, not a feature.")
        origin = self.origin(name)
        taken = {*found.names, *(self._columns(origin).names if origin in self.names() else ())}
        return TableRecords(found, columns, rows, taken)

    def label(
        self, name: str, column: str | None = None, rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float64]:
        """[len(rows)] label values; which values a model accepts is the model's business."""
        column = column or self.table(name).label
        if column is None:
            raise DataError(f'table {name!r} of {self.member} declares no label; add label = "COLUMN" to it.')
        found = self._columns(name)
        self._require(name, found, [column])
        return self._numbers(name, found.series(column), rows, "label")

    def digest(self, name: str) -> str:
        """Changes when the rows that this store reads of the table change."""
        return self._snapshot(name).digest

    def origin(self, name: str) -> str:
        """The table whose rows a derived one has; any other is its own."""
        return self.table(name).origin or name

    def of_cells(self, name: str) -> bool:
        """Whether a cell made this table, or the one that it comes from."""
        return self.table(name).of_cells

    def by_rules(self, name: str) -> bool:
        """Whether rules that an analyst wrote made columns of this table."""
        return self.table(name).by_rules

    def has_column(self, name: str, column: str) -> bool:
        return name in self.names() and column in self._columns(name).names

    def declared_label(self, name: str) -> str | None:
        return self._declared[name].label if name in self._declared else None

    def label_of(self, name: str) -> str | None:
        """The label that somebody declared for a table, or for the one that it comes from."""
        return self.table(name).label or self.declared_label(self.origin(name))

    def derived(self, name: str) -> bool:
        """Whether it was made of another one."""
        return self.table(name).origin not in ("", name)

    def recipe(self, name: str) -> str:
        """Names how a table's rows were made of those that their owner declared; "": not at all."""
        return (self.table(name).recipe or self.digest(name)) if self.derived(name) else ""

    def declared_id(self, name: str) -> tuple[str, ...]:
        """The columns that the owner declared as a table's id; none where she did not, or the table is not hers."""
        return self._declared[name].id if name in self._declared else ()

    def own_keys(
        self, name: str, on: Sequence[str] = (), rows: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.uint64]:
        """[len(rows)] keys of ids by the columns that the table declares, else by `on`, as of the last alignment."""
        columns = self.table(name).id or tuple(on) or self._aligned_on.get(name, ())
        if not columns:
            raise DataError(f"table {name!r} of {self.member} declares no id column. Align the tables again.")
        found = self._columns(name)
        self._require(name, found, columns)
        keys = keys_of(found.ids(columns))
        return keys if rows is None else keys[rows]

    def save(
        self,
        name: str,
        frame: pd.DataFrame,
        id: Iterable[str],
        label: str | None,
        source: str | None = None,
        by_rules: bool = False,
        recipe: str = "",
    ) -> None:
        """Keep a derived table under a name that no declared table has; a derived one of that name is replaced.

        by_rules : an analyst's rules say what is in its columns.
        source : the table that its rows come from; None: a cell made it, from what looks most like it.
        recipe : of a table that a run made, names how; the same rows made in the same way have the same.
        """
        try:
            msgspec.convert(name, known(Name))
        except msgspec.ValidationError:
            raise DataError(
                f"{name!r} is not a name for a table: letters, digits, '_', '.' and '-', 64 at most."
            ) from None
        if name in self._declared:
            raise DataError(f"{self.member} declares a table {name!r} in the federation file; save under another name.")
        columns = [column for column in frame.columns if not isinstance(column, str)]
        if columns:
            raise DataError(f"table {name!r}: {len(columns)} columns have names that are not text; rename them.")
        if len(set(frame.columns)) != len(frame.columns):
            raise DataError(f"table {name!r} has two columns of the same name; rename one.")
        ids = tuple(id)
        for column in (*ids, *([label] if label else [])):
            if column not in frame.columns:
                raise DataError(self._no_column(name, column, frame.columns))
        if source is None:
            origin, of_cells = self._find_origin(frame, ids), True
        else:
            origin, of_cells = self.origin(source), self.of_cells(source)
            by_rules = by_rules or self.by_rules(source)
        table = TableConfig(
            name=name, id=ids, label=label, origin=origin, of_cells=of_cells, by_rules=by_rules, recipe=recipe
        )
        self._keep(table, frame)

    def _keep(self, table: TableConfig, frame: pd.DataFrame) -> None:
        name = table.name
        with self._lock:
            self._cache.pop(name, None)
            if self._folder is None:
                self._memory[name] = (table, _Snapshot("", InMemory(frame.copy()), secrets.token_hex(16)))
            else:
                sources.save(self._folder / f"{name}.parquet", frame, table)

    def save_rows(
        self,
        name: str,
        source: str,
        rows: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[Any]],
        *,
        by_rules: bool = False,
        recipe: str = "",
    ) -> None:
        """Make a derived table: the ids of `source`'s `rows`, and new columns beside them.

        An analyst names it, so it replaces no table but one that was made in the same way.
        """
        ids = self.table(source).id or self._aligned_on.get(source, ())
        taken = sorted(set(columns) & set(ids))
        if taken:
            raise DataError(f"{', '.join(taken)} is an id column of {source!r}; choose another.")
        derived = name in self.names() and name not in self._declared
        if derived and set(self._columns(name).names) != {*ids, *columns}:
            raise DataError(f"{self.member} has a table {name!r} already, with other columns; save under another name.")
        frame = self.read(source, ids).iloc[rows].reset_index(drop=True)
        frame = frame.assign(**{str(column): values for column, values in columns.items()})
        self.save(name, frame, ids, None, source, by_rules, recipe)

    def _find_origin(self, frame: pd.DataFrame, ids: Sequence[str]) -> str:
        """The declared table that has most of these rows, whatever a cell calls them; "" where none is declared."""
        if not self._declared:
            return ""
        found, best = OF_CELLS, len(frame) // 2  # of the rows
        keys = keys_of(InMemory(frame).ids(ids) if ids else ())
        for name in self._declared:
            try:
                common = int(np.isin(keys, self.own_keys(name)).sum())
            except DataError:
                continue  # it declares no id, or cannot be read now
            if common > best:
                found, best = name, common
        return found

    # ------------------------------------------------------------ reading

    def _columns(self, name: str, *, fresh: bool = False) -> Columns:
        return self._snapshot(name, fresh=fresh).columns

    def _snapshot(self, name: str, *, fresh: bool = False) -> _Snapshot:
        """The table as it is; kept while its source is unchanged.

        A database on another machine cannot say cheaply whether it changed, and may give its rows in another order
        each time: what an alignment read (`fresh`) is what later runs get.
        """
        with self._lock:
            table = self.table(name)
            if name in self._memory:
                return self._memory[name][1]
            text = self._text_columns(table)
            stamp = sources.stamp(table, self._file(name))
            found = self._cache.get(name)
            if found is not None and found.stamp == f"{stamp} {text}" and (stamp or not fresh):
                self._cache.move_to_end(name)
                return found
            try:
                columns = sources.open_table(table, self._file(name), text, self._folder)
            except (ConfigError, DataError) as error:
                raise DataError(f"table {name!r} of {self.member} cannot be read: {error}") from None
            hidden = [c for c, role in table.roles.items() if role.role == "hidden"]
            columns = columns.without(hidden) if hidden else columns
            # a query may give its rows in another order each time, though its database is the same
            as_stamped = stamp and table.source is None
            digest = hashlib.sha256(stamp.encode()).hexdigest() if as_stamped else sources.content_digest(columns)
            made = self._cache[name] = _Snapshot(f"{stamp} {text}", columns, digest)
            self._cache.move_to_end(name)
            while len(self._cache) > 1 and sum(kept.bytes for kept in self._cache.values()) > CACHE_BYTES:
                self._cache.popitem(last=False)
            return made

    def _text_columns(self, table: TableConfig) -> tuple[str, ...]:
        """Columns that are read as text, because they are ids or were aligned on."""
        return tuple(dict.fromkeys((*table.id, *self._aligned_on.get(table.name, ()))))

    def _file(self, name: str) -> Path | None:
        return None if self._folder is None or name in self._declared else self._folder / f"{name}.parquet"

    # ------------------------------------------------------------ values

    def _numbers(
        self,
        name: str,
        series: pd.Series,
        rows: npt.NDArray[np.int64] | None,
        use: Literal["feature", "label"],
        *,
        missing: bool = False,
    ) -> npt.NDArray[np.float64]:
        import pandas as pd

        where = f"{use} {series.name!r} of table {name!r} of {self.member}"
        if rows is not None:
            series = series.iloc[rows]
        if isinstance(series.dtype, pd.CategoricalDtype):
            series = series.astype(series.dtype.categories.dtype)
        kind = kind_of(series)
        if kind == "date":
            raise DataError(f"{where} is a date. Turn it into numbers with VerticalDateFeatures, or leave it out.")
        if kind == "text":
            numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            bad = int((np.isnan(numbers) & series.notna().to_numpy(dtype=bool)).sum())
            if bad:
                raise DataError(
                    f"{where} is text: {bad:,} of {len(series):,} values are not numbers. {_ENCODE[use]}"
                )
        else:
            numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        absent = int(np.isnan(numbers).sum())
        if absent and not missing:
            raise DataError(
                f"{where} has {absent:,} missing values in {len(numbers):,} rows. {_FILL[use]}"
            )
        infinite = int(np.isinf(numbers).sum())
        if infinite:
            raise DataError(f"{where} has {infinite:,} infinite values in {len(numbers):,} rows. Replace them first.")
        return numbers

    # ------------------------------------------------------------ words

    def _describe(self, name: str) -> TableInfo:
        table, found = self.table(name), self._columns(name)
        columns = []
        for column in found.names:
            role = "id" if column in table.id else "label" if column == table.label else "feature"
            about = {"name": column, "dtype": found.kind(column), "role": role}
            columns.append(msgspec.convert(about, known(ColumnInfo)))
        return TableInfo(member=self.member, name=name, rows=found.rows, columns=columns)

    def _require(self, name: str, found: Columns, columns: Iterable[str]) -> None:
        for column in columns:
            if column not in found.names:
                raise DataError(self._no_column(name, column, found.names))

    def _no_column(self, name: str, column: str, present: Iterable[object]) -> str:
        names = [str(other) for other in present]
        near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
            hint = ' The whole header is one column: give the table its separator = ";" (or what it is).'
        return f"table {name!r} of {self.member} has no column {column!r}. It has {_listed(names)}.{hint}"


def _texts(series: pd.Series) -> tuple[tuple[str, ...], npt.NDArray[np.float64]] | None:
    """Its different values, and the place of each row's among them, NaN where it has none. None for other than text."""
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.dtype.categories.dtype)
    if kind_of(series) != "text" or pd.to_numeric(series, errors="coerce").notna().equals(series.notna()):
        return None
    places, values = pd.factorize(series.astype(object).map(str, na_action="ignore"), sort=True)
    return tuple(map(str, values)), np.where(places < 0, np.nan, places)


class _Snapshot:
    def __init__(self, stamp: str, columns: Columns, digest: str) -> None:
        self.stamp = stamp
        self.columns = columns
        self.digest = digest

    @property
    def bytes(self) -> int:
        return self.columns.bytes

    def frame(self) -> pd.DataFrame:
        """All of it; it stays in memory from then on."""
        if not isinstance(self.columns, InMemory):
            self.columns = InMemory(self.columns.frame())
        return self.columns.frame()


def _unfit(series: pd.Series) -> str:
    """Why a column cannot be numbers; "" where it can."""
    import pandas as pd

    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.dtype.categories.dtype)
    kind = kind_of(series)
    if kind == "date":
        return kind
    if kind == "text":
        there = series.notna().to_numpy(dtype=bool)
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        text = there & np.isnan(numbers)
        if text.any():
            return "mixed" if 2 * (there & ~text).sum() >= text.sum() else "text"
    else:
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    return "infinite" if np.isinf(numbers).any() else ""


def _listed(names: Iterable[object]) -> str:
    words = [str(name) for name in names]
    shown = ", ".join(words[:20])
    return f"{shown} and {len(words) - 20} more" if len(words) > 20 else shown or "none"
