"""Real kernels behind a host, over loopback conversations."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednb.errors import PeerLost
from fednb.federation import kernel as kernel_module
from fednb.federation import messages as m
from fednb.federation.cells import CellClient, CellEvent
from fednb.federation.kernel_host import KernelHost
from fednb.policy.mode import MemberPolicy
from fednb.wire.loopback import LoopbackEndpoint, Network

SECONDS = 60.0


class Bench:
    """A host at "bank" and an analyst's cell client."""

    def __init__(self, folder: Path, mode: str = "open") -> None:
        self.network = Network({"bank": "party", "agency": "party", "analyst": "analyst", "other": "analyst"})
        self.bank = self.network.endpoint("bank")
        self.analyst = self.network.endpoint("analyst")
        self.policy = MemberPolicy("bank", mode)
        self.run_folder = Path(tempfile.mkdtemp(prefix="fednb-"))
        self.host = KernelHost(self.bank, self.policy, run_folder=self.run_folder, work_folder=folder)
        self.cells = CellClient(self.analyst)

    def run(self, code: str, *, cells: CellClient | None = None, capture: tuple[str, ...] = ()) -> list[CellEvent]:
        run = (cells or self.cells).execute(["bank"], code, capture=capture)
        events = []
        while run.unfinished:
            got = run.next(SECONDS)
            assert got is not None, f"nothing came for {SECONDS} s after {events}"
            events.append(got[1])
        return events

    def close(self) -> None:
        self.cells.close()
        self.host.close()
        for endpoint in (self.analyst, self.bank):
            endpoint.close()
        assert [path.name for path in self.run_folder.iterdir()] == [], "no socket stays behind"
        self.run_folder.rmdir()


def done(events: list[CellEvent]) -> m.CellDone:
    assert isinstance(events[0], m.CellStarted) and isinstance(events[-1], m.CellDone), events
    return events[-1]


def text(events: list[CellEvent], name: str = "stdout") -> str:
    return "".join(e.text for e in events if isinstance(e, m.Stream) and e.name == name)


def shown(events: list[CellEvent]) -> list[object]:
    return [e.data.get("text/plain") for e in events if isinstance(e, m.Display)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("work"))
    yield bench
    bench.close()


def gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that nobody has waited for yet has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        threading.Event().wait(0.02)
    return False


def wait_for_text(run: object, word: str) -> None:
    seen = ""
    while word not in seen:
        got = run.next(SECONDS)  # type: ignore[attr-defined]
        assert got is not None
        if isinstance(got[1], m.Stream):
            seen += got[1].text


def test_a_cell_gives_its_value_and_its_prints_in_order(bench: Bench) -> None:
    events = bench.run("print('hello')\nimport sys; print('oops', file=sys.stderr)\n40 + 2")
    assert text(events) == "hello\n" and text(events, "stderr") == "oops\n"
    assert shown(events) == ["42"]
    end = done(events)
    assert end.status == "ok" and end.count is not None and end.seconds > 0


def test_names_live_from_cell_to_cell(bench: Bench) -> None:
    bench.run("x = 5")
    assert shown(bench.run("x + 1")) == ["6"]


def test_an_error_carries_its_type_and_the_analysts_own_line(bench: Bench) -> None:
    events = bench.run("a = 1\nint('no number')")
    (error,) = [e for e in events if isinstance(e, m.CellError)]
    assert error.ename == "ValueError" and "no number" in error.evalue
    plain = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback))
    assert "----> 2 int('no number')" in plain
    assert done(events).status == "error"


def test_cells_run_in_the_order_in_which_they_came(bench: Bench) -> None:
    bench.run("seen = []")
    runs = [bench.cells.execute(["bank"], f"seen.append({n})") for n in range(5)]
    for run in runs:
        list(run)
    assert shown(bench.run("seen")) == ["[0, 1, 2, 3, 4]"]


def test_prints_arrive_while_the_cell_still_runs(bench: Bench) -> None:
    run = bench.cells.execute(["bank"], "import threading\nprint('begun', flush=True)\nthreading.Event().wait(30)")
    wait_for_text(run, "begun")
    run.interrupt()
    events = [event for _, event in run]
    assert isinstance(events[-1], m.CellDone) and events[-1].status == "interrupted"
    assert any(isinstance(e, m.CellError) and e.ename == "KeyboardInterrupt" for e in events)
    assert shown(bench.run("seen[-1]")) == ["4"], "the kernel and its names are still there"


