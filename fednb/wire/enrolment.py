"""How somebody becomes a member: a one-time invitation, and people who compare fingerprints.

    hub's owner          fednb invite agency  ──token, by any channel that reaches the right person──>  agency's owner
    agency               ── Enrol: its new public keys, signed ── under the token's one-time CURVE key ──>  hub
    hub                  <── Enrolled: everybody's public keys ──   the token is used up
    both owners          compare fingerprints by telephone, then confirm: only then the keys go onto a roster

The token holds the hub's address and keys and a CURVE key pair made for it alone; the hub keeps the public half only.
So who has no token does not get past the handshake, and what the hub itself is told or tells is a proposal: no key
is believed because a hub sent it.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from fednb.errors import ConfigError, LinkError, VersionMismatch
from fednb.typed import known
from fednb.wire import WIRE_VERSION, relay
from fednb.wire.keys import Identity, Kind, MemberHome, PublicIdentity, Roster, write_whole

PREFIX = "fednb1."
ANSWER_SECONDS = 10.0
_MOST = 4096  # characters of a token or a card


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What an invited person gets. Whoever has it can enrol under this name, once."""

    address: str
    hub: PublicIdentity
    name: str
    kind: Kind
    curve_public: str
    curve_secret: str
    expires: float  # unix seconds

    def __repr__(self) -> str:
        return f"Token(for {self.name!r})"

    @property
    def text(self) -> str:
        return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode()

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises ConfigError, which does not repeat the token."""
        try:
            if not text.startswith(PREFIX) or len(text) > _MOST:
                raise ValueError
            token = msgspec.msgpack.decode(base64.urlsafe_b64decode(text.removeprefix(PREFIX)), type=known(cls))
            if len(z85.decode(token.curve_public)) != 32 or len(z85.decode(token.curve_secret)) != 32:
                raise ValueError
        except (ValueError, KeyError, binascii.Error, msgspec.MsgspecError):
            raise ConfigError("this is no invitation, or a part of it is missing: copy the whole line again.") from None
        return token


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the hub keeps of a token."""

    name: str
    kind: Kind
    curve: str  # the token's public key
    expires: float
    used: bool = False


