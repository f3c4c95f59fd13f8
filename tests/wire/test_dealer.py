"""Endpoints on a real hub: restarts, losses, refusals, and what a curious hub gets to see."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zmq

from fednb.errors import ConfigError, LinkError, PeerLost, VersionMismatch
from fednb.wire import dealer, exchange, hub, relay, seal, stream
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.endpoint import Conversation, Presence
from fednb.wire.hub import Hub
from fednb.wire.keys import enrol_all
from fednb.wire.message import Message

if TYPE_CHECKING:
    from tests.wire.conftest import Federation

Wait = Callable[[Callable[[], bool]], None]


class Note(Message):
    n: int
    text: str = ""
    x: np.ndarray | None = None


def echo(talk: Conversation) -> None:
    while True:
        talk.send(talk.recv(Note))


def test_messages_go_through_the_hub_and_back(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    agency.listen("echo", echo)
    talk = bank.open("agency", "echo")
    x = np.arange(500_000.0)
    talk.send(Note(1, "text", x))
    back = talk.recv(Note, timeout=10)
    assert back.text == "text" and np.array_equal(back.x, x)


def test_everybody_sees_who_is_up_and_who_leaves(federation: Federation, eventually: Wait) -> None:
    bank = federation.connect("bank")
    seen: list[Presence] = []
    bank.watch(seen.append)
    agency = federation.connect("agency")
    analyst = federation.connect("analyst")
    eventually(lambda: bank.members()["analyst"].up and bank.members()["agency"].up)
    assert analyst.me.startswith("analyst#") and not bank.members()["coordinator"].up
    assert bank.members()["agency"].kind == "party" and bank.members()["hub"].up
    eventually(lambda: bank.members()["agency"].seconds is not None)
    agency.close()
    eventually(lambda: not bank.members()["agency"].up)
    assert [(p.name, p.up) for p in seen if p.name == "agency"] == [("agency", True), ("agency", False)]


def test_two_processes_of_one_analyst_have_conversations_of_their_own(federation: Federation) -> None:
    first, second, bank = (federation.connect(name) for name in ("analyst", "analyst", "bank"))
    bank.listen("echo", echo)
    assert first.me != second.me
    talks = [endpoint.open("bank", "echo") for endpoint in (first, second)]
    for n, talk in enumerate(talks):
        talk.send(Note(n))
    assert [talk.recv(Note, timeout=5).n for talk in talks] == [0, 1]


def test_a_hub_restart_loses_nothing_and_repeats_nothing(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    there, back = bank.open("agency", "count"), agency.open("bank", "count")
    total = 3000
    restart_at = {500, 1500}
    reached = {n: threading.Event() for n in restart_at}

    def count(talk: Conversation) -> None:
        for n in range(total):
            talk.send(Note(n, x=np.full(200, n)))
            if n in restart_at:
                reached[n].set()

    senders = [threading.Thread(target=count, args=(talk,)) for talk in (there, back)]
    for sender in senders:
        sender.start()
    for n in sorted(restart_at):
        assert reached[n].wait(10)
        federation.restart_hub()
    for talk in (there, back):
        assert [talk.recv(Note, timeout=20).n for _ in range(total)] == list(range(total))
    for sender in senders:
        sender.join()


def test_who_opens_just_as_the_peers_opening_comes_to_an_end_gets_that_conversation(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends of a run open it at about the same time; two conversations would wait for each other for ever."""
    bank, agency = federation.connect("bank"), federation.connect("agency")
    opened: list[Conversation] = []
    establish = exchange.SealedTalk.establish

    def slowly(talk: exchange.SealedTalk, stream: stream.Stream) -> None:
        if talk.board.me == "agency" and not opened:  # its keys are agreed, and nobody at the agency knows yet
            opener = threading.Thread(target=lambda: opened.append(agency.open("bank", "run/1")))
            opener.start()
            opener.join(10)
        establish(talk, stream)

    monkeypatch.setattr(exchange.SealedTalk, "establish", slowly)
    there = bank.open("agency", "run/1")
    there.send(Note(1))
    for _ in range(1000):
        if opened:
            break
        threading.Event().wait(0.01)
    (back,) = opened
    assert back.recv(Note, timeout=10).n == 1
    back.send(Note(2))
    assert there.recv(Note, timeout=10).n == 2


