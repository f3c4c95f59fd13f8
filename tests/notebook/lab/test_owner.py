"""Who may decide in an inbox, and what a page is told of it: against the files of a real home."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from fednb.errors import ConfigError, DataError
from fednb.notebook.lab import messages as lab
from fednb.notebook.lab.owner import OWNS, Owner
from fednb.policy import approvals, codeview
from fednb.policy.approvals import ApprovalStore
from fednb.policy.audit import AuditLog, entries
from fednb.wire.keys import enrol_all

CODE = "t = fed.load('loans')\nprint(t['income'].max())"
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
approval = true
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
[party.agency]
"""
MEMBERS = {"hub": "hub", "bank": "party", "agency": "party", "coordinator": "coordinator", "ann": "analyst"}


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    (tmp_path / "loans.csv").write_text("sme_id,income\n007,10\n")
    (tmp_path / "federation.toml").write_text(FILE)
    enrol_all(tmp_path / ".fednb", MEMBERS)
    return tmp_path / ".fednb"


@pytest.fixture
def store(homes: Path) -> ApprovalStore:
    return ApprovalStore(homes / "bank" / "approvals")


def ask(store: ApprovalStore, code: str = CODE, reason: str = "to count") -> str:
    return store.add("ann", code, reason, codeview.digest(code), approvals.binding({}), ("loans",)).id


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def owner(told: list[Any]) -> Any:
    made = Owner(told.append)
    yield made
    made.close()


def last(told: list[Any], kind: type[Any]) -> Any:
    return [news for news in told if isinstance(news, kind)][-1]


def test_the_owner_reads_a_request_and_approves_it(
    homes: Path, store: ApprovalStore, owner: Owner, told: list[Any]
) -> None:
    before = ask(store, "fed.load('loans').shape", "the shape")
    store.change(before, {}, decision="approved", until=9e12, uses=1)
    wanted = ask(store, reason="to \x1b[2Jcount")
    owner.open(str(homes / "bank"))
    (inbox,) = last(told, lab.InboxNews).inboxes
    assert (inbox.member, [(each.id, each.reason) for each in inbox.requests]) == ("bank", [(wanted, "to [2Jcount")])
    owner.answer(lab.Open(home=inbox.home, request=wanted))
    case = last(told, lab.CaseNews)
    assert case.code == CODE and case.tables == ["loans"] and case.before == before
    assert "-fed.load('loans').shape" in case.difference and "+t = fed.load('loans')" in case.difference
    owner.answer(lab.Approve(home=inbox.home, request=wanted, uses=2, days=1.5))
    assert (store.get(wanted).decision, store.get(wanted).uses, store.get(wanted).at_once) == ("approved", 2, False)
    assert last(told, lab.InboxNews).inboxes[0].requests == []
    assert [each["request"] for each in entries(homes / "bank" / "audit") if each["event"] == "approved"] == [wanted]


def test_nobody_decides_in_a_home_that_this_notebook_has_not_opened(
    homes: Path, store: ApprovalStore, owner: Owner
) -> None:
    wanted = ask(store)
    for question in (
        lab.Approve(home=str(homes / "bank"), request=wanted, uses=1, days=1),
        lab.Deny(home=str(homes / "bank"), request=wanted, why="so"),
        lab.Open(home=str(homes / "bank"), request=wanted),
    ):
        with pytest.raises(ConfigError, match="has opened no such home"):
            owner.answer(question)
    assert store.get(wanted).decision == "pending"
    with pytest.raises(ConfigError, match="home of the analyst ann"):
        owner.open(str(homes / "ann"))
    (homes / "bank" / "identity.json").chmod(0o644)
    with pytest.raises(ConfigError):
        owner.open(str(homes / "bank"))


def test_a_decision_is_on_one_whole_id_and_needs_a_reason_to_deny(
    homes: Path, store: ApprovalStore, owner: Owner
) -> None:
    wanted = ask(store)
    owner.open(str(homes / "bank"))
    home = str(homes / "bank")
    with pytest.raises(ConfigError, match="no request"):
        owner.answer(lab.Approve(home=home, request=wanted[:6], uses=1, days=1))
    with pytest.raises(ConfigError, match="say why"):
        owner.answer(lab.Deny(home=home, request=wanted, why=" "))
    assert store.get(wanted).decision == "pending"
    owner.answer(lab.Deny(home=home, request=wanted, why="three loans would show"))
    assert (store.get(wanted).decision, store.get(wanted).why) == ("denied", "three loans would show")
    with pytest.raises(DataError, match="is denied by now"):
        owner.answer(lab.Approve(home=home, request=wanted, uses=1, days=1))


def test_what_comes_later_is_told_by_itself(homes: Path, store: ApprovalStore) -> None:
    heard = threading.Event()
    owner = Owner(lambda news: heard.set() if isinstance(news, lab.InboxNews) and news.inboxes[0].requests else None)
    try:
        owner.open(str(homes / "bank"))
        assert not heard.is_set()
        ask(store)
        assert heard.wait(20)
    finally:
        owner.close()


def test_a_member_that_approves_nothing_says_so_and_a_wrong_home_hinders_no_kernel(
    homes: Path, owner: Owner, told: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(OWNS, f"{homes / 'agency'}:{homes / 'nobody'}")
    with caplog.at_level(logging.WARNING, logger="fednb.notebook"):
        owner.open_all()
    (inbox,) = last(told, lab.InboxNews).inboxes
    assert inbox.member == "agency" and "approves no cells" in inbox.wrong
    assert "nobody" in caplog.text


def test_the_audit_log_is_checked_and_what_was_changed_is_told(homes: Path, owner: Owner, told: list[Any]) -> None:
    log = AuditLog(homes / "bank" / "audit", "bank")
    sent = [{"to": "ann", "what": "Stream", "messages": 2, "values": 3, "bytes": 40}]
    log.append("cell ended", cell="c1", rule="mode open", crossed=sent)
    log.append("cell ended", cell="c2", rule="mode open", crossed=sent)
    owner.open(str(homes / "bank"))
    owner.open(str(homes / "agency"))
    owner.answer(lab.Verify())
    bank, agency = last(told, lab.AuditNews).logs
    assert (bank.entries, bank.problems) == (2, []) and "2 entries" in bank.notes[0]
    assert bank.left == [lab.Left(to="ann", what="Stream", rule="mode open", messages=4, values=6, bytes=80)]
    assert "holds no audit log" in agency.problems[0]
    file = homes / "bank" / "audit" / "log.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"c1"', b'"c9"'))
    owner.answer(lab.Verify())
    assert "entry 0 was changed" in last(told, lab.AuditNews).logs[0].problems[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"uses": 0, "days": 1},
        {"uses": 1001, "days": 1},
        {"uses": 1, "days": 0},
        {"uses": 1, "days": 367},
        {"uses": 1},
        {"uses": 1, "days": 1, "release": True},
    ],
)
def test_what_no_owner_may_grant_by_a_page_is_no_question(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        lab.asked({"v": 1, "kind": "approve", "home": "h", "request": "r", **fields})
