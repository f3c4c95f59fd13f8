"""One-time masks, uniform over the whole plaintext space, for what another member decrypts.

The member that decrypts sees a uniform number whatever the plaintext was. It gives back one window of it, and the
member that masked subtracts the same window of its mask: right up to one unit, which the slots below may borrow.
"""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, Fresh
from fednb.errors import CryptoError


class Mask:
    """What must be subtracted from the windows that come back. For one use."""

    def __init__(self, windows: npt.NDArray[np.uint64], packing: Packing) -> None:
        self._windows: npt.NDArray[np.uint64] | None = windows
        self._packing = packing

    def __repr__(self) -> str:
        return "<Mask>"

    def remove(self, windows: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The signed numbers behind `windows` [d], each within one unit of the truth."""
        if self._windows is None:
            raise CryptoError("a mask is removed once: its second use would tell differences")
        bits = self._packing.slot_bits
        if windows.dtype != np.uint64 or windows.shape != self._windows.shape:
            raise CryptoError(f"{len(self._windows)} windows of 64 bits were expected")
        if bits < 64 and bool(np.any(windows >> np.uint64(bits))):
            raise CryptoError(f"a window has more than {bits} bits")
        difference = windows - self._windows  # modulo 2**64
        self._windows = None
        high = np.uint64(64 - bits)
        return (difference << high).astype(np.int64) >> np.int64(64 - bits)  # sign extension

    def hand_over(self) -> npt.NDArray[np.uint64]:
        """The mask's own windows [d], for another member that is to get the numbers instead. As `remove`, once.

        Uniform bits to anybody who does not have the windows that come back.
        """
        if self._windows is None:
            raise CryptoError("a mask is removed once: its second use would tell differences")
        windows, self._windows = self._windows, None
        return windows


def mask(c: CipherVector, packing: Packing, threads: int = 1) -> tuple[Fresh, Mask]:
    """`c` plus uniform numbers, refreshed; and what takes them off the windows that come back."""
    key = c.key
    numbers = [secrets.randbelow(key.n) for _ in range(len(c))]
    masked = key.refresh(key.add_plain(c, numbers, threads), threads)
    return masked, Mask(packing.windows(numbers), packing)
