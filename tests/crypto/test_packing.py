"""Packed plaintexts: every bound that `plan` proves holds at its edge, and the next number is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto.packing import MASK_MARGIN, Packing
from fednb.errors import CryptoError

widths = st.integers(2, 24)


def product(packing: Packing, left: np.ndarray, right: np.ndarray) -> int:
    """The plaintext that `inner_products` arrives at, in the clear."""
    k, slot = packing.slots, packing.slot_bits
    total = 0
    for i, plaintext in enumerate(packing.pack(left)):
        for s, x in enumerate(right[i * k : i * k + k].tolist()):
            total += plaintext * (x << (slot * (k - 1 - s)))
    return total


def signed_window(packing: Packing, plaintext: int) -> int:
    window = packing.window(plaintext)
    return window - (1 << packing.slot_bits) if window >> (packing.slot_bits - 1) else window


@given(st.integers(1, 3000), widths, widths, st.sampled_from([512, 1024, 2048, 3072]))
def test_plans_leave_room_for_products_and_a_mask(rows: int, left: int, right: int, key_bits: int) -> None:
    packing = Packing.plan(key_bits, rows, left, right)
    assert rows * 2 ** (left - 1) * 2 ** (right - 1) <= 2 ** (packing.slot_bits - 1)
    assert (2 * packing.slots - 1) * packing.slot_bits + MASK_MARGIN <= key_bits
    more = packing.slots + 1
    assert more > rows or (2 * more - 1) * packing.slot_bits + MASK_MARGIN > key_bits


@given(st.integers(1, 70), widths, widths, st.sampled_from([-1, 1]), st.sampled_from([-1, 1]))
def test_inner_products_at_the_edge_of_the_bounds_are_exact(
    rows: int, left: int, right: int, sign_left: int, sign_right: int
) -> None:
    packing = Packing.plan(1024, rows, left, right)
    d = np.full(rows, sign_left * (2 ** (left - 1) - 1), dtype=np.int64)
    x = np.full(rows, sign_right * (2 ** (right - 1) - 1), dtype=np.int64)
    plaintext = product(packing, d, x)
    assert abs(plaintext) < 2 ** (1024 - MASK_MARGIN - 1)
    assert signed_window(packing, plaintext) - int(d @ x) in (-1, 0)  # a negative slot below borrows one


@given(st.data())
def test_inner_products_of_any_numbers_are_right_to_one_borrow(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 40))
    packing = Packing.plan(512, rows, 12, 9)
    d = np.array(data.draw(st.lists(st.integers(-2047, 2047), min_size=rows, max_size=rows)), dtype=np.int64)
    x = np.array(data.draw(st.lists(st.integers(-255, 255), min_size=rows, max_size=rows)), dtype=np.int64)
    assert signed_window(packing, product(packing, d, x)) - int(d @ x) in (-1, 0)


@given(st.lists(st.integers(-(2**20) + 1, 2**20 - 1), min_size=1, max_size=100))
def test_unpacking_undoes_packing_and_packed_numbers_add_up(values: list[int]) -> None:
    packing = Packing.plan(1024, len(values), 22, 10)
    a = np.array(values, dtype=np.int64)
    packed = packing.pack(a)
    assert len(packed) == packing.length(len(a))
    assert packing.unpack(packed, len(a)).tolist() == values
    doubled = [2 * plaintext for plaintext in packed]
    assert packing.unpack(doubled, len(a)).tolist() == (2 * a).tolist()


def test_the_readme_figure_of_eighteen_residues_a_ciphertext() -> None:
    assert Packing.plan(2048, 30_000, 26, 16) == Packing(18, 56, 26, 16, 30_000)


def test_more_rows_wider_slots() -> None:
    bits = [Packing.plan(2048, rows, 20, 16).slot_bits for rows in (1, 2, 3, 4, 5, 1_000_000)]
    assert bits == [35, 36, 37, 37, 38, 55]
    assert all(a <= b for a, b in pairwise(bits))


@pytest.mark.parametrize(
    ("key_bits", "rows", "left", "right", "message"),
    [
        (2048, 0, 20, 16, "at least one row"),
        (2048, 10, 1, 16, "at least 2 bits"),
        (2048, 10, 16, 1, "at least 2 bits"),
        (2048, 1_000_000, 40, 16, "64 is the most"),
        (112, 1000, 24, 24, "does not fit a key of 112 bits"),
    ],
)
def test_plans_that_cannot_be_proven_are_refused(key_bits: int, rows: int, left: int, right: int, message: str) -> None:
    with pytest.raises(CryptoError, match=message):
        Packing.plan(key_bits, rows, left, right)


def test_numbers_and_rows_beyond_the_plan_are_refused_before_anything_is_encrypted() -> None:
    packing = Packing.plan(2048, 10, 20, 16)
    limit = 2**19
    packing.pack(np.array([limit - 1, 1 - limit]))
    for bad in (limit, -limit, np.iinfo(np.int64).min):
        with pytest.raises(CryptoError, match="1 of 2 numbers to pack have more than 20 bits") as caught:
            packing.pack(np.array([0, bad]))
        assert str(abs(int(bad))) not in str(caught.value)
    with pytest.raises(CryptoError, match="10 rows, not for 11"):
        packing.pack(np.zeros(11, dtype=np.int64))
    with pytest.raises(CryptoError, match="1 of 3 factors"):
        packing.check_columns(np.array([[1, 2, 2**15]]))
    with pytest.raises(CryptoError, match="10 rows, not for 11"):
        packing.check_columns(np.zeros((11, 2), dtype=np.int64))
    with pytest.raises(CryptoError, match="integers with a sign, not float64"):
        packing.pack(np.zeros(3))


def test_windows_hold_the_result_slot_and_nothing_else() -> None:
    packing = Packing.plan(1024, 100, 12, 12)
    k, slot = packing.slots, packing.slot_bits
    everything = (1 << ((2 * k - 1) * slot)) - 1
    outside = everything ^ (((1 << slot) - 1) << (slot * (k - 1)))
    assert packing.window(outside) == 0
    assert packing.windows([everything, outside]).tolist() == [(1 << slot) - 1, 0]
