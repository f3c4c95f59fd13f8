"""Paillier's additively homomorphic encryption over arrays of ciphertexts.

    [[a]]·[[b]] = [[a + b]]        [[a]]·(1 + b·n) = [[a + b]]        [[a]]**b = [[a·b]]          modulo n²

A ciphertext is (1 + m·n)·(random n-th residue) mod n² (Paillier 1999, with the generator n + 1); `noise` says where
the residues come from. A vector of ciphertexts is one array of fixed-width bytes with one public scale.

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

from fednb.crypto.backend import Residues, Ring, ring, to_integers, to_residues
from fednb.crypto.noise import Noise, PublicNoise, SecretNoise, UniformNoise
from fednb.crypto.products import product
from fednb.crypto.threads import chunks, spread
from fednb.errors import CryptoError

MIN_KEY_BITS = 2048
MAX_KEY_BITS = 8192  # a peer's key beyond this would only keep us busy
MAX_SCALE = 4096

Integers = Iterable[Any]  # Python or numpy integers


class CipherVector:
    """Ciphertexts under one key: `data` [n, width] big-endian bytes; the plaintexts are integers times 2**-scale."""

    __slots__ = ("_key", "data", "scale")

    def __init__(self, data: Residues, scale: int, key: PublicKey | str) -> None:
        if abs(scale) > MAX_SCALE:
            raise CryptoError(f"a scale of 2**-{scale} is beyond any use: at most {MAX_SCALE} fraction bits")
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

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer[Any]]) -> Self:
        return type(self)(self.data[rows], self.scale, self._key)

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
        return cls(data, scale, fingerprint)


class PublicKey:
    """A Paillier public key, and with it all that can be done to ciphertexts. `threads` says on how many cores."""

    def __init__(self, n: int, *, insecure_short_key: bool = False) -> None:
        modulus = mpz(n)
        _check_length(modulus.bit_length(), insecure_short_key)
        if modulus.is_even() or modulus.is_power() or modulus.is_prime():
            raise CryptoError("this number cannot be a Paillier key: it is not a product of two large primes")
        self.n = int(n)
        self.bits: int = modulus.bit_length()
        self.width = self.bits // 4  # bytes of a ciphertext
        self.fingerprint = hashlib.sha256(b"paillier" + self.to_bytes()).hexdigest()[:32]
        self.ring: Ring = ring(self.n**2, self.width)
        self._n = modulus
        self._lock = threading.Lock()
        self._noise: Noise | None = None

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
        """`values` are integers in (-n, n), already scaled by 2**scale; negative ones stand at n below zero."""
        return self._blind(self._plain(values), scale, self._own_noise(), threads)

    def refresh(self, c: CipherVector, threads: int = 1) -> Fresh:
        """The same plaintexts under new randomness."""
        self._mine(c)
        return self._blind(c.data, c.scale, self._own_noise(), threads)

    def refresh_for_key_holder(self, c: CipherVector, threads: int = 1) -> Fresh:
        """As `refresh`, for a receiver that has the secret key and made what `c` was computed from."""
        self._mine(c)
        return self._blind(c.data, c.scale, UniformNoise(self.n, self.ring), threads)

    def accept(
        self, c: CipherVector, *, count: int | None = None, scale: int | None = None, threads: int = 1
    ) -> CipherVector:
        """A peer's vector, bound to this key. CryptoError for another key, length or scale, or what is no ciphertext.

        A ciphertext that is not coprime to n would be zero or give a factor of n away.
        """
        if c.fingerprint != self.fingerprint:
            raise CryptoError(f"these ciphertexts are of the key {c.fingerprint[:8]}, not of {self.fingerprint[:8]}")
        if c.data.ndim != 2 or c.data.shape[1] != self.width:
            raise CryptoError(f"ciphertexts of {self.bits} bits have {self.width} bytes, these have {c.data.shape[-1]}")
        if count is not None and len(c) != count:
            raise CryptoError(f"{count} ciphertexts were expected and {len(c)} came")
        if scale is not None and c.scale != scale:
            raise CryptoError(f"ciphertexts of scale 2**-{scale} were expected and 2**-{c.scale} came")

        # big-endian bytes of one length compare as the numbers do
        if bool(np.any(_strings(c.data) >= _strings(to_residues([self._n**2], self.width)))):
            raise CryptoError("a ciphertext is out of range: it is not below n²")

        def part(rows: slice) -> Residues:
            return self.ring.store(product(self.ring, self.ring.load(c.data[rows])))

        for [of_some] in map(to_integers, spread(part, chunks(len(c), threads), threads)):
            if gmpy2.gcd(of_some, self._n) != 1:  # one gcd for all of them
                raise CryptoError("a ciphertext is not coprime to n")
        return CipherVector(c.data, c.scale, self)

    def add(self, a: CipherVector, b: CipherVector, threads: int = 1) -> CipherVector:
        """[[a + b]]"""
        self._mine(a)
        self._mine(b)
        _same_length(len(a), len(b))
        if a.scale != b.scale:
            raise CryptoError(f"only ciphertexts of one scale can be added, not 2**-{a.scale} and 2**-{b.scale}")
        return CipherVector(self._multiply(a.data, b.data, threads), a.scale, self)

    def add_plain(self, a: CipherVector, values: Integers, threads: int = 1) -> CipherVector:
        """[[a + values]], `values` integers in (-n, n) at the scale of `a`."""
        self._mine(a)
        ones = self._plain(values)
        _same_length(len(a), len(ones))
        return CipherVector(self._multiply(a.data, ones, threads), a.scale, self)

    def multiply_plain(self, a: CipherVector, values: Integers, scale: int = 0, threads: int = 1) -> CipherVector:
        """[[a·values]], `values` integers in (-n, n) already scaled by 2**scale. The scales add up."""
        self._mine(a)
        factors = [self._in_range(value) for value in _listed(values)]
        _same_length(len(a), len(factors))

        def part(rows: slice) -> Residues:
            return self.ring.store(self.ring.power(self.ring.load(a.data[rows]), factors[rows]))

        data = np.concatenate(spread(part, chunks(len(a), threads), threads))
        return CipherVector(data, a.scale + scale, self)

    def concatenate(self, vectors: Sequence[CipherVector]) -> CipherVector:
        """The vectors, which must have one scale, end to end."""
        for c in vectors:
            self._mine(c)
        if len({c.scale for c in vectors}) != 1:
            raise CryptoError("only ciphertexts of one scale make a vector")
        return CipherVector(np.concatenate([c.data for c in vectors]), vectors[0].scale, self)

    def _own_noise(self) -> Noise:
        with self._lock:
            if self._noise is None:
                self._noise = PublicNoise(self.n, self.ring)
            return self._noise

    def _blind(self, data: Residues, scale: int, noise: Noise, threads: int) -> Fresh:
        return Fresh(self._multiply(data, noise.draw(len(data), threads), threads), scale, self)

    def _mine(self, c: CipherVector) -> None:
        if c.key is not self and c.key != self:
            raise CryptoError(f"these ciphertexts are of {c.key!r}, not of {self!r}")

    def _in_range(self, value: int) -> int:
        if abs(value) >= self.n:
            raise CryptoError(f"a plaintext does not fit a key of {self.bits} bits")
        return value

    def _plain(self, values: Integers) -> Residues:
        """1 + m·n: [[m]] with no randomness at all."""
        n = self._n
        return to_residues([1 + self._in_range(value) % n * n for value in _listed(values)], self.width)

    def _multiply(self, a: Residues, b: Residues, threads: int) -> Residues:
        ring = self.ring

        def part(rows: slice) -> Residues:
            return ring.store(ring.multiply(ring.load(a[rows]), ring.load(b[rows])))

        return np.concatenate(spread(part, chunks(len(a), threads), threads))


class PrivateKey:
    """The secret primes. They appear in no repr, message or exception."""

    def __init__(self, p: int, q: int, *, insecure_short_key: bool = False) -> None:
        if p == q or not (gmpy2.is_prime(p) and gmpy2.is_prime(q)):
            raise CryptoError("a Paillier key is made of two different primes")
        if gmpy2.gcd(p * q, (p - 1) * (q - 1)) != 1:
            raise CryptoError("these primes make no Paillier key: they must be of the same length")
        self.public = PublicKey(p * q, insecure_short_key=insecure_short_key)
        self._p, self._q = mpz(p), mpz(q)
        self._p_inverse = gmpy2.invert(self._p, self._q)
        self._halves = []
        for prime, other in ((self._p, self._q), (self._q, self._p)):
            square = prime * prime
            # (1 + n)**(prime - 1) = 1 - other·prime modulo the square
            modulus = ring(int(square), -(-square.bit_length() // 8))
            self._halves.append((prime, modulus, gmpy2.invert(-other, prime)))
        self._lock = threading.Lock()
        self._noise: Noise | None = None

    def __repr__(self) -> str:
        return f"<PrivateKey {self.public.bits} bits {self.public.fingerprint[:8]}>"

    def __reduce__(self) -> Any:
        raise TypeError("a private key is never pickled")

    def decrypt(self, c: CipherVector, threads: int = 1) -> list[int]:
        """The plaintexts, in [0, n); `public.signed` gives the integers they stand for."""
        self.public._mine(c)

        def part(rows: slice) -> list[int]:
            values, plain = to_integers(c.data[rows]), []
            for prime, modulus, factor in self._halves:  # Paillier 1999, section 7
                reduced = modulus.load(to_residues([value % modulus.modulus for value in values], modulus.width))
                powers = to_integers(modulus.store(modulus.power_secret(reduced, int(prime) - 1)))
                plain.append([(power - 1) // prime * factor % prime for power in powers])
            pairs = zip(*plain, strict=True)
            return [int(a + (b - a) * self._p_inverse % self._q * self._p) for a, b in pairs]  # Garner 1959

        return [m for chunk in spread(part, chunks(len(c), threads), threads) for m in chunk]

    def encrypt(self, values: Integers, scale: int = 0, threads: int = 1) -> Fresh:
        """As `PublicKey.encrypt`, faster, and under no other assumption than Paillier's own."""
        return self.public._blind(self.public._plain(values), scale, self._own_noise(), threads)

    def refresh(self, c: CipherVector, threads: int = 1) -> Fresh:
        """As `PublicKey.refresh`, faster."""
        self.public._mine(c)
        return self.public._blind(c.data, c.scale, self._own_noise(), threads)

    def _own_noise(self) -> Noise:
        with self._lock:
            if self._noise is None:
                self._noise = SecretNoise(int(self._p), int(self._q))
            return self._noise


