"""Real numbers as integers: x stands as round(x·2**fraction_bits), within a proven range."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fednb.errors import CryptoError

MAX_LIMIT_BITS = 63


def encode(x: npt.ArrayLike, fraction_bits: int, limit_bits: int) -> npt.NDArray[np.int64]:
    """round(x·2**fraction_bits), every |result| < 2**(limit_bits - 1).

    CryptoError, naming how many entries but never their values, for what is not finite or does not fit.
    """
    if not 1 <= limit_bits <= MAX_LIMIT_BITS:
        raise CryptoError(f"fixed-point numbers have 1 to {MAX_LIMIT_BITS} bits, not {limit_bits}")
    values = np.asarray(x, dtype=np.float64)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise CryptoError(f"{bad} of {values.size} numbers are not finite (NaN or infinite) and cannot be encrypted")
    with np.errstate(over="ignore"):
        scaled = np.rint(np.ldexp(values, fraction_bits))
    bad = int(np.count_nonzero(np.abs(scaled) >= 2.0 ** (limit_bits - 1)))
    if bad:
        raise CryptoError(
            f"{bad} of {values.size} numbers are outside ±2**{limit_bits - 1 - fraction_bits}, the range of "
            f"{limit_bits}-bit fixed point with {fraction_bits} fraction bits. Scale or winsorise them."
        )
    return scaled.astype(np.int64)


def decode(values: npt.NDArray[np.integer] | Iterable[int], fraction_bits: int) -> npt.NDArray[np.float64]:
    """values·2**-fraction_bits, the nearest float; Python integers may be of any size."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return np.ldexp(values.astype(np.float64), -fraction_bits)
    unit = 1 << abs(fraction_bits)
    return np.array([v / unit if fraction_bits >= 0 else float(v * unit) for v in values], dtype=np.float64)
