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
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.crypto import fixed_point
from fednb.errors import CryptoError, DataError
from fednb.protocols.rows import Floats

FRACTION_BITS = 18
LIMIT_BITS = 45  # of one entry
SEED_BYTES = 32
MOST_ROWS = 1 << 26  # products of standardised columns are at most the number of rows: 2**(26 + 36) fits

Ring = npt.NDArray[np.uint64]


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
