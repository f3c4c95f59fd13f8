"""`fed` in a guarded party's cells, over loopback instead of a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fednb.config import ColumnConfig, GuardConfig, PermitConfig, TableConfig
from fednb.errors import DataError, Refused
from fednb.federation import messages as m
from fednb.federation.desk import Desk
from fednb.federation.gate_desk import GateDesk
from fednb.federation.guarded_frame import GuardedFrame
from fednb.federation.kernel_side import PartyFed
from fednb.federation.receipts import Book
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy import audit
from fednb.policy import plan as p
from fednb.policy.audit import AuditLog
from fednb.policy.mode import MemberPolicy
from fednb.wire.loopback import Network

ROWS = 300


@dataclass
class Party:
    fed: PartyFed  # of ann, who may use loans only
    tables: TableStore
    policy: MemberPolicy
    store: MemberStore
    home: Path


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Party]:
    frame = pd.DataFrame(
        {
            "sme_id": [f"s{row}" for row in range(ROWS)],
            "region": ["north" if row % 3 else "south" for row in range(ROWS)],
            "income": np.arange(ROWS) * 1.5,
            "secret": np.arange(ROWS),
        }
    )
    for name in ("loans", "payroll"):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    roles = {"region": ColumnConfig("key"), "secret": ColumnConfig("hidden")}
    declared = {
        name: TableConfig(name, tmp_path / f"{name}.csv", id=("sme_id",), roles=roles) for name in ("loans", "payroll")
    }
    tables = TableStore("bank", declared, tmp_path / "tables")
    policy = MemberPolicy("bank", "guarded", analysts={"ann": PermitConfig(tables=("loans",), cells=True)})
    book = Book("bank", AuditLog(tmp_path / "audit", "bank"))
    store = MemberStore()
    gate = GateDesk(tables, policy, GuardConfig(), tmp_path, book)
    network = Network({"bank": "party", "kernel": "analyst"})
    agent, kernel = network.endpoint("bank"), network.endpoint("kernel")
    Desk(tables, policy, store, lambda: None, gate).attach(agent, "ann")
    yield Party(PartyFed(kernel, "bank"), tables, policy, store, tmp_path)
    kernel.close()
    agent.close()
    gate.close()


def load(bank: Party, name: str = "loans") -> GuardedFrame:
    handle = bank.fed.load(name)
    assert isinstance(handle, GuardedFrame)
    return handle


def test_a_guarded_party_gives_a_handle_and_answers_it(bank: Party) -> None:
    loans = load(bank)
    assert list(loans.columns) == ["sme_id", "region", "income"]
    assert loans.groupby("region")["income"].mean()["south"] == pytest.approx(222.8, rel=1e-3)
    assert "secret" not in [column.name for column in bank.tables.describe()[0].columns], "hidden means not there"


def test_what_leaves_and_what_is_declined_stands_in_the_audit_log(bank: Party) -> None:
    loans = load(bank)
    loans["income"].mean()
    with pytest.raises(Refused) as caught:
        loans.groupby("sme_id")["income"].mean()
    assert (caught.value.rule, caught.value.member) == ("group", "bank") or "declined groups" in str(caught.value)
    entries = list(audit.entries(bank.home / "audit"))
    released = [entry for entry in entries if entry["event"] == "released"]
    assert [(entry["by"], entry["asked"], entry["values"]) for entry in released] == [
        ("ann", "mean of income, from loans", 1)
    ]
    assert "leverage <= 0.2" in released[0]["rules"]
    assert [entry["rule"] for entry in entries if entry["event"] == "declined"] == ["group"]


def test_an_analyst_asks_about_permitted_tables_only_under_whatever_name(bank: Party) -> None:
    with pytest.raises(Refused, match="does not let ann use the table payroll"):
        load(bank, "payroll")
    with pytest.raises(Refused, match="payroll"):
        bank.fed._ask(m.AskGate(p.Aggregate(p.Table("payroll"), [p.Figure("mean", "income")])), m.GateAnswer)
    joined = p.Join(p.Table("loans"), p.Table("payroll"), ["sme_id"])
    with pytest.raises(Refused, match="payroll"):
        bank.fed._ask(m.KeepTable(p.Keep(joined, "mine", ["sme_id"])), m.Ok)


def test_a_kept_table_keeps_its_plan_and_can_be_made_from_itself(bank: Party) -> None:
    loans = load(bank)
    bank.fed.save("features", loans.assign(rich=(loans.income > 100.0) * 1.0))
    assert bank.tables.read("features")["rich"].sum() == (np.arange(ROWS) * 1.5 > 100).sum()
    again = load(bank, "features")
    with pytest.raises(Refused, match="rule column"):
        again["rich"].mean()
    bank.fed.save("features", again.assign(more=again.income * 2))
    third = load(bank, "features")
    assert third["more"].mean() == pytest.approx(448.5) and list(third.columns)[-1] == "more"
    with pytest.raises(Refused, match="rule column"):
        third["rich"].mean()


@pytest.mark.parametrize("name", ["../loans", "a/b", "", "x" * 65, "..", "a\n"])
def test_a_kept_tables_name_becomes_no_path(bank: Party, name: str) -> None:
    with pytest.raises(DataError, match="letters, digits"):
        bank.fed._ask(m.KeepTable(p.Keep(p.Table("loans"), name, ["sme_id"])), m.Ok)
    with pytest.raises((DataError, Refused)):
        bank.fed._ask(m.AskGate(p.Aggregate(p.Table(name), [p.Figure("size")])), m.GateAnswer)


def test_a_declared_table_is_not_replaced_and_a_runs_own_neither(bank: Party) -> None:
    bank.tables.save("scores", pd.DataFrame({"sme_id": ["a"], "score": [0.5]}), ["sme_id"], None)
    for name in ("loans", "scores"):
        with pytest.raises(Refused, match="that no cell saved"):
            bank.fed.save(name, load(bank))


def test_rows_of_a_cells_own_are_not_taken_in(bank: Party) -> None:
    """Own ids, joined with a party's table, would pick its rows."""
    with pytest.raises(Refused, match="ids could pick"):
        bank.fed.save("mine", pd.DataFrame({"sme_id": ["s7"]}), id="sme_id")


def test_coefficients_stay_unless_the_owner_releases_them(bank: Party) -> None:
    bank.store.save("run1", {"coef": np.array([0.5]), "columns": ["income"]})
    with pytest.raises(Refused, match="does not show its coefficients"):
        bank.fed.coefficients("run1")


def test_a_lock_closes_the_gate(bank: Party) -> None:
    loans = load(bank)
    bank.policy.lock()
    with pytest.raises(Refused, match="locked"):
        loans["income"].mean()
