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
    own = {name: data.part[name] for name in sorted(data.part) if name not in _ABOUT}
    if not own:
        raise DataError(f"{link.me} holds no model of this run; fit one first.")
    if params.action == "save":
        salt = secrets.token_bytes(32)
        return Outcome(private={**own, "salt": salt}, public={"seal": seal(own, salt)})
    if "salt" not in data.part:
        raise DataError(f"{link.me} has not saved its part of this model; save it first.")
    return Outcome(public={"seal": seal(own, data.part["salt"])})


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
