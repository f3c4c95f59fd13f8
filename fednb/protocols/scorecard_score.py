"""Points of rows on a scorecard whose features lie at several parties, and the reasons for what a row got.

Scores travel as in `vertical_score`: each party adds up the points of its own bins, several passive parties behind
masks that cancel, and the active party gets the sum.

    active (card, X_a)              passive (card, X_b), one or more
      | <─ Partial, masked ─────────── |                                run "scorecard_score"
      | <─ Reasons ─────────────────── |                                run "reason_codes": a table at the active party

A party's reasons for a row are its features that cost the row most points beside the average, worst first: numbers of
features, never points, values or bins. Each party ranks its own; no points are compared across parties.

| role | learns |
|---|---|
| active | scores: each row's points; with one passive party also that party's part of them |
| active | reasons: for each row, which few features of each passive party cost it most, in their order |
| passive | nothing |
| coordinator, analyst | number of rows; in which columns rows met no evidence; that the table exists |

Of a feature with two bins, its being a reason tells the bin. Who may not know that does not ask for reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Floats, Integers
from fednb.protocols.features import MIN_ROWS
from fednb.protocols.scorecard import points_of
from fednb.protocols.separable import sigmoid
from fednb.protocols.vertical_score import Partial, Seed, contribute, gather
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

MOST_REASONS = 4


class NoParams(Params):
    """Nothing to choose: the card says it all."""


class ReasonParams(Params):
    name: Annotated[str, Meta(min_length=1, max_length=64)]  # of the table that the active party gets
    most: Annotated[int, Meta(ge=1, le=MOST_REASONS)] = 2  # of each party


class Reasons(Message):
    discloses = Disclosure("which features cost each row most points")

    codes: np.ndarray  # int64 [n, most] features from 1 in the card's order, worst first; 0: no further reason


def active(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    part = _card(link.me, data)
    if "base" not in part:
        raise DataError(f"{link.me} was not the active party of this scorecard; scores belong to the one that was.")
    own, without = points_of(link.me, part, data)
    points = np.round(gather(link, own.sum(axis=1), run) + float(part["base"]), int(part["digits"]))
    linear = (float(part["offset"]) - points) / float(part["factor"])
    return Outcome(
        private={"scores": sigmoid(linear), "linear": linear, "points": points},
        public={"rows": len(points), "notes": _notes(link.me, part, without)},
    )


def passive(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    part = _card(link.me, data)
    own, without = points_of(link.me, part, data)
    contribute(link, own.sum(axis=1), run)
    return Outcome(public={"rows": len(own), "notes": _notes(link.me, part, without)})


def ask_reasons(link: Link, data: Dataset, params: ReasonParams, run: RunContext) -> Outcome:
    """The active party's own reasons, and those of the others, as columns of a table."""
    part = _card(link.me, data)
    if "base" not in part:
        raise DataError(f"{link.me} was not the active party of this scorecard; reasons are for the one that was.")
    own, _ = points_of(link.me, part, data)
    found = {link.me: worst(own, params.most)}
    for member in link.cast["passive"]:
        codes = link.recv(member, Reasons).codes
        if codes.dtype != np.int64 or codes.shape != (len(own), params.most) or bool((codes < 0).any()):
            raise UnexpectedMessage(f"{member} sent reasons that do not fit {len(own)} rows", member=member)
        found[member] = codes
    table = {
        f"{member}_{k + 1}": codes[:, k].astype(np.float64)
        for member, codes in found.items()
        for k in range(params.most)
    }
    run.progress("reasons", 1, 1)
    return Outcome(public={"rows": len(own)}, table=(params.name, table))


def give_reasons(link: Link, data: Dataset, params: ReasonParams, run: RunContext) -> Outcome:
    own, _ = points_of(link.me, _card(link.me, data), data)
    (active,) = link.cast["active"]
    link.send(active, Reasons(worst(own, params.most)))
    run.progress("reasons", 1, 1)
    return Outcome(public={"rows": len(own)})


def worst(points: Floats, most: int) -> Integers:
    """[n, most]: for each row, features (from 1) with the fewest points, fewest first, as long as they are below 0."""
    order = np.argsort(points, axis=1, kind="stable")[:, :most]
    codes = np.zeros((len(points), most), dtype=np.int64)
    codes[:, : order.shape[1]] = np.where(np.take_along_axis(points, order, axis=1) < 0, order + 1, 0)
    return codes


def _card(party: str, data: Dataset) -> Mapping[str, Any]:
    if "card" not in data.part:
        raise DataError(f"{party} holds no scorecard of this run; build one first.")
    return data.part


def _notes(party: str, part: Mapping[str, Any], without: Integers) -> list[str]:
    return [
        f"{party}'s {name!r}: {f'{count:,}' if count >= MIN_ROWS else f'fewer than {MIN_ROWS}'} rows are missing or "
        "special in a way that too few training rows were; they get the points of no evidence."
        for name, count in zip(part["columns"], without.tolist(), strict=True)
        if count
    ]


SCORE = Protocol(
    name="scorecard_score",
    version=1,
    params=NoParams,
    roles={
        "active": Role(active, needs=("X", "missing", "part")),
        "passive": Role(passive, many=True, needs=("X", "missing", "part"), scores=True),
    },
    sends={("passive", "passive"): (Seed,), ("passive", "active"): (Partial,)},
    learns={
        "active": "each row's points; with one passive party also that party's part of them",
        "passive": "nothing",
        "coordinator": "in which columns rows met no evidence",
    },
)
REASONS = Protocol(
    name="reason_codes",
    version=1,
    params=ReasonParams,
    roles={
        "active": Role(ask_reasons, needs=("X", "missing", "part")),
        "passive": Role(give_reasons, many=True, needs=("X", "missing", "part")),
    },
    sends={("passive", "active"): (Reasons,)},
    learns={
        "active": "for each row, which few features of each passive party cost it most points, in their order",
        "passive": "nothing",
        "coordinator": "that the table exists",
    },
)
