"""What one cell may say, and the queue in which it waits for a slow network.

A cell can print faster than any link carries and without end. What it says is counted when it leaves the kernel:
beyond an allowance it is dropped there, with one note, so that neither this process nor the analyst's fills up and
an interrupt always finds its way.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

from fednb.errors import LinkError
from fednb.federation import messages as m
from fednb.wire.endpoint import Conversation
from fednb.wire.message import Message

TEXT = 8 << 20  # characters a cell may print at once ...
TEXT_PER_SECOND = 4 << 10  # ... and in the long run: a progress bar of hours must not fall silent
DISPLAYS = 1000
DISPLAYS_PER_SECOND = 10
DISPLAY_BYTES = 64 << 20
DISPLAY_BYTES_PER_SECOND = 256 << 10
MERGE = 1 << 16  # characters up to which waiting prints become one message


class Allowance:
    """What one cell may still say."""

    def __init__(self, member: str, each: int = 0) -> None:
        """`each`: characters that a print counts beside its own, where many empty ones would be a burden too."""
        self._member = member
        self._each = each
        self._began = time.monotonic()
        self._text = 0
        self._displays = 0
        self._bytes = 0
        self._noted: set[str] = set()

    def text(self, text: str) -> tuple[str, str]:
        """How much of `text` goes out, and a note to the analyst when this is the first time that some does not."""
        left = TEXT + int(TEXT_PER_SECOND * self._seconds()) - self._text
        if len(text) + self._each <= left:
            self._text += len(text) + self._each
            return text, ""
        # once over, only whole pieces pass: halves of lines say nothing
        kept = "" if "text" in self._noted else text[: max(left, 0)]
        self._text += len(kept)
        return kept, self._note("text", f"printed more than {TEXT >> 20} MiB")

    def display(self, size: int) -> tuple[bool, str]:
        """Whether a display of `size` bytes goes out, and a note as above."""
        seconds = self._seconds()
        if self._displays + 1 > DISPLAYS + DISPLAYS_PER_SECOND * seconds:
            return False, self._note("displays", f"displayed more than {DISPLAYS} things")
        if self._bytes + size > DISPLAY_BYTES + DISPLAY_BYTES_PER_SECOND * seconds:
            return False, self._note("bytes", f"displayed more than {DISPLAY_BYTES >> 20} MiB")
        self._displays += 1
        self._bytes += size
        return True, ""

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _note(self, what: str, excess: str) -> str:
        if what in self._noted:
            return ""
        self._noted.add(what)
        return f"\n[{self._member}] this cell {excess}; what follows is left out.\n"


class Outbox:
    """Sends to one conversation from a thread of its own, so that whoever puts never waits for the network."""

    def __init__(self, talk: Conversation, passes: Callable[[Message], Message] = lambda message: message) -> None:
        """`passes` sees every message first, also when nobody listens any more, and says what goes out."""
        self.talk = talk
        self._passes = passes
        self._waiting: collections.deque[Message] = collections.deque()
        self._change = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._send, name=f"fednb-outbox-{talk.peer}", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Queue `message`; prints that wait anyway are joined."""
        message = self._passes(message)
        with self._change:
            if self._over:
                return
            last = self._waiting[-1] if self._waiting else None
            if (
                isinstance(message, m.Stream)
                and isinstance(last, m.Stream)
                and (last.cell, last.name) == (message.cell, message.name)
                and len(last.text) + len(message.text) <= MERGE
            ):
                self._waiting[-1] = m.Stream(last.cell, last.name, last.text + message.text)
                return
            self._waiting.append(message)
            self._change.notify()

    def close(self) -> None:
        """Drop what still waits."""
        with self._change:
            self._over = True
            self._waiting.clear()
            self._change.notify()

    def _send(self) -> None:
        while True:
            with self._change:
                while not self._waiting:
                    if self._over:
                        return
                    self._change.wait()
                message = self._waiting.popleft()
            try:
                self.talk.send(message)
            except LinkError:
                self.close()
            except (TypeError, ValueError) as error:  # it cannot be encoded: too big, or nested too deep
                cell = getattr(message, "cell", None)
                if cell is not None and not isinstance(message, m.Stream):
                    self.put(m.Stream(cell, "stderr", f"\n[an output of this cell could not be sent: {error}]\n"))
