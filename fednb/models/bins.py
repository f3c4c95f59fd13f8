"""One feature's bins, as its owner releases them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta

if TYPE_CHECKING:
    import pandas as pd

Count = Annotated[int, Meta(ge=0)]


class Bins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lists by bin, in the order of the values; where the bins are cut, only the owner knows."""

    column: str
    holds: list[str]  # "values", "missing", "special 1"
    rows: list[Count]
    positives: list[Count]
    woe: list[float]
    iv: list[float]
    cells: list[Count] = []  # of the fit that the bin joins; empty in what an older fednb saved
    edges: list[float] = []  # between bins of ordinary values, where somebody else gave them; else the owner's secret

    def table(self) -> pd.DataFrame:
        """holds, cells, rows, positives, rate, woe and iv, a line a bin."""
        import pandas as pd

        return pd.DataFrame(
            {
                "holds": self.described(),
                "cells": self.cells or [1] * len(self.rows),
                "rows": self.rows,
                "positives": self.positives,
                "rate": np.asarray(self.positives, dtype=np.float64) / np.asarray(self.rows, dtype=np.float64),
                "woe": self.woe,
                "iv": self.iv,
            }
        )

    def described(self) -> list[str]:
        """What each bin holds: "values", or between which edges, where these are known; "missing"; "special 1"."""
        ordinary = self.holds.count("values")
        if len(self.edges) != ordinary - 1 or ordinary < 2:
            return [*self.holds]
        ends = [f"{edge:g}" for edge in self.edges]
        between = [f"{low} to below {high}" for low, high in zip(ends, ends[1:], strict=False)]
        return [f"below {ends[0]}", *between, f"{ends[-1]} and above", *self.holds[ordinary:]]
