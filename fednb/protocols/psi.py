"""Private set intersection: which ids do all parties have? (Meadows 1986; Huberman, Franklin and Hogg 1999)

Every party p has a secret k_p for this run. An id x becomes a point H(x) of Curve25519, and after each party in the
ring has multiplied it once, k_1·k_2·…·k_P·H(x): the same for everybody who has x, and meaningless to whoever lacks
one of the secrets. Each party's points travel the ring in a random order that only their owner knows.

    bank (k_b)                        agency (k_a)                    coordinator
      |── Announce size, formats ───────┼── Announce ────────────────> |
      | <── Ring order, sizes ──────────┼ <── Ring ─────────────────── |
      |── Points k_b·H(x) ────────────> |                              |
      |                                 |── Points k_a·k_b·H(x) ─────> |
      | <── Points k_a·H(x) ─────────── |                              |
      |── Points k_b·k_a·H(x) ──────────┼────────────────────────────> |   compares points
      | <── Matches: positions ─────────┼ <── Matches: positions ───── |
      |── Check ──────────────────────> |                              |   same ids? (keyed hash, both ways)
      | <────────────────────── Check ──|                              |

With three or more parties the points pass through all of them before the coordinator compares, so no party learns
which ids it shares with one other but not with all.

| role | learns |
|---|---|
| party | the ids that all parties have, and how many ids each party brought |
| coordinator | how many ids each party brought and how many they share (of three parties: also any two); |
| | how ids are written ("AA-999999": 812 rows); no id and no hash of one |

Not covered: a coordinator that lies together with one party can let that party test a few guessed ids of another.
"""

from __future__ import annotations

import hmac
import secrets
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from fednb.crypto import curve
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols import ids as spelling
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.matching import SortedPoints, common
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

CHUNK = 8192  # points a message, the same at all: small enough for progress, large enough to fill a core

Advance = Callable[[int], None]


class PsiParams(Params):
    duplicates: Literal["refuse", "drop"] = "refuse"  # drop: keep the first row of an id
    max_ids: int = 10_000_000  # of one party: a larger set could be there to probe rather than to join


class Limits(typing.Protocol):
    """What is asked of a set of ids."""

    @property
    def duplicates(self) -> Literal["refuse", "drop"]: ...

    @property
    def max_ids(self) -> int: ...


class Announce(Message):
    """A party to the coordinator: what it brings."""

    discloses = Disclosure("number of ids, and the shapes in which they are written")

    ids: int  # distinct, after normalisation
    formats: dict[str, int]  # shapes of ids as written -> rows


class Ring(Message):
    """The coordinator to every party."""

    discloses = Disclosure("how many ids each party brings", sizes="ids")

    order: list[str]  # each sends its points to the next, the last to the first
    ids: list[int]  # by party, in that order


class Points(Message):
    discloses = Disclosure("ids", "blinded", each="piece")

    points: np.ndarray  # uint8 [m, 32], points of Curve25519; CHUNK of them, or what is left


class Matches(Message):
    """The coordinator to the owner of a set."""

    discloses = Disclosure("which of the owner's entries all parties have")

    positions: np.ndarray  # int64, ascending, in the order in which the owner sent its points


class Secret(Message):
    """The first party in the ring to every other: a key for the last check."""

    discloses = Disclosure("a random key")

    key: bytes


class Check(Message):
    discloses = Disclosure("a keyed hash of the common ids", "blinded")

    digest: bytes  # keyed hash of the common ids, in order


