"""A row's numbers side by side in one plaintext, so that one multiplication scales all of them.

    plaintext    x_0 + x_1·2**L + ... + x_(k-1)·2**(L(k-1))             k slots of L bits
    times w      w·x_0 + w·x_1·2**L + ...                               and a sum over rows stays in its slots

Unlike `packing`, every slot holds a result. Slots are signed, and hold sums with |sum| < 2**(L-1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fednb.crypto.packing import MASK_MARGIN, Packing
from fednb.errors import CryptoError

MAX_FACTOR_BITS = 62


@dataclass(frozen=True)
class SideBySide:
    """Rows of `width` numbers, `slots` of them in a plaintext of slots of `bits` bits."""

    width: int
    slots: int
    bits: int

    @classmethod
    def plan(cls, key_bits: int, width: int, bits: int) -> Self:
        """CryptoError when not even one slot fits."""
        slots = (key_bits - MASK_MARGIN) // bits
        if slots < 1 or width < 1:
            raise CryptoError(f"a slot of {bits} bits does not fit a key of {key_bits} bits")
        return cls(width, min(slots, width), bits)

    @property
    def length(self) -> int:
        """Plaintexts of a row."""
        return -(-self.width // self.slots)

    def pack(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """Of rows [n, width]: n plaintexts with the first slots, then n with the next ones, and so on."""
        packed = []
        for start in range(0, self.width, self.slots):
            for numbers in rows[:, start : start + self.slots].tolist():
                plaintext = 0
                for number in reversed(numbers):
                    plaintext = (plaintext << self.bits) + number
                packed.append(plaintext)
        return packed

    def unpack(self, plaintexts: Sequence[int]) -> list[list[int]]:
        """Of signed plaintexts as `pack` orders them: the numbers by row."""
        n, half, low = len(plaintexts) // self.length, 1 << (self.bits - 1), (1 << self.bits) - 1
        shift = sum(half << (self.bits * s) for s in range(self.slots))
        lifted = [plaintext + shift for plaintext in plaintexts]
        rows = [
            [(lifted[t * n + i] >> (self.bits * s) & low) - half for t in range(self.length) for s in range(self.slots)]
            for i in range(n)
        ]
        return [row[: self.width] for row in rows]


def factors(columns: npt.NDArray[np.signedinteger[Any]]) -> Packing:
    """For `inner_products` of one plaintext a row with integer `columns` [n, d]. CryptoError for too many bits."""
    bits = int(np.abs(columns).max(initial=1)).bit_length() + 1
    if bits > MAX_FACTOR_BITS:
        raise CryptoError(f"factors have {MAX_FACTOR_BITS} bits at most, these {bits}. Use fewer fraction bits.")
    return Packing(slots=1, slot_bits=64, left_bits=2, right_bits=max(bits, 2), rows=len(columns))
