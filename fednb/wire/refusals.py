"""Writes down who was refused, and not so often that a flood of them fills the disk."""

from __future__ import annotations

import logging
import time

A_SECOND = 10  # lines, at most


class Refusals:
    """Logs warnings that begin with "refused"; of more than ten a second only how many. For one thread."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._second = 0.0
        self._written = 0
        self._left_out = 0

    def note(self, what: str) -> None:
        """`what` was refused: "a connection: its key is not on the roster"."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            if self._left_out:
                self._log.warning("refused %d more within a second", self._left_out)
            self._second, self._written, self._left_out = now, 0, 0
        if self._written >= A_SECOND:
            self._left_out += 1
            return
        self._written += 1
        self._log.warning("refused %s", what)
