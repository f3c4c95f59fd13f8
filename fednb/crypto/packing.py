"""Several signed numbers in one plaintext, laid out so that a product of packed vectors holds an inner product.

    plaintext    d_0 + d_1·2**L + ... + d_(k-1)·2**(L(k-1))                  k slots of L bits
    exponent     x_0·2**(L(k-1)) + ... + x_(k-2)·2**L + x_(k-1)              the same rows, in reverse
    product      ... + (Σ d_s·x_s)·2**(L(k-1)) + ...                         slot k-1; the others hold cross terms

Slots are signed: slot s borrows from slot s+1. Nothing overflows as long as every |slot| < 2**(L-1), which `plan`
proves from bit widths and the number of rows before anything is encrypted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.errors import CryptoError

MASK_MARGIN = 64  # bits left free above the highest slot: a uniform mask wraps around n with chance below 2**-64


@dataclass(frozen=True)
class Packing:
    """`slots` numbers of `left_bits` a plaintext, to be multiplied by numbers of `right_bits` and summed over `rows`.

    A number of b bits is a signed integer v with |v| < 2**(b-1).
    """

    slots: int
    slot_bits: int
    left_bits: int
    right_bits: int
    rows: int

    @classmethod
    def plan(cls, key_bits: int, rows: int, left_bits: int, right_bits: int) -> Packing:
        """The packing with the most slots that is proven right. ValueError when not even one slot is."""
        if rows < 1 or left_bits < 2 or right_bits < 2:
            raise CryptoError("a packing needs at least one row, and numbers of at least 2 bits")
        # |Σ d·x| < rows·2**(left-1)·2**(right-1) <= 2**(L-1); cross terms are sums of at most as many products
        slot_bits = left_bits + right_bits - 1 + (rows - 1).bit_length()
        if slot_bits > 64:
            raise CryptoError(
                f"{rows} products of {left_bits} and {right_bits} bits need slots of {slot_bits} bits, "
                "and 64 is the most. Use fewer fraction bits."
            )
        room = (key_bits - MASK_MARGIN) // slot_bits  # slots of a product: 2k - 1
        if room < 1:
            raise CryptoError(f"a slot of {slot_bits} bits does not fit a key of {key_bits} bits")
        return cls(min((room + 1) // 2, rows), slot_bits, left_bits, right_bits, rows)

    def length(self, count: int) -> int:
        """How many plaintexts hold `count` numbers."""
        return -(-count // self.slots)

    def pack(self, values: npt.NDArray[np.int64]) -> list[int]:
        """ceil(n/slots) signed plaintexts; the last one is filled up with zeros."""
        _check_bits(values, self.left_bits, "numbers to pack")
        if len(values) > self.rows:
            raise CryptoError(f"this packing is proven for {self.rows} rows, not for {len(values)}")
        numbers, k = values.tolist(), self.slots
        packed = []
        for start in range(0, len(numbers), k):
            plaintext = 0
            for number in reversed(numbers[start : start + k]):
                plaintext = (plaintext << self.slot_bits) + number
            packed.append(plaintext)
        return packed

    def unpack(self, plaintexts: Iterable[int], count: int) -> npt.NDArray[np.int64]:
        """The `count` numbers in signed plaintexts that `pack` made, also after sums of them."""
        half = 1 << (self.slot_bits - 1)
        shift = sum(half << (self.slot_bits * s) for s in range(self.slots))
        low = (1 << self.slot_bits) - 1
        numbers = [
            ((plaintext + shift) >> (self.slot_bits * s) & low) - half
            for plaintext in plaintexts
            for s in range(self.slots)
        ]
        return np.array(numbers[:count], dtype=np.int64)

    def window(self, plaintext: int) -> int:
        """The bits of slot k-1 alone, as an unsigned number: all that a decrypting party may give back."""
        return (int(plaintext) >> (self.slot_bits * (self.slots - 1))) & ((1 << self.slot_bits) - 1)

    def windows(self, plaintexts: Iterable[int]) -> npt.NDArray[np.uint64]:
        """`window` of each."""
        return np.array([self.window(plaintext) for plaintext in plaintexts], dtype=np.uint64)

    def check_columns(self, columns: npt.NDArray[np.signedinteger[Any]]) -> None:
        """CryptoError unless products with `columns` [n, d] are proven not to overflow."""
        if len(columns) > self.rows:
            raise CryptoError(f"this packing is proven for {self.rows} rows, not for {len(columns)}")
        _check_bits(columns, self.right_bits, "factors")


def _check_bits(values: npt.NDArray[np.signedinteger[Any]], bits: int, what: str) -> None:
    if values.dtype.kind != "i":
        raise CryptoError(f"{what} are integers with a sign, not {values.dtype}")
    limit = 1 << (bits - 1)
    bad = int(np.count_nonzero((values >= limit) | (values <= -limit)))
    if bad:
        raise CryptoError(f"{bad} of {values.size} {what} have more than {bits} bits")
