from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from fednb.errors import DataError, Refused
from fednb.policy import approvals
from fednb.policy.approvals import ApprovalStore, Request
from fednb.policy.mode import MemberPolicy


def ask(store: ApprovalStore, analyst: str = "ann", code: str = "1") -> Request:
    return store.add(analyst, code, "why", "cell", "data", ("loans",))


def test_a_request_is_kept_for_its_owner_only_and_found_by_how_its_id_begins(tmp_path: Path) -> None:
    store = ApprovalStore(tmp_path / "approvals")
    made = ask(store)
    assert made.state == "pending" and ApprovalStore(store.folder).get(made.id[:6]) == made
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert (store.folder / f"{made.id}.json").stat().st_mode & 0o777 == 0o600
    for id in ("", "../../etc", "ffff"):
        with pytest.raises(DataError, match="no request|several"):
            store.get(id)


def test_only_one_of_two_who_decide_at_once_succeeds(tmp_path: Path) -> None:
    id = ask(ApprovalStore(tmp_path)).id
    done: list[str] = []

    def decide(decision: str) -> None:
        try:
            ApprovalStore(tmp_path).change(id, {"decision": "pending"}, decision=decision, until=time.time() + 60)
            done.append(decision)
        except DataError as error:
            assert "by now" in str(error)

    threads = [threading.Thread(target=decide, args=(d,)) for d in ("approved", "denied") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1 and ApprovalStore(tmp_path).get(id).decision == done[0]


def test_what_nobody_answers_and_what_nobody_uses_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ApprovalStore(tmp_path)
    pending, approved = ask(store).id, ask(store).id
    store.change(approved, {}, decision="approved", uses=1, until=time.time() + 86_400)
    now = time.time()
    monkeypatch.setattr(approvals.time, "time", lambda: now + 2 * 86_400)
    assert store.get(pending).decision == "pending"
    assert store.get(approved).decision == "expired" and "time is over" in store.get(approved).why
    monkeypatch.setattr(approvals.time, "time", lambda: now + 15 * 86_400)
    assert "nobody answered" in store.get(pending).why


def test_an_approval_is_bound_to_rows_and_software(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = approvals.binding({"loans": "a", "more": "b"})
    assert bound == approvals.binding({"more": "b", "loans": "a"})
    assert bound != approvals.binding({"loans": "a", "more": "c"}) != approvals.binding({"loans": "a"})
    monkeypatch.setattr(approvals, "_software", lambda: ["3.99"])
    assert bound != approvals.binding({"loans": "a", "more": "b"})


def test_an_analyst_cannot_bury_an_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "MOST_WAITING", 3)
    store = ApprovalStore(tmp_path)
    for _ in range(3):
        ask(store)
    with pytest.raises(Refused, match="3 requests of ann wait already"):
        ask(store)
    ask(store, "bob")


def test_a_damaged_request_is_named(tmp_path: Path) -> None:
    store = ApprovalStore(tmp_path)
    (store.folder / f"{ask(store).id}.json").write_text('{"id": "x"}')
    with pytest.raises(DataError, match="is damaged"):
        store.all()


def test_asking_is_closed_unless_the_owner_opened_it() -> None:
    with pytest.raises(Refused, match="nobody who approves") as caught:
        MemberPolicy("bank").check_asks_of("ann")
    assert caught.value.rule == "approval"
    policy = MemberPolicy("bank", approval=True)
    policy.check_asks_of("ann")
    policy.lock()
    with pytest.raises(Refused, match="locked"):
        policy.check_asks_of("ann")
    with pytest.raises(Refused, match="runs no cells of ann"):
        MemberPolicy("bank", analysts={}, approval=True).check_asks_of("ann")
