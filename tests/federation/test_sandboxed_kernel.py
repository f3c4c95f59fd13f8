"""A party whose kernels run in a sandbox, as real processes: the same cells, and nothing else of the machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fednb.config import parse
from fednb.errors import ConfigError
from fednb.federation import kernel, launch
from fednb.federation import messages as m
from fednb.federation.agent import sandbox_of, start_party
from fednb.federation.cells import CellClient, CellEvent
from fednb.policy import sandbox
from fednb.wire import pipe
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome
from fednb.wire.loopback import Network

SECONDS = 60.0
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
mode = "open"
sandbox = "{sandbox}"
[party.bank.limits]
memory_mb = 2048
cpu_seconds = 600
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
"""


@pytest.fixture(scope="module", params=sandbox.BACKENDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[launch.Running]:
    if reason := sandbox.missing(request.param):
        pytest.skip(f"this machine cannot: {request.param}: {reason}")
    folder = tmp_path_factory.mktemp("federation")
    (folder / "loans.csv").write_text("sme_id,income,default\n007,10,0\n08,20,1\n")
    file = folder / "federation.toml"
    file.write_text(FILE.format(sandbox=request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        with launch.up(file) as running:
            yield running


@pytest.fixture(scope="module")
def cells(running: launch.Running) -> Iterator[CellClient]:
    with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
        client = CellClient(endpoint)
        yield client
        client.close()


def run(cells: CellClient, code: str) -> list[CellEvent]:
    cell = cells.execute(["bank"], code)
    events = []
    while cell.unfinished:
        got = cell.next(SECONDS)
        assert got is not None, f"nothing came for {SECONDS} s after {events}"
        events.append(got[1])
    return events


def shown(events: list[CellEvent]) -> list[object]:
    assert not [e for e in events if isinstance(e, m.CellError)], events
    return [e.data.get("text/plain") for e in events if isinstance(e, m.Display)]


def test_cells_run_and_reach_their_own_agent(cells: CellClient) -> None:
    assert shown(run(cells, "1 + 1")) == ["2"]
    assert shown(run(cells, "t = fed.load('loans'); fed.save('more', t.assign(x=1)); len(fed.tables())")) == ["2"]


def test_a_cell_sees_neither_table_nor_keys_nor_what_another_kernel_left(
    running: launch.Running, cells: CellClient
) -> None:
    bank = running.root / "bank"
    (bank / "work" / "files" / "left.txt").write_text("by another")
    for path in (bank / "identity.json", running.federation.path, running.federation.path.parent / "loans.csv"):
        assert path.exists()
        (error,) = [e for e in run(cells, f"open({str(path)!r}).read()") if isinstance(e, m.CellError)]
        assert error.ename in ("FileNotFoundError", "PermissionError")
    assert shown(run(cells, "import os; [name for name in os.listdir('.') if not name.startswith('.')]")) == ["[]"]


UNSEEN = """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
try:
    threading.Event().wait(60)
finally:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
"""  # another thread takes the signal, as when one arrives just before the wait: the host's nudges show it


@pytest.mark.parametrize("busy", ["__import__('threading').Event().wait(60)", "while True: pass", UNSEEN])
def test_an_interrupt_reaches_the_cell_and_its_names_stay(cells: CellClient, busy: str) -> None:
    cell = cells.execute(["bank"], f"kept = 5\nprint('begun', flush=True)\n{busy}")
    while not isinstance(got := cell.next(SECONDS), tuple) or not isinstance(got[1], m.Stream):
        assert got is not None
    threading.Event().wait(0.3)
    cell.interrupt()
    assert [e for _, e in cell][-1].status == "interrupted"  # type: ignore[union-attr]
    assert shown(run(cells, "kept")) == ["5"]


def test_a_cell_that_takes_too_much_memory_fails_and_the_kernel_lives(cells: CellClient) -> None:
    run(cells, "kept = 6")
    events = run(cells, "bytearray(3 << 30)")
    assert [e.ename for e in events if isinstance(e, m.CellError)] == ["MemoryError"]
    assert shown(run(cells, "kept")) == ["6"]


def test_a_cell_that_computes_too_long_ends_with_the_reason(cells: CellClient) -> None:
    assert shown(run(cells, "import resource as r; r.getrlimit(r.RLIMIT_CPU)")) == ["(600, 601)"]
    soon = "import time; r.setrlimit(r.RLIMIT_CPU, (int(time.process_time()) + 1, 600))"
    end = run(cells, f"{soon}\nwhile True: pass")[-1]
    assert isinstance(end, m.CellDone) and end.status == "died" and "processor time" in end.reason
    assert shown(run(cells, "2 + 2")) == ["4"]


def test_a_killed_kernel_is_told_by_its_signal(cells: CellClient) -> None:
    end = run(cells, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")[-1]
    assert isinstance(end, m.CellDone) and end.status == "died" and "SIGKILL" in end.reason


def test_a_killed_agent_takes_its_sandboxed_kernel_along(running: launch.Running, cells: CellClient) -> None:
    """The last test of each federation: its party is gone afterwards."""
    cell = cells.execute(["bank"], "print('begun', flush=True)\nwhile True: pass")
    while not isinstance(got := cell.next(SECONDS), tuple) or not isinstance(got[1], m.Stream):
        assert got is not None
    agent = psutil.Process(running.members["bank"].pid)
    below = agent.children(recursive=True)
    assert [each for each in below if "ipykernel_launcher" in " ".join(each.cmdline())]
    os.kill(agent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while alive := [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, [each.cmdline() for each in alive]
        threading.Event().wait(0.05)


def test_a_pipe_waits_as_long_as_a_kernel_may_take_to_start() -> None:
    """In a sandbox its connection is made first, and it says who it is when it has imported all it needs."""
    assert pipe.HELLO_SECONDS > kernel.START_SECONDS


def party(tmp_path: Path, more: str, hub: str = "tcp://127.0.0.1:0") -> str:
    return f'[federation]\nhub = "{hub}"\n[party.bank]\n{more}'


def test_only_open_mode_may_do_without_a_sandbox(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"

    def wish(more: str) -> str:
        return parse(party(tmp_path, more), file).parties["bank"].sandbox

    assert wish('mode = "open"') == "none"
    assert wish('mode = "open"\nsandbox = "auto"') == "auto"
    assert wish("") == "auto"
    for more, said in {
        'sandbox = "none"': "line 4: party.bank.sandbox: a kernel without a sandbox can read whatever its agent can",
        'sandbox = "docker"': "'docker' is no sandbox",
        "[party.bank.limits]\nmemory_mb = 1": "party.bank.limits.memory_mb: must be from 512",
        "[party.bank.limits]\nmemory = 1": "Did you mean 'memory_mb'",
    }.items():
        with pytest.raises(ConfigError, match=said):
            parse(party(tmp_path, more), file)


def test_every_party_with_kernels_next_to_data_has_one_unless_it_is_open(tmp_path: Path) -> None:
    if not any(not sandbox.missing(backend) for backend in sandbox.BACKENDS):
        pytest.skip("no sandbox works here")

    def made(more: str) -> sandbox.Sandbox | None:
        return sandbox_of(parse(party(tmp_path, more), tmp_path / "f.toml").parties["bank"], tmp_path / "home")

    assert made('mode = "guarded"') is not None and made("approval = true") is not None
    assert made('mode = "open"') is None and made('mode = "protocol-only"') is None
    tight = made('mode = "guarded"\n[party.bank.limits]\nmemory_mb = 1000\ncpu_seconds = 20\nfile_mb = 3')
    assert tight is not None
    limits = tight.limits
    assert (limits.memory, limits.cpu, limits.file) == (1000 << 20, 20, 3 << 20)
    assert tmp_path / "home" in tight.private


def test_a_party_whose_kernels_cannot_be_confined_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "missing", lambda backend: "it is not installed; install it")
    settings = parse(party(tmp_path, 'mode = "open"\nsandbox = "auto"'), tmp_path / "f.toml").parties["bank"]
    endpoint = Network({"bank": "party"}).endpoint("bank")
    with pytest.raises(ConfigError, match="no kernel is started next to data.*install it"):
        start_party(
            endpoint,
            settings,
            tmp_path / "home",
            coordinator="coordinator",
            run_folder=tmp_path / "run",
            pipe=lambda path: endpoint,
        )
    endpoint.close()
