"""Private set intersection by SecretFlow's `spu`, which is not ours: RR22 (Raghuraman and Rindal 2022).

It takes a fraction of the time of `psi` at a million ids, because it encodes whole sets and multiplies no points. Each
party has `spu` in a process of its own, which holds hashes of that party's ids and can reach nothing; what the two say
to each other crosses here, in pieces that nobody else can read.

    bank                              agency                    coordinator
      |── Announce size, formats ───────┼── Announce ───────────> |
      | <── Ring order, sizes ──────────┼ <── Ring ────────────── |
      | <══ Piece, many, both ways ═══> |                         |   what the two libraries say
      |── Check ──────────────────────> |                         |   same ids? (keyed hash, both ways)
      | <────────────────────── Check ──|                         |
      |── Matched ──────────────────────┼── Matched ────────────> |   same number?
      | <── Matched ────────────────────┼ <── Matched ─────────── |

| role | learns |
|---|---|
| party | the ids that both have, and how many ids each party brought |
| coordinator | how many ids each party brought and how many they share; how ids are written; less than with `psi` |

It is for parties that keep to the protocol. `psi` checks every point that comes; here a party that does not keep to it,
or that finds a fault in `spu`'s code, may learn ids of the other by guessing: what it can reach is the process with the
hashes, and no more. So a party takes part only where its owner said so, and `align` never chooses it by itself.
"""

from __future__ import annotations

import hashlib
import threading
import typing
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Protocol, Role, RunContext
from fednb.protocols.ids import Prepared
from fednb.protocols.psi import (
    CHUNK,
    Announce,
    Check,
    PsiParams,
    Ring,
    Secret,
    aligned,
    bring,
    check_ring,
    confirm,
    gather,
    nothing_common,
)
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

HASH = 32  # hexadecimal digits that stand for an id
MOST = 1 << 20  # bytes of a piece
TOLERANCE = 2  # times as many bytes may come as usual
LOOK_UP_SECONDS = 0.2  # how long nothing may come before a party looks whether the run was cancelled

_NOTHING = np.empty(0, np.uint8)
_Hashes = np.ndarray[typing.Any, np.dtype[np.bytes_]]


class Said(NamedTuple):
    """What a session says."""

    kind: Literal["piece", "matches"]
    data: bytes  # for the peer; hashes that both have, end to end: once


class Session(typing.Protocol):
    """One intersection in a process of its own."""

    def put(self, piece: bytes) -> None:
        """What the peer's session said, if anything. Waits while this one does not read, and not once it has ended."""
        ...

    def next(self, seconds: float) -> Said | None:
        """What it says next, also after its matches; None: nothing so soon. Raises FednbError when it has ended."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Engine(typing.Protocol):
    """Where a party's sessions run."""

    def start(self, rank: int, hashes: Iterable[bytes], ids: int) -> Session:
        """`rank`: 0 at one party, 1 at the other. `hashes`: some of them at a time, HASH bytes each, end to end.

        ids : of both sides together.
        """
        ...


class Piece(Message):
    """One party's `spu` to the other's."""

    discloses = Disclosure("what one spu says to the other: ids, hidden as RR22 hides them", "blinded", each="piece")

    data: np.ndarray  # uint8, MOST bytes at most
    # matched: this side has its matches, and goes on to say what the other still needs; end: until both have
    word: Literal["piece", "matched", "end"] = "piece"


class Matched(Message):
    """A party to the coordinator, which repeats it when both say the same."""

    discloses = Disclosure("how many ids both have")

    ids: int


def party(link: Link, data: Dataset, params: PsiParams, run: RunContext) -> Outcome:
    (coordinator,) = link.cast["coordinator"]
    if len(link.cast["party"]) != 2:
        raise DataError("spu intersects the sets of two parties; align more with method='ecdh'.")
    own, formats = bring(link, data, params)
    link.send(coordinator, Announce(ids=len(own.ids), formats=formats))
    ring = link.recv(coordinator, Ring)
    check_ring(ring, link, coordinator, len(own.ids))
    (other,) = set(ring.order) - {link.me}

    hashes = _hashes(own, run)
    engine: Engine = data.engine
    rank = ring.order.index(link.me)
    session = engine.start(rank, _blocks(hashes, run), sum(ring.ids))
    usual = usual_traffic(*ring.ids)
    try:
        matches = _converse(link, other, session, run, TOLERANCE * usual[1 - rank], sum(usual))
    finally:
        session.close()
    found = own.by_id(_positions(hashes, matches, link.me))
    if len(found) > min(ring.ids):
        raise UnexpectedMessage(f"{other} has more matches than ids that it announced", member=other)
    confirm(link, ring.order, own.ids[found], run.name)
    link.send(coordinator, Matched(len(found)))
    if link.recv(coordinator, Matched).ids != len(found):
        raise UnexpectedMessage(f"{coordinator} repeated another number of matches than was said", member=coordinator)
    return aligned(own, found, formats)


def coordinator(link: Link, data: Dataset, params: PsiParams, run: RunContext) -> Outcome:
    said = gather(link, params)
    first, second = (link.recv(member, Matched).ids for member in said)
    if first != second or not 0 <= first <= min(each.ids for each in said.values()):
        raise UnexpectedMessage(f"{' and '.join(said)} say that they have {first} and {second} ids in common")
    if not first:
        raise nothing_common({member: each.formats for member, each in said.items()})
    for member in said:
        link.send(member, Matched(first))
    return Outcome(
        private={"rows": first}, public={"matched": first, "ids": {member: each.ids for member, each in said.items()}}
    )


