"""Predictions of a boosted ensemble: every passive party says which way rows go at its nodes, the active party follows.

    active (trees, X_a)             passive p (its cuts, X_p), one or more
      | <─ Directions, some rows ──── |      one bit for each row and node of p; 0 where p's own nodes rule it out
      |   ... until all rows came     |
      | leaf of each row, its weight  |

One message a few thousand rows, no round trip: a single applicant or a portfolio alike.

| role | learns |
|---|---|
| active | each row's prediction; which way it goes at each node that its owner's other nodes do not rule out |
| passive | nothing: neither predictions nor where rows end |
| coordinator, analyst | number of rows; in which columns rows have categories that no training row had |

So the active party also sees directions at nodes that a row misses because of the active party's own features, or of
a third party's. That is the price of one message: asking node by node would show paths to the passive parties instead.

`explain` adds what each party contributes to a row's margin: Shapley values (1953) with the parties as players, where a
party that is left out is averaged over by cover (Lundberg et al. 2020, path-dependent). They stay at the active party.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.boosting_categories import Coding, unseen_notes
from fednb.protocols.noticed import newly_missing
from fednb.protocols.objectives import Objective
from fednb.protocols.parting import goes_left, sets_from_part
from fednb.protocols.trees import LEAF, Floats, Forest, Truths
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

AT_ONCE = 4096  # rows of one message
MOST_EXPLAINED = 10_000  # rows
FAMILIES = {  # what the scores are, for whoever evaluates them
    "binary:logistic": "logistic",
    "multi:softprob": "classes",
    "reg:squarederror": "linear",
    "count:poisson": "poisson",
}


class BoostingScoreParams(Params):
    explain: str = ""  # name of a table of contributions by party, which the active party gets


class Directions(Message):
    discloses = Disclosure("which way each row goes at each node", each="piece")

    left: np.ndarray  # uint8 [rows, ceil(nodes/8)] packed bits, of the next rows and all the sender's nodes


def active(link: Link, data: Dataset, params: BoostingScoreParams, run: RunContext) -> Outcome:
    part = data.part
    if part.get("objective") is None or "roots" not in part:
        raise DataError(f"{link.me} was not the active party of a boosted model of this run; scores belong to the one.")
    passives = link.cast["passive"]
    if list(passives) != list(part["passives"]):
        raise DataError(f"the model was trained with {', '.join(part['passives'])} as passive parties, in this order.")
    forest, base = Forest.from_part(part), np.asarray(part["base"], dtype=np.float64)
    X, notes, unseen = ordered(link.me, data)
    if params.explain and len(X) > MOST_EXPLAINED:
        raise DataError(f"contributions can be had for up to {MOST_EXPLAINED} rows at once, not for {len(X)}.")
    margins, shares = [], []
    for rows, directions in received(link, forest, X):
        margins.append(forest.margins(forest.leaves(directions), base))
        shares.append(contributions(forest, directions, base, 1 + len(passives)) if params.explain else None)
        run.progress("score", rows.stop, len(X))
    m = np.concatenate(margins) if margins else np.empty((0, len(base)))
    objective = Objective(part["objective"], len(base))
    p = objective.predict(m)
    table = None
    if params.explain:
        table = (params.explain, _named([link.me, *passives], np.concatenate([s for s in shares if s is not None])))
    return Outcome(
        private={
            "scores": p[:, 0] if len(base) == 1 else p,
            "linear": m[:, 0] if len(base) == 1 else m,
            "family": FAMILIES[part["objective"]],
            **unseen,
        },
        public={"rows": len(X), "notes": notes} | ({"table": params.explain} if params.explain else {}),
        table=table,
    )


def passive(link: Link, data: Dataset, params: BoostingScoreParams, run: RunContext) -> Outcome:
    X, notes, unseen = ordered(link.me, data)
    send_directions(link, data.part, X, run)
    return Outcome(private=unseen, public={"rows": len(X), "notes": notes})


def send_directions(link: Link, part: Mapping[str, Any], X: Floats, run: RunContext) -> None:
    """The passive party's side: its directions of all rows of X, part by part."""
    (active,) = link.cast["active"]
    for rows in _parts(len(X)):
        link.send(active, Directions(packed_directions(part, X[rows])))
        run.progress("score", rows.stop, len(X))


def packed_directions(part: Mapping[str, Any], X: Floats) -> npt.NDArray[np.uint8]:
    """[n, ceil(nodes/8)]: which way rows go at a passive party's own nodes, as far as these do not rule it out."""
    left = goes_left(X, part["column"], part["threshold"], part["default_left"], sets_from_part(part.get("sets", ())))
    return np.packbits(reachable(left, part["ancestor"], part["side"]), axis=1)


def reachable(left: Truths, ancestor: Sequence[int], side: Sequence[bool]) -> Truths:
    """The same directions, but 0 at nodes that a party's own nodes above rule out; these come earlier in its list.

    `ancestor` is the party's nearest node above each of its nodes, or -1, and `side` which child leads on (1: left).
    """
    there = np.ones_like(left)
    for node, (above, way) in enumerate(zip(ancestor, side, strict=True)):
        if above >= 0:
            there[:, node] = there[:, above] & (left[:, above] == way)
    return left & there


