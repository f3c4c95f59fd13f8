"""What a party's own preparation found in its training rows, as a table for the party's own cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def table_of(prepared: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Columns step (from 1), rule, column, figure and value, a line a figure."""
    import pandas as pd

    lines = [
        (number, str(step["step"]), *line)
        for number, step in enumerate(prepared, 1)
        for line in (_categories(step["columns"]) if step["step"] == "onehot" else _figures(step))
    ]
    return pd.DataFrame(lines, columns=["step", "rule", "column", "figure", "value"])


def _figures(step: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for figure, values in step.items():
        if isinstance(values, Mapping):
            yield from ((str(column), figure, value) for column, value in values.items())
        elif figure == "names":
            yield from ((str(column), "column", column) for column in values)


def _categories(columns: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Any]]:
    """The figure is the new column's name, the value what it stands for."""
    for column, known in columns.items():
        yield from ((column, name, value) for name, value in zip(known["names"], known["values"], strict=True))
        rest = set(known["seen"]) - set(known["values"])
        if known["other"]:
            yield column, known["other"], ", ".join(sorted(rest))
        if known["missing"]:
            yield column, known["missing"], None
