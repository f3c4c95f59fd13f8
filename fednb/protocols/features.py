"""What every party does to its own features before training, and again before scoring.

    z = (clip(x, low, high) - centre) / scale

Low and high are `clip` standard deviations around the mean of the training rows, scale is the standard deviation,
and centre is the mean after clipping, so that every party's scores have mean 0 on the training rows and the
intercept lies with the active party. All of it stays with the party that owns the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError
from fednb.protocols.rows import Floats, Matrix, columns_of

MIN_ROWS = 10  # behind each side of a column with two values


def rows_said(number: int) -> str:
    """ "12 rows"; few rows are not counted out."""
    return f"{number:,} rows" if number >= MIN_ROWS else f"fewer than {MIN_ROWS} rows"


@dataclass(frozen=True)
class Scaling:
    """One party's figures, by column."""

    low: Floats
    high: Floats
    centre: Floats
    scale: Floats

    def apply(self, X: Floats) -> Floats:
        """[n, d]"""
        Z = np.clip(X, self.low, self.high)
        Z -= self.centre
        Z /= self.scale
        return Z

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        return {"low": self.low, "high": self.high, "centre": self.centre, "scale": self.scale}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        return cls(*(np.asarray(part[name], dtype=np.float64) for name in ("low", "high", "centre", "scale")))


@dataclass(frozen=True)
class Standardised:
    """What `scaling` makes of `X`, [n, d], with a last column of ones if there is an intercept. Made when asked for."""

    X: Matrix
    scaling: Scaling
    intercept: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.X.shape[0], self.X.shape[1] + self.intercept

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Floats:
        Z = self.scaling.apply(self.X[rows])
        return np.column_stack([Z, np.ones(len(Z))]) if self.intercept else Z


def fit_scaling(X: Matrix, *, standardize: bool, clip: float | None) -> Scaling:
    """Figures of the training rows X [n, d], which `check_features` has seen."""
    figures = [_figures(x, standardize, clip) for x in columns_of(X)]
    return Scaling(*np.array(figures, dtype=np.float64).reshape(-1, 4).T.copy())


def _figures(x: Floats, standardize: bool, clip: float | None) -> tuple[float, float, float, float]:
    mean, sd = float(x.mean()), float(x.std())
    # without clip nothing is cut, at scoring neither
    low, high = (mean - clip * sd, mean + clip * sd) if clip is not None else (-np.inf, np.inf)
    return low, high, float(np.clip(x, low, high).mean()), sd if standardize else 1.0


def check_features(party: str, X: Matrix | None, columns: Sequence[str]) -> Matrix:
    """X [n, d] as floats. DataError naming party and columns when a column cannot be trained on."""
    if X is None or len(X.shape) != 2 or X.shape[1] != len(columns):
        raise DataError(f"{party} brought no table of features for its {len(columns)} columns.")
    values: Matrix = np.asarray(X, dtype=np.float64) if isinstance(X, np.ndarray) else X
    absent, endless = [], []
    for name, x in zip(columns, columns_of(values), strict=True):
        missing = int(np.count_nonzero(np.isnan(x)))
        if missing:
            absent.append(f"{name!r} ({missing} rows)")
        elif not bool(np.isfinite(x).all()):
            endless.append(repr(name))
    if absent:
        raise DataError(
            f"{party} has missing values in {', '.join(absent)}. Impute them in a %%party cell, save the table, and "
            "align again."
        )
    if endless:
        raise DataError(f"{party} has infinite values in {', '.join(endless)}.")
    return values


def check_training(party: str, X: Matrix, columns: Sequence[str]) -> None:
    """DataError for a column that carries nothing, or that would single out rows."""
    constant = []
    for name, x in zip(columns, columns_of(X), strict=True):
        low, high = float(x.min()), float(x.max())
        if float(x.std()) <= 1e-12 * max(1.0, abs(low), abs(high)):
            constant.append(repr(name))
            continue
        lowest, highest = int(np.count_nonzero(x == low)), int(np.count_nonzero(x == high))
        few = min(lowest, highest)
        if few < MIN_ROWS and lowest + highest == len(x):
            raise DataError(
                f"{party}'s column {name!r} has two values and one of them stands in {few} training rows. Its gradient "
                f"would be a sum over these rows' labels, so at least {MIN_ROWS} are needed. Merge categories, or "
                "leave the column out."
            )
    if constant:
        raise DataError(
            f"{party} has the same value in all training rows of {', '.join(constant)}. Leave such columns out."
        )


def check_numbers(party: str, label: npt.NDArray[Any] | None, column: str | None, rows: int) -> Floats:
    """[n] finite numbers. DataError, naming party and column, for anything else."""
    if label is None or label.shape != (rows,):
        raise DataError(f"{party} brought no label for its {rows} rows.")
    y = np.asarray(label, dtype=np.float64)
    for wrong, what in ((np.isnan(y), "missing"), (np.isinf(y), "infinite")):
        if wrong.any():
            raise DataError(
                f"{party}'s label {column or 'label'!r} is {what} in {int(wrong.sum())} rows. Leave these rows out, "
                "then align again."
            )
    return y


def check_label(party: str, label: npt.NDArray[Any] | None, column: str | None, rows: int) -> Floats:
    """[n] of 0 and 1. DataError, naming party and column, for anything else."""
    name = repr(column or "label")
    y = check_numbers(party, label, column, rows)
    other = int(((y != 0) & (y != 1)).sum())
    if other:
        raise DataError(
            f"{party}'s label {name} is not binary: {other} of {rows} rows are neither 0 nor 1. "
            "Save a table whose label is 0 or 1."
        )
    positives = int(y.sum())
    if positives in (0, rows):
        raise DataError(f"{party}'s label {name} has one class only in these {rows} rows; there is nothing to learn.")
    if min(positives, rows - positives) < MIN_ROWS:
        raise DataError(
            f"{party}'s label {name} has fewer than {MIN_ROWS} rows of one class in these {rows} rows. What the others "
            "learn would be sums over these few. Use more rows."
        )
    return y
