"""What of ciphertexts multiplies by adding.

A residue x modulo N² is a remainder u, half as long, times a power of 1 + N, times a factor f that all of them share:

    x = u·f·(1 + N)**z modulo N²          so that        Π x**e = Π u**e · f**(Σ e) · (1 + N·Σ e·z)

A logarithm z takes an inverse of u modulo N, thus four multiplications of half length; the sums of e·z are ordinary
arithmetic. What is left is Π u**e, whose multiplications take 4/5 of the time of others, or less, because u is short.
None of this needs a secret: z is no plaintext, since u is no n-th residue.
"""

from __future__ import annotations

from typing import Any

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

from fednb.crypto.backend import Residues, Ring, Vector, to_residues
from fednb.crypto.packing import Packing
from fednb.crypto.threads import slices, spread

AT_ONCE = 512  # rows, of 2048 at most: sums of their products of 16 bits with a digit of 26 are whole in a float
PARTS_AT_ONCE = 512  # whose sums are whole in 64 bits
WEIGHT_BITS = 16

Integers = npt.NDArray[np.signedinteger[Any]]


def taken_apart(
    ring: Ring, residues: Residues, columns: Integers, packing: Packing, threads: int = 1
) -> tuple[Vector, Vector]:
    """The remainders u of `residues` x, and what Π u**e must be multiplied with to be Π x**e, for the exponents of each
    of `columns` [n, d]; [d].

    The residues are ceil(n/k) ciphertexts of k slots. ValueError where one shares a divisor with the modulus.
    """
    m, k, d = len(residues), packing.slots, columns.shape[1]
    lowest, highest = columns.min(axis=0).astype(np.int64), columns.max(axis=0).astype(np.int64)
    digits = max(1, -(-int((highest - lowest).max()).bit_length() // WEIGHT_BITS))
    shifts = np.arange(digits) * WEIGHT_BITS
    remainders = ring.vacant(m)

    def part(rows: slice) -> npt.NDArray[np.int64]:
        above = np.zeros(((rows.stop - rows.start) * k, d), dtype=np.int64)
        some = columns[rows.start * k : rows.stop * k]
        above[: len(some)] = some.astype(np.int64) - lowest
        weights = np.ones((rows.stop - rows.start, 1 + digits * k * d))
        for i, shift in enumerate(shifts):
            place = slice(1 + i * k * d, 1 + (i + 1) * k * d)
            weights[:, place] = (above >> shift & ((1 << WEIGHT_BITS) - 1)).reshape(-1, k * d)
        logarithms = np.ones((len(weights), 1 + ring.digits))
        remainders[rows], logarithms[:, 1:] = ring.split(residues[rows])
        return (weights.T @ logarithms).astype(np.int64)

    sums, powers = [], [1 << ring.digit_bits * i for i in range(ring.digits)]
    for start in range(0, m, AT_ONCE * PARTS_AT_ONCE):
        stop = min(start + AT_ONCE * PARTS_AT_ONCE, m)
        parts = [slice(start + s.start, start + s.stop) for s in slices(stop - start, -(-(stop - start) // AT_ONCE))]
        total = np.sum(spread(part, parts, threads), axis=0).tolist()
        sums.append([(row[0], sum(map(int.__mul__, row[1:], powers))) for row in total])
    counts, logs = (np.array([[pair[i] for pair in each] for each in sums], dtype=object).sum(axis=0) for i in (0, 1))

    places = np.array([1 << packing.slot_bits * (k - 1 - s) for s in range(k)], dtype=object)
    weight = np.multiply.outer(np.array([1 << int(shift) for shift in shifts], dtype=object), places)

    def exponents(of: npt.NDArray[np.object_]) -> list[int]:
        by_column = (weight[:, :, None] * of[1:].reshape(digits, k, d)).sum(axis=(0, 1))
        return [int(each) for each in by_column + lowest.astype(object) * places.sum() * of[0]]

    root = gmpy2.isqrt(mpz(ring.modulus))
    units = ring.load(to_residues([1 + root * (z % root) for z in exponents(logs)], ring.width))
    factor = ring.load(to_residues([mpz(ring.factor)] * d, ring.width))
    return remainders, ring.multiply(units, ring.power(factor, exponents(counts)))
