"""A cell on invented rows, on the analyst's own machine: what it would say, before an owner is asked to approve it.

    analyst ── AskMock, a table's name ──> party
            <── Mock, invented rows ──────
    the cell runs here, in a kernel like the one that it would run in there

The party is not told what the rows are for; it runs nothing. Nothing of what comes out is real.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Sequence

import msgspec

from fednb.errors import ConfigError, FednbError
from fednb.federation import approved
from fednb.federation import messages as m
from fednb.federation.cells import CellClient, CellRun
from fednb.federation.process import short_folder
from fednb.policy import codeview
from fednb.policy.sandbox import Sandbox, find
from fednb.wire.message import Message

SECONDS = 600.0
NOTICE = "DRY RUN ON INVENTED ROWS: no number below is real, and {member} has run nothing.\n"


class Rehearsal(CellRun):
    """One cell, played with what each of `members` invents. Read it as any run of a cell."""

    invented = True

    def __init__(self, cells: CellClient, members: Sequence[str], code: str) -> None:
        super().__init__(secrets.token_hex(8), members)
        cells.check(members)
        self._cells = cells
        self._code = code
        stages = {member: _Stage() for member in self.members}
        self._talks = dict(stages)
        for member, stage in stages.items():
            threading.Thread(
                target=self._play, args=(member, stage.stop), name=f"fednb-rehearsal-{member}", daemon=True
            ).start()

    def _play(self, member: str, stop: threading.Event) -> None:
        cell, folder = self.cell, short_folder()
        self._put(member, m.CellStarted(cell))
        self._put(member, m.Stream(cell, "stderr", NOTICE.format(member=member)))
        try:
            tables = {name: self._cells.mock(member, name) for name in codeview.read(self._code).tables}
            events = approved.run(member, self._code, tables, _sandbox(), folder / "t", seconds=SECONDS, stop=stop)
            for event in events:
                if stop.is_set() and isinstance(event, m.CellDone):
                    event = msgspec.structs.replace(event, status="interrupted", reason="the dry run was interrupted")
                self._put(member, msgspec.structs.replace(event, cell=cell))
        except FednbError as error:
            self._put(member, m.CellDone(cell, "refused", reason=str(error)))
        except Exception as error:  # whoever waits must not wait for ever
            self._put(member, m.CellDone(cell, "died", reason=f"the dry run failed ({type(error).__name__})"))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class _Stage:
    """Where the conversation with a member would be: nobody is there, so an interrupt ends the kernel here."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def send(self, message: Message) -> None:
        if isinstance(message, m.Interrupt):
            self.stop.set()

    def forget(self, cell: str) -> None:
        self.stop.set()


def _sandbox() -> Sandbox | None:
    """As at the party, where one works here. It protects nothing: code and rows are the analyst's own."""
    try:
        return Sandbox(find())
    except ConfigError:
        return None
