"""Which cell of this notebook runs where: kept while it runs, and afterwards with its receipts.

A cell is known by the id that the notebook gives it, so that a page which was reloaded finds its cells again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from IPython.core.interactiveshell import InteractiveShell

from fednb.errors import CellFailure
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent, CellRun
from fednb.notebook.lab.messages import CellNews, CellState, Crossing, Place
from fednb.notebook.replay import Replay
from fednb.text import plain

MOST_CELLS = 500
MOST_CROSSINGS = 200
REASON = 500  # characters


@dataclass
class _Cell:
    """One cell, as it was run last."""

    id: str
    execution: str = ""  # the request that ran it
    places: dict[str, Place] = field(default_factory=dict)
    since: dict[str, float] = field(default_factory=dict)  # member -> when it began to wait or to run
    runs: list[str] = field(default_factory=list)
    receipts: list[Crossing] = field(default_factory=list)
    stop: Callable[[], None] | None = None
    invented: bool = False


class CellLog:
    """The cells of one notebook. Safe from any thread; calls `changed` after each change."""

    def __init__(self, shell: InteractiveShell, changed: Callable[[CellNews], None] = lambda news: None) -> None:
        self.changed = changed
        self._shell = shell
        self._cells: OrderedDict[str, _Cell] = OrderedDict()
        self._lock = threading.RLock()

    def observe(self, run: CellRun, replay: Replay, stop: Callable[[], None]) -> Replay:
        """A replay that passes everything on and keeps account of it. `stop` interrupts the cell."""
        cell = _Cell(*self._here())
        now = time.monotonic()
        for member in run.members:
            cell.places[member], cell.since[member] = Place(member=member, state="waiting"), now
        cell.stop, cell.invented = stop, run.invented
        self._keep(cell)
        return _Observed(self, cell, run, replay)

    def began(self, run: str) -> None:
        """The cell that runs now began a run."""
        with self._lock:
            here, execution = self._here()
            cell = self._cells.get(here)
            if cell is None or cell.execution != execution:
                cell = _Cell(here, execution)  # it has no magic
            cell.runs.append(run)
        self._keep(cell)

    def news(self) -> list[CellNews]:
        """Every cell, oldest first."""
        with self._lock:
            return [self._news(cell) for cell in self._cells.values()]

    @property
    def busy(self) -> bool:
        """Whether a cell is going on somewhere."""
        with self._lock:
            return any(cell.stop is not None for cell in self._cells.values())

    def stop(self) -> int:
        """Interrupt every cell that goes on; how many."""
        with self._lock:
            stops = [cell.stop for cell in self._cells.values() if cell.stop is not None]
        for stop in stops:
            stop()
        return len(stops)

    def _set(self, cell: _Cell, member: str, state: CellState, seconds: float = 0.0, reason: str = "") -> None:
        with self._lock:
            cell.places[member] = Place(member=member, state=state, seconds=seconds, reason=plain(reason, REASON))
            cell.since[member] = time.monotonic()
            # one that an owner has to approve is over here: it is asked for, and runs when she likes
            if all(place.state not in ("waiting", "running") for place in cell.places.values()):
                cell.stop = None
        self._tell(cell)

    def _keep(self, cell: _Cell) -> None:
        if not cell.id:  # from a console or a script: there is no cell to mark
            return
        with self._lock:
            self._cells[cell.id] = cell
            self._cells.move_to_end(cell.id)
            while len(self._cells) > MOST_CELLS:
                self._cells.popitem(last=False)
        self._tell(cell)

    def _tell(self, cell: _Cell) -> None:
        if cell.id:
            with self._lock:
                news = self._news(cell)
            self.changed(news)

    def _news(self, cell: _Cell) -> CellNews:
        now = time.monotonic()
        places = [
            Place(member=place.member, state=place.state, seconds=now - cell.since[place.member])
            if place.state in ("waiting", "pending", "running")
            else place
            for place in cell.places.values()
        ]
        return CellNews(
            cell=cell.id,
            places=places,
            runs=list(cell.runs),
            receipts=list(cell.receipts),
            invented=cell.invented,
        )

    def _here(self) -> tuple[str, str]:
        """The cell that runs now, and its execution."""
        parent = (self._shell.get_parent() if hasattr(self._shell, "get_parent") else None) or {}
        found = parent.get("metadata", {}).get("cellId", "")
        execution = parent.get("header", {}).get("msg_id", "")
        return found if isinstance(found, str) and len(found) <= 200 else "", str(execution)


class _Observed:
    """One execution's replay, listened in on."""

    def __init__(self, log: CellLog, cell: _Cell, run: CellRun, replay: Replay) -> None:
        self._log, self._cell, self._run, self._replay = log, cell, run, replay

    def take(self, member: str, event: CellEvent) -> None:
        if isinstance(event, m.CellStarted):
            self._log._set(self._cell, member, "running")
        self._replay.take(member, event)

    def redraw(self, *, now: bool = False) -> float | None:
        return self._replay.redraw(now=now)

    def end(self, member: str, status: str, failure: CellFailure | None = None) -> None:
        done = self._run.done.get(member)
        if done is not None and done.receipt is not None:
            self._cell.receipts += crossings([done.receipt], member)
        state: CellState = "died" if done is None else done.status
        if done is not None and done.status == "waiting":
            state = "pending"
        elif state == "ok" and failure:
            state = "error"
        # an exception's own text may hold a value of the member's: it stands under the cell, and nowhere else
        ours = done is None or done.status in ("refused", "died")
        reason = "" if failure is None else f"{failure.ename}: {failure.evalue}" if ours else failure.ename
        self._log._set(self._cell, member, state, done.seconds if done else 0.0, reason)
        self._replay.end(member, status, failure)


def crossings(receipts: list[m.Receipt], member: str = "") -> list[Crossing]:
    """Receipts as lines of a table; with `member`, who sent them, whatever they say."""
    lines = [
        Crossing(
            member=plain(member or receipt.member, 64),
            to=plain(each.to, 100),
            what=plain(each.what, 200),
            messages=each.messages,
            values=each.values,
            bytes=each.bytes,
            rule=plain(receipt.rule, 200),
            status=plain(receipt.status, 64),
            entry=receipt.head.n if receipt.head else None,
        )
        for receipt in receipts
        for each in receipt.crossed or [m.Crossing("", "nothing", 0, 0, 0)]
    ]
    return lines[:MOST_CROSSINGS]
