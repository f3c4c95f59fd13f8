"""Xᵀ[[d]] against numpy, whatever the columns look like."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednb.crypto import masking, multiexp
from fednb.crypto.backend import GmpBuckets, GmpRing
from fednb.crypto.multiexp import inner_products, plan
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, PrivateKey, generate
from fednb.errors import CryptoError

KEY = generate(512, insecure_short_key=True)
LEFT, RIGHT = 20, 12
EDGE = 2 ** (RIGHT - 1) - 1


def plain(packing: Packing, d: np.ndarray, columns: np.ndarray) -> list[int]:
    """The packed plaintexts of the inner products, in integers: cross terms included."""
    k, slot, d_packed = packing.slots, packing.slot_bits, packing.pack(d)
    padded = np.zeros((packing.length(len(d)) * k, columns.shape[1]), dtype=np.int64)
    padded[: len(d)] = columns
    return [
        sum(
            d_packed[i] * sum(int(x) << (slot * (k - 1 - s)) for s, x in enumerate(column[i * k : i * k + k]))
            for i in range(len(d_packed))
        )
        for column in padded.T
    ]


def slot_of(packing: Packing, plaintexts: list[int]) -> np.ndarray:
    """What slot k-1 holds, with the borrow of the slots below put back."""
    k, slot = packing.slots, packing.slot_bits
    half = sum(1 << (slot * s + slot - 1) for s in range(k))
    return np.array([((v + half) >> (slot * (k - 1)) & ((1 << slot) - 1)) - (1 << (slot - 1)) for v in plaintexts])


def revealed(c: CipherVector, key: PrivateKey, packing: Packing) -> np.ndarray:
    return slot_of(packing, [key.public.signed(v) for v in key.decrypt(c)])


def columns_of_every_kind(rng: np.random.Generator, n: int) -> np.ndarray:
    woe = rng.integers(-EDGE, EDGE, 8)[rng.integers(0, 8, n)]
    return np.stack(
        [
            rng.integers(-EDGE, EDGE + 1, n),
            np.full(n, EDGE),
            np.full(n, -EDGE),
            np.zeros(n, dtype=np.int64),
            np.ones(n, dtype=np.int64),
            rng.integers(0, 2, n),
            np.where(rng.integers(0, 2, n) == 1, EDGE, -EDGE),
            7 * rng.integers(-3, 4, n),
            woe,
            rng.integers(100, 120, n),
            (np.arange(n) == n - 1).astype(np.int64),
        ],
        axis=1,
    ).astype(np.int64)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 7, 60, 400])
@pytest.mark.parametrize("slots", [None, 1])
def test_columns_of_every_kind_give_numpys_inner_products(n: int, slots: int | None, threads: int) -> None:
    rng = np.random.default_rng(n)
    packing = Packing.plan(512, n, LEFT, RIGHT)
    if slots:
        packing = Packing(slots, packing.slot_bits, LEFT, RIGHT, n)
    columns = columns_of_every_kind(rng, n)
    d = rng.integers(-(2**19) + 1, 2**19, n)
    c = KEY.encrypt(packing.pack(d), scale=10)
    out = inner_products(c, columns, packing, scale=6, threads=threads)
    assert type(out) is CipherVector
    assert out.scale == 16
    assert revealed(out, KEY, packing).tolist() == (columns.T @ d).tolist()


@settings(max_examples=30)
@given(st.data())
def test_any_columns_give_the_packed_product_to_the_last_bit(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 20))
    packing = Packing.plan(512, n, LEFT, RIGHT)
    column = st.lists(st.integers(-EDGE, EDGE), min_size=n, max_size=n)
    columns = np.array(data.draw(st.lists(column, min_size=1, max_size=3)), dtype=np.int64).T
    d = np.array(data.draw(st.lists(st.integers(-(2**19) + 1, 2**19 - 1), min_size=n, max_size=n)), dtype=np.int64)
    out = inner_products(KEY.encrypt(packing.pack(d)), columns, packing)
    got = slot_of(packing, [KEY.public.signed(v) for v in KEY.decrypt(out)])
    assert got.tolist() == slot_of(packing, plain(packing, d, columns)).tolist() == (columns.T @ d).tolist()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_numbers_that_a_plan_allows_come_out_right(sign: int) -> None:
    n = 64
    packing = Packing.plan(512, n, LEFT, RIGHT)
    d = np.full(n, sign * (2 ** (LEFT - 1) - 1))
    columns = np.stack([np.full(n, EDGE), np.full(n, -EDGE), np.resize([EDGE, -EDGE, EDGE], n)], axis=1)
    out = inner_products(KEY.encrypt(packing.pack(d)), columns, packing)
    assert revealed(out, KEY, packing).tolist() == (columns.T @ d).tolist()


def test_at_2048_bits_from_encryption_to_the_unmasked_result(full: PrivateKey) -> None:
    rng = np.random.default_rng(0)
    n = 100
    packing = Packing.plan(2048, n, 26, 16)
    d, columns = rng.integers(-(2**25) + 1, 2**25, n), rng.integers(-(2**15) + 1, 2**15, (n, 2))
    columns[:, 1] = columns[:5, 1][rng.integers(0, 5, n)]
    out = inner_products(full.public.encrypt(packing.pack(d), threads=2), columns, packing, threads=2)
    masked, mask = masking.mask(out, packing, threads=2)
    got = mask.remove(packing.windows(full.decrypt(masked, threads=2)))
    assert np.all(np.abs(got - columns.T @ d) <= 1)


def test_columns_with_few_values_become_dictionaries_and_others_bits() -> None:
    rng = np.random.default_rng(1)
    n = 2000
    packing = Packing(1, 60, 20, 16, n)
    columns = np.stack(
        [
            rng.integers(-30000, 30000, n),
            rng.integers(-30000, 30000, 8)[rng.integers(0, 8, n)],
            np.where(rng.integers(0, 2, n) == 1, 20000, -7),
            np.full(n, 12345),
            4000 * rng.integers(-1, 2, n),
        ],
        axis=1,
    )
    described = plan(columns, packing).columns
    assert [column.distinct is not None for column in described[:4]] == [False, True, False, False]
    assert [column.bits for column in described] == [16, described[1].bits, 1, 0, 2]
    assert [column.step for column in described[2:]] == [20007, 1, 4000]


def test_a_dictionary_takes_a_fraction_of_the_multiplications() -> None:
    rng = np.random.default_rng(2)
    n = 30_000
    wide, few = rng.integers(-30000, 30000, (n, 4)), rng.integers(-30000, 30000, 8)[rng.integers(0, 8, (n, 4))]
    for packing in (Packing(1, 60, 20, 16, n), Packing.plan(2048, n, 26, 16)):
        assert plan(few, packing).multiplications < plan(wide, packing).multiplications / 2.5
    assert plan(wide, Packing(1, 60, 20, 16, n)).multiplications / wide.size < 1.6


def test_the_count_of_multiplications_is_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done = 0
    ring = GmpRing(KEY.public.n**2, KEY.public.width)  # one lane: nothing is spent on filling others
    monkeypatch.setattr(KEY.public, "ring", ring)

    def counted(name: str, count: object) -> None:
        original = getattr(ring, name)

        def call(*arguments: object) -> object:
            nonlocal done
            done += count(*arguments)  # type: ignore[operator]
            return original(*arguments)

        monkeypatch.setattr(ring, name, call)

    counted("multiply", lambda a, b: len(a))
    counted("multiply_taken", lambda a, table, index: len(a))
    counted("multiply_onto", lambda a, b: len(a))
    counted("multiply_into", lambda a, table, index: len(a))
    counted("combine", lambda values: 1 << len(values))
    original = GmpBuckets.add

    def add(self: GmpBuckets, values: list[object], cells: np.ndarray, *share: int, shares: int) -> None:
        nonlocal done
        empty = sum(table.count(None) for table in self._tables)
        original(self, values, cells, *share, shares)
        done += cells.size - (empty - sum(table.count(None) for table in self._tables))

    monkeypatch.setattr(GmpBuckets, "add", add)
    counted("square", lambda a, times: len(a) * times)
    rng = np.random.default_rng(3)
    n = 3000
    columns = np.concatenate(
        [rng.integers(-EDGE, EDGE, (n, 3)), rng.integers(-EDGE, EDGE, 8)[rng.integers(0, 8, (n, 3))]], 1
    )
    for packing in (Packing.plan(512, n, LEFT, RIGHT), Packing(1, 60, LEFT, RIGHT, n)):
        c = KEY.encrypt(packing.pack(rng.integers(-1000, 1000, n)))
        done = 0
        inner_products(c, columns, packing)
        assert 0.85 < done / plan(columns, packing).multiplications < 1.2


def test_a_long_tail_of_distinct_values_past_the_sample_is_noticed() -> None:
    n = multiexp._SAMPLE + 3000
    column = np.zeros((n, 1), dtype=np.int64)
    column[multiexp._SAMPLE :, 0] = np.arange(3000)
    assert plan(column, Packing(1, 60, 20, 16, n)).columns[0].distinct is None


def test_shapes_that_do_not_go_together_are_refused() -> None:
    packing = Packing.plan(512, 20, LEFT, RIGHT)
    columns = np.ones((20, 2), dtype=np.int64)
    c = KEY.encrypt(packing.pack(np.ones(20, dtype=np.int64)))
    with pytest.raises(CryptoError, match=f"20 rows are {len(c)} ciphertexts"):
        inner_products(c[1:], columns, packing)
    with pytest.raises(CryptoError, match="20 rows, not for 21"):
        inner_products(c, np.ones((21, 2), dtype=np.int64), packing)
    with pytest.raises(CryptoError, match="1 of 40 factors have more than 12 bits"):
        inner_products(c, np.where(np.arange(40).reshape(20, 2) == 3, 2**11, columns), packing)
    for bad in (columns[:0], columns[:, :0], columns[:, 0]):
        with pytest.raises(CryptoError, match="two-dimensional"):
            inner_products(c, bad, packing)


WEIGHED = """
import numpy as np
from fednb.crypto.multiexp import inner_products
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import generate

