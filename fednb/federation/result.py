"""How a run ended, as its user gets it: what members made public, or the exception that one of them raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from fednb import errors
from fednb.errors import LinkError, RunCancelled, RunFailed
from fednb.federation import messages as m
from fednb.text import plain
from fednb.typed import known

S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True)
class RunResult:
    """How a run ended well: what each member made public, and what crossed."""

    run: str
    results: Mapping[str, m.MemberResult]
    seconds: float
    notices: tuple[str, ...] = ()  # what owners of rows should know: whom the coordinator's placement exposes

    def public(self, member: str) -> dict[str, Any]:
        return self.results[member].public

    def read(self, member: str, kind: type[S]) -> S:
        """What a member made public, as the struct that it should be. Raises UnexpectedMessage for anything else."""
        try:
            return msgspec.convert(self.public(member), known(kind))
        except (KeyError, msgspec.ValidationError) as error:
            raise errors.UnexpectedMessage(
                f"{member} made something public that cannot be read: {error}", member=member
            ) from None

    @property
    def bytes(self) -> int:
        """Payload that crossed between members."""
        return sum(sum(result.bytes_out.values()) for result in self.results.values())

    @property
    def operations(self) -> dict[str, int]:
        """Encrypted-arithmetic operations of all members, by kind."""
        total: dict[str, int] = {}
        for result in self.results.values():
            for kind, count in result.operations.items():
                total[kind] = total.get(kind, 0) + count
        return total


def rebuilt(text: str, kind: str, member: str, rule: str = "", run: str = "") -> errors.FednbError:
    """The exception that a member raised, rebuilt from its name: only fednb's own types, by an explicit list."""
    text, member, rule = plain(text), plain(member, 64), plain(rule, 200)
    where = f"{member}: {text}" if member and not text.startswith(member) else text
    simple: dict[str, type[errors.FednbError]] = {
        "ConfigError": errors.ConfigError,
        "DataError": errors.DataError,
        "CryptoError": errors.CryptoError,
    }
    linked: dict[str, type[LinkError]] = {
        "PeerLost": errors.PeerLost,
        "LinkTimeout": errors.LinkTimeout,
        "UnexpectedMessage": errors.UnexpectedMessage,
        "SealBroken": errors.SealBroken,
        "VersionMismatch": errors.VersionMismatch,
    }
    if kind in simple:
        return simple[kind](where)
    if kind in linked:
        return linked[kind](where, member=member)
    refused = {"Refused": errors.Refused, "QuotaExceeded": errors.QuotaExceeded}
    if kind in refused:
        return refused[kind](f"{where} [rule: {rule}]" if rule else where, member=member, rule=rule)
    if kind == "RunCancelled":
        return RunCancelled(where, run=run, member=member)
    return RunFailed(where, run=run, member=member)
