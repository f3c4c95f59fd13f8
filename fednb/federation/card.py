"""One party's own part of a scorecard, for its owner: a table, JSON, and a Python function that needs nothing else.

Cut points are the owner's; what others told it (how cells were merged, weights behind the points) are numbers only, and
are written down as numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fednb.protocols.cuts import Cuts
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.vertical_binning import cuts_of

if TYPE_CHECKING:
    import pandas as pd

# what of a party's part its own kernels may read
CARD = ("columns", "points", "woe", "bin", "special", "card", "neutral", "base", "overrides")


class PartyCard:
    """Points of a party's own bins. `table()`, `to_json()` and `to_python()` say them."""

    def __init__(self, party: str, part: Mapping[str, Any]) -> None:
        self.party = party
        self._part = part
        self.base = float(part["base"]) if "base" in part else None  # at the active party

    def table(self) -> pd.DataFrame:
        """feature, holds, low, high and points, a line a bin: values from `low` up to but not including `high`."""
        import pandas as pd

        return pd.DataFrame(self._lines(), columns=["feature", "holds", "low", "high", "points"])

    def to_json(self) -> str:
        """The same as text, with the base points (null at a passive party) and what was overridden."""
        lines = [{name: _jsonable(value) for name, value in line.items()} for line in self._lines()]
        said = {"party": self.party, "base": self.base, "bins": lines, "overrides": list(self._part["overrides"])}
        return json.dumps(said, indent=2, ensure_ascii=False)

    def to_python(self) -> str:
        """Source of `points(row)`: this party's columns to numbers in (None or nan: missing), points out."""
        features = {
            name: {
                "cuts": [float(x) for x in cuts.points],
                "special": [float(x) for x in cuts.special],
                "points": self._by_cell(j, bins),
            }
            for j, (name, (cuts, _, bins)) in enumerate(cuts_of(self._part).items())
        }
        base = 0.0 if self.base is None else self.base
        listed = "".join(f"    {name!r}: {feature!r},\n" for name, feature in features.items())
        return _SOURCE.format(features=listed, base=base)

    def _by_cell(self, j: int, bins: Any) -> list[float]:
        values = [*self._part["card"][j], self._part["neutral"][j]]
        return [float(values[int(b)]) for b in bins]

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        for j, (name, (cuts, _, bins)) in enumerate(cuts_of(self._part).items()):
            points = self._by_cell(j, bins)
            for cells in _runs(cuts, np.asarray(bins)):
                low, high = _limits(cuts, cells)
                holds = cuts.name(cells[0])
                if cells[0] > cuts.ordered:
                    holds = f"{holds}: {cuts.special[cells[0] - cuts.ordered - 1]:g}"
                lines.append({"feature": name, "holds": holds, "low": low, "high": high, "points": points[cells[0]]})
        return lines

    def __repr__(self) -> str:
        base = "" if self.base is None else f", base {self.base:g}"
        return f"<scorecard of {self.party}: {len(self._part['columns'])} features{base}>"


def _runs(cuts: Cuts, bins: np.ndarray) -> list[list[int]]:
    """Cells of one bin side by side; missing and special values each by themselves."""
    runs: list[list[int]] = []
    for cell in range(cuts.size):
        joined = 0 < cell < cuts.ordered and bins[cell] == bins[cell - 1] and bins[cell] != NEUTRAL
        if joined:
            runs[-1].append(cell)
        else:
            runs.append([cell])
    return runs


def _limits(cuts: Cuts, cells: list[int]) -> tuple[float, float]:
    if cells[0] >= cuts.ordered:
        return math.nan, math.nan
    edges = [-math.inf, *cuts.points.tolist(), math.inf]
    return edges[cells[0]], edges[cells[-1] + 1]


def _jsonable(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_SOURCE = '''"""Points of one party's features, as a scorecard gives them."""

from bisect import bisect_right

BASE = {base!r}
FEATURES = {{
{features}}}


def points(row):
    """The points of a row: a mapping of column to number; None and nan are missing values."""
    total = BASE
    for name, feature in FEATURES.items():
        value = row[name]
        cell = len(feature["cuts"]) + 1
        if value is not None and value == value:
            if value in feature["special"]:
                cell += 1 + feature["special"].index(value)
            else:
                cell = bisect_right(feature["cuts"], value)
        total += feature["points"][cell]
    return total
'''
