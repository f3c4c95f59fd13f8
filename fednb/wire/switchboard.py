"""The conversations of one endpoint: opened, listened for, or parked until somebody asks for them.

Every transport shares this: it decides what arrives where, in which thread a handler runs, and what a waiting
`recv` hears when a conversation ends. A transport adds how frames travel (`Talk._transmit`) and how an end does.
"""

from __future__ import annotations

import collections
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from fednb.errors import FednbError, LinkError, LinkTimeout, PeerLost, UnexpectedMessage
from fednb.wire import codec
from fednb.wire.codec import Frame
from fednb.wire.endpoint import Conversation, Traffic
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)
log = logging.getLogger("fednb.wire")

MAX_PARKED = 256  # conversations from one peer that nobody here asked for yet
PARKED_SECONDS = 120.0  # after its peer has ended it, a parked one waits no longer than this


def identity_of(address: str) -> str:
    """The member behind an address: "analyst" of "analyst#4f2c"."""
    return address.partition("#")[0]


class Talk:
    """One end of a conversation, on any transport."""

    def __init__(self, board: Switchboard, peer: str, context: str) -> None:
        self.peer = peer
        self.context = context
        self.traffic = Traffic()
        self.board = board
        self._arrived: collections.deque[Sequence[Frame]] = collections.deque()
        self._change = threading.Condition(board.lock)
        self._closed = False  # by this end
        self.ended_at = math.inf
        self._ended: tuple[type[LinkError], str] | None = None  # how the other end, or the way there, ended it

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<conversation with {self.peer} about {self.context!r}, {state}>"

    def send(self, message: Message) -> None:
        frames = codec.encode(message)
        self._raise_if_over()
        self._transmit(message, frames)
        with self._change:
            self.traffic.messages_out += 1
            self.traffic.bytes_out += codec.total_bytes(frames)

    def recv(self, kind: type[M], /, *more: type[Message], timeout: float | None = None) -> M:
        frames = self._next((kind, *more), timeout)
        try:
            return codec.decode(frames, kind, *more)
        except UnexpectedMessage as error:
            raise UnexpectedMessage(f"from {self.peer}: {error}", member=identity_of(self.peer)) from None

    def close(self, reason: str = "") -> None:
        with self._change:
            if self._closed:
                return
            self._closed = True
            ended = self._ended is not None
            self._arrived.clear()
            self._change.notify_all()
        self.board.forget(self)
        if not ended:
            self._finish(reason)

    # ------------------------------------------------------------ for transports

    def _transmit(self, message: Message, frames: list[Frame]) -> None:
        """Take the frames over: encode's contract says that they are views of arrays which may change."""
        raise RuntimeError("a transport defines this")

    def _finish(self, reason: str) -> None:
        """Tell the other end, after all that was sent."""
        raise RuntimeError("a transport defines this")

    def deliver(self, frames: Sequence[Frame]) -> None:
        """A whole message came."""
        with self._change:
            if self._closed or self._ended:
                return
            self._arrived.append(frames)
            self._change.notify()

    def end(self, error: type[LinkError], text: str) -> None:
        """No more will come: `recv` raises this once it has handed out what did."""
        with self._change:
            if self._ended is None:
                self._ended = (error, text)
                self.ended_at = time.monotonic()
                self._change.notify_all()

    def _blocked(self, wanted: tuple[type[Message], ...]) -> None:
        """Called with the lock held, before each wait."""

    def _unblocked(self) -> None:
        """Called with the lock held, after the waiting is over, however it ended."""

    def _taken(self, frames: Sequence[Frame]) -> None:
        """Called with the lock held: `recv` took this message."""

    def _over(self) -> LinkError | None:
        """Why nothing can be sent any more."""
        if self._closed:
            return PeerLost(
                f"the conversation with {self.peer} about {self.context!r} is closed", member=identity_of(self.peer)
            )
        if self._ended:
            error, text = self._ended
            return error(text, member=identity_of(self.peer))
        return None

    def _raise_if_over(self) -> None:
        over = self._over()
        if over:
            raise over

    def _next(self, wanted: tuple[type[Message], ...], timeout: float | None) -> Sequence[Frame]:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._change:
            waited = False
            try:
                while not self._arrived:
                    self._raise_if_over()
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        names = " or ".join(kind.__name__ for kind in wanted)
                        raise LinkTimeout(
                            f"{self.board.me} waited {timeout:g} s for {names} from {self.peer} "
                            f"(about {self.context!r})",
                            member=identity_of(self.peer),
                        )
                    waited = True
                    self._blocked(wanted)
                    if not self._ended:  # _blocked may have found a deadlock and ended this very conversation
                        self._change.wait(left)
            finally:
                if waited:
                    self._unblocked()
            frames = self._arrived.popleft()
            self.traffic.messages_in += 1
            self.traffic.bytes_in += codec.total_bytes(frames)
            self._taken(frames)
            return frames


Handler = Callable[[Conversation], None]


