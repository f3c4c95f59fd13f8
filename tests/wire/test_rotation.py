"""Members that change their keys, and rosters that change under running members, over real sockets."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fednb import cli
from fednb.errors import ConfigError, LinkError, PeerLost
from fednb.policy.audit import AuditLog
from fednb.wire import rotation
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.endpoint import Conversation
from fednb.wire.enrolment import card, confirm, propose, proposed, revoke
from fednb.wire.keys import Identity, MemberHome, PublicIdentity, Roster, Successor
from fednb.wire.message import Message

Eventually = Callable[[Callable[[], bool]], None]


class Note(Message):
    n: int


def talk_between(one: DealerEndpoint, other: DealerEndpoint, about: str) -> tuple[Conversation, Conversation]:
    talks = one.open(other.me, about), other.open(one.me, about)
    talks[0].send(Note(0))
    assert talks[1].recv(Note, timeout=10).n == 0
    return talks


@pytest.fixture
def root(federation: Any) -> Path:
    for home in federation.homes.values():
        home.with_hub(federation.hub.address)
    return Path(federation.homes["bank"].folder).parent


def home(root: Path, name: str) -> MemberHome:
    return MemberHome.load(root / name)


def succeed_everywhere(root: Path, name: str, days: float = 7.0) -> rotation.Succession:
    made = rotation.rotate(home(root, name))
    for other in ("hub", "agency", "coordinator", "analyst"):
        rotation.succeed(home(root, other), made, made.member.fingerprint, days)
    return made


# ------------------------------------------------------------ rosters under running members


def test_a_new_member_is_known_to_running_members_without_a_restart(
    federation: Any, root: Path, eventually: Eventually
) -> None:
    bank = federation.connect("bank")
    newcomer = Identity.create(root / "telco", "telco").public("party")
    telco = MemberHome.write(
        root / "telco",
        Identity.load(root / "telco"),
        Roster([home(root, "hub").roster["hub"], home(root, "bank").roster["bank"], newcomer]),
        federation.hub.address,
    )
    confirm(home(root, "hub"), newcomer, newcomer.fingerprint)
    eventually(lambda: "telco" in federation.hub.roster)
    with DealerEndpoint(telco) as endpoint:
        with pytest.raises(ConfigError, match="there is no member 'telco'"):
            bank.open("telco", "early")
        confirm(home(root, "bank"), newcomer, newcomer.fingerprint)
        eventually(lambda: "telco" in bank.members() and bank.members()["telco"].up)
        for talk in talk_between(endpoint, bank, "hello"):
            talk.close()


def test_whom_a_running_member_takes_off_its_roster_is_cut_off_at_once(
    federation: Any, root: Path, eventually: Eventually
) -> None:
    bank, agency, coordinator = (federation.connect(name) for name in ("bank", "agency", "coordinator"))
    lost, kept = talk_between(bank, agency, "x"), talk_between(bank, coordinator, "x")
    revoke(home(root, "bank"), "agency")
    for talk in lost:
        with pytest.raises(PeerLost, match="agency is on the roster of bank no longer"):
            talk.recv(Note, timeout=10)
    with pytest.raises(ConfigError, match="there is no member 'agency'"):
        bank.open("agency", "again")
    again = agency.open("bank", "again")
    again.send(Note(1))
    eventually(lambda: bank._exchange.rejected > 0)
    kept[0].send(Note(5))
    assert kept[1].recv(Note, timeout=10).n == 5, "others are not disturbed"


def test_what_changed_between_reading_the_home_and_connecting_is_taken_up(
    federation: Any, root: Path, eventually: Eventually
) -> None:
    before = home(root, "bank")
    revoke(before, "agency")
    with DealerEndpoint(before, hub=federation.hub.address) as bank:
        eventually(lambda: "agency" not in bank.members())


def test_a_roster_with_another_hub_or_none_is_not_taken_up(
    federation: Any, root: Path, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    talks = talk_between(bank, agency, "x")
    file = root / "bank" / "roster.json"
    for wrong in (b"{", b'{"members": []}'):
        caplog.clear()
        file.write_bytes(wrong)
        eventually(lambda: "is not taken up" in caplog.text)
    talks[1].send(Note(3))
    assert talks[0].recv(Note, timeout=10).n == 3


# ------------------------------------------------------------ keys


def test_keys_change_under_a_conversation_that_goes_on(federation: Any, root: Path, eventually: Eventually) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    talks = talk_between(bank, agency, "long")
    old = home(root, "bank").identity
    made = succeed_everywhere(root, "bank")
    eventually(lambda: all(each.roster["bank"].next for each in (federation.hub, agency._home)))
    assert bank.sign(b"x") == old.sign(b"x"), "until it switches"
    switched = rotation.switch(home(root, "bank"))
    assert switched.identity.fingerprint == made.member.fingerprint
    eventually(lambda: bank.sign(b"x") == switched.identity.sign(b"x") and bank.members()["hub"].up)
    for n in range(1, 4):
        talks[0].send(Note(n))
        talks[1].send(Note(-n))
        assert talks[1].recv(Note, timeout=10).n == n and talks[0].recv(Note, timeout=10).n == -n
    for talk in talk_between(bank, agency, "new"):
        talk.close()
    assert not (root / "bank" / rotation.NEXT).exists()
    assert old.public("party").curve not in (root / "bank" / "identity.json").read_text()


def test_the_old_keys_die_and_a_connection_with_them_is_cut(
    federation: Any, root: Path, eventually: Eventually, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    stolen = home(root, "bank")
    (tmp_path / "thief").mkdir(mode=0o700)
    thief = MemberHome.write(tmp_path / "thief", stolen.identity, stolen.roster, federation.hub.address)
    succeed_everywhere(root, "bank")
    eventually(lambda: federation.hub.roster["bank"].next is not None)
    rotation.switch(home(root, "bank"))
    with DealerEndpoint(thief) as endpoint:
        assert endpoint.members()["hub"].up, "both are good for a while"
        rotation.retire(home(root, "hub"), "bank")
        eventually(lambda: endpoint._failure is not None)
        assert "has other keys now" in str(endpoint._failure)
    with pytest.raises(LinkError, match="does not know the key of bank"):
        DealerEndpoint(thief, timeout=3)
    assert "it uses keys that bank has no longer" in caplog.text
    DealerEndpoint(home(root, "bank")).close()


def test_old_keys_die_by_themselves_on_the_day_that_was_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = home(root, "bank").identity
    succeed_everywhere(root, "bank", days=2)
    member = home(root, "agency").roster["bank"]
    assert member.verifies(old.sign(b"x"), b"x") and not member.over
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * 86400 + 1)
    assert member.over and not member.verifies(old.sign(b"x"), b"x")
    roster = home(root, "agency").roster
    assert roster.by_curve_key(member.curve_key) is None
    assert member.successor is not None and roster.by_curve_key(member.successor.curve_key) == member
    following = Identity.load(root / "bank", rotation.NEXT)
    assert member.verifies(following.sign(b"x"), b"x")


def test_a_card_is_believed_with_the_old_signature_and_the_fingerprint_only(root: Path) -> None:
    made = rotation.rotate(home(root, "bank"))
    agency = home(root, "agency")
    with pytest.raises(ConfigError, match="Compare again by telephone"):
        rotation.succeed(agency, made, agency.identity.fingerprint, 7)
    forger = Identity.generate("bank")
    new = forger.public("party")
    said = rotation._signed(agency.roster["bank"], new)
    forged = rotation.Succession(new, forger.sign(said).hex(), forger.sign(said).hex())
    with pytest.raises(ConfigError, match="not signed with the keys of bank that are on this roster"):
        rotation.succeed(agency, forged, new.fingerprint, 7)
    other = msgspec.structs.replace(made, member=msgspec.structs.replace(made.member, kind="coordinator"))
    with pytest.raises(ConfigError, match="not on the roster"):
        rotation.succeed(agency, other, made.member.fingerprint, 7)
    assert home(root, "agency").roster["bank"].next is None
    rotation.succeed(agency, made, made.member.fingerprint, 7)
    assert rotation.rotate(home(root, "bank")) == made, "asked for again, it is the same card"


def test_nobody_slips_in_next_keys_with_a_card_or_a_proposal(root: Path) -> None:
    """Only the present keys of a card have the fingerprint that people compare."""
    evil = Identity.generate("telco").public("party")
    honest = Identity.generate("telco").public("party")
    slipped = PublicIdentity(
        "telco", "party", honest.curve, honest.verify, Successor(evil.curve, evil.verify, time.time() + 1e6)
    )
    agency = confirm(home(root, "agency"), slipped, honest.fingerprint)
    assert agency.roster["telco"] == honest
    propose(root / "bank", [slipped])
    assert proposed(root / "bank")["telco"] == honest
    rotation.rotate(home(root, "bank"))
    assert "next" not in card(home(root, "bank"))


def test_a_member_does_not_switch_before_the_hub_knows_its_new_keys(federation: Any, root: Path) -> None:
    with pytest.raises(ConfigError, match="has no new keys: make them with"):
        rotation.switch(home(root, "bank"))
    rotation.rotate(home(root, "bank"))
    with pytest.raises(ConfigError, match="the hub does not know the new keys of bank yet"):
        rotation.switch(home(root, "bank"))
    assert home(root, "bank").identity.fingerprint == federation.homes["bank"].identity.fingerprint
    with pytest.raises(ConfigError, match="joined anew"):
        rotation.rotate(home(root, "hub"))


def test_a_switch_that_was_cut_off_is_finished_by_the_next(
    federation: Any, root: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed_everywhere(root, "bank")
    eventually(lambda: federation.hub.roster["bank"].next is not None)
    replace = os.replace

    def cut(source: Any, target: Any) -> None:
        replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", cut)
        rotation.switch(home(root, "bank"))
    between = home(root, "bank")
    assert between.roster["bank"].next is not None
    assert rotation.switch(between).roster["bank"].next is None
    assert len(rotation.former(home(root, "bank"))) == 1


def test_the_commands_do_the_same_and_older_heads_still_verify(
    federation: Any, root: Path, eventually: Eventually, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bank = str(root / "bank")
    log = AuditLog(root / "bank" / "audit", "bank", home(root, "bank").identity.sign)
    witness = AuditLog(tmp_path / "audit", "agency")
    witness.witness(log.append("cell"))
    assert cli.main(["members", bank, "rotate"]) == 0
    said = capsys.readouterr()
    made = said.out.strip()
    fingerprint = json.loads(made)["member"]
    new = PublicIdentity(**fingerprint).fingerprint
    assert new in said.err
    for other in ("hub", "agency"):
        assert cli.main(["members", str(root / other), "add", made, "AAAA"]) == 2
        assert cli.main(["members", str(root / other), "add", made, new, "--days", "1"]) == 0
    capsys.readouterr()
    assert cli.main(["members", str(root / "agency")]) == 0 and f", then {new}" in capsys.readouterr().out
    eventually(lambda: federation.hub.roster["bank"].next is not None)
    assert cli.main(["members", bank, "switch"]) == 0
    assert home(root, "bank").identity.fingerprint == new
    assert cli.main(["members", str(root / "agency"), "retire", "bank"]) == 0
    assert cli.main(["members", str(root / "agency"), "retire", "bank"]) == 2
    capsys.readouterr()
    after = AuditLog(root / "bank" / "audit", "bank", home(root, "bank").identity.sign)
    second = AuditLog(tmp_path / "audit2", "agency")
    second.witness(after.append("cell"))
    files = [str(tmp_path / name / "witnessed.jsonl") for name in ("audit", "audit2")]
    assert cli.main(["audit", "verify", bank, "--witness", files[0], "--witness", files[1]]) == 0
    assert "2 witnessed heads agree" in capsys.readouterr().out


def test_many_conversations_survive_a_change_of_keys(federation: Any, root: Path, eventually: Eventually) -> None:
    bank, agency = federation.connect("bank"), federation.connect("agency")
    talks = [talk_between(bank, agency, f"c{k}") for k in range(5)]
    succeed_everywhere(root, "bank")
    eventually(lambda: federation.hub.roster["bank"].next is not None)
    stop, sent = threading.Event(), [0] * 5

    def send() -> None:
        while not stop.is_set() and sent[0] < 5000:
            for k, (mine, _) in enumerate(talks):
                mine.send(Note(sent[k]))
                sent[k] += 1
            stop.wait(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    switched = rotation.switch(home(root, "bank"))
    eventually(lambda: bank.sign(b"x") == switched.identity.sign(b"x") and bank.members()["hub"].up)
    stop.set()
    sender.join()
    for k, (_, theirs) in enumerate(talks):
        assert [theirs.recv(Note, timeout=10).n for _ in range(sent[k])] == list(range(sent[k]))
