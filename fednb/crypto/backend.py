"""Vectors of residues and the few operations on them that everything else in `crypto` is built from: the one seam.

A `Ring` is the integers modulo one odd number. It keeps vectors in whatever form it computes fastest in, here lists
of gmpy2 integers; `lanes` uses an array of limbs. Slices of its vectors are vectors. `load` and `store` go to and
from fixed-width big-endian bytes, and `store` gives canonical residues: whatever `ring` chooses on a machine, the
bytes are the same. The environment variable FEDNB_KERNEL, "gmpy2", "avx2" or "ifma", chooses by hand.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

from fednb.crypto import lanes
from fednb.crypto.inverses import inverses
from fednb.crypto.threads import chunks
from fednb.errors import CryptoError

MANY = 4  # tables for each share, so that it takes whole ones
_INSTRUCTIONS = {"ifma": "AVX-512 IFMA", "avx2": "AVX2"}

Residues = npt.NDArray[np.uint8]  # [n, width], big-endian
Indices = npt.NDArray[np.integer[Any]]
Vector = Any  # a ring's own form of n residues: has a length, and slices of it are vectors


class Buckets(Protocol):
    """Products of the values in each cell, by column, as values come."""

    def add(self, values: Vector, cells: Indices, share: int = 0, shares: int = 1) -> None:
        """More values, and for each column of `cells`, [n, columns], where they belong.

        It fills the cells, or of many tables the tables, of one share of `shares`. Every share takes all values, on
        a thread of its own.
        """

    def tables(self) -> list[Vector]:
        """For each column the products, [size]; whoever asks owns them."""


class Ring(Protocol):
    """The integers modulo `modulus`, and vectors of them."""

    modulus: int
    width: int  # bytes of a residue
    lanes: int  # how many multiplications are done at once
    # where the modulus is a square N²; `logarithms` says what these are
    factor: int
    digits: int
    digit_bits: int

    def load(self, residues: Residues) -> Vector:
        """A vector of `residues`, which are below the modulus."""

    def store(self, vector: Vector) -> Residues:
        """The canonical residues of `vector`."""

    def ones(self, n: int) -> Vector:
        """[1, ..., 1]"""

    def join(self, vectors: Sequence[Vector]) -> Vector:
        """The vectors end to end."""

    def take(self, a: Vector, index: Indices) -> Vector:
        """a[index[i]]"""

    def weave(self, vectors: Sequence[Vector]) -> Vector:
        """Of vectors of one length: their first residues, then their second ones, and so on."""

    def multiply(self, a: Vector, b: Vector) -> Vector:
        """a[i]·b[i]"""

    def multiply_onto(self, a: Vector, b: Vector) -> Vector:
        """a[i]·b[i], perhaps in the place of `a`, which the caller made and nobody else has."""

    def multiply_taken(self, a: Vector, table: Vector, index: Indices) -> Vector:
        """a[i]·table[index[i]]"""

    def multiply_into(self, a: Vector, table: Vector, index: Indices) -> Vector:
        """a[i]·table[index[i]], perhaps in the place of `a`, which the caller made and nobody else has."""

    def buckets(self, columns: int, size: int) -> Buckets:
        """For values, or remainders, that are put into one of `size` cells by each of some columns."""

    def split(self, residues: Residues) -> tuple[Vector, npt.NDArray[np.float64]]:
        """Of each residue x = u·factor·(1 + N)**z the remainder u, and z modulo N.

        Remainders are for `Buckets` alone, where they take less time. Logarithms z are digits of either sign, lowest
        first, [n, digits]. ValueError where a residue shares a divisor with N.
        """

    def vacant(self, n: int) -> Vector:
        """Room for n remainders, which are assigned to its slices."""

    def combine(self, values: Vector) -> Vector:
        """The products of all subsets, [2**len(values)]: bits of the index say which, lowest: the last."""

    def square(self, a: Vector, times: int) -> Vector:
        """a[i]**(2**times)"""

    def power(self, a: Vector, exponents: Sequence[int]) -> Vector:
        """a[i]**exponents[i]; a negative exponent inverts."""

    def power_secret(self, a: Vector, exponent: int) -> Vector:
        """a[i]**exponent in a time that does not depend on the exponent's bits."""


