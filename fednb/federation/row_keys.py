"""A number for each row, made of its id, by which accounts know rows again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.protocols.ids import normalise

AT_ONCE = 1 << 16  # a table's ids need not fit into memory; its keys do


def keys_of(ids: Iterable[Any]) -> npt.NDArray[np.uint64]:
    """[n], the same for all spellings of an id. 64 bits, not secret and no protection: they stay with the ids."""
    from pandas.util import hash_array

    parts, rest = [np.empty(0, dtype=np.uint64)], iter(ids)
    while some := list(itertools.islice(rest, AT_ONCE)):
        parts.append(np.asarray(hash_array(normalise(some), categorize=False), dtype=np.uint64))
    return np.concatenate(parts)