def party(link: Link, data: Dataset, params: PsiParams, run: RunContext) -> Outcome:
    (coordinator,) = link.cast["coordinator"]
    own, formats = bring(link, data, params)
    link.send(coordinator, Announce(ids=len(own.ids), formats=formats))
    ring = link.recv(coordinator, Ring)
    check_ring(ring, link, coordinator, len(own.ids))

    advance = progress(run, len(own.ids) + sum(ring.ids))  # points to hash, and to multiply
    order = secret_order(len(own.ids))
    secret = curve.random_scalar()
    place, size = ring.order.index(link.me), len(ring.order)
    after, before = ring.order[(place + 1) % size], ring.order[place - 1]

    # in step with the others, so that no more than a chunk of each set waits anywhere: a chunk of one's own sets out,
    # then the same chunk of every other set comes from behind, is multiplied and passed on
    for start in range(0, max(ring.ids), CHUNK):
        if mine := own.take(order[start : start + CHUNK]):
            hashed = curve.hash_to_curve(mine, run.name.encode(), run.threads)
            advance(len(mine))
            link.send(after, Points(curve.multiply(hashed, secret, run.threads)))
            advance(len(mine))
        for hop in range(1, size):
            count = min(CHUNK, ring.ids[(place - hop) % size] - start)
            if count > 0:
                points = blind(receive(link, before, count), secret, before, run)
                link.send(coordinator if hop == size - 1 else after, Points(points))
                advance(count)

    positions = link.recv(coordinator, Matches).positions
    check_positions(positions, len(order), coordinator)
    found = own.by_id(order[positions])
    confirm(link, ring.order, own.ids[found], run.name)
    return aligned(own, found, formats)


def coordinator(link: Link, data: Dataset, params: PsiParams, run: RunContext) -> Outcome:
    parties = link.cast["party"]
    said = gather(link, params)
    sizes = [said[member].ids for member in parties]
    sets = [np.empty((size, 32), np.uint8) for size in sizes]
    total, done = sum(sizes), 0
    for start in range(0, max(sizes), CHUNK):
        for place, size in enumerate(sizes):
            if (count := min(CHUNK, size - start)) > 0:
                # from who multiplied this party's points last
                sets[place][start : start + count] = receive(link, parties[place - 1], count)
                done += count
                run.progress("match", done, total)
    found = common([sort_points(member, sets.pop(0)) for member in parties])  # each is let go once it is sorted
    if not len(found[0]):
        raise nothing_common({member: said[member].formats for member in parties})
    for member, positions in zip(parties, found, strict=True):
        link.send(member, Matches(positions))
    return Outcome(
        private={"rows": len(found[0])},
        public={"matched": len(found[0]), "ids": dict(zip(parties, sizes, strict=True))},
    )


def gather(link: Link, params: Limits) -> dict[str, Announce]:
    """The coordinator's beginning: what each party brings, which all are told."""
    parties = link.cast["party"]
    said = {member: link.recv(member, Announce) for member in parties}
    for member in parties:
        if not 0 < said[member].ids <= params.max_ids:
            raise UnexpectedMessage(f"{member} announced {said[member].ids} ids", member=member)
    for member in parties:
        link.send(member, Ring(order=list(parties), ids=[said[each].ids for each in parties]))
    return said


def bring(link: Link, data: Dataset, params: Limits) -> tuple[spelling.Prepared, dict[str, int]]:
    """A party's ids and the shapes in which it writes them. Raises DataError for what cannot be aligned."""
    if data.ids is None:
        raise DataError(f"{link.me} brought no ids to align on.")
    own = spelling.prepare(data.ids)
    if own.duplicates and params.duplicates == "refuse":
        raise DataError(
            f"{link.me} has {own.duplicates} rows whose id stands in an earlier row too, and one-to-many joins are "
            "refused: they would repeat another party's rows, and tell how often. Make a table with one row an id "
            "first, by aggregation, or keep each id's first row with duplicates='drop'."
        )
    if not len(own.ids):
        raise DataError(f"{link.me} has no ids to align on; {own.missing} rows have none.")
    if len(own.ids) > params.max_ids:
        raise DataError(f"{link.me} has {len(own.ids):,} ids, and this alignment allows {params.max_ids:,} a party.")
    return own, spelling.describe_formats(data.ids)


def aligned(own: spelling.Prepared, found: npt.NDArray[np.int64], formats: dict[str, int]) -> Outcome:
    """What an alignment leaves at a party: `found` are positions of its ids, in the order that all parties have."""
    return Outcome(
        private={"index": own.rows[found]},
        public={
            "rows": own.read,
            "ids": len(own.ids),
            "duplicates": own.duplicates,
            "missing": own.missing,
            "matched": len(found),
            "formats": formats,
        },
    )


def progress(run: RunContext, total: int, phase: str = "intersect") -> Advance:
    """To be called with the number of points that have just been hashed or multiplied."""
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        run.count("curve", n)
        run.progress(phase, done, total)

    return advance


