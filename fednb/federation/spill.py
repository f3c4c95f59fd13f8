"""Numbers that are too many for memory: in a file of the member's own, without a name, gone when it is closed.

The file is made in the member's folder, readable by its owner only, and unlinked at once, so that nothing is left of
it however the process ends.
"""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

Floats = npt.NDArray[np.float64]

BYTES = 8  # of a number


class FileMatrix:
    """[n, d] numbers, written column by column, read by columns or by neighbouring rows. For any thread."""

    def __init__(self, folder: Path, shape: tuple[int, int]) -> None:
        """Room for all of them. Raises DataError when the disk has none."""
        self.shape = shape
        with tempfile.TemporaryFile(dir=folder) as made:  # 0600
            self._fd = os.dup(made.fileno())
        weakref.finalize(self, os.close, self._fd)
        size = BYTES * shape[0] * shape[1]
        try:
            if size:
                os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            raise _no_room(folder, size, error) from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.shape[0]} rows, {self.shape[1]} columns>"

    def __setitem__(self, which: tuple[slice, int], values: Floats) -> None:
        """X[:, j] = values"""
        j = self._column(which)
        column = np.ascontiguousarray(values, dtype=np.float64)
        if column.shape != (self.shape[0],):
            raise ValueError(f"a column of {self.shape[0]} numbers is written, not {column.shape}")
        rest, at = column.data.cast("B"), BYTES * self.shape[0] * j
        while rest:
            done = os.pwrite(self._fd, rest, at)
            rest, at = rest[done:], at + done

    def __getitem__(self, which: slice | npt.NDArray[np.int64] | tuple[slice, int]) -> Floats:
        """X[:, j], X[a:b] or X[index], where ascending rows read no more than lies between them"""
        n, d = self.shape
        if isinstance(which, tuple):
            column = np.empty(n)
            self._read(column, n * self._column(which))
            return column
        if isinstance(which, np.ndarray):
            first = int(which.min(initial=n - 1))
            between = np.empty(int(which.max(initial=first)) + 1 - first)
            taken = np.empty((d, len(which)))
            for j in range(d):
                self._read(between, n * j + first)
                taken[j] = between[which - first]
            return taken.T
        first, stop, step = which.indices(n)
        if step != 1:
            raise IndexError("only neighbouring rows are read together")
        part = np.empty((d, max(stop - first, 0)))
        for j in range(d):
            self._read(part[j], n * j + first)
        return part.T

    def _column(self, which: tuple[slice, int]) -> int:
        rows, j = which
        if rows != slice(None) or not 0 <= j < self.shape[1]:
            raise IndexError("whole columns are read and written, one at a time")
        return j

    def _read(self, out: Floats, at: int) -> None:
        rest: Any = out.data.cast("B")
        at *= BYTES
        while rest:
            done = os.preadv(self._fd, [rest], at)
            if not done:
                raise DataError("a table's features are cut short on disk.")
            rest, at = rest[done:], at + done


def _no_room(folder: Path, size: int, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DataError(f"features of {size / 1e9:.1f} GB do not fit on the disk of {folder}. Make room there.")
    return DataError(f"features cannot be kept in {folder}: {os.strerror(error.errno or 0)}.")
