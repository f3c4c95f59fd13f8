"""Whoever has no business here: let in nowhere, and every attempt stands in a log.

Invitations that were used before, have expired, or are for somebody else: see `test_enrolment`. Keys that were changed:
see `test_rotation`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import zmq

from fednb.errors import LinkError, VersionMismatch
from fednb.wire import WIRE_VERSION, dealer, relay, seal
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.enrolment import revoke
from fednb.wire.keys import Identity, MemberHome, Roster
from fednb.wire.message import Message
from fednb.wire.refusals import A_SECOND, Refusals

if TYPE_CHECKING:
    from tests.wire.conftest import Federation

Wait = Callable[[Callable[[], bool]], None]
SHORT = 2.0  # seconds after which who gets no answer gives up


class Note(Message):
    n: int


@dataclass
class Place:
    federation: Federation
    folder: Path

    def home(self, name: str, identity: Identity, roster: Roster) -> MemberHome:
        (self.folder / name).mkdir(mode=0o700)
        return MemberHome.write(self.folder / name, identity, roster, self.federation.hub.address)

    def roster_with(self, identity: Identity, kind: str) -> Roster:
        """The federation's, with other keys for one name."""
        roster = self.federation.homes["bank"].roster
        others = [member for member in roster.values() if member.name != identity.name]
        return Roster([*others, identity.public(kind)])  # type: ignore[arg-type]


@pytest.fixture
def place(federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.WARNING)
    (tmp_path / "strangers").mkdir()
    return Place(federation, tmp_path / "strangers")


def unknown_key(place: Place) -> None:
    identity = Identity.generate("bank")
    stranger = place.home("bank", identity, place.roster_with(identity, "party"))
    with pytest.raises(LinkError, match="does not know the key of bank"):
        DealerEndpoint(stranger, timeout=SHORT)


def revoked(place: Place) -> None:
    hub = MemberHome.load(place.federation.homes["hub"].folder)
    place.federation.hub.revoke("bank")
    revoke(hub, "bank")
    with pytest.raises(LinkError, match="does not know the key of bank"):
        place.federation.connect("bank", timeout=SHORT)


def expects_another_hub(place: Place) -> None:
    roster = place.roster_with(Identity.generate("hub"), "hub")
    wrong = place.home("bank", place.federation.homes["bank"].identity, roster)
    with pytest.raises(LinkError, match="not as the hub on this member's roster"):
        DealerEndpoint(wrong, timeout=SHORT)


def another_version(place: Place) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dealer, "WIRE_VERSION", WIRE_VERSION + 1)
        with pytest.raises((VersionMismatch, LinkError), match="version"):
            place.federation.connect("bank", timeout=SHORT)


def as_somebody_else(place: Place) -> None:
    """A member's own keys, and another's name."""
    with raw(place, zmq.DEALER, place.federation.homes["bank"].identity) as line:
        announce = relay.Announce(WIRE_VERSION, "0", "agency", b"i" * 16)
        line.send(relay.ANNOUNCE + relay.pack(announce))
        assert line.recv()[:1] == relay.REFUSED


@contextlib.contextmanager
def raw(place: Place, kind: int, identity: Identity | None = None):  # type: ignore[no-untyped-def]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    line = context.socket(kind)
    line.setsockopt(zmq.LINGER, 0)
    for option in (zmq.SNDTIMEO, zmq.RCVTIMEO):
        line.setsockopt(option, 5000 if identity else 500)
    line.setsockopt(zmq.IMMEDIATE, 1)
    if identity is not None:
        identity.unlock(line)
        line.curve_serverkey = place.federation.homes["hub"].roster.hub.curve.encode()
    try:
        line.connect(place.federation.hub.address)
        yield line
    finally:
        line.close()
        context.term()


def in_clear(place: Place) -> None:
    with raw(place, zmq.DEALER) as line, pytest.raises(zmq.Again):
        line.send(relay.ANNOUNCE + b"x")
        line.recv()


def with_a_password(place: Place) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    line = context.socket(zmq.DEALER)
    line.setsockopt(zmq.LINGER, 0)
    line.setsockopt(zmq.RCVTIMEO, 500)
    line.plain_username, line.plain_password = b"bank", b"bank"
    line.connect(place.federation.hub.address)
    try:
        with pytest.raises(zmq.Again):
            line.recv()
    finally:
        line.close()
        context.term()


