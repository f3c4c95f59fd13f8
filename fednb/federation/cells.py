"""The analyst's side of the "cells" vocabulary: run code at members, and hear what comes of it.

One conversation a member carries every cell and every question; a thread a member reads it and hands each answer
to the cell or question it belongs to. A cell may run at several members at once: its events arrive in one queue,
labelled by member, so that one waiting thread sees everything in the order in which it came.

    run = CellClient(endpoint).execute(["bank", "agency"], "fed.tables()")
    for member, event in run:      # Stream, Display, ..., and one CellDone a member at the end
        ...
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from fednb.errors import DataError, FednbError, LinkError, LinkTimeout, PeerLost
from fednb.federation import messages as m
from fednb.federation.arrow import from_arrow
from fednb.federation.outbox import Allowance
from fednb.text import plain
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.message import Message

if TYPE_CHECKING:
    import pandas as pd

CellEvent = m.CellStarted | m.Stream | m.Display | m.ClearOutput | m.CellError | m.Captured | m.CellDone
Answer = m.Completions | m.Inspection | m.Restarted | m.Asks | m.Mock
EVENT_SIZE = 64  # what an event counts beside its text
A = TypeVar("A", m.Completions, m.Inspection, m.Restarted, m.Asks, m.Mock)


class CellRun:
    """One cell at one member or at several. Iterate it, or call `next`; from one thread at a time."""

    invented = False  # whether it runs on invented rows, and nowhere else than here

    def __init__(self, cell: str, members: Sequence[str], capture: Sequence[str] = ()) -> None:
        self.cell = cell
        self.members = tuple(members)
        self._admission = {member: _Admission(member, capture) for member in self.members}
        self.done: dict[str, m.CellDone] = {}  # as taken by `next`
        self.lost: dict[str, LinkError] = {}  # members that went away before they were done, with the cause
        self._talks: Mapping[str, _Hears] = {}
        self._events: queue.SimpleQueue[tuple[str, CellEvent] | None] = queue.SimpleQueue()

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Members of which `next` has not yet given the CellDone."""
        return tuple(member for member in self.members if member not in self.done)

    def next(self, timeout: float | None = None) -> tuple[str, CellEvent] | None:
        """The next (member, event); None when nothing came in `timeout` seconds, or `wake` was called."""
        try:
            got = self._events.get(timeout=None if timeout is None else max(0.0, timeout))
        except queue.Empty:
            return None
        if got is not None and isinstance(got[1], m.CellDone):
            self.done.setdefault(got[0], got[1])
        return got

    def __iter__(self) -> Iterator[tuple[str, CellEvent]]:
        while self.unfinished:
            got = self.next()
            if got is not None:
                yield got

    @property
    def pending(self) -> bool:
        """True when `next` would not wait."""
        return not self._events.empty()

    def wake(self) -> None:
        """Make a waiting `next` return None. May be called from a signal handler."""
        self._events.put(None)

    def interrupt(self, *, kill: bool = False) -> None:
        """Interrupt the cell wherever it still runs; with `kill`, end the kernels that run it."""
        for member in self.unfinished:
            self._talks[member].send(m.Interrupt(self.cell, kill))

    def abandon(self) -> None:
        """Stop listening: later events of this cell are dropped."""
        for member in self.unfinished:
            self._talks[member].forget(self.cell)

    def _put(self, member: str, event: CellEvent) -> None:
        for each in self._admission[member].pass_on(event):
            self._events.put((member, each))


class _Admission:
    """What of a member's events reaches the cell: its agent keeps to an allowance, and is not trusted to.

    A queue that nobody reads fast enough must not fill this process, whatever a member sends. An honest agent
    never comes near: it counts less, and later.
    """

    def __init__(self, member: str, capture: Sequence[str]) -> None:
        self._allowance = Allowance(member, each=EVENT_SIZE)
        self._once: set[object] = {m.CellStarted, m.CellError, m.CellDone, *capture}

    def pass_on(self, event: CellEvent) -> Iterator[CellEvent]:
        passes, note = True, ""
        if isinstance(event, m.Stream):
            text, note = self._allowance.text(event.text)
            event, passes = m.Stream(event.cell, event.name, text), bool(text)
        elif isinstance(event, m.ClearOutput):
            kept, note = self._allowance.text(" ")
            passes = bool(kept)
        elif isinstance(event, m.Display):
            passes, note = self._allowance.display(_size(event.data) + _size(event.metadata))
        else:
            kind = event.name if isinstance(event, m.Captured) else type(event)
            passes = kind in self._once
            self._once.discard(kind)
        if passes:
            yield event
        if note:
            yield m.Stream(event.cell, "stderr", note)