class GmpRing:
    """gmpy2: runs everywhere, one modular multiplication at a time."""

    lanes = 1
    factor = 1
    digit_bits = 16

    def __init__(self, modulus: int, width: int) -> None:
        self.modulus, self.width = int(modulus), width
        self._modulus = mpz(modulus)
        self._root = gmpy2.isqrt(self._modulus)
        self.digits = -(-self._root.bit_length() // self.digit_bits)

    def load(self, residues: Residues) -> list[Any]:
        return to_integers(residues)

    def store(self, vector: list[Any]) -> Residues:
        return to_residues(vector, self.width)

    def ones(self, n: int) -> list[Any]:
        return [mpz(1)] * n

    def join(self, vectors: Sequence[list[Any]]) -> list[Any]:
        return [value for vector in vectors for value in vector]

    def take(self, a: list[Any], index: Indices) -> list[Any]:
        return [a[i] for i in index.tolist()]

    def weave(self, vectors: Sequence[list[Any]]) -> list[Any]:
        return [value for values in zip(*vectors, strict=True) for value in values]

    def multiply(self, a: list[Any], b: list[Any]) -> list[Any]:
        modulus = self._modulus
        return [x * y % modulus for x, y in zip(a, b, strict=True)]

    def multiply_taken(self, a: list[Any], table: list[Any], index: Indices) -> list[Any]:
        modulus = self._modulus
        return [x * table[i] % modulus for x, i in zip(a, index.tolist(), strict=True)]

    multiply_onto = multiply
    multiply_into = multiply_taken

    def buckets(self, columns: int, size: int) -> GmpBuckets:
        return GmpBuckets(columns, size, self._modulus)

    def split(self, residues: Residues) -> tuple[list[Any], npt.NDArray[np.float64]]:
        root = self._root  # x = u + b·N = u·(1 + N)**(b/u)
        multiples, remainders = zip(*(gmpy2.f_divmod(x, root) for x in to_integers(residues)), strict=True)

        def multiply(a: Sequence[Any], b: Sequence[Any]) -> list[Any]:
            return [x * y % root for x, y in zip(a, b, strict=True)]

        inverted = inverses(remainders, multiply, lambda one: [gmpy2.powmod(one[0], -1, root)], self.join)
        z = to_residues(multiply(multiples, inverted), 2 * self.digits)
        return list(remainders), z.view(">u2")[:, ::-1].astype(np.float64)

    def vacant(self, n: int) -> list[Any]:
        return [None] * n

    def combine(self, values: list[Any]) -> list[Any]:
        modulus = self._modulus
        table = self.ones(1)
        for value in reversed(values):
            table += [entry * value % modulus for entry in table]
        return table

    def square(self, a: list[Any], times: int) -> list[Any]:
        modulus = self._modulus
        if times == 1:
            return [x * x % modulus for x in a]
        return [gmpy2.powmod(x, 1 << times, modulus) for x in a]

    def power(self, a: list[Any], exponents: Sequence[int]) -> list[Any]:
        return [gmpy2.powmod(x, e, self._modulus) for x, e in zip(a, exponents, strict=True)]

    def power_secret(self, a: list[Any], exponent: int) -> list[Any]:
        return [gmpy2.powmod_sec(x, exponent, self._modulus) for x in a]


class GmpBuckets:
    """One value at a time."""

    def __init__(self, columns: int, size: int, modulus: Any) -> None:
        self._tables: list[list[Any]] = [[None] * size for _ in range(columns)]
        self._modulus = modulus

    def add(self, values: list[Any], cells: Indices, share: int = 0, shares: int = 1) -> None:
        modulus, divided = self._modulus, len(self._tables) < MANY * shares
        for number, (table, column) in enumerate(zip(self._tables, cells.T, strict=True)):
            if not divided and number % shares != share:
                continue
            rows = _shared(column, share, shares) if divided and shares > 1 else np.arange(len(column))
            for part in chunks(len(rows), 1):  # numbers of rows as objects take much memory
                own = [values[row] for row in rows[part].tolist()]
                for value, cell in zip(own, column[rows[part]].tolist(), strict=True):
                    held = table[cell]
                    table[cell] = value if held is None else held * value % modulus

    def tables(self) -> list[list[Any]]:
        one, mine, self._tables = mpz(1), self._tables, []
        return [[one if held is None else held for held in table] for table in mine]


def _shared(column: Indices, share: int, shares: int) -> Indices:
    """Rows whose cells one share takes: every so-many-th of the cells, from the fullest one on."""
    counts = np.bincount(column)
    owner = np.empty(len(counts), dtype=np.intp)
    owner[np.argsort(-counts, kind="stable")] = np.arange(len(counts)) % shares
    return np.flatnonzero(owner[column] == share)


def ring(modulus: int, width: int) -> Ring:
    """The integers modulo `modulus`, in the fastest implementation that this machine runs."""
    if (kind := kernel()) in lanes.KINDS and lanes.fits(modulus, width):
        return lanes.LaneRing(modulus, width, kind)
    return GmpRing(modulus, width)


def kernel() -> str:
    """Which implementation runs: the fastest of "ifma" and "avx2", which are compiled, that can; else "gmpy2"."""
    wanted, found = os.environ.get("FEDNB_KERNEL", ""), lanes.available()
    if wanted not in ("", "gmpy2", *lanes.KINDS):
        raise CryptoError(f'FEDNB_KERNEL is "{wanted}"; there are "gmpy2", {" and ".join(map(_quoted, lanes.KINDS))}')
    if wanted in lanes.KINDS and wanted not in found:
        raise CryptoError(f"FEDNB_KERNEL asks for {wanted}, but {_missing(wanted)}")
    return wanted or next(iter(found), "gmpy2")


def describe() -> str:
    """Which implementation runs and why, in one line for people."""
    runs, found = kernel(), lanes.available()
    if found and runs != found[0]:
        return f"{runs}: chosen by FEDNB_KERNEL, although this processor has {_INSTRUCTIONS[found[0]]}"
    if runs == "ifma":
        return f"ifma: compiled, eight multiplications at a time with {_INSTRUCTIONS[runs]}"
    if runs == "avx2":
        return f"avx2: compiled, four multiplications at a time with {_INSTRUCTIONS[runs]}; {_missing('ifma')}"
    return f"gmpy2: one multiplication at a time; {_missing('avx2')}"


def _quoted(word: str) -> str:
    return f'"{word}"'


def _missing(kind: str) -> str:
    if not lanes.built():
        return "the compiled module was not built: there was no C compiler at installation"
    if lanes.stale():
        return "the compiled module is of another version: install fednb again"
    return f"this processor, or the compiler that built the module, has no {_INSTRUCTIONS[kind]}"


def to_integers(residues: Residues) -> list[Any]:
    """Residues as gmpy2 integers."""
    raw, width = residues.tobytes(), residues.shape[1]
    return [mpz.from_bytes(raw[i : i + width], "big") for i in range(0, len(raw), width)]


def to_residues(values: Sequence[Any], width: int) -> Residues:
    """gmpy2 integers in [0, 256**width) as residues."""
    raw = b"".join([value.to_bytes(width, "big") for value in values])
    return np.frombuffer(raw, dtype=np.uint8).reshape(len(values), width)
