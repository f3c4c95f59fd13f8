"""Scores of rows whose features lie at several parties: each adds up its own part, the active party gets the sum.

    active (model, X_a)             passive p (model, X_p)           passive q (model, X_q)
      |                               |─ Seed s_pq ──────────────────> |    two or more passive parties only
      | <─ Partial b_p + m(s_pq) ──── |                                |    integers modulo 2**64
      | <─ Partial b_q - m(s_pq) ─────┼─────────────────────────────── |
      | a + Σ b                       |                                |

The masks cancel in the sum, so the active party learns what all passive parties add to a row together. With a single
passive party that is this party's part of each row, which no protocol can hide from whoever gets the score.

| role | learns |
|---|---|
| active | each row's score; with one passive party also that party's share of it |
| passive | nothing; of several, each pair shares a random seed |
| coordinator, analyst | number of rows |
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np

from fednb.crypto import fixed_point
from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.features import Scaling, check_features
from fednb.protocols.rows import Matrix, by_part
from fednb.protocols.separable import Floats, sigmoid
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

FRACTION_BITS = 32
LIMIT_BITS = 56  # a party's part of a score is below 2**23; sums of up to 128 parties fit in 64 bits


class ScoreParams(Params):
    """Nothing to choose: the model says it all."""


class Seed(Message):
    discloses = Disclosure("a random seed")

    seed: bytes  # 32 random bytes


class Partial(Message):
    discloses = Disclosure("what features add to each row's score")

    part: np.ndarray  # uint64 [n], fixed point with 32 fraction bits, modulo 2**64


def active(link: Link, data: Dataset, params: ScoreParams, run: RunContext) -> Outcome:
    own = own_part(link.me, data)
    if "intercept" not in data.part:
        # a passive party in the active one's seat would learn what the others add to each row
        raise DataError(f"{link.me} was not the active party of this model; scores belong to the one that was.")
    linear = gather(link, own, run) + float(data.part["intercept"])
    family = str(data.part.get("family", "logistic"))
    private = {"scores": mean_of(family, linear, data.part), "linear": linear, "family": family}
    return Outcome(private=private, public={"rows": len(own)})


def passive(link: Link, data: Dataset, params: ScoreParams, run: RunContext) -> Outcome:
    part = own_part(link.me, data)
    contribute(link, part, run)
    return Outcome(public={"rows": len(part)})


def gather(link: Link, own: Floats, run: RunContext) -> Floats:
    """At the active party: the sum of all parties' parts of each row, [n]."""
    total = encode_part(own)
    for step, member in enumerate(link.cast["passive"], 1):
        part = link.recv(member, Partial).part
        if part.dtype != np.uint64 or part.shape != own.shape:
            raise UnexpectedMessage(
                f"{member} sent {part.shape} scores for {len(own)} rows. Align the tables again.", member=member
            )
        total = total + part
        run.progress("score", step, len(link.cast["passive"]))
    return fixed_point.decode(total.view(np.int64), FRACTION_BITS)


def contribute(link: Link, own: Floats, run: RunContext) -> None:
    """At a passive party: its part of each row, behind masks that cancel where there are several."""
    part = encode_part(own)
    passives = link.cast["passive"]
    here = passives.index(link.me)
    for member in passives[here + 1 :]:
        seed = secrets.token_bytes(32)
        link.send(member, Seed(seed))
        part = part + _mask(seed, run.name, len(part))
    for member in passives[:here]:
        seed = link.recv(member, Seed).seed
        if len(seed) != 32:
            raise UnexpectedMessage(f"{member} sent a seed of {len(seed)} bytes, not of 32", member=member)
        part = part - _mask(seed, run.name, len(part))
    (active,) = link.cast["active"]
    link.send(active, Partial(part))
    run.progress("score", 1, 1)


def mean_of(family: str, linear: Floats, part: Mapping[str, Any]) -> Floats:
    """What the model expects of each row: a probability, a number in the label's unit, or a rate."""
    if family == "linear":
        return linear * float(part["label_scale"]) + float(part["label_centre"])
    return np.exp(linear) if family == "poisson" else sigmoid(linear)


def encode_part(part: Floats) -> np.ndarray:
    """uint64 [n]"""
    return fixed_point.encode(part, FRACTION_BITS, LIMIT_BITS).astype(np.uint64)


def own_part(party: str, data: Dataset) -> Floats:
    """[n]: what this party's features add to the score."""
    model = data.part
    for name in ("coef", "columns", "low", "high", "centre", "scale"):
        if name not in model:
            raise DataError(f"{party} holds no model of this run to score with; fit one first.")
    columns, coef = list(model["columns"]), np.asarray(model["coef"], dtype=np.float64)
    X, order = _ordered(party, data, columns)
    scaling = Scaling.from_part(model)
    return np.asarray(by_part(lambda rows: scaling.apply(X[rows][:, order]) @ coef, X.shape[0]))


def measure(part: Mapping[str, Any]) -> str:
    """Names what a part of a model adds up: parts of one measure tell the same of a row."""
    if "measure" in part:  # a scorecard's is its model's
        return str(part["measure"])
    digest = hashlib.sha256("\0".join(map(str, part["columns"])).encode())
    for name in ("coef", "low", "high", "centre", "scale"):
        digest.update(np.asarray(part[name], dtype=np.float64).tobytes())
    return digest.hexdigest()


def _ordered(party: str, data: Dataset, columns: list[str]) -> tuple[Matrix, list[int]]:
    """The features, and where among them the model's columns stand, in the model's order."""
    X = check_features(party, data.X, data.columns)
    place: Mapping[str, int] = {name: j for j, name in enumerate(data.columns)}
    absent = [name for name in columns if name not in place]
    if absent:
        raise DataError(f"{party}'s model was trained on {', '.join(map(repr, absent))}, which these rows lack.")
    return X, [place[name] for name in columns]


def _mask(seed: bytes, run: str, n: int) -> np.ndarray:
    """uint64 [n], uniform for whoever lacks the seed."""
    stream: Any = hashlib.shake_256(b"fednb score mask\0" + seed + run.encode())
    return np.frombuffer(stream.digest(8 * n), dtype="<u8").astype(np.uint64)


PROTOCOL = Protocol(
    name="vertical_score",
    version=1,
    params=ScoreParams,
    roles={
        "active": Role(active, needs=("X", "part", "parts")),
        "passive": Role(passive, many=True, needs=("X", "part", "parts"), scores=True),
    },
    sends={("passive", "passive"): (Seed,), ("passive", "active"): (Partial,)},
    learns={
        "active": "each row's score; with one passive party also that party's part of it",
        "passive": "nothing",
    },
)
