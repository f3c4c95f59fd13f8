"""Many powers of one base, each for one multiplication a digit of the exponent.

A table holds base**(d·2**(w·k)) for all digits d of w bits and all places k (Brickell, Gordon, McCurley and
Wilson 1992, with every digit's power stored), so a power needs no squarings at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Ring, Vector
from fednb.crypto.threads import chunks, spread

MAX_WINDOW = 10  # 103 places of 1024 powers of 512 bytes at 2048 bits: 54 MB


def best_window(exponent_bits: int, uses: int) -> int:
    """The digits' length for which a table and `uses` powers from it cost least."""
    return min(range(1, MAX_WINDOW + 1), key=lambda w: -(-exponent_bits // w) * ((1 << w) + uses))


class FixedBase:
    """Powers of `base`, a vector of one, with exponents of up to `exponent_bits`, in digits of `window` bits."""

    def __init__(self, ring: Ring, base: Vector, exponent_bits: int, window: int, threads: int = 1) -> None:
        self.window = window
        self._ring = ring
        squares = [base]  # base**(2**i)
        for _ in range(1, self.window * -(-exponent_bits // self.window)):
            squares.append(ring.square(squares[-1], 1))

        def place(start: int) -> Vector:
            table = ring.ones(1)
            for power in squares[start : start + self.window]:
                table = ring.join([table, ring.multiply_taken(table, power, np.zeros(len(table), dtype=np.intp))])
            return table

        self._places = spread(place, range(0, len(squares), self.window), threads)

    def powers(self, exponents: npt.NDArray[np.uint8], threads: int = 1) -> Vector:
        """base**e for each little-endian e in `exponents`, [n, bytes]."""
        places, window = len(self._places), self.window

        def part(rows: slice) -> Vector:
            bits = np.unpackbits(exponents[rows], axis=1, bitorder="little")
            bits = np.pad(bits, ((0, 0), (0, places * window - bits.shape[1])))
            digits = bits.reshape(len(bits), places, window) @ (1 << np.arange(window))
            powers = self._ring.ones(len(bits))
            for table, digit in zip(self._places, digits.T, strict=True):
                powers = self._ring.multiply_into(powers, table, digit)
            return powers

        # place by place, for some exponents at a time: both they and the place's powers fit the processor's cache
        return self._ring.join(spread(part, chunks(len(exponents), threads, 512), threads))
