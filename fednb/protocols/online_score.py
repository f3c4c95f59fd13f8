"""Scores of applicants one by one, as they come: a run that stays open, begun by the active party itself.

    active (model, applicants as they come)        passive p (model, its table of rows), one or more
      |                                               |─ Seed s_pq ──> q      two or more passive parties only
      | <─ Rows of p: tag, part sealed ────────────── |      every row of its table, in no order (see `sealed_rows`)
      |   for each applicant x:                       |
      |── Blinded r·H(x) ───────────────────────────> |      the same to all passive parties
      | <──────────────────────── Evaluated k_p·r·H(x)|      counted against the owner's limit of a day
      | opens its row of each p: score = own + Σ part |
      |── Blinded, empty ───────────────────────────> |      no more applicants

Sealed parts are those of `vertical_score`, `scorecard_score` (with `reason_codes`) or `boosting_score`. Of several
passive parties each pair adds and subtracts a mask made of its seed and the id, so that only the sum can be read.

| role | learns |
|---|---|
| active | of each applicant it asks about: the score; with one passive party that party's part of it |
| active | whether each passive party has the applicant; of a scorecard the reasons that it asked for |
| active | of trees: the applicant's directions at passive nodes, as in `boosting_score` |
| active | how many rows the passive parties' tables have that the model can use |
| passive | how many applicants are asked about, and when: nothing about who they are, nor whether it has them |
| coordinator | that the run goes on, and how much is sent when |

A passive party's part of one row is what every score gives away to whoever can take off the rest. Here that happens one
row at a time, at the active party's choice: so an owner permits it by party and model, and limits how often in a day.
"""

from __future__ import annotations

import hashlib
import secrets
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from fednb.crypto import curve
from fednb.errors import DataError, FednbError, UnexpectedMessage
from fednb.protocols import ids as spelling
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.model_part import check_seal
from fednb.protocols.online_part import Brought, Score, bring, masked, scoring
from fednb.protocols.psi import CHUNK, blind
from fednb.protocols.sealed_rows import TAG, SealedRows, in_no_order, seal
from fednb.protocols.vertical_score import Seed
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

MOST_ROWS = 10_000_000
MOST_AT_ONCE = 64  # applicants in one message


class OnlineParams(Params):
    session: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]  # by which the active party knows a run of its own
    seals: dict[str, Annotated[str, Meta(max_length=64)]]  # of each party's part, as they were when it was saved
    reasons: Annotated[int, Meta(ge=0, le=4)] = 0  # of each party


class Register(Message):
    discloses = Disclosure("how many rows the sender has")

    rows: int
    width: int  # bytes of a value


class SealedPart(Message):
    discloses = Disclosure("each row's part of a score, sealed", "blinded", each="piece")

    rows: np.ndarray  # uint8 [m, TAG + width]


class Blinded(Message):
    discloses = Disclosure("an applicant's id", "blinded", each="piece")

    points: np.ndarray  # uint8 [m, 32]; none: there are no more


class Evaluated(Message):
    discloses = Disclosure("what opens an applicant's row", "blinded", each="piece", answers=True)

    points: np.ndarray  # uint8 [m, 32]


class Absent(DataError):
    """Parties that have no row of an applicant that the model can use."""

    def __init__(self, members: Sequence[str]) -> None:
        super().__init__(f"{' and '.join(members)} has no row of this applicant that the model can use.")
        self.members = tuple(members)


class Ask(typing.Protocol):
    """One applicant."""

    @property
    def id(self) -> str: ...

    @property
    def own(self) -> Dataset:
        """The active party's features of the applicant: X [1, d] with the names of its columns."""
        ...

    def answer(self, found: Score | DataError) -> None: ...


class Asks(typing.Protocol):
    """Where applicants come from."""

    def opened(self) -> None:
        """All passive parties are ready."""
        ...

    def take(self, most: int) -> Sequence[Ask] | None:
        """Waits a moment for the next ones; none when none came, and None when there will be no more."""
        ...

    def over(self, why: str) -> None:
        """Nothing is taken any more; `why` is empty when that was meant to be."""
        ...


def active(link: Link, data: Dataset, params: OnlineParams, run: RunContext) -> Outcome:
    asks: Asks | None = data.asks
    if asks is None:
        raise DataError(f"{link.me} has no service that asks for scores.")
    try:
        _serve(link, data.part, params, run, asks)
    except BaseException as error:
        asks.over(str(error) if isinstance(error, FednbError) else "an internal error")
        raise
    asks.over("")
    return Outcome()


def _serve(link: Link, part: Mapping[str, Any], params: OnlineParams, run: RunContext, asks: Asks) -> None:
    check_seal(link.me, part, params.seals.get(link.me, ""))
    passives = link.cast["passive"]
    model = scoring(link.me, part, passives, params.reasons)
    tables = {member: _receive_rows(link, member, model.width(member)) for member in passives}
    asks.opened()
    while (batch := asks.take(MOST_AT_ONCE)) is not None:
        run.check()  # also while nobody asks: another party may be gone
        if not batch:
            continue
        points = _opening(link, batch, tables, run)
        for ask, found in zip(batch, points, strict=True):
            try:
                absent = [member for member, value in found.items() if value is None]
                values = {member: value for member, value in found.items() if value is not None}
                ask.answer(Absent(absent) if absent else model.score(ask.own, values))
            except DataError as error:
                ask.answer(error)
        run.count("curve", 2 * len(batch))
    for member in passives:
        link.send(member, Blinded(np.empty((0, 32), dtype=np.uint8)))


