"""Encrypted histograms, as gradient-boosted trees need them: sums of packed numbers by bin, and few of them to decrypt.

A row's plaintext holds all its numbers side by side (gradient and hessian, of each output of the model), so one
product sums them all. Several sums then share a plaintext:

    plaintext of a row        v_0 + v_1·2**L + ...                             a cell: `numbers` slots of L bits
    plaintext of sums         cell_0 + cell_1·2**(L·numbers) + ...             `cells` of them

Slots are signed, and proven wide enough from the bits of a number and the number of rows. Sums are plain products of a
peer's ciphertexts: `packed` makes what can be refreshed and sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Indices, Ring, Vector
from fednb.crypto.inverses import inverses
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, PublicKey
from fednb.crypto.products import cell_products
from fednb.crypto.threads import slices, spread
from fednb.errors import CryptoError

Integers = npt.NDArray[np.int64]

MAX_SLOT_BITS = 62
SPARE_BITS = 2  # a signed plaintext lies in (-n/2, n/2)


@dataclass(frozen=True)
class CellPacking:
    """How `numbers` of `number_bits` a row, summed over at most `rows`, lie in plaintexts of `cells` sums each."""

    numbers: int
    number_bits: int
    rows: int
    slot_bits: int
    cells: int

    @classmethod
    def plan(cls, key_bits: int, rows: int, numbers: int, number_bits: int) -> CellPacking:
        """CryptoError when not even one sum fits. A number of b bits is a signed integer v with |v| < 2**(b-1)."""
        if rows < 1 or numbers < 1 or number_bits < 2:
            raise CryptoError("histograms need at least one row, and one number of at least 2 bits")
        slot_bits = number_bits + (rows - 1).bit_length()  # |Σ v| < rows·2**(b-1) <= 2**(L-1)
        if slot_bits > MAX_SLOT_BITS:
            raise CryptoError(f"sums over {rows} numbers of {number_bits} bits need {slot_bits} bits, too many")
        cells = (key_bits - SPARE_BITS) // (numbers * slot_bits)
        if cells < 1:
            raise CryptoError(
                f"{numbers} numbers of {slot_bits} bits do not fit a key of {key_bits} bits. Use fewer outputs."
            )
        return cls(numbers, number_bits, rows, slot_bits, cells)

    @property
    def cell_bits(self) -> int:
        """Bits of one sum's numbers together."""
        return self.numbers * self.slot_bits

    def length(self, sums: int) -> int:
        """How many plaintexts hold so many sums."""
        return -(-sums // self.cells)

    def pack(self, values: Integers) -> list[int]:
        """[n] signed plaintexts of the rows' numbers [n, numbers]."""
        if values.ndim != 2 or values.shape[1] != self.numbers or len(values) > self.rows:
            raise CryptoError(f"this packing is for up to {self.rows} rows of {self.numbers} numbers")
        return self._packing(self.numbers).pack(values.ravel())

    def unpack(self, plaintexts: Iterable[int], sums: int) -> Integers:
        """[sums, numbers] in the signed plaintexts of `packed` sums."""
        slots = self._packing(self.cells * self.numbers)
        return slots.unpack(plaintexts, sums * self.numbers).reshape(sums, self.numbers)

    def _packing(self, slots: int) -> Packing:
        return Packing(slots, self.slot_bits, self.number_bits, 2, self.rows * self.numbers)


def bin_sums(
    ring: Ring, values: Vector, rows: Indices, cells: Indices, sizes: Sequence[int], threads: int = 1
) -> Vector:
    """Sums of `values[rows]` by bin: `cells` [len(rows), G] in [0, sizes[g]), the partitions end to end; [Σ sizes]."""
    if not len(rows) or not len(sizes):
        return ring.ones(int(sum(sizes)))
    return ring.join(cell_products(ring, ring.take(values, rows), cells, sizes, threads))


def difference(ring: Ring, a: Vector, b: Vector) -> Vector:
    """[[a - b]]: the histogram of the rows of `a` that are not in `b`."""
    return ring.multiply(a, inverses(b, ring.multiply, lambda one: ring.power(one, [-1]), ring.join))


def cumulated(ring: Ring, sums: Vector, starts: Indices, sizes: Indices) -> Vector:
    """Running sums within each stretch of `sums` from starts[i] on, sizes[i] long; as long as `sums`."""
    out = ring.join([sums])
    if not len(starts):
        return out
    order = np.argsort(-sizes, kind="stable")
    starts, sizes = starts[order], sizes[order]  # the longest first: those that go on are a head
    running = ring.take(sums, starts)
    steps, places = [running], [starts]
    for step in range(1, int(sizes.max(initial=0))):
        alive = int((sizes > step).sum())
        running = ring.multiply_taken(running[:alive], sums, starts[:alive] + step)
        steps.append(running)
        places.append(starts[:alive] + step)
    where = np.concatenate(places)
    found = np.arange(len(sums)) + len(where)  # what is in no stretch stays as it is
    found[where] = np.arange(len(where))
    return ring.take(ring.join([*steps, out]), found)


def packed(key: PublicKey, sums: Vector, packing: CellPacking, threads: int = 1) -> CipherVector:
    """The sums, `packing.cells` in each plaintext, the first lowest. Not fresh: refresh it before it leaves."""
    ring, count, k = key.ring, len(sums), packing.cells
    pool = ring.join([sums, ring.ones(1)])

    def part(which: slice) -> Vector:
        first = np.arange(which.start, which.stop) * k
        out = ring.ones(len(first))
        for place in range(min(k, count) - 1, -1, -1):
            out = ring.multiply_taken(out, pool, np.minimum(first + place, count))
            if place:
                out = ring.square(out, packing.cell_bits)
        return out

    if not count:
        return CipherVector(np.empty((0, key.width), dtype=np.uint8), 0, key)
    return CipherVector(ring.store(ring.join(spread(part, slices(packing.length(count), threads), threads))), 0, key)
