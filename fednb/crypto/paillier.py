"""Paillier's additively homomorphic encryption over arrays of ciphertexts.

    [[a]]·[[b]] = [[a + b]]        [[a]]·(1 + b·n) = [[a + b]]        [[a]]**b = [[a·b]]          modulo n²

A ciphertext is (1 + m·n)·h**x mod n²: h an n-th residue that the encrypting party chose for itself, x a random
exponent of half the key's length (Damgård, Jurik and Nielsen 2010, section 4.2; docs/crypto.md states the
assumption). A vector of them is one array of fixed-width bytes with one public scale.

A sum or product of ciphertexts tells whoever knows its inputs how it was made, without any key. So only `Fresh`
vectors, randomised since they were last computed on, can be sent; every operation gives a plain `CipherVector`.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Self

import gmpy2
import numpy as np
import numpy.typing as npt
from gmpy2 import mpz

from fednb.crypto.backend import Backend, FixedBase, Residues, choose, slices, spread, to_ints, to_residues
from fednb.errors import CryptoError

MIN_KEY_BITS = 2048
MAX_KEY_BITS = 8192  # a peer's key beyond this would only keep us busy
MAX_SCALE = 4096

Integers = Iterable[Any]  # Python ints, numpy integers or mpz


class CipherVector:
    """Ciphertexts under one key: `data` [n, width] big-endian bytes; the plaintexts are integers times 2**-scale."""

    __slots__ = ("_key", "data", "scale")

    def __init__(self, data: Residues, scale: int, key: PublicKey | str) -> None:
        self.data = data
        self.scale = scale
        self._key = key  # a received vector only claims a fingerprint, until `PublicKey.accept` has looked at it

    @property
    def key(self) -> PublicKey:
        if isinstance(self._key, str):
            raise CryptoError("these ciphertexts came from a peer: bind them with PublicKey.accept first")
        return self._key

    @property
    def fingerprint(self) -> str:
        return self._key if isinstance(self._key, str) else self._key.fingerprint

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]]) -> Self:
        return self._like(self.data[rows])

    def _like(self, data: Residues) -> Self:
        return type(self)(data, self.scale, self._key)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)}, scale 2**-{self.scale}, {self.nbytes} bytes>"


class Fresh(CipherVector):
    """Ciphertexts randomised since they were last computed on: the only ones that travel."""

    __slots__ = ()

    def to_wire(self) -> list[Any]:
        """The vector as [key fingerprint, scale, bytes]."""
        return [self.key.fingerprint, self.scale, self.data]

    @classmethod
    def from_wire(cls, parts: list[Any]) -> Self:
        """A peer's vector, to be bound with `PublicKey.accept` before anything else. ValueError when malformed."""
        if len(parts) != 3:
            raise ValueError("a ciphertext vector has three parts")
        fingerprint, scale, data = parts
        if not isinstance(fingerprint, str) or not isinstance(scale, int) or isinstance(scale, bool):
            raise ValueError("a ciphertext vector starts with a key's fingerprint and a scale")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
            raise ValueError("ciphertexts are a two-dimensional array of bytes")
        if abs(scale) > MAX_SCALE:
            raise ValueError(f"a scale is at most {MAX_SCALE}")
        return cls(data, scale, fingerprint)


