"""Sums of encrypted numbers by cell: what binning and histograms are made of.

Rows fall into one cell of each of several partitions (the bins of one feature, say), and the sum over a cell is a
product of ciphertexts. With k numbers a ciphertext, the rows of slot s go to products of their own, and

    [[Σ over cell b]] in slot k-1  =  Π_s P_(s,b)**(2**(L(k-1-s)))     P_(s,b): ciphertexts whose row in slot s is in b

as in `multiexp`, for factors of 0 and 1. A partition's cells are disjoint, which makes this cheaper than one column
of zeros and ones a cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Vector
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector
from fednb.crypto.products import Stored, cell_products
from fednb.crypto.threads import slices, spread
from fednb.errors import CryptoError


def cell_sums(
    c: CipherVector, cells: npt.NDArray[np.int64], sizes: Sequence[int], packing: Packing, threads: int = 1
) -> CipherVector:
    """For each partition g, a column of `cells` [n, G] in [0, sizes[g]): the sum in each of its cells; [Σ sizes].

    `c` holds ceil(n/k) ciphertexts of k packed numbers each, and the sums stand in slot k-1. The other slots hold sums
    over other rows: mask the whole plaintext before it is decrypted.
    """
    n, k = len(cells), packing.slots
    if cells.ndim != 2 or 0 in cells.shape or cells.shape[1] != len(sizes):
        raise CryptoError("cells are a two-dimensional array with at least one row and one column for each partition")
    if n > packing.rows or packing.right_bits < 2:
        raise CryptoError(f"this packing is proven for {packing.rows} rows, not for {n}")
    if len(c) != packing.length(n):
        raise CryptoError(f"{n} rows are {packing.length(n)} ciphertexts of {k} slots, and {len(c)} came")
    if (cells < 0).any() or (cells >= np.asarray(sizes)).any():
        raise CryptoError("a row lies in a cell that its partition does not have")
    m, ring = len(c), c.key.ring
    filled = np.zeros((m * k, len(sizes)), dtype=np.int32)  # rows that fill the last ciphertext up are zeros: any cell
    filled[:n] = cells
    by_slot = np.ascontiguousarray(filled.reshape(m, k, len(sizes)).transpose(0, 2, 1).reshape(m, len(sizes) * k))
    products = cell_products(ring, Stored(ring, c.data), by_slot, [size for size in sizes for _ in range(k)], threads)
    # of each slot all partitions' cells, end to end
    slots = [ring.join([products[g * k + s] for g in range(len(sizes))]) for s in range(k)]

    def part(which: slice) -> Vector:
        out = slots[0][which]
        for s in range(1, k):
            out = ring.multiply(ring.square(out, packing.slot_bits), slots[s][which])
        return out

    return CipherVector(ring.store(ring.join(spread(part, slices(int(sum(sizes)), threads), threads))), c.scale, c.key)
