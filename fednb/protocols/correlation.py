"""Correlations of all parties' columns with each other, and how far each column follows from the others.

    coordinator                     p (X_p)                         q (X_q)                two parties or more, pairwise
      | <── Shape ────────────────────┼── Shape ───────────────────── |
      |── Dealt ──────────────────────┼── Dealt, Correction ────────> |
      |                               |── Pair ─────────────────────> |
      |                               |── Hidden X_p - R_p ─────────> |     some rows at a time
      |                               | <─────── Hidden X_q - R_q ─── |
      | <── Own, Shares ──────────────┼── Own, Shares ─────────────── |     r to two digits, VIF

How X_pᵀX_q comes about without either party's rows: see `dealt`. Columns are held in (see `outermost`), then
standardised; missing values count as the mean, which draws r towards 0. With a binning's part, columns are its weights
of evidence. Columns that are no numbers, or do not vary, are left out and named. If asked, the coordinator says which
columns to leave out, on figures that are not rounded (see `collinearity`).

| role | learns |
|---|---|
| party | nothing: of others' columns bits uniform at random |
| coordinator | Pearson's r of each two columns, over 100 rows or more; rows; names of columns |
| coordinator, analyst | the same to two digits; each column's VIF to two digits; why columns were left out |

A party keeps count of the sums that were told of its columns, over all runs: enough of them would be solvable for
rows. Whoever had the dealt numbers and what a party receives could read the others' columns, so the coordinator lives
apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import dealt
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.collinearity import inflation, selected
from fednb.protocols.dealt import Correction, Dealt, Hidden, Pair, Ring
from fednb.protocols.outermost import LEAST, held_in, varies
from fednb.protocols.rows import Floats
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

MIN_ROWS = 100  # a correlation of fewer rows is noise, and would tell something of single ones
DIGITS = 2
SLACK = 1e-3  # by which fixed point may push r beyond 1
MOST_COLUMNS = 2_000


class CorrelationParams(Params):
    # ("bank", "income"), ... of equal use: which of two goes, the earlier stays; [] and bounds of None: none goes
    best_first: Annotated[list[tuple[str, str]], Meta(max_length=MOST_COLUMNS)] = []
    max_correlation: Annotated[float, Meta(ge=0.3, le=1)] | None = None
    max_vif: Annotated[float, Meta(gt=1, le=1000)] | None = None
    target: tuple[str, str] | None = None  # a column that VIF and the choice leave aside: the label


class Shape(Message):
    """A party to the coordinator."""

    discloses = Disclosure("number of rows, and names of columns")

    rows: int
    columns: Annotated[list[str], Meta(max_length=MOST_COLUMNS)]


class Own(Message):
    discloses = Disclosure("correlations of the sender's own columns")

    r: np.ndarray  # float64 [d·d]


class Shares(Message):
    discloses = Disclosure("sums of products of two parties' columns", "masked", decrypts=True, columns=True)

    numbers: np.ndarray  # uint64 [Σ d·d_q], of each other party in turn


def party(link: Link, data: Dataset, params: CorrelationParams, run: RunContext) -> Outcome:
    (coordinator,) = link.cast["coordinator"]
    names, Z, left_out, filled = _standardised(link.me, data)
    X = dealt.encode(Z)
    link.send(coordinator, Shape(rows=len(X), columns=list(names)))
    shares = dealt.shares(link, X, _pairs(link), coordinator, run)
    link.send(coordinator, Own((Z.T @ Z / len(Z)).ravel()))
    told = [shares[other].ravel() for other in link.cast["party"] if other != link.me]
    link.send(coordinator, Shares(np.concatenate([*told, np.empty(0, np.uint64)])))
    return Outcome(public={"left_out": left_out, "filled": filled})


def _pairs(link: Link) -> dealt.Pairs:
    return list(itertools.combinations(link.cast["party"], 2))


def coordinator(link: Link, data: Dataset, params: CorrelationParams, run: RunContext) -> Outcome:
    everybody = link.cast["party"]
    shapes = {member: link.recv(member, Shape) for member in everybody}
    rows = {shape.rows for shape in shapes.values()}
    if len(rows) != 1 or min(rows) < MIN_ROWS:
        said = ", ".join(f"{member} {shape.rows}" for member, shape in shapes.items())
        raise DataError(f"the parties do not have the same {MIN_ROWS} rows or more ({said}). Align the tables again.")
    n, width = rows.pop(), {member: len(shape.columns) for member, shape in shapes.items()}
    if sum(width.values()) > MOST_COLUMNS:
        raise DataError(f"{sum(width.values())} columns are too many for a matrix; {MOST_COLUMNS} is the most.")
    dealt.deal(link, n, width, _pairs(link), run)
    r = _assembled(link, n, width)
    columns = [(member, name) for member, shape in shapes.items() for name in shape.columns]
    place = {column: k for k, column in enumerate(columns)}
    order = [place[column] for column in dict.fromkeys(params.best_first) if column in place]
    dropped = selected(r, order, params.max_correlation, params.max_vif)
    features = [k for k, column in enumerate(columns) if column != params.target]
    vif = dict(zip(features, inflation(r[np.ix_(features, features)]).tolist(), strict=True))
    return Outcome(
        public={
            "rows": n,
            "columns": columns,
            "r": np.round(r, DIGITS).tolist(),
            "vif": [float(f"{vif[k]:.2g}") if k in vif else None for k in range(len(columns))],
            "dropped": [
                msgspec.to_builtins(msgspec.structs.replace(drop, value=float(f"{drop.value:.2g}")))
                for drop in dropped
            ],
        }
    )


def _assembled(link: Link, n: int, width: Mapping[str, int]) -> Floats:
    """The correlation matrix of all columns, party after party. UnexpectedMessage for what cannot be one."""
    everybody = list(width)
    own: dict[str, Floats] = {}
    shares: dict[tuple[str, str], Ring] = {}
    for me in everybody:
        said, numbers = link.recv(me, Own).r, link.recv(me, Shares).numbers
        sizes = {q: width[me] * width[q] for q in everybody if q != me}
        if said.dtype != np.float64 or said.shape != (width[me] ** 2,) or not np.isfinite(said).all():
            raise UnexpectedMessage(f"{me} sent correlations that cannot be read", member=me)
        if numbers.dtype != np.uint64 or numbers.shape != (sum(sizes.values()),):
            raise UnexpectedMessage(f"{me} sent {numbers.size} sums, not {sum(sizes.values())}", member=me)
        own[me] = said.reshape(width[me], width[me])
        for q, size in sizes.items():
            shares[me, q], numbers = numbers[:size], numbers[size:]
    blocks = []
    for i, p in enumerate(everybody):
        line = []
        for j, q in enumerate(everybody):
            first, second = (p, q) if i < j else (q, p)
            if p == q:
                line.append(own[p])
                continue
            both = dealt.decode(shares[first, second] + shares[second, first]).reshape(width[first], width[second]) / n
            line.append(both if i < j else both.T)
        blocks.append(line)
    r: Floats = np.block(blocks)
    if (np.abs(r) > 1 + SLACK).any() or (np.abs(np.diag(r) - 1) > SLACK).any() or not np.allclose(r, r.T, atol=SLACK):
        raise UnexpectedMessage("the parties sent sums that make no correlations. Run it again.")
    return np.clip((r + r.T) / 2, -1.0, 1.0)


def _standardised(party: str, data: Dataset) -> tuple[list[str], Floats, dict[str, str], list[str]]:
    """Names and values [n, d] of the columns that can be used, why others cannot, and which had missing values."""
    if data.X is None or len(data.X) < MIN_ROWS:
        raise DataError(f"{party} has fewer than {MIN_ROWS} rows in this frame, too few for a correlation.")
    X = np.asarray(data.X, dtype=np.float64)
    left_out = {name: _WHY[kind] for name, (kind, _) in data.unfit.items()}
    names, columns, filled = [], [], []
    for name, x in zip(data.columns, _coded(party, data, X).T, strict=True):
        there = ~np.isnan(x)
        if int(there.sum()) < LEAST:
            left_out[name] = f"fewer than {LEAST} rows have a value"
            continue
        values = held_in(x[there])
        if not varies(values):
            left_out[name] = "all rows, or all but a few, have the same value"
            continue
        z = np.full(len(x), values.mean())
        z[there] = values
        if not there.all():
            filled.append(name)
        names.append(name)
        columns.append((z - z.mean()) / z.std())
    return names, np.column_stack(columns) if columns else np.empty((len(X), 0)), left_out, filled


_WHY = {
    "text": "it is text",
    "date": "it is a date",
    "mixed": "it is text in part",
    "infinite": "some values are infinite",
}


def _coded(party: str, data: Dataset, X: Floats) -> Floats:
    """X, or its weights of evidence where there is a binning."""
    if "woe" not in data.part:
        return X
    fitted = cuts_of(data.part)
    strange = [repr(name) for name in data.columns if name not in fitted]
    if strange:
        raise DataError(f"{party}'s binning was not fitted on {', '.join(strange)}; fit one on this frame.")
    coded = np.empty_like(X)
    for j, name in enumerate(data.columns):
        cuts, weights, _ = fitted[name]
        coded[:, j] = weights[cuts.cells(X[:, j])]
    return coded


PROTOCOL = Protocol(
    name="correlation",
    version=1,
    params=CorrelationParams,
    roles={
        "party": Role(party, many=True, needs=("X", "missing", "unfit", "part"), figures=True, columns=True),
        "coordinator": Role(coordinator),
    },
    sends={
        ("party", "coordinator"): (Shape, Own, Shares),
        ("coordinator", "party"): (Dealt, Correction),
        ("party", "party"): (Pair, Hidden),
    },
    learns={
        "party": "nothing",
        "coordinator": "correlations of all columns, over 100 rows or more; the analyst to two digits",
    },
    learns_with_key={"party": "the other parties' columns, standardised, row by row"},
)
