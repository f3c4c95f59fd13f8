"""Which cell runs where, as the page is told."""

from __future__ import annotations

from typing import Any

import pytest

from fednb.errors import RemoteError
from fednb.federation import messages as m
from fednb.notebook.lab import log
from fednb.notebook.lab.log import CellLog, crossings
from fednb.notebook.lab.messages import CellNews


@pytest.fixture
def told(world: Any) -> list[CellNews]:
    """What is told about cells; the shell says that the cell "c1" is running."""
    world.shell.get_parent = lambda: {"metadata": {"cellId": "c1"}, "header": {"msg_id": "m1"}}
    news: list[CellNews] = []
    world.session.log.changed = news.append
    return news


def states(news: CellNews) -> dict[str, str]:
    return {place.member: place.state for place in news.places}


def test_a_cell_waits_runs_and_is_done_at_each_member(world: Any, told: list[CellNews]) -> None:
    world.party("bank,agency", "pass")
    assert {news.cell for news in told} == {"c1"}
    assert states(told[0]) == {"bank": "waiting", "agency": "waiting"}
    assert "running" in {state for news in told for state in states(news).values()}
    assert states(told[-1]) == {"bank": "ok", "agency": "ok"}
    assert [place.seconds for place in told[-1].places] == [0.25, 0.25]
    assert not world.session.log.busy


def test_a_refusal_says_why_and_an_error_shows_its_type_only(world: Any, told: list[CellNews]) -> None:
    with pytest.raises(RemoteError):
        world.party("bank,agency", "if me == 'bank': end('refused', 'mode')\nelse: raise ValueError('4711 owes 12')")
    bank, agency = sorted(told[-1].places, key=lambda place: place.member, reverse=True)
    assert (bank.state, bank.reason) == ("refused", "Refused: mode")
    assert (agency.state, agency.reason) == ("error", "ValueError")


def test_a_cell_that_waits_for_an_owner_is_pending_and_holds_nobody_up(world: Any, told: list[CellNews]) -> None:
    world.party("bank", "end('waiting', 'request 1 waits for its owner')")
    assert states(told[-1]) == {"bank": "pending"}
    assert not world.session.log.busy and world.session.log.stop() == 0


def test_interrupting_all_reaches_a_cell_in_the_background(world: Any, told: list[CellNews]) -> None:
    pending = world.party("bank --noblock", "hang()")
    assert world.agents["bank"].reached.wait(20)
    assert world.session.log.busy
    assert world.session.log.stop() == 1
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        pending.result(20)
    assert states(told[-1]) == {"bank": "interrupted"}
    assert world.session.log.stop() == 0


def test_a_page_that_comes_later_gets_every_cell_and_the_oldest_are_forgotten(
    world: Any, told: list[CellNews], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_CELLS", 2)
    for name in ("c1", "c2", "c3", "c2"):
        world.shell.get_parent = lambda name=name: {"metadata": {"cellId": name}}
        world.party("bank", "pass")
    assert [news.cell for news in world.session.log.news()] == ["c3", "c2"]


def test_a_cell_of_a_console_has_no_id_and_is_not_told(world: Any, told: list[CellNews]) -> None:
    world.shell.get_parent = lambda: {"metadata": {}}
    world.party("bank", "pass")
    assert told == [] and world.session.log.news() == []


def test_a_cell_without_a_magic_is_known_by_the_run_that_it_began(world: Any, told: list[CellNews]) -> None:
    record: CellLog = world.session.log
    record.began("r1")
    record.began("r2")
    assert (told[-1].cell, told[-1].runs, told[-1].places) == ("c1", ["r1", "r2"], [])
    world.shell.get_parent = lambda: {"metadata": {"cellId": "c1"}, "header": {"msg_id": "m2"}}
    world.party("bank", "pass")  # the same cell, with a magic now
    assert told[-1].runs == []
    record.began("r3")
    assert (told[-1].runs, states(told[-1])) == (["r3"], {"bank": "ok"})


def test_receipts_name_the_member_that_sent_them_and_not_who_they_say() -> None:
    receipt = m.Receipt("coordinator", "c1", "ok", "mode open", [m.Crossing("analyst", "Stream\x1b[2J", 2, 2, 40)])
    (line,) = crossings([receipt], "bank")
    assert (line.member, line.to, line.what, line.bytes) == ("bank", "analyst", "Stream[2J", 40)
    (nothing,) = crossings([m.Receipt("bank", "c2", "refused", "mode")])
    assert (nothing.member, nothing.what, nothing.to) == ("bank", "nothing", "")
