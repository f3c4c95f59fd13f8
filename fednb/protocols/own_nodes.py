"""A passive party's part of an ensemble: where its own nodes cut, and which of its nodes lie above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from fednb.protocols.parting import Cut, sets_from_part, sets_to_part


@dataclass
class OwnNodes:
    """In the order in which they were made; the active party knows them by their place here."""

    round: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)  # values below it go left
    default_left: list[bool] = field(default_factory=list)
    ancestor: list[int] = field(default_factory=list)  # the nearest of them above, or -1 ...
    side: list[bool] = field(default_factory=list)  # ... and which of its children leads here (1: left)
    # of nodes on categories, which codes go left and which right; all others the default way
    sets: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)

    def add(self, round: int, cut: Cut, threshold: float, ancestor: int, side: bool) -> int:
        """A new node; its place."""
        values = (round, cut.column, threshold, cut.default_left, ancestor, side)
        for name, value in zip(_KINDS, values, strict=True):
            getattr(self, name).append(value)
        place = len(self.round) - 1
        if cut.sets is not None:
            self.sets[place] = cut.sets
        return place

    def keep(self, rounds: int) -> None:
        """Forget what was made in later rounds."""
        count = sum(made < rounds for made in self.round)
        for name in _KINDS:
            del getattr(self, name)[count:]
        self.sets = {node: sets for node, sets in self.sets.items() if node < count}

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        values = {name: np.array(getattr(self, name), dtype=kind) for name, kind in _KINDS.items()}
        return {**values, "sets": sets_to_part(self.sets)}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        values = {name: np.asarray(part[name]).tolist() for name in _KINDS}
        return cls(**values, sets=sets_from_part(part.get("sets", ())))


_KINDS: Mapping[str, Any] = {
    "round": np.int64,
    "column": np.int64,
    "threshold": np.float64,
    "default_left": np.bool_,
    "ancestor": np.int64,
    "side": np.bool_,
}
