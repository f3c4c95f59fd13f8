"""Common points by sorting: what sets of bytes would say, also for points made to look alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.protocols.matching import SortedPoints, common

# few different bytes, and zeros at the end: points that NumPy's own idea of strings could confuse
points = st.lists(st.sampled_from([0, 1, 255]), min_size=2, max_size=2).map(
    lambda ends: bytes(ends[:1]) * 16 + bytes(ends[1:]) * 16
)
sets = st.lists(st.lists(points, min_size=1, max_size=9, unique=True), min_size=2, max_size=4)


def array(values: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, 32)


@given(sets)
def test_what_all_sets_have_is_found_in_each(values: list[list[bytes]]) -> None:
    shared = set(values[0]).intersection(*values[1:])
    found = common([SortedPoints(array(each)) for each in values])
    for each, positions in zip(values, found, strict=True):
        assert positions.tolist() == [i for i, value in enumerate(each) if value in shared]


def test_points_that_differ_in_one_bit_are_different() -> None:
    one = np.zeros((256, 32), np.uint8)
    for bit in range(256):
        one[bit, bit // 8] = 1 << bit % 8
    assert [len(found) for found in common([SortedPoints(one), SortedPoints(np.zeros((1, 32), np.uint8))])] == [0, 0]
    assert len(common([SortedPoints(one), SortedPoints(one[::-1])])[0]) == 256


def test_a_point_that_stands_in_a_set_twice_is_refused() -> None:
    twice = np.ones((2, 32), np.uint8)
    with pytest.raises(ValueError, match="twice"):
        SortedPoints(twice)
