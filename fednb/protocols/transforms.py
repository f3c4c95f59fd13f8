"""What a step of a preparation is: a rule that an analyst writes, and what an owner's training rows make of it.

The rule is the same for all parties of a run, and so is known to them. What was fitted stays with the owner of the
columns: means, quantiles and categories are never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.protocols.features import MIN_ROWS
from fednb.protocols.records import Table

ColumnName = Annotated[str, Meta(min_length=1, max_length=200)]
Names = Annotated[list[ColumnName], Meta(max_length=10_000)]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="step"):
    """A rule. Subclasses say which kinds of columns they are for."""

    columns: dict[str, Names] | None = None  # by party; None: all that are of the step's kind

    def fit(self, table: Table) -> Fitted:
        """What the rows of `table` make of the rule. Changes nothing. Raises DataError, naming party and column."""
        raise NotImplementedError

    def own(self, table: Table) -> list[str] | None:
        """The columns of this party that were asked for."""
        return None if self.columns is None else self.columns.get(table.party, [])


class Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="step"):
    """Figures of the training rows, by column. They are private to the columns' owner."""

    def chosen_sets(self, table: Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        """Before `apply`: which rows [n] of a column are beyond limits of an analyst's choice, for `RunContext.apart`.

        Such rows become equal, so that figures of the column may be figures of them.
        """
        yield from ()

    def apply(self, table: Table) -> None:
        """Change the columns of `table`, and note what should not go unnoticed. Raises DataError."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def beyond(values: np.ndarray, low: float, high: float) -> npt.NDArray[np.int64]:
    """[n] 0 below `low`, 2 above `high`, else 1, and -1 where missing. Fewer than ten rows beyond a limit count as 1.

    No figure is of fewer, whatever is done with the column afterwards.
    """
    below, above = values < low, values > high
    sets = np.where(np.isnan(values), -1, 1)
    for rows, number in ((below, 0), (above, 2)):
        if np.count_nonzero(rows) >= MIN_ROWS:
            sets[rows] = number
    return sets.astype(np.int64)


def filled(table: Table, name: str) -> np.ndarray:
    """The values of a column of numbers that are not missing. DataError when there are none."""
    values = table.numbers(name)
    found = values[~np.isnan(values)]
    if not len(found):
        raise table.wrong(name, "has no value in any training row. Leave the column out")
    return found