def kilobytes(what):
    return int(open("/proc/self/status").read().split(what)[1].split()[0])

key, rng = generate().public, np.random.default_rng(0)
columns = rng.integers(-32_000, 32_000, (20_000, 6))
if FEW:
    columns = columns[:8, 0][rng.integers(0, 8, columns.shape)]
c = key.encrypt(range(64))[np.arange(len(columns)) % 64]
inner_products(c[:500], columns[:500], Packing(1, 45, 16, 16, 500), threads=2)  # what is made once
before = kilobytes("VmRSS:")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
inner_products(c, columns, Packing(1, 45, 16, 16, len(columns)), threads=2)
print((kilobytes("VmHWM:") - before) * 1024 / c.nbytes)
"""


@pytest.mark.parametrize("few", [False, True])
def test_a_product_in_gmpy2_takes_little_more_memory_than_its_ciphertexts(few: bool) -> None:
    """Seen from outside: Python does not know of the integers' memory."""
    environment = {**os.environ, "FEDNB_KERNEL": "gmpy2"}
    code = WEIGHED.replace("FEW", repr(few))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.3  # all integers at once are 1.9


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("slots", [1, 3])
@given(seed=st.integers(0, 2**32), n=st.sampled_from([1, 40, 700]))
@settings(max_examples=8)
def test_products_by_remainders_are_the_same_to_the_last_bit(threads: int, slots: int, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    packing = Packing(slots, 70, 20, 40, n)
    columns = np.stack(
        [
            rng.integers(-(2**15), 2**15, n),
            rng.integers(-(2**38), 2**38, n),  # its weights are three digits
            rng.integers(5, 9, n) * 1000 + 3,  # a dictionary, or bits with a step
            np.full(n, -7),
        ],
        axis=1,
    )
    c = KEY.encrypt(packing.pack(rng.integers(-1000, 1000, n)))
    found = []
    for least in (1, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(multiexp, "SHORT_FROM", least)
            patch.setattr("fednb.crypto.products.windows_win", lambda *arguments: True)
            patch.setattr("fednb.crypto.logarithms.AT_ONCE", 64)
            patch.setattr("fednb.crypto.logarithms.PARTS_AT_ONCE", 3)
            found.append(inner_products(c, columns, packing, threads=threads).data)
    np.testing.assert_array_equal(*found)


def test_many_columns_are_multiplied_by_remainders_and_few_are_not() -> None:
    rng = np.random.default_rng(0)
    columns = rng.integers(-(2**15), 2**15, (5000, 12))
    for packing, count, short in (
        (Packing(1, 60, 20, 17, 5000), 12, True),
        (Packing(1, 60, 20, 17, 5000), 1, False),
        (Packing.plan(2048, 5000, 20, 17), 12, False),  # blocks
    ):
        chosen = plan(columns[:, :count], packing).columns
        assert multiexp._short(packing.length(5000), packing.slots, chosen) is short
