"""How a member changes its keys without leaving: old and new ones are good side by side, then the old ones die.

    the member           fednb members HOME rotate      new keys beside the old; prints a card, signed with both
    each other member    compares the new fingerprint by telephone, as at the beginning, then
                         fednb members HOME add CARD FINGERPRINT   both are good there, for some days
    the member           fednb members HOME switch      the new ones are in use, the old secret ones are deleted
    each other member    fednb members HOME retire NAME            the old ones die; they do by themselves on that day

Nothing here goes over the network: cards travel by any channel, and running members take up what changes in their home.
The hub's own keys are not changed like this: every member finds the hub by them.
"""

from __future__ import annotations

import os
import time

import msgspec
import zmq
from zmq.utils import monitor

from fednb.errors import ConfigError, LinkError
from fednb.typed import known
from fednb.wire.keys import Identity, MemberHome, PublicIdentity, Roster, Successor, write_whole

NEXT = "identity.next.json"
FORMER = "former.json"  # public keys of one's own that are no longer in use
NEVER = 4102444800.0  # 2100: a member's own old keys end when it says so
HUB_SECONDS = 10.0
_MOST = 4096  # characters of a card


class Succession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member's card while it changes keys."""

    member: PublicIdentity  # with its new keys
    old: str  # signature by the old keys, hex: whoever made the card has them
    new: str  # and by the new ones


def rotate(home: MemberHome) -> Succession:
    """Make new keys beside the present ones, or find those that were made before. Raises ConfigError."""
    if home.kind == "hub":
        raise ConfigError("the hub's keys are what its members find it by: a hub with new keys is joined anew.")
    mine = home.roster[home.name]
    made = (home.folder / NEXT).exists()
    following = Identity.load(home.folder, NEXT) if made else Identity.create(home.folder, home.name, NEXT)
    new = following.public(home.kind)
    _put(home, msgspec.structs.replace(mine, next=Successor(new.curve, new.verify, NEVER)))
    said = _signed(home.identity.public(home.kind), new)
    return Succession(new, home.identity.sign(said).hex(), following.sign(said).hex())


def succeed(home: MemberHome, card: Succession, fingerprint: str, days: float) -> MemberHome:
    """At another member: both keys are good from now on, the old ones for `days`. Raises ConfigError."""
    new = card.member.present
    if new.name == home.name:
        raise ConfigError("that is this member's own card: it goes to the others.")
    old = home.roster.get(new.name)
    if old is None or old.kind != new.kind:
        raise ConfigError(f"{new.name} is not on the roster of {home.name}: let it join first.")
    if old.next is not None and old.successor != new:
        raise ConfigError(f"{new.name} is changing to other keys already: retire its old ones first.")
    new.check_fingerprint(fingerprint)
    said = _signed(old.present, new)
    if not old.present.verifies(bytes.fromhex(card.old), said) or not new.verifies(bytes.fromhex(card.new), said):
        raise ConfigError(f"the card is not signed with the keys of {new.name} that are on this roster: ask again.")
    return _put(home, msgspec.structs.replace(old, next=Successor(new.curve, new.verify, time.time() + 86400 * days)))


def switch(home: MemberHome) -> MemberHome:
    """Use the new keys from now on, and delete the old secret ones. Raises ConfigError."""
    mine = home.roster[home.name]
    if mine.successor is None:
        raise ConfigError(f"{home.name} has no new keys: make them with `fednb members {home.folder} rotate`.")
    following = home.identity if home.identity.public(home.kind) == mine.successor else None
    if following is None:  # else a switch before this one was cut off here
        following = Identity.load(home.folder, NEXT)
        if following.public(home.kind) != mine.successor:
            raise ConfigError(f"{home.folder / NEXT} holds other keys than the roster announces; restore it.")
        if home.hub_address:
            _check_known(home, following)
        gone = [*(keys for keys in former(home) if keys != mine.present), mine.present]
        write_whole(home.folder / FORMER, msgspec.json.encode(gone))
        os.replace(home.folder / NEXT, home.folder / "identity.json")
    return _put(MemberHome(home.folder, following, home.roster, home.hub_address), mine.successor)


def retire(home: MemberHome, name: str) -> MemberHome:
    """At another member: the old keys of `name` are no longer good. Raises ConfigError."""
    member = home.roster.get(name)
    if member is None or member.successor is None or name == home.name:
        raise ConfigError(f"{name!r} is not changing its keys at {home.name}.")
    return _put(home, member.successor)


def former(home: MemberHome) -> list[PublicIdentity]:
    """One's own public keys of before: what they signed, they signed."""
    try:
        return msgspec.json.decode((home.folder / FORMER).read_bytes(), type=known(list[PublicIdentity]))
    except FileNotFoundError:
        return []
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(f"{home.folder / FORMER} is damaged: restore it from a backup.") from None


def read_card(text: str) -> Succession | None:
    """None for what is no card of a member that changes its keys."""
    try:
        card = msgspec.json.decode(text[:_MOST], type=known(Succession))
        bytes.fromhex(card.old + card.new)
    except (msgspec.MsgspecError, ValueError):
        return None
    return card


def _check_known(home: MemberHome, following: Identity) -> None:
    """Whether the hub lets the new keys in. Raises ConfigError, LinkError: a member that is shut out cannot go back."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    events = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        following.unlock(socket)
        socket.curve_serverkey = home.roster.hub.curve.encode()
        socket.connect(home.hub_address)
        if not events.poll(int(1000 * HUB_SECONDS)):
            raise LinkError(f"the hub at {home.hub_address} does not answer; switch when it does.", member="hub")
        if monitor.recv_monitor_message(events)["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise ConfigError(
                f"the hub does not know the new keys of {home.name} yet: have the card added there, and at each other "
                "member, then switch."
            )
    except zmq.ZMQError as error:
        raise ConfigError(f"{home.hub_address!r} is not an address of a hub: {error.strerror}") from None
    finally:
        socket.disable_monitor()
        events.close()
        socket.close()
        context.term()


def _put(home: MemberHome, member: PublicIdentity) -> MemberHome:
    roster = Roster(member if each.name == member.name else each for each in home.roster.values())
    return MemberHome.write(home.folder, home.identity, roster)


def _signed(old: PublicIdentity, new: PublicIdentity) -> bytes:
    fields = (new.name, new.kind, old.curve, old.verify, new.curve, new.verify)
    return b"fednb succession" + msgspec.msgpack.encode(fields)