def test_a_conversation_can_begin_while_the_hub_is_down(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    agency.listen("echo", echo)
    federation.stop_hub()
    talk = bank.open("agency", "echo")
    talk.send(Note(7))
    federation.start_hub()
    assert talk.recv(Note, timeout=20).n == 7


def test_a_hub_that_stays_away_ends_conversations_after_the_grace(federation: Federation) -> None:
    bank = federation.connect("bank", grace=1.0)
    federation.connect("agency", grace=1.0)
    talk = bank.open("agency", "count")
    federation.stop_hub()
    with pytest.raises(LinkError, match=r"the hub at tcp://127.0.0.1:\d+ has not answered for 1 s"):
        talk.recv(Note, timeout=10)
    assert not bank.members()["agency"].up and not bank.members()["hub"].up


def test_what_was_sent_just_before_close_arrives(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    talk = bank.open("agency", "last words")
    for n in range(20):
        talk.send(Note(n, x=np.zeros(100_000)))
    bank.close()
    other = agency.open("bank", "last words")
    assert [other.recv(Note, timeout=10).n for _ in range(20)] == list(range(20))
    with pytest.raises(PeerLost, match="bank stopped"):
        other.recv(Note, timeout=10)


def test_what_was_sent_to_a_member_that_is_just_coming_up_arrives(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The news that a member is up may come later than somebody here knows it."""
    monkeypatch.setattr(exchange, "NEWS_SECONDS", 5.0)
    bank = federation.connect("bank")
    bank.open("agency", "last words").send(Note(1))
    closing = threading.Thread(target=bank.close)
    closing.start()
    agency = federation.connect("agency")
    assert agency.open("bank", "last words").recv(Note, timeout=10).n == 1
    closing.join()


def test_a_restarted_peer_ends_its_old_conversations(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    agency.listen("echo", echo)
    talk = bank.open("agency", "echo")
    talk.send(Note(1))
    talk.recv(Note, timeout=5)
    again = federation.connect("agency")  # another process, with the same keys
    with pytest.raises(PeerLost, match="agency restarted"):
        talk.recv(Note, timeout=10)
    again.listen("echo", echo)
    talk.close()
    talk = bank.open("agency", "echo")
    talk.send(Note(2))
    assert talk.recv(Note, timeout=10).n == 2
    with pytest.raises(LinkError, match="another process connected as agency"):
        agency.open("bank", "echo")


def test_opening_to_a_member_that_is_down_ends_with_its_name(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "OPEN_SECONDS", 0.2)
    bank = federation.connect("bank")
    with pytest.raises(PeerLost, match="agency is not connected to the hub at tcp") as caught:
        bank.open("agency", "echo").recv(Note, timeout=10)
    assert caught.value.member == "agency"
    with pytest.raises(ConfigError, match="no member 'agnecy'"):
        bank.open("agnecy", "echo")


def test_a_stranger_is_refused_with_what_to_do(federation: Federation, tmp_path: Path) -> None:
    strangers = enrol_all(tmp_path / "elsewhere", federation.kinds)
    stranger = enrol_all(tmp_path / "mixed", federation.kinds)["bank"]
    mixed = type(stranger)(
        stranger.folder,
        stranger.identity,
        type(stranger.roster)(
            [federation.homes["hub"].roster.hub, *(m for m in stranger.roster.values() if m.kind != "hub")]
        ),
        "",
    )
    with pytest.raises(LinkError, match=r"does not know the key of bank \(fingerprint .*has to enrol it"):
        DealerEndpoint(mixed, hub=federation.hub.address)
    with pytest.raises(LinkError, match="not as the hub on this member's roster"):
        DealerEndpoint(strangers["bank"], hub=federation.hub.address, timeout=1.0)
    with pytest.raises(LinkError, match="nothing answers there"):
        DealerEndpoint(federation.homes["bank"], hub="tcp://127.0.0.1:1", timeout=0.3)
    with pytest.raises(ConfigError, match="does not say where the hub is"):
        DealerEndpoint(federation.homes["bank"])


def test_a_client_without_keys_gets_no_word_in(federation: Federation) -> None:
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.setsockopt(zmq.LINGER, 0)
    plain.setsockopt(zmq.SNDTIMEO, 300)
    plain.setsockopt(zmq.RCVTIMEO, 300)
    plain.setsockopt(zmq.IMMEDIATE, 1)
    plain.connect(federation.hub.address)
    with pytest.raises(zmq.Again):
        plain.send(relay.ANNOUNCE + b"x")
        plain.recv()
    plain.close()
    context.term()
    assert federation.hub.routed == 0


def test_a_handshake_faster_than_the_member_is_not_missed(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loaded machine ZeroMQ's thread may be through with the handshake before `connect` returns to ours."""
    connect = zmq.Socket.connect
    handshake = threading.Event()
    admit = hub.Hub._admit

    def tell(self: Hub) -> None:
        admit(self)
        handshake.set()

    def connect_slowly(self: zmq.Socket[bytes], address: str) -> Any:
        handshake.clear()
        connected = connect(self, address)
        if address == federation.hub.address:
            assert handshake.wait(10)  # the hub has been asked whether the key is known
            threading.Event().wait(0.2)  # nothing tells this end of the handshake but what is under test
        return connected

    monkeypatch.setattr(hub.Hub, "_admit", tell)
    monkeypatch.setattr(zmq.Socket, "connect", connect_slowly)
    assert federation.connect("bank").members()["hub"].up


def test_a_hub_of_another_version_is_refused_with_both_named(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealer, "WIRE_VERSION", 2)
    with pytest.raises(VersionMismatch, match=r"speaks version 1 of .*, bank version 2\. Install"):
        federation.connect("bank")
    monkeypatch.undo()
    monkeypatch.setattr(hub, "WIRE_VERSION", 3)
    with pytest.raises(VersionMismatch, match=r"speaks version 3 of .*, bank version 1\. Install"):
        federation.connect("bank")


def test_a_peer_of_another_version_is_refused_with_both_named(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    theirs = agency.open("bank", "run/1")
    monkeypatch.setattr(seal, "WIRE_VERSION", 9)
    ours = bank.open(
        "agency", "run/1"
    )  # its hello says 9; both endpoints now expect 9, so agency's older one is refused
    with pytest.raises(VersionMismatch, match=r"agency speaks version 1 .* this member version 9"):
        ours.recv(Note, timeout=10)
    theirs.close()


@pytest.mark.parametrize("tick", [0.2, 1000.0])  # found at the next look around, or with its own next message
def test_a_revoked_member_is_cut_off(federation: Federation, monkeypatch: pytest.MonkeyPatch, tick: float) -> None:
    monkeypatch.setattr(hub, "TICK_SECONDS", tick)
    federation.restart_hub()
    bank, agency = federation.connect("bank"), federation.connect("agency")
    talk = bank.open("agency", "echo")
    federation.hub.revoke("agency")
    with pytest.raises(PeerLost, match="agency was removed from the federation"):
        talk.recv(Note, timeout=10)
    with pytest.raises(LinkError, match="refused agency: agency was removed"):
        agency.open("bank", "echo").recv(Note, timeout=10)


def test_a_taken_port_says_so_and_what_to_do(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="another program uses that port already. Stop it, or choose another port"):
        Hub(federation.homes["hub"], federation.hub.address)
    with pytest.raises(ConfigError, match="cannot listen on tcp://192.0.2.1:0"):
        Hub(federation.homes["hub"], "tcp://192.0.2.1:0")
    with pytest.raises(ConfigError, match="bank is a party: a hub runs with the hub's own home"):
        Hub(federation.homes["bank"], "tcp://127.0.0.1:0")


class Curious(Hub):
    """Keeps all that it passes on."""

    seen: list[bytes]

    def _route(self, sender: str, receiver: str, record: memoryview) -> None:
        self.seen.append(bytes(record))
        super()._route(sender, receiver, record)


def test_a_curious_hub_sees_no_plaintext(federation: Federation) -> None:
    federation.stop_hub()
    Curious.seen = []
    federation.hub = Curious(federation.homes["hub"], federation.hub.address).start()
    bank, agency = federation.connect("bank"), federation.connect("agency")
    agency.listen("echo", echo)
    talk = bank.open("agency", "echo")
    canary = "canary-4711"
    x = np.arange(300_000.0) + 4711
    talk.send(Note(1, canary, x))
    assert talk.recv(Note, timeout=10).text == canary
    talk.close("reason " + canary)
    everything = b"".join(Curious.seen)
    assert len(everything) > 2 * x.nbytes  # it went that way
    # with what stands before it: four letters alone turn up in megabytes of noise now and then
    assert canary.encode() not in everything and b"\xa4kind\xa4Note" not in everything
    raw = x.tobytes()
    assert not any(raw[start : start + 64] in everything for start in range(0, len(raw), 100_000))
    samples = np.frombuffer(everything, np.uint8)
    assert abs(samples.mean() - 127.5) < 1.0  # as good as random


class Tampering(Hub):
    """Alters, repeats, swaps and drops some of what it passes on."""

    rng = random.Random(13)

    def _route(self, sender: str, receiver: str, record: memoryview) -> None:
        fate = self.rng.random()
        if fate < 0.04:
            return
        if fate < 0.08:
            altered = bytearray(record)
            altered[self.rng.randrange(len(altered))] ^= 1 << self.rng.randrange(8)
            super()._route(sender, receiver, memoryview(altered))
        elif fate < 0.2:
            super()._route(sender, receiver, record)
            super()._route(sender, receiver, record)
        elif fate < 0.23:
            super()._route(receiver, sender, record)  # reflected
        else:
            super()._route(sender, receiver, record)


def test_a_hub_that_tampers_delays_messages_and_changes_none(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PROBE_SECONDS", 0.1)  # else the test waits a second for each lost last record
    monkeypatch.setattr(exchange, "HELLO_SECONDS", 0.1)
    federation.stop_hub()
    federation.hub = Tampering(federation.homes["hub"], federation.hub.address).start()
    bank, agency = federation.connect("bank"), federation.connect("agency")
    there, back = bank.open("agency", "count"), agency.open("bank", "count")
    for n in range(25):
        there.send(Note(n, x=np.full(10, n)))
    for n in range(25):
        note = back.recv(Note, timeout=60)
        assert note.n == n and np.array_equal(note.x, np.full(10, n))


def test_thousands_of_malformed_frames_harm_neither_hub_nor_endpoint(
    federation: Federation, eventually: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    bank = federation.connect("bank")
    handled: list[Conversation] = []
    bank.listen("", handled.append)
    eve = zmq.Context()
    socket = eve.socket(zmq.DEALER)  # an enrolled member gone bad: the agency's keys, no fednb
    federation.homes["agency"].identity.unlock(socket)
    socket.curve_serverkey = federation.homes["agency"].roster.hub.curve.encode()
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(federation.hub.address)
    announce = relay.pack(relay.Announce(1, "0", "agency", b"i" * 16))
    socket.send(relay.ANNOUNCE + announce)
    assert socket.recv()[:1] == relay.WELCOME
    rng = random.Random(5)
    kinds = [relay.ANNOUNCE, relay.PING, relay.ROUTE, b"", b"Z", relay.TICK, relay.WHO, relay.WELCOME]
    for _ in range(1500):  # at the hub
        kind = rng.choice(kinds)
        frames = [kind + rng.randbytes(rng.randint(0, 60)) for _ in range(1 if rng.random() < 0.8 else 3)]
        if kind == relay.ANNOUNCE:
            frames = [kind + (announce[:-1] + rng.randbytes(1) if rng.random() < 0.1 else rng.randbytes(9))]
        socket.send_multipart(frames)
    socket.send(relay.ANNOUNCE + announce)
    hello = seal.Handshake(federation.homes["agency"].identity, "agency", "bank", "c", b"i" * 16).hello()
    before = bank._exchange.rejected
    for _ in range(2000):  # at the endpoint
        record = bytearray(hello if rng.random() < 0.3 else rng.randbytes(rng.randint(0, 200)))
        if record:
            record[rng.randrange(len(record))] ^= rng.randrange(1, 256)
            record[0] = rng.choice([0, 1, 2, 3, 4, 255]) if record[1:] != hello[1:] else 0
        socket.send(relay.route("bank", record))
    eventually(lambda: bank._exchange.rejected - before >= 2000)
    socket.close()
    eve.term()
    coordinator = federation.connect("coordinator")
    talk = coordinator.open("bank", "still there")
    talk.send(Note(1))
    eventually(lambda: len(handled) == 1)
    assert handled[0].peer == "coordinator"
    assert not [entry for entry in caplog.records if entry.exc_info]


def test_a_member_cannot_speak_for_another(federation: Federation) -> None:
    bank = federation.connect("bank")
    for address in ("coordinator", "agency#1", "analyst#1"):
        endpoint = zmq.Context()
        socket = endpoint.socket(zmq.DEALER)
        federation.homes["agency"].identity.unlock(socket)
        socket.curve_serverkey = federation.homes["agency"].roster.hub.curve.encode()
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(federation.hub.address)
        socket.send(relay.ANNOUNCE + relay.pack(relay.Announce(1, "0", address, b"i" * 16)))
        said = socket.recv()
        refusal = relay.unpack(said[1:], relay.Refusal)
        assert said[:1] == relay.REFUSED and refusal is not None and "agency announced itself wrongly" in refusal.reason
        socket.close()
        endpoint.term()
    assert not bank.members()["coordinator"].up


def test_conversations_of_many_threads_stay_apart(federation: Federation) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    agency.listen("echo/", echo)
    failures: list[BaseException] = []

    def chat(k: int) -> None:
        try:
            talk = bank.open("agency", f"echo/{k}")
            for n in range(30):
                talk.send(Note(n, str(k), np.full(k * 1000, k)))
            for n in range(30):
                note = talk.recv(Note, timeout=20)
                assert (note.n, note.text) == (n, str(k)) and (note.x == k).all()
            talk.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=chat, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_unforeseen_failure_of_the_io_thread_reaches_those_who_wait(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = federation.connect("bank")
    federation.connect("agency")
    talk = bank.open("agency", "count")
    tick = itertools.count()

    def breaks(now: float) -> None:
        if next(tick) >= 0:
            raise RuntimeError("a defect")

    monkeypatch.setattr(bank, "_keep_time", breaks)
    with pytest.raises(LinkError, match="failed unexpectedly: RuntimeError"):
        talk.recv(Note, timeout=10)
    with pytest.raises(LinkError, match="failed unexpectedly"):
        bank.open("agency", "other")
