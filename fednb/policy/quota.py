"""How many numbers are decrypted of one label set, over all runs.

Every decrypted slot is one linear equation in a label set's residuals, and a dishonest party could pass off a
single residual as its gradient: q slots tell it q labels at most. So slots are counted for each label set and
member across fits, folds and grids, written down before the decryption happens, and limited.
"""

from __future__ import annotations

from pathlib import Path

from fednb.errors import QuotaExceeded
from fednb.policy.counts import Counts


class QuotaLedger:
    """Slots decrypted so far, by label set and member; `path=None` keeps the count in memory (simulation)."""

    def __init__(self, path: Path | None = None, *, multiple: float = 0.5) -> None:
        self._multiple = multiple
        self._counts = Counts(path)

    def budget(self, label_set: str, rows: int) -> LedgerBudget:
        """The budget of a run that trains on `rows` rows of `label_set` ("bank.loans.default")."""
        return LedgerBudget(self, label_set, int(self._multiple * rows))

    def spent(self, label_set: str) -> dict[str, int]:
        """Slots decrypted of a label set so far, by member."""
        return self._counts.of(label_set)

    def expect(self, label_set: str, member: str, slots: int, limit: int) -> None:
        """Raises QuotaExceeded if `slots` more would be too many; counts nothing."""
        if not self._counts.fits(label_set, member, slots, limit):
            raise self._exceeded(label_set, member, slots, limit)

    def spend(self, label_set: str, member: str, slots: int, limit: int) -> None:
        """Count `slots` more. Raises QuotaExceeded, and counts nothing, when they are too many."""
        if not self._counts.take(label_set, member, slots, limit):
            raise self._exceeded(label_set, member, slots, limit)

    def _exceeded(self, label_set: str, member: str, slots: int, limit: int) -> QuotaExceeded:
        return QuotaExceeded(
            f"the coordinator has decrypted {self._counts.of(label_set).get(member, 0)} slots of {label_set} for "
            f"{member}, was asked for {slots} more, and its quota for this training set is {limit}. Use fewer "
            "iterations (max_iter) or features, or train on more rows.",
            member=member,
            rule="decryption quota",
        )


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
