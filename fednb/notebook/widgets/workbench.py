"""Bins that are looked at and changed by hand: each change is a run, in which the feature's owner counts anew.

    page ── recut, undo ──> widget ── a thread ──> the binning, where it lies ── new bins ──> widget, picture below it

The binning is a variable of this notebook, or of the coordinator's kernel, where a cell then runs that anybody could
have typed. Below the widget stands the picture of the bins as they are, which needs no kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import msgspec
from msgspec import Meta

from fednb.errors import DataError, FednbError, NotConnected
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent
from fednb.federation.progress import RunProgress, told
from fednb.federation.views import MIME, BinningView, TrainingView, decode
from fednb.models.recut import find
from fednb.notebook.comms import hear_while_busy
from fednb.notebook.palette import Look
from fednb.text import plain
from fednb.typed import known

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fednb.federation.client import Federation

HERE = Path(__file__).parent
NOTE = 600  # characters

Tell = Callable[[str], None]  # is told how far the run is
Cell = Callable[[str], Iterator[CellEvent]]  # runs code at the coordinator
Picture = Callable[[BinningView], list[tuple[dict[str, Any], dict[str, Any]]]]  # MIME bundles with their metadata


class Recut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="recut", tag_field="kind"):
    """What the page asks for: new bins of one feature, by cell or at values."""

    feature: Annotated[str, Meta(max_length=700)]
    cells: Annotated[list[Annotated[int, Meta(ge=1)]], Meta(max_length=1_000)] | None = None
    edges: Annotated[list[float], Meta(max_length=1_000)] | None = None

    def changes(self) -> dict[str, dict[str, Any]]:
        """As `WoeBinning.recut` takes them."""
        kinds = {"cells": self.cells, "edges": self.edges}
        return {kind: {self.feature: value} for kind, value in kinds.items() if value is not None}


class Undo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="undo", tag_field="kind"):
    """Take the last recount back."""


Change = Recut | Undo


def open_workbench(
    view: BinningView,
    federation: Federation | None,
    styles: Mapping[str, Look],
    shell: InteractiveShell,
    cell: Cell | None,
    picture: Picture,
) -> WorkbenchWidget:
    """Show a workbench under the running cell, and its `picture` below; `cell` runs code at the coordinator."""
    try:
        find(shell.user_ns, view.handle)
        act = here(shell, view.handle)
    except FednbError:
        if cell is None or federation is None:
            raise NotConnected("bins are changed in a notebook that is connected to their federation.") from None
        act = there(view.handle, federation, cell)
    bench = WorkbenchWidget(view, styles, shell, act, picture)
    bench.show()
    return bench


Act = Callable[[Change, Tell], BinningView]


def here(shell: InteractiveShell, handle: str) -> Act:
    """Changes a binning among this notebook's own variables."""

    def act(change: Change, tell: Tell) -> BinningView:
        binning = find(shell.user_ns, handle)
        with told(lambda progress: tell(_far(progress))):
            changed = binning.undo() if isinstance(change, Undo) else binning.recut(**change.changes())
        view = changed.view(edit=True)
        if not isinstance(view, BinningView):
            raise TypeError(f"{type(changed).__name__} shows no bins")
        return view

    return act


def there(handle: str, federation: Federation, cell: Cell) -> Act:
    """Changes a binning of the coordinator's kernel, by a cell there."""

    def act(change: Change, tell: Tell) -> BinningView:
        found = f"__import__('fednb.models.recut', fromlist=['find']).find(globals(), {handle!r})"
        call = "undo()" if isinstance(change, Undo) else f"recut(**{change.changes()!r})"
        failure: m.CellError | None = None
        shown: BinningView | None = None
        for event in cell(f"{found}.{call}.workbench()"):
            if isinstance(event, m.CellError):
                failure = event
            elif isinstance(event, m.CellDone) and event.status != "ok":
                why = failure.evalue if failure else event.reason or event.status
                raise FednbError(plain(why, NOTE))
            elif isinstance(event, m.Display) and isinstance(event.data.get(MIME), Mapping):
                view = decode(event.data[MIME])
                if isinstance(view, TrainingView):
                    _watch(federation, view.run, tell)
                elif isinstance(view, BinningView):
                    shown = view
        if shown is None:
            raise DataError("the coordinator's cell showed no bins. Show the binning there to see how it is.")
        return shown

    return act


def _watch(federation: Federation, run: str, tell: Tell) -> None:
    """Tell of a run while it goes on. The cell that began it says how it ended."""

    def work() -> None:
        progress = RunProgress(run)
        try:
            for message in federation.watch(run):
                if isinstance(message, m.RunEvent):
                    progress.add(message)
                    tell(_far(progress))
        except FednbError:
            return

    threading.Thread(target=work, name="fednb-recount", daemon=True).start()


