"""A table as the gate sees it: its rows' accounts, and for each column what may be done with it.

    id        joins tables and is kept in saved ones; no figure and no filter uses it
    key       filters and groups: a category by its levels, a number at its cut points; figures too
    measure   figures over sets of rows, and any expression that stays at the party
    hidden    analysts do not learn that it exists

Where the owner says nothing: ids are ids, numbers and the label are measures, everything else is hidden.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fednb.config import ColumnConfig, TableConfig
from fednb.errors import ConfigError
from fednb.policy.answer import ColumnSpec, Kind
from fednb.policy.ledger import Ledger, Positions

if TYPE_CHECKING:
    import pandas as pd

MOST_LEVELS = 60
FEW = 20  # different values up to which a number is taken for levels too
BINS = 20
OTHER = "(other)"


class BaseTable:
    """One table of the party, with its rows' positions in the ledger."""

    def __init__(self, name: str, frame: pd.DataFrame, table: TableConfig, origin: str, ledger: Ledger, k: int) -> None:
        """origin : where the rows come from, for tables without ids: there a row is known by its place."""
        self.name = name
        self.frame = frame.reset_index(drop=True)
        self.label = table.label
        self.ids = [column for column in table.id if column in frame.columns]
        self.units: dict[str, Positions] = _units(self.frame, self.ids, origin, ledger)
        self.ids_count = len(np.unique(self.entity))
        self.specs: dict[str, ColumnSpec] = {}
        for column in map(str, frame.columns):
            spec = _spec(self.frame[column], self._role(table, column), self.entity, k)
            if spec is not None:
                self.specs[column] = spec
        self._accounts: dict[str, str] = {}
        self._ledger = ledger

    @property
    def entity(self) -> Positions:
        """[rows] whose row it is: what the k of a rule counts."""
        return self.units.get("id", self.units["row"])

    def account(self, column: str) -> str:
        """The ledger's name for a column."""
        if column not in self._accounts:
            import pandas as pd

            order = np.argsort(self.units["row"], kind="stable")
            values = pd.util.hash_pandas_object(self.frame[column].iloc[order], index=False).to_numpy()
            about = hashlib.sha256(self.units["row"][order].tobytes() + values.tobytes()).hexdigest()
            self._accounts[column] = self._ledger.column(column, about)
        return self._accounts[column]

    def _role(self, table: TableConfig, column: str) -> ColumnConfig:
        if column in table.id:
            return ColumnConfig("id")
        if column in table.roles:
            return table.roles[column]
        if column == table.label or _kind(self.frame[column]) == "number":
            return ColumnConfig("measure")
        return ColumnConfig("hidden")


def _units(frame: pd.DataFrame, ids: list[str], origin: str, ledger: Ledger) -> dict[str, Positions]:
    """Positions by row, and by id where ids repeat."""
    import pandas as pd

    if not ids:
        text = pd.Series([f"{origin}\x1f{row}" for row in range(len(frame))], dtype=object)
        return {"row": ledger.rows(_keyed(text, ledger.salt))}
    text = frame[ids[0]].astype(str)
    for column in ids[1:]:
        text = text + "\x1f" + frame[column].astype(str)
    text = text.str.strip().str.upper()
    again = frame.groupby(text.to_numpy(), sort=False).cumcount().astype(str)
    units = {"row": ledger.rows(_keyed(text + "\x1e" + again, ledger.salt))}
    if text.duplicated().any():
        units["id"] = ledger.rows(_keyed(text + "\x1eid", ledger.salt))
    return units


def _keyed(text: pd.Series, salt: str) -> npt.NDArray[np.uint64]:
    import pandas as pd

    hashed: npt.NDArray[np.uint64] = pd.util.hash_array(text.to_numpy(dtype=object), hash_key=salt, categorize=False)
    return hashed


def _kind(series: pd.Series) -> Kind | None:
    from pandas.api import types

    if types.is_bool_dtype(series.dtype) or isinstance(series.dtype, types.CategoricalDtype):
        return "category"
    if types.is_numeric_dtype(series.dtype):
        return "number"
    if types.is_string_dtype(series.dtype) or series.dtype == object:
        return "category"
    return None  # dates: not yet


def _spec(series: pd.Series, config: ColumnConfig, entity: Positions, k: int) -> ColumnSpec | None:
    kind = _kind(series)
    name = str(series.name)
    if config.role == "hidden":
        return None
    if config.role == "id":
        return ColumnSpec(name, "id", kind or "category")
    if kind is None:
        return None
    if config.cuts and kind != "number":
        raise ConfigError(f"column {name!r} has cut points and holds no numbers.")
    levels = [] if config.cuts else _levels(series, kind, entity, k)
    cuts = list(config.cuts)
    if kind == "number" and not levels and not cuts:
        cuts = grid(series.to_numpy(dtype=np.float64, na_value=np.nan), k)
    return ColumnSpec(name, config.role, kind, levels, cuts, bool(series.isna().any()))


def _levels(series: pd.Series, kind: Kind, entity: Positions, k: int) -> list[bool | int | float | str]:
    """Values that at least k ids have; [] for a number with many."""
    present = series[series.notna()]
    rows = present.value_counts()
    if kind == "number" and len(rows) > FEW:
        return []
    ids = {value: len(np.unique(entity[present.index[present == value]])) for value in rows.index[:MOST_LEVELS]}
    common = [value for value, count in ids.items() if count >= k]
    plain = [value.item() if isinstance(value, np.generic) else value for value in common]
    return sorted(plain, key=lambda value: (isinstance(value, str), value))


def grid(values: npt.NDArray[np.float64], k: int) -> list[float]:
    """Cut points of two significant digits, about a twentieth of the rows between two, and never fewer than k."""
    values = np.sort(values[np.isfinite(values)])
    least = max(k, math.ceil(len(values) / BINS / 2))
    if len(values) < 2 * least:
        return []
    wanted = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    cuts: list[float] = []
    before = 0
    for cut in sorted({float(f"{each:.1e}") for each in wanted.tolist()}):
        at = int(np.searchsorted(values, cut))
        if at - before >= least and len(values) - at >= least:
            cuts.append(cut)
            before = at
    return cuts
