"""Products of two parties' matrices, X_pᵀX_q, with random numbers that a third member deals (Beaver 1991; Du and
Atallah 2001).

    dealer                          p (X_p)                         q (X_q)                    all integers modulo 2**64
      |── seed of R_p, t ───────────> |                               |
      |── seed of R_q ────────────────┼─────────────────────────────> |
      |── R_pᵀR_q - t ────────────────┼─────────────────────────────> |
      |                               |── X_p - R_p, seed of m ─────> |
      |                               | <───────────── X_q - R_q ──── |
      | <── R_pᵀ(X_q - R_q) + t + m ──|                               |
      | <── (X_p - R_p)ᵀX_q + (R_pᵀR_q - t) - m ───────────────────── |     the two add up to X_pᵀX_q

A party sees another's matrix behind numbers uniform at random, the dealer two numbers for each product of which only
the sum says anything (m is known to the two parties only). No encryption takes place, so this costs eight bytes and a
few additions a number. It rests on what all runs with a coordinator rest on: the dealer is in league with no party, for
together the two read the other's matrix.

Streams are bound to the run, so that a dealer who deals the same seed twice lets nobody take a difference.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.crypto import fixed_point
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols.base import RunContext
from fednb.protocols.rows import Floats, parts
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

FRACTION_BITS = 18
LIMIT_BITS = 45  # of one entry
SEED_BYTES = 32
MOST_ROWS = 1 << 26  # products of standardised columns are at most the number of rows: 2**(26 + 36) fits

Ring = npt.NDArray[np.uint64]
Pairs = Sequence[tuple[str, str]]  # of parties (p, q), in an order that everybody in the run agrees on


class Dealt(Message):
    """The dealer to each party."""

    discloses = Disclosure("a random seed")

    seed: bytes  # 32 random bytes


class Correction(Message):
    """The dealer to q, for each p in turn."""

    discloses = Disclosure("random numbers", "masked", each="piece")

    numbers: np.ndarray  # uint64 [d_p, d_q]: R_pᵀR_q - t


class Pair(Message):
    """p to q."""

    discloses = Disclosure("a random seed")

    seed: bytes  # 32 random bytes


class Hidden(Message):
    """p to q, and q to p."""

    discloses = Disclosure("columns of single rows", "masked", each="piece")

    numbers: np.ndarray  # uint64 [m, d]: some rows of X - R


def encode(X: Floats) -> Ring:
    """Standardised columns X [n, d] as integers modulo 2**64. DataError for more rows than a product has room for."""
    if len(X) > MOST_ROWS:
        raise DataError(f"{len(X):,} rows are too many for products of columns; {MOST_ROWS:,} is the most.")
    return fixed_point.encode(X, FRACTION_BITS, LIMIT_BITS).astype(np.uint64)


def decode(product: Ring) -> Floats:
    """The sum of both shares of a product of two encoded matrices, as numbers."""
    return fixed_point.decode(product.view(np.int64), 2 * FRACTION_BITS)


def stream(seed: bytes, *about: str | int, shape: tuple[int, ...]) -> Ring:
    """Numbers uniform for whoever lacks the seed; others for everything else that they are `about`."""
    if len(seed) != SEED_BYTES:
        raise CryptoError(f"a seed of {len(seed)} bytes, not of {SEED_BYTES}")
    said = "\0".join(map(str, about)).encode()
    made: Any = hashlib.shake_256(b"fednb dealt product\0" + seed + said)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(made.digest(8 * count), dtype="<u8").astype(np.uint64).reshape(shape)


def product(left: Ring, right: Ring) -> Ring:
    """leftᵀ·right modulo 2**64."""
    found: Ring = left.T @ right
    return found


def deal(link: Link, n: int, width: Mapping[str, int], pairs: Pairs, run: RunContext) -> None:
    """At the dealer: numbers for the products of matrices [n, width] of these pairs."""
    seeds = {member: secrets.token_bytes(SEED_BYTES) for member in width}
    for member, seed in seeds.items():
        link.send(member, Dealt(seed))
    sums = {(p, q): np.zeros((width[p], width[q]), np.uint64) for p, q in pairs}
    for step, some in enumerate(parts(n)):
        run.check()
        count = some.stop - some.start
        R = {p: stream(seeds[p], run.name, "R", step, shape=(count, width[p])) for p in width}
        for p, q in pairs:
            sums[p, q] += product(R[p], R[q])
    for p, q in pairs:
        link.send(q, Correction(sums[p, q] - stream(seeds[p], run.name, "t", q, shape=sums[p, q].shape)))


def shares(link: Link, X: npt.NDArray[Any], pairs: Pairs, dealer: str, run: RunContext) -> dict[str, Ring]:
    """At a party with X [n, d], integers: its share of X_pᵀX_q [d_p, d_q] for each pair that it is in, by the other.

    UnexpectedMessage, naming the sender, for what does not fit.
    """
    try:
        return _shares(link, X, pairs, dealer, run)
    except CryptoError as error:
        raise UnexpectedMessage(f"{dealer} or another party sent {error}", member=dealer) from None


def _shares(link: Link, X: npt.NDArray[Any], pairs: Pairs, dealer: str, run: RunContext) -> dict[str, Ring]:
    me, seed = link.me, link.recv(dealer, Dealt).seed
    ours = [pair for pair in pairs if me in pair]
    masks = {q: secrets.token_bytes(SEED_BYTES) for p, q in ours if p == me}
    for q, mask in masks.items():
        link.send(q, Pair(mask))
    masks |= {p: link.recv(p, Pair).seed for p, q in ours if q == me}
    found: dict[str, Ring] = {}
    rows = parts(len(X))
    for step, some in enumerate(rows):
        own = X[some].astype(np.uint64)
        R = stream(seed, run.name, "R", step, shape=own.shape)
        hidden = Hidden(own - R)
        for other in masks:
            link.send(other, hidden)
        for p, q in ours:
            other = q if p == me else p
            theirs = link.recv(other, Hidden).numbers
            width = found[other].shape[int(p == me)] if step else theirs.size // len(own)
            if theirs.dtype != np.uint64 or theirs.shape != (len(own), width):
                raise UnexpectedMessage(
                    f"{other} sent columns for {theirs.shape} rows and columns, not for ({len(own)}, {width}). Align "
                    "the tables again.",
                    member=other,
                )
            more = product(R, theirs) if p == me else product(theirs, own)
            found[other] = found[other] + more if step else more
        run.progress("multiply", step + 1, len(rows))
    for p, q in ours:
        other = q if p == me else p
        shape = found[other].shape
        noise = stream(masks[other], run.name, p, q, shape=shape)
        if p == me:
            found[other] = found[other] + stream(seed, run.name, "t", q, shape=shape) + noise
            continue
        numbers = link.recv(dealer, Correction).numbers
        if numbers.dtype != np.uint64 or numbers.shape != shape:
            raise UnexpectedMessage(f"{dealer} dealt numbers that do not fit", member=dealer)
        found[other] = found[other] + numbers - noise
    return found
