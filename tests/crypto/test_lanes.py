"""The compiled kernel: the same bits as gmpy2, at the edges too; what it refuses; what the sanitizers say."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import gmpy2
import numpy as np
import pytest
from gmpy2 import mpz
from hypothesis import given, settings
from hypothesis import strategies as st

from fednb.crypto import backend, lanes, products
from fednb.crypto.backend import GmpRing, to_residues
from fednb.crypto.multiexp import inner_products
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, PrivateKey, PublicKey
from fednb.errors import CryptoError

ROOT = Path(__file__).parents[2]
absent = {
    kind: pytest.mark.skipif(kind not in lanes.available(), reason=f"not compiled, or no {kind} here")
    for kind in lanes.KINDS
}
compiled = pytest.mark.parametrize("kind", [pytest.param(kind, marks=absent[kind]) for kind in lanes.KINDS])

# the lengths of keys and of their primes, some between them, and some with no more headroom than there must be
LENGTHS = [128, 200, 512, 1000, 1024, 1032, 1536, 2048, 3072, 4096]


@cache
def rings(bits: int, kind: str) -> tuple[int, GmpRing, lanes.LaneRing]:
    """A number of `bits` bits, and both rings modulo its square."""
    prime = int(gmpy2.next_prime(mpz(3) ** 20_000 % (1 << (bits - 1)) | 1 << (bits - 1)))
    width = -(-2 * bits // 8)
    return prime, GmpRing(prime**2, width), lanes.LaneRing(prime**2, width, kind)


def edges(n: int) -> list[int]:
    return [0, 1, 2, n - 1, n, n + 1, 2 * n, n * (n - 1), n * n - n - 1, n * n - n + 1, n * n - 2, n * n - 1]


def residues_of(n: int) -> st.SearchStrategy[int]:
    return st.one_of(st.sampled_from(edges(n)), st.integers(0, n * n - 1))


def load(ring: Any, values: list[int]) -> Any:
    return ring.load(to_residues([mpz(value) for value in values], ring.width))


def same(plain: GmpRing, expected: Any, fast: lanes.LaneRing, got: Any) -> None:
    np.testing.assert_array_equal(fast.store(got), plain.store(expected))


@compiled
@pytest.mark.parametrize("bits", LENGTHS)
@settings(max_examples=20)
@given(data=st.data())
def test_both_kernels_give_the_same_bits(kind: str, bits: int, data: st.DataObject) -> None:
    n, plain, fast = rings(bits, kind)
    values = data.draw(st.lists(residues_of(n), min_size=1, max_size=20))
    others = data.draw(st.lists(residues_of(n), min_size=len(values), max_size=len(values)))
    index = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=len(values), max_size=len(values))))
    a, b, x, y = load(plain, values), load(plain, others), load(fast, values), load(fast, others)
    same(plain, a, fast, x)
    same(plain, plain.multiply(a, b), fast, fast.multiply(x, y))
    same(plain, plain.multiply_taken(b, a, index), fast, fast.multiply_taken(y, x, index))
    same(plain, plain.combine(a[:6]), fast, fast.combine(x[:6]))
    for times in (0, 1, 5):
        same(plain, plain.square(a, times), fast, fast.square(x, times))


@compiled
@pytest.mark.parametrize("bits", [512, 1024, 2048, 3072])
def test_every_pair_of_edge_values_multiplies_alike_also_after_many_lazy_reductions(kind: str, bits: int) -> None:
    n, plain, fast = rings(bits, kind)
    pairs = [(a, b) for a in edges(n) for b in edges(n)]
    a, b = (load(plain, list(side)) for side in zip(*pairs, strict=True))
    x, y = (load(fast, list(side)) for side in zip(*pairs, strict=True))
    for _ in range(5):
        a, x = plain.multiply(a, b), fast.multiply(x, y)
        same(plain, a, fast, x)
        a, x = plain.multiply(a, a), fast.square(x, 1)
        same(plain, a, fast, x)


@compiled
@pytest.mark.parametrize("bits", [200, 512, 1024, 1032, 2048, 3072])
def test_halves_that_are_not_reduced_become_canonical_when_stored(kind: str, bits: int) -> None:
    n, _, fast = rings(bits, kind)
    limbs = fast._words // 2
    radix = 1 << 52 * limbs
    lower = [0, 1, n - 1, n, n + 1, 2 * n - 1, 2 * n, 2 * n + 1, 4 * n - 1]
    upper = [*lower, radix // 2 - 1, radix // 2, radix - 1, radix // n * n, radix // n * n - 1]
    vector = np.array([[*lanes._split(mpz(a), limbs), *lanes._split(mpz(b), limbs)] for a in lower for b in upper])
    inverse = pow(radix, -1, n * n)
    values = [(a + b * inverse * n) % n**2 for a in lower for b in upper]

    def stored(values: list[int]) -> np.ndarray:
        return to_residues([mpz(value * inverse % n**2) for value in values], fast.width)

    np.testing.assert_array_equal(fast.store(vector), stored(values))
    for shift in (0, 1, 17):
        products = [a * b * inverse for a, b in zip(values, np.roll(values, shift), strict=True)]
        np.testing.assert_array_equal(
            fast.store(fast.multiply(vector, np.roll(vector, shift, axis=0))), stored(products)
        )
    np.testing.assert_array_equal(fast.store(fast.multiply(vector, vector)), fast.store(fast.square(vector, 1)))


@compiled
@pytest.mark.parametrize("bits", [512, 2048, 3072])
@settings(max_examples=10)
@given(data=st.data())
def test_powers_are_the_same(kind: str, bits: int, data: st.DataObject) -> None:
    n, plain, fast = rings(bits, kind)
    values = data.draw(st.lists(residues_of(n).filter(lambda v: v % n != 0), min_size=1, max_size=9))
    size = len(values)
    exponents = st.one_of(st.sampled_from([0, 1, -1, 2**64]), st.integers(-(2**70), 2**70))
    chosen = data.draw(st.lists(exponents, min_size=size, max_size=size))
    a, x = load(plain, values), load(fast, values)
    same(plain, plain.power(a, chosen), fast, fast.power(x, chosen))
    same(plain, plain.power(a, [0] * size), fast, fast.power(x, [0] * size))
    secret = data.draw(st.integers(1, 2**80))
    same(plain, plain.power_secret(a, secret), fast, fast.power_secret(x, secret))


@compiled
def test_what_has_no_inverse_is_refused_by_both(kind: str) -> None:
    n, plain, fast = rings(512, kind)
    for ring in (plain, fast):
        with pytest.raises(ValueError, match="not invertible"):
            ring.power(load(ring, [5, n]), [1, -1])


@compiled
@pytest.mark.parametrize("short", [False, True])
@settings(max_examples=60)
@given(
    n=st.integers(0, 90),
    columns=st.integers(1, 11),
    size=st.integers(1, 6),
    alike=st.sampled_from([0, 0.5, 1]),
    shares=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_buckets_are_the_same_however_the_rows_lie(
    kind: str, short: bool, n: int, columns: int, size: int, alike: float, shares: int, seed: int
) -> None:
    prime, plain, fast = rings(128, kind)
    rng = np.random.default_rng(seed)
    values = [int.from_bytes(rng.bytes(32), "big") % prime**2 for _ in range(n)]
    cells = rng.integers(0, size, (n, columns))
    cells[rng.random(n) < alike] = 0  # long runs are cut into pieces
    x = load(fast, values) if n else fast.ones(0)
    if n and short:
        x, _ = fast.split(to_residues([mpz(value) for value in values], fast.width))
        values = [int.from_bytes(row.tobytes(), "big") for row in fast.store(whole(fast, x))]
    a = load(plain, values) if n else []
    expected, got = plain.buckets(columns, size), fast.buckets(columns, size)
    for rows in (slice(0, n // 3), slice(n // 3, n)):  # values may come in parts
        for share in range(shares):
            expected.add(a[rows], cells[rows], share, shares)
            got.add(x[rows], cells[rows], share, shares)
    tables = got.tables()
    assert len(tables) == columns
    for table, other in zip(expected.tables(), tables, strict=True):
        same(plain, table, fast, other)


def whole(ring: Any, remainders: Any) -> Any:
    """The residues that remainders are, each alone in a cell."""
    buckets = ring.buckets(1, len(remainders))
    buckets.add(remainders, np.arange(len(remainders))[:, None])
    return buckets.tables()[0]


@compiled
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 30])
def test_runs_of_one_length_and_of_others_between_them(kind: str, length: int) -> None:
    """Lanes that end before others wait for them, or take the next cell."""
    prime, plain, fast = rings(1000, kind)
    values = [prime * prime - 1 - 7 * i for i in range(1500)]
    x, _ = fast.split(to_residues([mpz(value) for value in values], fast.width))
    a = load(plain, [int.from_bytes(row.tobytes(), "big") for row in fast.store(whole(fast, x))])
    cells = np.arange(1500) // length
    cells[::131] = cells[1::131].max()
    expected, got = plain.buckets(1, 1500), fast.buckets(1, 1500)
    for _ in range(2):  # into empty cells, and into others
        expected.add(a, cells[:, None])
        got.add(x, cells[:, None])
    same(plain, expected.tables()[0], fast, got.tables()[0])


@compiled
@pytest.mark.parametrize("columns", [3, 9])
def test_shares_are_nearly_as_large_and_have_nothing_in_common(kind: str, columns: int) -> None:
    _, plain, fast = rings(512, kind)
    rng = np.random.default_rng(0)
    cells = np.minimum(rng.geometric(0.2, (2000, columns)) - 1, 49)  # the first cells hold most
    for ring in (plain, fast):
        x = load(ring, [7] * 2000)
        filled = []
        for share in range(2):
            buckets = ring.buckets(columns, 50)
            buckets.add(x, cells, share, 2)
            taken = [ring.store(table) != ring.store(ring.ones(1)) for table in buckets.tables()]
            filled.append(np.array([own.any(axis=1) for own in taken]))
        assert not (filled[0] & filled[1]).any()
        counts = np.array([np.bincount(column, minlength=50) for column in cells.T])
        assert abs(counts[filled[0]].sum() - counts[filled[1]].sum()) < 0.2 * counts.sum()


@compiled
@pytest.mark.parametrize("cell", [0, 3])
def test_a_cell_of_all_rows_and_cells_of_one_row(kind: str, cell: int) -> None:
    prime, plain, fast = rings(1000, kind)
    values = [prime * prime - 1 - 7 * i for i in range(700)]
    cells = np.stack([np.full(700, cell), np.arange(700), np.arange(700) // 50], axis=1)
    expected, got = plain.buckets(3, 700), fast.buckets(3, 700)
    expected.add(load(plain, values), cells)
    got.add(load(fast, values), cells)
    for table, other in zip(expected.tables(), got.tables(), strict=True):
        same(plain, table, fast, other)


def split(ring: Any, root: int, values: list[int]) -> list[int]:
    """u·f·(1 + N)**z for the remainder, factor and logarithm of each of `values`."""
    residues = to_residues([mpz(value) for value in values], ring.width)
    remainders, logarithms = ring.split(residues)
    found = []
    for row, digits in zip(ring.store(whole(ring, remainders)), logarithms, strict=True):
        assert np.abs(digits).max() < 1 << ring.digit_bits
        z = sum(int(digit) << ring.digit_bits * i for i, digit in enumerate(digits))
        found.append(int.from_bytes(row.tobytes(), "big") * ring.factor * (1 + root * z) % ring.modulus)
    return found


@compiled
@pytest.mark.parametrize("bits", LENGTHS)
@settings(max_examples=10)
@given(data=st.data())
def test_a_residue_is_a_remainder_times_a_power(kind: str, bits: int, data: st.DataObject) -> None:
    n, plain, fast = rings(bits, kind)
    values = data.draw(st.lists(residues_of(n).filter(lambda v: v % n), min_size=1, max_size=20))
    for ring in (plain, fast):
        assert split(ring, n, values) == values


@compiled
def test_residues_without_a_logarithm_are_refused_by_both(kind: str) -> None:
    n, plain, fast = rings(512, kind)
    for ring in (plain, fast):
        for value in (0, n, 5 * n):
            with pytest.raises(ValueError, match="not invertible"):
                ring.split(to_residues([mpz(7), mpz(value), mpz(9)], ring.width))


@compiled
def test_vectors_are_joined_and_cut_like_lists(kind: str) -> None:
    _, plain, fast = rings(512, kind)
    a, x = load(plain, list(range(20))), load(fast, list(range(20)))
    same(plain, plain.join([a[3:5], a[::4], plain.ones(2)]), fast, fast.join([x[3:5], x[::4], fast.ones(2)]))
    same(plain, plain.multiply(a[::2], a[1::2]), fast, fast.multiply(x[::2], x[1::2]))
    assert fast.store(fast.ones(0)).shape == (0, fast.width)


@compiled
@settings(max_examples=40)
@given(
    m=st.integers(1, 60),
    subsets=st.integers(1, 60),
    count=st.integers(5, 30),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_products_do_not_depend_on_how_windows_and_cells_fill_the_lanes(
    kind: str, m: int, subsets: int, count: int, threads: int, seed: int
) -> None:
    prime, plain, fast = rings(128, kind)
    rng = np.random.default_rng(seed)
    values = [int.from_bytes(rng.bytes(32), "big") % prime**2 for _ in range(m)]
    a, x = load(plain, values), load(fast, values)
    bits = np.packbits(rng.integers(0, 2, (subsets, m), dtype=np.uint8), axis=1)
    for way in (products._by_windows, products._by_blocks):
        for expected, got in zip(way(plain, a, bits, count, 1), way(fast, x, bits, count, threads), strict=True):
            same(plain, expected, fast, got)
    sizes = [int(size) for size in rng.integers(1, 9, 1 + subsets % 12)]
    cells = np.stack([rng.integers(0, size, m) for size in sizes], axis=1)
    expected = products.cell_products(plain, a, cells, sizes)
    for table, other in zip(expected, products.cell_products(fast, x, cells, sizes, threads), strict=True):
        same(plain, table, fast, other)


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("values", ["many", "few"])
def test_a_product_takes_no_more_memory_than_its_ciphertexts(
    kind: str, threads: int, values: str, full: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, packing = 20_000, Packing(1, 45, 16, 16, 20_000)
    c = full.public.encrypt(range(64))[np.arange(rows) % 64]
    rng = np.random.default_rng(0)
    columns = rng.integers(-32_000, 32_000, (rows, 12))
    if values == "few":
        columns = columns[:8, 0][rng.integers(0, 8, columns.shape)]
    monkeypatch.setenv("FEDNB_KERNEL", kind)
    mine = CipherVector(c.data, c.scale, PublicKey(full.public.n))
    tracemalloc.start()
    try:
        inner_products(mine, columns, packing, threads=threads)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < c.nbytes  # beside them


@compiled
@pytest.mark.parametrize("slots", [1, 4])
def test_encrypted_inner_products_are_the_same_to_the_last_bit(
    kind: str, slots: int, full: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(slots)
    n = 150
    columns = np.stack([rng.integers(-500, 500, n), rng.integers(0, 3, n), np.full(n, -7)], axis=1)
    packing = Packing(slots, 40, 12, 12, n)
    c = full.encrypt(packing.pack(rng.integers(-1000, 1000, n)))
    found, powers, kinds = [], [], []
    for kernel in ("gmpy2", kind):
        monkeypatch.setenv("FEDNB_KERNEL", kernel)
        key = PublicKey(full.public.n)
        kinds.append(type(key.ring).__name__)
        mine = CipherVector(c.data, c.scale, key)
        found.append(inner_products(mine, columns, packing, threads=2).data)
        factors = [0, 1, -1, key.n - 1, 2**40]
        powers.append(key.multiply_plain(mine[:5], factors).data)
        private = PrivateKey(int(full._p), int(full._q))
        assert private.decrypt(CipherVector(c.data, c.scale, private.public)) == full.decrypt(c)
    assert kinds == ["GmpRing", "LaneRing"]
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(*powers)


def test_the_kernel_can_be_chosen_and_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    square = (2**61 - 1) ** 2
    monkeypatch.setenv("FEDNB_KERNEL", "gmpy2")
    assert isinstance(backend.ring(square, 16), GmpRing)
    assert backend.describe().startswith("gmpy2")
    monkeypatch.setenv("FEDNB_KERNEL", "abacus")
    with pytest.raises(CryptoError, match='"abacus"'):
        backend.ring(square, 16)
    monkeypatch.delenv("FEDNB_KERNEL")
    assert backend.describe().startswith(next(iter(lanes.available()), "gmpy2"))
    for kind in lanes.available():
        monkeypatch.setenv("FEDNB_KERNEL", kind)
        assert backend.describe().startswith(kind) and isinstance(backend.ring(square, 16), lanes.LaneRing)
    monkeypatch.delenv("FEDNB_KERNEL")
    monkeypatch.setattr(lanes, "_lanes", None)
    assert backend.describe().endswith("the compiled module was not built: there was no C compiler at installation")
    assert isinstance(backend.ring(square, 16), GmpRing)
    monkeypatch.setenv("FEDNB_KERNEL", "ifma")
    with pytest.raises(CryptoError, match="was not built"):
        backend.ring(square, 16)


@compiled
@pytest.mark.parametrize("modulus", [2**61 - 1, 16, 49, (2**8400 + 1) ** 2], ids=["prime", "even", "small", "long"])
def test_a_modulus_that_is_no_square_of_a_fitting_odd_number_is_left_to_gmpy2(kind: str, modulus: int) -> None:
    assert isinstance(backend.ring(modulus, -(-modulus.bit_length() // 8)), GmpRing)


@compiled
def test_buffers_and_indices_that_do_not_fit_are_refused(kind: str) -> None:
    from fednb.crypto import _lanes

    _, _, fast = rings(512, kind)
    context, a, out = fast._context, fast.ones(3), fast.ones(3)
    cells, half = np.zeros((3, 3), np.int32), np.ascontiguousarray(a[:, : a.shape[1] // 2])
    refused = [
        lambda: _lanes.multiply(context, a, a[:2], out),
        lambda: _lanes.multiply(context, a, a, out[:2]),
        lambda: _lanes.multiply(context[:-8], a, a, out),
        lambda: _lanes.multiply(b"", a, a, out),
        lambda: _lanes.multiply(np.uint64(9).tobytes() + context[8:], a, a, out),
        lambda: _lanes.multiply(context, a.tobytes()[:-1], a, out),
        lambda: _lanes.multiply_taken(context, a, a, np.array([0, 1, 3]), out),
        lambda: _lanes.multiply_taken(context, a, a, np.array([0, 1, -1]), out),
        lambda: _lanes.multiply_taken(context, a, a, np.array([0, 1]), out),
        lambda: _lanes.combine(context, a, fast.ones(7)),
        lambda: _lanes.combine(context, a[:2], fast.ones(8)),
        lambda: _lanes.combine(context, fast.ones(24), fast.ones(1)),
        lambda: _lanes.square(context, a, -1, out),
        lambda: _lanes.load(context, bytes(128 * 3), 0, out),
        lambda: _lanes.load(context, bytes(128 * 2), 128, out),
        lambda: _lanes.load(context, bytes(999 * 3), 999, out),
        lambda: _lanes.store(context, a, 128, bytearray(128 * 4)),
        lambda: _lanes.buckets(context, a, False, cells[:2], 2, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, False, cells + 2, 2, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, False, cells - 1, 2, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, False, cells, 0, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, False, cells, 4, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, True, cells, 2, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a.tobytes()[:-1], False, cells, 2, fast.ones(6), 0, 1),
        lambda: _lanes.buckets(context, a, False, cells, 2, fast.ones(6), -1, 1),
        lambda: _lanes.buckets(context, a, False, cells, 2, fast.ones(6), 1, 1),
        lambda: _lanes.buckets(context, a, False, cells, 2, fast.ones(6), 0, 0),
        lambda: _lanes.buckets(context, a, False, cells, 2, fast.ones(6), 0, 1 << 16),
        lambda: _lanes.remainders(context, bytes(128 * 3), 0, half, half),
        lambda: _lanes.remainders(context, bytes(128 * 3), 999, half, half),
        lambda: _lanes.remainders(context, bytes(128 * 2), 128, half, half),
        lambda: _lanes.remainders(context, bytes(128 * 3), 128, half, half[:2]),
        lambda: _lanes.multiply_halves(context, half, half[:2], half),
        lambda: _lanes.multiply_halves(context, half, half, half[:2]),
        lambda: _lanes.multiply_halves(context, half, half.tobytes()[:-1], half),
        lambda: _lanes.power(context, a, bytes([0, 1, 4]), 2, out),
        lambda: _lanes.power(context, a, bytes(4), 2, out),
        lambda: _lanes.power(context, a, bytes(3), 9, out),
        lambda: _lanes.power_secret(context, a, bytes([9]), 3, out),
        lambda: _lanes.multiply_points(bytes(64), bytes(31), bytearray(64)),
        lambda: _lanes.multiply_points(bytes(64), bytes(32), bytearray(32)),
        lambda: _lanes.multiply_points(bytes(63), bytes(32), bytearray(63)),
        lambda: _lanes.on_curve(bytes(64), bytearray(3)),
    ]
    for call in refused:
        with pytest.raises(ValueError):
            call()
    np.testing.assert_array_equal(out, fast.ones(3))
    with pytest.raises((TypeError, BufferError, ValueError)):
        _lanes.multiply(context, a, a, out.tobytes())


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    built = tmp_path / "_lanes.so"
    sources = [str(path) for path in sorted((ROOT / "native").glob("*.c"))]
    flags = ["-shared", "-fPIC", "-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [compiler, *flags, f"-I{sysconfig.get_path('include')}", *sources, "-o", str(built)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        library = subprocess.run([compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no compiler with sanitizers: {error}")
    environment = {
        **os.environ,
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter keeps what it has until it ends
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
    driver = [sys.executable, str(Path(__file__).with_name("lanes_driver.py")), str(built)]
    done = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() in ("all the same", "not available")


def test_a_processor_without_ifma_has_the_other_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDNB_KERNEL", raising=False)
    monkeypatch.setattr(lanes, "available", lambda: ("avx2",))
    assert backend.kernel() == "avx2"
    assert backend.describe().startswith("avx2: compiled") and backend.describe().endswith("has no AVX-512 IFMA")
    monkeypatch.setenv("FEDNB_KERNEL", "ifma")
    with pytest.raises(CryptoError, match="asks for ifma, but this processor, .* has no AVX-512 IFMA"):
        backend.kernel()


def test_a_module_of_other_sources_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """As it was before it had a version."""

        @staticmethod
        def available() -> bool:
            return True  # as was said before there were several kinds

    monkeypatch.delenv("FEDNB_KERNEL", raising=False)
    monkeypatch.setattr(lanes, "_lanes", Old)
    assert backend.kernel() == "gmpy2"
    assert backend.describe().endswith("the compiled module is of another version: install fednb again")
