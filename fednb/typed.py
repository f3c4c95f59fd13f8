"""Types that several threads decode into.

msgspec learns what a struct is made of at its first use. A second thread that decodes it meanwhile finds the half of it
and reads through a null pointer, which ends the process (seen with msgspec 0.22). So a type is learnt under a lock,
before anybody decodes it.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

T = TypeVar("T")

_lock = threading.RLock()
_learnt: set[object] = set()


def known(kind: T) -> T:
    """The type itself, once msgspec knows it and all that it is made of."""
    if kind not in _learnt:
        with _lock:
            msgspec.msgpack.Decoder(kind)  # what it learns serves JSON and `convert` too
            _learnt.add(kind)
    return kind
