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
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fednb.crypto.backend import Buckets, Indices, Residues, Ring, Vector, slices, spread

MAX_WINDOW = 16
MAX_BLOCK = 14
MAX_CELLS = 1 << 15
STEM = 32
JOINED = 4096  # rows of tables of one form whose margins are taken together
BLOCKS_AT_ONCE = 16
AT_ONCE = 2048  # values in the form that they are computed in; a multiple of 8
LEAST_ROOM = 8192  # residues of tables that are small whatever stands beside them
SHORT_FROM = 9  # tables that a value goes into: from so many on, its logarithm costs less than it saves

What = TypeVar("What")
Result = TypeVar("Result")
Bits = npt.NDArray[np.uint8]  # [T, ceil(m/8)], as numpy.packbits makes them along rows


class Costs(NamedTuple):
    """In multiplications, nearly."""

    loading: float  # a value, each time that it is needed
    filling: float  # a value into a table
    size: float  # a loaded value, in residues


class Stored:
    """Residues as they travel, loaded when some are asked for: all of them at once would be a second copy."""

    def __init__(self, ring: Ring, residues: Residues) -> None:
        self._ring, self._residues = ring, residues
        self.costs = Costs(1.5 if ring.lanes > 1 else 0.2, 1, 1)

    def __len__(self) -> int:
        return len(self._residues)

    def __getitem__(self, rows: slice) -> Vector:
        return self._ring.load(self._residues[rows])


class Remainders(Stored):
    """What `logarithms` leaves of residues, for tables alone."""

    def __init__(self, ring: Ring, residues: Residues) -> None:
        super().__init__(ring, residues)
        self.costs = Costs(0.5, 0.8, 0.5)

    def __getitem__(self, rows: slice) -> Vector:
        return self._ring.remainders(self._residues[rows])


Values = Vector | Stored


def _loaded(ring: Ring, values: Values, rows: slice, threads: int) -> Vector:
    """Some of the values, by all threads."""
    if not isinstance(values, Stored):
        return values[rows]
    shares = slices(rows.stop - rows.start, threads)
    return ring.join(spread(lambda s: values[rows.start + s.start : rows.start + s.stop], shares, threads))


def subset_cost(m: int, subsets: int) -> int:
    """Multiplications that `subset_products` takes, nearly."""
    if not m or not subsets:
        return 0
    return min(_window_cost(m, subsets)[0], _block_cost(m, subsets)[0])


def subset_products(ring: Ring, values: Values, bits: Bits, threads: int = 1) -> tuple[Vector, Vector]:
    """For each row of `bits`: the product of the values whose bit is set, [T]; and the product of all, [1]."""
    m, subsets = len(values), len(bits)
    if not m or not subsets:
        return ring.ones(subsets), product(ring, values[:])
    if windows_win(m, subsets):
        windows = _arranged(m, subsets, threads, _costs(values))
        return _by_windows(ring, values, bits, windows, threads)
    return _by_blocks(ring, values, bits, _block_cost(m, subsets)[1], threads)


def windows_win(m: int, subsets: int) -> bool:
    """Whether `subset_products` takes windows; blocks otherwise."""
    return _window_cost(m, subsets)[0] < _block_cost(m, subsets)[0]


def tables_filled(m: int, subsets: int, sizes: Sequence[int], threads: int = 1) -> int:
    """How many tables a value goes into for that many subsets and for cells of these sizes; 0 where blocks win."""
    if subsets and not windows_win(m, subsets):
        return 0
    windows = _arranged(m, subsets, threads, _STORED) if subsets else 0
    return windows + (len(_grouped(m, tuple(sizes), threads, _STORED)) if sizes else 0)


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


@functools.lru_cache(maxsize=1024)
def _window_cost(m: int, subsets: int) -> tuple[int, int]:
    """What the best number of windows costs, and that number."""
    # a bucket's first value is free, folding takes two multiplications a bucket
    return min((count * m + _powers(subsets, count), count) for count in _counts(subsets, MAX_WINDOW))


@functools.lru_cache(maxsize=1024)
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


