"""What a guarded party tells: of its tables their columns, and of their rows released figures."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["number", "category"]
Plain = bool | int | float | str


class ColumnSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What analysts are told of a column."""

    name: str
    role: Literal["id", "key", "measure"]
    kind: Kind
    levels: list[Plain] = []  # that at least k ids have
    cuts: list[float] = []  # where filters, groups, clips and histograms may divide a number
    nullable: bool = False

    @property
    def edges(self) -> list[float]:
        """Where a number may be divided."""
        return self.cuts or [float(level) for level in self.levels[1:] if not isinstance(level, str)]


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What analysts are told of a table."""

    name: str
    rows: int
    columns: list[ColumnSpec]
    id: list[str]
    label: str | None = None


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A small table of released figures."""

    index_names: list[str]
    index: list[list[Plain]]  # one for each row
    columns: list[str]
    values: list[list[int | float | str | None]]  # by row; None: withheld
    notes: list[str] = []  # what was withheld or pooled, and under which rule
    rules: list[str] = []  # under which it all left
