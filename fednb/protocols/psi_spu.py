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
LOOK_UP_SECONDS = 0.2  # how long nothing may come before a party looks whether the run was cancelled

_NOTHING = np.empty(0, np.uint8)
_Hashes = np.ndarray[typing.Any, np.dtype[np.bytes_]]


class Said(NamedTuple):
    """What a session says."""

    kind: Literal["piece", "progress", "matches"]
    data: bytes  # for the peer; one byte, per cent; hashes that both have, end to end: once


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

    def start(self, rank: int, hashes: Iterable[bytes]) -> Session:
        """`rank`: 0 at one party, 1 at the other. `hashes`: some of them at a time, HASH bytes each, end to end."""
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

    hashes = _hashes(own, run.name)
    engine: Engine = data.engine
    session = engine.start(ring.order.index(link.me), _blocks(hashes))
    try:
        matches = _converse(link, other, session, run)
    finally:
        session.close()
    found = own.by_id(_positions(hashes, matches, link.me))
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


def _hashes(own: Prepared, run: str) -> _Hashes:
    """[n] of fixed width, the same at both parties, and of this run only."""
    start = hashlib.sha256(f"fednb psi_spu {run}\n".encode())
    made = np.empty(len(own.ids), f"S{HASH}")
    for at in range(0, len(made), CHUNK):
        part = own.take(np.arange(at, min(at + CHUNK, len(made))))
        for place, each in enumerate(part, start=at):
            digest = start.copy()
            digest.update(each)
            made[place] = digest.hexdigest()[:HASH].encode()
    return made


def _blocks(hashes: _Hashes) -> Iterator[bytes]:
    for at in range(0, len(hashes), CHUNK):
        yield hashes[at : at + CHUNK].tobytes()


def _converse(link: Link, other: str, session: Session, run: RunContext) -> bytes:
    """Carry what the two sessions say, until both have their matches; returns this one's."""
    heard: set[str] = set()
    failed: list[Exception] = []

    def hear() -> None:
        try:
            while "end" not in heard:
                piece = link.recv(other, Piece)
                session.put(_checked(piece, other))
                heard.add(piece.word)
        except Exception as error:
            failed.append(error)

    hearing = threading.Thread(target=hear, name=f"fednb-spu-{run.name}", daemon=True)
    hearing.start()
    matches: bytes | None = None
    while matches is None or "matched" not in heard:
        run.check()
        if failed:
            raise failed[0]
        said = session.next(LOOK_UP_SECONDS)
        if said is not None and said.kind == "piece":
            link.send(other, Piece(np.frombuffer(said.data, np.uint8)))
        elif said is not None and said.kind == "progress":
            run.progress("intersect", said.data[0], 100)
        elif said is not None:
            matches = said.data
            link.send(other, Piece(_NOTHING, "matched"))
    link.send(other, Piece(_NOTHING, "end"))
    while hearing.is_alive():
        run.check()
        hearing.join(LOOK_UP_SECONDS)
    if failed:
        raise failed[0]
    return matches


def _checked(piece: Piece, sender: str) -> bytes:
    if piece.data.dtype != np.uint8 or piece.data.ndim != 1 or len(piece.data) > MOST:
        raise UnexpectedMessage(f"{sender} sent a piece that is not up to {MOST} bytes", member=sender)
    return piece.data.tobytes()


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
        "party": "the ids that both parties have; how many ids each party brought",
        "coordinator": "how many ids each party brought and how many they share; the shapes in which ids are written",
    },
    learns_with_key={"party": "no more than it learns as a party: the coordinator is told numbers"},
)
