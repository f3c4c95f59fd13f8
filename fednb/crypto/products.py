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
    if not m or not subsets:
        return 0
    return min(_window_cost(m, subsets)[0], _block_cost(m, subsets)[0])


def subset_products(ring: Ring, values: Vector, bits: Bits, threads: int = 1) -> tuple[Vector, Vector]:
    """For each row of `bits`: the product of the values whose bit is set, [T]; and the product of all, [1]."""
    m, subsets = len(values), len(bits)
    if not m or not subsets:
        return ring.ones(subsets), product(ring, values)
    window_cost, windows = _window_cost(m, subsets)
    block_cost, blocks = _block_cost(m, subsets)
    if window_cost < block_cost:
        return _by_windows(ring, values, bits, windows, threads)
    return _by_blocks(ring, values, bits, blocks, threads)


def _window_cost(m: int, subsets: int) -> tuple[int, int]:
    """What the best number of windows costs, and that number."""
    # a bucket's first value is free, folding takes two multiplications a bucket
    return min((count * m + _powers(subsets, count), count) for count in _counts(subsets, MAX_WINDOW))


def _block_cost(m: int, subsets: int) -> tuple[int, int]:
    """What the best number of blocks costs, and that number."""
    return min(((count - 1) * subsets + _powers(m, count), count) for count in _counts(m, MAX_BLOCK))


def _counts(n: int, most: int) -> range:
    """Numbers of parts to try, that cut n into parts of at most `most`."""
    fewest = max(1, -(-n // most))
    return range(fewest, n // 4 + fewest + 1, 1 + n // 10_000)


def _powers(n: int, count: int) -> int:
    """Σ 2**size over the sizes of n cut into `count` nearly equal parts."""
    size, more = divmod(n, count)
    return (count + more) << size


def _by_windows(ring: Ring, values: Vector, bits: Bits, count: int, threads: int) -> tuple[Vector, Vector]:
    # so that no thread is left alone with the last one, and no lane is empty
    alike = threads * ring.lanes if count > ring.lanes else threads
    windows = slices(len(bits), -(-count // alike) * alike)
    lanes = min(ring.lanes, -(-len(windows) // threads))
    together = [windows[i : i + lanes] for i in range(0, len(windows), lanes)]

    def part(some: list[slice]) -> tuple[Vector, Vector]:
        cells = np.zeros((len(values), len(some)), dtype=np.int32)
        for column, w in enumerate(some):
            for place, row in enumerate(bits[w]):
                cells[:, column] |= np.unpackbits(row, count=len(values)).astype(np.int32) << place
        tables = ring.buckets(values, cells, 1 << max(w.stop - w.start for w in some))
        folded = [_fold(ring, table) for table in tables]
        return ring.join([found[: w.stop - w.start] for (found, _), w in zip(folded, some, strict=True)]), folded[0][1]

    parts = spread(part, together, threads)
    return ring.join([found for found, _ in parts]), parts[0][1]


def _fold(ring: Ring, table: Vector) -> tuple[Vector, Vector]:
    """From buckets by k bits: the k products of the buckets with each bit set, lowest bit first; and of all buckets."""
    found = []
    while len(table) > 1:
        half = len(table) // 2
        found.append(product(ring, table[half:]))
        table = ring.multiply(table[:half], table[half:])
    return ring.join(found[::-1]), table


def product(ring: Ring, vector: Vector) -> Vector:
    """The product of all, a vector of one."""
    if not len(vector):
        return ring.ones(1)
    while len(vector) > 1:
        half = len(vector) // 2
        rest = vector[2 * half :]
        vector = ring.multiply(vector[:half], vector[half : 2 * half])
        vector = ring.join([vector, rest]) if len(rest) else vector
    return vector


def _by_blocks(ring: Ring, values: Vector, bits: Bits, count: int, threads: int) -> tuple[Vector, Vector]:
    blocks = slices(len(values), count)

    def part(which: slice) -> tuple[Vector, Vector]:
        products, total = ring.ones(len(bits)), ring.ones(1)
        for rows in blocks[which]:
            table = ring.ones(1)
            for i in range(rows.start, rows.stop):
                same = np.full(len(table), i)
                table = ring.join([table, ring.multiply_taken(table, values, same)])
            first = rows.start // 8
            near = np.unpackbits(bits[:, first : -(-rows.stop // 8)], axis=1)
            chosen = near[:, rows.start - 8 * first : rows.stop - 8 * first]
            products = ring.multiply_taken(products, table, chosen @ (1 << np.arange(chosen.shape[1])))
            total = ring.multiply(total, table[-1:])
        return products, total

    (products, total), *others = spread(part, slices(len(blocks), threads), threads)
    for more, rest in others:
        products, total = ring.multiply(products, more), ring.multiply(total, rest)
    return products, total


def cell_cost(m: int, sizes: Sequence[int]) -> int:
    """Multiplications that `cell_products` takes, nearly."""
    # a cell's first value is free, its margins take two multiplications
    return sum(m + math.prod(sizes[g] for g in group) for group in _groups(m, sizes))


def cell_products(ring: Ring, values: Vector, cells: Indices, sizes: Sequence[int], threads: int = 1) -> list[Vector]:
    """For each column g of `cells`, [m, G] in [0, sizes[g]): the product of the values in each cell; [sizes[g]]."""
    m, groups = len(values), _groups(len(values), sizes)
    lanes = min(ring.lanes, max(1, -(-len(groups) // threads)))
    together = [groups[i : i + lanes] for i in range(0, len(groups), lanes)]

    def tables(job: tuple[list[list[int]], slice]) -> list[Vector]:
        some, rows = job
        joint = np.zeros((rows.stop - rows.start, len(some)), dtype=np.int32)
        for column, group in enumerate(some):
            for g in group:
                joint[:, column] = joint[:, column] * sizes[g] + cells[rows, g]
        return ring.buckets(values[rows], joint, max(math.prod(sizes[g] for g in group) for group in some))

    # what is left over when every thread has had its share is split by rows
    jobs = [(some, rows) for i, some in enumerate(together) for rows in _shares(i, len(together), m, threads)]
    filled: dict[int, list[Vector]] = {}
    for (some, _), buckets in zip(jobs, spread(tables, jobs, threads), strict=True):
        for group, table in zip(some, buckets, strict=True):
            filled.setdefault(group[0], []).append(table)

    def margins(group: list[int]) -> list[tuple[int, Vector]]:
        table, *others = filled.pop(group[0])
        for other in others:
            table = ring.multiply(table, other)
        return _margins(ring, table[: math.prod(sizes[g] for g in group)], group, sizes)

    found = dict(pair for pairs in spread(margins, groups, threads) for pair in pairs)
    return [found[g] for g in range(len(sizes))]


def _shares(i: int, count: int, m: int, threads: int) -> list[slice]:
    """The rows of job i of `count`, in one part or in one for each thread."""
    return slices(m, 1 if i < count - count % threads else threads)


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
