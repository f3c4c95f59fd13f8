"""Keeping a model: each party puts its own part aside, sealed, and later says whether it still has it unchanged.

    coordinator                                party, each by itself (its part of a fit)
        ── run "model_part" save ───────────────> a copy under this run's id, a secret salt beside it; its seal
        ── run "model_part" check ──────────────> the seal of what it has, computed anew

A seal is an HMAC under the salt, which stays with the part: it tells equal from changed, and cannot be tried against
guessed coefficients.

| role | learns |
|---|---|
| party | nothing |
| coordinator, analyst | a seal of each party's part, random to whoever lacks the salt |
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.codec import encode
from fednb.wire.link import Link
from fednb.wire.message import Message

# what a store notes beside the values, and what it keeps of a table that the same run made
_ABOUT = ("protocol", "role", "frame", "salt", "account", "keys", "table", "on", "digest", "index", "origin", "recipe")


class PartParams(Params):
    action: Literal["save", "check"]


class Values(Message):
    values: dict[str, Any]


def party(link: Link, data: Dataset, params: PartParams, run: RunContext) -> Outcome:
    if params.action == "save":
        own, salt = _own(link.me, data.part), secrets.token_bytes(32)
        return Outcome(private={**own, "salt": salt}, public={"seal": seal(own, salt)})
    return Outcome(public={"seal": seal_of(link.me, data.part)})


def seal_of(party: str, part: Mapping[str, Any]) -> str:
    """The seal of a saved part as it is now. Raises DataError for a part that was not saved."""
    own = _own(party, part)
    if "salt" not in part:
        raise DataError(f"{party} has not saved its part of this model; save it first.")
    return seal(own, part["salt"])


def check_seal(party: str, part: Mapping[str, Any], kept: str) -> None:
    """Raises DataError unless a part is the one that was saved when this seal was made."""
    if not hmac.compare_digest(seal_of(party, part).encode(), kept.encode()):
        raise DataError(f"{party}'s part of the model is not the one that was saved with it. Fit the model again.")


def _own(party: str, part: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: part[name] for name in sorted(part) if name not in _ABOUT}
    if not own:
        raise DataError(f"{party} holds no model of this run; fit one first.")
    return own


def seal(values: Mapping[str, Any], salt: bytes) -> str:
    """64 hexadecimal digits."""
    digest = hmac.new(bytes(salt), digestmod=hashlib.sha256)
    for frame in encode(Values(values=dict(values))):
        digest.update(memoryview(frame).nbytes.to_bytes(8, "big"))
        digest.update(frame)
    return digest.hexdigest()


PROTOCOL = Protocol(
    name="model_part",
    version=1,
    params=PartParams,
    roles={"party": Role(party, many=True, needs=("part",))},
    learns={"party": "nothing new", "coordinator": "a seal of each party's part, random without its salt"},
)