def _far(progress: RunProgress) -> str:
    """How far a run is, in a few words."""
    waits = [f"{each.name} waits for {each.waiting_for}" for each in progress.members.values() if each.waiting_for]
    step = f" {progress.step} of {progress.total}" if progress.total else ""
    return plain("; ".join([f"{progress.phase or 'waiting'}{step}", *waits[:1]]), NOTE)


class WorkbenchWidget:
    """One workbench in the notebook."""

    def __init__(
        self, view: BinningView, styles: Mapping[str, Look], shell: InteractiveShell, act: Act, picture: Picture
    ) -> None:
        self.view = view
        self.over = threading.Event()  # nothing is going on
        self.over.set()
        self._styles = styles
        self._shell = shell
        self._act = act
        self._picture = picture
        self._lock = threading.Lock()
        self._picture_id = f"fednb-bins-{uuid4().hex}"
        self._parent = shell.get_parent() if hasattr(shell, "get_parent") else None
        self.widget = _widget(snapshot(view, styles))
        self.widget.on_msg(self._on_message)
        hear_while_busy(self.widget.comm)

    def show(self) -> None:
        """Publish the widget, and the picture below it."""
        data, metadata = self.widget._repr_mimebundle_()
        data["text/plain"] = "A workbench for bins: it is live while its kernel runs; the picture below stays."
        self._shell.display_pub.publish(data, metadata)
        self._draw(update=False)

    def _draw(self, *, update: bool) -> None:
        for k, (data, metadata) in enumerate(self._picture(self.view)):
            transient = {"display_id": f"{self._picture_id}-{k}"}
            self._shell.display_pub.publish(data, metadata, transient=transient, update=update)

    def _on_message(self, widget: object, content: object, buffers: object) -> None:
        try:
            change: Change = msgspec.convert(content, known(Change))
        except msgspec.ValidationError:
            return
        with self._lock:
            if not self.over.is_set():
                return
            self.over.clear()
        # members take a while, and this thread serves the front end
        threading.Thread(target=self._work, args=(change,), name="fednb-workbench", daemon=True).start()

    def _work(self, change: Change) -> None:
        if self._parent is not None and hasattr(self._shell, "set_thread_parent"):
            self._shell.set_thread_parent(self._parent)
        self.widget.busy, self.widget.wrong = True, False
        self._tell("asking the members")
        try:
            self.view, before = self._act(change, self._tell), self.view
            self.widget.snapshot = snapshot(self.view, self._styles)
            self._tell(_outcome(change, before, self.view))
            self._draw(update=True)
        except (FednbError, ValueError) as error:
            self.widget.wrong = True
            self._tell(str(error))
        finally:
            self.widget.busy = False
            self.over.set()

    def _tell(self, text: str) -> None:
        self.widget.note = plain(text, NOTE)


def snapshot(view: BinningView, styles: Mapping[str, Look]) -> dict[str, Any]:
    """What the page draws: text and numbers only."""
    features = []
    for f in view.features:
        look = styles.get(f.party) or styles["coordinator"]
        ordinary = len(f.rows) - sum(held == "missing" or held.startswith("special") for held in f.holds)
        bins = [
            {
                "holds": f.holds[b],
                "ordinary": b < ordinary,
                "cells": f.cells[b],
                "rows": f.rows[b],
                "share": f.rows[b] / max(1, sum(f.rows)),
                "positives": f.positives[b],
                "rate": f.positives[b] / max(1, f.rows[b]),
                "woe": f.woe[b] or 0.0,
                "iv": f.iv[b] or 0.0,
            }
            for b in range(len(f.rows))
        ]
        features.append(
            {
                "name": f.name,
                "mark": look.mark,
                "colour": look.fill,
                "own": f.own,
                "iv": f.information,
                "dropped": f.dropped,
                "edges": [edge for edge in f.edges if edge is not None],
                "bins": bins,
            }
        )
    return {"label": view.label, "rows": view.rows, "steps": view.steps, "notes": view.notes, "features": features}


def _outcome(change: Change, before: BinningView, after: BinningView) -> str:
    if isinstance(change, Undo):
        return "the last recount is taken back"
    then, now = (next((f for f in v.features if f.name == change.feature), None) for v in (before, after))
    if then is None or now is None:
        return "counted anew"
    text = f"{now.name}: information value {then.information:.4f} before, {now.information:.4f} now, "
    text += f"{len(now.rows)} bins"
    new = after.notes[len(before.notes) :]
    return "; ".join([text, *new])


def _widget(state: dict[str, Any]) -> Any:
    import anywidget
    from traitlets import Bool, Dict, Unicode

    class Bench(anywidget.AnyWidget):
        _esm = HERE / "workbench.js"
        _css = HERE / "workbench.css"
        snapshot = Dict().tag(sync=True)
        note = Unicode("").tag(sync=True)
        busy = Bool(False).tag(sync=True)
        wrong = Bool(False).tag(sync=True)

    return Bench(snapshot=state)
