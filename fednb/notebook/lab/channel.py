"""The comm between this kernel and the pages that show its notebook.

The kernel opens it when fednb is loaded, so a kernel without fednb is asked nothing. A page that comes later finds it
in the kernel's list, or hears it: while something goes on, everything is repeated every few seconds, because a kernel
that is busy cannot be asked.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from fednb.errors import FednbError
from fednb.notebook.comms import hear_while_busy
from fednb.notebook.lab import messages as lab
from fednb.notebook.lab.feed import Feed
from fednb.text import plain
from fednb.version import __version__

if TYPE_CHECKING:
    from fednb.notebook.session import Session

log = logging.getLogger("fednb.notebook")

REPEAT_SECONDS = 3.0


def open(session: Session) -> Channel | None:
    """Open the comm, in a notebook's kernel; None elsewhere."""
    if not hasattr(getattr(session.shell, "kernel", None), "comm_manager"):
        return None
    import comm

    return Channel(session, comm.create_comm(target_name=lab.TARGET, data=lab.told(lab.Hello(release=__version__))))


class Channel:
    """Tells pages, and does what they ask."""

    def __init__(self, session: Session, comm: Any) -> None:
        self._session = session
        self._comm = comm
        self._strange: set[str] = set()  # what was ignored, and said so once
        self._closed = threading.Event()
        self.feed = Feed(session, self.tell)
        hear_while_busy(comm)
        comm.on_msg(self._heard)
        session.log.changed = self._cell_changed
        session.connection_changed = self.feed.again
        session.owner.changed = self.tell
        threading.Thread(target=self._repeat, name="fednb-lab-repeat", daemon=True).start()

    def tell(self, news: lab.Told) -> None:
        """Send to every page. From any thread."""
        if self._closed.is_set():
            return
        self._comm.send(lab.told(news))

    def close(self) -> None:
        """Idempotent."""
        self._closed.set()
        self.feed.close()
        self._session.owner.close()

    def _cell_changed(self, news: lab.CellNews) -> None:
        self.tell(news)
        self.feed.again()

    def _repeat(self) -> None:
        while not self._closed.wait(REPEAT_SECONDS):
            if self._session.log.busy or self.feed.busy:
                self._tell_all()

    def _tell_all(self) -> None:
        self.tell(lab.Hello(release=__version__))
        self.feed.repeat()
        self.tell(self._session.owner.news())
        for news in self._session.log.news():
            self.tell(news)

    def _heard(self, message: dict[str, Any]) -> None:
        data = message.get("content", {}).get("data")
        try:
            question = lab.asked(data)
        except ValueError as error:
            kind = plain(str(data.get("kind") if isinstance(data, dict) else type(data).__name__), 40)
            if kind not in self._strange and len(self._strange) < 20:
                self._strange.add(kind)
                log.warning("a page sent %r, which this fednb does not know: %s", kind, error)
            return
        # members may take a while to answer, and this thread serves the front end
        threading.Thread(target=self._do, args=(question,), name="fednb-lab-do", daemon=True).start()

    def _do(self, question: lab.Question) -> None:
        self.feed.start()
        try:
            if isinstance(question, lab.HelloPage):
                self._tell_all()
            elif isinstance(question, lab.Look):
                self.feed.follow(question.run)
            elif isinstance(question, lab.Interrupt):
                count = self._session.log.stop()
                self.tell(lab.Note(text=f"interrupted {count} {'cell' if count == 1 else 'cells'}"))
            elif isinstance(question, lab.Refresh):
                self.feed.again()
            elif isinstance(question, lab.OwnersQuestion):
                self._session.owner.answer(question)
            elif self._session.current is not None:
                self._session.current.cancel(question.run)
                self.tell(lab.Note(text=f"run {plain(question.run, 64)} is being cancelled"))
        except FednbError as error:
            self.tell(lab.Note(text=plain(str(error), 500), failed=True))
