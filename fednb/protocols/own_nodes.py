"""A passive party's part of an ensemble: where its own nodes cut, and which of its nodes lie above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np


@dataclass
class OwnNodes:
    """In the order in which they were made; the active party knows them by their place here."""

    round: list[int] = field(default_factory=list)
    column: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)  # values below it go left
    default_left: list[bool] = field(default_factory=list)
    ancestor: list[int] = field(default_factory=list)  # the nearest of them above, or -1 ...
    side: list[bool] = field(default_factory=list)  # ... and which of its children leads here (1: left)

    def add(self, *values: Any) -> int:
        """A new node, its fields in order; its place."""
        for name, value in zip(_KINDS, values, strict=True):
            getattr(self, name).append(value)
        return len(self.round) - 1

    def keep(self, rounds: int) -> None:
        """Forget what was made in later rounds."""
        count = sum(made < rounds for made in self.round)
        for name in _KINDS:
            del getattr(self, name)[count:]

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        return {name: np.array(getattr(self, name), dtype=kind) for name, kind in _KINDS.items()}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        return cls(**{name: np.asarray(part[name]).tolist() for name in _KINDS})


_KINDS: Mapping[str, Any] = {
    "round": np.int64,
    "column": np.int64,
    "threshold": np.float64,
    "default_left": np.bool_,
    "ancestor": np.int64,
    "side": np.bool_,
}
