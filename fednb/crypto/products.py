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

from fednb.crypto.backend import Indices, Residues, Ring, Vector
from fednb.crypto.threads import slices, spread

MAX_WINDOW = 16
MAX_BLOCK = 14
MAX_CELLS = 1 << 15
STEM = 32
JOINED = 4096  # rows of tables of one form whose margins are taken together
BLOCKS_AT_ONCE = 16
AT_ONCE = 2048  # values in the form that they are computed in; a multiple of 8
WORK = 512  # residues that filling and folding take; and an eighth of the tables
LEAST_ROOM = 8192  # residues that may be there, however few ciphertexts there are
_CIPHERTEXT = 0.8  # of a residue as it is computed with
SHORT_FROM = 5  # tables that a value goes into: from so many on, its logarithm costs less than it saves

What = TypeVar("What")
Result = TypeVar("Result")
Bits = npt.NDArray[np.uint8]  # [T, ceil(m/8)], as numpy.packbits makes them along rows


class Costs(NamedTuple):
    """What tables of some values cost, in multiplications, nearly."""

    loading: float  # a value, each time that it is needed
    filling: float  # a value into a table
    room: int  # for all tables at once, in residues

    @classmethod
    def stored(cls, m: int, loading: float) -> Costs:
        return cls(loading, 1, max(int(m * _CIPHERTEXT) - 3 * AT_ONCE, LEAST_ROOM))

    @classmethod
    def short(cls, m: int) -> Costs:
        taken = int(m * 0.62)  # half a residue each, and bits, and the order of rows
        return cls(0, 0.7, max(int(m * _CIPHERTEXT), LEAST_ROOM) - taken)

    @classmethod
    def loaded(cls, m: int) -> Costs:
        """Of values that are there already, as for histograms, which are made again and again."""
        return cls(0, 1, max(2 * m, LEAST_ROOM))


class Stored:
    """Residues as they travel, loaded when some are asked for: all of them at once would be a second copy."""

    def __init__(self, ring: Ring, residues: Residues) -> None:
        self._ring, self._residues = ring, residues
        self.costs = Costs.stored(len(residues), 1.5 if ring.lanes > 1 else 0.2)

    def __len__(self) -> int:
        return len(self._residues)

    def __getitem__(self, rows: slice) -> Vector:
        return self._ring.load(self._residues[rows])


class Remainders:
    """What `logarithms` leaves of residues, for tables alone: so short that there can be all of them at once."""

    def __init__(self, remainders: Vector) -> None:
        self._remainders = remainders
        self.costs = Costs.short(len(remainders))

    def __len__(self) -> int:
        return len(self._remainders)

    def __getitem__(self, rows: slice) -> Vector:
        return self._remainders[rows]


Values = Vector | Stored | Remainders


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
        windows = _arranged(m, subsets, _costs(values))
        return _by_windows(ring, values, bits, windows, threads)
    return _by_blocks(ring, values, bits, _block_cost(m, subsets)[1], threads)


def windows_win(m: int, subsets: int) -> bool:
    """Whether `subset_products` takes windows; blocks otherwise."""
    return _window_cost(m, subsets)[0] < _block_cost(m, subsets)[0]


def tables_filled(m: int, subsets: int, sizes: Sequence[int]) -> int:
    """How many tables a value goes into for that many subsets and for cells of these sizes; 0 where blocks win."""
    if subsets and not windows_win(m, subsets):
        return 0
    windows = _arranged(m, subsets, Costs.short(m)) if subsets else 0
    return windows + (len(_grouped(m, tuple(sizes), Costs.short(m))) if sizes else 0)


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

    def folded(some: Sequence[slice], tables: list[Vector]) -> tuple[list[Vector], Vector]:
        products, total = _fold_cut(ring, tables, threads)
        return [own[: w.stop - w.start] for w, own in zip(some, products, strict=True)], total

    size = 1 << max(window.stop - window.start for window in windows)
    made = _by_tables(ring, values, windows, size, partial(_cells, bits), folded, threads)
    return ring.join([own for products, _ in made for own in products]), made[0][1]


def _by_tables(
    ring: Ring,
    values: Values,
    whats: Sequence[What],
    size: int,
    cells: Callable[[Sequence[What], slice], Indices],
    finish: Callable[[Sequence[What], list[Vector]], Result],
    threads: int,
) -> list[Result]:
    """What `finish` makes of a table for each of `whats`, some at a time: the products by `size` cells.

    `cells` says which cells some rows are in, [rows, tables]. Stored values are loaded a part at a time, and again for
    every pass over them: as many tables are filled in one as there is room for. All threads fill all tables, each its
    share of the cells.
    """
    m = len(values)
    step = AT_ONCE if isinstance(values, Stored) else m

    def together(some: Sequence[What]) -> Result:
        buckets = ring.buckets(len(some), size)
        for start in range(0, m, step):
            rows = slice(start, min(start + step, m))
            add = partial(buckets.add, _loaded(ring, values, rows, threads), cells(some, rows), shares=threads)
            spread(add, range(threads), threads)
        return finish(some, buckets.tables())

    _, _, passes = _tables_cost(m, len(whats), size, _costs(values))
    return [together(whats[some]) for some in slices(len(whats), passes)]


