"""Encrypted histograms: numpy's sums to the last bit, and sums that even the key holder cannot take apart."""

from __future__ import annotations

import gmpy2
import numpy as np
import pytest

from fednb.crypto import histograms
from fednb.crypto.histograms import CellPacking
from fednb.crypto.paillier import CipherVector, PrivateKey
from fednb.errors import CryptoError


def opened(key: PrivateKey, sums: object, packing: CellPacking, count: int) -> np.ndarray:
    c = key.public.refresh_for_key_holder(histograms.packed(key.public, sums, packing))
    assert len(c) == packing.length(count)
    return packing.unpack([key.public.signed(m) for m in key.decrypt(c)], count)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("numbers", [1, 2, 6])
def test_histograms_of_a_node_and_of_what_it_leaves_are_numpys(short: PrivateKey, numbers: int, threads: int) -> None:
    rng = np.random.default_rng(numbers)
    n, sizes, key = 150, [3, 8, 1, 8], short.public
    packing = CellPacking.plan(512, n, numbers, 20)
    values = rng.integers(-(2**19) + 1, 2**19, (n, numbers))
    cells = np.column_stack([rng.integers(0, size, n) for size in sizes])
    c = key.encrypt(packing.pack(values))
    ring = key.ring
    loaded = ring.load(c.data)
    some = np.sort(rng.permutation(n)[:40])
    whole = histograms.bin_sums(ring, loaded, np.arange(n), cells, sizes, threads)
    part = histograms.bin_sums(ring, loaded, some, cells[some], sizes, threads)
    rest = histograms.difference(ring, whole, part)

    def expected(rows: np.ndarray) -> np.ndarray:
        return np.array([values[rows][cells[rows, g] == b].sum(axis=0) for g, s in enumerate(sizes) for b in range(s)])

    others = np.setdiff1d(np.arange(n), some)
    for found, rows in ((whole, np.arange(n)), (part, some), (rest, others)):
        assert np.array_equal(opened(short, found, packing, sum(sizes)), expected(rows))
    running = histograms.cumulated(ring, rest, np.array([0, 3, 12]), np.array([2, 8, 7]))
    by_hand = expected(others)
    for start, size in ((0, 2), (3, 8), (12, 7)):
        by_hand[start : start + size] = by_hand[start : start + size].cumsum(axis=0)
    assert np.array_equal(opened(short, running, packing, sum(sizes)), by_hand)


def test_the_largest_sums_that_a_plan_allows_fill_every_slot_and_come_out_right(short: PrivateKey) -> None:
    packing = CellPacking.plan(512, 100, 2, 30)
    assert packing.cells == (512 - 2) // packing.cell_bits > 1
    for sign in (1, -1):
        edge = np.full((100, 2), sign * (2**29 - 1))
        loaded = short.public.ring.load(short.public.encrypt(packing.pack(edge)).data)
        one = histograms.bin_sums(short.public.ring, loaded, np.arange(100), np.zeros((100, 1), np.int32), [1])
        every = short.public.ring.join([one] * (2 * packing.cells + 1))
        assert np.array_equal(
            opened(short, every, packing, 2 * packing.cells + 1), np.tile(edge.sum(axis=0), (2 * packing.cells + 1, 1))
        )


def test_nothing_to_sum_is_zero_and_nothing_to_send_is_nothing(short: PrivateKey) -> None:
    packing = CellPacking.plan(512, 10, 2, 20)
    ring = short.public.ring
    empty = histograms.bin_sums(ring, ring.ones(3), np.arange(0), np.empty((0, 2), np.int32), [2, 2])
    assert np.array_equal(opened(short, empty, packing, 4), np.zeros((4, 2)))
    assert len(short.public.refresh_for_key_holder(histograms.packed(short.public, ring.ones(0), packing))) == 0


def test_what_does_not_fit_is_refused_before_anything_is_encrypted() -> None:
    packing = CellPacking.plan(512, 10, 2, 20)
    with pytest.raises(CryptoError, match="more than 20 bits"):
        packing.pack(np.full((1, 2), 2**19))
    with pytest.raises(CryptoError, match="up to 10 rows of 2 numbers"):
        packing.pack(np.zeros((11, 2), dtype=np.int64))
    with pytest.raises(CryptoError, match="too many"):
        CellPacking.plan(2048, 1 << 40, 2, 32)
    with pytest.raises(CryptoError, match="fewer outputs"):
        CellPacking.plan(512, 1 << 20, 12, 32)


def test_the_key_holder_cannot_tell_how_a_sum_was_made_by_its_quadratic_character(short: PrivateKey) -> None:
    """The Jacobi symbol of a sum is the product of the rows'; only noise of both characters hides it."""
    key, n = short.public, short.public.n
    c = CipherVector(np.repeat(key.encrypt([5]).data, 64, axis=0), 0, key)

    def symbols(data: np.ndarray) -> set[int]:
        return {gmpy2.jacobi(int.from_bytes(row.tobytes(), "big") % n, n) for row in data}

    assert len(symbols(key.refresh(c).data)) == 1  # good enough for whoever lacks the key only
    hidden = key.refresh_for_key_holder(c)
    assert symbols(hidden.data) == {1, -1}
    assert short.decrypt(hidden) == [5] * 64