def test_an_interrupt_that_python_could_not_see_in_time_is_seen(bench: Bench) -> None:
    # another thread takes the signal, so that the main thread's wait goes on: what happens by chance, about once in
    # four thousand interrupts, when one arrives just before the wait
    run = bench.cells.execute(
        ["bank"],
        """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
try:
    print('begun', flush=True)
    threading.Event().wait(30)
except KeyboardInterrupt:
    __import__('time').sleep(1)
    cleared_up = True
    raise
finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
""",
    )
    wait_for_text(run, "begun")
    threading.Event().wait(0.3)
    run.interrupt()
    assert [e for _, e in run][-1].status == "interrupted"  # type: ignore[union-attr]
    assert shown(bench.run("cleared_up")) == ["True"], "no second interrupt struck the cell's clearing up"


def test_an_interrupt_reaches_what_a_cell_started(bench: Bench) -> None:
    run = bench.cells.execute(
        ["bank"], "import subprocess\nprint('begun', flush=True)\nsubprocess.run(['sleep', '60'])"
    )
    wait_for_text(run, "begun")
    began = time.monotonic()
    run.interrupt()
    assert [e for _, e in run][-1].status == "interrupted"  # type: ignore[union-attr]
    assert time.monotonic() - began < 10


def test_a_waiting_cell_can_be_taken_back(bench: Bench) -> None:
    first = bench.cells.execute(["bank"], "print('begun', flush=True)\n__import__('threading').Event().wait(30)")
    wait_for_text(first, "begun")
    second = bench.cells.execute(["bank"], "took_place = True")
    second.interrupt()
    assert [e for _, e in second][-1].status == "interrupted"  # type: ignore[union-attr]
    first.interrupt()
    list(first)
    assert shown(bench.run("'took_place' in globals()")) == ["False"]


def test_a_cell_that_prints_without_end_is_cut_and_can_be_interrupted(bench: Bench) -> None:
    run = bench.cells.execute(["bank"], "while True: print('x' * 1000)")
    printed, noted = 0, False
    while not noted:
        got = run.next(SECONDS)
        assert got is not None
        if isinstance(got[1], m.Stream):
            printed += len(got[1].text)
            noted = "left out" in got[1].text
    run.interrupt()
    for _, event in run:
        if isinstance(event, m.Stream):
            printed += len(event.text)
    assert run.done["bank"].status == "interrupted"
    assert 8 << 20 <= printed < 10 << 20
    assert shown(bench.run("1 + 1")) == ["2"]


def test_displays_without_end_are_cut_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fednb.federation.outbox.DISPLAYS", 20)
    monkeypatch.setattr("fednb.federation.outbox.DISPLAYS_PER_SECOND", 0)
    events = bench.run("for i in range(200): display(i)")
    assert shown(events) == [str(i) for i in range(20)]
    assert "displayed more than 20 things" in text(events, "stderr") and done(events).status == "ok"


def test_a_cell_that_kills_its_kernel_ends_and_the_next_one_runs(bench: Bench) -> None:
    bench.run("precious = 1")
    end = done(bench.run("print('last words', flush=True)\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"))
    assert end.status == "died" and "SIGKILL" in end.reason and "variables are gone" in end.reason
    assert shown(bench.run("'precious' in globals()")) == ["False"]


@pytest.mark.parametrize("goodbye", ["exit()", "quit", "print('bye')\nexit()"])
def test_a_cell_that_says_exit_is_the_one_that_ends_with_the_kernel(bench: Bench, goodbye: str) -> None:
    bench.run("precious = 1")
    end = done(bench.run(goodbye))
    assert end.status == "died" and "exit()" in end.reason and "variables are gone" in end.reason
    for _ in range(3):  # none of the innocent cells that follow hears of it
        events = bench.run("'precious' in globals()")
        assert shown(events) == ["False"] and done(events).status == "ok" and not text(events, "stderr")


@pytest.mark.parametrize("module", ["tqdm.auto", "tqdm.notebook", "tqdm.autonotebook"])
def test_progress_bars_of_a_notebook_move(bench: Bench, module: str) -> None:
    bench.run("from fednb.federation import text_progress; text_progress.install()")
    events = bench.run(f"from {module} import tqdm\nfor _ in tqdm(range(4), mininterval=0): pass")
    assert done(events).status == "ok" and not shown(events), "no widget, which would stand still"
    for step in ("0/4", "2/4", "4/4"):
        assert step in text(events, "stderr")


