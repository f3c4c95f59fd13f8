"""Sets of rows of which figures left, so that no two of them differ by a few rows only.

A count or a mean over 500 rows says nothing of one of them. Over the same rows but one it says everything of that one,
once both are known; and of three or more sets the same holds for what any of their sums and differences leave over.
So the sets so far cut the rows of a table into cells: two rows share a cell when each set has both of them or neither.
Every sum that follows from figures over sets is a sum over cells. A set is let through if afterwards no cell within
any set is smaller than `least` rows: then no combination of sets comes down to fewer.

Rows are known by a number made of their normalised ids, so a derived table, another spelling or a new row changes
nothing about the others. Kept in a folder, one file an account, written before the answer.
"""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fednb.errors import ConfigError
from fednb.wire.keys import write_whole

Keys = npt.NDArray[np.uint64]  # [n] a row's number
Cells = npt.NDArray[np.int64]  # [n]

OUTSIDE = 0  # the cell of rows that no set had yet


class SetLedger:
    """Cells by account; `folder=None` keeps them in memory (simulation). Safe from any thread."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._cells: dict[str, tuple[Keys, Cells]] = {}  # ascending keys, and the cell of each
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def take(self, account: str, keys: Keys, least: int, *, always: bool = False, sets: Cells | None = None) -> int:
        """Note a set, if it leaves no cell of fewer than `least` rows. Returns 0, or the size of the smallest one.

        always : note it whatever it leaves (a set that its owner, not an analyst, chose).
        sets : [n] of several sets without common rows, from 0: which one each row is in. All are noted, or none.
        """
        new, first = np.unique(np.asarray(keys, dtype=np.uint64), return_index=True)
        own = np.ones(len(new), dtype=np.int64) if sets is None else sets[first].astype(np.int64) + 1
        with self._lock:
            known, cells = self._load(account)
            every, before, inside = _together(known, cells, new, own)
            # of each cell: what each of these sets has of it, and the rest
            halves = before * (1 + int(own.max(initial=0))) + inside
            sizes = np.bincount(halves, minlength=1)
            sizes[OUTSIDE] = 0  # rows that no set has, these included, are told of by none
            smallest = int(sizes[sizes > 0].min(initial=len(every)))
            if smallest < least and not always:
                return smallest
            order = np.cumsum(sizes > 0)  # cells are numbered without gaps
            moved = np.where(sizes > 0, order, OUTSIDE)[halves]
            if len(every) != len(known) or not np.array_equal(moved, before):
                self._save(account, every, moved)
            return 0

    def _load(self, account: str) -> tuple[Keys, Cells]:
        if account in self._cells:
            return self._cells[account]
        nothing = np.empty(0, np.uint64), np.empty(0, np.int64)
        if self._folder is None:
            return nothing
        path = _file(self._folder, account)
        try:
            with open(path, "rb") as file:
                both = np.load(file, allow_pickle=False)
            if both.dtype != np.uint64 or both.ndim != 2 or len(both) != 2:
                raise ValueError
        except FileNotFoundError:
            return nothing
        except (ValueError, EOFError):
            # to begin at nothing would forget what left already
            raise ConfigError(f"{path} is damaged: restore it from a backup.") from None
        return both[0], both[1].astype(np.int64)

    def _save(self, account: str, keys: Keys, cells: Cells) -> None:
        if self._folder is not None:
            content = io.BytesIO()
            np.save(content, np.stack([keys, cells.astype(np.uint64)]), allow_pickle=False)
            write_whole(_file(self._folder, account), content.getvalue())
        self._cells[account] = keys, cells


def _together(known: Keys, cells: Cells, new: Keys, own: Cells) -> tuple[Keys, Cells, Cells]:
    """All rows, the cell of each before, and its number among the new sets (0: in none); all keys ascending."""
    if np.array_equal(known, new):
        return known, cells, own
    every = np.sort(np.concatenate([known, new]))
    every = every[np.append(True, every[1:] != every[:-1])] if len(every) else every
    before = np.full(len(every), OUTSIDE, dtype=np.int64)
    before[np.searchsorted(every, known)] = cells
    inside = np.zeros(len(every), dtype=np.int64)
    inside[np.searchsorted(every, new)] = own
    return every, before, inside


def _file(folder: Path, account: str) -> Path:
    return folder / f"{hashlib.sha256(account.encode()).hexdigest()[:32]}.npy"
