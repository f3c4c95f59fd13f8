"""Members as single processes, as an organisation runs its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednb.federation.process import PATH_LIMIT, PATH_SPARE, short_folder
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome, enrol_all

FILE = """
[federation]
hub = "tcp://{host}:7000"
[party.bank]
mode = "{mode}"
[party.bank.tables.loans]
path = "loans.csv"
id = "id"
"""


class Command:
    def __init__(self, *arguments: object) -> None:
        words = [sys.executable, "-m", "fednb.cli", *map(str, arguments)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def first_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """(exit code, standard error)"""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@pytest.fixture
def homes(tmp_path: Path) -> dict[str, MemberHome]:
    (tmp_path / "loans.csv").write_text("id,x\n1,2\n")
    write(tmp_path)
    return enrol_all(
        tmp_path / "homes", {"hub": "hub", "coordinator": "coordinator", "bank": "party", "analyst": "analyst"}
    )


@pytest.fixture
def hub(homes: dict[str, MemberHome]) -> Iterator[str]:
    """Its address."""
    command = Command("hub", homes["hub"].folder, "--bind", "tcp://127.0.0.1:0")
    said = command.first_line()
    found = re.search(r"tcp://\S+", said)
    assert found is not None, said
    yield found.group()
    command.stop()


def write(folder: Path, host: str = "127.0.0.1", mode: str = "open") -> Path:
    file = folder / "federation.toml"
    file.write_text(FILE.format(host=host, mode=mode))
    return file


def test_a_party_runs_from_its_home_until_it_is_told_to_stop(
    homes: dict[str, MemberHome], hub: str, tmp_path: Path
) -> None:
    homes["bank"].with_hub(hub)
    party = Command("party", homes["bank"].folder, "--file", tmp_path / "federation.toml")
    assert party.first_line() == "bank: ready (party, open, tables: loans)\n"
    with DealerEndpoint(homes["analyst"].with_hub(hub)) as endpoint:
        assert endpoint.members()["bank"].up
    code, _ = party.stop()
    assert code == 0


def test_a_home_may_hold_its_own_federation_file(homes: dict[str, MemberHome], hub: str, tmp_path: Path) -> None:
    homes["bank"].with_hub(hub)
    (homes["bank"].folder / "loans.csv").write_text("id,x\n1,2\n")
    write(homes["bank"].folder, mode="protocol-only")
    party = Command("party", homes["bank"].folder)
    assert party.first_line() == "bank: ready (party, protocol-only, tables: loans)\n"
    assert party.stop(signal.SIGINT)[0] == 0


@pytest.mark.parametrize(
    ("file", "member", "address", "words"),
    [
        ({"mode": "opne"}, "bank", "tcp://127.0.0.1:7000", "party.bank.mode: 'opne' is not a mode"),
        ({}, "bank", "tcp://10.1.2.3:7000", "bank is open, which is for simulation .* at tcp://10.1.2.3:7000"),
        ({"host": "10.1.2.3", "mode": "protocol-only"}, "bank", "", "does not say where the hub is"),
        ({}, "analyst", "tcp://127.0.0.1:7000", r"it has no section \[party.analyst\]"),
    ],
)
def test_what_is_wrong_with_a_member_is_said_in_its_error(
    homes: dict[str, MemberHome], tmp_path: Path, file: dict[str, str], member: str, address: str, words: str
) -> None:
    if address:
        homes[member].with_hub(address)
    party = Command("party", homes[member].folder, "--file", write(tmp_path, **file))
    party.process.wait(30)
    code, err = party.stop()
    assert code == 2 and re.search(words, err), err
    assert err.splitlines()[-1].startswith("fednb: ") and "Traceback" not in err


def test_sockets_find_room_even_under_a_long_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    folder = short_folder()
    assert len(str(folder)) + PATH_SPARE <= PATH_LIMIT
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()


MISSED = """
import os, signal, threading
from fednb.federation.process import Stop
stop = Stop(lambda: os.write(1, b"stopped"))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # as when it just slept off
os.kill(os.getpid(), signal.SIGTERM)
stop.wait()
"""


def test_a_signal_that_the_main_thread_misses_stops_a_member_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", MISSED], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"stopped"), done.stderr
