"""Products of many subsets of one vector of residues, in far fewer multiplications than their sizes add up to.

Subsets come as rows of bits, m values wide, T of them. Two ways, whichever costs less:

    windows   take k subsets together. Each value goes into one of 2**k buckets, by the k bits that say which of
              them hold it; folding the buckets in half, again and again, gives the k products.
                                                                              T/k·(m + 2**k) multiplications
    blocks    take r values together. Make all 2**r products of them; each subset picks one.
                                                                              m/r·(T + 2**r) multiplications

Windows win when there are many values (Xᵀ[[d]] on one number a ciphertext), blocks when there are many subsets
(18 numbers a ciphertext: 18 times fewer values, 18 times more subsets).

A partition of the values into cells is the third form: one product a cell, for columns with few distinct values
and for histograms. Several partitions share one table of joint cells, from which each takes its margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Indices, Ring, Vector, slices, spread

MAX_WINDOW = 16
MAX_BLOCK = 14
MAX_CELLS = 1 << 16

Bits = npt.NDArray[np.uint8]  # [T, ceil(m/8)], as numpy.packbits makes them along rows


def subset_cost(m: int, subsets: int) -> int:
    """Multiplications that `subset_products` takes, nearly."""
    return min(_window_cost(m, subsets)[0], _block_cost(m, subsets)[0])


def subset_products(ring: Ring, values: Vector, bits: Bits, threads: int = 1) -> Vector:
    """For each row of `bits`: the product of the values whose bit is set; [T]."""
    m, subsets = len(values), len(bits)
    if not m or not subsets:
        return ring.ones(subsets)
    window_cost, window = _window_cost(m, subsets)
    block_cost, block = _block_cost(m, subsets)
    if window_cost < block_cost:
        return _by_windows(ring, values, bits, window, threads)
    return _by_blocks(ring, values, bits, block, threads)


def _window_cost(m: int, subsets: int) -> tuple[int, int]:
    # a bucket's first value is free, folding takes two multiplications a bucket
    return min((-(-subsets // k) * (m + (1 << k)), k) for k in range(1, MAX_WINDOW + 1))


def _block_cost(m: int, subsets: int) -> tuple[int, int]:
    return min((-(-m // r) * (subsets + (1 << r)) - subsets, r) for r in range(1, MAX_BLOCK + 1))


def _by_windows(ring: Ring, values: Vector, bits: Bits, window: int, threads: int) -> Vector:
    count = -(-len(bits) // window)
    count = -(-count // threads) * threads  # so that no thread is left alone with the last one
    windows = slices(len(bits), count)
    together = [windows[i : i + ring.lanes] for i in range(0, len(windows), ring.lanes)]

    def part(some: list[slice]) -> Vector:
        size = max(w.stop - w.start for w in some)
        cells = np.zeros((len(values), len(some)), dtype=np.int32)
        for column, w in enumerate(some):
            for place, row in enumerate(bits[w]):
                cells[:, column] |= np.unpackbits(row, count=len(values)).astype(np.int32) << place
        tables = ring.buckets(values, cells, 1 << size)
        return ring.join([_fold(ring, table)[: w.stop - w.start] for table, w in zip(tables, some, strict=True)])

    return ring.join(spread(part, together, threads))


def _fold(ring: Ring, table: Vector) -> Vector:
    """From buckets by k bits: the k products of the buckets with each bit set, lowest bit first."""
    products = []
    while len(table) > 1:
        half = len(table) // 2
        products.append(_product(ring, table[half:]))
        table = ring.multiply(table[:half], table[half:])
    return ring.join(products[::-1])


def _product(ring: Ring, vector: Vector) -> Vector:
    """The product of all, a vector of one; the length is a power of two."""
    while len(vector) > 1:
        half = len(vector) // 2
        vector = ring.multiply(vector[:half], vector[half:])
    return vector


def _by_blocks(ring: Ring, values: Vector, bits: Bits, block: int, threads: int) -> Vector:
    blocks = slices(len(values), -(-len(values) // block))

    def part(which: slice) -> Vector:
        products = ring.ones(len(bits))
        for rows in blocks[which]:
            table = ring.ones(1)
            for i in range(rows.start, rows.stop):
                same = np.full(len(table), i)
                table = ring.join([table, ring.multiply_taken(table, values, same)])
            first = rows.start // 8
            near = np.unpackbits(bits[:, first : -(-rows.stop // 8)], axis=1)
            chosen = near[:, rows.start - 8 * first : rows.stop - 8 * first]
            products = ring.multiply_taken(products, table, chosen @ (1 << np.arange(chosen.shape[1])))
        return products

    first, *others = spread(part, slices(len(blocks), threads), threads)
    for other in others:
        first = ring.multiply(first, other)
    return first


def cell_cost(m: int, size: int) -> float:
    """Multiplications a partition of m values into `size` cells takes when others like it share its table."""
    cost, together = float(m + size), 1
    while size > 1 and size ** (together + 1) <= MAX_CELLS:
        together += 1
        cost = min(cost, (m + size**together) / together)
    return cost


def cell_products(ring: Ring, values: Vector, cells: Indices, sizes: Sequence[int], threads: int = 1) -> list[Vector]:
    """For each column g of `cells`, [m, G] in [0, sizes[g]): the product of the values in each cell; [sizes[g]]."""
    groups = _groups(len(values), sizes)
    together = [groups[i : i + ring.lanes] for i in range(0, len(groups), ring.lanes)]

    def part(some: list[list[int]]) -> list[tuple[int, Vector]]:
        joint = np.zeros((len(values), len(some)), dtype=np.int32)
        for column, group in enumerate(some):
            for g in group:
                joint[:, column] = joint[:, column] * sizes[g] + cells[:, g]
        most = max(math.prod(sizes[g] for g in group) for group in some)
        tables = ring.buckets(values, joint, most)
        return [
            margin
            for table, group in zip(tables, some, strict=True)
            for margin in _margins(ring, table[: math.prod(sizes[g] for g in group)], group, sizes)
        ]

    margins = dict(pair for pairs in spread(part, together, threads) for pair in pairs)
    return [margins[g] for g in range(len(sizes))]


def _groups(m: int, sizes: Sequence[int]) -> list[list[int]]:
    """Which partitions share a table: joined while that makes each of them cheaper."""
    groups: list[list[int]] = []
    joint = 0
    for g in sorted(range(len(sizes)), key=lambda g: sizes[g]):
        group = groups[-1] if groups else []
        wider = joint * sizes[g]
        if group and wider <= MAX_CELLS and (m + wider) / (len(group) + 1) < (m + joint) / len(group):
            group.append(g)
            joint = wider
        else:
            groups.append([g])
            joint = sizes[g]
    return groups


def _margins(ring: Ring, table: Vector, group: list[int], sizes: Sequence[int]) -> list[tuple[int, Vector]]:
    """From products by joint cell: the products by cell of each partition in `group`."""
    if len(group) == 1:
        return [(group[0], table)]
    half = len(group) // 2
    columns = math.prod(sizes[g] for g in group[half:])
    left = table[0::columns]
    for column in range(1, columns):
        left = ring.multiply(left, table[column::columns])
    right = table[:columns]
    for start in range(columns, len(table), columns):
        right = ring.multiply(right, table[start : start + columns])
    return _margins(ring, left, group[:half], sizes) + _margins(ring, right, group[half:], sizes)
