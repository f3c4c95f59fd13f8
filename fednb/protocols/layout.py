"""How encrypted numbers of vertical training are scaled and packed: all compute the same from public figures.

    plaintext = number · 2**(fraction + GUARD), in slots that packing.py proves wide enough for the sum over all rows

A decrypted window is right up to one unit. Every encrypted number is a multiple of 2**GUARD = 4, and so is every sum
of products, so rounding to a multiple of 4 makes a gradient exact: secrets do not change the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from fednb.crypto import fixed_point
from fednb.crypto.packing import Packing
from fednb.protocols.rows import columns_of, travelling
from fednb.protocols.separable import COARSE, FINE, Expansion, Floats
from fednb.protocols.steps import Stage

GUARD = 2  # zero bits below every number: a window is right up to one unit, and rounding to 4 makes it exact
SLOT_BITS = 64  # the most that a packing has
LEAST_FRACTION = 3  # bits
_SPREAD = (np.sqrt(3.0), (np.sqrt(5.0) - 1.0) / 2.0, np.sqrt(2.0))  # by term, row and column
PADDING = 128  # rows that filling up the last ciphertext may add; more than any packing has slots


@dataclass(frozen=True)
class Digits:
    """Bits of the numbers of one stage."""

    fraction: int  # of encrypted numbers
    factor: int  # of plaintext factors, with sign
    whole: int  # residuals are below 2**whole; with several passive parties, which are added, below 2**(whole + 2)
    score: int = 1  # scores are below 2**(score - 1)
    carry: int = 8  # fraction bits of the factors that carry one passive party's scores into another's residuals


class Numbers(Protocol):
    """What of a family its layout depends on."""

    def terms(self, stage: Stage) -> int:
        """R, the number of products beside f_0."""
        ...

    def digits(self, stage: Stage) -> Digits: ...


class Sigmoid:
    """The logistic family's."""

    # The coarse stage only has to come near: with fewer bits, more rows share a ciphertext and products cost less.
    _DIGITS = {"coarse": Digits(10, 10, 2), "fine": Digits(14, 13, 2)}

    @staticmethod
    def expansion(stage: Stage) -> Expansion:
        return FINE if stage == "fine" else COARSE

    def terms(self, stage: Stage) -> int:
        return self.expansion(stage).terms

    def digits(self, stage: Stage) -> Digits:
        return self._DIGITS["fine" if stage == "fine" else "coarse"]


SIGMOID = Sigmoid()


class KeySize(Protocol):
    """A public key, or what stands for one that is still to be made."""

    @property
    def bits(self) -> int: ...


@dataclass(frozen=True)
class Layout:
    """How numbers are packed in one stage; everybody computes the same from public figures."""

    terms: int  # R, the number of products beside f_0
    digits: Digits
    packing: Packing
    rows: int
    fraction: int  # bits of scores and of what residuals are made of
    scale: int  # of residuals

    @classmethod
    def of(
        cls,
        stage: Stage,
        key: KeySize,
        rows: int,
        passives: int,
        weight_bits: int = 0,
        numbers: Numbers = SIGMOID,
    ) -> Self:
        """`weight_bits`: a row's weight multiplies its residuals by at most 2**weight_bits."""
        digits, terms = numbers.digits(stage), numbers.terms(stage)
        fraction, right_bits = digits.fraction, digits.factor
        carry, whole_bits = (0, digits.whole) if passives == 1 else (digits.carry, digits.whole + 2)
        products = max(terms + 1, passives * terms) * (rows + PADDING)
        whole_bits += weight_bits
        # where a slot has no room for all, the last bits of fractions go: their rounding is averaged over many rows
        needed = 1 + whole_bits + fraction + GUARD + carry + right_bits - 1 + (products - 1).bit_length()
        fraction = max(min(fraction, fraction + SLOT_BITS - needed), LEAST_FRACTION)
        scale = fraction + GUARD + carry
        packing = Packing.plan(key.bits, products, 1 + whole_bits + scale, right_bits)
        return cls(terms, digits, packing, rows, fraction, scale)

    @property
    def carry_scale(self) -> int:
        """Of the factors that carry one passive party's scores into another's residuals."""
        return self.scale - self.score_scale

    @property
    def score_scale(self) -> int:
        """Of encrypted scores."""
        return self.fraction + GUARD

    @property
    def length(self) -> int:
        """m, ciphertexts of one term."""
        return self.packing.length(self.rows)

    def pack(self, terms: Floats) -> list[int]:
        """Terms [n, t] at the scale of residuals, t·m plaintexts."""
        exact = fixed_point.encode(terms, self.scale - GUARD, self.packing.left_bits - GUARD) << GUARD
        return self.packing.pack(self.pad(exact.T).reshape(-1))

    def pack_scores(self, terms: Floats) -> list[int]:
        """Terms [n, t], below 2**(digits.score - 1), at the scale of scores."""
        exact = fixed_point.encode(terms, self.fraction, self.fraction + 1 + self.digits.score) << GUARD
        return self.packing.pack(self.pad(exact.T).reshape(-1))

    def parts(self) -> list[tuple[slice, Self]]:
        """The rows in parts that travel and are multiplied one after the other, each with a layout of its own."""
        return [(rows, replace(self, rows=rows.stop - rows.start)) for rows in travelling(self.rows)]

    def shifts(self, largest: Floats) -> npt.NDArray[np.int64]:
        """[d] fraction bits of factors, as many as each column allows whose factors are at most `largest` [d]."""
        limit = (1 << (self.packing.right_bits - 1)) - 1
        return np.floor(np.log2(limit / np.where(largest > 0, largest, 1.0))).astype(np.int64)

    def factors(
        self, left: Floats, X: Floats, shift: npt.NDArray[np.int64], row: int = 0, column: int = 0
    ) -> npt.NDArray[np.signedinteger[Any]]:
        """Factors left [n, t] · X [n, d] as integers [t·m·k, d], with `shift` [d] fraction bits.

        X are rows from `row` on and columns from `column` on of a table. What is rounded up and what down depends on
        the row: rounded alike, every row of a category would err to the same side, and with few bits the gradient
        would be off by more than the tolerance.
        """
        t, d = left.shape[1], X.shape[1]
        spread = _SPREAD[0] * np.arange(t)[:, None] + _SPREAD[1] * np.arange(row, row + len(X))
        kind = next(kind for kind in (np.int16, np.int32, np.int64) if self.packing.right_bits <= np.iinfo(kind).bits)
        whole = np.zeros((d, t, self.length * self.packing.slots), dtype=kind)  # columns are taken one by one
        for j in range(d):
            values = left.T * np.ldexp(X[:, j], shift[j])
            above = spread + _SPREAD[2] * (column + j)
            values += above - np.floor(above)  # in [0, 1), spread evenly along every axis
            whole[j, :, : self.rows] = np.floor(values)
        return whole.reshape(d, -1).T

    def pad(self, terms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """[t, n] with zeros up to whole ciphertexts, [t, m·k]"""
        filled = np.zeros((terms.shape[0], self.length * self.packing.slots), dtype=np.int64)
        filled[:, : self.rows] = terms
        return filled


def largest(left: Floats, X: Floats) -> Floats:
    """[d] the largest |left · X| of each column, for `Layout.shifts`."""
    most = np.abs(left).max(axis=1)
    return np.array([np.max(most * np.abs(x)) for x in columns_of(X)])