def received(link: Link, forest: Forest, X: Floats) -> Iterator[tuple[slice, Truths]]:
    """The active party's side: rows, and each row's direction at all nodes, [n, nodes]."""
    owner, place = np.asarray(forest.owner), np.asarray(forest.place)
    inner = np.asarray(forest.left) != LEAF
    for rows in _parts(len(X)):
        directions = own_directions(forest, X[rows])
        for p, member in enumerate(link.cast["passive"], 1):
            theirs = inner & (owner == p)
            bits = link.recv(member, Directions).left
            if bits.dtype != np.uint8 or bits.shape != (len(directions), -(-int(theirs.sum()) // 8)):
                raise UnexpectedMessage(
                    f"{member} sent directions of shape {bits.shape} for {len(directions)} rows and {theirs.sum()} "
                    "nodes. Align the tables again.",
                    member=member,
                )
            directions[:, theirs] = np.unpackbits(bits, axis=1, count=int(theirs.sum()))[:, place[theirs]]
        yield rows, directions


def own_directions(forest: Forest, X: Floats) -> Truths:
    """[n, nodes]: which way rows go at the active party's own nodes; 0 at all others."""
    own = (np.asarray(forest.left) != LEAF) & (np.asarray(forest.owner) == 0)
    nodes = np.flatnonzero(own).tolist()
    columns, cuts = [forest.feature[node] for node in nodes], [forest.threshold[node] for node in nodes]
    ways = [forest.default_left[node] for node in nodes]
    sets = {at: forest.sets[node] for at, node in enumerate(nodes) if node in forest.sets}
    directions = np.zeros((len(X), len(forest)), dtype=np.bool_)
    directions[:, own] = goes_left(X, columns, cuts, ways, sets)
    return directions


def _parts(rows: int) -> list[slice]:
    return [slice(start, min(start + AT_ONCE, rows)) for start in range(0, rows, AT_ONCE)]


def contributions(forest: Forest, directions: Truths, base: Floats, parties: int) -> Floats:
    """[n, parties + 1, outputs] Shapley values of the parties for each row's margin, and before them its mean."""
    everybody = range(parties)
    worth = {
        coalition: _expected(forest, directions, base, set(coalition))
        for size in range(parties + 1)
        for coalition in combinations(everybody, size)
    }
    out = np.zeros((len(directions), parties + 1, len(base)))
    out[:, 0] = worth[()]
    for party in everybody:
        for coalition, value in worth.items():
            if party not in coalition:
                k = len(coalition)
                weight = math.factorial(k) * math.factorial(parties - k - 1) / math.factorial(parties)
                out[:, party + 1] += weight * (worth[tuple(sorted((*coalition, party)))] - value)
    return out


def _expected(forest: Forest, directions: Truths, base: Floats, players: set[int]) -> Floats:
    """[n, outputs] margins when only these parties' directions are known."""
    n = len(directions)
    out = np.tile(base, (n, 1))

    def descend(node: int, share: Floats, output: int) -> None:
        if not share.any():
            return
        left = forest.left[node]
        if left == LEAF:
            out[:, output] += share * forest.weight[node]
            return
        if forest.owner[node] in players:
            goes = directions[:, node].astype(np.float64)
        else:
            covers = forest.cover[left], forest.cover[left + 1]
            goes = np.full(n, covers[0] / sum(covers) if sum(covers) else 0.5)
        descend(left, share * goes, output)
        descend(left + 1, share * (1 - goes), output)

    for roots in forest.roots:
        for output, root in enumerate(roots):
            descend(root, np.ones(n), output)
    return out


def _named(parties: Sequence[str], shares: Floats) -> dict[str, Floats]:
    """Columns of the table of contributions."""
    names = ["mean", *parties]
    outputs = shares.shape[2]
    return {
        name if outputs == 1 else f"{name}_{output}": shares[:, i, output]
        for output in range(outputs)
        for i, name in enumerate(names)
    }


def ordered(party: str, data: Dataset) -> tuple[Floats, list[str], dict[str, Any]]:
    """The model's columns in the model's order, notes on what the model lacks, and for its owner how many rows it does.

    Values may be missing.
    """
    coding, there = _placed(party, data)
    missing = newly_missing(party, np.asarray(there.X), data.part)
    X, unseen = coding.applied(there)
    return X, [*missing, *unseen_notes(party, unseen)], {"unseen": unseen} if unseen else {}


def coded(party: str, data: Dataset) -> tuple[Floats, dict[str, int]]:
    """The same columns, and how many rows have a category of each that no training row had."""
    coding, there = _placed(party, data)
    return coding.applied(there)


def _placed(party: str, data: Dataset) -> tuple[Coding, Dataset]:
    if "columns" not in data.part or "default_left" not in data.part:
        raise DataError(f"{party} holds no boosted model of this run to score with; fit one first.")
    if data.X is None or data.X.shape[1] != len(data.columns):
        raise DataError(f"{party} brought no table of features for its {len(data.columns)} columns.")
    place = {name: j for j, name in enumerate(data.columns)}
    coding = Coding.from_part(data.part)
    absent = [name for name in coding.columns if name not in place]
    if absent:
        raise DataError(f"{party}'s model was trained on {', '.join(map(repr, absent))}, which these rows lack.")
    X = data.X[:, [place[name] for name in coding.columns]]
    there = replace(data, X=X, columns=coding.columns)
    coding.check(party, there)
    return coding, there


PROTOCOL = Protocol(
    name="boosting_score",
    version=1,
    params=BoostingScoreParams,
    roles={
        "active": Role(active, needs=("X", "missing", "levels", "part")),
        "passive": Role(passive, many=True, needs=("X", "missing", "levels", "part")),
    },
    sends={("passive", "active"): (Directions,)},
    learns={
        "active": "each row's prediction, and its directions at the nodes that their owners do not rule out",
        "passive": "nothing",
        "coordinator": "number of rows; in which columns rows have categories, or lack a value, as no training row did",
    },
)