class Switchboard:
    """Which conversation belongs to whom at one endpoint."""

    def __init__(self, me: str, lock: threading.RLock | None = None) -> None:
        self.me = me
        self.lock = lock or threading.RLock()
        self._live: dict[tuple[str, str], Talk] = {}
        self._parked: dict[tuple[str, str], collections.deque[Talk]] = {}
        self._listeners: dict[str, Handler] = {}
        self._handlers: set[threading.Thread] = set()
        self._closed = False

    def talks(self) -> list[Talk]:
        """All of them, parked ones too."""
        with self.lock:
            return [*self._live.values(), *(talk for queue in self._parked.values() for talk in queue)]

    def open(self, peer: str, context: str, make: Callable[[], Talk]) -> Talk:
        """The parked conversation that `peer` began, else a new one from `make` (called with the lock held)."""
        with self.lock:
            self._raise_if_closed()
            key = (peer, context)
            if self._in_use(key):
                raise ValueError(f"{self.me} has a conversation with {peer} about {context!r} already; close it first")
            queue = self._parked.get(key)
            if queue:
                talk = queue.popleft()
                if not queue:
                    del self._parked[key]
            else:
                talk = make()
            self._live[key] = talk
            return talk

    def live(self, peer: str, context: str) -> Talk | None:
        """The one that is open here."""
        with self.lock:
            return self._live.get((peer, context))

    def arrive(self, talk: Talk) -> bool:
        """A peer began `talk`: hand it to a listener, or park it. False: too many wait already."""
        with self.lock:
            if self._closed:
                return False
            handler = self._listener(talk.context)
            key = (talk.peer, talk.context)
            if handler and not self._in_use(key):
                self._live[key] = talk
                self._start(talk, handler)
                return True
            self._clear_stale()
            parked = sum(len(queue) for (peer, _), queue in self._parked.items() if peer == talk.peer)
            if parked >= MAX_PARKED:
                return False
            self._parked.setdefault(key, collections.deque()).append(talk)
            return True

    def listen(self, prefix: str, handler: Handler) -> None:
        """Serve the conversations under `prefix`, those that wait already too. The longest prefix wins."""
        with self.lock:
            self._raise_if_closed()
            if prefix in self._listeners:
                raise ValueError(f"{self.me} listens for {prefix!r} already")
            self._listeners[prefix] = handler
            self._serve_parked()

    def forget(self, talk: Talk) -> None:
        """This end is done with `talk`: the same peer and context may be opened anew."""
        with self.lock:
            key = (talk.peer, talk.context)
            if self._live.get(key) is talk:
                del self._live[key]
                self._serve_parked()
            queue = self._parked.get(key)
            if queue and talk in queue:
                queue.remove(talk)
                if not queue:
                    del self._parked[key]

    def close(self, reason: str, linger: float = 5.0) -> None:
        """Close every conversation, and wait for the handlers to return."""
        with self.lock:
            self._closed = True
            talks = self.talks()
        for talk in talks:
            talk.close(reason)
        deadline = time.monotonic() + linger
        for thread in list(self._handlers):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise LinkError(f"the endpoint of {self.me} is closed", member=self.me)

    def _in_use(self, key: tuple[str, str]) -> bool:
        live = self._live.get(key)
        return live is not None and live._ended is None  # one that the peer ended gives way to its successor

    def _clear_stale(self) -> None:
        """Drop what was parked, ended and never asked for: a run that failed before this member joined it."""
        oldest = time.monotonic() - PARKED_SECONDS
        for key, queue in list(self._parked.items()):
            kept = collections.deque(talk for talk in queue if talk.ended_at > oldest)
            if kept:
                self._parked[key] = kept
            else:
                del self._parked[key]

    def _listener(self, context: str) -> Handler | None:
        fitting = [prefix for prefix in self._listeners if context.startswith(prefix)]
        return self._listeners[max(fitting, key=len)] if fitting else None

    def _serve_parked(self) -> None:
        for key in list(self._parked):
            handler = self._listener(key[1])
            if handler and not self._in_use(key):
                queue = self._parked[key]
                talk = queue.popleft()
                if not queue:
                    del self._parked[key]
                self._live[key] = talk
                self._start(talk, handler)

    def _start(self, talk: Talk, handler: Handler) -> None:
        name = f"{self.me}: {talk.context} with {talk.peer}"
        thread = threading.Thread(target=self._serve, args=(talk, handler), name=name, daemon=True)
        self._handlers.add(thread)
        thread.start()

    def _serve(self, talk: Talk, handler: Handler) -> None:
        try:
            handler(talk)
        except FednbError as error:
            talk.close(str(error))
        except Exception as error:  # an unforeseen failure must end the conversation, not leave the peer waiting
            log.exception("%s failed while it served %s", self.me, talk)
            talk.close(f"{self.me} failed unexpectedly: {type(error).__name__}")  # its text might quote data
        finally:
            talk.close()
            with self.lock:
                self._handlers.discard(threading.current_thread())
