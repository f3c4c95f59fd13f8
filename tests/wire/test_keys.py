"""Keys stay private on disk and in print; rosters and homes refuse what does not fit."""

from __future__ import annotations

import copy
import pickle
import stat
from pathlib import Path

import pytest

from fednb.errors import ConfigError
from fednb.wire.keys import Identity, MemberHome, PublicIdentity, Roster, enrol_all

KINDS = {"hub": "hub", "coordinator": "coordinator", "bank": "party", "agency": "party", "analyst": "analyst"}


def test_keys_come_back_from_disk_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    made = Identity.create(tmp_path / "bank", "bank")
    loaded = Identity.load(tmp_path / "bank")
    assert loaded.fingerprint == made.fingerprint
    assert made.public("party").verifies(loaded.sign(b"text"), b"text")
    assert stat.S_IMODE((tmp_path / "bank").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "bank" / "identity.json").stat().st_mode) == 0o600


def test_existing_keys_are_never_replaced(tmp_path: Path) -> None:
    Identity.create(tmp_path / "bank", "bank")
    with pytest.raises(ConfigError, match="has keys already"):
        Identity.create(tmp_path / "bank", "bank")


@pytest.mark.parametrize(("what", "mode", "command"), [("identity.json", 0o640, "chmod 600"), ("", 0o755, "chmod 700")])
def test_looser_modes_are_refused_with_the_command_that_helps(
    tmp_path: Path, what: str, mode: int, command: str
) -> None:
    Identity.create(tmp_path / "bank", "bank")
    (tmp_path / "bank" / what).chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}\). Run: {command}"):
        Identity.load(tmp_path / "bank")


def test_secrets_are_in_no_repr_no_pickle_and_no_error(tmp_path: Path) -> None:
    identity = Identity.create(tmp_path / "bank", "bank")
    path = tmp_path / "bank" / "identity.json"
    text = path.read_text()
    secret = identity._curve_secret.decode()
    assert secret in text and secret not in repr(identity) and identity.fingerprint in repr(identity)
    for spread in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="never copied"):
            spread(identity)
    path.write_text(text.replace('"curve_public"', '"curve_publik"'))
    with pytest.raises(ConfigError, match="damaged") as caught:
        Identity.load(tmp_path / "bank")
    assert secret not in str(caught.value) and caught.value.__cause__ is None


def test_a_signature_is_valid_for_its_signer_and_text_only() -> None:
    bank, agency = Identity.generate("bank"), Identity.generate("agency")
    signature = bank.sign(b"text")
    assert bank.public("party").verifies(signature, b"text")
    assert not bank.public("party").verifies(signature, b"texT")
    assert not agency.public("party").verifies(signature, b"text")
    assert not bank.public("party").verifies(b"short", b"text")


def test_a_federation_is_enrolled_once_and_its_keys_are_kept(tmp_path: Path) -> None:
    first = enrol_all(tmp_path, KINDS, "tcp://127.0.0.1:5000")
    again = enrol_all(tmp_path, KINDS)
    home = MemberHome.load(tmp_path / "agency")
    assert home.hub_address == "tcp://127.0.0.1:5000"
    assert home.name == "agency" and home.kind == "party"
    assert home.roster.hub.name == "hub" and home.roster.of_kind("party") == ("bank", "agency")
    assert {name: first[name].identity.fingerprint for name in KINDS} == {
        name: again[name].identity.fingerprint for name in KINDS
    }
    assert home.roster.by_curve_key(home.roster["bank"].curve_key) == home.roster["bank"]
    assert home.with_hub("tcp://127.0.0.1:6000").hub_address == MemberHome.load(tmp_path / "agency").hub_address


def test_a_home_whose_roster_has_other_keys_is_refused(tmp_path: Path) -> None:
    homes = enrol_all(tmp_path, KINDS)
    stranger = Identity.generate("bank").public("party")
    Roster([*(member for name, member in homes["bank"].roster.items() if name != "bank"), stranger]).save(
        tmp_path / "bank" / "roster.json"
    )
    with pytest.raises(ConfigError, match="other keys for 'bank'"):
        MemberHome.load(tmp_path / "bank")


def test_a_roster_is_refused_when_it_is_ambiguous_or_malformed(tmp_path: Path) -> None:
    bank, hub = Identity.generate("bank").public("party"), Identity.generate("hub").public("hub")
    with pytest.raises(ConfigError, match="twice"):
        Roster([hub, bank, bank])
    with pytest.raises(ConfigError, match="exactly one hub"):
        Roster([bank])
    with pytest.raises(ConfigError, match="twice"):
        Roster([hub, bank, PublicIdentity("twin", "party", bank.curve, bank.verify)])
    with pytest.raises(ConfigError, match="malformed"):
        PublicIdentity("bank", "party", "short", bank.verify)
    with pytest.raises(ConfigError, match="cannot name a member"):
        Identity.generate("bank#1")
    path = tmp_path / "roster.json"
    path.write_text('{"members": [], "extra": 1}')
    with pytest.raises(ConfigError, match=r"roster\.json"):
        Roster.load(path)
    with pytest.raises(ConfigError, match="not a member's home"):
        MemberHome.load(tmp_path)
