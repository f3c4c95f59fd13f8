"""Where the heavy per-row work of a role runs: the one seam between a protocol and more than one machine.

Only a public key, ciphertexts and the role's own plaintexts go through it: work with a secret key stays where the key
is. Wherever the work runs, the numbers that come out are the same; so are the ciphertexts of products, to the last bit,
when rows fill whole ciphertexts.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fednb.crypto import backend, multiexp
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import MIN_KEY_BITS, CipherVector, Fresh, PublicKey
from fednb.crypto.threads import released, slices
from fednb.errors import CryptoError
from fednb.version import __version__

PART = 4096  # ciphertexts of one part at most: 2 MB at 2048 bits, a second's work or less
PARTS_EACH = 3  # parts for each worker, so that a slow one holds nobody up for long

Task = Callable[..., Any]
Map = Callable[[Task, Sequence[tuple[Any, ...]]], Sequence[Any]]  # a task, and the arguments of each call of it


class Executor(Protocol):
    """Encrypts, and multiplies encrypted vectors with plaintext columns."""

    def encrypt(self, key: PublicKey, values: Sequence[int], scale: int) -> Fresh:
        """As `PublicKey.encrypt`."""

    def inner_products(self, c: CipherVector, columns: multiexp.Integers, packing: Packing) -> CipherVector:
        """As `multiexp.inner_products`."""


class Threads:
    """On threads of this process."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def encrypt(self, key: PublicKey, values: Sequence[int], scale: int) -> Fresh:
        return key.encrypt(values, scale, self._threads)

    def inner_products(self, c: CipherVector, columns: multiexp.Integers, packing: Packing) -> CipherVector:
        return multiexp.inner_products(c, columns, packing, threads=self._threads)


class Workers:
    """In parts, on workers of the role's own organisation. `map` runs a task for each part and keeps their order.

    What comes back is checked like a peer's: a worker that fails is to be noticed, not trained on.
    """

    def __init__(self, map: Map, workers: Callable[[], int]) -> None:
        self._map = map
        self._workers = workers

    def encrypt(self, key: PublicKey, values: Sequence[int], scale: int) -> Fresh:
        values = [int(value) for value in values]
        if not values:
            return key.encrypt(values, scale)
        parts = self._parts(len(values))
        made = self._map(_encrypt, [(*_named(key), values[part]) for part in parts])
        checked = [_checked(key, data, part.stop - part.start) for data, part in zip(made, parts, strict=True)]
        return Fresh(np.concatenate(checked), scale, key)

    def inner_products(self, c: CipherVector, columns: multiexp.Integers, packing: Packing) -> CipherVector:
        multiexp.check_shapes(c, columns, packing)
        packing.check_columns(columns)  # before any of it travels
        narrow = next(kind for kind in (np.int16, np.int32, np.int64) if packing.right_bits <= np.iinfo(kind).bits)
        k = packing.slots
        calls = [
            (*_named(c.key), c.data[part], columns[k * part.start : k * part.stop].astype(narrow), packing)
            for part in self._parts(len(c))
        ]
        made = self._map(_inner_products, calls)
        sums = [CipherVector(_checked(c.key, data, columns.shape[1]), c.scale, c.key) for data in made]
        return functools.reduce(c.key.add, sums)  # [[Σ d·x]] over all rows is the sum over the parts

    def _parts(self, n: int) -> list[slice]:
        return slices(n, max(PARTS_EACH * max(self._workers(), 1), -(-n // PART)))


def cores() -> int:
    """Processors that this process may use: fewer than the machine has where it was given fewer, as in a container."""
    return len(os.sched_getaffinity(0))


def about() -> tuple[str, str]:
    """The version of fednb and the kernel of encrypted arithmetic, asked of each worker."""
    return __version__, backend.kernel()


def _named(key: PublicKey) -> tuple[bytes, bool]:
    return key.to_bytes(), key.bits < MIN_KEY_BITS


def _checked(key: PublicKey, data: Any, count: int) -> backend.Residues:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise CryptoError("a worker gave back something that is no vector of ciphertexts")
    try:
        return key.accept(CipherVector(data, 0, key), count=count).data
    except CryptoError as error:
        raise CryptoError(f"a worker gave back ciphertexts that cannot be used: {error}") from None


# ------------------------------------------------------------ on a worker


@functools.lru_cache(maxsize=8)  # a worker's own: a key's table of powers pays off over the parts of many vectors
def _key(n: bytes, short: bool) -> PublicKey:
    return PublicKey.from_bytes(n, insecure_short_key=short)


def _encrypt(n: bytes, short: bool, values: list[int]) -> backend.Residues:
    with released():  # a worker may have threads of its own
        return _key(n, short).encrypt(values).data


def _inner_products(
    n: bytes, short: bool, data: backend.Residues, columns: npt.NDArray[np.signedinteger[Any]], packing: Packing
) -> backend.Residues:
    with released():
        c = CipherVector(data, 0, _key(n, short))
        return multiexp.inner_products(c, columns.astype(np.int64), packing).data
