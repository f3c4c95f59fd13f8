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

Floats = npt.NDArray[np.float64]

MIN_ROWS = 10  # behind each side of a column with two values


@dataclass(frozen=True)
class Scaling:
    """One party's figures, by column."""

    low: Floats
    high: Floats
    centre: Floats
    scale: Floats

    def apply(self, X: Floats) -> Floats:
        """[n, d]"""
        return (np.clip(X, self.low, self.high) - self.centre) / self.scale

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        return {"low": self.low, "high": self.high, "centre": self.centre, "scale": self.scale}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        return cls(*(np.asarray(part[name], dtype=np.float64) for name in ("low", "high", "centre", "scale")))


def fit_scaling(X: Floats, *, standardize: bool, clip: float | None) -> Scaling:
    """Figures of the training rows X [n, d], which `check_features` has seen."""
    mean, sd = X.mean(axis=0), X.std(axis=0)
    low, high = (mean - clip * sd, mean + clip * sd) if clip is not None else (X.min(axis=0), X.max(axis=0))
    if clip is None:  # nothing is cut, at scoring neither
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    scale = sd if standardize else np.ones_like(sd)
    return Scaling(low, high, np.clip(X, low, high).mean(axis=0), scale)


def check_features(party: str, X: npt.NDArray[Any] | None, columns: Sequence[str]) -> Floats:
    """X [n, d] as floats. DataError naming party and columns when a column cannot be trained on."""
    if X is None or X.ndim != 2 or X.shape[1] != len(columns):
        raise DataError(f"{party} brought no table of features for its {len(columns)} columns.")
    values = np.asarray(X, dtype=np.float64)
    absent = np.count_nonzero(np.isnan(values), axis=0)
    if absent.any():
        named = ", ".join(f"{columns[j]!r} ({absent[j]} rows)" for j in np.flatnonzero(absent).tolist())
        raise DataError(
            f"{party} has missing values in {named}. Impute them in a %%party cell, save the table, and align again."
        )
    endless = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(endless):
        raise DataError(f"{party} has infinite values in {_named(columns, endless)}.")
    return values


def check_training(party: str, X: Floats, columns: Sequence[str]) -> None:
    """DataError for a column that carries nothing, or that would single out rows."""
    constant = np.flatnonzero(X.std(axis=0) <= 1e-12 * np.maximum(1.0, np.abs(X).max(axis=0, initial=0.0)))
    if len(constant):
        raise DataError(
            f"{party} has the same value in all training rows of {_named(columns, constant)}. Leave such columns out."
        )
    for j, name in enumerate(columns):
        low, high = X[:, j].min(), X[:, j].max()
        few = min(int((X[:, j] == low).sum()), int((X[:, j] == high).sum()))
        if few < MIN_ROWS and bool(np.all((X[:, j] == low) | (X[:, j] == high))):
            raise DataError(
                f"{party}'s column {name!r} has two values and one of them stands in {few} training rows. Its gradient "
                f"would be a sum over these rows' labels, so at least {MIN_ROWS} are needed. Merge categories, or "
                "leave the column out."
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
    return y


def _named(columns: Sequence[str], which: npt.NDArray[np.intp]) -> str:
    return ", ".join(repr(columns[j]) for j in which.tolist())
