"""One approved cell, run to its end in a kernel of its own.

The kernel is started for the cell and ends with it. It stands in a sandbox with a read-only snapshot of the tables that
the cell names, has no pipe to its agent, and what it says goes to nobody but who called this.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fednb.federation import messages as m
from fednb.federation import snapshot
from fednb.federation.cells import CellEvent
from fednb.federation.kernel import Kernel
from fednb.federation.kernel_process import KernelProcess
from fednb.federation.outbox import Outbox
from fednb.federation.quarantine import visible
from fednb.policy.sandbox import Sandbox
from fednb.wire.message import Message

if TYPE_CHECKING:
    import pandas as pd

EXTENSION = "fednb.federation.snapshot"
LOOK_SECONDS = 0.2
LATE = 10.0  # seconds for a kernel to end after it was told to


class Recorder(Outbox):
    """Takes what a cell says, and sends it nowhere."""

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.done = threading.Event()

    def put(self, message: Message) -> None:
        self.events.append(message)
        if isinstance(message, m.CellDone):
            self.done.set()

    def close(self) -> None:
        """Nothing waits."""


def run(
    member: str,
    code: str,
    tables: Mapping[str, pd.DataFrame],
    sandbox: Sandbox | None,
    folder: Path,
    *,
    seconds: float,
    stop: threading.Event | None = None,
) -> list[CellEvent]:
    """What the cell said, as far as a reader sees it, CellDone at the end.

    sandbox : None where code and rows are whose machine this is.
    folder : does not exist yet, and is gone afterwards.
    seconds : after which it is ended.
    stop : ends it at once when it is set; then CellDone says "died".
    """
    folder.mkdir(mode=0o700)
    shown = folder / "tables"
    try:
        snapshot.write(shown, tables)

        def start(ended: object) -> KernelProcess:
            return KernelProcess(
                folder / secrets.token_hex(2),
                cwd=folder,
                profile=folder,
                extensions=(EXTENSION,),
                env={snapshot.FOLDER: str(shown), snapshot.MEMBER: member},
                ended=ended,  # type: ignore[arg-type]
                sandbox=sandbox,
                read=[shown],
            )

        kernel, said = Kernel(member, start), Recorder()
        cell = secrets.token_hex(8)
        try:
            kernel.submit(m.Execute(cell, code), said)
            deadline = time.monotonic() + seconds
            while not said.done.wait(LOOK_SECONDS):
                if time.monotonic() > deadline:
                    kernel.interrupt(cell, kill=True)
                    said.done.wait(LATE)
                    break
                if stop is not None and stop.is_set():
                    break
        finally:
            kernel.close()
        return visible(event for event in said.events if isinstance(event, CellEvent))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
