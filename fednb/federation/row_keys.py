"""A number for each row, made of its id, by which accounts know rows again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.protocols.ids import normalise


def keys_of(ids: Iterable[Any]) -> npt.NDArray[np.uint64]:
    """[n], the same for all spellings of an id. 64 bits, not secret and no protection: they stay with the ids."""
    from pandas.util import hash_array

    return np.asarray(hash_array(normalise(ids), categorize=False), dtype=np.uint64)