def check_ring(ring: Ring, link: Link, coordinator: str, own: int) -> None:
    """Raises UnexpectedMessage unless the ring is of this run's parties and says of this one what it said itself."""
    parties = link.cast["party"]
    if len(parties) < 2:
        raise DataError("an intersection needs two parties or more.")
    known = tuple(ring.order) == parties and len(ring.ids) == len(parties) and min(ring.ids) > 0
    if not known or ring.ids[parties.index(link.me)] != own:
        raise UnexpectedMessage(f"{coordinator} sent a ring that is not of this run", member=coordinator)


def receive(link: Link, sender: str, count: int) -> curve.Points:
    """A chunk of exactly `count` points."""
    points = link.recv(sender, Points).points
    if points.dtype != np.uint8 or points.shape != (count, 32):
        raise UnexpectedMessage(
            f"{sender} sent points of shape {points.shape}; {count} of 32 bytes were expected", member=sender
        )
    return points


def blind(points: curve.Points, secret: curve.Scalar, sender: str, run: RunContext) -> curve.Points:
    """The sender's points, checked and multiplied."""
    try:
        return curve.multiply(curve.check(points, run.threads), secret, run.threads)
    except CryptoError as error:
        raise UnexpectedMessage(f"{sender} sent points that cannot be used: {error}", member=sender) from None


def sort_points(owner: str, points: curve.Points) -> SortedPoints:
    """The points that stand for one party's ids."""
    try:
        return SortedPoints(points)
    except ValueError:
        raise UnexpectedMessage(
            f"points repeat in the set of {owner}: a party does not keep to the protocol", member=owner
        ) from None


def nothing_common(formats: Mapping[str, Mapping[str, int]]) -> DataError:
    """Said with how each party writes its ids, which is the usual reason."""
    return DataError(
        "no id is common to all parties. "
        + " ".join(f"{member} writes ids as {spelling.say_formats(shapes)}." for member, shapes in formats.items())
        + " Case, spaces and dashes do not matter; check that all of them name the same kind of id."
    )


def check_positions(positions: np.ndarray, count: int, sender: str) -> None:
    """Raises UnexpectedMessage unless these are ascending positions among `count` ids."""
    fits = positions.dtype == np.int64 and positions.ndim == 1 and 0 < len(positions) <= count
    if not fits or positions[0] < 0 or positions[-1] >= count or bool(np.any(np.diff(positions) <= 0)):
        raise UnexpectedMessage(f"{sender} sent matches that are no positions among {count} ids", member=sender)


def confirm(link: Link, parties: Sequence[str], common_ids: Sequence[bytes] | spelling.Column, run: str) -> None:
    """Rows that do not belong together would train on nonsense: compare keyed hashes with every other party."""
    others = [member for member in parties if member != link.me]
    if link.me == parties[0]:
        key = secrets.token_bytes(32)
        for member in others:
            link.send(member, Secret(key))
    else:
        key = link.recv(parties[0], Secret).key
    keyed = hmac.new(key, run.encode(), "sha256")
    for start in range(0, len(common_ids), CHUNK):  # no id contains a line break: joined ones read in one way only
        keyed.update(b"\n" + b"\n".join(common_ids[start : start + CHUNK]))
    digest = keyed.digest()
    for member in others:
        link.send(member, Check(digest))
    for member in others:
        if not hmac.compare_digest(link.recv(member, Check).digest, digest):
            raise UnexpectedMessage(
                f"{link.me} and {member} were told different matches; align again", member=member
            )


def secret_order(n: int) -> npt.NDArray[np.int64]:
    """A random order of n things, from a secret seed."""
    return np.random.Generator(np.random.PCG64DXSM(secrets.randbits(128))).permutation(n)


PROTOCOL = Protocol(
    name="psi",
    version=2,
    params=PsiParams,
    roles={"party": Role(party, many=True, needs=("ids",)), "coordinator": Role(coordinator)},
    sends={
        ("coordinator", "party"): (Ring, Matches),
        ("party", "coordinator"): (Announce, Points),
        ("party", "party"): (Points, Secret, Check),
    },
    learns={
        "party": "the ids that all parties have; how many ids each party brought",
        "coordinator": "how many ids each party brought and how many they share; the shapes in which ids are written",
    },
    learns_with_key={"party": "whether ids that it guesses are among the others'"},
)
