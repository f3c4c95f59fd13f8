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

    def table(self) -> pd.DataFrame:
        """holds, rows, positives, rate, woe and iv, a line a bin."""
        import pandas as pd

        return pd.DataFrame(
            {
                "holds": self.holds,
                "rows": self.rows,
                "positives": self.positives,
                "rate": np.asarray(self.positives, dtype=np.float64) / np.asarray(self.rows, dtype=np.float64),
                "woe": self.woe,
                "iv": self.iv,
            }
        )
