"""The process in which a party runs `spu`: what it is told, what it says, and that it ends."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import fednb
from fednb.errors import ConfigError, DataError, RunFailed
from fednb.federation import launch, spu_engine, spu_side
from fednb.federation.simulate import simulate
from fednb.federation.spu_engine import SpuEngine, SpuSession
from fednb.policy import sandbox
from fednb.protocols import psi_spu
from fednb.protocols.psi_spu import HASH

SECONDS = 60.0


@pytest.fixture
def engine() -> SpuEngine:
    if not spu_engine.installed() or sandbox.missing("bubblewrap"):
        pytest.skip(spu_engine.lacking())
    return SpuEngine("bank")


def hashes(numbers: range) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % n).hexdigest()[:HASH].encode() for n in numbers)


def converse(first: SpuSession, second: SpuSession) -> tuple[list[bytes], list[bytes]]:
    """What each says to the other, and the matches of each."""
    said: dict[SpuSession, list[bytes]] = {first: [], second: []}
    matches: dict[SpuSession, bytes] = {}
    deadline = time.monotonic() + SECONDS
    while len(matches) < 2 and time.monotonic() < deadline:
        for me, other in ((first, second), (second, first)):
            word = me.next(0.01)
            if word is not None and word.kind == "piece":
                said[me].append(word.data)
                other.put(word.data)
            elif word is not None and word.kind == "matches":
                matches[me] = word.data
    return [b"".join(said[each]) for each in (first, second)], [matches[each] for each in (first, second)]


def test_two_processes_find_what_both_have_and_say_no_hash(engine: SpuEngine) -> None:
    own = hashes(range(3000)), hashes(range(2000, 4000))
    sessions = [engine.start(rank, [each], 5000) for rank, each in enumerate(own)]
    try:
        said, matches = converse(*sessions)
    finally:
        for session in sessions:
            session.close()
    common = {hashes(range(n, n + 1)) for n in range(2000, 3000)}
    assert [{each[at : at + HASH] for at in range(0, len(each), HASH)} for each in matches] == [common, common]
    everything = b"".join(said)
    assert len(everything) > 100_000
    for number in (*range(0, 2000, 7), *range(3000, 4000, 7)):
        text = hashes(range(number, number + 1))
        assert text[:12] not in everything and bytes.fromhex(text.decode())[:8] not in everything


@pytest.mark.parametrize("sizes", [(20, 30), (200, 20_000), (20_000, 200)])
def test_what_is_usually_said_is_what_is_said(engine: SpuEngine, sizes: tuple[int, int]) -> None:
    """A spu of another version that says much more would have honest parties refuse each other."""
    sessions = [engine.start(rank, [hashes(range(size))], sum(sizes)) for rank, size in enumerate(sizes)]
    try:
        said, _ = converse(*sessions)
    finally:
        for session in sessions:
            session.close()
    for mine, usual in zip(said, psi_spu.usual_traffic(*sizes), strict=True):
        assert usual / 2.5 < len(mine) < 1.25 * usual


@pytest.mark.parametrize("first", [0, 1])
def test_who_starts_later_is_waited_for(engine: SpuEngine, first: int) -> None:
    """A call that is held until the other listens is waited for without end, from some two seconds on."""
    sessions = [engine.start(first, [hashes(range(30))], 60)]
    threading.Event().wait(2.5)
    sessions.append(engine.start(1 - first, [hashes(range(20, 50))], 60))
    try:
        _, matches = converse(*sessions)
        assert [len(each) for each in matches] == [10 * HASH, 10 * HASH]
    finally:
        for session in sessions:
            session.close()


def test_align_finds_the_same_rows_as_by_curve(engine: SpuEngine) -> None:
    rng = np.random.default_rng(0)
    ids = {"bank": [f"AT {n:05d}" for n in rng.permutation(3000)], "agency": [f"at-{n:05d}" for n in range(2500, 5000)]}
    tables = {party: {"t": pd.DataFrame({"id": ids[party], "x": np.arange(len(ids[party])) * 1.0})} for party in ids}
    with simulate(tables) as federation:
        frames = [federation.align(dict.fromkeys(ids, "t"), on="id", method=method) for method in ("spu", "ecdh")]
        assert len(frames[0]) == 500
        for party in ids:
            spu, ecdh = (federation._stores[party].load(frame.id)["index"] for frame in frames)
            assert np.array_equal(spu, ecdh)


def test_nothing_in_common_is_an_answer_too(engine: SpuEngine) -> None:
    tables = {party: {"t": pd.DataFrame({"id": [f"{party} {n}" for n in range(20)]})} for party in ("bank", "agency")}
    with simulate(tables) as federation, pytest.raises(DataError, match="no id is common"):
        federation.align(dict.fromkeys(tables, "t"), on="id", method="spu")


def test_a_process_that_ends_early_is_an_error_that_names_its_party_and_quotes_nothing(engine: SpuEngine) -> None:
    session = engine.start(0, [hashes(range(10))], 20)
    try:
        assert session.next(SECONDS) is not None  # it calls its peer
        os.kill(session._process.pid, signal.SIGKILL)
        with pytest.raises(RunFailed, match=r"bank's spu ended without a result; its log says why. Use method='ecdh'"):
            while True:
                session.next(1.0)
        session.put(b"nobody reads this")
    finally:
        session.close()


@pytest.mark.parametrize("how", ["closed", "agent gone"])
def test_nothing_of_it_stays(engine: SpuEngine, how: str) -> None:
    session = engine.start(0, [hashes(range(10))], 20)
    started = psutil.Process(session._process.pid)
    deadline = time.monotonic() + SECONDS
    while not (inside := started.children(recursive=True)) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    folder = Path(session._folder.name)
    assert inside and folder.exists()
    if how == "closed":
        session.close()
        assert not folder.exists()
    else:  # an agent that is killed closes nothing, and its pipes end
        session._in.close()
    gone, alive = psutil.wait_procs([started, *inside], timeout=SECONDS)
    assert not alive
    session.close()


LIES = {
    "a piece too long": [(spu_side.PIECE, bytes(psi_spu.MOST + 1))],
    "an empty piece": [(spu_side.PIECE, b"")],
    "more matches than ids": [(spu_side.MATCHES, bytes(11 * HASH))],
    "matches twice": [(spu_side.MATCHES, b""), (spu_side.MATCHES, b"")],
    "another kind": [(9, b"x")],
    "a failure": [(spu_side.FAILED, b"secret")],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_process_that_a_peer_talks_to_is_not_believed(
    engine: SpuEngine, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = engine.start(0, [hashes(range(10))], 20)
    try:
        session._came += b"".join(spu_side.HEAD.pack(kind, len(data)) + data for kind, data in LIES[lie])
        with pytest.raises(RunFailed) as caught:
            while True:
                session.next(1.0)
        assert "secret" not in str(caught.value) and ("secret" in caplog.text) == (lie == "a failure")
    finally:
        session.close()


def test_a_piece_that_is_none_ends_the_process_instead_of_leaving_it_waiting(engine: SpuEngine) -> None:
    session = engine.start(0, [hashes(range(10))], 20)
    try:
        assert session.next(SECONDS) is not None
        session.put(b"x")
        with pytest.raises(RunFailed):
            while True:
                session.next(1.0)
    finally:
        session.close()


def test_who_waits_for_a_process_that_does_not_read_is_free_when_it_is_closed(engine: SpuEngine) -> None:
    session = engine.start(0, [hashes(range(10))], 20)
    assert session.next(SECONDS) is not None
    (*_, inside) = psutil.Process(session._process.pid).children(recursive=True)
    inside.suspend()
    waiting = threading.Thread(target=lambda: [session.put(bytes(1 << 20)) for _ in range(4)])
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    session.close()
    waiting.join(SECONDS)
    assert not waiting.is_alive()


def test_no_process_starts_where_it_would_see_what_it_must_not(engine: SpuEngine) -> None:
    with pytest.raises(ConfigError, match="bank's log says what") as caught:
        SpuEngine("bank", [Path(sys.prefix) / "loans.csv"])
    assert sys.prefix not in str(caught.value)


FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank.tables.loans]
path = "loans.csv"
id = "id"
[party.bank.protocols]
psi_spu = true
[party.agency.tables.invoices]
path = "invoices.csv"
id = "id"
[party.agency.protocols.psi_spu]
psi_spu = true
"""


