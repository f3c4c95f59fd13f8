"""Products of subsets and of cells, against the plain product of each, in every way of computing them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto import products
from fednb.crypto.backend import GmpRing, to_residues
from fednb.crypto.threads import chunks, slices

MODULUS = 2**61 - 1
RING = GmpRing(MODULUS, 8)


def vector(values: list[int]) -> list[object]:
    return RING.load(np.frombuffer(b"".join(v.to_bytes(8, "big") for v in values), np.uint8).reshape(-1, 8))


def random_values(rng: np.random.Generator, m: int) -> list[int]:
    return [int(v) for v in rng.integers(0, MODULUS, m)]


def expected_products(values: list[int], subsets: np.ndarray) -> list[int]:
    return [
        math.prod((v for v, chosen in zip(values, row, strict=True) if chosen), start=1) % MODULUS for row in subsets
    ]


by_windows = pytest.param(lambda *a: products._by_windows(RING, *a), id="windows")
by_blocks = pytest.param(lambda *a: products._by_blocks(RING, *a), id="blocks")


@pytest.mark.parametrize("way", [by_windows, by_blocks])
@pytest.mark.parametrize("threads", [1, 2])
@given(m=st.integers(1, 70), subsets=st.integers(1, 30), count=st.integers(5, 40), seed=st.integers(0, 2**32))
def test_every_way_gives_the_plain_products(
    way: Callable[..., object], threads: int, m: int, subsets: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = random_values(rng, m)
    chosen = rng.integers(0, 2, (subsets, m), dtype=np.uint8) & rng.integers(0, 2, (subsets, 1), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "AT_ONCE", 16)
        patch.setattr(products, "BLOCKS_AT_ONCE", 3)
        stored = products.Stored(RING, RING.store(vector(values)))
        got, total = way(stored, np.packbits(chosen, axis=1), count, threads)
    assert got == expected_products(values, chosen)
    assert total == [math.prod(values) % MODULUS]


def test_the_cheaper_way_is_chosen() -> None:
    many_values, many_subsets = (30_000, 200), (1700, 4000)
    assert products._window_cost(*many_values) < products._block_cost(*many_values)
    assert products._window_cost(*many_subsets) > products._block_cost(*many_subsets)
    for m, subsets in (many_values, many_subsets):
        assert products.subset_cost(m, subsets) < m * subsets / 8  # of the m·T/2 that come to mind first


@pytest.mark.parametrize("kind", ["stored", "short"])
def test_tables_of_windows_stay_smaller_than_the_values(kind: str) -> None:
    for m, subsets in [(30_000, 192), (100_000, 192), (1_000_000, 500), (3000, 40)]:
        costs = products.Costs.stored(m, 1.5) if kind == "stored" else products.Costs.short(m)
        count = products._arranged(m, subsets, costs)
        size = 1 << -(-subsets // count)
        excess, _, passes = products._tables_cost(m, count, size, costs)
        assert excess == 0
        assert -(-count // passes) * size <= max(0.8 * m, products.LEAST_ROOM) - (m / 2 if kind == "short" else 0)
        assert count * m < 1.6 * products._window_cost(m, subsets)[0]


def test_nothing_has_the_product_one() -> None:
    assert products.subset_products(RING, [], np.zeros((2, 0), np.uint8)) == ([1, 1], [1])
    assert products.subset_products(RING, vector([5, 6, 7]), np.zeros((0, 1), np.uint8)) == ([], [210])


@pytest.mark.parametrize("threads", [1, 2])
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 50), st.integers(0, 2**32))
def test_cells_of_several_partitions_at_once_are_the_plain_products(
    threads: int, sizes: list[int], m: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = random_values(rng, m)
    cells = np.stack([rng.integers(0, size, m) for size in sizes], axis=1)
    got = products.cell_products(RING, vector(values), cells, sizes, threads)
    for g, size in enumerate(sizes):
        assert got[g] == expected_products(values, cells[:, g] == np.arange(size)[:, None])


def test_partitions_share_tables_while_that_pays() -> None:
    assert [len(g) for g in products._groups(30_000, [8] * 8)] == [4, 4]
    assert [len(g) for g in products._groups(10, [8] * 3)] == [1, 1, 1]
    assert sorted(j for g in products._groups(1000, [5, 300, 2, 70_000]) for j in g) == [0, 1, 2, 3]


def test_a_ring_keeps_canonical_residues_of_a_fixed_width() -> None:
    values = vector([MODULUS - 1, 1, 0, 12345])
    stored = RING.store(RING.multiply(values, values))
    assert [int.from_bytes(row.tobytes(), "big") for row in stored] == [1, 1, 0, 12345**2]
    assert RING.store(RING.power(values[:2], [-1, -5])).tolist() == to_residues(values[:2], 8).tolist()
    assert RING.power_secret(values[3:], 1000) == [pow(12345, 1000, MODULUS)]
    assert RING.square(values[3:], 70) == [pow(12345, 2**70, MODULUS)]


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 700))
def test_slices_and_chunks_cover_everything_once(n: int, threads: int, most: int) -> None:
    for parts in (slices(n, threads), chunks(n, threads, most)):
        assert [i for part in parts for i in range(n)[part]] == list(range(n))
    assert all(part.stop - part.start <= most for part in chunks(n, threads, most))


def test_values_that_are_loaded_already_keep_partitions_together() -> None:
    """A histogram of 13 features in 33 bins costs nearly twice as much when each has a table of its own."""
    for m in (8_000, 24_000):
        groups = products._grouped(m, (33,) * 13, products.Costs.loaded(m))
        assert [len(group) for group in groups] == [2] * 6 + [1]