def _costs(values: Values) -> Costs:
    return values.costs if isinstance(values, Stored | Remainders) else Costs.loaded(len(values))


@functools.lru_cache(maxsize=1024)
def _arranged(m: int, subsets: int, costs: Costs) -> int:
    """How many windows."""
    counts = _counts(subsets, MAX_WINDOW)
    return min(counts, key=lambda count: _tables_cost(m, count, 1 << -(-subsets // count), costs))


@functools.lru_cache(maxsize=4096)
def _tables_cost(m: int, count: int, size: int, costs: Costs) -> tuple[float, float, int]:
    """Of `_by_tables` with so many of so many cells: how much too large they are, multiplications, and passes."""
    held, room = size * 9 // 8, costs.room - WORK
    passes = -(-count // max(1, room // held))
    free = min(m, size)  # a value that is the first in its cell
    work = count * (costs.filling * (m - free) + 2 * size) + costs.loading * m * passes
    return max(0, held - room), work, passes


def _cells(bits: Bits, windows: Sequence[slice], rows: slice) -> Indices:
    """Which of each window's buckets the rows are in, [rows, windows]; `rows` starts at a whole byte of `bits`."""
    n = rows.stop - rows.start
    cells = np.empty((len(windows), n), dtype=np.int32)
    for number, window in enumerate(windows):
        cells[number] = 0
        for t, subset in enumerate(bits[window, rows.start // 8 : -(-rows.stop // 8)]):
            cells[number] |= np.unpackbits(subset, count=n).astype(np.int32) << t
    return np.ascontiguousarray(cells.T)


def _fold_cut(ring: Ring, tables: list[Vector], threads: int) -> tuple[list[Vector], Vector]:
    """As `_fold`, by threads: each folds its part of all tables, and the parts' totals are one more small table."""
    cut = min(1 << (threads - 1).bit_length(), len(tables[0]))
    size = len(tables[0]) // cut
    parts = [[table[i * size : (i + 1) * size] for table in tables] for i in range(cut)]
    count = len(tables)
    tables.clear()  # so that they can go while they are folded
    folded = spread(lambda part: _fold(ring, part), parts, threads)
    low = functools.reduce(ring.multiply, [ring.join(products) for products, _ in folded])
    totals = ring.weave([totals for _, totals in folded])  # by table, then by part
    high, total = _fold(ring, [totals[t * cut : (t + 1) * cut] for t in range(count)])
    bits = len(low) // count
    products = [ring.join([low[t * bits : (t + 1) * bits], own]) for t, own in enumerate(high)]
    return products, ring.take(total, np.zeros(1, dtype=np.intp))  # a slice would keep a whole table


def _fold(ring: Ring, tables: list[Vector]) -> tuple[list[Vector], Vector]:
    """From buckets by k bits, of each table: the k products of the buckets with each bit set, lowest bit first.

    And of each table the product of all buckets. It works in the tables' place, and takes them out of the list: down to
    STEM buckets one table after the other, then all of them together, so that vectors stay long.
    """
    count, stems, high = len(tables), [], []
    while tables:
        rest, own = tables.pop(0), []
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
    products = [ring.join([below[i * bits : (i + 1) * bits], done[i * top : (i + 1) * top]]) for i in range(count)]
    return products, rest


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
    groups = _grouped(len(values), tuple(sizes), _costs(values))
    size = max(_joint(sizes, group) for group in groups)

    def joint(some: Sequence[tuple[int, ...]], rows: slice) -> Indices:
        found = np.zeros((rows.stop - rows.start, len(some)), dtype=np.int32)
        for column, group in enumerate(some):
            for g in group:
                found[:, column] = found[:, column] * sizes[g] + cells[rows, g]
        return found

    def margins(some: Sequence[tuple[int, ...]], tables: list[Vector]) -> list[dict[int, Vector]]:
        cut = [(group, table[: _joint(sizes, group)]) for group, table in zip(some, tables, strict=True)]
        return spread(lambda own: _margins(ring, dict(cut[own]), sizes), slices(len(cut), threads), threads)

    made = _by_tables(ring, values, groups, size, joint, margins, threads)
    by_partition = {g: product for some in made for own in some for g, product in own.items()}
    return [by_partition[g] for g in range(len(sizes))]


def _joint(sizes: Sequence[int], group: Sequence[int]) -> int:
    return math.prod(sizes[g] for g in group)


@functools.lru_cache(maxsize=1024)
def _grouped(m: int, sizes: tuple[int, ...], costs: Costs) -> list[tuple[int, ...]]:
    """Which partitions share a table."""

    def cost(groups: list[tuple[int, ...]]) -> tuple[float, float, int]:
        return _tables_cost(m, len(groups), max(_joint(sizes, group) for group in groups), costs)

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
