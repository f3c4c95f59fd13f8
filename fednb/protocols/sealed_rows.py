"""Values by id that a reader can open one id at a time, with the owner's help, and without telling the owner which.

    owner (k; rows of id x and value v)            reader (an id x)
      |── of every row, in no order:  tag, v + pad ──> |      tag ‖ pad = hash(x, k·H(x))
      | <───────────────────────────────── r·H(x) ──── |      r new each time: uniform, whatever x is
      |── k·r·H(x) ──────────────────────────────────> |      r undone: k·H(x), so the tag and the pad of this x

That is an oblivious pseudorandom function (Freedman, Ishai, Pinkas and Reingold 2005; Jarecki, Kiayias and Krawczyk
2014, 2HashDH) over the curve that alignments use. The owner learns how often it was asked. The reader learns the values
of the ids that it asks about, that others have no row, and how many rows there are; to try an id costs one answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fednb.crypto.curve import Points

Bytes = npt.NDArray[np.uint8]

TAG = 16  # bytes: among a million rows a stranger's id meets a tag with a chance of 2**-108


def seal(ids: Sequence[bytes], points: Points, values: Bytes) -> Bytes:
    """[n, TAG + w]: tags and sealed values, of normalised ids, their points k·H(id) [n, 32] and values [n, w]."""
    width = TAG + values.shape[1]
    expanded = b"".join([_expanded(id, bytes(point), width) for id, point in zip(ids, points, strict=True)])
    out = np.frombuffer(expanded, dtype=np.uint8).reshape(-1, width).copy()
    out[:, TAG:] ^= values
    return out


def in_no_order(rows: Bytes) -> Bytes:
    """The same rows by their tags, which look random: where a row stood tells nothing."""
    return rows[np.argsort(_leading(rows), kind="stable")]


class SealedRows:
    """The reader's end: everybody's sealed rows, to be looked up by tag."""

    def __init__(self, rows: Bytes) -> None:
        self._rows = in_no_order(rows)
        self._leading = _leading(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def open(self, id: bytes, point: bytes) -> bytes | None:
        """The value of an id whose point is k·H(id); None when the owner has no such row."""
        expanded = _expanded(id, point, self._rows.shape[1])
        leading = np.frombuffer(expanded[:8], dtype=">u8").astype(np.uint64)[0]
        first = int(np.searchsorted(self._leading, leading))
        while first < len(self._rows) and self._leading[first] == leading:
            row = self._rows[first].tobytes()
            if row[:TAG] == expanded[:TAG]:
                return bytes(a ^ b for a, b in zip(row[TAG:], expanded[TAG:], strict=True))
            first += 1
        return None


def _expanded(id: bytes, point: bytes, width: int) -> bytes:
    return hashlib.shake_256(b"fednb sealed row\0" + point + id).digest(width)  # a point has 32 bytes, always


def _leading(rows: Bytes) -> npt.NDArray[np.uint64]:
    return rows[:, :8].copy().view(">u8").ravel().astype(np.uint64)
