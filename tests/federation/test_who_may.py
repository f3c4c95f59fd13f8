"""What a dishonest member may ask of the others, and what they answer."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.config import PermitConfig
from fednb.errors import DataError, LinkError, Refused, UnexpectedMessage
from fednb.federation import messages as m
from fednb.federation.client import Federation
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.party import PartyService
from fednb.federation.runs import RunStore
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy.mode import MemberPolicy
from fednb.policy.quota import QuotaLedger
from fednb.protocols import lookup
from fednb.wire import codec
from fednb.wire.loopback import Network

WAIT = 20.0
LOANS = pd.DataFrame({"sme_id": [f"S{k}" for k in range(20)], "x": np.arange(20.0)})
KINDS = {"bank": "party", "agency": "party", "coordinator": "coordinator", "analyst": "analyst", "hub": "hub"}


@pytest.fixture
def network() -> Iterator[Network]:
    """With an honest party, bank; the others are for the test to play."""
    network = Network(KINDS)
    bank = network.endpoint("bank")
    tables = TableStore.of_frames("bank", {"loans": LOANS})
    PartyService(bank, tables, MemberPolicy("bank"), MemberStore(), coordinator="coordinator", lookup=lookup)
    yield network
    bank.close()


def join(cast: dict[str, list[str]], **changes: Any) -> m.Join:
    protocol = lookup("psi")
    return m.Join(
        run=secrets.token_hex(8),
        protocol="psi",
        version=protocol.version,
        role="party",
        cast=cast,
        params={},
        data=m.DataRef(table="loans", on=["sme_id"]),
        by="analyst",
        **changes,
    )


@pytest.mark.parametrize(
    ("cast", "words"),
    [
        ({"party": ["bank", "coordinator"], "coordinator": ["coordinator"]}, "cannot play two roles|holds the secret"),
        ({"coordinator": ["coordinator"], "party": ["coordinator", "bank"]}, "cannot play two roles|holds the secret"),
        ({"party": ["bank"], "coordinator": ["agency"]}, "agency is not the coordinator"),
        ({"party": ["bank", "analyst"], "coordinator": ["coordinator"]}, "no party 'analyst'"),
        ({"party": ["bank", "hub"], "coordinator": ["coordinator"]}, "no party 'hub'"),
        ({"party": ["bank", "bank"], "coordinator": ["coordinator"]}, "two roles"),
        ({"party": ["bank", "agency"]}, "needs a member as coordinator"),
        ({"party": ["bank", "agency"], "coordinator": ["coordinator"], "spy": ["agency"]}, "no role 'spy'"),
    ],
)
def test_a_party_declines_a_cast_that_would_tell_somebody_too_much(
    network: Network, cast: dict[str, list[str]], words: str
) -> None:
    coordinator = network.endpoint("coordinator")
    talk = coordinator.open("bank", "member/1")
    talk.send(join(cast))
    answer = talk.recv(m.Joined, m.Declined, timeout=WAIT)
    assert isinstance(answer, m.Declined) and re.search(words, answer.error), answer
    coordinator.close()


def test_an_honest_cast_is_joined(network: Network) -> None:
    coordinator = network.endpoint("coordinator")
    talk = coordinator.open("bank", "member/1")
    talk.send(join({"party": ["bank", "agency"], "coordinator": ["coordinator"]}))
    assert isinstance(talk.recv(m.Joined, m.Declined, timeout=WAIT), m.Joined)
    coordinator.close()


@pytest.mark.parametrize("member", ["agency", "analyst"])
def test_only_the_coordinator_invites(network: Network, member: str) -> None:
    other = network.endpoint(member)
    talk = other.open("bank", "member/1")
    talk.send(m.Describe())
    with pytest.raises(LinkError, match="takes part only in runs of its coordinator, coordinator"):
        talk.recv(m.Tables, timeout=WAIT)
    other.close()


@pytest.fixture
def coordinator(network: Network) -> Iterator[CoordinatorService]:
    endpoint = network.endpoint("coordinator")
    service = CoordinatorService(endpoint, MemberStore(), RunStore(), QuotaLedger(), lookup=lookup)
    yield service
    service.close()
    endpoint.close()


def test_a_party_starts_no_run_and_sees_none(network: Network, coordinator: CoordinatorService) -> None:
    agency = network.endpoint("agency")
    for request in (m.ListRuns(), m.StartRun(protocol="psi", cast={"party": ["bank", "agency"]})):
        talk = agency.open("coordinator", f"runs/{secrets.token_hex(4)}")
        talk.send(request)
        with pytest.raises(LinkError, match="agency is not an analyst"):
            talk.recv(m.Runs, m.RunStarted, timeout=WAIT)
    agency.close()


@pytest.mark.parametrize("name", ["../bank/identity", "x/../../y", "", "a" * 65, "a\n", "a\0b"])
def test_a_run_that_is_no_id_reaches_no_file(network: Network, name: str) -> None:
    coordinator = network.endpoint("coordinator")
    for ref in (m.DataRef(frame=name, rows=np.arange(1)), m.DataRef(part=name)):
        if not name and ref.part is not None:
            continue  # no part at all
        talk = coordinator.open("bank", f"member/{secrets.token_hex(4)}")
        cast = {"party": ["bank", "agency"], "coordinator": ["coordinator"]}
        request = join(cast)
        talk.send(m.Join(**{**{f: getattr(request, f) for f in request.__struct_fields__}, "data": ref}))
        answer = talk.recv(m.Joined, m.Declined, timeout=WAIT)
        assert isinstance(answer, m.Declined) and "is not the id of a run" in answer.error
    coordinator.close()


@pytest.mark.parametrize("rows", [np.array([[0], [1]]), np.array([True, False]), np.array([0.0, 1.0]), np.array(1)])
def test_rows_that_are_no_list_of_positions_are_refused(federation: fednb.Federation, rows: Any) -> None:
    frame = federation.align({"bank": "t", "agency": "t"}, on="id")
    data = {"bank": m.DataRef(frame=frame.id, rows=rows, label="x", part=frame.id)}
    with pytest.raises(DataError, match="bank.*by a list of positions"):
        federation.run("evaluation", cast={"active": ["bank"]}, data=data)


@pytest.mark.parametrize(
    "field",
    [
        {"phase": "x" * 10_000},
        {"waiting_for": "x" * 10_000},
        {"metrics": {f"m{k}": 1.0 for k in range(1000)}},
        {"operations": {"x" * 10_000: 1}},
        {"bytes_in": {f"m{k}": 1 for k in range(1000)}},
    ],
)
def test_an_event_that_would_fill_the_coordinators_memory_is_refused(field: dict[str, Any]) -> None:
    event = m.Event(**{"member": "bank", "role": "active", "at": 0.0, "phase": "train", **field})
    with pytest.raises(UnexpectedMessage, match="MemberEvent came malformed"):
        codec.decode(codec.encode(m.MemberEvent(event)), m.MemberEvent)


# ------------------------------------------------------------ cancelling and resuming at awkward moments


@pytest.fixture
def federation() -> Iterator[fednb.Federation]:
    tables = {party: {"t": pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0]})} for party in ("bank", "agency")}
    with fednb.simulate(tables) as federation:
        yield federation


def test_a_run_can_be_cancelled_while_a_party_still_reads_its_table(
    federation: fednb.Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    ids = TableStore.ids

    def slow(self: TableStore, name: str, on: Any = ()) -> Any:
        reading.set()
        go_on.wait(WAIT)
        return ids(self, name, on)

    monkeypatch.setattr(TableStore, "ids", slow)
    refs = {party: m.DataRef(table="t", on=["id"]) for party in ("bank", "agency")}
    run = federation.start("psi", cast={"party": ["bank", "agency"], "coordinator": ["coordinator"]}, data=refs)
    try:
        assert reading.wait(WAIT)
        federation.cancel(run)
        end = next(item for item in federation.watch(run) if isinstance(item, m.RunEnded))
        assert end.status == "cancelled" and not go_on.is_set()
    finally:
        go_on.set()
    assert len(federation.align({"bank": "t", "agency": "t"}, on="id")) == 2, "both are ready for the next run"


def test_many_may_watch_one_run_and_all_see_the_same(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "t", "agency": "t"}, on="id")
    seen: list[list[object]] = []
    watchers = [threading.Thread(target=lambda: seen.append(list(federation.watch(frame.id)))) for _ in range(8)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(WAIT)
    assert len(seen) == 8 and all(events == seen[0] for events in seen)
    assert isinstance(seen[0][-1], m.RunEnded)


def test_two_runs_at_once_do_not_mix(federation: fednb.Federation) -> None:
    frames: list[fednb.VerticalFrame] = []
    threads = [
        threading.Thread(target=lambda: frames.append(federation.align({"bank": "t", "agency": "t"}, on="id")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len({frame.id for frame in frames}) == 4 and all(len(frame) == 2 for frame in frames)


def test_of_two_that_resume_one_run_at_once_one_is_refused(tmp_path: Any) -> None:
    store = RunStore(tmp_path)
    info = m.RunInfo("r1", "psi", "t", "running", 0.0, 0.0, "analyst", {})
    record = store.begin(info)
    with pytest.raises(DataError, match="is going on"):
        record.reopen()
    record.end(m.RunEnded(run="r1", status="failed"))
    record.reopen()
    with pytest.raises(DataError, match="is going on"):
        record.reopen()
    record.end(m.RunEnded(run="r1", status="ok"))
    with pytest.raises(DataError, match="has ended well"):
        record.reopen()


def test_one_unreadable_record_does_not_stop_the_coordinator(tmp_path: Any) -> None:
    RunStore(tmp_path).begin(m.RunInfo("r1", "psi", "t", "running", 0.0, 0.0, "analyst", {}))
    (tmp_path / "r0.jsonl").write_bytes(b'{"run": 1}\n\xff\n')
    assert [info.run for info in RunStore(tmp_path).latest(10)] == ["r1"]


def test_a_runs_id_is_used_once_and_resumed_only_as_it_was(network: Network) -> None:
    coordinator = network.endpoint("coordinator")
    first = join({"party": ["bank", "agency"], "coordinator": ["coordinator"]})

    def ask(request: m.Join) -> m.Joined | m.Declined:
        talk = coordinator.open("bank", f"member/{secrets.token_hex(4)}")
        talk.send(request)
        answer = talk.recv(m.Joined, m.Declined, timeout=WAIT)
        talk.close()
        return answer

    def changed(**fields: Any) -> m.Join:
        return msgspec.structs.replace(first, **fields)

    assert isinstance(ask(first), m.Joined)
    assert isinstance(ask(changed(resume=True)), m.Joined)
    for again in (first, changed(resume=True, params={"max_ids": 7}), changed(resume=True, by="somebody")):
        refused = ask(again)
        assert isinstance(refused, m.Declined) and "Start a new one" in refused.error
    coordinator.close()


def test_an_analyst_cancels_and_resumes_its_own_runs_only(network: Network, coordinator: CoordinatorService) -> None:
    network.kinds["other"] = "analyst"
    agency = network.endpoint("agency")  # never answers an invitation: the run goes on
    mine = Federation(network.endpoint("analyst"), "coordinator")
    theirs = Federation(network.endpoint("other"), "coordinator")
    cast = {"party": ["bank", "agency"], "coordinator": ["coordinator"]}
    run = mine.start("psi", cast=cast, data={"bank": m.DataRef(table="loans", on=["sme_id"])})
    for ask in (theirs.cancel, theirs.resume):
        with pytest.raises(Refused, match=f"run {run} was begun by analyst; only analyst may"):
            ask(run)
    mine.cancel(run)
    assert [item for item in mine.watch(run) if isinstance(item, m.RunEnded)][0].status == "cancelled"
    for federation in (mine, theirs):
        federation.close()
    agency.close()


@pytest.mark.parametrize(
    ("permit", "rule"),
    [
        (PermitConfig(("loans",), ("psi",), ("agency",)), ""),
        (PermitConfig(("loans",), ("psi",), ("telco",)), "analysts.partners"),
        (PermitConfig(("other",), ("psi",), ("agency",)), "analysts.tables"),
        (PermitConfig(("loans",), ("calibrate",), ("agency",)), "analysts.protocols"),
    ],
)
def test_a_party_holds_each_analyst_to_what_its_owner_named(permit: PermitConfig, rule: str) -> None:
    network = Network(KINDS)
    bank, coordinator = network.endpoint("bank"), network.endpoint("coordinator")
    tables = TableStore.of_frames("bank", {"loans": LOANS})
    policy = MemberPolicy("bank", analysts={"analyst": permit})
    PartyService(bank, tables, policy, MemberStore(), coordinator="coordinator", lookup=lookup)
    agency = network.endpoint("agency")
    talk = coordinator.open("bank", "member/r")
    talk.send(join({"party": ["bank", "agency"], "coordinator": ["coordinator"]}))
    answer = talk.recv(m.Joined, m.Declined, timeout=WAIT)
    assert (answer.rule if isinstance(answer, m.Declined) else "") == rule
    talk.close()
    for endpoint in (bank, agency, coordinator):
        endpoint.close()
