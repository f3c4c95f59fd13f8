"""Whether an interrupt is the beginning of the notebook's own end.

Jupyter interrupts a kernel before it restarts it or shuts it down. A user who interrupts wants what she started to
stop, wherever it runs; one who restarts her notebook does not mean to cancel an hour of training at its members.
"""

from __future__ import annotations

import sys
import time

SHUTDOWN_SECONDS = 0.25  # the request to shut down follows the interrupt within milliseconds


def leaving(patience: float = SHUTDOWN_SECONDS) -> bool:
    """Called after an interrupt: whether this process is a kernel that is being restarted or shut down.

    Waits up to `patience` seconds for the word to come; False at once outside a kernel.
    """
    module = sys.modules.get("IPython.core.getipython")
    shell = module.get_ipython() if module is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return False
    deadline = time.monotonic() + patience
    while not shell.exit_now and time.monotonic() < deadline:  # set by the kernel's control thread
        time.sleep(0.01)
    return bool(shell.exit_now)
