"""Sums by cell: numpy's, whatever the packing, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from fednb.crypto.cells import cell_sums
from fednb.crypto.masking import Mask, mask
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import PrivateKey
from fednb.errors import CryptoError


def expected(cells: np.ndarray, sizes: list[int], d: np.ndarray) -> list[int]:
    return [int(d[cells[:, g] == b].sum()) for g, size in enumerate(sizes) for b in range(size)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 3, 40, 333])
@pytest.mark.parametrize("bits", [4, 20])
def test_sums_by_cell_are_numpys(short: PrivateKey, n: int, threads: int, bits: int) -> None:
    rng = np.random.default_rng(n)
    packing = Packing.plan(512, n, bits, 2)
    sizes = [1, 2, 5, 9, 9, 31]
    cells = np.column_stack([rng.integers(0, size, n) for size in sizes])
    edge = 2 ** (bits - 1)
    d = rng.integers(-edge + 1, edge, n)
    c = short.public.encrypt(packing.pack(d), 3)
    hidden, own = mask(cell_sums(c, cells, sizes, packing, threads), packing)
    found = own.remove(packing.windows(short.decrypt(hidden)))
    assert hidden.scale == 3
    assert np.abs(found - expected(cells, sizes, d)).max() <= 1  # a window's borrow


def test_the_largest_sums_that_a_plan_allows_come_out_right(short: PrivateKey) -> None:
    packing = Packing.plan(512, 200, 4, 2)
    cells = np.zeros((200, 1), dtype=np.int64)
    for sign in (1, -1):
        c = short.public.encrypt(packing.pack(np.full(200, 7 * sign)))
        plain = [short.public.signed(m) for m in short.decrypt(cell_sums(c, cells, [2], packing))]
        hidden, own = mask(cell_sums(c, cells, [2], packing), packing)
        found = own.remove(packing.windows(short.decrypt(hidden)))
        assert plain[1] == 0
        assert np.abs(found - [1400 * sign, 0]).max() <= 1


def test_whoever_gets_a_mask_handed_over_takes_it_off_instead(short: PrivateKey) -> None:
    packing = Packing.plan(512, 50, 4, 2)
    c = short.public.encrypt(packing.pack(np.full(50, 4)))
    hidden, own = mask(cell_sums(c, np.arange(50)[:, None] % 5, [5], packing), packing)
    windows = own.hand_over()
    found = Mask(windows, packing).remove(packing.windows(short.decrypt(hidden)))
    assert np.abs(found - 40).max() <= 1
    with pytest.raises(CryptoError, match="once"):
        own.remove(windows)
    with pytest.raises(CryptoError, match="once"):
        own.hand_over()


@pytest.mark.parametrize(
    ("cells", "sizes", "message"),
    [
        (np.full((20, 1), 2), [2], "a cell that its partition does not have"),
        (np.full((20, 1), -1), [2], "a cell that its partition does not have"),
        (np.zeros((20, 2), dtype=np.int64), [2], "one column for each partition"),
        (np.zeros((20, 0), dtype=np.int64), [], "at least one row"),
        (np.zeros((600, 1), dtype=np.int64), [1], "proven for 20 rows, not for 600"),
        (np.zeros((2, 1), dtype=np.int64), [1], "2 rows are 1 ciphertexts"),
    ],
)
def test_cells_that_do_not_fit_are_refused(
    short: PrivateKey, cells: np.ndarray, sizes: list[int], message: str
) -> None:
    packing = Packing(5, 60, 4, 2, 20)
    c = short.public.encrypt(packing.pack(np.ones(20, dtype=np.int64)))
    with pytest.raises(CryptoError, match=message):
        cell_sums(c, cells, sizes, packing)
