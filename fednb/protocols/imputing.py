"""Missing values filled with a figure of the training rows, and columns that say where one was missing."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fednb.errors import DataError
from fednb.protocols.features import MIN_ROWS, rows_said
from fednb.protocols.records import A, Column, Kind, Table
from fednb.protocols.transforms import Fitted, Step, filled

MISSING = "missing"  # what an indicator's name ends in


class Impute(Step, frozen=True, kw_only=True, tag="impute"):
    """Numbers by any strategy; text by the most frequent value or a constant."""

    strategy: Literal["mean", "median", "most_frequent", "constant"] = "median"
    value: float | str | None = None  # of strategy "constant"
    indicator: bool = False

    def fit(self, table: Table) -> Imputed:
        kinds: tuple[Kind, ...] = ("number",)
        if self.strategy == "constant":
            if self.value is None or self.value != self.value:
                raise DataError("strategy='constant' needs a fill_value.")
            kinds = ("text",) if isinstance(self.value, str) else ("number",)
        elif self.strategy == "most_frequent":
            kinds = ("number", "text")
        fills, indicators = {}, {}
        for name in table.chosen(self.own(table), *kinds):
            column = table.column(name)
            fills[name] = self._fill(table, name, column)
            missing = int(column.missing.sum())
            if not self.indicator or not missing:
                continue
            if min(missing, table.rows - missing) >= MIN_ROWS:
                indicators[name] = f"{name}_{MISSING}"
            else:
                table.notes.append(
                    f"{table.party}'s {name!r} has no indicator: it would single out fewer than {MIN_ROWS} training "
                    "rows."
                )
        return Imputed(fills=fills, indicators=indicators)

    def _fill(self, table: Table, name: str, column: Column) -> float | str:
        if self.strategy == "constant" and self.value is not None:
            if isinstance(self.value, str) != (column.kind == "text"):
                raise table.wrong(name, f"is {A[column.kind]}, and fill_value is not")
            return self.value
        if column.kind == "text" and self.strategy == "most_frequent":
            texts = column.values[~column.missing]
            if not len(texts):
                raise table.wrong(name, "has no value in any training row. Leave the column out")
            values, counts = np.unique(texts.astype(str), return_counts=True)
            return str(values[np.argmax(counts)])
        numbers = filled(table, name)
        if self.strategy == "most_frequent":
            values, counts = np.unique(numbers, return_counts=True)
            return float(values[np.argmax(counts)])  # the least of several, as scikit-learn's
        return float(np.mean(numbers) if self.strategy == "mean" else np.median(numbers))


class Imputed(Fitted, frozen=True, kw_only=True, tag="impute"):
    """What is put where a value is missing."""

    fills: dict[str, float | str]
    indicators: dict[str, str]  # column -> name of the one that says where it was missing

    def apply(self, table: Table) -> None:
        for name, fill in self.fills.items():
            column = table.column(name)
            missing = column.missing
            if isinstance(fill, str):
                texts = table.texts(name).copy()
                texts[missing] = fill
                table.replace(name, texts, "text")
            else:
                values = table.numbers(name)
                missing = np.isnan(values)
                table.replace(name, np.where(missing, fill, values))
            if name in self.indicators:
                table.add(self.indicators[name], missing.astype(np.float64))
            elif self.indicators and missing.any():
                table.notes.append(
                    f"{table.party}'s {name!r} is missing in {rows_said(int(missing.sum()))}, and has no indicator: "
                    "too few training rows lacked it."
                )