def _size(value: Any) -> int:
    """About how much memory a value takes that came in a field without a type."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(_size(key) + _size(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return 8


class _Hears(Protocol):
    """Who runs a cell, as the cell knows it."""

    def send(self, message: Message) -> None: ...

    def forget(self, cell: str) -> None: ...


class _Talk:
    """A conversation with one member, and the thread that reads it."""

    def __init__(self, endpoint: Endpoint, member: str, context: str) -> None:
        self.member = member
        self.over = False
        self._conversation: Conversation = endpoint.open(member, context)
        self._runs: dict[str, CellRun] = {}
        self._questions: dict[str, queue.SimpleQueue[Answer | None]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._read, name=f"fednb-cells-{member}", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a cell of ours is running there, or waits to."""
        return bool(self._runs)

    def start(self, run: CellRun, request: m.Execute | m.Ask) -> None:
        with self._lock:
            over = self.over
            if not over:
                self._runs[run.cell] = run
        if over:
            self._lose(run, PeerLost(f"the conversation with {self.member} is over", member=self.member))
            return
        try:
            self._conversation.send(request)
        except LinkError as error:
            self.forget(run.cell)
            self._lose(run, error)

    def send(self, message: Message) -> None:
        try:
            self._conversation.send(message)
        except LinkError:
            return  # the reader finds out and tells every cell

    def ask(self, query: str, message: Message, timeout: float | None) -> Answer | None:
        """The answer, or None when none came in time or the member is gone."""
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        with self._lock:
            if self.over:
                return None
            self._questions[query] = answers
        try:
            self._conversation.send(message)
            return answers.get(timeout=timeout)
        except (queue.Empty, LinkError):
            return None
        finally:
            with self._lock:
                self._questions.pop(query, None)

    def forget(self, cell: str) -> None:
        with self._lock:
            self._runs.pop(cell, None)

    def close(self) -> None:
        self._conversation.close("the analyst closed the connection")

    def _read(self) -> None:
        try:
            while True:
                self._take(
                    self._conversation.recv(
                        m.Stream,
                        m.Display,
                        m.CellDone,
                        m.CellStarted,
                        m.CellError,
                        m.ClearOutput,
                        m.Captured,
                        m.Completions,
                        m.Inspection,
                        m.Restarted,
                        m.Asks,
                        m.Mock,
                    )
                )
        except FednbError as error:
            cause = error if isinstance(error, LinkError) else LinkError(str(error), member=self.member)
        self._conversation.close()
        with self._lock:
            self.over = True
            runs, self._runs = self._runs, {}
            questions, self._questions = self._questions, {}
        for run in runs.values():
            self._lose(run, cause)
        for answers in questions.values():
            answers.put(None)

    def _take(self, message: Message) -> None:
        if isinstance(message, Answer):
            with self._lock:
                answers = self._questions.get(message.query)
            if answers is not None:  # else it came too late
                answers.put(message)
        elif isinstance(message, CellEvent):
            with self._lock:
                run = self._runs.get(message.cell)
                if isinstance(message, m.CellDone):
                    self._runs.pop(message.cell, None)
            if run is not None:
                run._put(self.member, message)

    def _lose(self, run: CellRun, cause: LinkError) -> None:
        run.lost[self.member] = cause
        run._put(self.member, m.CellDone(run.cell, "died", reason=str(cause)))


