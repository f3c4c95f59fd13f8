"""How encrypted numbers of vertical training are scaled and packed: all compute the same from public figures.

    plaintext = number · 2**(SCALE + GUARD), in slots that packing.py proves wide enough for the sum over all rows

A decrypted window is right up to one unit. Every encrypted number is a multiple of 2**GUARD = 4, and so is every sum
of products, so rounding to a multiple of 4 makes a gradient exact: secrets do not change the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fednb.crypto import fixed_point
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import PublicKey
from fednb.protocols.separable import COARSE, FINE, Expansion, Floats
from fednb.protocols.steps import Stage

SCALE = 14  # fraction bits of encrypted numbers ...
GUARD = 2  # ... and zero bits below them: a window is right up to one unit, and rounding to 4 makes it exact
CARRY_SCALE = 8  # fraction bits of the factors that carry one passive party's scores into another's residuals
FACTOR_BITS = 13  # of plaintext factors, with sign
PADDING = 128  # rows that filling up the last ciphertext may add; more than any packing has slots


@dataclass(frozen=True)
class Layout:
    """How numbers are packed in one stage; everybody computes the same from public figures."""

    expansion: Expansion
    packing: Packing
    rows: int
    scale: int  # of residuals

    @classmethod
    def of(cls, stage: Stage, key: PublicKey, rows: int, passives: int) -> Self:
        expansion = FINE if stage == "fine" else COARSE
        scale, whole_bits = (SCALE + GUARD, 2) if passives == 1 else (SCALE + GUARD + CARRY_SCALE, 4)
        terms = max(expansion.terms + 1, passives * expansion.terms)
        return cls(
            expansion,
            Packing.plan(key.bits, terms * (rows + PADDING), 1 + whole_bits + scale, FACTOR_BITS),
            rows,
            scale,
        )

    @property
    def length(self) -> int:
        """m, ciphertexts of one term."""
        return self.packing.length(self.rows)

    def pack(self, terms: Floats) -> list[int]:
        """Terms [n, t] at the scale of residuals, t·m plaintexts."""
        exact = fixed_point.encode(terms, self.scale - GUARD, self.packing.left_bits - GUARD) << GUARD
        return self.packing.pack(self.pad(exact.T).reshape(-1))

    def pack_scores(self, terms: Floats) -> list[int]:
        """Terms [n, t] in (-1, 1) at the scale of scores."""
        exact = fixed_point.encode(terms, SCALE, SCALE + 2) << GUARD
        return self.packing.pack(self.pad(exact.T).reshape(-1))

    def pad(self, terms: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """[t, n, ...] with zeros up to whole ciphertexts, [t, m·k, ...]"""
        filled = np.zeros((terms.shape[0], self.length * self.packing.slots, *terms.shape[2:]), dtype=np.int64)
        filled[:, : self.rows] = terms
        return filled
