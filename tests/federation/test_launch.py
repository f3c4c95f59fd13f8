"""A whole federation as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from fednb import cli
from fednb.errors import ConfigError, FednbError, NotConnected, PeerLost
from fednb.federation import launch, profile
from fednb.federation import messages as m
from fednb.federation.cells import CellClient, CellEvent, captured_value
from fednb.federation.client import Federation
from fednb.policy import audit
from fednb.policy.audit import AuditLog
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome

SECONDS = 60.0
FILE = """
[federation]
hub = "tcp://127.0.0.1:{port}"
[party.bank]
mode = "open"
[party.bank.tables.loans]
path = "loans.csv"
id = "{id}"
label = "default"
[party.bank.protocols]
min_ids = 1
[party.agency.tables.invoices]
path = "invoices.parquet"
id = "sme_id"
[party.agency.protocols]
min_ids = 1
"""


def write(folder: Path, port: int = 0, id: str = "sme_id") -> Path:
    (folder / "loans.csv").write_text("sme_id,income,default\n007,10,0\n08,20,1\n")
    pd.DataFrame({"sme_id": ["007", "09"], "turnover": [1.0, 2.0]}).to_parquet(folder / "invoices.parquet")
    file = folder / "federation.toml"
    file.write_text(FILE.format(port=port, id=id))
    return file


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("XDG_STATE_HOME", str(folder))
        patch.delenv("FEDNB_PROFILE", raising=False)
        yield folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, state: Path) -> Iterator[launch.Running]:
    with launch.up(write(tmp_path_factory.mktemp("federation"))) as running:
        yield running


@pytest.fixture(scope="module")
def cells(running: launch.Running) -> Iterator[CellClient]:
    with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
        client = CellClient(endpoint)
        yield client
        client.close()


def run(cells: CellClient, member: str, code: str, capture: tuple[str, ...] = ()) -> list[CellEvent]:
    cell = cells.execute([member], code, capture=capture)
    events = []
    while cell.unfinished:
        got = cell.next(SECONDS)
        assert got is not None, f"nothing came for {SECONDS} s after {events}"
        events.append(got[1])
    return events


def shown(events: list[CellEvent]) -> list[object]:
    assert not [e for e in events if isinstance(e, m.CellError)], events
    return [e.data.get("text/plain") for e in events if isinstance(e, m.Display)]


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        threading.Event().wait(0.02)
    return False


def kernels_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def test_every_member_is_a_process_of_its_own_with_its_own_folder(running: launch.Running) -> None:
    assert set(running.ready) == {"hub", "coordinator", "bank", "agency"} == set(running.members)
    assert len({process.pid for process in running.members.values()}) == 4
    assert re.fullmatch(r"tcp://127\.0\.0\.1:[1-9]\d+", running.address)
    assert running.ready["bank"].mode == "open" and running.ready["bank"].tables == ["loans"]
    assert running.ready["agency"].mode == "protocol-only"
    for name in ("hub", "coordinator", "bank", "agency", "analyst"):
        home = running.root / name
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "identity.json").stat().st_mode & 0o777 == 0o600


def test_nobody_else_may_read_what_a_member_or_its_kernel_writes(running: launch.Running, cells: CellClient) -> None:
    run(cells, "bank", "open('note.txt', 'w').write('mine')")
    for member in ("hub", "coordinator", "bank", "agency"):
        open_to_others = {path for path in (running.root / member).rglob("*") if path.lstat().st_mode & 0o077}
        assert {path.name for path in open_to_others} <= {"README"}, "which IPython copies with its mode"


def test_the_last_federation_is_found_without_a_path(running: launch.Running) -> None:
    assert profile.find() == running.home == profile.find("federation") == profile.find(running)
    assert profile.find(running.federation.path) == running.home


def test_a_partys_kernel_has_its_tables_and_nothing_of_its_keys(cells: CellClient) -> None:
    assert shown(run(cells, "bank", "fed.load('loans')['sme_id'].tolist()")) == ["['007', '08']"]
    events = run(cells, "bank", "import os; sorted(k for k in os.environ if k.startswith('FEDNB'))")
    assert shown(events) == ["['FEDNB_KIND', 'FEDNB_MEMBER', 'FEDNB_PIPE']"]
    assert "'fed'" not in str(shown(run(cells, "bank", "%who_ls")))


def test_a_saved_table_is_one_of_the_partys_tables(running: launch.Running, cells: CellClient) -> None:
    run(cells, "bank", "t = fed.load('loans'); t['more'] = t['income'] * 2; fed.save('richer', t)")
    assert shown(run(cells, "bank", "list(fed.tables()['table'])")) == ["['loans', 'richer']"]
    assert (running.root / "bank" / "tables" / "richer.parquet").stat().st_mode & 0o777 == 0o600


def test_values_come_back_with_a_cell(cells: CellClient) -> None:
    events = run(cells, "bank", "import numpy as np\nn = {'rows': 2}\na = np.arange(3.0)", capture=("n", "a"))
    got = {e.name: captured_value(e.value) for e in events if isinstance(e, m.Captured)}
    assert got["n"] == {"rows": 2} and got["a"].tolist() == [0, 1, 2]
    assert isinstance(events[-1], m.CellDone) and events[-1].status == "ok"
    events = run(cells, "bank", "x = 1", capture=("y",))
    assert [e.evalue for e in events if isinstance(e, m.CellError)] == ["-o y: the cell leaves no name 'y'"]
    assert isinstance(events[-1], m.CellDone) and events[-1].status == "error"


def test_a_protocol_only_party_refuses_cells(cells: CellClient) -> None:
    (end,) = run(cells, "agency", "1 + 1")
    assert isinstance(end, m.CellDone) and end.status == "refused" and "protocol-only" in end.reason


def test_coordinator_cells_have_the_federation_and_the_models(cells: CellClient) -> None:
    assert shown(run(cells, "coordinator", "fed.parties")) == ["('agency', 'bank')"]
    events = run(cells, "coordinator", "sorted(fed.tables()['table'])[:1], VerticalLogisticRegression.__name__")
    assert shown(events) == ["(['invoices'], 'VerticalLogisticRegression')"]


def test_a_hundred_megabytes_come_back(cells: CellClient) -> None:
    events = run(cells, "bank", "import numpy; big = numpy.ones(12_500_000)", capture=("big",))
    (captured,) = [e for e in events if isinstance(e, m.Captured)]
    assert captured_value(captured.value).nbytes == 100_000_000


def test_a_cell_that_prints_without_end_is_cut_and_stops_when_interrupted(cells: CellClient) -> None:
    cell = cells.execute(["bank"], "while True: print('x' * 1000)")
    printed, done = 0, None
    while cell.unfinished:
        got = cell.next(SECONDS)
        assert got is not None, "nothing came"
        if isinstance(got[1], m.Stream):
            printed += len(got[1].text)
            if "what follows is left out" in got[1].text:
                cell.interrupt()
        elif isinstance(got[1], m.CellDone):
            done = got[1]
    assert done is not None and done.status == "interrupted"
    assert 8 << 20 <= printed < 12 << 20
    assert shown(run(cells, "bank", "6 * 7")) == ["42"], "the kernel lives on"


def test_a_script_reaches_the_coordinator(running: launch.Running) -> None:
    with Federation(DealerEndpoint(MemberHome.load(running.home)), "coordinator") as federation:
        assert federation.doctor().set_index("member")["up"].drop("analyst").all()
        assert set(federation.tables()["party"]) == {"bank", "agency"}
        assert len(federation.runs()) == 0


def test_every_cell_ends_with_a_receipt_and_stands_in_a_log_that_verifies(
    running: launch.Running, cells: CellClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "print('<script>alert(1)</script>')"
    end = run(cells, "bank", code)[-1]
    (refused,) = run(cells, "agency", "1 + 1")
    assert isinstance(end, m.CellDone) and end.receipt is not None and end.receipt.head is not None
    assert [(c.to, c.what, c.bytes) for c in end.receipt.crossed] == [("analyst", "Stream", 26)]
    assert end.receipt.rule == "mode open" and end.receipt.status == "ok"
    assert isinstance(refused, m.CellDone) and refused.receipt is not None
    assert refused.receipt.status == "refused" and refused.receipt.crossed == []

    home = running.root / "bank"
    kept = AuditLog(tmp_path / "audit", "analyst")
    kept.witness(end.receipt.head)
    witness = ["--witness", str(tmp_path / "audit" / "witnessed.jsonl")]
    assert cli.main(["audit", "verify", str(home), *witness]) == 0
    assert "1 witnessed heads agree" in capsys.readouterr().out
    page = tmp_path / "report.html"
    assert cli.main(["audit", "export", str(home), "--output", str(page), *witness]) == 0
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.read_text() and "<script" not in page.read_text()
    assert cli.main(["audit", "export", str(home), "--format", "json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["verified"]["problems"] == [] and code in exported["texts"].values()

    entry = next(e for e in exported["entries"] if exported["texts"].get(e.get("code")) == code)
    assert cli.main(["audit", "erase", str(home), "--text", entry["code"], "--reason", "asked to"]) == 0
    assert run(cells, "bank", "1")[-1].receipt is not None, "the agent goes on after the command's entry"  # type: ignore[union-attr]
    capsys.readouterr()
    assert cli.main(["audit", "verify", str(home)]) == 0 and "1 texts erased" in capsys.readouterr().out

    log = home / "audit" / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"mode open", b"mode nope", 1))
    assert cli.main(["audit", "verify", str(home)]) == 1 and "was changed" in capsys.readouterr().err
    log.write_bytes(whole)


def test_every_run_ends_with_receipts_and_the_members_keep_each_others_heads(running: launch.Running) -> None:
    with Federation(DealerEndpoint(MemberHome.load(running.home)), "coordinator") as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        ended = list(federation.watch(frame.id))[-1]
        shown = federation.receipts()
        assert shown.equals(federation.receipts(frame.id)) and set(shown["about"]) == {frame.id}
    assert isinstance(ended, m.RunEnded)
    receipts = {receipt.member: receipt for receipt in ended.receipts}
    assert set(receipts) == {"bank", "agency", "coordinator"}
    for name, receipt in receipts.items():
        assert receipt.crossed and receipt.status == "ok" and "protocol psi" in receipt.rule
        assert all(each.bytes > 0 for each in receipt.crossed)
        home = MemberHome.load(running.root / name)
        assert receipt.head is not None
        assert home.roster[name].verifies(bytes.fromhex(receipt.head.signature), receipt.head.signed)
        heads = audit.witnessed(home.folder / "audit" / "witnessed.jsonl")
        assert {head.member for head in heads} == set(receipts) - {name}
        files = [running.root / other / "audit" / "witnessed.jsonl" for other in set(receipts) - {name}]
        held = [head for file in files for head in audit.witnessed(file)]
        found = audit.verify(home.folder / "audit", name, held)
        assert found.problems == [] and found.witnessed >= 2
    sent = next(c for c in receipts["bank"].crossed if c.what == "Points" and c.to == "agency")
    assert sent.values >= 2, "two ids, each a point"


def test_the_same_homes_serve_one_federation_at_a_time(running: launch.Running) -> None:
    with (
        pytest.raises(ConfigError, match=f"runs already \\(process {os.getpid()}\\)"),
        launch.up(running.federation.path),
    ):
        pass


def test_when_one_member_dies_it_is_named_and_all_are_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerLost, match=r"agency was ended by SIGKILL.*agency/member\.log"),
        launch.up(write(tmp_path)) as running,
    ):
        with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
            client = CellClient(endpoint)
            run(client, "coordinator", "1")
            locked = run(client, "bank", "fed.lock()")
            assert isinstance(locked[-1], m.CellDone) and locked[-1].status == "ok"
            assert [e.text for e in locked if isinstance(e, m.Stream)] == [
                "bank is protocol-only from here on: this is the last cell that it runs.\n"
            ]
            (refused,) = run(client, "bank", "1")
            assert isinstance(refused, m.CellDone) and "fed.lock()" in refused.reason
            client.close()
        pids = [process.pid for process in running.members.values()]
        pids += kernels_of(running.members["coordinator"].pid)
        assert len(pids) >= 5
        running.members["agency"].kill()
        running.wait(SECONDS)
    assert all(gone(pid) for pid in pids)
    assert not running._sockets.exists()


def test_parties_are_stopped_only_when_the_coordinator_has_ended(tmp_path: Path) -> None:
    """Else it may see them leave first, and tells that as the reason why a run failed."""
    with launch.up(write(tmp_path)) as running:
        coordinator, told = running.members["coordinator"], [running.members[name].stdin for name in ("bank", "agency")]
        coordinator.send_signal(signal.SIGSTOP)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        try:
            threading.Event().wait(0.5)
            assert not any(each is None or each.closed for each in told)
        finally:
            coordinator.send_signal(signal.SIGCONT)
        stopping.join()
        assert all(member.poll() == 0 for member in running.members.values())


def test_a_second_start_keeps_keys_and_saved_tables(tmp_path: Path) -> None:
    file = write(tmp_path)
    keys = []
    for _ in range(2):
        with launch.up(file) as running:
            keys.append((running.root / "bank" / "identity.json").read_bytes())
    assert keys[0] == keys[1]


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        expected = pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: another program uses that port")
        with expected, launch.up(write(tmp_path, port)):
            pass


def test_an_id_column_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    said = r"toml, line 8: party\.bank\.tables\.loans\.id.*no column 'sme-id'.*mean 'sme_id'"
    expected = pytest.raises(ConfigError, match=said)
    with expected, launch.up(write(tmp_path, id="sme-id")):
        pass


def test_a_file_without_a_party_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text('[federation]\nhub = "tcp://127.0.0.1:0"\n')
    with pytest.raises(ConfigError, match="at least one party"), launch.up(tmp_path / "f.toml"):
        pass


# ------------------------------------------------------------ the command


def command(file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # SIGINT ignored at the start, as a shell's background job has it
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "fednb.cli", "up", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_ready(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("All "):
            break
    return lines


def members_of(process: subprocess.Popen[str]) -> list[int]:
    return sorted(set(kernels_of(process.pid)))


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a command's sockets are; empty at the end."""
    short = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setenv("TMPDIR", str(short))
    yield short
    assert list(short.iterdir()) == [], "no socket stays behind"
    short.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_says_who_is_ready_and_stops_at_ctrl_c(
    tmp_path: Path, sockets: Path, number: signal.Signals
) -> None:
    process = command(write(tmp_path))
    lines = until_ready(process)
    assert sorted(line.split(":")[0] for line in lines[:-1]) == ["agency", "bank", "coordinator", "hub"]
    assert "bank: ready (party, open, tables: loans)\n" in lines
    assert "%fed connect" in lines[-1]
    pids = members_of(process)
    assert len(pids) == 4
    pids += [kernel for pid in pids for kernel in kernels_of(pid)]
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "") and out == "stopped\n"
    assert all(gone(pid) for pid in pids)