def _opening(
    link: Link, batch: Sequence[Ask], tables: Mapping[str, SealedRows], run: RunContext
) -> list[dict[str, bytes | None]]:
    """Of each applicant, what each passive party's row holds; None where it has none."""
    ids = [bytes(each) for each in spelling.normalise([ask.id for ask in batch])]
    secrets_ = [curve.blinding() for _ in batch]  # one for each: equal ones would show that an applicant came twice
    points = curve.hash_to_curve(ids, run.name.encode())
    blinded = np.concatenate([curve.multiply(points[i : i + 1], r) for i, (r, _) in enumerate(secrets_)])
    for member in tables:
        link.send(member, Blinded(blinded))
    found: list[dict[str, bytes | None]] = [{} for _ in batch]
    for member, table in tables.items():
        evaluated = link.recv(member, Evaluated).points
        if evaluated.dtype != np.uint8 or evaluated.shape != blinded.shape:
            raise UnexpectedMessage(f"{member} sent {evaluated.shape} points for {len(batch)} ids", member=member)
        for i, (id, (_, undo)) in enumerate(zip(ids, secrets_, strict=True)):
            found[i][member] = table.open(id, blind(evaluated[i : i + 1], undo, member, run).tobytes())
    return found


def passive(link: Link, data: Dataset, params: OnlineParams, run: RunContext) -> Outcome:
    check_seal(link.me, data.part, params.seals.get(link.me, ""))
    (active,) = link.cast["active"]
    own = spelling.prepare(() if data.ids is None else data.ids)
    if own.duplicates:
        raise DataError(
            f"{own.duplicates} rows of {link.me}'s table repeat an id; which of them is meant, nobody can tell."
        )
    rows = bring(link.me, data, params.reasons)
    usable = own.rows[rows.usable[own.rows]]
    ids = own.take(np.flatnonzero(rows.usable[own.rows]))
    values = _behind_masks(link, ids, Brought(rows.values[usable], rows.usable[usable], rows.adds))
    secret = curve.random_scalar()
    sealed = [np.empty((0, TAG + values.shape[1]), dtype=np.uint8)]
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        points = curve.multiply(curve.hash_to_curve(some, run.name.encode(), run.threads), secret, run.threads)
        sealed.append(seal(some, points, values[start : start + CHUNK]))
        run.count("curve", 2 * len(some))
        run.progress("seal", start + len(some), len(ids))
    table = in_no_order(np.concatenate(sealed))
    link.send(active, Register(rows=len(table), width=values.shape[1]))
    for start in range(0, len(table), CHUNK):
        link.send(active, SealedPart(table[start : start + CHUNK]))
    answered = 0
    while len(points := link.recv(active, Blinded).points):
        if points.dtype != np.uint8 or points.ndim != 2 or len(points) > MOST_AT_ONCE:
            raise UnexpectedMessage(f"{active} sent points of shape {points.shape}", member=active)
        link.send(active, Evaluated(blind(points, secret, active, run)))
        answered += len(points)
    return Outcome(public={"answered": answered})


def _behind_masks(link: Link, ids: Sequence[bytes], rows: Brought) -> np.ndarray:
    """Values whose parts cancel each other's masks, where several passive parties have the same id."""
    passives, values = link.cast["passive"], rows.values
    here = passives.index(link.me)
    for place, member in enumerate(passives):
        if place == here:
            continue
        if place > here:
            seed = secrets.token_bytes(32)
            link.send(member, Seed(seed))
        else:
            seed = link.recv(member, Seed).seed
            if len(seed) != 32:
                raise UnexpectedMessage(f"{member} sent a seed of {len(seed)} bytes, not of 32", member=member)
        if rows.adds and len(ids):
            masks = _masks(seed, ids)
            values = masked(values, masks if place > here else np.uint64(0) - masks)
    return values


def _masks(seed: bytes, ids: Sequence[bytes]) -> np.ndarray:
    """uint64 [n], uniform for whoever lacks the seed."""
    streams = [hashlib.blake2b(id, key=seed, digest_size=8, person=b"fednb id mask").digest() for id in ids]
    return np.frombuffer(b"".join(streams), dtype="<u8").astype(np.uint64)


def _receive_rows(link: Link, member: str, width: int) -> SealedRows:
    said = link.recv(member, Register)
    if not 0 <= said.rows <= MOST_ROWS or said.width != width:
        raise UnexpectedMessage(
            f"{member} announced {said.rows} rows of {said.width} bytes; {width} bytes a row were expected",
            member=member,
        )
    pieces: list[Any] = [np.empty((0, TAG + width), dtype=np.uint8)]
    left = said.rows
    while left > 0:
        rows = link.recv(member, SealedPart).rows
        if rows.dtype != np.uint8 or rows.shape != (min(left, CHUNK), TAG + width):
            raise UnexpectedMessage(f"{member} sent rows of shape {rows.shape}", member=member)
        pieces.append(rows)
        left -= len(rows)
    return SealedRows(np.concatenate(pieces))


PROTOCOL = Protocol(
    name="online_score",
    version=1,
    params=OnlineParams,
    roles={
        "active": Role(active, needs=("part", "asks")),
        "passive": Role(passive, many=True, needs=("part", "online"), scores=True),
    },
    sends={
        ("passive", "passive"): (Seed,),
        ("passive", "active"): (Register, SealedPart, Evaluated),
        ("active", "passive"): (Blinded,),
    },
    learns={
        "active": "of each applicant it asks about the score, with one passive party its part of it, and who has none",
        "passive": "how many applicants are asked about, and when; not who they are",
        "coordinator": "that the service runs, and how much it sends",
    },
    begun_by="active",
)
