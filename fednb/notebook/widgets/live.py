"""A run that is followed while it goes on, and becomes a picture in the same place when it has ended.

    run's events ── reader thread ──> queue ── painter thread ──> widget, redrawn a few times a second
                                                             └──> at the end: a static picture instead

The picture takes the widget's place by its display id, so a notebook that is saved, converted or put on a web page
shows it without any kernel. A run that is over at once leaves nothing: its result stands right below.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from fednb.errors import FednbError
from fednb.federation.messages import RunEnded, RunEvent
from fednb.federation.progress import Bar, RunProgress
from fednb.federation.views import TrainingView
from fednb.notebook.comms import hear_while_busy
from fednb.notebook.palette import Look

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fednb.federation.client import Federation

HIDDEN = 0.8  # seconds for which a run shows nothing: most that are no training are over by then
REFRESH = 0.2  # seconds between two drawings
PATIENCE = 8.0  # seconds that the end of a cell waits for its picture, so that it belongs to the cell's output
NOTE = 200  # characters
CANCELLING = "cancelling"  # the widget's script knows this word

HERE = Path(__file__).parent


class Screen(Protocol):
    """Where a run is drawn."""

    def prepare(self) -> None:
        """Load what drawing needs, so that the first drawing comes at once."""
        ...

    def draw(self, progress: RunProgress, silent: float) -> None:
        """Draw the state; `silent` is how long nobody has said anything, in seconds."""
        ...

    def end(self, progress: RunProgress) -> None:
        """Leave what stays."""
        ...

    def repeat(self) -> None:
        """Say once more what stays, for a front end that had stopped listening to the cell."""
        ...


def follow(view: TrainingView, federation: Federation, styles: Mapping[str, Look], shell: InteractiveShell) -> LiveRun:
    """Follow a run from the running cell on. Returns at once."""
    screen: Screen
    if getattr(shell, "kernel", None) is not None:
        screen = NotebookScreen(shell, styles, lambda: federation.cancel(view.run))
    else:
        screen = TerminalScreen()
    live = LiveRun(view, federation.watch(view.run), screen)
    live.start(shell)
    return live


class LiveRun:
    """One run on its screen."""

    def __init__(
        self, view: TrainingView, events: Iterator[RunEvent | RunEnded], screen: Screen, *, hidden: float = HIDDEN
    ) -> None:
        self.over = threading.Event()  # nothing more will be drawn
        self._progress = RunProgress(view.run, view.title)
        self._events = events
        self._screen = screen
        self._hidden = hidden
        self._news: SimpleQueue[RunEvent | RunEnded | Exception] = SimpleQueue()

    def start(self, shell: InteractiveShell) -> None:
        """Begin to draw under the cell that runs now."""
        # Output of a thread would be filed under whatever cell runs when it is written.
        parent = shell.get_parent() if hasattr(shell, "get_parent") else None
        own_cell = threading.current_thread() is threading.main_thread()

        def work() -> None:
            if parent is not None and hasattr(shell, "set_thread_parent"):
                shell.set_thread_parent(parent)
            self.work()

        def at_cell_end(*_: Any) -> None:
            nonlocal own_cell
            own, own_cell = own_cell, False
            try:
                over = self.over.wait(PATIENCE if own else 0)
            except KeyboardInterrupt:
                return  # who interrupts does not want to wait: a later cell's end will do
            if over:
                shell.events.unregister("post_run_cell", at_cell_end)
                if not own:
                    self._screen.repeat()

        shell.events.register("post_run_cell", at_cell_end)
        threading.Thread(target=self._read, name="fednb-run-reader", daemon=True).start()
        threading.Thread(target=work, name="fednb-run-painter", daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self._events:
                self._news.put(message)
                if isinstance(message, RunEnded):
                    return
            self._news.put(EOFError("the run's events stopped without an end"))
        except Exception as error:
            self._news.put(error)

    def work(self) -> None:
        """Draw until the run has ended."""
        try:
            if self._until_end() or self._progress.seconds > self._hidden:
                self._screen.end(self._progress)
        finally:
            self.over.set()

    def _until_end(self) -> bool:
        """Take news in; whether anything was drawn."""
        heard = time.monotonic()
        due, drawn = heard + self._hidden, False
        self._screen.prepare()
        while True:
            try:
                news = self._news.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                self._screen.draw(self._progress, time.monotonic() - heard)
                due, drawn = time.monotonic() + REFRESH, True
                continue
            heard = time.monotonic()
            if isinstance(news, RunEvent):
                self._progress.add(news)
            elif isinstance(news, RunEnded):
                self._progress.end(news)
                return drawn
            else:
                self._progress.reason = f"{news} (`%fed runs` tells how the run is)"
                return drawn


class TerminalScreen:
    """One line that is drawn over, where somebody sees it."""

    def __init__(self) -> None:
        self._bar = Bar(sys.stderr) if sys.stderr.isatty() else None

    def prepare(self) -> None:
        return

    def draw(self, progress: RunProgress, silent: float) -> None:
        if self._bar:
            self._bar.draw(progress)

    def end(self, progress: RunProgress) -> None:
        if self._bar:
            self._bar.finish(progress)

    def repeat(self) -> None:
        return


class NotebookScreen:
    """A live widget, then a picture in its place."""

    def __init__(self, shell: InteractiveShell, styles: Mapping[str, Look], cancel: Callable[[], None]) -> None:
        self._shell = shell
        self._styles = styles
        self._cancel = cancel
        self._display_id = f"fednb-run-{uuid4().hex}"
        self._widget: Any = None
        self._last: tuple[dict[str, Any], dict[str, Any]] | None = None

    def prepare(self) -> None:
        import anywidget  # noqa: F401

        import fednb.notebook.widgets.training  # noqa: F401

    def draw(self, progress: RunProgress, silent: float) -> None:
        from fednb.notebook.widgets.training import snapshot

        state = snapshot(progress, self._styles, silent=silent)
        if self._widget is None:
            self._widget = _widget(state)
            self._widget.on_msg(self._on_message)
            hear_while_busy(self._widget.comm)
            data, metadata = self._widget._repr_mimebundle_()
            data["text/plain"] = f"{progress.title or 'run'} [{progress.run}]: a picture stands here when it has ended"
            self._publish(data, metadata, update=False)
        else:
            self._widget.snapshot = state

    def end(self, progress: RunProgress) -> None:
        from fednb.notebook.widgets.training import describe, picture

        self._last = picture(progress, self._styles).bundle(describe(progress))
        self._publish(*self._last, update=self._widget is not None)
        if self._widget is not None:
            self._widget.close()

    def repeat(self) -> None:
        if self._last is not None:
            self._publish(*self._last, update=True)

    def _publish(self, data: Any, metadata: Any, *, update: bool) -> None:
        self._shell.display_pub.publish(data, metadata, transient={"display_id": self._display_id}, update=update)

    def _on_message(self, widget: Any, content: object, buffers: object) -> None:
        if content == {"kind": "cancel"} and widget.note != CANCELLING and self._last is None:
            widget.note = CANCELLING
            # Members may take a while to answer, and this thread serves the front end.
            threading.Thread(target=self._ask_to_cancel, name="fednb-run-cancel", daemon=True).start()

    def _ask_to_cancel(self) -> None:
        try:
            self._cancel()
        except FednbError as error:
            self._widget.note = f"could not cancel: {error}"[:NOTE]


def _widget(state: dict[str, Any]) -> Any:
    """The live widget. Its libraries are loaded when a run has turned out to be worth one."""
    import anywidget
    from traitlets import Dict, Unicode

    class RunWidget(anywidget.AnyWidget):
        _esm = HERE / "training.js"
        _css = HERE / "training.css"
        snapshot = Dict().tag(sync=True)
        note = Unicode("").tag(sync=True)

    return RunWidget(snapshot=state)
