"""Who gets in, over real sockets: the invited, once, and nobody before people have compared fingerprints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from fednb import cli
from fednb.errors import ConfigError, LinkError, VersionMismatch
from fednb.wire import enrolment, relay
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.enrolment import Invitations, Token, confirm, create_hub, proposed, revoke
from fednb.wire.hub import Hub
from fednb.wire.keys import Identity, Kind, MemberHome, PublicIdentity

SHORT = 1.5  # seconds after which a refused client gives up


class Place:
    """A hub that knows nobody, and folders for those who come."""

    def __init__(self, root: Path) -> None:
        self.root = root
        home = create_hub(root / "hub")
        self.hub = Hub(home, "tcp://127.0.0.1:0").start()
        home.with_hub(self.hub.address)

    @property
    def home(self) -> MemberHome:
        return MemberHome.load(self.root / "hub")

    def invite(self, name: str, kind: Kind = "party", seconds: float = 60.0) -> Token:
        made = Invitations(self.root / "hub").make(self.home, name, kind, self.hub.address, seconds)
        return Token.parse(made.text)

    def join(self, token: Token, folder: str = "", timeout: float = 10.0) -> MemberHome:
        return enrolment.join(token, self.root / (folder or token.name), timeout)

    def bank_with_the_hubs_keys(self) -> PublicIdentity:
        hub = self.home.roster.hub
        return PublicIdentity("bank", "party", hub.curve, hub.verify)

    def admit(self, name: str) -> MemberHome:
        """Invite, join, and confirm at the hub, as the owners would."""
        joined = self.join(self.invite(name))
        confirm(self.home, proposed(self.root / "hub")[name], joined.identity.fingerprint)
        return joined


def knock(place: Place, token: Token, *words: bytes) -> list[str]:
    """Say whatever under an invitation's key; returns why each was refused."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    socket.curve_serverkey = token.hub.curve.encode()
    socket.curve_publickey, socket.curve_secretkey = token.curve_public.encode(), token.curve_secret.encode()
    socket.connect(place.hub.address)
    reasons = []
    try:
        for word in words:
            socket.send(word)
            said = socket.recv()
            assert said[:1] == relay.REFUSED
            refusal = relay.unpack(said[1:], relay.Refusal)
            assert refusal is not None
            reasons.append(refusal.reason)
    finally:
        socket.close()
        context.term()
    return reasons


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.hub.close()


