"""Xᵀ[[d]]: inner products of plaintext columns with an encrypted vector, the work that training consists of.

A column's entries are written as x = lowest + step·u with u of few bits, and

    [[Σ d·x]] = Π [[d_i]]**x_i = (Π [[d_i]])**lowest · (Π_t (Π_{i: bit t of u_i} [[d_i]])**(2**t))**step

so a column is as many subset products as u has bits, whatever the subsets' sizes. A column with few distinct values
becomes cells instead: one product for each value, then a handful of multiplications. `plan` chooses what costs less.
With k numbers a ciphertext, row i's entry for slot s stands at 2**(L(k-1-s)): the same products, further apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Ring, Vector
from fednb.crypto.logarithms import taken_apart
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector
from fednb.crypto.products import (
    SHORT_FROM,
    Bits,
    Remainders,
    Stored,
    Values,
    cell_cost,
    cell_products,
    product,
    subset_cost,
    subset_products,
    subset_products_alike,
    tables_filled,
)
from fednb.crypto.threads import slices, spread
from fednb.errors import CryptoError

MAX_DISTINCT = 1024
_SAMPLE = 2 * MAX_DISTINCT  # rows

Integers = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Column:
    """x = lowest + step·u with 0 <= u < 2**bits; `distinct` holds the values of u when they form a dictionary."""

    lowest: int
    step: int
    bits: int
    distinct: Integers | None = None

    @property
    def size(self) -> int:
        return 0 if self.distinct is None else len(self.distinct)


@dataclass(frozen=True)
class Plan:
    """How `inner_products` will treat each column, and the modular multiplications that this takes, nearly."""

    columns: tuple[Column, ...]
    multiplications: int


def plan(columns: Integers, packing: Packing) -> Plan:
    """The cheapest way that we know to multiply with `columns` [n, d]."""
    packing.check_columns(columns)
    m, k = packing.length(len(columns)), packing.slots
    described = [_describe(column) for column in columns.T]
    subsets = k * sum(column.bits for column in described)
    bit_cost = subset_cost(m, subsets) / max(subsets, 1)
    chosen = tuple(
        _with_dictionary(column, values, m, k, k * column.bits * bit_cost)
        for column, values in zip(described, columns.T, strict=True)
    )
    dictionaries = [column for column in chosen if column.distinct is not None]
    sizes = [column.size for column in dictionaries for _ in range(k)]
    cost = subset_cost(m, k * sum(column.bits for column in chosen if column.distinct is None)) + cell_cost(m, sizes)
    cost += k * sum(subset_cost(column.size, column.bits) for column in dictionaries)
    cost += len(chosen) * k * (packing.slot_bits + max((column.bits for column in chosen), default=0))
    return Plan(chosen, cost)


def _describe(column: Integers) -> Column:
    column = column.astype(np.int64)  # narrow integers would overflow in differences
    lowest = int(column.min())
    u = column - lowest  # below 2**63, because packings keep |x| < 2**62
    step = int(np.gcd.reduce(u)) or 1
    return Column(lowest, step, (int(u.max()) // step).bit_length())


def _with_dictionary(about: Column, column: Integers, m: int, k: int, most: float) -> Column:
    """`about` with the column's distinct values, where they cost fewer than `most` multiplications."""
    if about.bits <= 1:
        return about
    distinct = column[:0]
    for some in (column[:_SAMPLE], column):  # most columns have too many in a sample already
        distinct = np.unique(some)
        if len(distinct) > MAX_DISTINCT or _dictionary_cost(m, k, len(distinct), about.bits) >= most:
            return about
    return replace(about, distinct=(distinct.astype(np.int64) - about.lowest) // about.step)


def _dictionary_cost(m: int, k: int, size: int, bits: int) -> float:
    """Multiplications for a column as a dictionary of `size` values, when there are others like it."""
    alike = 8
    return k * (cell_cost(m, [size] * alike) / alike + subset_cost(size, bits))


def inner_products(
    c: CipherVector, columns: Integers, packing: Packing, scale: int = 0, threads: int = 1
) -> CipherVector:
    """For each column x of `columns` [n, d], integers scaled by 2**scale: [[Σ d·x]] in slot k-1; [d].

    `c` holds ceil(n/k) ciphertexts of k packed numbers each. The other slots hold cross terms: mask the whole
    plaintext before it is decrypted. CryptoError unless every product is proven to stay within its slot.
    """
    check_shapes(c, columns, packing)
    k = packing.slots
    chosen = plan(columns, packing).columns
    ring = c.key.ring
    slots = [partial(_slots, columns[:, j], about, packing) for j, about in enumerate(chosen)]
    as_bits = [j for j, about in enumerate(chosen) if about.bits and about.distinct is None]
    as_cells = [j for j, about in enumerate(chosen) if about.bits and about.distinct is not None]

    values: Values = Stored(ring, c.data)
    correction = None
    if _short(len(c), k, chosen):
        remainders, correction = taken_apart(ring, c.data, columns, packing, threads)
        values = Remainders(remainders)
    # for each column and slot, the product of what each bit selects: all of them in one pool, with a one at its end
    pool, total = ring.ones(0), ring.ones(0)
    if as_bits:
        bits = np.empty((k * sum(chosen[j].bits for j in as_bits), -(-len(c) // 8)), dtype=np.uint8)
        ends = np.cumsum([k * chosen[j].bits for j in as_bits])

        def fill(i: int) -> None:
            j = as_bits[i]
            bits[ends[i] - k * chosen[j].bits : ends[i]] = _bits(slots[j](), chosen[j].bits)

        spread(fill, range(len(as_bits)), threads)
        pool, total = subset_products(ring, values, bits, threads)
    if as_cells:
        dictionaries = [(chosen[j], slots[j]()) for j in as_cells]
        selected, total = _dictionary_products(ring, values, dictionaries, threads)
        pool = ring.join([pool, *selected])
    if not len(pool):
        total = product(ring, values[:])
    pool = ring.join([pool, ring.ones(1)])

    places = np.full((k, max(about.bits for about in chosen), len(chosen)), len(pool) - 1)
    start = 0
    for j in as_bits + as_cells:
        count = chosen[j].bits
        places[:, :count, j] = np.arange(start, start + k * count).reshape(k, count)
        start += k * count
    inverse = ring.power(total, [-1]) if any(about.lowest < 0 for about in chosen) else total
    uneven = any(about.lowest % about.step for about in chosen)
    constant = ring.power(total, [sum(1 << (packing.slot_bits * s) for s in range(k))]) if uneven else total

    def part(which: slice) -> Vector:
        # x = lowest + step·u = step·(times + u) + rest
        times, rest = np.array([divmod(about.lowest, about.step) for about in chosen[which]], dtype=object).T.tolist()
        signed = ring.join([total if number >= 0 else inverse for number in times])
        lowest = ring.power(signed, [abs(number) for number in times])
        sums = _horner(ring, pool, places[:, :, which], lowest, packing.slot_bits)
        sums = ring.power(sums, [about.step for about in chosen[which]])
        return ring.multiply(sums, ring.power(ring.join([constant] * len(rest)), rest)) if uneven else sums

    out = ring.join(spread(part, slices(len(chosen), threads), threads))
    if correction is not None:
        out = ring.multiply(out, correction)
    return CipherVector(ring.store(out), c.scale + scale, c.key)


def _short(m: int, k: int, chosen: tuple[Column, ...]) -> bool:
    """Whether each ciphertext goes into so many tables that its remainder and its logarithm cost less."""
    subsets = k * sum(about.bits for about in chosen if about.distinct is None)
    sizes = [about.size for about in chosen if about.bits and about.distinct is not None for _ in range(k)]
    return tables_filled(m, subsets, sizes) >= SHORT_FROM


def check_shapes(c: CipherVector, columns: Integers, packing: Packing) -> None:
    """CryptoError unless `c` has a ciphertext for each `packing.slots` rows of `columns` [n, d]."""
    n = len(columns)
    if columns.ndim != 2 or 0 in columns.shape:
        raise CryptoError("columns are a two-dimensional array with at least one row and one column")
    if len(c) != packing.length(n):
        raise CryptoError(f"{n} rows are {packing.length(n)} ciphertexts of {packing.slots} slots, and {len(c)} came")


def _slots(column: Integers, about: Column, packing: Packing) -> npt.NDArray[np.unsignedinteger[Any]]:
    """u by slot and ciphertext, [k, m]; rows that fill the last ciphertext up meet plaintexts of zero."""
    m, k = packing.length(len(column)), packing.slots
    u = np.zeros(m * k, dtype=np.min_scalar_type((1 << about.bits) - 1))  # as narrow as it goes: bits are taken off it
    u[: len(column)] = (column.astype(np.int64) - about.lowest) // about.step
    return np.ascontiguousarray(u.reshape(m, k).T)


def _bits(slots: npt.NDArray[np.integer[Any]], bits: int) -> Bits:
    """The bits of `slots` [k, m] as subsets of ciphertexts, lowest bit first; [k·bits, ceil(m/8)]."""
    k, m = slots.shape
    out = np.empty((k, bits, -(-m // 8)), dtype=np.uint8)
    for t in range(bits):
        out[:, t] = np.packbits(slots & slots.dtype.type(1 << t), axis=1)  # packbits takes what is not zero for one
    return out.reshape(k * bits, -1)


def _dictionary_products(
    ring: Ring, values: Values, columns: list[tuple[Column, npt.NDArray[np.unsignedinteger[Any]]]], threads: int
) -> tuple[list[Vector], Vector]:
    """For each column and its slots [k, m]: the products that `_bits` selects, from one for each distinct value."""
    described = [(about.distinct, about.bits, slots) for about, slots in columns if about.distinct is not None]
    k = len(described[0][2])
    codes = [np.searchsorted(distinct, slots).astype(np.uint16) for distinct, _, slots in described]
    sizes = [len(distinct) for distinct, _, slots in described for _ in slots]
    cells = cell_products(ring, values, np.concatenate(codes).T, sizes, threads)

    found: dict[int, Vector] = {}
    alike: dict[tuple[int, int], list[int]] = {}
    for j, (distinct, bits, _) in enumerate(described):
        alike.setdefault((len(distinct), bits), []).append(j)
    for (_, bits), some in alike.items():
        selected = [_bits(described[j][0][None, :], bits) for j in some for _ in range(k)]
        vectors = [cells[k * j + s] for j in some for s in range(k)]
        together = subset_products_alike(ring, vectors, selected, threads)
        for i, j in enumerate(some):
            found[j] = together[i * k * bits : (i + 1) * k * bits]
    return [found[j] for j in range(len(described))], product(ring, cells[0])


def _horner(ring: Ring, pool: Vector, index: npt.NDArray[np.intp], lowest: Vector, slot_bits: int) -> Vector:
    """Π_s (lowest[j]·Π_t pool[index[s, t, j]]**(2**t))**(2**(L(k-1-s))) for each column j."""
    k, bits, count = index.shape
    out = ring.ones(count)
    for s in range(k):
        if s:
            out = ring.square(out, slot_bits - max(bits - 1, 0))
        for t in reversed(range(bits)):
            out = ring.multiply_into(out, pool, index[s, t])
            if t:
                out = ring.square(out, 1)
        out = ring.multiply(out, lowest)
    return out
