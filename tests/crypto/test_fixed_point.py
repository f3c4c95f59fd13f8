"""Fixed point: exact within its range, refused outside it, without naming a value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto.fixed_point import decode, encode
from fednb.errors import CryptoError


@given(st.lists(st.floats(-1000, 1000)), st.integers(0, 40))
def test_decoding_undoes_encoding_to_half_a_unit(x: list[float], fraction_bits: int) -> None:
    encoded = encode(x, fraction_bits, 52)
    assert encoded.dtype == np.int64
    assert np.all(np.abs(decode(encoded, fraction_bits) - np.array(x)) <= 0.5 * 2.0**-fraction_bits)


@given(st.integers(2, 62), st.integers(-8, 30))
def test_the_range_is_open_at_both_ends(limit_bits: int, fraction_bits: int) -> None:
    limit = 2.0 ** (limit_bits - 1 - fraction_bits)
    for outside in (limit, -limit, 2 * limit, 1e300):
        with pytest.raises(CryptoError, match="1 of 2 numbers"):
            encode([0.0, outside], fraction_bits, limit_bits)
    inside = np.nextafter(limit, 0) if limit_bits > 53 else limit - 2.0**-fraction_bits
    assert abs(int(encode([-inside], fraction_bits, limit_bits)[0])) < 2 ** (limit_bits - 1)


def test_rounding_up_to_the_limit_is_refused_too() -> None:
    with pytest.raises(CryptoError, match=r"outside ±2\*\*7"):
        encode([127.6], 0, 8)
    assert encode([127.4], 0, 8).tolist() == [127]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_counted_and_not_shown(bad: float) -> None:
    with pytest.raises(CryptoError, match="2 of 4 numbers are not finite") as caught:
        encode([bad, 1.2345, bad, 0.0], 20, 40)
    assert "1.2345" not in str(caught.value)


def test_a_number_out_of_range_is_not_shown() -> None:
    with pytest.raises(CryptoError) as caught:
        encode([[123456.789]], 20, 24)
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize("bits", [0, 64, -3])
def test_widths_beyond_64_bits_are_refused(bits: int) -> None:
    with pytest.raises(CryptoError, match="1 to 63 bits"):
        encode([0.0], 0, bits)


def test_integers_beyond_64_bits_decode() -> None:
    assert decode([2**100, -(2**90)], 100).tolist() == [1.0, -(2.0**-10)]
    assert decode([3], -2).tolist() == [12.0]
    assert decode(np.array([-3, 5]), 1).tolist() == [-1.5, 2.5]


def test_empty_and_shaped_arrays_stay_as_they_are() -> None:
    assert encode([], 10, 20).shape == (0,)
    assert encode(np.zeros((3, 2)), 10, 20).shape == (3, 2)
