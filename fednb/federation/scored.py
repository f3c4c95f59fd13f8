"""How many different models have scored each row of a party that adds to scores.

A score is a sum over a party's features of a row, and whoever gets it learns one equation in them from each model. So a
passive party counts models by row, over all runs and derived tables, and writes that down before a score leaves.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from fednb.errors import QuotaExceeded
from fednb.federation.store import MemberStore, Part

NAME = "scored-rows"

Keys = npt.NDArray[np.uint64]


class ScoredRows:
    """The count, in a member's store."""

    def __init__(self, store: MemberStore, member: str) -> None:
        self._store = store
        self._member = member
        self._lock = threading.Lock()

    def count(self, rows: Keys, model: str, most: int) -> None:
        """Note that `model` scores rows (`row_keys`). Raises QuotaExceeded where `most` others have scored one."""
        with self._lock:
            kept = self._store.read(NAME, Part)
            known: dict[str, Keys] = {} if kept is None else dict(kept.values)
            before = np.zeros(len(rows), dtype=np.int64)
            for other, scored in known.items():
                before += np.isin(rows, scored) if other != model else 0
            over = int((before >= most).sum())
            if over:
                raise QuotaExceeded(
                    f"{self._member} has let {most} models score {over:,} of these rows; that many equations are "
                    "all that it gives away: its features could be solved for. Score other rows, or use a model "
                    "that has scored them before.",
                    member=self._member,
                    rule="models on the same rows",
                )
            known[model] = np.union1d(known.get(model, np.empty(0, dtype=np.uint64)), rows)
            self._store.save(NAME, known)