def test_a_kernel_that_left_between_cells_is_told_to_the_next_cell(bench: Bench) -> None:
    bench.run("import threading, os; threading.Timer(0.2, os._exit, [3]).start()")
    pid = bench.host._seats["analyst"].kernel.pid
    deadline = time.monotonic() + SECONDS
    while bench.host._seats["analyst"].kernel.pid == pid and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    events = bench.run("1 + 1")
    assert shown(events) == ["2"] and "exited with code 3" in text(events, "stderr")


def test_a_cell_that_ignores_interrupts_is_killed_when_asked(bench: Bench) -> None:
    code = "import signal, threading\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\n"
    run = bench.cells.execute(["bank"], code + "threading.Event().wait(60)")
    wait_for_text(run, "deaf")
    run.interrupt()
    run.interrupt(kill=True)
    end = [e for _, e in run][-1]
    assert isinstance(end, m.CellDone) and end.status == "died" and "killed, as asked" in end.reason
    assert shown(bench.run("2 + 2")) == ["4"]


def test_a_cell_that_ignores_interrupts_is_killed_after_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "KILL_SECONDS", 0.5)
    code = "import signal, threading\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\n"
    run = bench.cells.execute(["bank"], code + "threading.Event().wait(60)")
    wait_for_text(run, "deaf")
    run.interrupt()
    end = [e for _, e in run][-1]
    assert isinstance(end, m.CellDone) and end.status == "died" and "did not stop within 0.5 s" in end.reason


def test_only_known_mime_types_leave_and_nothing_else_of_jupyter(bench: Bench) -> None:
    events = bench.run(
        """
from IPython.display import publish_display_data
from comm import create_comm
publish_display_data(
    {"text/html": "<b>x</b>", "application/javascript": "alert(1)", "application/vnd.jupyter.widget-view+json": {},
     "application/vnd.fednb.view+json": {"view": "model"}, "text/plain": 5, "image/png": "aGk="},
    {"image/png": {"width": 3, "onload": "x"}, "application/javascript": {"a": 1}, "isolated": True},
)
create_comm(target_name="evil", data={"secret": 1}).send({"secret": 2})
get_ipython().payload_manager.write_payload({"source": "set_next_input", "text": "evil", "replace": True})
"""
    )
    (display,) = [e for e in events if isinstance(e, m.Display)]
    assert display.data == {
        "text/html": "<b>x</b>",
        "application/vnd.fednb.view+json": {"view": "model"},
        "image/png": "aGk=",
    }
    assert display.metadata == {"image/png": {"width": 3}}
    assert {type(e).__name__ for e in events} <= {"CellStarted", "Stream", "Display", "CellDone"}


def test_a_display_can_be_updated_and_cleared(bench: Bench) -> None:
    events = bench.run(
        "from IPython.display import clear_output\n"
        "h = display('a', display_id=True)\nh.update('b')\nclear_output(wait=True)"
    )
    first, second = [e for e in events if isinstance(e, m.Display)]
    assert first.display_id == second.display_id is not None
    assert (first.update, second.update) == (False, True)
    assert [e.wait for e in events if isinstance(e, m.ClearOutput)] == [True]


def test_input_is_refused_rather_than_waited_for(bench: Bench) -> None:
    events = bench.run("input('password?')")
    assert [e.ename for e in events if isinstance(e, m.CellError)] == ["StdinNotImplementedError"]


def test_the_agents_environment_does_not_reach_the_kernel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    bench.cells.restart("bank")
    events = bench.run("import os; 'PGPASSWORD' in os.environ, os.getcwd().endswith('files')")
    assert shown(events) == ["(False, True)"]


def test_completion_and_inspection_come_from_the_remote_names(bench: Bench) -> None:
    bench.run("def remote_function(a, b):\n    'Adds.'\n    return a + b")
    found = bench.cells.complete("bank", "x = remote_fu", 13, timeout=SECONDS)
    assert found is not None and found.matches == ["remote_function"] and (found.start, found.end) == (4, 13)
    told = bench.cells.inspect("bank", "remote_function", 15, timeout=SECONDS)
    assert told is not None and told.found and "Adds." in told.data["text/plain"] and list(told.data) == ["text/plain"]
    nothing = bench.cells.inspect("bank", "no_such_name", 12, timeout=SECONDS)
    assert nothing is not None and not nothing.found


def test_completion_does_not_wait_for_a_running_cell(bench: Bench) -> None:
    second = bench.network.endpoint("analyst#2")
    cells = CellClient(second)
    run = bench.cells.execute(["bank"], "print('begun', flush=True)\n__import__('threading').Event().wait(30)")
    wait_for_text(run, "begun")
    began = time.monotonic()
    found = cells.complete("bank", "pri", 3, timeout=SECONDS)
    assert found is not None and found.matches == [] and time.monotonic() - began < 2
    run.interrupt()
    list(run)
    cells.close()
    second.close()


