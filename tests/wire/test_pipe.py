"""The pipe between kernels and their agent: who may connect, and how fast an end is noticed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fednb.errors import ConfigError, LinkError, PeerLost, VersionMismatch
from fednb.wire import pipe
from fednb.wire.endpoint import Conversation
from fednb.wire.message import Message
from fednb.wire.pipe import PipeEndpoint, PipeServer

Wait = Callable[[Callable[[], bool]], None]


class Note(Message):
    n: int
    x: np.ndarray | None = None


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())  # pytest's own folders are too long for a socket's path
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[PipeServer]:
    made = PipeServer(folder / "run" / "pipe", "bank")
    yield made
    made.close()


def echo(talk: Conversation) -> None:
    while True:
        talk.send(talk.recv(Note))


def test_several_kernels_talk_to_one_agent(server: PipeServer) -> None:
    server.listen("local", echo)
    kernels = [PipeEndpoint(server.path, f"kernel-{n}", "bank") for n in range(3)]
    talks = [kernel.open("bank", "local") for kernel in kernels]
    for n, talk in enumerate(talks):
        talk.send(Note(n, np.arange(100_000)))
    assert [talk.recv(Note, timeout=10).n for talk in talks] == [0, 1, 2]
    for kernel in kernels:
        kernel.close()


def test_socket_and_folder_are_the_owners_alone_and_the_socket_goes_with_the_server(server: PipeServer) -> None:
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    server.close()
    assert not server.path.exists()


KERNEL = """
import sys
from pathlib import Path
from fednb.wire.message import Message
from fednb.wire.pipe import PipeEndpoint

class Note(Message):
    n: int

talk = PipeEndpoint(Path(sys.argv[1]), "kernel", "bank").open("bank", "local")
talk.send(Note(1))
talk.recv(Note)
"""


def test_a_killed_kernel_is_noticed_at_once(server: PipeServer, eventually: Wait) -> None:
    with subprocess.Popen([sys.executable, "-c", KERNEL, str(server.path)]) as kernel:
        eventually(lambda: "kernel" in server.members())
        talk = server.open("kernel", "local")
        assert talk.recv(Note, timeout=10).n == 1
        kernel.kill()
        with pytest.raises(PeerLost, match="kernel has left"):
            talk.recv(Note, timeout=2)
    with pytest.raises(PeerLost, match="kernel is not connected to bank"):
        server.open("kernel", "local")


def test_a_kernel_hears_that_its_agent_stopped(server: PipeServer) -> None:
    kernel = PipeEndpoint(server.path, "kernel", "bank")
    talk = kernel.open("bank", "local")
    server.close()
    with pytest.raises(PeerLost, match="bank"):
        talk.recv(Note, timeout=5)
    with pytest.raises(PeerLost):
        kernel.open("bank", "again").recv(Note, timeout=5)
    kernel.close()


def test_a_kernel_that_connects_anew_takes_its_name_over(server: PipeServer) -> None:
    server.listen("local", echo)
    first = PipeEndpoint(server.path, "kernel", "bank")
    old = first.open("bank", "local")
    second = PipeEndpoint(server.path, "kernel", "bank")
    with pytest.raises(PeerLost):
        old.recv(Note, timeout=5)
    talk = second.open("bank", "local")
    talk.send(Note(2))
    assert talk.recv(Note, timeout=5).n == 2
    first.close()
    second.close()


def test_an_opening_that_crosses_a_closing_is_no_conversation_of_its_own(
    server: PipeServer, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    """Both ends open the same; the kernel closes it before it has read that the agent opened it too."""
    take = pipe._Branch._take
    reading = {"bank": threading.Event(), "kernel": threading.Event()}

    def slowly(branch: pipe._Branch, *packet: Any) -> None:
        assert reading[branch.board.me].wait(10)
        take(branch, *packet)

    monkeypatch.setattr(pipe._Branch, "_take", slowly)
    kernel = PipeEndpoint(server.path, "kernel", "bank")
    eventually(lambda: "kernel" in server.members())
    there, back = kernel.open("bank", "run/1"), server.open("kernel", "run/1")
    reading["bank"].set()
    there.send(Note(1))
    assert back.recv(Note, timeout=10).n == 1
    there.close()
    with pytest.raises(PeerLost):
        back.recv(Note, timeout=10)
    again = kernel.open("bank", "run/1")  # not the one that the agent opened before
    reading["kernel"].set()
    again.send(Note(2))
    anew = server.open("kernel", "run/1")
    assert anew.recv(Note, timeout=10).n == 2
    anew.send(Note(3))
    assert again.recv(Note, timeout=10).n == 3
    kernel.close()


def test_a_socket_that_was_connected_before_its_kernel_is_there_serves(
    server: PipeServer, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    server.listen("local", echo)
    early = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    early.connect(os.fspath(server.path))
    kernel = PipeEndpoint(early, "kernel", "bank")
    talk = kernel.open("bank", "local")
    talk.send(Note(5))
    assert talk.recv(Note, timeout=10).n == 5
    kernel.close()

    monkeypatch.setattr(pipe, "HELLO_SECONDS", 0.05)
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.connect(os.fspath(server.path))
    silent.settimeout(10)
    assert silent.recv(1) == b"", "who never says who it is, is not waited for without end"
    silent.close()


def test_what_cannot_work_says_why(server: PipeServer, folder: Path) -> None:
    with pytest.raises(LinkError, match="cannot reach its agent"):
        PipeEndpoint(folder / "nothing", "kernel", "bank")
    with pytest.raises(LinkError, match="bank answers at the local pipe where agency was expected"):
        PipeEndpoint(server.path, "kernel", "agency")
    kernel = PipeEndpoint(server.path, "kernel", "bank")
    with pytest.raises(ConfigError, match="can only talk to bank"):
        kernel.open("agency", "local")
    kernel.close()
    with pytest.raises(ConfigError, match="too long for a socket"):
        PipeServer(folder / ("x" * 120) / "pipe", "bank")
    with pytest.raises(ConfigError, match="Address already in use"):
        PipeServer(server.path, "bank")
    (folder / "open").mkdir()
    (folder / "open").chmod(0o755)  # whatever this process takes off by itself
    with pytest.raises(ConfigError, match="Run: chmod 700"):
        PipeServer(folder / "open" / "pipe", "bank")


def test_another_version_is_refused_with_both_named(server: PipeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "WIRE_VERSION", 4)
    with pytest.raises(VersionMismatch, match=r"bank speaks version 1 .* this process version 4"):
        PipeEndpoint(server.path, "kernel", "bank")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x04abcd",
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 3) + msgspec.msgpack.encode(["x"]) + b"\0",
    ],
)
def test_garbage_closes_one_connection_and_harms_no_other(server: PipeServer, garbage: bytes) -> None:
    server.listen("local", echo)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
        raw.connect(os.fspath(server.path))
        raw.sendall(garbage)
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while raw.recv(100):
                continue
    kernel = PipeEndpoint(server.path, "kernel", "bank")
    talk = kernel.open("bank", "local")
    talk.send(Note(1))
    assert talk.recv(Note, timeout=5).n == 1
    kernel._branch.wire._socket.sendall(b"\xff\xff\xff\xff")  # a kernel gone mad after its hello
    with pytest.raises(PeerLost):
        talk.recv(Note, timeout=5)
    kernel.close()