class PublicKey:
    """A Paillier public key, and with it all that can be done to ciphertexts."""

    def __init__(self, n: int, *, insecure_short_key: bool = False) -> None:
        modulus = mpz(n)
        bits = modulus.bit_length()
        if bits < MIN_KEY_BITS and not insecure_short_key:
            raise CryptoError(f"a Paillier key of {bits} bits is too short: at least {MIN_KEY_BITS} bits are needed")
        if bits > MAX_KEY_BITS or bits < 64 or bits % 8:
            raise CryptoError(f"a Paillier key of {bits} bits cannot be used: a multiple of 8 up to {MAX_KEY_BITS}")
        if modulus.is_even() or modulus.is_power() or modulus.is_prime():
            raise CryptoError("this number cannot be a Paillier key: it is not a product of two large primes")
        self.n = int(modulus)
        self.bits: int = bits
        self.width = bits // 4  # bytes of a ciphertext
        self.fingerprint = hashlib.sha256(b"paillier" + self.to_bytes()).hexdigest()[:32]
        self._n = modulus
        self._square = modulus * modulus
        self._randomness = _Randomness(self._n, self.width)

    def to_bytes(self) -> bytes:
        return self.n.to_bytes(self.bits // 8, "big")

    @classmethod
    def from_bytes(cls, data: bytes, *, insecure_short_key: bool = False) -> Self:
        """A peer's key. CryptoError when it is too short or cannot be one."""
        if len(data) > MAX_KEY_BITS // 8:
            raise CryptoError(f"a Paillier key of {8 * len(data)} bits is too long: at most {MAX_KEY_BITS} bits")
        return cls(int.from_bytes(data, "big"), insecure_short_key=insecure_short_key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.n == self.n

    def __hash__(self) -> int:
        return hash(self.n)

    def __repr__(self) -> str:
        return f"<PublicKey {self.bits} bits {self.fingerprint[:8]}>"

    def signed(self, plaintext: int) -> int:
        """The integer in (-n/2, n/2) that `plaintext`, in [0, n), stands for."""
        return plaintext - self.n if plaintext > self.n // 2 else plaintext

    def encrypt(self, values: Integers, scale: int = 0, threads: int = 1) -> Fresh:
        """`values` are integers in (-n, n), already scaled by 2**scale; negative ones wrap around n."""
        ones = self._plain(values)
        noise = self._randomness.draw(len(ones), threads)
        return Fresh(self._multiply(ones, noise, threads), scale, self)

    def refresh(self, c: CipherVector, threads: int = 1) -> Fresh:
        """The same plaintexts under new randomness."""
        self._mine(c)
        noise = self._randomness.draw(len(c), threads)
        return Fresh(self._multiply(c.data, noise, threads), c.scale, self)

    def accept(self, c: CipherVector, *, count: int | None = None, scale: int | None = None) -> CipherVector:
        """A peer's vector, bound to this key: refused when it is of another key, length or scale, or no ciphertexts."""
        if c.fingerprint != self.fingerprint:
            raise CryptoError(f"these ciphertexts are of the key {c.fingerprint[:8]}, not of {self.fingerprint[:8]}")
        if c.data.ndim != 2 or c.data.shape[1] != self.width:
            raise CryptoError(f"ciphertexts of {self.bits} bits have {self.width} bytes, these have {c.data.shape[-1]}")
        if count is not None and len(c) != count:
            raise CryptoError(f"{count} ciphertexts were expected and {len(c)} came")
        if scale is not None and c.scale != scale:
            raise CryptoError(f"ciphertexts of scale 2**-{scale} were expected and 2**-{c.scale} came")
        product = mpz(1)
        for value in to_ints(c.data):
            if value >= self._square:
                raise CryptoError("a ciphertext is out of range: it is not below n²")
            product = product * value % self._n
        if gmpy2.gcd(product, self._n) != 1:
            raise CryptoError("a ciphertext is not coprime to n: it is zero or gives a factor of the key away")
        return CipherVector(c.data, c.scale, self)

    def add(self, a: CipherVector, b: CipherVector, threads: int = 1) -> CipherVector:
        """[[a + b]]"""
        self._mine(a)
        self._mine(b)
        self._same_length(len(a), len(b))
        if a.scale != b.scale:
            raise CryptoError(f"only ciphertexts of one scale can be added, not 2**-{a.scale} and 2**-{b.scale}")
        return CipherVector(self._multiply(a.data, b.data, threads), a.scale, self)

    def add_plain(self, a: CipherVector, values: Integers, threads: int = 1) -> CipherVector:
        """[[a + values]], `values` integers in (-n, n) at the scale of `a`."""
        self._mine(a)
        ones = self._plain(values)
        self._same_length(len(a), len(ones))
        return CipherVector(self._multiply(a.data, ones, threads), a.scale, self)

    def multiply_plain(self, a: CipherVector, values: Integers, scale: int = 0, threads: int = 1) -> CipherVector:
        """[[a·values]], `values` integers in (-n, n) already scaled by 2**scale. The scales add up."""
        self._mine(a)
        factors = [self._in_range(value) for value in values]
        self._same_length(len(a), len(factors))
        square = self._square

        def part(rows: slice) -> Residues:
            # powmod with a negative exponent inverts, which is far cheaper than an exponent of the size of n
            powers = [gmpy2.powmod(c, x, square) for c, x in zip(to_ints(a.data[rows]), factors[rows], strict=True)]
            return to_residues(powers, self.width)

        data = np.concatenate(spread(part, slices(len(a), threads, least=1), threads))
        return CipherVector(data, a.scale + scale, self)

    def concatenate(self, vectors: Sequence[CipherVector]) -> CipherVector:
        """The vectors, which must have one scale, end to end."""
        for c in vectors:
            self._mine(c)
        if len({c.scale for c in vectors}) != 1:
            raise CryptoError("only ciphertexts of one scale make a vector")
        return CipherVector(np.concatenate([c.data for c in vectors]), vectors[0].scale, self)

    def _mine(self, c: CipherVector) -> None:
        if c.key is not self and c.key != self:
            raise CryptoError(f"these ciphertexts are of {c.key!r}, not of {self!r}")

    @staticmethod
    def _same_length(a: int, b: int) -> None:
        if a != b:
            raise CryptoError(f"vectors of {a} and of {b} entries do not go together")

    def _in_range(self, value: Any) -> Any:
        number = mpz(int(value))
        if abs(number) >= self._n:
            raise CryptoError(f"a plaintext does not fit a key of {self.bits} bits")
        return number

    def _plain(self, values: Integers) -> Residues:
        n = self._n
        return to_residues([1 + self._in_range(value) % n * n for value in values], self.width)

    def _multiply(self, a: Residues, b: Residues, threads: int) -> Residues:
        return _arithmetic().multiply(a, b, self._square, threads)


class PrivateKey:
    """The secret primes. They appear in no repr, message or exception."""

    def __init__(self, p: int, q: int, *, insecure_short_key: bool = False) -> None:
        self._p, self._q = p, q = mpz(min(p, q)), mpz(max(p, q))
        if p == q or not (gmpy2.is_prime(p) and gmpy2.is_prime(q)):
            raise CryptoError("a Paillier key is made of two different primes")
        n = p * q
        if gmpy2.gcd(n, (p - 1) * (q - 1)) != 1:
            raise CryptoError("these primes make no Paillier key: they must be of the same length")
        self.public = PublicKey(int(n), insecure_short_key=insecure_short_key)
        self._p2, self._q2 = p * p, q * q
        # L((1+n)**(p-1) mod p²) = -q mod p
        self._hp, self._hq = gmpy2.invert(-q, p), gmpy2.invert(-p, q)
        self._p_inverse = gmpy2.invert(p, q)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.bits} bits {self.public.fingerprint[:8]}>"

    def __reduce__(self) -> Any:
        raise TypeError("a private key is not pickled")

    def decrypt(self, c: CipherVector, threads: int = 1) -> list[int]:
        """The plaintexts, in [0, n); `public.signed` gives the integers they stand for."""
        self.public._mine(c)
        p, q = self._p, self._q

        def part(rows: slice) -> list[int]:
            out = []
            for value in to_ints(c.data[rows]):
                a = (gmpy2.powmod(value % self._p2, p - 1, self._p2) - 1) // p * self._hp % p
                b = (gmpy2.powmod(value % self._q2, q - 1, self._q2) - 1) // q * self._hq % q
                out.append(int(a + (b - a) * self._p_inverse % q * p))  # Garner
            return out

        return [m for chunk in spread(part, slices(len(c), threads, least=1), threads) for m in chunk]

    def encrypt(self, values: Integers, scale: int = 0, threads: int = 1) -> Fresh:
        """As `PublicKey.encrypt`, in half the time."""
        return self.public.encrypt(values, scale, threads)


def generate(bits: int = 2048, *, insecure_short_key: bool = False) -> PrivateKey:
    """A new key pair. Fewer than 2048 bits are refused unless `insecure_short_key`, for tests."""
    if bits < MIN_KEY_BITS and not insecure_short_key:
        raise CryptoError(f"a Paillier key of {bits} bits is too short: at least {MIN_KEY_BITS} bits are needed")
    if bits % 16:
        raise CryptoError("the length of a Paillier key is a multiple of 16 bits")
    while True:
        p, q = _prime(bits // 2), _prime(bits // 2)
        # far apart, or Fermat's method factors n; no common factor but 2, so that squares generate all of their group
        if abs(p - q).bit_length() > bits // 2 - 32 and gmpy2.gcd(p - 1, q - 1) == 2:
            return PrivateKey(int(p), int(q), insecure_short_key=insecure_short_key)


def _prime(bits: int) -> Any:
    """A random prime, 3 modulo 4, with its two highest bits set (so that a product of two has exactly 2·bits)."""
    while True:
        candidate = mpz(secrets.randbits(bits)) | (mpz(3) << (bits - 2)) | 3
        if gmpy2.is_prime(candidate, 40):
            return candidate


class _Randomness:
    """Random n-th residues h**x modulo n², from one party's own base h and a table of its powers."""

    def __init__(self, n: Any, width: int) -> None:
        self._n, self._width = n, width
        self._exponent_bytes = -(-n.bit_length() // 16)  # half the length of n
        self._lock = threading.Lock()
        self._base: Any = None
        self._table: FixedBase | None = None
        self._drawn = 0
        self._sized_for = 0

    def draw(self, count: int, threads: int) -> Residues:
        """`count` random n-th residues."""
        exponents = np.frombuffer(secrets.token_bytes(count * self._exponent_bytes), dtype=np.uint8)
        return self._powers(count, threads).powers(exponents.reshape(count, self._exponent_bytes), threads)

    def _powers(self, count: int, threads: int) -> FixedBase:
        with self._lock:
            self._drawn += count
            if self._table is None or self._drawn > 4 * self._sized_for:
                if self._base is None:
                    self._base = self._new_base()
                self._sized_for = max(64, self._drawn)
                self._table = _arithmetic().fixed_base(
                    self._base, self._n * self._n, self._width, 8 * self._exponent_bytes, self._sized_for, threads
                )
            return self._table

    def _new_base(self) -> Any:
        while True:
            x = mpz(secrets.randbelow(int(self._n)))
            if x > 1 and gmpy2.gcd(x, self._n) == 1:
                return gmpy2.powmod(-x * x % self._n, self._n, self._n * self._n)


def _arithmetic() -> Backend:
    return choose()
