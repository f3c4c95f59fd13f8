"""Members that die, freeze or restart as processes: the others hear of it within seconds, by name."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from fednb.errors import LinkError, PeerLost
from fednb.wire.message import Message

if TYPE_CHECKING:
    from tests.wire.conftest import Federation

Wait = Callable[[Callable[[], bool]], None]


class Note(Message):
    n: int


AGENCY = """
import sys
from pathlib import Path
from fednb.errors import LinkError
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome
from fednb.wire.message import Message

class Note(Message):
    n: int

def echo(talk):
    try:
        while True:
            talk.send(talk.recv(Note))
    except LinkError as error:
        print(error, flush=True)
        raise

endpoint = DealerEndpoint(MemberHome.load(Path(sys.argv[1])), hub=sys.argv[2])
endpoint.listen("echo", echo)
print("ready", flush=True)
sys.stdin.read()
endpoint.close()
"""


@contextlib.contextmanager
def agency(federation: Federation) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", AGENCY, str(federation.homes["agency"].folder), federation.hub.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_killed_member_is_lost_within_seconds_and_its_successor_is_reached(federation: Federation) -> None:
    bank = federation.connect("bank")
    with agency(federation) as process:
        talk = bank.open("agency", "echo")
        talk.send(Note(1))
        assert talk.recv(Note, timeout=10).n == 1
        process.kill()
        start = time.monotonic()
        with pytest.raises(PeerLost, match="agency lost its connection to the hub") as caught:
            talk.recv(Note, timeout=10)
        assert caught.value.member == "agency" and time.monotonic() - start < 5
        assert not bank.members()["agency"].up
    with agency(federation):
        again = bank.open("agency", "echo")
        again.send(Note(2))
        assert again.recv(Note, timeout=10).n == 2


def test_a_member_that_restarts_at_once_ends_its_old_conversations(federation: Federation) -> None:
    bank = federation.connect("bank")
    with agency(federation) as process:
        talk = bank.open("agency", "echo")
        talk.send(Note(1))
        assert talk.recv(Note, timeout=10).n == 1
        process.kill()
    with agency(federation), pytest.raises(PeerLost, match="agency (restarted|lost its connection)"):
        talk.recv(Note, timeout=10)


def test_a_frozen_member_is_lost_and_hears_of_it_when_it_thaws(federation: Federation) -> None:
    bank = federation.connect("bank")
    with agency(federation) as process:
        talk = bank.open("agency", "echo")
        talk.send(Note(1))
        assert talk.recv(Note, timeout=10).n == 1
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(PeerLost, match="agency lost its connection to the hub"):
            talk.recv(Note, timeout=10)
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert process.stdout.readline() == ("bank ended the conversation: agency lost its connection to the hub\n")
        again = bank.open("agency", "echo")
        again.send(Note(2))
        assert again.recv(Note, timeout=10).n == 2


def test_a_busy_process_is_not_taken_for_a_dead_one(federation: Federation, eventually: Wait) -> None:
    """Its interpreter may be held by one long computation: ZeroMQ's own threads keep the connection alive."""
    bank = federation.connect("bank")
    busy = AGENCY.replace(
        'print("ready", flush=True)',
        'print("ready", flush=True)\nimport ctypes\nctypes.PyDLL(None).usleep(6_000_000)  # holds the interpreter',
    )
    command = [sys.executable, "-c", busy, str(federation.homes["agency"].folder), federation.hub.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        talk = bank.open("agency", "echo")
        talk.send(Note(1))
        assert talk.recv(Note, timeout=15).n == 1
        process.kill()
    with pytest.raises(LinkError):
        talk.recv(Note, timeout=10)
