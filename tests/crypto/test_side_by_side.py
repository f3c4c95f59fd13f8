"""Several numbers in one plaintext that is multiplied as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto import paillier
from fednb.crypto.multiexp import inner_products
from fednb.crypto.side_by_side import SideBySide, factors
from fednb.errors import CryptoError

SECRET = paillier.generate(512, insecure_short_key=True)


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 2**32))
def test_what_was_packed_comes_back(width: int, n: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-(2**40) + 1, 2**40, size=(n, width))
    layout = SideBySide.plan(512, width, 80)
    assert layout.unpack(layout.pack(rows)) == rows.tolist()
    assert len(layout.pack(rows)) == n * layout.length


def test_sums_of_multiples_stay_in_their_slots_at_the_edge() -> None:
    """Sums of the largest magnitude of either sign beside one another, where a borrow would show."""
    n, bits = 8, 40
    most = (1 << 17) - 1
    x = np.tile([most, -most, most, -1, 0, -most], (n, 1))
    w = np.full((n, 2), most)
    w[:, 1] = -most
    layout = SideBySide.plan(512, x.shape[1], bits)
    c = SECRET.public.encrypt(layout.pack(x))
    found = []
    for t in range(layout.length):
        found += SECRET.decrypt(inner_products(c[t * n : (t + 1) * n], w, factors(w)))
    assert layout.unpack([SECRET.public.signed(m) for m in found]) == (w.T @ x).tolist()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CryptoError, match="does not fit a key of 512 bits"):
        SideBySide.plan(512, 3, 449)
    with pytest.raises(CryptoError, match="62 bits at most"):
        factors(np.array([[1 << 62]]))
