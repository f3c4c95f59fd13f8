"""Remote output under the analyst's cell, as if it had been made here, minus what a stranger's output must not do.

One member's output is published piece by piece as it comes (`Pieces`). Several members', or that of a cell which
goes on in the background, is drawn into one area a member (`Areas`). Both clean everything first (`sanitise`), and
both hand a fednb view to `widgets.show`, which builds the widget here from the decoded struct.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from IPython.core.interactiveshell import InteractiveShell

from fednb.errors import CellFailure
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent
from fednb.notebook import ansi, sanitise
from fednb.notebook.area import Area
from fednb.notebook.palette import Look
from fednb.notebook.views import ShowView, shown

log = logging.getLogger("fednb.notebook")

MAX_STREAM = 4 << 20  # characters of one cell's printed text; what is overwritten or cleared does not count
REDRAW_SECONDS = 0.1  # an area is redrawn at most this often, and less often when it is large
REDRAW_CHARACTERS = 2_000_000  # a second


class Replay(Protocol):
    """Where a cell's events are shown."""

    def take(self, member: str, event: CellEvent) -> None:
        """Show one event."""
        ...

    def redraw(self, *, now: bool = False) -> float | None:
        """Draw what is due (with `now`: everything). Seconds until the next drawing is due; None: nothing waits."""
        ...

    def end(self, member: str, status: str, failure: CellFailure | None = None) -> None:
        """The cell is over at this member."""
        ...


class _Quota:
    """Cuts the text of a cell that prints without end."""

    def __init__(self, member: str) -> None:
        self._member = member
        self._used = 0

    def admit(self, text: str) -> str:
        if self._used > MAX_STREAM:
            return ""
        # progress bars overwrite one line for hours: only what stays counts
        self._used += text.rfind("\n") + 1 if "\r" in text else len(text)
        if self._used <= MAX_STREAM:
            return text
        return text[:10_000] + (
            f"\n[{self._member} printed more than {MAX_STREAM:,} characters: the rest of this cell's text is dropped]\n"
        )

    def reset(self) -> None:
        self._used = 0


class Pieces:
    """One member's output, published as it comes."""

    def __init__(self, shell: InteractiveShell, member: str, show_view: ShowView) -> None:
        self._shell = shell
        self._member = member
        self._show_view = show_view
        self._quota = _Quota(member)

    def take(self, member: str, event: CellEvent) -> None:
        if isinstance(event, m.Stream):
            text = self._quota.admit(ansi.clean(event.text))
            if text:
                out = sys.stderr if event.name == "stderr" else sys.stdout
                out.write(text)
                out.flush()
        elif isinstance(event, m.Display):
            if event.update or not _drawn(self._show_view, event):
                self._publish(event)
        elif isinstance(event, m.ClearOutput):
            self._quota.reset()
            self._shell.display_pub.clear_output(wait=event.wait)  # type: ignore[no-untyped-call]

    def redraw(self, *, now: bool = False) -> float | None:
        return None

    def end(self, member: str, status: str, failure: CellFailure | None = None) -> None:
        return  # a failure is raised, and shown by that

    def _publish(self, event: m.Display) -> None:
        data, metadata = sanitise.clean_bundle(self._member, event.data, event.metadata)
        transient = {"display_id": local_display_id(self._member, event.display_id)} if event.display_id else {}
        self._shell.display_pub.publish(
            data, {**metadata, "fednb": {"member": self._member}}, transient=transient, update=event.update
        )


class Areas:
    """The output of several members, or of a cell in the background: one area a member."""

    def __init__(
        self,
        shell: InteractiveShell,
        members: Sequence[str],
        looks: Mapping[str, Look],
        show_view: ShowView,
        *,
        background: bool = False,
    ) -> None:
        """`background`: nobody waits for an error to be raised, so the areas show tracebacks too."""
        self._shell = shell
        self._background = background
        self._show_view = show_view
        # a terminal cannot replace what it has printed: there an area is printed once, when it is complete
        self._live = hasattr(shell, "kernel")
        self._areas = {member: Area(member, looks[member]) for member in members}
        self._quotas = {member: _Quota(member) for member in members}
        self._dirty: set[str] = set()
        self._next_draw = 0.0
        if self._live:
            for member in members:
                self._draw(member, update=False)

    def take(self, member: str, event: CellEvent) -> None:
        area = self._areas[member]
        if isinstance(event, m.Stream):
            text = self._quotas[member].admit(ansi.clean(event.text))
            if not text:
                return
            area.write(event.name, text)
        elif isinstance(event, m.Display):
            if not event.update and _drawn(self._show_view, event):
                return
            area.show(event)
        elif isinstance(event, m.ClearOutput):
            self._quotas[member].reset()
            area.clear(wait=event.wait)
        elif isinstance(event, m.CellStarted):
            area.status = "running"
        else:
            return
        self._dirty.add(member)

    def redraw(self, *, now: bool = False) -> float | None:
        if not self._live or not self._dirty:
            return None
        wait = self._next_draw - time.monotonic()
        if wait > 0 and not now:
            return wait
        drawn = sum(self._draw(member, update=True) for member in sorted(self._dirty))
        self._dirty.clear()
        self._next_draw = time.monotonic() + max(REDRAW_SECONDS, drawn / REDRAW_CHARACTERS)
        return None

    def end(self, member: str, status: str, failure: CellFailure | None = None) -> None:
        area = self._areas[member]
        area.status, area.failed = status, failure is not None
        if failure is not None:
            summary = f"{failure.ename}: {failure.evalue}"[:500]
            area.write("stderr", "\n".join(failure.traceback if self._background and failure.traceback else [summary]))
        if self._live:
            self._dirty.add(member)
            self.redraw(now=True)
        else:
            self._draw(member, update=False)

    def refresh(self) -> None:
        """Draw everything once more: a front end that had stopped listening to the cell catches up."""
        if self._live:
            for member in self._areas:
                self._draw(member, update=True)

    def _draw(self, member: str, *, update: bool) -> int:
        bundle = self._areas[member].bundle()
        self._shell.display_pub.publish(
            bundle,
            {"fednb": {"member": member}},
            transient={"display_id": self._areas[member].display_id},
            update=update,
        )
        return sum(len(text) for text in bundle.values())


def _drawn(show_view: ShowView, event: m.Display) -> bool:
    """Show what a member sent as a view. One that cannot be drawn must not end the cell for all."""
    try:
        return shown(show_view, event.data)
    except Exception:
        log.exception("a member's view could not be drawn")
        return False


def local_display_id(member: str, remote: str) -> str:
    """A member's display id in a space of its own, so that no member can redraw what is not its own."""
    return f"fednb-{member}-{hashlib.sha256(remote.encode(errors='replace')).hexdigest()[:24]}"
