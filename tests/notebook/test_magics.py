"""`%%party`, `%%coordinator` and `%fed` against scripted members: options, output, failures, interrupts."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pandas as pd
import pytest
from IPython.core.error import UsageError

from fednb.errors import DataError, LinkError, LinkTimeout, NotConnected, PeerLost, Refused, RemoteError
from fednb.federation import client
from fednb.federation import messages as m
from fednb.federation.arrow import to_arrow
from fednb.federation.cells import CellRun
from fednb.federation.client import RunsFigure
from fednb.federation.receipts import table
from fednb.federation.views import ComparisonView, Estimate, EvaluationView
from fednb.notebook import cell as cells
from fednb.notebook.cell import PendingCell

WAIT = 20.0
MAIN = threading.main_thread().ident or 0


def rendered(error: Any) -> str:
    return "\n".join(error._render_traceback_())


def test_streams_of_one_party_come_out_as_ones_own(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.party("bank", "stream('hello\\n'); stream('careful\\n', 'stderr')") is None
    out = capsys.readouterr()
    assert (out.out, out.err) == ("hello\n", "careful\n")


def test_the_coordinator_has_a_magic_of_its_own(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.shell.run_cell_magic("coordinator", "", "stream(me)")
    assert capsys.readouterr().out == "coordinator"
    world.party("coordinator", "stream('again')")
    assert capsys.readouterr().out == "again"
    with pytest.raises(UsageError, match="takes no name"):
        world.shell.run_cell_magic("coordinator", "bank", "1")


def test_local_variables_are_not_put_into_the_line_or_the_cell(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.shell.user_ns["secret"] = "bank"
    with pytest.raises(LinkError, match=r"no party '\{secret\}'"):
        world.party("{secret}", "1")
    with pytest.raises(LinkError, match=r"no party '\$secret'"):
        world.party("$secret", "1")
    world.party("bank", "stream('{secret} $secret')")
    assert capsys.readouterr().out == "{secret} $secret"


def test_an_unknown_party_is_answered_with_the_known_ones(world: Any) -> None:
    with pytest.raises(LinkError, match=r"no party 'bnak'.*agency, bank") as caught:
        world.party("bank,bnak", "1")
    assert rendered(caught.value) == f"\x1b[31mLinkError\x1b[0m: {caught.value}"
    assert world.agents["bank"].requests == []


def test_a_party_that_is_down_is_named_and_nothing_starts(world: Any) -> None:
    world.agents["agency"].endpoint.close()
    with pytest.raises(PeerLost, match=r"agency is down.*%fed status"):
        world.party("all", "1")
    assert world.agents["bank"].requests == []


def test_without_a_connection_the_error_says_how_to_get_one(world: Any) -> None:
    world.session.close()
    for magic in (lambda: world.party("bank", "1"), lambda: world.shell.run_line_magic("fed", "status")):
        with pytest.raises(NotConnected, match="%fed connect"):
            magic()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "needs the name of a party"),
        ("bank --timeout soon", "invalid"),
        ("bank --timeout -1", "timeout"),
        ("bank -o a.b", "not the name of a variable"),
        ("bank --frobnicate", "--frobnicate"),
        ('bank --ask "why', "No closing quotation"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(world: Any, line: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        world.party(line, "1")


def test_a_remote_error_shows_its_own_type_and_line_and_no_local_frame(world: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        world.party("bank", "x = 1\nraise KeyError('region')")
    shown = rendered(caught.value)
    assert "── bank ──" in shown
    assert "KeyError" in shown and 'Cell In[7]", line 2' in shown
    assert "magics.py" not in shown and "cells.py" not in shown
    assert caught.value.errors["bank"].ename == "KeyError"


def test_one_party_fails_and_the_other_finishes_first_then_one_error(world: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        world.party("bank,agency", "stream(f'{me} began\\n')\nif me == 'bank': 1 / 0\nstream(f'{me} finished\\n')")
    assert set(caught.value.errors) == {"bank"}
    assert "agency finished" in world.area("agency")["text/plain"]
    assert "(0.2 s)" in world.area("agency")["text/plain"]
    assert world.area("bank")["text/plain"].endswith("bank began\nZeroDivisionError: division by zero")
    assert "(ZeroDivisionError)" in world.area("bank")["text/plain"]


def test_errors_of_several_parties_come_as_one(world: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        world.party("all", "raise ValueError(me)")
    assert str(caught.value) == "agency: ValueError: agency; bank: ValueError: bank"
    shown = rendered(caught.value)
    assert shown.index("── agency") < shown.index("── bank")


def test_a_refusal_names_who_and_why(world: Any) -> None:
    with pytest.raises(Refused, match=r"bank refused the cell: protocol-only") as caught:
        world.party("bank", "end('refused', 'protocol-only: no cells run here')")
    assert caught.value.member == "bank"
    assert rendered(caught.value).startswith("\x1b[31mRefused")


def test_a_kernel_that_dies_is_told_from_a_member_that_is_lost(world: Any) -> None:
    with pytest.raises(RemoteError, match="bank: KernelDied: out of memory"):
        world.party("bank", "end('died', 'out of memory')")
    with pytest.raises(PeerLost, match="the agent was stopped"):
        world.party("bank", "leave()")


def test_a_lost_party_does_not_hang_the_others(world: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        world.party("bank,agency", "leave() if me == 'bank' else stream('agency is done')")
    assert set(caught.value.errors) == {"bank"}
    assert "agency is done" in world.area("agency")["text/plain"]


def test_output_of_several_parties_is_grouped_by_party_however_it_interleaves(world: Any) -> None:
    world.party("bank,agency", "for i in range(3): stream(f'{me} {i}\\n')")
    screen = world.screen()
    assert len(screen) == 2
    assert world.area("bank")["text/plain"] == "── bank (0.2 s) ──\nbank 0\nbank 1\nbank 2"
    assert world.area("agency")["text/plain"] == "── agency (0.2 s) ──\nagency 0\nagency 1\nagency 2"
    assert "bank 2" in world.area("bank")["text/html"]


def test_areas_show_output_while_the_cell_still_runs(world: Any) -> None:
    agent = world.agents["bank"]
    threading.Thread(target=lambda: _release_when(world, agent, "early news"), daemon=True).start()
    world.party("bank,agency", "if me == 'bank':\n stream('early news\\n')\n gate()")
    assert "(0.2 s)" in world.area("bank")["text/plain"]


def _release_when(world: Any, agent: Any, text: str) -> None:
    assert agent.reached.wait(WAIT)
    seen = threading.Event()
    plain = world.shell.display_pub.publish

    def publish(data: Any, *args: Any, **options: Any) -> None:
        plain(data, *args, **options)
        if text in data.get("text/plain", "") and "(running)" in data["text/plain"]:
            seen.set()

    if not any(text in output["data"]["text/plain"] for output in world.published):
        world.shell.display_pub.publish = publish
        assert seen.wait(WAIT)
    agent.go.set()


def test_in_a_terminal_each_party_is_printed_once_when_it_is_done(terminal: Any) -> None:
    terminal.party("bank,agency", "stream(f'{me}!\\n')")
    shown = [output["data"]["text/plain"] for output in terminal.published]
    assert sorted(shown) == ["── agency (0.2 s) ──\nagency!", "── bank (0.2 s) ──\nbank!"]
    assert not any(output.get("update") for output in terminal.published)


def test_o_brings_a_value_back_or_one_for_each_party(world: Any) -> None:
    world.party("bank -o rows", "capture('rows', 7)")
    assert world.shell.user_ns["rows"] == 7
    world.party("bank,agency -o rows -o name", "capture('rows', len(me)); capture('name', me)")
    assert world.shell.user_ns["rows"] == {"bank": 4, "agency": 6}
    assert world.shell.user_ns["name"] == {"bank": "bank", "agency": "agency"}
    world.party("bank -o a -o b", "capture('a', 1); capture('b', 2)")
    assert (world.shell.user_ns["a"], world.shell.user_ns["b"]) == (1, 2)


def test_o_of_a_name_that_the_cell_did_not_make_says_so(world: Any) -> None:
    with pytest.raises(DataError, match="bank sent no value of 'rows'"):
        world.party("bank -o rows", "pass")


def test_ask_is_sent_with_its_reason_and_a_cell_that_waits_is_no_error(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    world.party('bank --ask "to count rows"', "stream('ran')")
    assert capsys.readouterr().out.endswith("ran")
    asked = world.agents["bank"].requests[-1]
    assert isinstance(asked, m.Ask) and asked.reason == "to count rows"
    world.party('bank --ask "to count rows"', "end('waiting', 'request 1 waits')")
    assert "request 1 waits" in capsys.readouterr().err


def test_ask_takes_nothing_that_would_leave_unseen(world: Any) -> None:
    for more in ("-o x", "--noblock"):
        with pytest.raises(UsageError, match="neither -o nor --noblock"):
            world.party(f'bank --ask "why" {more}', "pass")
    assert world.agents["bank"].requests == []


def test_fed_mock_brings_invented_rows(world: Any) -> None:
    world.agents["bank"].mock = m.Mock("", to_arrow(pd.DataFrame({"x": [1, 2]}), "it"))
    assert list(world.shell.run_line_magic("fed", "mock bank.loans")["x"]) == [1, 2]
    world.agents["bank"].mock = m.Mock("", error="there is no table 'loan\x1b[31ms'.")
    with pytest.raises(DataError, match=r"bank: there is no table 'loan\[31ms'"):
        world.shell.run_line_magic("fed", "mock bank.loans")
    with pytest.raises(UsageError, match="a party and its table"):
        world.shell.run_line_magic("fed", "mock bank")


@pytest.mark.parametrize("option", ["--noblock", "-o x"])
def test_a_dry_run_is_for_looking_at_only(world: Any, option: str) -> None:
    with pytest.raises(UsageError, match="neither -o nor --noblock"):
        world.party(f"bank --dry-run {option}", "pass")
    with pytest.raises(UsageError, match="no invented rows"):
        world.shell.run_cell_magic("coordinator", "--dry-run", "pass")


def test_fed_asked_lists_every_partys_requests_and_makes_their_words_harmless(world: Any) -> None:
    state = m.AskState("abc", "denied", "too \x1b[31mmuch", "to count", 1.8e9, 0.0, 0, "len(fed.load('loans'))")
    world.agents["agency"].asks.append(state)
    (row,) = world.shell.run_line_magic("fed", "asked").to_dict("records")
    assert (row["party"], row["request"], row["state"], row["why"]) == ("agency", "abc", "denied", "too [31mmuch")


def test_noblock_gives_a_future_whose_output_stays_in_its_area(world: Any) -> None:
    pending = world.party("bank --noblock -o x", "stream('begun\\n'); gate(); capture('x', 5); stream('ended\\n')")
    assert isinstance(pending, PendingCell)
    assert world.agents["bank"].reached.wait(WAIT)
    assert not pending.done()
    assert "bank: running" in repr(pending)
    with pytest.raises(LinkTimeout, match="still runs at bank"):
        pending.result(timeout=0.01)
    world.agents["bank"].go.set()
    assert pending.result(WAIT) == 5
    assert pending.done() and repr(pending) == "<cell at bank: done>"
    assert world.shell.user_ns["x"] == 5
    assert world.area("bank")["text/plain"] == "── bank (0.2 s) ──\nbegun\nended"
    assert pending.cancel() is False


def test_noblock_shows_a_failure_in_its_area_and_raises_it_in_result(world: Any) -> None:
    pending = world.party("bank --noblock", "1 / 0")
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        pending.result(WAIT)
    assert 'Cell In[7]", line 1' in world.area("bank")["text/plain"]
    assert repr(pending) == "<cell at bank: failed, bank: ZeroDivisionError>"


def test_a_cell_in_the_background_can_be_cancelled(world: Any) -> None:
    pending = world.party("bank,agency --noblock", "hang()")
    assert world.agents["agency"].reached.wait(WAIT)
    assert pending.cancel() is True
    with pytest.raises(RemoteError) as caught:
        pending.result(WAIT)
    assert {failure.ename for failure in caught.value.errors.values()} == {"KeyboardInterrupt"}


def test_timeout_interrupts_the_cell_and_names_who_was_late(world: Any) -> None:
    with pytest.raises(LinkTimeout, match=r"within 0.05 s at bank, and was interrupted there\. Allow") as caught:
        world.party("bank,agency --timeout 0.05", "hang() if me == 'bank' else stream('quick')")
    assert caught.value.member == "bank"
    assert "quick" in world.area("agency")["text/plain"]


def test_a_cell_that_swallows_the_interrupt_of_its_timeout_is_late_all_the_same(world: Any) -> None:
    with pytest.raises(LinkTimeout, match="at bank"):
        world.party("bank --timeout 0.05", "try: hang()\nexcept KeyboardInterrupt: pass")


def test_a_timeout_does_not_hide_another_failure(world: Any) -> None:
    with pytest.raises(RemoteError) as caught:
        world.party("bank,agency --timeout 0.2", "hang() if me == 'bank' else 1 / 0")
    assert caught.value.errors["agency"].ename == "ZeroDivisionError"
    assert set(caught.value.errors) == {"bank", "agency"}


def _interrupt_when(*events: threading.Event) -> None:
    def send() -> None:
        for event in events:
            assert event.wait(WAIT)
            signal.pthread_kill(MAIN, signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


def test_an_interrupt_that_comes_while_a_cell_is_sent_reaches_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = world.session.cells.execute

    def sent(*arguments: Any, **options: Any) -> CellRun:
        run: CellRun = execute(*arguments, **options)
        assert world.agents["bank"].reached.wait(WAIT)
        signal.raise_signal(signal.SIGINT)
        return run

    monkeypatch.setattr(world.session.cells, "execute", sent)
    with pytest.raises(RemoteError) as caught:
        world.party("bank", "hang()")
    assert caught.value.errors["bank"].ename == "KeyboardInterrupt"


def test_an_interrupt_reaches_every_party(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    both = _Both(world.agents["bank"].reached, world.agents["agency"].reached)
    _interrupt_when(both)  # type: ignore[arg-type]
    with pytest.raises(RemoteError) as caught:
        world.party("bank,agency", "hang()")
    assert {failure.ename for failure in caught.value.errors.values()} == {"KeyboardInterrupt"}
    assert set(caught.value.errors) == {"bank", "agency"}
    assert "Interrupting the cell at bank, agency" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class _Both:
    def __init__(self, *events: threading.Event) -> None:
        self.events = events

    def wait(self, timeout: float) -> bool:
        return all(event.wait(timeout) for event in self.events)


def test_a_second_interrupt_kills_the_kernel(world: Any) -> None:
    agent = world.agents["bank"]
    first = _Interrupted(agent)
    _interrupt_when(agent.reached, first)  # type: ignore[arg-type]
    with pytest.raises(RemoteError, match="bank: KernelDied: killed"):
        world.party("bank", "defy()")


class _Interrupted:
    """Waits until the agent has got the interrupt of its one cell."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def wait(self, timeout: float) -> bool:
        return next(iter(self.agent.interrupts.values())).wait(timeout)  # type: ignore[no-any-return]