def test_an_invited_member_gets_in_once_both_sides_have_compared_fingerprints(
    place: Place, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    bank = place.join(place.invite("bank"))
    assert bank.roster.hub == place.home.roster.hub and set(bank.roster) == {"hub", "bank"}
    with pytest.raises(LinkError, match="does not know the key of bank"):
        DealerEndpoint(bank, timeout=SHORT)
    waiting = proposed(place.root / "hub")["bank"]
    with pytest.raises(ConfigError, match="Compare again by telephone"):
        confirm(place.home, waiting, Identity.generate("bank").fingerprint)
    confirm(place.home, waiting, bank.identity.fingerprint.lower())
    assert proposed(place.root / "hub") == {}
    eventually(lambda: "bank" in place.hub.roster)
    DealerEndpoint(bank).close()

    agency = place.admit("agency")
    assert "bank" not in agency.roster, "what the hub tells is a proposal"
    agency = confirm(agency, proposed(agency.folder)["bank"], bank.identity.fingerprint)
    bank = confirm(bank, enrolment.read_card(enrolment.card(agency)), agency.identity.fingerprint)
    eventually(lambda: "agency" in place.hub.roster)
    with DealerEndpoint(MemberHome.load(bank.folder)) as one, DealerEndpoint(MemberHome.load(agency.folder)):
        eventually(lambda: one.members()["agency"].up)


def refused(caplog: pytest.LogCaptureFixture, reason: str) -> bool:
    return any("refused" in record.message and reason in record.message for record in caplog.records)


def test_a_replayed_an_expired_and_a_withdrawn_invitation_are_refused_and_logged(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    token = place.invite("bank")
    place.join(token)
    with pytest.raises(LinkError, match="did not take the invitation"):
        place.join(token, "again", SHORT)
    assert refused(caplog, "the invitation for bank was used before")
    late = place.invite("late", seconds=-1)
    with pytest.raises(ConfigError, match="has expired"):
        place.join(late)
    with pytest.raises(LinkError):  # one whose own clock is wrong, or who changed the date
        place.join(msgspec.structs.replace(late, expires=time.time() + 60), "late", SHORT)
    assert refused(caplog, "the invitation for late has expired")
    withdrawn = place.invite("agency")
    place.invite("agency")
    with pytest.raises(LinkError):
        place.join(withdrawn, "agency", SHORT)
    assert refused(caplog, "its key is not on the roster")
    assert set(proposed(place.root / "hub")) == {"bank"}


def test_an_invitation_is_good_for_its_own_name_kind_and_version(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    token = place.invite("bank")
    for name, other in (("a", {"name": "agency"}), ("b", {"kind": "coordinator"})):
        with pytest.raises(LinkError, match="for bank, a party, and for nobody else"):
            place.join(msgspec.structs.replace(token, **other), name)
        assert refused(caplog, "for nobody else")
    mine = Identity.generate("bank").public("party")
    (stolen,) = knock(place, token, relay.ENROL + relay.pack(enrolment.Enrol(1, mine, b"0" * 64)))
    assert "does not have the keys that it came with" in stolen
    later = [9, mine, b"0" * 64, "of a later version"]
    (another,) = knock(place, token, relay.ENROL + msgspec.msgpack.encode(later))
    assert "speaks version 1" in another and "bank version 9" in another
    (hubs,) = knock(place, token, relay.ENROL + relay.pack(enrolment.Enrol(1, place.bank_with_the_hubs_keys(), b"")))
    assert "the keys of another member" in hubs
    garbage = [b"", b"\xff" * 100, msgspec.msgpack.encode([1]), msgspec.msgpack.encode([1, {"name": "bank"}, b""])]
    assert len(knock(place, token, *(relay.ENROL + each for each in garbage))) == 4
    assert proposed(place.root / "hub") == {}
    place.join(token)  # none of this used it up


def test_a_hub_of_another_version_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from fednb.wire import hub

    monkeypatch.setattr(hub, "WIRE_VERSION", 9)
    token = place.invite("bank")
    with pytest.raises(VersionMismatch, match="speaks version 9"):
        place.join(msgspec.structs.replace(token, kind="analyst"))


def test_an_invitations_key_serves_for_nothing_but_enrolling(place: Place) -> None:
    token = place.invite("bank")
    announce = relay.pack(relay.Announce(1, "0.1.0", "bank", b"i" * 16))
    words = (relay.ANNOUNCE + announce, relay.ROUTE + b"x", relay.PING, relay.BYE, b"", b"\xff" * 100)
    assert set(knock(place, token, *words)) == {"an invitation serves to enrol, and for nothing else"}
    assert place.hub.routed == 0
    place.join(token)


def test_who_has_a_wrong_hub_key_or_speaks_in_clear_gets_no_word_in(place: Place) -> None:
    token = place.invite("bank")
    other = Identity.generate("hub").public("hub")
    with pytest.raises(LinkError, match="no hub with its key"):
        place.join(msgspec.structs.replace(token, hub=other), timeout=SHORT)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    plain = context.socket(zmq.DEALER)
    for option in (zmq.SNDTIMEO, zmq.RCVTIMEO):
        plain.setsockopt(option, 300)
    plain.setsockopt(zmq.LINGER, 0)
    plain.setsockopt(zmq.IMMEDIATE, 1)
    plain.connect(place.hub.address)
    with pytest.raises(zmq.Again):
        plain.send(relay.ENROL + b"x")
        plain.recv()
    plain.close()
    context.term()
    assert proposed(place.root / "hub") == {}


def test_revoking_cuts_a_live_connection_and_the_member_stays_out(
    place: Place, eventually: Callable[[Callable[[], bool]], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bank = place.admit("bank")
    eventually(lambda: "bank" in place.hub.roster)
    with DealerEndpoint(bank) as endpoint:
        assert endpoint.members()["hub"].up
        revoke(place.home, "bank")
        eventually(lambda: "bank" not in place.hub.roster)
        eventually(lambda: repr(place.hub).endswith("0 connected>"))
    with pytest.raises(LinkError, match="does not know the key of bank"):
        DealerEndpoint(bank, timeout=SHORT)
    assert refused(caplog, "its key is not on the roster")
    with pytest.raises(ConfigError, match="cannot be taken off"):
        revoke(place.home, "hub")


def test_nothing_secret_of_a_token_shows_or_stays_at_the_hub(place: Place) -> None:
    token = place.invite("bank")
    assert token.curve_secret not in repr(token)
    for path in (place.root / "hub").rglob("*"):
        assert path.is_dir() or token.curve_secret.encode() not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0, path
    for text in ("", "fednb1.", token.text[:-9], "x" * 10_000, "fednb1." + "A" * 40):
        with pytest.raises(ConfigError, match="this is no invitation"):
            Token.parse(text)


def test_a_name_that_is_taken_and_a_hub_without_an_address_are_refused(place: Place) -> None:
    place.admit("bank")
    with pytest.raises(ConfigError, match="on the roster already"):
        place.invite("bank")
    with pytest.raises(ConfigError, match="cannot name a member"):
        place.invite("../bank")
    with pytest.raises(ConfigError, match="must say where the hub is"):
        Invitations(place.root / "hub").make(place.home, "late", "party", "", 60)
    with pytest.raises(ConfigError, match="is the home of a party"):
        Invitations(place.root / "bank").make(MemberHome.load(place.root / "bank"), "x", "party", "tcp://a:1", 60)


def test_the_commands_do_the_same(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    hub, bank = str(place.root / "hub"), str(place.root / "our bank")
    assert cli.main(["invite", "bank", "--home", hub]) == 0
    token = capsys.readouterr().out.strip()
    assert cli.main(["join", token, "--home", bank]) == 0
    assert MemberHome.load(place.root / "our bank").identity.fingerprint in capsys.readouterr().out
    assert cli.main(["members", hub]) == 0
    listed = capsys.readouterr().out
    fingerprint = MemberHome.load(place.root / "our bank").identity.fingerprint
    assert "proposed" in listed and fingerprint not in listed
    assert cli.main(["members", hub, "confirm", "bank", "AAAA"]) == 2
    assert cli.main(["members", hub, "confirm", "bank", fingerprint]) == 0
    assert cli.main(["members", hub]) == 0 and fingerprint in capsys.readouterr().out
    assert cli.main(["join", token, "--home", bank]) == 2
    assert "a member's home already" in capsys.readouterr().err
    assert cli.main(["members", hub, "revoke", "bank"]) == 0
    assert set(place.home.roster) == {"hub"}
