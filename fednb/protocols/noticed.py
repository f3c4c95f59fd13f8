"""What trees pass over in silence, said: columns that no split can use, and values missing for the first time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fednb.protocols.features import rows_said
from fednb.protocols.rows import Floats


def unused(party: str, X: Floats, columns: Sequence[str], levels: Sequence[bool], least: int) -> list[str]:
    """Notes on columns of the training rows X [n, d] that have one value, or none, or no category of `least` rows.

    levels : [d] whether a column's values stand for categories.
    """
    notes = []
    for name, x, categories in zip(columns, X.T, levels, strict=True):
        values = x[~np.isnan(x)]
        if not len(values):
            notes.append(f"{party}'s {name!r} has no value in any training row: no split uses it.")
        elif len(values) == len(x) and np.ptp(values) == 0:
            notes.append(f"{party}'s {name!r} has the same value in all training rows: no split uses it.")
        elif categories and np.unique(values, return_counts=True)[1].max() < least:
            notes.append(f"{party}'s {name!r} has no category of {least} training rows: no split uses it.")
    return notes


def whole(X: Floats, columns: Sequence[str]) -> list[str]:
    """Columns that no training row lacks, for the party's own part of a model."""
    return [name for name, x in zip(columns, X.T, strict=True) if not np.isnan(x).any()]


def newly_missing(party: str, X: Floats, part: Mapping[str, Any]) -> list[str]:
    """Notes on columns of rows X [n, d] that are to be scored; `part` is the party's part of the model."""
    notes = []
    before = frozenset(part.get("whole", ()))
    for name, x in zip(part["columns"], X.T, strict=True):
        missing = int(np.isnan(x).sum()) if name in before else 0
        if missing:
            notes.append(
                f"{party}'s {name!r} is missing in {rows_said(missing)}, and in no training row: trees send such rows "
                "where they were never shown to belong."
            )
    return notes
