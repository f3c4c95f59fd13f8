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

import functools
import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Indices, Ring, Vector, slices, spread

MAX_WINDOW = 16
MAX_BLOCK = 14
MAX_CELLS = 1 << 15
STEM = 64

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


def subset_products_alike(ring: Ring, vectors: list[Vector], bits: list[Bits], threads: int = 1) -> Vector:
    """`subset_products` of short vectors of one length, by numbers of bits of one shape; [len(vectors)·T]."""
    m, subsets = len(vectors[0]), len(bits[0])
    block_cost, count = _block_cost(m, subsets)
    if block_cost > _window_cost(m, subsets)[0]:
        found = spread(lambda i: subset_products(ring, vectors[i], bits[i])[0], range(len(vectors)), threads)
        return ring.join(found)

    def part(some: slice) -> Vector:  # as `_by_blocks`, with every operation on all the vectors at once
        n = some.stop - some.start
        pool, vector = ring.join(vectors[some]), np.arange(n)
        products = ring.ones(n * subsets)
        for rows in slices(m, count):
            table = ring.ones(n)  # of each vector the first entry, then of each the second, ...
            for i in reversed(range(rows.start, rows.stop)):
                same = np.tile(vector * m + i, len(table) // n)
                table = ring.join([table, ring.multiply_taken(table, pool, same)])
            chosen = np.stack([_columns(b, rows) for b in bits[some]])
            products = ring.multiply_into(products, table, (chosen * n + vector[:, None]).ravel())
        return products

    return ring.join(spread(part, slices(len(vectors), threads), threads))


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
    # tables of all lanes together stay small beside the values
    count = max(count, -(-len(bits) // (MAX_WINDOW + 1 - ring.lanes.bit_length())))
    # no thread is left alone with the last window, and no lane is empty
    alike = threads * ring.lanes if count > ring.lanes else threads
    windows = slices(len(bits), -(-count // alike) * alike)
    lanes = min(ring.lanes, -(-len(windows) // threads))
    together = [windows[i : i + lanes] for i in range(0, len(windows), lanes)]

    def part(some: list[slice]) -> tuple[Vector, Vector]:
        cells = np.zeros((len(values), len(some)), dtype=np.int32)
        for column, w in enumerate(some):
            for place, row in enumerate(bits[w]):
                cells[:, column] |= np.unpackbits(row, count=len(values)).astype(np.int32) << place
        found, total = _fold(ring, ring.buckets(values, cells, 1 << max(w.stop - w.start for w in some)))
        return ring.join([own[: w.stop - w.start] for own, w in zip(found, some, strict=True)]), total

    parts = spread(part, together, threads)
    return ring.join([found for found, _ in parts]), parts[0][1]


def _fold(ring: Ring, tables: list[Vector]) -> tuple[list[Vector], Vector]:
    """From buckets by k bits, of each table: the k products of the buckets with each bit set, lowest bit first.

    And the product of all of one table's buckets. Down to STEM buckets one table after the other, in little memory;
    then all of them together, so that vectors stay long.
    """
    count, stems, high = len(tables), [], []
    for table in tables:
        rest, own = table, []
        while len(rest) > STEM:
            half = len(rest) // 2
            own.append(_halved(ring, rest[half:], STEM))
            rest = ring.multiply(rest[:half], rest[half:])
        stems.append(rest)
        high += own[::-1]
    top = len(high) // count
    done = _halved(ring, ring.weave(high), len(high)) if high else ring.ones(0)
    rest, low = ring.weave(stems), []  # the tables' first buckets, then their second ones, ...
    while len(rest) > count:
        half = len(rest) // 2
        low.append(_halved(ring, rest[half:], count))
        rest = ring.multiply(rest[:half], rest[half:])
    below = ring.weave(low[::-1]) if low else ring.ones(0)  # the first table's bits, then the second's, ...
    bits = len(low)
    return [ring.join([below[i * bits : (i + 1) * bits], done[i * top : (i + 1) * top]]) for i in range(count)], rest[
        :1
    ]


def _halved(ring: Ring, vector: Vector, count: int) -> Vector:
    """The products of every `count`-th, of `count` times a power of two; [count]."""
    while len(vector) > count:
        half = len(vector) // 2
        vector = ring.multiply(vector[:half], vector[half:])
    return vector


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
            for i in reversed(range(rows.start, rows.stop)):  # the last row is an index's lowest bit, as in `bits`
                same = np.full(len(table), i)
                table = ring.join([table, ring.multiply_taken(table, values, same)])
            products = ring.multiply_into(products, table, _columns(bits, rows))
            total = ring.multiply(total, table[-1:])
        return products, total

    (products, total), *others = spread(part, slices(len(blocks), threads), threads)
    for more, rest in others:
        products, total = ring.multiply(products, more), ring.multiply(total, rest)
    return products, total


def _columns(bits: Bits, columns: slice) -> Indices:
    """Some neighbouring columns of `bits`, at most MAX_BLOCK, as one number a row."""
    first, last = columns.start // 8, -(-columns.stop // 8)
    numbers = np.zeros(len(bits), dtype=np.int64)
    for byte in range(first, last):
        numbers = numbers << 8 | bits[:, byte]
    numbers >>= 8 * last - columns.stop
    numbers &= (1 << (columns.stop - columns.start)) - 1
    return numbers


def cell_cost(m: int, sizes: Sequence[int]) -> int:
    """Multiplications that `cell_products` takes, nearly."""
    # a cell's first value is free, its margins take two multiplications
    return sum(m + math.prod(sizes[g] for g in group) for group in _groups(m, sizes))


def cell_products(ring: Ring, values: Vector, cells: Indices, sizes: Sequence[int], threads: int = 1) -> list[Vector]:
    """For each column g of `cells`, [m, G] in [0, sizes[g]): the product of the values in each cell; [sizes[g]]."""
    m, groups = len(values), _groups(len(values), sizes)
    lanes = min(ring.lanes, max(1, -(-len(groups) // threads)))
    together = [groups[i : i + lanes] for i in range(0, len(groups), lanes)]

    def tables(some: list[list[int]], rows: slice) -> list[Vector]:
        joint = np.zeros((rows.stop - rows.start, len(some)), dtype=np.int32)
        for column, group in enumerate(some):
            for g in group:
                joint[:, column] = joint[:, column] * sizes[g] + cells[rows, g]
        found = ring.buckets(values[rows], joint, max(math.prod(sizes[g] for g in group) for group in some))
        return [table[: math.prod(sizes[g] for g in group)] for group, table in zip(some, found, strict=True)]

    def margins(some: list[list[int]], found: list[Vector], threads: int = 1) -> dict[int, Vector]:
        return _margins(ring, {tuple(group): table for group, table in zip(some, found, strict=True)}, sizes, threads)

    # tables are large and margins small: none is kept for longer than its margins take
    shared = len(together) - len(together) % threads
    made = spread(lambda some: margins(some, tables(some, slice(0, m))), together[:shared], threads)
    for some in together[shared:]:  # what is left over when every thread has had its share is split by rows
        shares = spread(partial(tables, some), slices(m, threads), threads)
        made.append(
            margins(some, [functools.reduce(ring.multiply, parts) for parts in zip(*shares, strict=True)], threads)
        )
    by_partition = {g: product for some in made for g, product in some.items()}
    return [by_partition[g] for g in range(len(sizes))]


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


def _margins(
    ring: Ring, tables: dict[tuple[int, ...], Vector], sizes: Sequence[int], threads: int
) -> dict[int, Vector]:
    """From each group's products by joint cell: each partition's products by its own cells."""
    done = {group[0]: table for group, table in tables.items() if len(group) == 1}
    alike: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for group in tables:
        if len(group) > 1:
            half = len(group) // 2
            shape = math.prod(sizes[g] for g in group[:half]), math.prod(sizes[g] for g in group[half:])
            alike.setdefault(shape, []).append(group)
    halves: dict[tuple[int, ...], Vector] = {}

    def part(job: tuple[tuple[int, int], list[tuple[int, ...]]]) -> None:
        (rows, columns), groups = job
        pool = ring.join([tables[group] for group in groups])
        places = np.arange(len(pool)).reshape(len(groups), rows, columns)
        left, right = ring.ones(len(groups) * rows), ring.ones(len(groups) * columns)
        for column in range(columns):
            left = ring.multiply_into(left, pool, places[:, :, column].ravel())
        for row in range(rows):
            right = ring.multiply_into(right, pool, places[:, row].ravel())
        for i, group in enumerate(groups):
            half = len(group) // 2
            halves[group[:half]] = left[i * rows : (i + 1) * rows]
            halves[group[half:]] = right[i * columns : (i + 1) * columns]

    jobs = [(shape, groups[s]) for shape, groups in alike.items() for s in slices(len(groups), threads)]
    spread(part, jobs, threads)
    return done | (_margins(ring, halves, sizes, threads) if halves else {})
