"""The random n-th residues that hide plaintexts, each for about a hundred multiplications.

Whoever encrypts chooses a base of its own, h = (-x²)**n mod n² for a random x, and multiplies with h**r for random r
of half the length of n. That h**r looks like any n-th residue is the assumption of Damgård, Jurik and Nielsen 2010;
here the base is unknown to everybody else, besides. The key holder need not assume it: it draws exponents longer than
the orders modulo p² and q², works there with numbers of half the size, and joins the halves.

None of this hides a sum from the key holder itself, who made the summands: it knows p and q, and its own exponents.
What is sent to the key holder gets `UniformNoise`, r**n for uniform r, which hides from anybody whatever he knows.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from typing import Any, Protocol

import gmpy2
import numpy as np
from gmpy2 import mpz

from fednb.crypto.backend import Residues, Ring, Vector, ring, to_integers, to_residues
from fednb.crypto.fixed_base import FixedBase, best_window
from fednb.crypto.threads import chunks, spread

MARGIN_BITS = 64  # exponents longer than an order by this much are uniform modulo the order, to 2**-64


class Noise(Protocol):
    """Random n-th residues modulo n²."""

    def draw(self, count: int, threads: int = 1) -> Residues:
        """`count` of them."""


class PublicNoise:
    """From the public key alone."""

    def __init__(self, n: int, modulus: Ring) -> None:
        self._ring = modulus
        base = gmpy2.powmod(-(_unit(n) ** 2) % n, n, modulus.modulus)
        self._powers = _Powers(modulus, base, -(-n.bit_length() // 2))

    def draw(self, count: int, threads: int = 1) -> Residues:
        return self._ring.store(self._powers.draw(count, threads))


class SecretNoise:
    """From the primes: uniform in the group that two random elements generate, and faster."""

    def __init__(self, p: int, q: int) -> None:
        self._p2, self._q2 = mpz(p) ** 2, mpz(q) ** 2
        self._inverse = gmpy2.invert(self._p2, self._q2)
        self._width = -(-(self._p2 * self._q2).bit_length() // 8)
        self._halves = []
        for prime, square in ((p, self._p2), (q, self._q2)):
            modulus = ring(square, -(-square.bit_length() // 8))
            base = gmpy2.powmod(_unit(prime), prime, square)  # of an order that divides prime - 1
            self._halves.append((modulus, _Powers(modulus, base, prime.bit_length() + MARGIN_BITS)))

    def draw(self, count: int, threads: int = 1) -> Residues:
        # one by one, numbers of this size are multiplied faster than threads pass the GIL to each other
        threads = threads if self._halves[0][0].lanes > 1 else 1
        half_p, half_q = (to_integers(modulus.store(powers.draw(count, threads))) for modulus, powers in self._halves)
        p2, q2, inverse = self._p2, self._q2, self._inverse
        joined = [a + (b - a) * inverse % q2 * p2 for a, b in zip(half_p, half_q, strict=True)]  # Garner 1959
        return to_residues(joined, self._width)


class UniformNoise:
    """From the public key alone, every n-th residue equally likely: a power of 2048 bits for each."""

    def __init__(self, n: int, modulus: Ring) -> None:
        self._n, self._ring = n, modulus

    def draw(self, count: int, threads: int = 1) -> Residues:
        def part(which: slice) -> Residues:
            units = to_residues([_unit(self._n) for _ in range(which.stop - which.start)], self._ring.width)
            return self._ring.store(self._ring.power_secret(self._ring.load(units), self._n))

        if not count:
            return to_residues([], self._ring.width)
        return np.concatenate(spread(part, chunks(count, threads), threads))


class _Powers:
    """Random powers of a secret base, from a table that grows with use."""

    def __init__(self, modulus: Ring, base: Any, exponent_bits: int) -> None:
        self._ring = modulus
        self._base = modulus.load(to_residues([base], modulus.width))
        self._bytes = -(-exponent_bits // 8)
        self._lock = threading.Lock()
        self._table: FixedBase | None = None
        self._drawn = self._sized_for = 0

    def draw(self, count: int, threads: int) -> Vector:
        exponents = np.frombuffer(secrets.token_bytes(count * self._bytes), dtype=np.uint8)
        return self._for(count, threads).powers(exponents.reshape(count, self._bytes), threads)

    def _for(self, count: int, threads: int) -> FixedBase:
        with self._lock:
            self._drawn += count
            if self._table is None or self._drawn > self._sized_for:
                self._sized_for = _size_for(self._drawn)
                window = best_window(8 * self._bytes, self._sized_for)
                if self._table is None or window > self._table.window:
                    self._table = FixedBase(self._ring, self._base, 8 * self._bytes, window, threads)
            return self._table


def draw_cost(exponent_bits: int, counts: Iterable[int]) -> int:
    """Multiplications of draws of `counts` residues, one after the other, with the tables that they make."""
    total = drawn = sized_for = window = 0
    for count in counts:
        drawn += count
        if drawn > sized_for:
            sized_for = _size_for(drawn)
            better = best_window(exponent_bits, sized_for)
            if better > window:
                window = better
                total += -(-exponent_bits // window) << window
        total += count * -(-exponent_bits // window)
    return total


def _size_for(drawn: int) -> int:
    """How many powers a table is made for: as many again will come, and more."""
    return max(4 * drawn, 64)


def _unit(modulus: int) -> Any:
    """A random number in [2, modulus) that is coprime to it."""
    while True:
        x = mpz(2 + secrets.randbelow(modulus - 2))
        if gmpy2.gcd(x, modulus) == 1:
            return x
