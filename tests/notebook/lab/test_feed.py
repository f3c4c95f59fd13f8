"""What the page is told of a federation: members, tables, runs, and how they go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import pandas as pd
import pytest

import fednb
from fednb.notebook.lab import messages as lab
from fednb.notebook.lab.feed import Feed

T = TypeVar("T", bound=lab.Told)
WAIT = 20.0


class Listener:
    """A feed over a simulated federation, and what it tells."""

    def __init__(self, federation: Any) -> None:
        self.heard: queue.SimpleQueue[lab.Told] = queue.SimpleQueue()
        self.session = SimpleNamespace(
            current=federation, attached=None, connector=None, log=SimpleNamespace(busy=False), looks=lambda: LOOKS
        )
        self.feed = Feed(self.session, self.heard.put)  # type: ignore[arg-type]

    def until(self, kind: type[T], condition: Callable[[T], bool] = lambda news: True) -> T:
        """The next news of this kind that meets the condition."""
        while True:
            news = self.heard.get(timeout=WAIT)
            if isinstance(news, kind) and condition(news):
                return news


LOOKS = {"coordinator": SimpleNamespace(mark="o", fill="#000")}


@pytest.fixture
def listener(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, gated: Any) -> Iterator[Listener]:
    monkeypatch.setenv(gated.GATE, str(tmp_path))
    ids = [f"S{k:03d}" for k in range(60)]
    loans = pd.DataFrame({"sme_id": ids, "amount": range(60)})
    invoices = pd.DataFrame({"sme_id": ids[20:], "turnover": range(40)})
    tables = {"bank": {"loans": loans}, "agency": {"invoices": invoices}}
    with fednb.simulate(tables, protocols=[gated.GATED]) as federation:
        made = Listener(federation)
        made.feed.start()
        yield made
        made.feed.close()
        for step in range(1, 11):
            (tmp_path / str(step)).touch()


def test_members_and_tables_are_told_with_names_types_and_roles(listener: Listener) -> None:
    news = listener.until(lab.FederationNews, lambda news: any(member.mode for member in news.members))
    assert news.connected and news.parties == ["agency", "bank"] and news.coordinator == "coordinator"
    assert {m.name: (m.kind, m.up, m.mode) for m in news.members}["bank"] == ("party", True, "simulation")
    listener.feed.repeat()
    tables = {table.name: table for table in listener.until(lab.TablesNews).tables}
    assert [(c.name, c.dtype) for c in tables["loans"].columns] == [("sme_id", "text"), ("amount", "int")]
    assert tables["invoices"].member == "agency" and tables["invoices"].rows == 40


def test_an_alignment_is_told_with_its_overlap(listener: Listener) -> None:
    federation = listener.session.current
    frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
    listener.feed.again()
    (run,) = listener.until(lab.RunsNews, lambda news: bool(news.runs)).runs
    assert run.run == frame.id and run.mine and run.status == "ok"
    assert run.overlap == lab.Overlap(matched=40, ids={"bank": 60, "agency": 40}, duplicates={"bank": 0, "agency": 0})


def test_a_run_is_told_step_by_step_and_its_receipts_at_the_end(listener: Listener, tmp_path: Any) -> None:
    federation = listener.session.current
    run = federation.start("gated", cast={"member": ["bank", "agency"]}, title="In steps")
    listener.feed.again()
    listener.until(lab.RunNews, lambda news: "work 1 of 10" in news.progress["figures"])
    listener.feed.follow(run)  # somebody looks who missed that, and nothing new happens
    news = listener.until(lab.RunNews)
    assert "work 1 of 10" in news.progress["figures"] and not news.over
    for step in range(1, 11):
        (tmp_path / str(step)).touch()
    ends: dict[type, Any] = {}  # of the run and of the list of runs, whichever is told first

    def over(news: lab.Told) -> bool:
        if isinstance(news, lab.RunNews) and news.over:
            ends[lab.RunNews] = news
        elif isinstance(news, lab.RunsNews) and news.runs[0].status == "ok":
            ends[lab.RunsNews] = news
        return len(ends) == 2

    listener.until(lab.Told, over)
    ended, done = ends[lab.RunNews], ends[lab.RunsNews]
    assert ended.progress["state"] == "ok" and {line.member for line in ended.receipts} == {"bank", "agency"}
    assert done.runs[0].title == "In steps"


def test_who_went_is_told_while_an_answer_is_waited_for(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    listener.until(lab.FederationNews, lambda news: any(member.mode for member in news.members))
    federation, asked, answer = listener.session.current, threading.Event(), threading.Event()

    def unanswered(limit: int) -> list[Any]:
        asked.set()
        answer.wait(WAIT)
        return []

    monkeypatch.setattr(federation, "list_runs", unanswered)
    listener.feed.again()
    assert asked.wait(WAIT)
    gone = {name: msgspec.structs.replace(seen, up=False) for name, seen in federation.members().items()}
    monkeypatch.setattr(federation, "members", lambda: gone)
    listener.feed._noticed(federation)  # as the endpoint's own watch does
    news = listener.until(lab.FederationNews)
    assert not any(member.up for member in news.members) and "does not answer" in news.advice
    assert not answer.is_set()
    answer.set()


def test_nothing_is_told_twice_unless_a_page_asks(listener: Listener) -> None:
    listener.until(lab.FederationNews)
    listener.until(lab.RunsNews)
    rounds = threading.Event()
    original = listener.feed._round

    def counted() -> None:
        original()
        rounds.set()

    listener.feed._round = counted  # type: ignore[method-assign]
    listener.feed.again()
    assert rounds.wait(WAIT)
    while not listener.heard.empty():
        assert not isinstance(listener.heard.get(), lab.RunsNews)
    listener.feed.repeat()
    listener.until(lab.RunsNews)


def test_a_notebook_that_is_not_connected_is_told_what_to_do(listener: Listener) -> None:
    listener.until(lab.FederationNews)
    listener.session.current = None
    listener.feed.again()
    news = listener.until(lab.FederationNews, lambda news: not news.connected)
    assert "%fed connect" in news.advice
    listener.session.connector = lambda: None
    listener.feed.again()
    assert "first cell" in listener.until(lab.FederationNews).advice
