"""Points of Curve25519 for private set intersection: hashing onto the curve and multiplication by a secret.

Points are u-coordinates, 32 little-endian bytes. Multiplication is X25519, so secrets are clamped: a multiple of
the cofactor, under which every point of small order becomes zero.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz
from nacl.bindings import crypto_scalarmult

from fednb.crypto import lanes
from fednb.crypto.backend import kernel
from fednb.crypto.threads import chunks, slices, spread
from fednb.errors import CryptoError

Points = npt.NDArray[np.uint8]  # [n, 32]

_P = mpz(2) ** 255 - 19
_A = 486662
_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the large subgroup, a prime (RFC 7748, 4.1)
_REFUSED = "a point of small order was refused: its sender is broken or dishonest"


class Scalar:
    """A secret multiplier; shown nowhere."""

    __slots__ = ("_bytes",)

    def __init__(self, data: bytes) -> None:
        self._bytes = data

    def __repr__(self) -> str:
        return "<Scalar>"


def random_scalar() -> Scalar:
    """A new secret multiplier."""
    return Scalar(secrets.token_bytes(32))


def blinding() -> tuple[Scalar, Scalar]:
    """A new secret multiplier r, and the t that undoes it: t·(k·(r·P)) = k·P for every clamped k.

    A clamped number is a multiple of 8 from 2**254 to 2**255. Of the eight numbers below 8·order that are 1/r modulo
    the order of the curve's large subgroup one is a multiple of 8, and in half of all cases large enough; else r is
    drawn again. k·P lies in that subgroup, because k is a multiple of the cofactor.
    """
    while True:
        r = 8 * (secrets.randbits(251) + (1 << 251))
        inverse = int(gmpy2.invert(r, _ORDER))
        undone = inverse + (-inverse * pow(_ORDER, -1, 8)) % 8 * _ORDER
        if undone >= 1 << 254:
            return Scalar(r.to_bytes(32, "little")), Scalar(undone.to_bytes(32, "little"))


def hash_to_curve(ids: Sequence[bytes], domain: bytes = b"", threads: int = 1) -> Points:
    """A point for each id, [n, 32]; nobody knows how the points of two ids relate.

    Try and increment: SHA-512(counter ‖ id) until it is the u of a point. A hash taken as u without this test lies on
    the twist for half of the ids and stays there under multiplication, which would tell one bit about each id.
    """
    prefix = _prefix(domain)
    if kernel() == "ifma":
        found = spread(lambda which: _hash_together(prefix, ids[which]), chunks(len(ids), threads), threads)
        return np.concatenate(found)

    def part(which: slice) -> bytes:
        out = []
        for identifier in ids[which]:
            u = -1
            counter = 0
            while not (0 <= u < _P and _on_curve(u)):  # half of all numbers are: 256 tries fail with chance 2**-256
                u = _candidate(prefix, identifier, counter)
                counter += 1
            out.append(u.to_bytes(32, "little"))
        return b"".join(out)

    return _points(b"".join(spread(part, slices(len(ids), threads), threads)))


def multiply(points: Points, scalar: Scalar, threads: int = 1) -> Points:
    """scalar·point for each, [n, 32]. CryptoError for a point of small order, which would give zero."""
    _check_shape(points)
    if kernel() == "ifma":
        secret = scalar._bytes
        parts = slices(len(points), threads)
        out = np.concatenate(spread(lambda which: lanes.multiply_points(points[which], secret), parts, threads))
        if not out.any(axis=1).all():
            raise CryptoError(_REFUSED)
        return out
    raw, secret = points.tobytes(), scalar._bytes

    def part(which: slice) -> bytes:
        return b"".join([crypto_scalarmult(secret, raw[32 * i : 32 * i + 32]) for i in range(len(points))[which]])

    try:
        return _points(b"".join(spread(part, slices(len(points), threads), threads)))
    except RuntimeError as error:  # libsodium refuses an output of zero
        raise CryptoError(_REFUSED) from error


def check(points: Points, threads: int = 1) -> Points:
    """A peer's points, after checking that each is canonical, on the curve and not of small order."""
    _check_shape(points)
    raw = points.tobytes()
    compiled = kernel() == "ifma"
    small_order = _points(b"".join([u.to_bytes(32, "little") for u in _SMALL_ORDER]))

    def part(which: slice) -> bool:
        if compiled:
            some = points[which]
            small = (some[:, None, :] == small_order).all(axis=2).any(axis=1)
            return bool((_below_p(some) & lanes.on_curve(some) & ~small).all())
        for i in range(len(points))[which]:
            u = mpz.from_bytes(raw[32 * i : 32 * i + 32], "little")
            if u >= _P or u in _SMALL_ORDER or not _on_curve(u):
                return False
        return True

    if not all(spread(part, slices(len(points), threads), threads)):
        raise CryptoError("a point is not on Curve25519, or of small order: its sender is broken or dishonest")
    return points


def _prefix(domain: bytes) -> Any:
    return hashlib.sha512(b"fednb hash to curve25519\0" + len(domain).to_bytes(8, "big") + domain)


def _digest(prefix: Any, identifier: bytes, counter: int) -> bytes:
    digest = prefix.copy()
    digest.update(counter.to_bytes(1, "big") + identifier)
    return bytes(digest.digest()[:32])


def _candidate(prefix: Any, identifier: bytes, counter: int) -> int:
    return int.from_bytes(_digest(prefix, identifier, counter), "little") & (2**255 - 1)


def _hash_together(prefix: Any, ids: Sequence[bytes]) -> Points:
    """As one by one, with the tests of all ids' candidates at once."""
    out = np.empty((len(ids), 32), dtype=np.uint8)
    left = np.arange(len(ids))
    counter = 0
    while len(left):
        candidates = _points(b"".join([_digest(prefix, ids[i], counter) for i in left.tolist()])).copy()
        candidates[:, 31] &= 127
        good = lanes.on_curve(candidates) & _below_p(candidates)
        out[left[good]] = candidates[good]
        left = left[~good]
        counter += 1
    return out


def _below_p(points: Points) -> npt.NDArray[np.bool_]:
    """Whether each number is below 2**255 - 19: the 19 from there on have ones everywhere above their lowest byte."""
    ones = (points[:, 1:31] == 255).all(axis=1) & (points[:, 0] >= 256 - 19)
    below: npt.NDArray[np.bool_] = (points[:, 31] < 127) | ((points[:, 31] == 127) & ~ones)
    return below


def _on_curve(u: int) -> bool:
    return int(gmpy2.legendre(u * (u * u + _A * u + 1), _P)) >= 0


def _check_shape(points: Points) -> None:
    if points.dtype != np.uint8 or points.ndim != 2 or points.shape[1] != 32:
        raise CryptoError("points of Curve25519 are rows of 32 bytes")


def _points(raw: bytes) -> Points:
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32)


# u of the points of order 1, 2, 4 and 8 on the curve; the twist has others
_SMALL_ORDER = frozenset(
    [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    ]
)
