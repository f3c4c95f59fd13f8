"""Completion and inspection: remote names in remote cells, members and options on the magic's own line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter

from fednb.federation import messages as m
from fednb.notebook.attached import attach
from fednb.notebook.completion import Completer, install
from fednb.notebook.magics import COMMANDS


def complete(world: Any, text: str, cursor: int | None = None) -> dict[str, Any]:
    """What the kernel's handler answers to a complete_request."""
    return asyncio.run(world.shell.kernel.do_complete(text, len(text) if cursor is None else cursor))


def matches(world: Any, text: str) -> list[str]:
    return complete(world, text)["matches"]  # type: ignore[no-any-return]


def test_names_come_from_the_remote_kernel_at_the_right_place(world: Any) -> None:
    text = "%%party agency\nx = 'ä€'\nlo"
    got = complete(world, text)
    assert got["matches"] == ["agency_loans"]
    assert text[got["cursor_start"] : got["cursor_end"]] == "lo"
    asked = world.agents["agency"].requests[-1]
    assert (asked.code, asked.cursor) == ("x = 'ä€'\nlo", 11)  # code points, counted in the cell's body


def test_the_first_of_several_parties_is_asked(world: Any) -> None:
    assert matches(world, "%%party bank,agency --noblock\nlo") == ["bank_loans"]
    assert matches(world, "%%coordinator\nlo") == ["coordinator_loans"]
    assert matches(world, "%%party all\nlo") == ["agency_loans"]


def test_a_cell_of_ones_own_is_left_to_ipython(world: Any) -> None:
    assert matches(world, "lo") == ["local"]
    assert matches(world, "x = '%%party bank'\nlo") == ["local"]
    got = asyncio.run(world.shell.kernel.do_inspect("lo", 2))
    assert got["data"] == {"text/plain": "local"}


def test_asynchronous_handlers_are_awaited(world: Any) -> None:
    async def local(*args: Any) -> dict[str, Any]:
        return {"matches": ["awaited"], "found": True}

    world.shell.kernel.do_complete = world.shell.kernel.do_inspect = local
    install(world.shell, Completer(world.session))
    assert matches(world, "lo") == ["awaited"]
    assert asyncio.run(world.shell.kernel.do_inspect("lo", 2))["found"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%%party ", ["agency", "bank", "all"]),
        ("%%party ba", ["bank"]),
        ("%%party bank,", ["agency"]),
        ("%%party bank,a", ["agency"]),
        ("%%party bank --", ["--noblock", "--timeout", "--dry-run", "--ask"]),
        ("%%party bank --noblock --t", ["--timeout"]),
        ("%%party bank --timeout ", []),
        ("%%coordinator --", ["--noblock", "--timeout", "--ask"]),
        ("%%coordinator ", []),
        ("%fed ", list(COMMANDS)),
        ("x = 1\n%fed st", ["status"]),
        ("%fed restart a", ["agency"]),
        ("%%party nobody\nlo", []),
        ("%%party\nlo", []),
    ],
)
def test_the_line_completes_members_options_and_commands(world: Any, line: str, expected: list[str]) -> None:
    assert matches(world, line) == expected


def test_completing_in_the_line_while_the_cell_has_a_body(world: Any) -> None:
    got = complete(world, "%%party ba\nloans", cursor=10)
    assert got["matches"] == ["bank"]
    assert (got["cursor_start"], got["cursor_end"]) == (8, 10)


def test_without_a_connection_there_is_nothing_and_no_error(world: Any) -> None:
    world.session.close()
    assert matches(world, "%%party bank\nlo") == []
    assert matches(world, "%%party ") == []


def test_an_answer_that_does_not_fit_the_cell_is_dropped(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for start, end in ((-3, 2), (1, 99), (2, 1)):
        answer = m.Completions("q", ["evil"], start, end)
        monkeypatch.setattr(world.session.cells, "complete", lambda *args, answer=answer, **options: answer)
        assert matches(world, "%%party bank\nlo") == []


def test_inspection_is_labelled_and_says_when_nothing_is_known(world: Any) -> None:
    got = asyncio.run(world.shell.kernel.do_inspect("%%party bank\nloans", 18, 0, ()))
    assert got["found"] is True
    assert got["data"]["text/plain"] == "[bank]\n\x1b[31mType:\x1b[0m loans@5"
    world.agents["bank"].endpoint.close()
    got = asyncio.run(world.shell.kernel.do_inspect("%%party bank\nloans", 18, 0, ()))
    assert got == {"status": "ok", "found": False, "data": {}, "metadata": {}}


def test_in_a_terminal_remote_names_replace_local_ones(terminal: Any) -> None:
    completer = terminal.shell.Completer
    completer.use_jedi = False
    text = "%%party bank\nlo"
    with provisionalcompleter():
        assert [completion.text for completion in completer.completions(text, len(text))] == ["bank_loans"]
        assert "locals" in [completion.text for completion in completer.completions("lo", 2)]


def test_an_attached_notebook_completes_without_a_magic(world: Any) -> None:
    attach(world.session, "bank")
    got = complete(world, "lo")
    assert (got["matches"], got["cursor_start"], got["cursor_end"]) == (["bank_loans"], 0, 2)
    assert asyncio.run(world.shell.kernel.do_inspect("loans", 5))["data"]["text/plain"].endswith("loans@5")
    assert matches(world, "%fed st") == ["status"]
    assert matches(world, "%%party agency\nlo") == ["agency_loans"]


def test_an_attached_notebook_sends_all_but_its_own_magics(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    attach(world.session, "bank")
    assert world.shell.run_cell("stream(me)").success
    assert world.shell.run_cell("%%party agency\nstream(me)").success
    assert world.shell.run_cell("   \n").success
    assert capsys.readouterr().out == "bankagency"
    assert [type(request).__name__ for request in world.agents["bank"].requests] == ["Execute"]


def test_a_notebook_attached_to_nothing_says_how_to_attach_it(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    attach(world.session, "")
    assert not world.shell.run_cell("1 + 1").success
    shown = capsys.readouterr().out
    assert "FEDNB_PARTY set to one of agency, bank, coordinator" in shown
    assert "magics.py" not in shown