@pytest.mark.slow
def test_real_members_align_by_it(engine: SpuEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name, numbers in (("loans", range(3000)), ("invoices", range(2500, 7500))):
        pd.DataFrame({"id": [f"AT {n:05d}" for n in numbers], name: 1.0}).to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "f.toml").write_text(FILE)
    with launch.up(tmp_path / "f.toml") as up, fednb.connect(up.federation.path) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="id", method="spu")
        assert len(frame) == 500


# ---------------------------------------------------------------- the tunnel, which needs no spu


class Line:
    """Two tunnels that say everything to each other, in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.ends: list[spu_side.Tunnel] = []
        for rank in (0, 1):
            home = folder / str(rank)
            home.mkdir()
            patch.setattr(spu_side, "_FOLDER", home)
            self.ends.append(spu_side.Tunnel(rank, self._to(1 - rank)))
        opening = [threading.Thread(target=end.open) for end in self.ends]
        for each in opening:
            each.start()
        for each in opening:
            each.join()

    def _to(self, other: int) -> Callable[[int, bytes], None]:
        def write(kind: int, payload: bytes) -> None:
            assert kind == spu_side.PIECE
            self.ends[other].put_through(payload)

        return write


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="fednb-") as folder:  # pytest's own path is too long for a socket
        yield Line(Path(folder), monkeypatch)


@pytest.mark.parametrize("caller", [0, 1])
def test_a_call_to_the_peer_arrives_at_the_peers_own_socket_and_ends_when_it_ends(line: Line, caller: int) -> None:
    server = socket.socket(socket.AF_UNIX)
    client = socket.socket(socket.AF_UNIX)
    with server, client:
        with socket.socket(socket.AF_UNIX) as early:  # the peer's spu does not listen: it is refused, though late
            early.connect(str(line.ends[caller].peer))
            early.settimeout(SECONDS)
            assert everything(early) == b""
        server.bind(str(line.ends[1 - caller].own))
        server.listen()
        server.settimeout(SECONDS)
        client.connect(str(line.ends[caller].peer))
        sent = os.urandom(3 << 20)
        sender = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
        sender.start()
        answering, _ = server.accept()
        with answering:
            assert everything(answering) == sent
            answering.sendall(b"yes")
        client.settimeout(SECONDS)
        assert everything(client) == b"yes"
        sender.join()
        deadline = time.monotonic() + SECONDS
        while any(end._streams for end in line.ends):  # or a peer that calls often would use up what may be open
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)


def test_nobody_goes_on_before_both_have_their_links(line: Line) -> None:
    first = threading.Thread(target=line.ends[0].linked)
    first.start()
    first.join(0.3)
    assert first.is_alive()
    line.ends[1].linked()
    first.join(SECONDS)
    assert not first.is_alive()


def everything(sock: Any) -> bytes:
    came = b""
    while more := sock.recv(1 << 20):
        came += more
    return came


def test_calls_from_both_sides_are_kept_apart(line: Line) -> None:
    servers = []
    for end in line.ends:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(end.own))
        server.listen()
        server.settimeout(SECONDS)
        servers.append(server)
    clients = []
    for number in range(6):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(line.ends[number % 2].peer))
        client.sendall(struct.pack("<I", number))
        client.shutdown(socket.SHUT_WR)
        clients.append(client)
    came: dict[int, set[int]] = {0: set(), 1: set()}
    for place, server in enumerate(servers):
        for _ in range(3):
            sock, _ = server.accept()
            with sock:
                came[place].add(struct.unpack("<I", everything(sock))[0])
    assert came == {0: {1, 3, 5}, 1: {0, 2, 4}}
    for each in (*servers, *clients):
        each.close()
