"""Masks: uniform, off again to within one unit, usable once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto import masking
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, Fresh, generate
from fednb.errors import CryptoError

KEY = generate(512, insecure_short_key=True)
PACKING = Packing.plan(512, 30, 20, 16)
LIMIT = 2 ** (PACKING.slot_bits - 1)


def plaintexts(results: list[int], noise: list[int]) -> list[int]:
    """Results in slot k-1, and cross terms of any kind in the others."""
    k, slot = PACKING.slots, PACKING.slot_bits
    out = []
    for result, seed in zip(results, noise, strict=True):
        others = np.random.default_rng(seed).integers(-LIMIT + 1, LIMIT, 2 * k - 1).tolist()
        others[k - 1] = result
        out.append(sum(v << (slot * s) for s, v in enumerate(others)))
    return out


def reveal(c: CipherVector) -> np.ndarray:
    masked, mask = masking.mask(c, PACKING)
    assert type(masked) is Fresh
    return mask.remove(PACKING.windows(KEY.decrypt(masked)))


results = st.one_of(st.integers(-LIMIT + 2, LIMIT - 2), st.sampled_from([0, 1, -1, LIMIT - 2, 2 - LIMIT]))


@given(st.lists(st.tuples(results, st.integers(0, 2**32)), min_size=1, max_size=4))
def test_what_comes_back_is_right_to_one_unit(pairs: list[tuple[int, int]]) -> None:
    expected = [result for result, _ in pairs]
    got = reveal(KEY.public.encrypt(plaintexts(expected, [seed for _, seed in pairs])))
    assert got.dtype == np.int64
    assert np.all(np.abs(got - np.array(expected)) <= 1)


def test_slots_of_64_bits_do_not_overflow() -> None:
    packing = Packing(1, 64, 33, 32, 1)
    values = [2**62, -(2**62), 2**63 - 2, 2 - 2**63, 0]
    masked, mask = masking.mask(KEY.public.encrypt(values), packing)
    assert mask.remove(packing.windows(KEY.decrypt(masked))).tolist() == values


def test_the_decrypting_side_sees_numbers_from_all_of_the_plaintext_space() -> None:
    zeros = KEY.public.encrypt([0] * 400)
    seen = KEY.decrypt(masking.mask(zeros, PACKING)[0])
    assert len(set(seen)) == 400
    eighths = np.bincount([8 * v // KEY.public.n for v in seen], minlength=8)
    assert eighths.min() > 15  # 50 each are expected; fewer than 16 has a chance below 1e-8
    low = np.bincount([v % 8 for v in seen], minlength=8)
    assert low.min() > 15


def test_a_mask_is_never_the_same_twice() -> None:
    zeros = KEY.public.encrypt([0] * 3)
    a, b = (KEY.decrypt(masking.mask(zeros, PACKING)[0]) for _ in range(2))
    assert not set(a) & set(b)


def test_a_mask_comes_off_once() -> None:
    masked, mask = masking.mask(KEY.public.encrypt([1]), PACKING)
    windows = PACKING.windows(KEY.decrypt(masked))
    mask.remove(windows)
    with pytest.raises(CryptoError, match="once"):
        mask.remove(windows)


def test_windows_of_the_wrong_form_are_refused() -> None:
    _, mask = masking.mask(KEY.public.encrypt([1, 2]), PACKING)
    for windows in (np.zeros(3, np.uint64), np.zeros(2, np.int64), np.zeros((2, 1), np.uint64)):
        with pytest.raises(CryptoError, match="2 windows"):
            mask.remove(windows)
    with pytest.raises(CryptoError, match="more than"):
        mask.remove(np.array([0, 1 << PACKING.slot_bits], dtype=np.uint64))


def test_a_mask_shows_nothing_of_itself() -> None:
    _, mask = masking.mask(KEY.public.encrypt([1]), PACKING)
    assert repr(mask) == "<Mask>"
