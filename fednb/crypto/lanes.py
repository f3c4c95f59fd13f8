"""Residues modulo a square, and points, eight at a time: the compiled way of computing what `backend` and `curve` do.

The modulus is N² with N = n for ciphertexts, N = p or q for the key holder. A residue is kept as a pair of numbers
(`native/squares.h` says which) in limbs of 52 bits: a vector is uint64 [n, 2·limbs]. Of remainders the upper half is
nothing, and is left away: [n, limbs]. A single reduction makes one of a residue x, that is (r, 0)·R²·(1 + N)**z with R
the Montgomery radix. The extension module is optional: `available` says which kinds of instructions it can use on this
processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

from fednb.crypto.inverses import inverses

try:
    from fednb.crypto import _lanes
except ImportError:  # built without a compiler
    _lanes = None  # type: ignore[assignment]

Limbs = npt.NDArray[np.uint64]  # [n, 2·limbs]
Residues = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.integer[Any]]

VERSION = 5  # of the compiled module; an older one can be left behind by an update of the sources alone
KINDS = ("ifma", "avx2")  # AVX-512 IFMA and AVX2, the faster one first
LANES = 8
LIMB_BITS = 52
MAX_LIMBS = 160
HEADROOM = 8  # bits above N that lazily reduced halves need
SECRET_WINDOW = 5
EMPTY = np.uint64((1 << 64) - 1)
_LINE = 64


def available() -> tuple[str, ...]:
    """Of KINDS, those that this processor has, if the module was built from these sources."""
    return tuple(_lanes.available()) if built() and not stale() else ()


def built() -> bool:
    """Whether the module was built."""
    return _lanes is not None


def stale() -> bool:
    """Whether the module that was built belongs to other sources."""
    return built() and getattr(_lanes, "version", lambda: 0)() != VERSION


def fits(modulus: int, width: int) -> bool:
    """Whether a `LaneRing` can be had for this modulus: the square of an odd number that is not too long."""
    root = gmpy2.isqrt(modulus)
    limbs = _limbs(root)
    return bool(root * root == modulus and root & 1 and root > HEADROOM and limbs <= MAX_LIMBS and width <= 13 * limbs)


def _limbs(root: Any) -> int:
    return 4 * -(-(int(root).bit_length() + HEADROOM) // (4 * LIMB_BITS))


class LaneRing:
    """The integers modulo a square, by vector instructions. A `backend.Ring`, with the results of every other one."""

    lanes = LANES
    digit_bits = LIMB_BITS // 2

    def __init__(self, modulus: int, width: int, kind: str) -> None:
        self.modulus, self.width = int(modulus), width
        self._modulus = mpz(modulus)
        root = gmpy2.isqrt(self._modulus)
        limbs = _limbs(root)
        radix = mpz(1) << LIMB_BITS * limbs
        spare = [_split((1 - part) % root, limbs) for part in (radix, radix // 2)]
        inverse = -gmpy2.invert(root, 1 << LIMB_BITS) % (1 << LIMB_BITS)
        powers = [radix**k % self._modulus for k in (1, 2, 3)]
        pairs = [_split(half % root, limbs) for power in powers for half in (power, power // root * radix)]
        head = np.array([KINDS.index(kind), limbs, int(inverse)], dtype=np.uint64)
        self._root, self._limbs, self._words = root, limbs, 2 * limbs
        self.factor, self.digits = int(powers[1]), 2 * limbs
        self._context = np.concatenate([head, _split(root, limbs), *spare, *pairs]).tobytes()
        self._one = np.concatenate(pairs[:2])

    def load(self, residues: Residues) -> Limbs:
        out = self._empty(len(residues))
        _lanes.load(self._context, np.ascontiguousarray(residues), self.width, out)
        return out

    def store(self, vector: Limbs) -> Residues:
        out = np.empty((len(vector), self.width), dtype=np.uint8)
        _lanes.store(self._context, np.ascontiguousarray(vector), self.width, out)
        return out

    def ones(self, n: int) -> Limbs:
        out = self._empty(n)
        out[:] = self._one
        return out

    def join(self, vectors: Sequence[Limbs]) -> Limbs:
        if len(vectors) == 1:
            return vectors[0]
        out = self._empty(sum(len(vector) for vector in vectors))
        np.concatenate(vectors, out=out)
        return out

    def take(self, a: Limbs, index: Indices) -> Limbs:
        out = self._empty(len(index))
        np.take(a, index, axis=0, out=out)
        return out

    def weave(self, vectors: Sequence[Limbs]) -> Limbs:
        if len(vectors) == 1:
            return vectors[0]
        out = self._empty(sum(len(vector) for vector in vectors))
        np.stack(vectors, axis=1, out=out.reshape(-1, len(vectors), self._words))
        return out

    def multiply(self, a: Limbs, b: Limbs) -> Limbs:
        out = self._empty(len(a))
        _lanes.multiply(self._context, np.ascontiguousarray(a), np.ascontiguousarray(b), out)
        return out

    def multiply_onto(self, a: Limbs, b: Limbs) -> Limbs:
        _lanes.multiply(self._context, a, np.ascontiguousarray(b), a)
        return a

    def multiply_taken(self, a: Limbs, table: Limbs, index: Indices) -> Limbs:
        return self._multiply_taken(a, table, index, self._empty(len(a)))

    def multiply_into(self, a: Limbs, table: Limbs, index: Indices) -> Limbs:
        return self._multiply_taken(a, table, index, a)  # large vectors, made anew each time, would fragment memory

    def _multiply_taken(self, a: Limbs, table: Limbs, index: Indices, out: Limbs) -> Limbs:
        places = np.ascontiguousarray(index, dtype=np.int64)
        _lanes.multiply_taken(self._context, np.ascontiguousarray(a), np.ascontiguousarray(table), places, out)
        return out

    def buckets(self, columns: int, size: int) -> LaneBuckets:
        return LaneBuckets(self, columns, size)

    def fill(self, tables: Limbs, size: int, values: Limbs, cells: Indices, share: int, shares: int) -> None:
        """As `buckets` in native/lanes.h."""
        halves = values.shape[1] == self._limbs
        chosen = np.ascontiguousarray(cells, dtype=np.int32)
        _lanes.buckets(self._context, np.ascontiguousarray(values), halves, chosen, size, tables, share, shares)

    def split(self, residues: Residues) -> tuple[Limbs, npt.NDArray[np.float64]]:
        # x + m·N = r·R, so that x = r·R·(1 + N)**z for z = -m/(r·R)
        out, more = self.vacant(len(residues)), self.vacant(len(residues))
        _lanes.remainders(self._context, np.ascontiguousarray(residues), self.width, out, more)
        z = self._multiply_halves(more, inverses(out, self._multiply_halves, self._inverse_half, np.concatenate))
        digits = np.empty((len(z), self._limbs, 2))
        digits[:, :, 0], digits[:, :, 1] = z & np.uint64((1 << self.digit_bits) - 1), z >> np.uint64(self.digit_bits)
        return out, -digits.reshape(len(z), self._words)

    def vacant(self, n: int) -> Limbs:
        return aligned(n, self._limbs)

    def _multiply_halves(self, a: Limbs, b: Limbs) -> Limbs:
        out = self.vacant(len(a))
        _lanes.multiply_halves(self._context, np.ascontiguousarray(a), np.ascontiguousarray(b), out)
        return out

    def _inverse_half(self, a: Limbs) -> Limbs:
        number = sum(mpz(int(limb)) << LIMB_BITS * j for j, limb in enumerate(a[0]))
        return _split(gmpy2.powmod(number, -1, self._root), self._limbs)[None, :]

    def combine(self, values: Limbs) -> Limbs:
        out = self._empty(1 << len(values))
        _lanes.combine(self._context, np.ascontiguousarray(values), out)
        return out

    def square(self, a: Limbs, times: int) -> Limbs:
        out = self._empty(len(a))
        _lanes.square(self._context, np.ascontiguousarray(a), times, out)
        return out

    def power(self, a: Limbs, exponents: Sequence[int]) -> Limbs:
        a = np.ascontiguousarray(a)
        negative = [i for i, exponent in enumerate(exponents) if exponent < 0]
        if negative:
            a = a.copy()
            a[negative] = self._inverses(a[negative])
        sizes = [abs(exponent) for exponent in exponents]
        bits = max((size.bit_length() for size in sizes), default=0)
        window = min(range(1, 7), key=lambda w: (1 << w) + -(-bits // w))
        out = self._empty(len(a))
        _lanes.power(self._context, a, _digits(sizes, bits, window), window, out)
        return out

    def _inverses(self, a: Limbs) -> Limbs:
        raw = self.store(a).tobytes()
        values = [mpz.from_bytes(raw[i : i + self.width], "big") for i in range(0, len(raw), self.width)]
        inverses = [gmpy2.powmod(value, -1, self._modulus) for value in values]
        inverted = b"".join([value.to_bytes(self.width, "big") for value in inverses])
        return self.load(np.frombuffer(inverted, dtype=np.uint8).reshape(-1, self.width))

    def power_secret(self, a: Limbs, exponent: int) -> Limbs:
        out = self._empty(len(a))
        digits = _digits([exponent], exponent.bit_length(), SECRET_WINDOW)
        _lanes.power_secret(self._context, np.ascontiguousarray(a), digits, SECRET_WINDOW, out)
        return out

    def _empty(self, n: int) -> Limbs:
        return aligned(n, self._words)


class LaneBuckets:
    """Tables of `size` rows, one after the other; a row whose first word is EMPTY holds nothing yet."""

    def __init__(self, ring: LaneRing, columns: int, size: int) -> None:
        self._ring, self._size = ring, size
        self._rows = ring._empty(columns * size)
        self._rows[:, 0] = EMPTY

    def add(self, values: Limbs, cells: Indices, share: int = 0, shares: int = 1) -> None:
        self._ring.fill(self._rows, self._size, values, cells, share, shares)

    def tables(self) -> list[Limbs]:
        empty = self._rows[:, 0] == EMPTY
        self._rows[empty] = self._ring.ones(1)
        return [self._rows[start : start + self._size] for start in range(0, len(self._rows), self._size)]


def aligned(n: int, words: int) -> Limbs:
    """Rows that start where cache lines start, if a row is a whole number of them."""
    room = np.empty(n * words + _LINE // 8, dtype=np.uint64)
    skip = -room.__array_interface__["data"][0] % _LINE // 8
    return room[skip : skip + n * words].reshape(n, words)


def multiply_points(points: Residues, scalar: bytes) -> Residues:
    """X25519 of each point, [n, 32], little-endian; zero where the point is of small order."""
    out = np.empty((len(points), 32), dtype=np.uint8)
    _lanes.multiply_points(np.ascontiguousarray(points), scalar, out)
    return out


def on_curve(points: Residues) -> npt.NDArray[np.bool_]:
    """Whether each u, [n, 32] little-endian without its highest bit, is that of a point of Curve25519."""
    out = np.empty(len(points), dtype=np.uint8)
    _lanes.on_curve(np.ascontiguousarray(points), out)
    return out.astype(np.bool_)


def _split(number: Any, limbs: int) -> Limbs:
    return np.array([int(number >> LIMB_BITS * j & ((1 << LIMB_BITS) - 1)) for j in range(limbs)], dtype=np.uint64)


def _digits(numbers: Sequence[int], bits: int, window: int) -> Residues:
    """Digits of `window` bits, highest first, [n, places]."""
    places = -(-bits // window)
    room = -(-places * window // 8)
    raw = b"".join([int(number).to_bytes(room, "little") for number in numbers])
    grid = np.frombuffer(raw, dtype=np.uint8).reshape(len(numbers), room)
    single = np.unpackbits(grid, axis=1, bitorder="little")[:, : places * window].reshape(len(numbers), places, window)
    digits = (single << np.arange(window, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
    return np.ascontiguousarray(digits[:, ::-1])
