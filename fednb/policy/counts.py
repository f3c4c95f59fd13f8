"""Counts that outlive the process: written down before what they count happens, and never above their limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from fednb.errors import ConfigError
from fednb.typed import known
from fednb.wire.keys import write_whole

_Kept = dict[str, dict[str, int]]


class Counts:
    """Numbers by account and name; `path=None` keeps them in memory (simulation). Safe from any thread."""

    def __init__(self, path: Path | None = None, *, keep: Callable[[str], bool] = lambda account: True) -> None:
        """`keep` says of an account whether it is still of use; others are dropped at the next writing."""
        self._path = path
        self._keep = keep
        self._lock = threading.Lock()
        self._counts: _Kept = {}
        if path is not None and path.exists():
            try:
                self._counts = msgspec.json.decode(path.read_bytes(), type=known(_Kept))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                # to begin at nothing would open every limit again
                raise ConfigError(f"{path} is damaged: restore it from a backup.") from None

    def of(self, account: str) -> dict[str, int]:
        """What has been counted in an account, by name."""
        with self._lock:
            return dict(self._counts.get(account, {}))

    def fits(self, account: str, name: str, n: int, limit: int) -> bool:
        """Whether `n` more would stay within the limit; counts nothing."""
        with self._lock:
            return self._before(account, name) + n <= limit

    def take(self, account: str, name: str, n: int, limit: int) -> bool:
        """Count `n` more, on disk when this returns; False, and nothing is counted, when that is above the limit."""
        with self._lock:
            before = self._before(account, name)
            if n < 0 or before + n > limit:  # n may follow from what another member said; nothing is given back
                return False
            self._counts.setdefault(account, {})[name] = before + n
            self._write()
            return True

    def _before(self, account: str, name: str) -> int:
        return self._counts.get(account, {}).get(name, 0)

    def _write(self) -> None:
        if self._path is None:
            return
        self._counts = {account: kept for account, kept in self._counts.items() if self._keep(account)}
        write_whole(self._path, msgspec.json.encode(self._counts))
