"""A notebook on a whole federation: hub, agents and kernels as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

import fednb
from fednb import notebook
from fednb.errors import PeerLost, RemoteError
from fednb.federation import launch
from fednb.federation.launch import Running
from fednb.notebook.session import Session

SECONDS = 60.0
FEDERATION = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
mode = "open"
[party.bank]
mode = "open"
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency]
mode = "open"
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "loans.csv").write_text("sme_id,amount,default\nA1,10,0\nA2,20,1\nA3,30,0\n")
    (folder / "invoices.csv").write_text("sme_id,late\nA2,3\nA3,4\nA4,5\n")
    (folder / "federation.toml").write_text(FEDERATION)
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    try:
        with launch.up(folder / "federation.toml") as made:
            yield made
    finally:
        os.environ.pop("XDG_STATE_HOME") if before is None else os.environ.update(XDG_STATE_HOME=before)


class Analyst:
    """An IPython of an analyst, connected, that records what it shows."""

    def __init__(self, running: Running) -> None:
        self.shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        self.shell.display_pub = CapturingDisplayPublisher()
        self.shell.kernel = None  # as in a notebook: outputs can be updated
        self.session: Session = notebook.load(self.shell)
        self.session.use(fednb.connect(running))

    def party(self, line: str, cell: str) -> Any:
        return self.shell.run_cell_magic("party", line, cell)

    @property
    def outputs(self) -> list[str]:
        return [output["data"].get("text/plain", "") for output in self.shell.display_pub.outputs]

    def when(self, text: str) -> threading.Event:
        """Set as soon as an output holds this text."""
        shown = threading.Event()
        publish = self.shell.display_pub.publish

        def watch(data: dict[str, str], *args: Any, **options: Any) -> None:
            publish(data, *args, **options)
            if text in data.get("text/plain", ""):
                shown.set()

        self.shell.display_pub.publish = watch
        return shown


@pytest.fixture
def analyst(running: Running) -> Iterator[Analyst]:
    made = Analyst(running)
    yield made
    made.session.close()


def _book(*cells: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_an_ordinary_notebook_from_connect_to_a_remote_error(running: Running) -> None:
    book = _book(
        "%load_ext fednb\n%fed connect",
        "%fed tables",
        "%fed status",
        "%%party all\nlen(fed.tables())",
        "%%party bank -o loans -o total\nloans = fed.load('loans')\ntotal = int(loans['amount'].sum())",
        "assert total == 60 and list(loans.columns) == ['sme_id', 'amount', 'default']\nloans.shape",
        "%%coordinator\nprint(sorted(fed.tables()['party']))",
        "%%party bank\nloans?",
        "%%party bank,agency\nfed.load('loans')",
        "raise SystemExit('Run All went on')",
    )
    with pytest.raises(CellExecutionError, match="── agency ──"):
        NotebookClient(book, timeout=SECONDS, kernel_name="python3").execute()
    outputs = [" ".join(str(output) for output in cell.outputs) for cell in book.cells]
    assert "Connected as analyst" in outputs[0] and "agency, bank" in outputs[0]
    assert "loans" in outputs[1] and "invoices" in outputs[1]
    assert "coordinator" in outputs[2]
    assert "── agency" in outputs[3] and "── bank" in outputs[3]
    assert "(3, 3)" in outputs[5]
    assert "['agency', 'bank']" in outputs[6]
    assert "DataFrame" in outputs[7]
    assert "DataError" in outputs[8] and "invoices" in outputs[8]
    assert outputs[9] == ""


def test_a_hub_that_restarts_in_mid_cell_loses_nothing(analyst: Analyst, running: Running) -> None:
    begun = analyst.when("line 3")
    pending = analyst.party(
        "bank --noblock -o count",
        "import threading\nfor count in range(1, 41):\n"
        "    print('line', count, flush=True)\n    threading.Event().wait(0.1)",
    )
    assert begun.wait(SECONDS)
    _restart_hub(running)
    assert pending.result(SECONDS) == 40
    assert analyst.outputs[-1].splitlines()[1:] == [f"line {number}" for number in range(1, 41)]


def _restart_hub(running: Running) -> None:
    hub = running.members["hub"]
    hub.send_signal(signal.SIGKILL)
    hub.wait(10)
    if hub.stdin is not None:
        hub.stdin.close()
    running.members["hub"] = subprocess.Popen(
        [sys.executable, "-m", "fednb.cli", "hub", str(running.root / "hub"), "--bind", running.address, "--managed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def test_a_coordinators_cell_goes_on_when_its_notebook_ends(running: Running) -> None:
    first, second = Analyst(running), Analyst(running)
    try:
        begun = first.when("begun")
        cell = (
            "import threading\nended = 'early'\nprint('begun', flush=True)\nthreading.Event().wait(1)\nended = 'well'"
        )
        for magic, line in (("coordinator", "--noblock"), ("party", "bank --noblock")):
            begun.clear()
            first.shell.run_cell_magic(magic, line, cell)
            assert begun.wait(SECONDS)
        first.session.close()
        second.shell.run_cell_magic("coordinator", "-o ended", "pass")
        assert second.shell.user_ns["ended"] == "well"
        second.party("bank -o ended", "pass")
        assert second.shell.user_ns["ended"] == "early", "a party does not work on for nobody"
    finally:
        first.session.close()
        second.session.close()


def test_a_kernelspec_opens_a_notebook_on_a_party(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spec(tmp_path, "my-bank", {"party": "bank", "profile": str(running.home)})
    book = _book("here = 1\nprint(sorted(fed.load('loans')['amount']))", "fed.load('invoices')")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(CellExecutionError, match="DataError"):
        NotebookClient(book, timeout=SECONDS, kernel_name="my-bank").execute()
    assert book.cells[0].outputs[0]["text"] == "[10, 20, 30]\n"
    assert book.cells[1].outputs[-1]["ename"] == "RemoteError"


def _spec(folder: Path, name: str, config: dict[str, str]) -> None:
    folder = folder / "kernels"
    (folder / name).mkdir(parents=True)
    provisioner = {"provisioner_name": "fednb-party", "config": config}
    spec = {"argv": [], "display_name": name, "language": "python", "metadata": {"kernel_provisioner": provisioner}}
    (folder / name / "kernel.json").write_text(json.dumps(spec))


def test_a_party_killed_in_mid_cell_is_named_and_the_other_finishes(analyst: Analyst, running: Running) -> None:
    begun = analyst.when("begun at agency")

    def kill() -> None:
        if begun.wait(SECONDS):
            running.members["agency"].kill()

    threading.Thread(target=kill).start()
    analyst.party("bank,agency", "import os, threading")
    with pytest.raises(RemoteError) as caught:
        analyst.party(
            "bank,agency --timeout 50",
            "agency = 'agency' in str(fed)\nprint('begun at', 'agency' if agency else 'bank', flush=True)\n"
            "threading.Event().wait(40 if agency else 2)\nprint('finished')",
        )
    assert set(caught.value.errors) == {"agency"}
    assert caught.value.errors["agency"].ename == "PeerLost"
    assert any("finished" in shown and shown.startswith("── bank") for shown in analyst.outputs)
    with pytest.raises(PeerLost, match="agency is down"):
        analyst.party("agency", "1")
