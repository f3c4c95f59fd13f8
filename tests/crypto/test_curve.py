"""Curve25519: an independent ladder as oracle, the laws of PSI, and points that must not get in."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto import backend, curve, lanes
from fednb.crypto.curve import Scalar, blinding, check, hash_to_curve, multiply, random_scalar
from fednb.errors import CryptoError

P = 2**255 - 19


@pytest.fixture(params=["gmpy2", "ifma"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here holds for both."""
    if request.param == "ifma" and "ifma" not in lanes.available():
        pytest.skip("no compiled kernel, or no AVX-512 IFMA")
    monkeypatch.setenv("FEDNB_KERNEL", request.param)
    return request.param


def rows(*numbers: int) -> np.ndarray:
    return np.frombuffer(b"".join(n.to_bytes(32, "little") for n in numbers), np.uint8).reshape(-1, 32)


def on_curve(u: int) -> bool:
    v2 = u * (u * u + 486662 * u + 1) % P
    return v2 == 0 or pow(v2, (P - 1) // 2, P) == 1


def test_rfc_7748_known_answer() -> None:
    scalar = Scalar(bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"))
    point = np.frombuffer(
        bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"), np.uint8
    ).reshape(1, 32)
    assert multiply(point, scalar).tobytes().hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_multiplication_agrees_with_another_library(ids: list[bytes]) -> None:
    scalar, points = random_scalar(), hash_to_curve(ids)
    other = X25519PrivateKey.from_private_bytes(scalar._bytes)
    expected = b"".join(other.exchange(X25519PublicKey.from_public_bytes(p.tobytes())) for p in points)
    assert multiply(points, scalar).tobytes() == expected


def test_a_blinding_is_undone_after_any_secret_and_hides_what_it_blinds() -> None:
    points = hash_to_curve([b"a", b"b"])
    for _ in range(20):
        secret, (r, undo) = random_scalar(), blinding()
        blinded = multiply(points, r)
        assert (multiply(multiply(blinded, secret), undo) == multiply(points, secret)).all()
        assert (blinded != points).any(axis=1).all()
        for scalar in (r, undo):  # as X25519 takes them, or it would multiply by another number
            n = int.from_bytes(scalar._bytes, "little")
            assert n % 8 == 0 and 2**254 <= n < 2**255


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8))
def test_two_secrets_commute_and_only_equal_ids_meet(ids: list[bytes]) -> None:
    a, b = random_scalar(), random_scalar()
    ab = multiply(multiply(hash_to_curve(ids), a), b)
    ba = multiply(multiply(hash_to_curve(ids), b), a)
    assert (ab == ba).all()
    assert len({p.tobytes() for p in ab}) == len(set(ids))


def test_every_hashed_id_is_a_point_of_the_curve_before_and_after_multiplication() -> None:
    points = hash_to_curve([f"id-{i}".encode() for i in range(300)], threads=2)
    for vector in (points, multiply(points, random_scalar(), threads=2)):
        assert all(on_curve(int.from_bytes(row.tobytes(), "little")) for row in vector)
        assert check(vector, threads=2) is vector
    assert len({row.tobytes() for row in points}) == 300


def test_hashing_takes_the_first_digest_on_the_curve_and_skips_about_half() -> None:
    tries = []
    for i in range(200):
        u = int.from_bytes(hash_to_curve([b"%d" % i])[0].tobytes(), "little")
        candidates = (curve._candidate(curve._prefix(b""), b"%d" % i, counter) for counter in range(256))
        tries.append(next(t for t, candidate in enumerate(candidates) if candidate == u))
    assert tries.count(0) in range(65, 136)
    assert max(tries) >= 2


