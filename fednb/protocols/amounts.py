"""Numbers made fit for a regression: tails cut, put on one scale, logarithms, and ratios of one owner's columns.

Missing values stay missing: what stands for them is `imputing`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError
from fednb.protocols.features import rows_said
from fednb.protocols.records import Table
from fednb.protocols.rows import Floats
from fednb.protocols.transforms import ColumnName, Fitted, Step, beyond, filled


class Winsorise(Step, frozen=True, kw_only=True, tag="winsorise"):
    """Values beyond a limit become the limit.

    lower, upper : by "quantile" shares of the training rows; by "sd" standard deviations around their mean; by "value"
        the limits themselves.
    """

    by: Literal["quantile", "sd", "value"] = "quantile"
    lower: float | None = 0.01
    upper: float | None = 0.99

    def fit(self, table: Table) -> Winsorised:
        if self.lower is None and self.upper is None:
            raise DataError("winsorising needs a lower or an upper limit.")
        if self.by == "quantile" and not all(share is None or 0 <= share <= 1 for share in (self.lower, self.upper)):
            raise DataError("limits by quantile are shares between 0 and 1.")
        low, high = {}, {}
        for name in table.chosen(self.own(table), "number"):
            values = filled(table, name)
            low[name], high[name] = self._limit(values, self.lower, -np.inf), self._limit(values, self.upper, np.inf)
            if low[name] > high[name]:
                raise table.wrong(name, "would have a lower limit above its upper one")
            if len(values) > 1 and np.ptp(values) > 0 and np.ptp(np.clip(values, low[name], high[name])) == 0:
                raise table.wrong(
                    name,
                    "has one value only between these limits: too many rows are equal. Leave it out of this step, or "
                    "use wider limits",
                )
        return Winsorised(low=low, high=high, given=self.by == "value")

    def _limit(self, values: np.ndarray, asked: float | None, none: float) -> float:
        if asked is None:
            return none
        if self.by == "value":
            return asked
        return float(np.quantile(values, asked) if self.by == "quantile" else values.mean() + asked * values.std())


class Winsorised(Fitted, frozen=True, kw_only=True, tag="winsorise"):
    """Limits by column."""

    low: dict[str, float]
    high: dict[str, float]
    given: bool  # the analyst chose them, not a share of the rows

    def chosen_sets(self, table: Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        for name, low in self.low.items() if self.given else ():
            yield name, beyond(table.numbers(name), low, self.high[name])

    def apply(self, table: Table) -> None:
        for name, low in self.low.items():
            table.replace(name, np.clip(table.numbers(name), low, self.high[name]))


class Standardise(Step, frozen=True, kw_only=True, tag="standardise"):
    """(x - mean) / standard deviation, of the training rows, as scikit-learn's `StandardScaler`."""

    with_mean: bool = True
    with_std: bool = True

    def fit(self, table: Table) -> Standardised:
        centre, scale = {}, {}
        for name in table.chosen(self.own(table), "number"):
            values = filled(table, name)
            sd = float(values.std())
            if sd <= 1e-12 * max(1.0, float(np.abs(values).max())):
                raise table.wrong(
                    name, "has the same value in all training rows, and cannot be standardised. Leave the column out"
                )
            centre[name] = float(values.mean()) if self.with_mean else 0.0
            scale[name] = sd if self.with_std else 1.0
        return Standardised(centre=centre, scale=scale)


class Standardised(Fitted, frozen=True, kw_only=True, tag="standardise"):
    """Mean and standard deviation by column."""

    centre: dict[str, float]
    scale: dict[str, float]

    def apply(self, table: Table) -> None:
        for name, centre in self.centre.items():
            table.replace(name, (table.numbers(name) - centre) / self.scale[name])


class Log(Step, frozen=True, kw_only=True, tag="log"):
    """sign(x) · log(1 + |x|), in place. Nothing of it is fitted."""

    def fit(self, table: Table) -> Logged:
        names = table.chosen(self.own(table), "number")
        for name in names:
            table.numbers(name)
        return Logged(names=names)


class Logged(Fitted, frozen=True, kw_only=True, tag="log"):
    """Which columns."""

    names: list[str]

    def apply(self, table: Table) -> None:
        for name in self.names:
            values = table.numbers(name)
            table.replace(name, np.sign(values) * np.log1p(np.abs(values)))


class Ratio(Step, frozen=True, kw_only=True, tag="ratio"):
    """New columns, each one column divided by another of the same party, missing where that is zero or missing."""

    ratios: dict[str, dict[ColumnName, tuple[ColumnName, ColumnName]]]  # by party and new name: above and below
    clip: tuple[float, float] | None = None
    drop: bool = False  # the columns that they are made of

    def fit(self, table: Table) -> Ratios:
        own = self.ratios.get(table.party, {})
        for pair in own.values():
            for name in pair:
                filled(table, name)
        return Ratios(pairs=own, clip=self.clip, drop=self.drop)


class Ratios(Fitted, frozen=True, kw_only=True, tag="ratio"):
    """Which pairs."""

    pairs: dict[str, tuple[str, str]]
    clip: tuple[float, float] | None
    drop: bool

    def chosen_sets(self, table: Table) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        if self.clip is not None:
            low, high = self.clip
            for above, below in self.pairs.values():
                yield f"{above} / {below}", beyond(_divided(table, above, below), low, high)

    def apply(self, table: Table) -> None:
        for new, (above, below) in self.pairs.items():
            zero = table.numbers(below) == 0
            found = _divided(table, above, below)
            if zero.any():
                table.notes.append(
                    f"{table.party}'s {new!r} is missing in {rows_said(int(zero.sum()))} where {below!r} is 0."
                )
            if self.clip is not None:
                found = np.clip(found, *self.clip)
            table.add(new, found)
        if self.drop:
            for name in sorted({name for pair in self.pairs.values() for name in pair}):
                table.drop(name)


def _divided(table: Table, above: str, below: str) -> Floats:
    """[n] NaN where there is no ratio."""
    divisor = table.numbers(below)
    return table.numbers(above) / np.where(divisor == 0, np.nan, divisor)