def _by_windows(ring: Ring, values: Values, bits: Bits, count: int, threads: int) -> tuple[Vector, Vector]:
    windows = slices(len(bits), count)

    def folded(some: list[slice], tables: list[Vector]) -> tuple[dict[int, Vector], Vector]:
        products, total = _fold(ring, tables)
        return {w.start: own[: w.stop - w.start] for w, own in zip(some, products, strict=True)}, total

    size = 1 << max(window.stop - window.start for window in windows)
    made = _by_tables(ring, values, windows, size, partial(_cells, bits), folded, threads)
    found = {first: products for some, _ in made for first, products in some.items()}
    return ring.join([found[window.start] for window in windows]), made[0][1]


def _by_tables(
    ring: Ring,
    values: Values,
    whats: Sequence[What],
    size: int,
    cells: Callable[[list[What], slice], Indices],
    finish: Callable[[list[What], list[Vector]], Result],
    threads: int,
) -> list[Result]:
    """What `finish` makes of a table for each of `whats`: the product of the values in each of its `size` cells.

    `cells` says which cells some rows are in, [rows, tables]. Values are loaded a part at a time, and again for every
    pass over them: as many tables are filled in one as there is room for. Where a pass has fewer tables than threads,
    or they do not go round, each thread has all of them, and takes a share of the rows.
    """
    m = len(values)
    _, _, passes, shared = _tables_cost(m, len(whats), size, threads, _costs(values))

    def add(rows: slice, part: Vector, work: tuple[list[What], int, Buckets]) -> None:
        some, share, buckets = work
        shares = threads if shared else 1
        eighths = -(-len(part) // 8)  # whole bytes of bits
        start, stop = (eighths * at // shares * 8 for at in (share, share + 1))
        own = part[start:stop]
        buckets.add(own, cells(some, slice(rows.start + start, rows.start + start + len(own))))

    def tables_of(each: Buckets) -> list[Vector]:
        return each.tables()

    def together(some: Sequence[What]) -> list[Result]:
        by_thread = [list(some[own]) for own in slices(len(some), threads)]
        groups = [list(some)] * threads if shared else by_thread
        buckets = [ring.buckets(len(group), size) for group in groups]
        shares = range(threads) if shared else [0] * len(groups)
        work = list(zip(groups, shares, buckets, strict=True))
        step = AT_ONCE if isinstance(values, Stored) else m
        for start in range(0, m, step):
            rows = slice(start, min(start + step, m))
            spread(partial(add, rows, _loaded(ring, values, rows, threads)), work, threads)
        found = spread(tables_of, buckets, threads)
        if shared:
            joined = spread(lambda i: _joined(ring, [tables[i] for tables in found]), range(len(some)), threads)
            found = [joined[own] for own in slices(len(some), threads)]
        pairs = list(zip(by_thread, found, strict=True))
        return spread(lambda pair: finish(*pair), pairs, threads)

    return [made for some in slices(len(whats), passes) for made in together(whats[some])]


def _joined(ring: Ring, tables: list[Vector]) -> Vector:
    """The product of several tables, row by row, in the place of the first one."""
    return functools.reduce(ring.multiply_onto, tables)


def _costs(values: Values) -> Costs:
    return values.costs if isinstance(values, Stored) else _LOADED


_LOADED, _STORED = Costs(0, 1, 1), Costs(1, 1, 1)


@functools.lru_cache(maxsize=1024)
def _arranged(m: int, subsets: int, threads: int, costs: Costs) -> int:
    """How many windows."""

    def cost(count: int) -> tuple[float, float, int, bool]:
        return _tables_cost(m, count, 1 << -(-subsets // count), threads, costs)

    return min(_counts(subsets, MAX_WINDOW), key=cost)


@functools.lru_cache(maxsize=4096)
def _tables_cost(m: int, count: int, size: int, threads: int, costs: Costs) -> tuple[float, float, int, bool]:
    """Of `_by_tables` with so many of so many cells: how much too large they are, multiplications, passes, and whether
    threads share them.

    Tables stay small beside the values: smaller than they where these are stored, twice as large where they are loaded
    already, as for histograms, which are made again and again of the same ones.
    """
    # a ciphertext takes 4/5 of a residue
    room = max(m * 4 // 5 - int(3 * AT_ONCE * costs.size), LEAST_ROOM) if costs.loading else max(2 * m, 4 * LEAST_ROOM)

    held = size + 6 * STEM if size > STEM else size  # with what folding it takes

    def cost(shared: bool) -> tuple[float, float, int, bool]:
        fewest = threads if shared else min(threads, count)  # tables that are there at least
        at_once = min(count, max(1, room // (held * threads))) if shared else min(count, max(fewest, room // held))
        passes = -(-count // at_once)
        by_thread = count if shared else sum(-(-(s.stop - s.start) // threads) * threads for s in slices(count, passes))
        first = min(m, size)  # a value that is the first in its cell is free
        filling = by_thread * costs.filling * (m - first if not shared else max(m - threads * first, 0))
        folding = size * (2 * by_thread + (count * (threads - 1) if shared else 0))
        excess = max(0, fewest * size - room) if size > STEM else 0
        return excess, filling + folding + costs.loading * m * passes, passes, shared

    return min(cost(False), cost(True)) if threads > 1 else cost(False)


def _cells(bits: Bits, windows: Sequence[slice], rows: slice) -> Indices:
    """Which of each window's buckets the rows are in, [rows, windows]; `rows` starts at a whole byte of `bits`."""
    n = rows.stop - rows.start
    cells = np.empty((len(windows), n), dtype=np.int32)
    for number, window in enumerate(windows):
        single = np.unpackbits(bits[window, rows.start // 8 : -(-rows.stop // 8)], axis=1, count=n)
        places = 1 << np.arange(len(single), dtype=np.int32)
        cells[number] = places @ single.astype(np.int32)  # integers: no library of threads for so little
    return np.ascontiguousarray(cells.T)


def _fold(ring: Ring, tables: list[Vector]) -> tuple[list[Vector], Vector]:
    """From buckets by k bits, of each table: the k products of the buckets with each bit set, lowest bit first.

    And the product of all of one table's buckets. It works in the tables' place: down to STEM buckets one table after
    the other, then all of them together, so that vectors stay long.
    """
    count, stems, high = len(tables), [], []
    for table in tables:
        rest, own = table, []
        while len(rest) > STEM:
            half = len(rest) // 2
            upper, rest = rest[half:], ring.multiply_onto(rest[:half], rest[half:])
            own.append(_halved(ring, upper, STEM))
        stems.append(rest)
        high += own[::-1]
    top = len(high) // count
    done = _halved(ring, ring.weave(high), len(high)) if high else ring.ones(0)
    rest, low = ring.weave(stems), []  # the tables' first buckets, then their second ones, ...
    while len(rest) > count:
        half = len(rest) // 2
        upper, rest = rest[half:], ring.multiply_onto(rest[:half], rest[half:])
        low.append(_halved(ring, upper, count))
    below = ring.weave(low[::-1]) if low else ring.ones(0)  # the first table's bits, then the second's, ...
    bits = len(low)
    return [ring.join([below[i * bits : (i + 1) * bits], done[i * top : (i + 1) * top]]) for i in range(count)], rest[
        :1
    ]


def _halved(ring: Ring, vector: Vector, count: int) -> Vector:
    """The products of every `count`-th, of `count` times a power of two, in its place; [count]."""
    while len(vector) > count:
        half = len(vector) // 2
        vector = ring.multiply_onto(vector[:half], vector[half:])
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


def _by_blocks(ring: Ring, values: Values, bits: Bits, count: int, threads: int) -> tuple[Vector, Vector]:
    blocks = slices(len(values), count)

    def part(which: slice) -> tuple[Vector, Vector]:
        products, total = ring.ones(len(bits)), ring.ones(1)
        for i in range(which.start, which.stop, BLOCKS_AT_ONCE):
            some = blocks[i : min(i + BLOCKS_AT_ONCE, which.stop)]
            first, part = some[0].start, values[some[0].start : some[-1].stop]
            for rows in some:
                table = ring.combine(part[rows.start - first : rows.stop - first])
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


def cell_products(ring: Ring, values: Values, cells: Indices, sizes: Sequence[int], threads: int = 1) -> list[Vector]:
    """For each column g of `cells`, [m, G] in [0, sizes[g]): the product of the values in each cell; [sizes[g]]."""
    groups = _grouped(len(values), tuple(sizes), threads, _costs(values))
    size = max(_joint(sizes, group) for group in groups)

    def joint(some: list[tuple[int, ...]], rows: slice) -> Indices:
        found = np.zeros((rows.stop - rows.start, len(some)), dtype=np.int32)
        for column, group in enumerate(some):
            for g in group:
                found[:, column] = found[:, column] * sizes[g] + cells[rows, g]
        return found

    def margins(some: list[tuple[int, ...]], tables: list[Vector]) -> dict[int, Vector]:
        cut = {group: table[: _joint(sizes, group)] for group, table in zip(some, tables, strict=True)}
        return _margins(ring, cut, sizes)

    made = _by_tables(ring, values, groups, size, joint, margins, threads)
    by_partition = {g: product for some in made for g, product in some.items()}
    return [by_partition[g] for g in range(len(sizes))]


def _joint(sizes: Sequence[int], group: Sequence[int]) -> int:
    return math.prod(sizes[g] for g in group)


@functools.lru_cache(maxsize=1024)
def _grouped(m: int, sizes: tuple[int, ...], threads: int, costs: Costs) -> list[tuple[int, ...]]:
    """Which partitions share a table."""

    def cost(groups: list[tuple[int, ...]]) -> tuple[float, float, int, bool]:
        return _tables_cost(m, len(groups), max(_joint(sizes, group) for group in groups), threads, costs)

    return min((_groups(m, sizes, MAX_CELLS >> i) for i in range(MAX_CELLS.bit_length())), key=cost)


def _groups(m: int, sizes: Sequence[int], most: int = MAX_CELLS) -> list[tuple[int, ...]]:
    """Which partitions share a table of at most `most` cells: joined while that makes each of them cheaper."""
    groups: list[list[int]] = []
    joint = 0
    for g in sorted(range(len(sizes)), key=lambda g: sizes[g]):
        group = groups[-1] if groups else []
        wider = joint * sizes[g]
        if group and wider <= most and (m + wider) / (len(group) + 1) < (m + joint) / len(group):
            group.append(g)
            joint = wider
        else:
            groups.append([g])
            joint = sizes[g]
    return [tuple(group) for group in groups]


def _margins(ring: Ring, tables: dict[tuple[int, ...], Vector], sizes: Sequence[int]) -> dict[int, Vector]:
    """From each group's products by joint cell: each partition's products by its own cells."""
    done = {group[0]: table for group, table in tables.items() if len(group) == 1}
    alike: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for group in tables:
        if len(group) > 1:
            half = len(group) // 2
            alike.setdefault((_joint(sizes, group[:half]), _joint(sizes, group[half:])), []).append(group)
    halves: dict[tuple[int, ...], Vector] = {}
    for (rows, columns), groups in alike.items():
        step = max(1, JOINED // (rows * columns))  # joined tables are copies
        for start in range(0, len(groups), step):
            some = groups[start : start + step]
            pool = ring.join([tables[group] for group in some])
            places = np.arange(len(pool)).reshape(len(some), rows, columns)
            left, right = ring.ones(len(some) * rows), ring.ones(len(some) * columns)
            for column in range(columns):
                left = ring.multiply_into(left, pool, places[:, :, column].ravel())
            for row in range(rows):
                right = ring.multiply_into(right, pool, places[:, row].ravel())
            for i, group in enumerate(some):
                half = len(group) // 2
                halves[group[:half]] = left[i * rows : (i + 1) * rows]
                halves[group[half:]] = right[i * columns : (i + 1) * columns]
    return done | (_margins(ring, halves, sizes) if halves else {})