def usual_traffic(first: int, second: int) -> tuple[int, int]:
    """Bytes that rank 0 and rank 1 say when these are the sizes of their sets, as measured from 100 to a million."""
    larger = max(first, second)
    return 950_000 + 23 * larger, 90_000 + larger + 11 * second


def _hashes(own: Prepared, run: RunContext) -> _Hashes:
    """[n] of fixed width, the same at both parties, and of this run only."""
    start = hashlib.sha256(f"fednb psi_spu {run.name}\n".encode())
    made = np.empty(len(own.ids), f"S{HASH}")
    for at in range(0, len(made), CHUNK):
        run.check()
        part = own.take(np.arange(at, min(at + CHUNK, len(made))))
        for place, each in enumerate(part, start=at):
            digest = start.copy()
            digest.update(each)
            made[place] = digest.hexdigest()[:HASH].encode()
    return made


def _blocks(hashes: _Hashes, run: RunContext) -> Iterator[bytes]:
    for at in range(0, len(hashes), CHUNK):
        run.check()
        yield hashes[at : at + CHUNK].tobytes()


class _Ear:
    """Hears what the other side says, on a thread of its own, and hands it to this side's session."""

    def __init__(self, link: Link, other: str, session: Session, most: int) -> None:
        self._link, self._other, self._session, self._most = link, other, session, most
        self.came = 0  # bytes
        self.matched = threading.Event()  # the other side has its matches
        self.told = threading.Event()  # this side has said that it has its own
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._hear, name=f"fednb-spu-{link.me}", daemon=True)
        self._thread.start()

    def listens(self, seconds: float) -> bool:
        """Whether it still does, after so many seconds. Raises what made it stop early."""
        self._thread.join(seconds)
        if self.failed is not None:
            raise self.failed
        return self._thread.is_alive()

    def _hear(self) -> None:
        try:
            while (piece := self._link.recv(self._other, Piece)).word != "end":
                self._session.put(self._data_of(piece))
                if piece.word == "matched":
                    if self.matched.is_set():
                        raise self._out_of_order(piece)
                    self.matched.set()
            if not (self.matched.is_set() and self.told.is_set()):
                raise self._out_of_order(piece)
        except Exception as error:
            self.failed = error

    def _data_of(self, piece: Piece) -> bytes:
        data, other = piece.data, self._other
        if data.dtype != np.uint8 or data.ndim != 1 or len(data) > MOST or (piece.word == "piece" and not len(data)):
            raise UnexpectedMessage(f"{other} sent a piece that is not up to {MOST} bytes", member=other)
        self.came += len(data)
        if self.came > self._most:
            raise UnexpectedMessage(f"{other} sends more than so many ids as it announced take", member=other)
        return data.tobytes()

    def _out_of_order(self, piece: Piece) -> UnexpectedMessage:
        return UnexpectedMessage(f"{self._other} said {piece.word!r} out of order", member=self._other)


def _converse(link: Link, other: str, session: Session, run: RunContext, most: int, usual: int) -> bytes:
    """Carry what the two sessions say, until both have their matches; returns this one's.

    most, usual : bytes that may come, and that usually come and go together.
    """
    ear = _Ear(link, other, session, most)
    matches: bytes | None = None
    sent = done = 0
    while matches is None or not ear.matched.is_set():
        run.check()
        ear.listens(0)
        said = session.next(LOOK_UP_SECONDS)
        if said is not None and said.kind == "piece":
            link.send(other, Piece(np.frombuffer(said.data, np.uint8)))
            sent += len(said.data)
            if (now := min(99, 100 * (sent + ear.came) // usual)) > done:
                done = now
                run.progress("intersect", done, 100)
        elif said is not None:
            matches, done = said.data, 100
            run.progress("intersect", done, 100)
            ear.told.set()
            link.send(other, Piece(_NOTHING, "matched"))
    link.send(other, Piece(_NOTHING, "end"))
    while ear.listens(LOOK_UP_SECONDS):
        run.check()
    return matches


def _positions(hashes: _Hashes, matches: bytes, me: str) -> npt.NDArray[np.int64]:
    """Where the matches stand among a party's ids. What a process says that a peer talked to is not believed."""
    wanted = np.frombuffer(matches, f"S{HASH}") if len(matches) % HASH == 0 else np.empty(0, f"S{HASH}")
    order = np.argsort(hashes)
    place = np.minimum(np.searchsorted(hashes, wanted, sorter=order), len(hashes) - 1)
    found: npt.NDArray[np.int64] = order[place].astype(np.int64)
    known = len(wanted) * HASH == len(matches) and not bool(np.any(hashes[found] != wanted))
    if not known or len(np.unique(found)) < len(found):
        raise UnexpectedMessage(f"spu gave {me} matches that are not among its ids", member=me)
    return found


PROTOCOL = Protocol(
    name="psi_spu",
    version=1,
    params=PsiParams,
    roles={"party": Role(party, many=True, needs=("ids", "engine")), "coordinator": Role(coordinator)},
    sends={
        ("coordinator", "party"): (Ring, Matched),
        ("party", "coordinator"): (Announce, Matched),
        ("party", "party"): (Piece, Secret, Check),
    },
    learns={
        "party": "if both keep to the protocol: the ids that both have; how many ids each party brought",
        "coordinator": "how many ids each party brought and how many they share; the shapes in which ids are written",
    },
    learns_with_key={"party": "no more than it learns as a party: the coordinator is told numbers"},
)
