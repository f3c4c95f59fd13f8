"""The kernel's end of a nudge: a signal that does nothing, and by that lets Python see the one that came before it.

Python notes an interrupt and acts on it between two steps of the main thread. One that arrives after the last look and
before the thread has begun to wait, for a lock say, would be seen only when that wait is over. Whoever interrupts a
kernel goes on nudging it until the cell has ended: a signal more ends the wait, and Python looks again. A second
interrupt would do that as well, but it would also strike the cell's own clearing up after the first.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

NUDGE = signal.SIGURG  # a process that does not handle it ignores it, as what a cell has started does


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by the kernel on its main thread, before the first cell."""
    signal.signal(NUDGE, _nothing)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler there must be: an ignored signal ends no wait."""