def test_what_does_not_obey_within_the_grace_time_is_killed(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells.RemoteCell.__init__, "__kwdefaults__", {"capture": (), "timeout": None, "grace": 0.3})
    _interrupt_when(world.agents["bank"].reached)
    with pytest.raises(RemoteError, match="KernelDied"):
        world.party("bank", "defy()")


def test_an_agent_that_confirms_nothing_is_given_up(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells.RemoteCell.__init__, "__kwdefaults__", {"capture": (), "timeout": None, "grace": 0.3})
    monkeypatch.setattr(cells, "KILL_SECONDS", 0.3)
    agent = world.agents["bank"]
    _interrupt_when(agent.reached)
    with pytest.raises(LinkTimeout, match="bank confirmed neither interrupt nor kill"):
        world.party("bank", "gate()")
    agent.go.set()


def test_fed_alone_explains_itself(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.shell.run_line_magic("fed", "")
    out = capsys.readouterr().out
    for command in ("connect", "status", "tables", "runs", "receipt", "cost"):
        assert f"%fed {command}" in out


def test_fed_status_lists_every_member_although_one_is_down_and_the_coordinator_hangs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STATUS_SECONDS", 0.2)  # the scripted coordinator answers no question
    world.agents["agency"].endpoint.close()
    status = world.shell.run_line_magic("fed", "status").set_index("member")
    assert bool(status.loc["bank", "up"]) and not bool(status.loc["agency", "up"])
    assert status.loc["coordinator", "inside"] == "not known: it does not answer"


def test_fed_doctor_is_what_the_command_of_that_name_shows(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = object()
    monkeypatch.setattr(world.session.federation, "doctor", lambda: table)
    assert world.shell.run_line_magic("fed", "doctor") is table


def test_fed_cost_shows_estimates_beside_what_fits_took(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table = object()
    monkeypatch.setattr(world.session.federation, "costs", lambda: table)
    assert world.shell.run_line_magic("fed", "cost") is table


def test_fed_runs_lists_runs_and_sets_fits_beside_each_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(world.session.federation, "runs", lambda: asked.append("all"))

    def compare(runs: list[str]) -> pd.DataFrame:
        asked.append(runs)
        return pd.DataFrame({"run": runs})

    def figure(runs: list[str]) -> RunsFigure:
        shown = EvaluationView(auc=Estimate(value=0.7), ks=Estimate(value=0.3))
        return RunsFigure(ComparisonView(results=dict.fromkeys(runs, shown)))

    monkeypatch.setattr(world.session.federation, "compare_runs", compare)
    monkeypatch.setattr(world.session.federation, "runs_figure", figure)
    for line in ("runs", "runs compare", "runs r1, r2"):
        world.shell.run_line_magic("fed", line)
    assert asked == ["all", [], ["r1", "r2"]]
    assert [set(output["data"]) for output in world.published] == [
        {"image/png", "text/plain"},
        {"text/html", "text/plain"},
    ], "one figure, and its figures as a table; none of no runs"


def test_fed_receipt_shows_the_last_cells_receipt_and_then_the_newest_runs(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_run = m.Receipt("agency", "r1", "ok", "protocol psi", [m.Crossing("bank", "Points", 1, 9, 288)])
    monkeypatch.setattr(world.session.federation, "receipts", lambda run="": table([of_run]))
    assert world.shell.run_line_magic("fed", "receipt")["about"].tolist() == ["r1"]
    assert world.shell.run_line_magic("fed", "receipt r1")["values"].tolist() == [9]
    world.session.last = CellRun("c1", ["bank"])
    mine = m.Receipt("agency", "c1", "ok", "mode \x1b[2J", [m.Crossing("analyst", "Stream", 1, 0, 26)])
    world.session.last.done["bank"] = m.CellDone("c1", "ok", receipt=mine)
    shown = world.shell.run_line_magic("fed", "receipt")
    assert shown["about"].tolist() == ["c1", "r1"]
    assert shown["member"].tolist() == ["bank", "agency"], "a member speaks for itself only"
    assert shown["rule"][0] == "mode [2J", "and moves no cursor"


def test_fed_restart_gives_fresh_kernels(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    world.shell.run_line_magic("fed", "restart bank,agency")
    assert capsys.readouterr().out == "bank has a fresh kernel.\nagency has a fresh kernel.\n"
    with pytest.raises(UsageError, match="needs the name of a member"):
        world.shell.run_line_magic("fed", "restart")
    with pytest.raises(LinkError, match="no party 'nobody'"):
        world.shell.run_line_magic("fed", "restart nobody")


def test_fed_refuses_what_it_does_not_know(world: Any) -> None:
    with pytest.raises(
        UsageError,
        match="no command 'statsu'; it has connect, status, doctor, tables, runs, receipt, cost, asked, mock",
    ):
        world.shell.run_line_magic("fed", "statsu")
    with pytest.raises(UsageError, match="takes nothing more"):
        world.shell.run_line_magic("fed", "status now")


def test_loading_twice_changes_nothing(world: Any) -> None:
    from fednb import notebook

    assert notebook.load(world.shell) is world.session


def test_the_help_of_a_magic_names_every_option(world: Any) -> None:
    text = world.shell.find_cell_magic("party").__doc__
    for option in ("--noblock", "--timeout", "-o", "--ask"):
        assert option in text
