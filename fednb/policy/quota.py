"""How much a coordinator decrypts of one label set, over all runs.

Every decrypted slot is one linear equation in a label set's residuals, and a dishonest party could pass off a
single residual as its gradient: q slots tell it q labels at most. So slots are counted for each label set and
member across fits, folds and grids, written down before the decryption happens, and limited.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from fednb.errors import QuotaExceeded


class QuotaLedger:
    """Slots decrypted so far, by label set and member; `path=None` keeps the count in memory (simulation)."""

    def __init__(self, path: Path | None = None, *, multiple: float = 0.5) -> None:
        self._path = path
        self._multiple = multiple
        self._lock = threading.Lock()
        self._spent: dict[str, dict[str, int]] = {}
        if path is not None and path.exists():
            self._spent = json.loads(path.read_text())

    def budget(self, label_set: str, rows: int) -> LedgerBudget:
        """The budget of a run that trains on `rows` rows of `label_set` ("bank.loans.default")."""
        return LedgerBudget(self, label_set, int(self._multiple * rows))

    def spent(self, label_set: str) -> dict[str, int]:
        """Slots decrypted of a label set so far, by member."""
        with self._lock:
            return dict(self._spent.get(label_set, {}))

    def expect(self, label_set: str, member: str, slots: int, limit: int) -> None:
        """Raises QuotaExceeded if `slots` more would be too many; counts nothing."""
        with self._lock:
            self._check(label_set, member, slots, limit)

    def spend(self, label_set: str, member: str, slots: int, limit: int) -> None:
        with self._lock:
            before = self._check(label_set, member, slots, limit)
            self._spent.setdefault(label_set, {})[member] = before + slots
            self._write()

    def _check(self, label_set: str, member: str, slots: int, limit: int) -> int:
        """The slots spent so far."""
        before = self._spent.get(label_set, {}).get(member, 0)
        if before + slots > limit:
            raise QuotaExceeded(
                f"the coordinator has decrypted {before} slots of {label_set} for {member}, was asked for {slots} "
                f"more, and its quota for this training set is {limit}. Use fewer iterations (max_iter) or features, "
                "or train on more rows.",
                member=member,
                rule="decryption quota",
            )
        return before

    def _write(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(".draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self._spent, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)


class LedgerBudget:
    """One run's view of the ledger (a `protocols.base.Budget`)."""

    def __init__(self, ledger: QuotaLedger, label_set: str, limit: int) -> None:
        self._ledger = ledger
        self.label_set = label_set
        self.limit = limit

    def expect(self, member: str, slots: int) -> None:
        self._ledger.expect(self.label_set, member, slots, self.limit)

    def spend(self, member: str, slots: int) -> None:
        self._ledger.spend(self.label_set, member, slots, self.limit)