def no_zeromq(place: Place) -> None:
    host, _, port = place.federation.hub.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), 5) as line:
        line.settimeout(SHORT)
        line.sendall(b"\xff" * 300)
        with contextlib.suppress(OSError):
            while line.recv(4096):
                continue


STRANGERS = {
    unknown_key: "its key is not on the roster",
    revoked: "its key is not on the roster",
    expects_another_hub: "expects a hub with another key",
    another_version: f"bank speaks version {WIRE_VERSION + 1}",
    as_somebody_else: "bank announced itself wrongly",
    in_clear: "does not speak CURVE",
    with_a_password: "does not speak CURVE",
    no_zeromq: "does not speak CURVE",
}


@pytest.mark.parametrize("attempt", STRANGERS, ids=lambda attempt: attempt.__name__)
def test_a_stranger_is_refused_and_stands_in_the_hubs_log(
    place: Place, attempt: Callable[[Place], None], eventually: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    agency = place.federation.connect("agency")
    caplog.clear()
    attempt(place)
    eventually(lambda: any("refused" in r.message and STRANGERS[attempt] in r.message for r in caplog.records))
    assert not agency.members()["bank"].up and place.federation.hub.routed == 0
    coordinator = place.federation.connect("coordinator")
    talks = agency.open("coordinator", "x"), coordinator.open("agency", "x")
    talks[0].send(Note(1))
    assert talks[1].recv(Note, timeout=10).n == 1, "who belongs here is not disturbed"


# ------------------------------------------------------------ past the hub, at a member


def test_a_member_with_other_keys_than_on_ones_roster_gets_no_word_in(
    place: Place, eventually: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that lets in whom it likes: the keys on each member's own roster decide."""
    identity = Identity.generate("bank")
    evil = place.home("bank", identity, place.roster_with(identity, "party"))
    place.federation.hub.roster = evil.roster
    agency = place.federation.connect("agency")
    heard: list[int] = []
    agency.listen("", lambda talk: heard.append(talk.recv(Note).n))
    with DealerEndpoint(evil) as endpoint:
        endpoint.open("agency", "x").send(Note(1))
        eventually(lambda: "a hello in the name of bank is not signed by it" in caplog.text)
    assert heard == [] and agency._exchange.rejected > 0
    assert "refused a record that came to agency as from bank" in caplog.text


def test_whom_a_member_does_not_know_gets_no_word_in(
    place: Place, eventually: Wait, caplog: pytest.LogCaptureFixture
) -> None:
    roster = place.federation.homes["agency"].roster
    smaller = Roster(member for member in roster.values() if member.name != "bank")
    home = place.home("agency", place.federation.homes["agency"].identity, smaller)
    heard: list[int] = []
    with DealerEndpoint(home) as agency:
        agency.listen("", lambda talk: heard.append(talk.recv(Note).n))
        bank = place.federation.connect("bank")
        bank.open("agency", "x").send(Note(1))
        eventually(lambda: "bank is not on its roster" in caplog.text)
    assert heard == []


def test_a_peer_of_another_version_is_refused_and_logged(
    place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, eventually: Wait
) -> None:
    agency, bank = place.federation.connect("agency"), place.federation.connect("bank")
    agency.listen("", lambda talk: None)
    original = seal.Handshake.hello

    def later(self: seal.Handshake, answers: bytes = b"") -> bytes:
        record = original(self, answers)
        if self.address != "bank":
            return record
        body = msgspec.msgpack.decode(record[1:-64])
        body[0] = WIRE_VERSION + 1
        changed = msgspec.msgpack.encode(body)
        return bytes([seal.HELLO]) + changed + self._me.sign(b"fednb hello" + changed)

    monkeypatch.setattr(seal.Handshake, "hello", later)
    bank.open("agency", "x").send(Note(1))
    eventually(lambda: f"bank speaks version {WIRE_VERSION + 1}" in caplog.text)
    assert "refused a hello that came to agency" in caplog.text


def test_a_flood_of_refusals_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    refusals = Refusals(logging.getLogger("fednb.test"))
    for _ in range(1000):
        refusals.note("a connection: its key is not on the roster")
    assert len(caplog.records) <= 2 * A_SECOND + 1
    refusals._second -= 1.0
    refusals.note("another")
    assert any("more within a second" in record.message for record in caplog.records)
