"""Which columns say what others say already: variance inflation factors, and what to leave out.

    VIF_j = 1 / (1 - R²_j) = (R⁻¹)_jj        R²_j: of column j regressed on all others      (Belsley, Kuh, Welsch 1980)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from fednb.protocols.rows import Floats

MOST_VIF = 1000.0  # beyond that a column is as good as a sum of others


class Drop(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that is left out."""

    column: int
    near: int  # of two that are correlated, the one that stays; -1: too large a VIF
    value: float  # r, or VIF when it went


def inflation(r: Floats) -> Floats:
    """[k] VIF of each column of a correlation matrix [k, k], MOST_VIF where it is that or more."""
    if not len(r):
        return np.empty(0)
    values, vectors = np.linalg.eigh(r)
    # where an eigenvalue is nought, or was rounded below it, columns that take part in it are sums of others
    found = (vectors**2 / np.maximum(values, 0.1 / MOST_VIF**2)).sum(axis=1)
    return np.asarray(np.clip(found, 1.0, MOST_VIF))


def selected(
    r: Floats, best_first: Sequence[int], max_correlation: float | None, max_vif: float | None
) -> list[Drop]:
    """What to leave out of the columns of `r`: first of each correlated pair the later in `best_first`, then, as long
    as one is above `max_vif`, the column with the largest VIF (of equal ones the last)."""
    kept: list[int] = []
    dropped: list[Drop] = []
    for j in best_first:
        close = [i for i in kept if max_correlation is not None and abs(r[i, j]) > max_correlation]
        if close:
            nearest = max(close, key=lambda i: abs(r[i, j]))
            dropped.append(Drop(j, nearest, float(r[nearest, j])))
        else:
            kept.append(j)
    while max_vif is not None and len(kept) > 1:
        vif = inflation(r[np.ix_(kept, kept)])
        alike = np.flatnonzero(vif >= vif.max() * (1 - 1e-3))
        if vif.max() <= max_vif:
            break
        dropped.append(Drop(kept.pop(int(alike[-1])), -1, float(vif.max())))
    return dropped