def test_ctrl_c_before_all_are_ready_leaves_nothing_either(tmp_path: Path, sockets: Path) -> None:
    process = command(write(tmp_path))
    assert process.stdout is not None and process.stdout.readline().startswith("hub: ready")
    pids = members_of(process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and err == "" and out.endswith("stopped\n")
    assert pids and all(gone(pid) for pid in pids)


def test_the_command_fails_when_a_member_dies(tmp_path: Path) -> None:
    process = command(write(tmp_path))
    until_ready(process)
    pids = members_of(process)
    victim = next(pid for pid in pids if "bank" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert err.startswith("fednb: bank was ended by SIGKILL") and err.count("\n") == 1
    assert all(gone(pid) for pid in pids)


CHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
print(child.pid)
"""


def test_a_killed_members_busy_kernel_is_gone_and_the_analyst_learns_at_once_who_died(tmp_path: Path) -> None:
    process = command(write(tmp_path))
    until_ready(process)
    with DealerEndpoint(MemberHome.load(tmp_path / ".fednb" / "analyst")) as endpoint:
        client = CellClient(endpoint)
        child = int("".join(event.text for _, event in client.execute(["bank"], CHILD) if isinstance(event, m.Stream)))
        cell = client.execute(["bank"], "sum(range(10**13))")  # in C, which holds the interpreter
        got = cell.next(SECONDS)
        assert got is not None and isinstance(got[1], m.CellStarted)
        victim = next(p for p in members_of(process) if "/bank" in Path(f"/proc/{p}/cmdline").read_text())
        kernels = kernels_of(victim)
        assert kernels
        os.kill(victim, signal.SIGKILL)
        while cell.unfinished:
            assert cell.next(15.0) is not None, "half of the time for which a hub that is away is waited for"
        assert "bank has died" in str(cell.lost["bank"])
        client.close()
    process.communicate(timeout=SECONDS)
    assert all(gone(pid) for pid in [child, *kernels])


def test_members_stop_when_their_launcher_is_killed(tmp_path: Path, sockets: Path) -> None:
    process = command(write(tmp_path))
    until_ready(process)
    pids = members_of(process)
    kernels = [kernel for pid in pids for kernel in kernels_of(pid)]
    process.kill()
    process.communicate(timeout=SECONDS)
    assert all(gone(pid) for pid in [*pids, *kernels])


def test_nothing_is_found_when_nothing_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(NotConnected, match="fednb up FILE.toml"):
        profile.find()
    for wrong in ("no-such-name", str(tmp_path)):
        with pytest.raises(FednbError, match="neither a federation file|not a member's home"):
            profile.find(wrong)
    file = write(tmp_path)
    with pytest.raises(NotConnected, match=f"fednb up {re.escape(str(file))}"):
        profile.find(file)
