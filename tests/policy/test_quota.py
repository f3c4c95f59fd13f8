"""The quota of decrypted slots: counted by label set and member, before the decryption, across runs and restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fednb.errors import QuotaExceeded
from fednb.policy.quota import QuotaLedger


def test_slots_are_counted_across_runs_on_one_label_set() -> None:
    ledger = QuotaLedger(multiple=0.5)
    ledger.budget("bank.loans.default", 100).spend("agency", 30)
    second = ledger.budget("bank.loans.default", 100)
    second.spend("agency", 20)
    with pytest.raises(
        QuotaExceeded, match="decrypted 50 slots of bank.loans.default for agency, was asked for 1 more"
    ):
        second.spend("agency", 1)
    second.spend("bank", 50)
    ledger.budget("bank.cards.default", 100).spend("agency", 50)
    assert ledger.spent("bank.loans.default") == {"agency": 50, "bank": 50}


def test_a_refused_or_expected_slot_is_not_counted() -> None:
    budget = QuotaLedger(multiple=1.0).budget("bank.loans.default", 10)
    budget.expect("agency", 10)
    with pytest.raises(QuotaExceeded, match="fewer iterations"):
        budget.expect("agency", 11)
    with pytest.raises(QuotaExceeded):
        budget.spend("agency", 11)
    budget.spend("agency", 10)


def test_the_count_outlives_the_coordinator(tmp_path: Path) -> None:
    file = tmp_path / "quota.json"
    QuotaLedger(file, multiple=1.0).budget("bank.loans.default", 10).spend("agency", 7)
    assert file.stat().st_mode & 0o077 == 0
    again = QuotaLedger(file, multiple=1.0).budget("bank.loans.default", 10)
    with pytest.raises(QuotaExceeded, match="decrypted 7 slots"):
        again.spend("agency", 4)
