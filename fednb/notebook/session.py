"""The one federation that a notebook is connected to, and who its cells can be sent to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from msgspec import structs

from fednb.errors import LinkError, NotConnected
from fednb.federation.cells import CellClient, CellEvent, CellRun
from fednb.federation.client import Federation
from fednb.federation.receipts import table
from fednb.notebook.lab.log import CellLog
from fednb.notebook.lab.owner import Owner
from fednb.notebook.palette import Look, looks
from fednb.text import plain

_OURS = re.compile(r"\s*(?:%%party\b|%%coordinator\b|%fed\b)")


class Session:
    """What the magics, completion and displays of one notebook share."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.connector: Callable[[], Federation] | None = None  # connects at first use, where nobody did before
        self.attached: str | None = None  # the member whose cells need no magic
        self.last: CellRun | None = None  # the cell that was sent last
        self.log = CellLog(shell)
        self.owner = Owner()  # whose inboxes this notebook's user may decide in
        self.connection_changed: Callable[[], None] = lambda: None  # called after `use` and `close`
        self._federation: Federation | None = None
        self._cells: CellClient | None = None

    @property
    def connected(self) -> bool:
        return self._federation is not None

    @property
    def current(self) -> Federation | None:
        """The federation, if there is a connection already."""
        return self._federation

    @property
    def federation(self) -> Federation:
        """Raises NotConnected."""
        if self._federation is None and self.connector is not None:
            self.use(self.connector())
        if self._federation is None:
            raise NotConnected(
                "this notebook is not connected to a federation. Run `%fed connect` (the last `fednb up` on this "
                "machine) or `%fed connect FILE`."
            )
        return self._federation

    @property
    def cells(self) -> CellClient:
        """Raises NotConnected."""
        if self._cells is None:
            self._cells = CellClient(self.federation.endpoint)
        return self._cells

    def use(self, federation: Federation) -> None:
        """Send cells through `federation` from now on; an earlier connection is closed."""
        self.close()
        self._federation = federation
        self.shell.user_ns["fed"] = federation
        self.connection_changed()

    def receipts(self, run: str = "") -> pd.DataFrame:
        """Of a run; without one, of the last cell that ended and of the newest run."""
        if run:
            return self.federation.receipts(run)
        done = self.last.done.items() if self.last is not None else ()
        cell = table([structs.replace(end.receipt, member=name) for name, end in done if end.receipt is not None])
        try:
            newest = self.federation.receipts()
        except LinkError:  # a cell's receipt is here, whether the coordinator is or not
            newest = table([])
        found = [each for each in (cell, newest) if len(each)]
        return pd.concat(found, ignore_index=True) if found else cell

    def asked(self) -> pd.DataFrame:
        """Every cell that this analyst asked owners to approve, the newest first."""
        rows = [
            {
                "party": party,
                "request": each.request,
                "state": plain(each.state, 40),
                "asked": pd.Timestamp(each.asked, unit="s").round("s"),
                "reason": plain(each.reason, 200),
                "why": plain(each.why, 400),
                "cell": plain(each.code, 200),
            }
            for party in self.federation.parties
            for each in self.cells.asked(party)
        ]
        found = pd.DataFrame(rows, columns=["party", "request", "state", "asked", "reason", "why", "cell"])
        return found.sort_values("asked", ascending=False, ignore_index=True)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        federation, self._federation = self._federation, None
        cells, self._cells = self._cells, None
        if cells is not None:
            cells.close()
        if federation is not None:
            federation.close()
            self.connection_changed()

    def members(self) -> tuple[str, ...]:
        """Who has a kernel: the parties, then the coordinator."""
        return (*self.federation.parties, self.federation.coordinator)

    def looks(self) -> Mapping[str, Look]:
        """How each member is drawn, the same in every output of this notebook."""
        return looks(self.federation.parties, self.federation.coordinator)

    def parties(self, words: Sequence[str]) -> list[str]:
        """The members that a magic's line names: "bank", "bank,agency", "bank agency" or "all" (the parties).

        Raises LinkError that names the known ones.
        """
        parties = self.federation.parties
        names = [name for word in words for name in word.split(",") if name]
        if names == ["all"]:
            return list(parties)
        for name in names:
            if name not in parties and name != self.federation.coordinator:
                raise LinkError(
                    f"there is no party {name!r} in this federation; its parties are {', '.join(parties)}.", member=name
                )
        return list(dict.fromkeys(names))

    def takes(self, text: str) -> bool:
        """Whether this cell goes to the attached member although no magic says so."""
        return self.attached is not None and bool(text.strip()) and _OURS.match(text) is None

    def head(self) -> str:
        """The line that an attached cell is understood to begin with."""
        return f"%%party {self.attached}\n"

    def show_view(self, view: Mapping[str, Any], federation: Federation | None = None) -> None:
        """Build the widget for a fednb view, of this notebook's federation or of a local object's own.

        Raises FednbError or ValueError when it cannot be decoded.
        """
        from fednb.notebook.widgets import show

        show(view, federation or self._federation, self.shell, cell=self._at_coordinator)
        if view.get("view") == "training":
            self.log.began(str(view["run"]))

    def _at_coordinator(self, code: str) -> Iterator[CellEvent]:
        """Run a cell there, and give its events. Raises LinkError, NotConnected."""
        return (event for _, event in self.cells.execute([self.federation.coordinator], code))
