"""Runs from request to result over loopback: who is asked, how failures are told, what is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError, PeerLost, Refused, RunCancelled, RunFailed
from fednb.federation.messages import DataRef, RunEnded, RunEvent
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link
from fednb.wire.message import Message


class Number(Message):
    value: float


class SumParams(Params):
    rounds: int = 3
    fail: str = ""  # the member that raises
    secret: str = ""


def adder(link: Link, data: Dataset, params: SumParams, run: RunContext) -> Outcome:
    for step in range(params.rounds):
        run.progress("add", step + 1, params.rounds, value=float(step))
        if params.fail == link.me:
            raise DataError(f"{link.me} has no number.")
        if params.secret == link.me:
            raise RuntimeError("row 7 is 98765.43")
        link.send(link.cast["coordinator"][0], Number(step + 1.0))
    total = link.recv(link.cast["coordinator"][0], Number)
    return Outcome(private={"total": total.value}, public={"rounds": params.rounds})


def totaller(link: Link, data: Dataset, params: SumParams, run: RunContext) -> Outcome:
    total = sum(link.recv(party, Number).value for party in link.cast["adder"] for _ in range(params.rounds))
    for party in link.cast["adder"]:
        link.send(party, Number(total))
    return Outcome(public={"total": total})


def waiter(link: Link, data: Dataset, params: SumParams, run: RunContext) -> Outcome:
    link.recv(link.cast["coordinator"][0], Number)
    return Outcome()


def silent(link: Link, data: Dataset, params: SumParams, run: RunContext) -> Outcome:
    run.progress("sleep", 0)
    while not threading.Event().wait(0.01):
        run.check()
    return Outcome()


SUM = Protocol("sum", 1, SumParams, {"adder": Role(adder, many=True), "coordinator": Role(totaller)}, {})
WAIT = Protocol("wait", 1, SumParams, {"adder": Role(waiter, many=True), "coordinator": Role(silent)}, {})
CAST = {"adder": ["agency", "bank"], "coordinator": ["coordinator"]}


@pytest.fixture
def federation() -> Iterator[fednb.Federation]:
    tables = {
        "bank": {"loans": pd.DataFrame({"sme_id": ["a", "b", "c"], "amount": [1.0, 2.0, 3.0]})},
        "agency": {"invoices": pd.DataFrame({"sme_id": ["b", "c", "d"], "turnover": [5.0, 6.0, 7.0]})},
    }
    with fednb.simulate(tables, protocols=[SUM, WAIT]) as federation:
        yield federation


def test_every_member_plays_its_role_and_public_results_come_back(federation: fednb.Federation) -> None:
    result = federation.run("sum", cast=CAST)
    assert result.public("coordinator") == {"total": 12.0}
    assert result.public("bank") == {"rounds": 3}
    assert result.bytes > 0


def test_events_of_a_run_can_be_read_after_it_ended(federation: fednb.Federation) -> None:
    result = federation.run("sum", cast=CAST)
    *events, end = federation.watch(result.run)
    assert isinstance(end, RunEnded) and end.status == "ok"
    steps = {(e.event.member, e.event.step) for e in events if isinstance(e, RunEvent) and e.event.phase == "add"}
    assert {("bank", 3), ("agency", 3)} <= steps
    assert [e.seq for e in events if isinstance(e, RunEvent)] == list(range(len(events)))


def test_a_watcher_can_continue_where_it_stopped(federation: fednb.Federation) -> None:
    result = federation.run("sum", cast=CAST)
    everything = list(federation.watch(result.run))
    assert list(federation.watch(result.run, since=len(everything) - 2)) == everything[-2:]


def test_the_member_that_failed_first_is_named_with_its_own_words(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="agency has no number"):
        federation.run("sum", cast=CAST, params={"fail": "agency"})
    assert federation.runs().iloc[0]["status"] == "failed"


def test_a_foreign_exception_is_told_by_its_type_only(federation: fednb.Federation) -> None:
    with pytest.raises(RunFailed) as caught:
        federation.run("sum", cast=CAST, params={"secret": "bank"})
    assert "RuntimeError" in str(caught.value) and "bank" in str(caught.value)
    assert "98765" not in str(caught.value)
    assert "98765" not in str(list(federation.watch(federation.runs().iloc[0]["run"])))


def test_cancel_reaches_roles_that_work_and_roles_that_wait(federation: fednb.Federation) -> None:
    run = federation.start("wait", cast=CAST)
    watched = federation.watch(run)
    next(watched)  # it has begun
    federation.cancel(run)
    end = [item for item in watched if isinstance(item, RunEnded)]
    assert end[0].status == "cancelled"
    with pytest.raises(RunCancelled):
        _raise(federation, run)


def _raise(federation: fednb.Federation, run: str) -> None:
    """Follow a run that ended, as `Federation.run` does."""
    end = [item for item in federation.watch(run) if isinstance(item, RunEnded)][0]
    if end.status == "cancelled":
        raise RunCancelled(end.error)


def _party(federation: fednb.Federation, name: str) -> Any:
    """The service of a simulated party."""
    gone: Any = federation._on_close.__closure__
    endpoints = next(c.cell_contents for c in gone if isinstance(c.cell_contents, list))
    endpoint = next(e for e in endpoints if e.me == name)
    return endpoint.board._listeners["member/"].__self__


def test_runs_lists_newest_first(federation: fednb.Federation) -> None:
    first = federation.run("sum", cast=CAST, title="one").run
    second = federation.run("sum", cast=CAST, title="two").run
    assert list(federation.runs()["run"][:2]) == [second, first]
    assert list(federation.runs()["title"][:2]) == ["two", "one"]


@pytest.mark.parametrize(
    ("cast", "message"),
    [
        ({"adder": ["bank", "nobody"], "coordinator": ["coordinator"]}, "no party 'nobody'.*agency, bank"),
        ({"adder": ["bank", "bank"], "coordinator": ["coordinator"]}, "two roles"),
        ({"adder": ["bank"]}, "needs a member as coordinator"),
        ({"adder": ["bank"], "judge": ["agency"], "coordinator": ["coordinator"]}, "no role 'judge'"),
    ],
)
def test_a_wrong_cast_is_refused_before_anything_begins(
    federation: fednb.Federation, cast: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        federation.run("sum", cast=cast)
    assert len(federation.runs()) == 0


def test_the_coordinator_cannot_play_a_party(federation: fednb.Federation) -> None:
    with pytest.raises(Refused, match="secret key"):
        federation.run("sum", cast={"adder": ["coordinator"], "coordinator": ["coordinator"]})


def test_unknown_parameters_are_refused(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="does not take these parameters.*sounds"):
        federation.run("sum", cast=CAST, params={"sounds": 4})


def test_tables_are_described_without_values(federation: fednb.Federation) -> None:
    tables = federation.tables()
    assert set(zip(tables["party"], tables["table"], tables["rows"], strict=True)) == {
        ("bank", "loans", 3),
        ("agency", "invoices", 3),
    }


def test_a_party_that_is_down_is_named(federation: fednb.Federation) -> None:
    gone: Any = federation._on_close.__closure__  # the simulation's own endpoints
    endpoints = next(c.cell_contents for c in gone if isinstance(c.cell_contents, list))
    next(e for e in endpoints if e.me == "agency").close()
    with pytest.raises(PeerLost, match="agency is down"):
        federation.run("sum", cast=CAST)


def test_align_orders_rows_by_id_and_knows_names_only(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    assert frame.shape == (2, 2)
    assert frame.columns == {"bank": ("amount",), "agency": ("turnover",)}
    assert "5.0" not in repr(frame) and "6.0" not in str(frame._repr_mimebundle_())


def test_split_takes_the_positions_of_train_test_split(federation: fednb.Federation) -> None:
    from sklearn.model_selection import train_test_split

    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    frame._aligned_rows = 50
    train, test = frame.split(test_size=0.3, random_state=7)
    expected = train_test_split(np.arange(50), test_size=0.3, random_state=7)
    assert np.array_equal(train.refs()["bank"].rows, expected[0])
    assert np.array_equal(test.refs()["agency"].rows, expected[1])
    inner, _ = train.split(test_size=0.5, random_state=1)
    again = train_test_split(np.arange(len(train)), test_size=0.5, random_state=1)[0]
    assert np.array_equal(inner.refs()["bank"].rows, expected[0][again])


@pytest.mark.parametrize(
    ("tables", "on", "message"),
    [
        ({"bank": "loans"}, "sme_id", "two parties"),
        ({"bank": "loans", "agency": "bills"}, "sme_id", "no table 'bills'; it holds invoices"),
        ({"bank": "loans", "shop": "bills"}, "sme_id", "no party 'shop'"),
        ({"bank": "loans", "agency": "invoices"}, "id", "no id column 'id'"),
        ({"bank": "loans", "agency": "invoices"}, {"bank": "sme_id"}, "names no id column for agency"),
    ],
)
def test_a_wrong_alignment_is_explained(
    federation: fednb.Federation, tables: dict[str, str], on: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        federation.align(tables, on=on)


def test_a_changed_table_must_be_aligned_again(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    store = _party(federation, "bank")._tables
    store.save("loans", store.read("loans").iloc[::-1], ["sme_id"], None)
    with pytest.raises(DataError, match="'loans' of bank has changed since it was aligned"):
        federation.run("sum", cast=CAST, data={"bank": frame.refs()["bank"]})


def test_a_row_repeated_is_refused(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    twice = DataRef(frame=frame.id, rows=np.array([0, 0], dtype=np.int64))
    with pytest.raises(Refused, match="bank was asked for the same row more than once"):
        federation.run("sum", cast=CAST, data={"bank": twice})
    beyond = DataRef(frame=frame.id, rows=np.array([0, 99], dtype=np.int64))
    with pytest.raises(DataError, match="outside the aligned frame of 2 rows"):
        federation.run("sum", cast=CAST, data={"bank": beyond})


def test_a_member_holds_no_part_of_a_run_it_was_not_in(federation: fednb.Federation) -> None:
    with pytest.raises(DataError, match="bank: this member holds no part of run"):
        federation.run("score_summary", cast={"active": ["bank"]}, data={"bank": DataRef(part="0" * 16)})
