"""Invented rows of a table's shape: what an analyst tries a cell on, and an owner too, before it meets data.

They are made from names and types alone, which members tell each other anyway. No row, range or frequency of the data
goes into them; where ranges shall be lifelike, the owner writes them down in the federation file (`mock`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fednb.federation.messages import TableInfo

if TYPE_CHECKING:
    import pandas as pd

ROWS = 200
Range = Sequence[float | str]  # the least and the most of numbers; of text, all that may occur


def invent(table: TableInfo, ranges: Mapping[str, Range] | None = None, rows: int = ROWS) -> pd.DataFrame:
    """Rows for a table: the same ones each time. Columns are drawn one by one, so no two go together."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for column in table.columns:
        seed = hashlib.sha256(f"{table.name} {column.name}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(seed[:8], "big"))
        if column.role == "id":
            columns[column.name] = [f"mock{n:06d}" for n in range(rows)]
        elif column.role == "label":
            columns[column.name] = generator.integers(0, 2, rows)
        else:
            columns[column.name] = _values(column.dtype, (ranges or {}).get(column.name), rows, generator)
    return pd.DataFrame(columns)


def _values(
    dtype: str, given: Range | None, rows: int, generator: np.random.Generator
) -> npt.NDArray[Any] | Sequence[object]:
    if given and any(isinstance(each, str) for each in given):
        return [given[n] for n in generator.integers(0, len(given), rows)]
    low, high = (float(given[0]), float(given[-1])) if given else (0.0, 100.0)
    if dtype == "int":
        return generator.integers(int(low), int(high) + 1, rows)
    if dtype == "float":
        return generator.uniform(low, high, rows).round(4)
    if dtype == "bool":
        return generator.integers(0, 2, rows).astype(bool)
    if dtype == "date":
        return np.datetime64("2020-01-01", "ns") + generator.integers(0, 1000, rows) * np.timedelta64(1, "D")
    return [f"value {n}" for n in generator.integers(0, 5, rows)]