def test_two_notebooks_of_one_analyst_share_a_kernel_and_another_analyst_does_not(bench: Bench) -> None:
    bench.run("shared = 'yes'")
    ends: list[LoopbackEndpoint] = [bench.network.endpoint(name) for name in ("analyst#9", "other")]
    same, other = (CellClient(end) for end in ends)
    assert shown(bench.run("shared", cells=same)) == ["'yes'"]
    assert shown(bench.run("'shared' in globals()", cells=other)) == ["False"]
    for client in (same, other):
        client.close()
    for end in ends:
        end.close()


def test_a_cell_whose_notebook_went_away_is_interrupted(bench: Bench) -> None:
    end = bench.network.endpoint("analyst#3")
    cells = CellClient(end)
    run = cells.execute(["bank"], "print('begun', flush=True)\n__import__('threading').Event().wait(60)\nleft = 1")
    wait_for_text(run, "begun")
    waiting = cells.execute(["bank"], "left = 2")
    end.close()
    assert shown(bench.run("'left' in globals()")) == ["False"]
    assert waiting.cell != run.cell


def test_a_restart_gives_fresh_names(bench: Bench) -> None:
    bench.run("old = 1")
    bench.cells.restart("bank")
    assert shown(bench.run("'old' in globals()")) == ["False"]


def test_only_analysts_are_served(bench: Bench) -> None:
    agency = bench.network.endpoint("agency")
    talk = agency.open("bank", "cells")
    with pytest.raises(PeerLost, match="cells of analysts only"):
        talk.recv(m.CellDone, timeout=10)
    agency.close()


def test_a_lock_lets_the_running_cell_end_and_refuses_the_next(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.host.prewarm()
    run = bench.cells.execute(["bank"], "print('begun', flush=True)\n__import__('time').sleep(0.5)\nprint('end')")
    wait_for_text(run, "begun")
    pid = bench.host._seats["analyst"].kernel.pid
    bench.policy.lock()
    bench.host.lock()
    events = [e for _, e in run]
    assert events[-1].status == "ok" and "end" in text(events)  # type: ignore[union-attr]
    (end,) = bench.run("1 + 1")
    assert isinstance(end, m.CellDone) and end.status == "refused" and "fed.lock()" in end.reason
    assert gone(pid)
    bench.close()


def test_a_closed_member_refuses_cells_and_says_what_is_allowed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mode="protocol-only")
    bench.host.prewarm()
    (end,) = bench.run("1 + 1")
    assert isinstance(end, m.CellDone) and end.status == "refused"
    assert "protocol-only" in end.reason and "fed.align" in end.reason
    found = bench.cells.complete("bank", "a", 1, timeout=SECONDS)
    assert found is not None and found.matches == []
    assert bench.host._seats == {} and bench.host._spare is None, "not even a process"
    bench.close()


def test_a_kernel_that_cannot_start_says_why_and_the_host_lives(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.host._extensions = ("--no-such-option",)
    bench.host._env = {"PYTHONPATH": "", "PYTHONHOME": "/nowhere"}
    events = bench.run("1 + 1")
    end = events[-1]
    assert isinstance(end, m.CellDone) and end.status == "died" and "cannot start a kernel" in end.reason
    bench.host._extensions, bench.host._env = (), {}
    bench.cells.restart("bank", timeout=SECONDS)
    assert shown(bench.run("1 + 1")) == ["2"]
    bench.close()


def test_a_kernels_forged_messages_do_not_stop_its_cells(bench: Bench) -> None:
    events = bench.run(
        """
k = get_ipython().kernel
for kind, content in [("stream", {"text": None, "name": {}}), ("display_data", {"data": [1], "transient": 5}),
                      ("error", {"traceback": 5}), ("execute_reply", {}), ("status", {})]:
    k.session.send(k.iopub_socket, kind, content, parent=k.get_parent())
k.session.send(k.iopub_socket, "display_data", {"data": {"text/plain": "x"}, "transient": 5}, parent=k.get_parent())
"""
    )
    assert done(events).status in ("ok", "error")
    assert shown(bench.run("1 + 1")) == ["2"]


def test_closing_takes_the_kernels_and_their_children_along(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    events = bench.run("import subprocess, os\np = subprocess.Popen(['sleep', '300'])\nprint(os.getpid(), p.pid)")
    pids = [int(word) for word in text(events).split()]
    bench.close()
    assert all(gone(pid) for pid in pids)