def generate(bits: int = 2048, *, insecure_short_key: bool = False) -> PrivateKey:
    """A new key pair. Fewer than 2048 bits are refused unless `insecure_short_key`, for tests."""
    _check_length(bits, insecure_short_key)
    while True:
        p, q = _prime(bits // 2), _prime(bits // 2)
        # far apart, or Fermat's method factors n; no common factor but 2, so that -x² generates as much as it can
        if abs(p - q).bit_length() > bits // 2 - 32 and gmpy2.gcd(p - 1, q - 1) == 2:
            return PrivateKey(int(p), int(q), insecure_short_key=insecure_short_key)


def _prime(bits: int) -> Any:
    """A random prime, 3 modulo 4, with its two highest bits set (so that a product of two has exactly 2·bits)."""
    while True:
        candidate = mpz(secrets.randbits(bits)) | (mpz(3) << (bits - 2)) | 3
        if gmpy2.is_prime(candidate, 40):
            return candidate


def _check_length(bits: int, insecure_short_key: bool) -> None:
    if bits < MIN_KEY_BITS and not insecure_short_key:
        raise CryptoError(f"a Paillier key of {bits} bits is too short: at least {MIN_KEY_BITS} bits are needed")
    if not 128 <= bits <= MAX_KEY_BITS or bits % 16:
        raise CryptoError(f"a Paillier key of {bits} bits cannot be used: a multiple of 16 up to {MAX_KEY_BITS} bits")


def _same_length(a: int, b: int) -> None:
    if a != b:
        raise CryptoError(f"vectors of {a} and of {b} entries do not go together")


def _listed(values: Integers) -> list[int]:
    return values.tolist() if isinstance(values, np.ndarray) else [int(value) for value in values]


def _strings(data: Residues) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(data).view(f"S{data.shape[1]}").ravel()
