"""Who may play what in a run, and how: checked by the coordinator before it invites, and again by every member invited.

A party cannot leave this to the coordinator: one that invites itself to an intersection as a party learns ids, and
one that appoints a party to its own role hands that party the key. One that asks for a key which can be broken hands
it to everybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fednb.errors import DataError, Refused
from fednb.protocols.base import Params, Protocol
from fednb.typed import known
from fednb.wire.endpoint import Presence

KEY_HOLDER = "coordinator"  # the role that only the federation's coordinator plays, and its only one


def check_cast(
    cast: Mapping[str, Sequence[str]], protocol: Protocol, members: Mapping[str, Presence], coordinator: str
) -> None:
    """Raises DataError for a cast that is not whole, Refused for one that would tell somebody too much."""
    seen: set[str] = set()
    for role, players in cast.items():
        if role not in protocol.roles:
            raise DataError(f"{protocol.name} has no role {role!r}; its roles are {', '.join(protocol.roles)}.")
        if not players or (len(players) > 1 and not protocol.roles[role].many):
            raise DataError(f"{protocol.name} needs one member as {role}, not {len(players)}.")
        for player in players:
            if player not in members or members[player].kind not in ("party", "coordinator"):
                known = ", ".join(sorted(name for name, seen in members.items() if seen.kind == "party"))
                raise DataError(f"there is no party {player!r} in this federation; its parties are {known}.")
            if player in seen:
                raise DataError(f"{player} cannot play two roles in one run.")
            if role == KEY_HOLDER and player != coordinator:
                raise Refused(f"{player} is not the coordinator of this federation.", rule="coordinator")
            if role != KEY_HOLDER and members[player].kind == "coordinator":
                raise Refused(
                    f"{player} holds the secret key and cannot play {role}: it would read what is meant for the "
                    "others.",
                    rule="coordinator apart",
                )
            seen.add(player)
    for role in protocol.roles:
        if role not in cast:
            raise DataError(f"{protocol.name} needs a member as {role}.")


def check_params(params: Mapping[str, Any], protocol: Protocol, me: str) -> Params:
    """As the protocol has them. Raises DataError for what it does not take, Refused for keys as tests use them."""
    try:
        found: Params = msgspec.convert(params, known(protocol.params))
    except msgspec.ValidationError as error:
        raise DataError(f"{protocol.name} does not take these parameters: {error}") from None
    if getattr(found, "insecure_short_key", False):
        raise Refused(
            f"{me} takes part in no run with keys that can be broken; insecure_short_key is for tests of roles.",
            member=me,
            rule="key length",
        )
    return found