class CellClient:
    """Cells, completions and inspections at other members, over one endpoint. May be used from any thread."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._talks: dict[tuple[str, str], _Talk] = {}
        self._lock = threading.Lock()

    def execute(self, members: Sequence[str], code: str, *, capture: Sequence[str] = ()) -> CellRun:
        """Start `code` at every one of `members`; `capture` names values that come back as Captured events.

        Raises LinkError for a member that the federation does not know, PeerLost for one that is down; then the
        cell was started nowhere. A member that goes away later shows in the run: a CellDone "died", and `lost`.
        """
        run = CellRun(secrets.token_hex(8), members, capture)
        return self._start(run, m.Execute(run.cell, code, list(capture)), "cells")

    def ask(self, members: Sequence[str], code: str, reason: str) -> CellRun:
        """Ask the owners of `members` to approve `code`; the same cell again tells what became of it.

        Where it has to wait, the member answers with one CellDone "waiting", which says for what. Raises as `execute`.
        """
        run = CellRun(secrets.token_hex(8), members)
        return self._start(run, m.Ask(run.cell, code, reason), "asks")

    def asked(self, member: str, timeout: float | None = 10.0) -> list[m.AskState]:
        """What we asked the owner of `member` for, oldest first; none when the member is down or approves nothing."""
        query = secrets.token_hex(8)
        got = self._ask(m.Asks, member, query, m.ListAsks(query), timeout, "asks")
        return got.asks if got is not None else []

    def mock(self, member: str, table: str, timeout: float | None = 10.0) -> pd.DataFrame:
        """Invented rows of the shape of a member's table, to try cells on. Raises DataError, LinkTimeout."""
        self.check([member])
        query = secrets.token_hex(8)
        got = self._ask(m.Mock, member, query, m.AskMock(query, table), timeout, "asks")
        if got is None:
            raise LinkTimeout(f"{member} sent no invented rows; it may not approve cells.", member=member)
        if got.arrow is None:
            raise DataError(f"{member}: {plain(got.error)}")
        return from_arrow(got.arrow, f"the invented rows of {table!r}")

    def _start(self, run: CellRun, request: m.Execute | m.Ask, context: str) -> CellRun:
        self.check(run.members)
        run._talks = talks = {member: self._talk(member, context) for member in run.members}
        for talk in talks.values():
            talk.start(run, request)
        return run

    def check(self, members: Sequence[str]) -> None:
        """Raise LinkError for a member that is not on the roster, PeerLost for one that is down."""
        known = self._endpoint.members()
        for member in members:
            if member not in known:
                names = ", ".join(sorted(name for name, seen in known.items() if seen.kind in ("party", "coordinator")))
                raise LinkError(f"no member {member!r} in this federation; it has {names}", member=member)
        down = [member for member in members if not known[member].up]
        if down:
            verb = "is" if len(down) == 1 else "are"
            raise PeerLost(
                f"{' and '.join(down)} {verb} down, so the cell was not started. `%fed status` shows who is up; "
                f"ask the owner of {down[0]} to start its agent.",
                member=down[0],
            )

    def complete(self, member: str, code: str, cursor: int, timeout: float | None = 1.0) -> m.Completions | None:
        """What could stand at `cursor` (in code points); None when the member is busy, down or too slow."""
        query = secrets.token_hex(8)
        return self._ask(m.Completions, member, query, m.Complete(query, code, cursor), timeout)

    def inspect(
        self, member: str, code: str, cursor: int, *, detail: bool = False, timeout: float | None = 1.0
    ) -> m.Inspection | None:
        """What is known of the name at `cursor` (in code points); None when the member is busy, down or too slow."""
        query = secrets.token_hex(8)
        return self._ask(m.Inspection, member, query, m.Inspect(query, code, cursor, 1 if detail else 0), timeout)

    def restart(self, member: str, timeout: float | None = 30.0) -> None:
        """Give us a fresh kernel at `member`. Raises PeerLost, LinkTimeout."""
        self.check([member])
        query = secrets.token_hex(8)
        began = time.monotonic()
        if self._talk(member).ask(query, m.Restart(query), timeout) is None:
            waited = time.monotonic() - began
            raise LinkTimeout(f"{member} did not confirm a new kernel within {waited:.1f} s", member=member)

    def close(self) -> None:
        """End every conversation. Idempotent."""
        with self._lock:
            talks, self._talks = self._talks, {}
        for talk in talks.values():
            talk.close()

    def _ask(
        self, kind: type[A], member: str, query: str, question: Message, timeout: float | None, context: str = "cells"
    ) -> A | None:
        seen = self._endpoint.members().get(member)
        if seen is None or not seen.up:
            return None
        talk = self._talk(member, context)
        if talk.busy and context == "cells":
            return None  # its kernel answers after our cell: typing must not wait for that
        answer = talk.ask(query, question, timeout)
        return answer if isinstance(answer, kind) else None

    def _talk(self, member: str, context: str = "cells") -> _Talk:
        with self._lock:
            talk = self._talks.get((member, context))
            if talk is None or talk.over:
                talk = self._talks[member, context] = _Talk(self._endpoint, member, context)
            return talk


def captured_value(value: m.PlainValue | m.ArrayValue | m.TableValue) -> Any:
    """A value that came back with a cell (`-o`), as one's own: arrays and tables may be written to.

    Raises DataError for a table that is not sound.
    """
    if isinstance(value, m.PlainValue):
        return value.value
    if isinstance(value, m.ArrayValue):
        return value.value.copy()
    frame = from_arrow(value.arrow, "the captured table")
    return frame.iloc[:, 0] if value.series else frame
