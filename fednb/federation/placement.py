"""Whom a coordinator inside a party's organisation exposes, in words for whoever reads a run's result.

No check can take this back: whoever holds the secret key and what one party receives reads it, sealed or not. So that
placement needs the agreement of all other parties (`config`, `policy.mode`), and every run that it touches says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fednb.federation.cast import KEY_HOLDER
from fednb.protocols.base import Protocol


def exposure(organisation: str, protocol: Protocol, cast: Mapping[str, Sequence[str]]) -> list[str]:
    """What `organisation` could read in such a run; nothing for a run without a coordinator or without that party."""
    roles = [role for role, players in cast.items() if organisation in players]
    if not roles or KEY_HOLDER not in cast:
        return []
    read = protocol.learns_with_key.get(roles[0], "what the others sent it encrypted or blinded")
    others = sorted({name for role, players in cast.items() if role != KEY_HOLDER for name in players} - {organisation})
    return [
        f"the coordinator runs in {organisation}'s organisation, which {' and '.join(others)} accepted: "
        f"with the coordinator's secrets {organisation} could read {read}."
    ]
