"""Arithmetic on vectors of residues: the one seam under everything else in `crypto`.

Residues travel as fixed-width big-endian bytes, so an implementation may keep whatever form it likes inside. Every
operation gives canonical residues in [0, modulus): two implementations must agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

Residues = npt.NDArray[np.uint8]  # [n, width], big-endian
Part = TypeVar("Part")
Result = TypeVar("Result")


class FixedBase(Protocol):
    """Powers of one base, from a table."""

    def powers(self, exponents: npt.NDArray[np.uint8], threads: int = 1) -> Residues:
        """base**e for each little-endian e in `exponents`, [n, exponent_bytes]."""


class Backend(Protocol):
    """What an implementation of the arithmetic offers. Widths are those of the inputs; moduli are odd."""

    name: str

    def multiply(self, a: Residues, b: Residues, modulus: Any, threads: int = 1) -> Residues:
        """a·b, elementwise."""

    def fixed_base(
        self, base: Any, modulus: Any, width: int, exponent_bits: int, uses: int, threads: int = 1
    ) -> FixedBase:
        """A table of powers of `base`, of a size that pays off for `uses` exponents."""

    def subset_products(self, c: Residues, bits: npt.NDArray[np.uint8], modulus: Any, threads: int = 1) -> Residues:
        """For each row of `bits`, [T, ceil(n/8)] as numpy.packbits makes them: the product of the c whose bit is set."""

    def cell_products(
        self, c: Residues, cells: npt.NDArray[np.integer[Any]], sizes: Sequence[int], modulus: Any, threads: int = 1
    ) -> list[Residues]:
        """For each column g of `cells`, [n, G], values below sizes[g]: the products of c in each cell, [sizes[g]]."""


def spread(work: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """`work` on each part, in order of the parts; on up to `threads` threads that leave the GIL while they compute."""
    if threads <= 1 or len(parts) <= 1:
        return [work(part) for part in parts]

    def released(part: Part) -> Result:
        with gmpy2.context(allow_release_gil=True):  # contexts belong to a thread
            return work(part)

    with ThreadPoolExecutor(min(threads, len(parts)), thread_name_prefix="crypto") as pool:
        return list(pool.map(released, parts))


def slices(n: int, threads: int, least: int = 16) -> list[slice]:
    """0..n cut into contiguous parts of nearly equal size, one a thread, none shorter than `least`."""
    parts = max(1, min(threads, n // least))
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def to_ints(residues: Residues) -> list[Any]:
    """Residues as a list of mpz."""
    raw, width = residues.tobytes(), residues.shape[1]
    return [mpz.from_bytes(raw[i : i + width], "big") for i in range(0, len(raw), width)]


def to_residues(values: Sequence[Any], width: int) -> Residues:
    """A list of mpz below 256**width as residues."""
    raw = b"".join([value.to_bytes(width, "big") for value in values])
    return np.frombuffer(raw, dtype=np.uint8).reshape(len(values), width)


class Gmp:
    """gmpy2: runs everywhere, one modular multiplication at a time."""

    name = "gmpy2"

    def multiply(self, a: Residues, b: Residues, modulus: Any, threads: int = 1) -> Residues:
        def part(rows: slice) -> Residues:
            pairs = zip(to_ints(a[rows]), to_ints(b[rows]), strict=True)
            return to_residues([x * y % modulus for x, y in pairs], a.shape[1])

        return np.concatenate(spread(part, slices(len(a), threads), threads))

    def fixed_base(
        self, base: Any, modulus: Any, width: int, exponent_bits: int, uses: int, threads: int = 1
    ) -> FixedBase:
        return _Table(base, modulus, width, exponent_bits, uses, threads)

    def subset_products(self, c: Residues, bits: npt.NDArray[np.uint8], modulus: Any, threads: int = 1) -> Residues:
        rows = np.unpackbits(bits, axis=1, count=len(c)).astype(bool)
        values = to_ints(c)
        out = []
        for row in rows:
            product = mpz(1)
            for i in np.flatnonzero(row).tolist():
                product = product * values[i] % modulus
            out.append(product)
        return to_residues(out, c.shape[1])

    def cell_products(
        self, c: Residues, cells: npt.NDArray[np.integer[Any]], sizes: Sequence[int], modulus: Any, threads: int = 1
    ) -> list[Residues]:
        values = to_ints(c)

        def column(g: int) -> Residues:
            table = [mpz(1)] * sizes[g]
            for value, cell in zip(values, cells[:, g].tolist(), strict=True):
                table[cell] = table[cell] * value % modulus
            return to_residues(table, c.shape[1])

        return spread(column, range(len(sizes)), threads)


class _Table:
    """base**(d·2**(w·k)) for all digits d of w bits and places k, so that a power costs one multiplication a digit.

    Brickell, Gordon, McCurley and Wilson 1992, with every digit's power stored.
    """

    def __init__(self, base: Any, modulus: Any, width: int, exponent_bits: int, uses: int, threads: int) -> None:
        self._modulus, self._width = modulus, width
        self.window = min(range(1, 11), key=lambda w: -(-exponent_bits // w) * ((1 << w) + uses))
        self._places = -(-exponent_bits // self.window)
        places = [base]
        for _ in range(1, self._places):
            places.append(gmpy2.powmod(places[-1], 1 << self.window, modulus))

        def row(power: Any) -> list[Any]:
            powers = [mpz(1)]
            for _ in range(1, 1 << self.window):
                powers.append(powers[-1] * power % modulus)
            return powers

        self._rows = spread(row, places, threads)

    def powers(self, exponents: npt.NDArray[np.uint8], threads: int = 1) -> Residues:
        bits = np.unpackbits(exponents, axis=1, bitorder="little")
        bits = np.pad(bits, ((0, 0), (0, self._places * self.window - bits.shape[1])))
        digits = bits.reshape(len(bits), self._places, self.window) @ (1 << np.arange(self.window))
        rows, modulus = self._rows, self._modulus

        def part(which: slice) -> Residues:
            out = []
            for exponent in digits[which].tolist():
                power = mpz(1)
                for row, digit in zip(rows, exponent, strict=True):
                    power = power * row[digit] % modulus
                out.append(power)
            return to_residues(out, self._width)

        return np.concatenate(spread(part, slices(len(digits), threads, least=1), threads))


def choose() -> Backend:
    """The fastest implementation that this machine can run."""
    return _GMP


_GMP = Gmp()
