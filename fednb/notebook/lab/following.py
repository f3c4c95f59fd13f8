"""One run, followed for the page: read as its events come, told at most a few times a second.

events ── reader ──> progress ── painter ──> news
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from fednb.errors import FednbError
from fednb.federation.client import Federation
from fednb.federation.messages import Receipt, RunEnded
from fednb.federation.progress import RunProgress
from fednb.notebook.lab.log import crossings
from fednb.notebook.lab.messages import Note, RunNews, Told
from fednb.notebook.palette import Look
from fednb.text import plain

REDRAW_SECONDS = 0.25


class Following:
    """A run from its first event to its end. Threads of its own; `tell` is called from one of them."""

    def __init__(
        self, federation: Federation, run: str, title: str, looks: Mapping[str, Look], tell: Callable[[Told], None]
    ) -> None:
        self.over = threading.Event()
        self._federation, self._run, self._looks, self._tell = federation, run, looks, tell
        self._progress = RunProgress(run, title)
        self._receipts: list[Receipt] = []
        self._heard = time.monotonic()
        self._lock = threading.Lock()
        self._fresh = threading.Event()

    def start(self) -> None:
        """Begin. Returns at once."""
        for work, name in ((self._read, "reader"), (self._paint, "painter")):
            threading.Thread(target=work, name=f"fednb-lab-run-{name}", daemon=True).start()

    def news(self) -> RunNews:
        """How the run goes now."""
        from fednb.notebook.widgets.training import snapshot  # brings Matplotlib along

        with self._lock:
            over = self.over.is_set()
            silent = 0.0 if over else time.monotonic() - self._heard
            progress = snapshot(self._progress, self._looks, silent=silent)
        return RunNews(run=self._run, over=over, progress=progress, receipts=crossings(self._receipts))

    def _read(self) -> None:
        try:
            for item in self._federation.watch(self._run):
                with self._lock:
                    self._heard = time.monotonic()
                    if isinstance(item, RunEnded):
                        self._progress.end(item)
                        self._receipts = item.receipts
                    else:
                        self._progress.add(item)
                self._fresh.set()
        except FednbError as error:
            self._tell(Note(text=f"run {self._run}: {plain(str(error), 500)}", failed=True))
        finally:
            self.over.set()
            self._fresh.set()

    def _paint(self) -> None:
        while not self.over.is_set():
            self._fresh.wait()
            self._fresh.clear()
            self._tell(self.news())
            self.over.wait(REDRAW_SECONDS)
        self._tell(self.news())