def test_ids_hash_apart_in_different_domains() -> None:
    points = [hash_to_curve([b"1"], domain).tobytes() for domain in (b"", b"run 1", b"run 2")]
    assert len(set(points)) == 3
    assert hash_to_curve([b"1"], b"run 1").tobytes() == points[1]


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    ids, scalar = [b"%d" % i for i in range(100)], random_scalar()
    points = hash_to_curve(ids)
    assert (hash_to_curve(ids, threads=2) == points).all()
    assert (multiply(points, scalar, threads=2) == multiply(points, scalar)).all()


small_order = sorted(curve._SMALL_ORDER)


@pytest.mark.parametrize("u", [*small_order, P - 1, P, P + 1, 2**255 - 1, 2**256 - 1, 2, 5])
def test_points_off_the_curve_or_of_small_order_or_not_canonical_are_refused(u: int) -> None:
    if u < P and u not in small_order:
        assert not on_curve(u)
    good = hash_to_curve([b"x", b"y", b"z"])
    with pytest.raises(CryptoError, match="not on Curve25519"):
        check(np.concatenate([good, rows(u), good]))


@pytest.mark.parametrize("u", [*small_order, P, P + 1])
def test_a_multiplication_never_gives_zero(u: int) -> None:
    with pytest.raises(CryptoError, match="small order"):
        multiply(np.concatenate([hash_to_curve([b"x"]), rows(u)]), random_scalar())


def test_the_list_of_small_orders_is_complete() -> None:
    # 8·Q = 0 on the curve: u of order 8 are the roots of the doubling of order 4, which has u = 1 (or -1, on the twist)
    def double(u: int) -> int | None:
        denominator = 4 * u * (u * u + 486662 * u + 1) % P
        return None if denominator == 0 else (u * u - 1) ** 2 * pow(denominator, -1, P) % P

    eighth = [u for u in small_order if u > 1]
    assert double(0) is None
    assert double(1) == 0
    assert len(eighth) == 2
    assert [double(u) for u in eighth] == [1, 1]
    assert all(on_curve(u) for u in small_order)


@pytest.mark.parametrize("shape", [(32,), (2, 31), (1, 2, 32)])
def test_points_of_the_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(CryptoError, match="rows of 32 bytes"):
        check(np.zeros(shape, np.uint8))
    with pytest.raises(CryptoError, match="rows of 32 bytes"):
        check(np.zeros((2, 32), np.int64))
    with pytest.raises(CryptoError, match="rows of 32 bytes"):
        multiply(np.zeros(shape, np.uint8), random_scalar())


@pytest.mark.skipif("ifma" not in lanes.available(), reason="no compiled kernel, or no AVX-512 IFMA")
def test_both_kernels_agree_on_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = [0, 1, 2, 9, P - 2, P - 1, P, P + 1, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1, *small_order]
    numbers = rows(*edges, *range(3, 40), *[pow(5, i, 2**256) for i in range(40, 160)])
    scalar, ids = random_scalar(), [b"%d" % i for i in range(100)]
    found = []
    for chosen in ("gmpy2", "ifma"):
        monkeypatch.setenv("FEDNB_KERNEL", chosen)
        assert backend.kernel() == chosen
        products, checks = [], []
        for row in numbers:
            for do, answers in ((lambda row: multiply(row, scalar), products), (check, checks)):
                try:
                    answers.append(do(row.reshape(1, 32)).tobytes())
                except CryptoError as error:
                    answers.append(str(error))
        found.append((products, checks, hash_to_curve(ids, b"run").tobytes()))
    assert found[0] == found[1]
    assert [bool(flag) for flag in lanes.on_curve(numbers)] == [
        on_curve((int.from_bytes(row.tobytes(), "little") & (2**255 - 1)) % P) for row in numbers
    ]


def test_no_ids_are_no_points() -> None:
    assert hash_to_curve([]).shape == multiply(check(hash_to_curve([])), random_scalar()).shape == (0, 32)


def test_a_scalar_shows_nothing_of_itself() -> None:
    scalar = random_scalar()
    assert repr(scalar) == "<Scalar>"
    assert random_scalar()._bytes != scalar._bytes