class Enrol(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """To the hub. `wire` stays first in every version."""

    wire: int
    identity: PublicIdentity
    signature: bytes  # by that identity, over itself and the token's key: whoever enrols has the secret keys


class Enrolled(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """From the hub: everybody's public keys, to be confirmed one by one."""

    members: list[PublicIdentity]


class Invitations:
    """The hub's invitations, one a name, in a folder of its home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder = home / "invitations"

    def make(self, home: MemberHome, name: str, kind: Kind, address: str, seconds: float) -> Token:
        """A new invitation; an earlier one for the same name is void. Raises ConfigError for a name that is taken."""
        if home.kind != "hub":
            raise ConfigError(f"{home.folder} is the home of a {home.kind}: the hub's owner invites, from its home.")
        if kind == "hub" or name in home.roster:
            raise ConfigError(f"{name} is on the roster already: choose another name, or revoke that member first.")
        if not address or address.endswith(":0"):
            raise ConfigError("the invitation must say where the hub is: give --address tcp://HOST:PORT.")
        Identity.generate(name)  # a name that cannot be one is refused here
        public, secret = zmq.curve_keypair()
        token = Token(address, home.roster.hub, name, kind, public.decode(), secret.decode(), time.time() + seconds)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._write(Invitation(name, kind, token.curve_public, token.expires))
        return token

    def by_key(self, key: bytes) -> Invitation | None:
        """Whose one-time CURVE key (32 bytes) this is, used up and expired ones too."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                found = msgspec.json.decode(path.read_bytes(), type=known(Invitation))
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                continue
            if z85.decode(found.curve) == key:
                return found
        return None

    def refusal(self, invitation: Invitation, roster: Roster) -> str:
        """Why it is void; "" while it is good."""
        if invitation.used:
            return f"the invitation for {invitation.name} was used before"
        if time.time() > invitation.expires:
            return f"the invitation for {invitation.name} has expired"
        if invitation.name in roster:
            return f"{invitation.name} is a member already"
        return ""

    def take(self, invitation: Invitation, data: memoryview, roster: Roster) -> str:
        """Use an invitation up and keep the keys as a proposal. Returns why not, or ""."""
        current = self.by_key(z85.decode(invitation.curve))  # another connection may have used it
        refusal = "the invitation was withdrawn" if current is None else self.refusal(current, roster)
        if refusal:
            return refusal
        wire = relay.version_of(data)
        if wire != WIRE_VERSION:
            return f"this hub speaks version {WIRE_VERSION} of the wire format, {invitation.name} version {wire}"
        try:
            enrol = relay.unpack(data, Enrol)
        except ConfigError:  # malformed keys
            enrol = None
        if enrol is None:
            return f"{invitation.name} enrolled wrongly"
        mine = enrol.identity
        if (mine.name, mine.kind) != (invitation.name, invitation.kind):
            return f"the invitation is for {invitation.name}, a {invitation.kind}, and for nobody else"
        if roster.by_curve_key(mine.curve_key) or any(mine.verify == member.verify for member in roster.values()):
            return f"{mine.name} came with the keys of another member"
        if not mine.verifies(enrol.signature, _signed(mine, invitation.curve)):
            return f"{mine.name} does not have the keys that it came with"
        self._write(msgspec.structs.replace(invitation, used=True))  # first: at most once, also when we die here
        propose(self._home, [mine])
        return ""

    def _write(self, invitation: Invitation) -> None:
        write_whole(self._folder / f"{invitation.name}.json", msgspec.json.encode(invitation))


def join(token: Token, folder: Path, timeout: float = ANSWER_SECONDS) -> MemberHome:
    """Make keys in `folder`, hand their public halves in, and write a home that knows the hub and itself.

    Everybody else is a proposal until confirmed. Raises LinkError, VersionMismatch, ConfigError.
    """
    if time.time() > token.expires:
        raise ConfigError(f"the invitation for {token.name} has expired: ask the hub's owner for a new one.")
    if (folder / "roster.json").exists():
        raise ConfigError(f"{folder} is a member's home already: choose another folder with --home.")
    known = (folder / "identity.json").exists()  # an attempt before this one came no further
    identity = Identity.load(folder) if known else Identity.create(folder, token.name)
    if identity.name != token.name:
        raise ConfigError(f"{folder} holds the keys of {identity.name}, and the invitation is for {token.name}.")
    mine = identity.public(token.kind)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        for option in (zmq.SNDTIMEO, zmq.RCVTIMEO):
            socket.setsockopt(option, int(timeout * 1000))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, relay.MAX_RECORD)
        socket.curve_serverkey = token.hub.curve.encode()
        socket.curve_publickey, socket.curve_secretkey = token.curve_public.encode(), token.curve_secret.encode()
        socket.connect(token.address)
        enrol = Enrol(WIRE_VERSION, mine, identity.sign(_signed(mine, token.curve_public)))
        socket.send(relay.ENROL + relay.pack(enrol))
        said = socket.recv()
    except zmq.Again:
        raise LinkError(
            f"the hub at {token.address} did not take the invitation for {token.name} within {timeout:g} s. It was "
            "used, has expired or was withdrawn, or no hub with its key is there; the hub's log says which."
        ) from None
    except zmq.ZMQError as error:
        raise ConfigError(f"the invitation's address {token.address!r} cannot be used: {error.strerror}") from None
    finally:
        socket.close()
        context.term()
    if said[:1] == relay.REFUSED:
        refused = relay.unpack(said[1:], relay.Refusal)
        if refused is not None and refused.wire != WIRE_VERSION:
            raise VersionMismatch(f"the hub speaks version {refused.wire} of the wire format, this is {WIRE_VERSION}.")
        raise LinkError(f"the hub refused: {refused.reason if refused else 'it did not say why'}.")
    answer = relay.unpack(said[1:], Enrolled) if said[:1] == relay.ENROLLED else None
    if answer is None:
        raise LinkError("the hub answered with something that is no roster.")
    home = MemberHome.write(folder, identity, Roster([token.hub, mine]), token.address)
    propose(folder, [member for member in answer.members if member.name not in home.roster and member.kind != "hub"])
    return home


def proposed(folder: Path) -> dict[str, PublicIdentity]:
    """Members whose keys came over the network and have not been confirmed, by name."""
    try:
        members = msgspec.json.decode((folder / "proposed.json").read_bytes(), type=known(list[PublicIdentity]))
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(f"{folder / 'proposed.json'} is damaged: delete it, and invite its members again.") from None
    return {member.name: member for member in members}


def propose(folder: Path, members: list[PublicIdentity]) -> None:
    """Keep keys until somebody has compared their fingerprints."""
    # what somebody else says that a member's next keys are has nobody compared
    known = proposed(folder) | {member.name: member.present for member in members}
    write_whole(folder / "proposed.json", msgspec.json.encode(list(known.values())))


def card(home: MemberHome) -> str:
    """This member's public keys, one line, to be sent to others by any channel."""
    return msgspec.json.encode(home.roster[home.name].present).decode()


def read_card(text: str) -> PublicIdentity:
    try:
        return msgspec.json.decode(text[:_MOST], type=known(PublicIdentity))
    except msgspec.MsgspecError:
        raise ConfigError("this is no member's card: `fednb members HOME card` prints one.") from None


def confirm(home: MemberHome, member: PublicIdentity, fingerprint: str) -> MemberHome:
    """Put a member on this home's roster, if the fingerprint that its owner read out is that of these keys."""
    member = member.present
    member.check_fingerprint(fingerprint)
    if member.name in home.roster and home.roster[member.name] != member:
        raise ConfigError(f"{member.name} is on the roster with other keys: revoke these first.")
    roster = Roster([*(m for m in home.roster.values() if m.name != member.name), member])
    changed = MemberHome.write(home.folder, home.identity, roster)
    left = [each for name, each in proposed(home.folder).items() if name != member.name]
    write_whole(home.folder / "proposed.json", msgspec.json.encode(left))
    return changed


def revoke(home: MemberHome, name: str) -> MemberHome:
    """Take a member off this home's roster, and its proposed keys with it."""
    if name not in home.roster:
        raise ConfigError(f"{name!r} is not on the roster; on it are {', '.join(home.roster)}.")
    if name in (home.name, home.roster.hub.name):
        raise ConfigError(f"{name} cannot be taken off this roster: it is this member itself, or the hub.")
    roster = Roster(member for member in home.roster.values() if member.name != name)
    return MemberHome.write(home.folder, home.identity, roster)


def create_hub(folder: Path) -> MemberHome:
    """Keys and a roster for a new hub, which knows nobody yet."""
    identity = Identity.create(folder, "hub")
    return MemberHome.write(folder, identity, Roster([identity.public("hub")]))


def stamp(home: Path) -> int:
    """Changes when the roster in a home was changed."""
    try:
        return os.stat(home / "roster.json").st_mtime_ns
    except OSError:
        return 0


def _signed(identity: PublicIdentity, curve: str) -> bytes:
    fields = (identity.name, identity.kind, identity.curve, identity.verify, curve)
    return b"fednb enrol" + msgspec.msgpack.encode(fields)
