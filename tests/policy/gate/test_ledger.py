"""The ledger: leverages are what the definition says, and outlive the process, the table's name and its version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednb.config import ColumnConfig, GuardConfig, TableConfig
from fednb.errors import ConfigError, FednbError, Refused
from fednb.federation.guarded_frame import GuardedFrame
from fednb.policy.gate import Gate, Held
from fednb.policy.ledger import Account, Charge, Ledger, vectors
from fednb.policy.leverage import Basis

ROWS = 12
X = Account("income", "value")


@given(st.lists(st.lists(st.integers(0, 2), min_size=ROWS, max_size=ROWS), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_leverage_is_the_diagonal_of_the_projection_onto_all_released_sums(sums: list[list[int]]) -> None:
    basis = Basis()
    basis.grow(ROWS)
    for each in sums:
        weights = np.array(each, dtype=float)
        basis.add(basis.trial(vectors([(np.arange(ROWS), weights)], ROWS))[0])
    A = np.array(sums, dtype=float)
    expected = np.diag(np.linalg.pinv(A) @ A)
    np.testing.assert_allclose(basis.leverage(), expected, atol=1e-7)
    assert basis.rank == np.linalg.matrix_rank(A)


def test_several_sums_at_once_are_as_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    A = rng.random((5, ROWS)).round(1)
    together, apart = Basis(), Basis()
    for basis in (together, apart):
        basis.grow(ROWS)
    together.add(together.trial(vectors([(np.arange(ROWS), row) for row in A], ROWS))[0])
    for row in A:
        apart.add(apart.trial(vectors([(np.arange(ROWS), row)], ROWS))[0])
    np.testing.assert_allclose(together.leverage(), apart.leverage(), atol=1e-9)


def test_rows_that_come_later_have_no_leverage_until_they_are_summed() -> None:
    basis = Basis()
    basis.grow(4)
    basis.add(basis.trial(vectors([(np.arange(4), np.ones(4))], 4))[0])
    basis.grow(6)
    np.testing.assert_allclose(basis.leverage(), [0.25] * 4 + [0, 0])
    _, then = basis.trial(vectors([(np.arange(6), np.ones(6))], 6))
    np.testing.assert_allclose(then, [0.25] * 4 + [0.5] * 2)


def charge(ledger: Ledger, rows: list[int], account: Account = X) -> Charge:
    return Charge(account, vectors([(np.array(rows), np.ones(len(rows)))], ledger.size))


def test_functions_of_one_column_are_added_up() -> None:
    ledger = Ledger(limit=0.2)
    ledger.rows(np.arange(100, dtype=np.uint64))
    for number, function in enumerate(("value", "square", "log", "root")):
        trial = ledger.trial([charge(ledger, list(range(20)), Account("income", function))])
        assert trial.fits, function
        ledger.commit(trial)
        assert ledger.leverage("income")[0] == pytest.approx((number + 1) / 20)
    assert not ledger.trial([charge(ledger, list(range(20)), Account("income", "cube"))]).fits
    assert ledger.trial([charge(ledger, list(range(20)), Account("bill", "value"))]).fits


def test_what_was_released_is_known_after_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, limit=0.2)
    ledger.rows(np.arange(100, dtype=np.uint64))
    ledger.commit(ledger.trial([charge(ledger, list(range(100)))]))
    ledger.commit(ledger.trial([charge(ledger, list(range(50)))]))
    before = ledger.leverage("income")
    assert not ledger.trial([charge(ledger, list(range(1, 50)))]).fits
    ledger.close()
    again = Ledger(tmp_path, limit=0.2)
    assert again.size == 100 and again.salt == ledger.salt
    np.testing.assert_allclose(again.leverage("income"), before)
    assert not again.trial([charge(again, list(range(1, 50)))]).fits
    assert again.used("release", 0.0) == 2
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_torn_last_record_is_cut_off_and_a_changed_one_stops_everything(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.rows(np.arange(30, dtype=np.uint64))
    ledger.commit(ledger.trial([charge(ledger, list(range(30)))]))
    whole = (tmp_path / "ledger.log").read_bytes()
    ledger.commit(ledger.trial([charge(ledger, list(range(15)))]))
    ledger.close()
    longer = (tmp_path / "ledger.log").read_bytes()
    for cut in range(len(whole) + 1, len(longer), 37):
        (tmp_path / "ledger.log").write_bytes(longer[:cut])
        again = Ledger(tmp_path)
        assert again.used("release", 0.0) == 1 and (tmp_path / "ledger.log").read_bytes() == whole
        again.close()
    (tmp_path / "ledger.log").write_bytes(longer[:60] + bytes([longer[60] ^ 1]) + longer[61:])
    with pytest.raises(ConfigError, match="is damaged at byte"):
        Ledger(tmp_path)
    (tmp_path / "ledger.log").write_bytes(longer)
    (tmp_path / "salt").unlink()
    with pytest.raises(ConfigError, match="salt is missing"):
        Ledger(tmp_path)


def test_two_processes_cannot_share_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with pytest.raises(ConfigError, match="in use by another process"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


def test_an_answer_that_cannot_be_written_down_does_not_leave(
    make_bank: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = make_bank(folder=tmp_path)
    loans = bank.load()
    loans["income"].mean()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FednbError, match="cannot be written.*nothing is released"):
        loans.groupby("sex")["income"].mean()
    monkeypatch.undo()
    assert bank.ledger.leverage("income").max() == pytest.approx(1 / 30_000)
    loans.groupby("sex")["income"].mean()


def people(rows: range, income: str = "income") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "person": [f"p{row}" for row in rows],
            "group": ["a" if row % 2 else "b" for row in rows],
            income: [1000.0 + (row * 7919) % 997 for row in rows],
        }
    )


TABLE = TableConfig("t", id=("person",), roles={"group": ColumnConfig("key")})


def total(gate: Gate, name: str, column: str = "income") -> float:
    class Counter:
        member = "bank"
        ask = staticmethod(lambda question: gate.ask(question, "ann"))

    return float(GuardedFrame.of(Counter(), gate.schema(name))[column].sum())


@pytest.mark.parametrize(
    ("second", "column"),
    [
        (people(range(1, 400)), "income"),  # without one person
        (people(range(1, 400)).sample(frac=1.0, random_state=0), "income"),  # and in another order
        (people(range(0, 401)), "income"),  # the next version, with one more
    ],
)
def test_a_copy_that_differs_by_one_row_shares_the_account(second: pd.DataFrame, column: str) -> None:
    tables = {"loans": people(range(400)), "copy": second}
    ledger = Ledger()
    gate = Gate("bank", GuardConfig(), ledger, lambda name: Held(tables[name], TABLE, name, name))
    total(gate, "loans")
    with pytest.raises(Refused, match="rule leverage"):
        total(gate, "copy", column)


def test_a_new_version_with_enough_new_rows_is_answered() -> None:
    tables = {"loans": people(range(400)), "next": people(range(420))}
    gate = Gate("bank", GuardConfig(), Ledger(), lambda name: Held(tables[name], TABLE, name, name))
    total(gate, "loans")
    total(gate, "next")


def test_a_renamed_column_of_the_same_content_shares_the_account() -> None:
    tables = {"loans": people(range(400)), "copy": people(range(400), income="salary")}
    ledger = Ledger()
    gate = Gate("bank", GuardConfig(), ledger, lambda name: Held(tables[name], TABLE, name, name))
    total(gate, "loans")
    total(gate, "copy", "salary")
    assert ledger.leverage("salary").sum() == 0 and ledger.leverage("income").sum() == pytest.approx(1.0)


def test_rows_of_one_id_count_once() -> None:
    """Ten invoices of one company are one company."""
    frame = pd.concat([people(range(8))] * 5, ignore_index=True)
    gate = Gate("bank", GuardConfig(), Ledger(), lambda name: Held(frame, TABLE, name, name))
    with pytest.raises(Refused, match="rule size"):
        total(gate, "invoices")
    many = pd.concat([people(range(300))] * 3, ignore_index=True)
    gate = Gate("bank", GuardConfig(), Ledger(), lambda name: Held(many, TABLE, name, name))
    total(gate, "invoices")
    assert gate._ledger.leverage("income", "id").max() == pytest.approx(1 / 300)
