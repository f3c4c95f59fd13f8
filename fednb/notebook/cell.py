"""A cell that runs at other members: waited for, shown, interrupted and brought to one result.

The wait is one queue. A notebook's interrupt, a deadline and the remote events all end up in it, so that nothing
polls and nothing is lost between two of them. An interrupt goes to every member where the cell still runs; a member
that does not obey within the grace time, or at the second interrupt, gets its kernel killed.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fednb.errors import CellFailure, DataError, FednbError, LinkTimeout, Refused, RemoteError
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent, CellRun, captured_value
from fednb.federation.leaving import leaving
from fednb.notebook import ansi
from fednb.notebook.replay import Replay
from fednb.notebook.sanitise import clean_text

GRACE_SECONDS = 10.0  # between an interrupt and the kill
KILL_SECONDS = 10.0  # between the kill and giving up


class RemoteCell:
    """One cell at one member or at several. Call `follow` once, then `result`."""

    def __init__(
        self,
        run: CellRun,
        replay: Replay,
        *,
        capture: Sequence[str] = (),
        timeout: float | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.run = run
        self.failures: dict[str, CellFailure] = {}
        self.waits: dict[str, str] = {}  # members whose owner has to decide first, with what they say
        self._replay = replay
        self._capture = tuple(capture)
        self._values: dict[str, dict[str, Any]] = {}
        self._errors: dict[str, FednbError] = {}  # failures that have a type of their own here
        self._timeout = timeout
        self._grace = grace
        self._late: tuple[str, ...] = ()  # who had not finished at the deadline
        self._killed: tuple[str, ...] = ()
        self._wanted = 0  # interrupts asked for: 1 interrupt, 2 kill, 3 give up
        self._sent = 0
        self._next_step: float | None = None  # when to take the next of these three by ourselves

    def interrupt(self) -> None:
        """Interrupt it; again: kill the kernels that run it; again: stop waiting. From any thread or signal handler."""
        self._wanted += 1
        self.run.wake()

    def follow(self) -> None:
        """Show events until the cell is over everywhere."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while self.run.unfinished:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                deadline = None
                self._late = self.run.unfinished
                self._wanted = max(self._wanted, 1)
            if self._next_step is not None and now >= self._next_step:
                self._wanted = max(self._wanted, self._sent + 1)
            if self._wanted > self._sent and not self._stop(now):
                return
            redraw = self._replay.redraw()
            until = [moment - now for moment in (deadline, self._next_step) if moment is not None]
            got = self.run.next(min([*until, *([redraw] if redraw is not None else [])], default=None))
            if got is not None:
                self._take(*got)
        self._replay.redraw(now=True)

    def result(self) -> Any:
        """What `capture` asked for: one value, or a dict by member when there are several; else None.

        Raises RemoteError, or Refused, PeerLost or LinkTimeout where that alone is the reason.
        """
        error = self._error()
        if error is not None:
            raise error
        values = {member: self._captured(member) for member in self.run.members}
        return values[self.run.members[0]] if len(values) == 1 else values

    def _captured(self, member: str) -> Any:
        got = self._values.get(member, {})
        for name in self._capture:
            if name not in got:
                raise DataError(f"{member} sent no value of {name!r}: the cell there did not define it.")
        values = [got[name] for name in self._capture]
        return values[0] if len(values) == 1 else tuple(values) or None

    def _take(self, member: str, event: CellEvent) -> None:
        if isinstance(event, m.CellError):
            self.failures[member] = CellFailure(
                ansi.plain(event.ename)[:200],
                clean_text(event.evalue, 10_000),
                tuple(clean_text("\n".join(event.traceback), 200_000).splitlines()),
            )
        elif isinstance(event, m.Captured):
            try:
                self._values.setdefault(member, {})[event.name] = captured_value(event.value)
            except FednbError as error:
                self._errors[member] = error
                self.failures.setdefault(member, CellFailure(type(error).__name__, str(error)))
        elif isinstance(event, m.CellDone):
            self._finish(member, event)
        else:
            self._replay.take(member, event)

    def _finish(self, member: str, done: m.CellDone) -> None:
        reason = clean_text(done.reason, 10_000)
        lost = self.run.lost.get(member)
        if lost is not None:
            self._errors[member] = lost
            self.failures.setdefault(member, CellFailure(type(lost).__name__, str(lost)))
        elif done.status == "refused":
            self._errors[member] = Refused(f"{member} refused the cell: {reason}", member=member)
            self.failures.setdefault(member, CellFailure("Refused", reason))
        elif done.status == "died":
            self.failures[member] = CellFailure("KernelDied", reason or "the kernel died; its variables are gone")
        elif done.status == "interrupted":
            self.failures.setdefault(member, CellFailure("KeyboardInterrupt", reason or "the cell was interrupted"))
        elif done.status == "error":
            self.failures.setdefault(member, CellFailure("Error", reason or "the cell failed and gave no reason"))
        elif done.status == "waiting":
            self.waits[member] = reason
            self._replay.take(member, m.Stream(done.cell, "stderr", f"{reason}\n"))
            self._replay.end(member, "waiting for its owner")
            return
        failure = self.failures.get(member)
        if failure is None:
            self._replay.end(member, f"{done.seconds:.1f} s")
        else:
            self._replay.end(member, failure.ename, failure)

    def _stop(self, now: float) -> bool:
        """Take the next step towards the end; False when it is time to stop waiting."""
        self._sent = self._wanted
        names = ", ".join(self.run.unfinished)
        if leaving():
            for member in self.run.unfinished:
                self.failures[member] = CellFailure("KeyboardInterrupt", "this notebook's kernel was shut down")
            self.run.abandon()
            return False
        if self._sent == 1:
            self._next_step = now + self._grace
            self._say(
                f"Interrupting the cell at {names}. "
                f"Interrupt again to kill its kernel; what does not stop within {self._grace:g} s is killed anyway."
            )
            self.run.interrupt()
            return True
        if self._sent == 2:
            self._next_step = now + KILL_SECONDS
            self._killed = self.run.unfinished
            self._say(f"Killing the kernel at {names}.")
            self.run.interrupt(kill=True)
            return True
        for member in self.run.unfinished:
            error = LinkTimeout(f"{member} confirmed neither interrupt nor kill; is its agent up?", member=member)
            self._errors[member] = error
            self.failures[member] = CellFailure("LinkTimeout", str(error))
            self._replay.end(member, "no answer", self.failures[member])
        self.run.abandon()
        return False

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def _error(self) -> FednbError | None:
        for member in self._late:
            self.failures.setdefault(member, CellFailure("LinkTimeout", "the cell outlived its --timeout"))
        if not self.failures:
            return None
        if set(self.failures) <= set(self._late):
            names = ", ".join(self._late)
            killed = f" It did not obey at {', '.join(self._killed)}: the kernel was killed, its variables are gone."
            return LinkTimeout(
                f"the cell did not finish within {self._timeout:g} s at {names}, and was interrupted there."
                f"{killed if self._killed else ''} "
                "Allow it more time with --timeout, or let it run in the background with --noblock.",
                member=self._late[0],
            )
        if len(self.run.members) == 1 and self._errors:
            return next(iter(self._errors.values()))
        return RemoteError({member: self.failures[member] for member in self.run.members if member in self.failures})


class PendingCell:
    """A cell that goes on in the background (--noblock). Its output stays under the cell that started it."""

    def __init__(self, cell: RemoteCell, work: Callable[[], None], refresh: Callable[[], None]) -> None:
        self._cell = cell
        self._work = work
        self._refresh = refresh
        self._over = threading.Event()
        self._failure: BaseException | None = None
        threading.Thread(target=self._run, name="fednb-pending-cell", daemon=True).start()

    def done(self) -> bool:
        """Whether it is over everywhere."""
        return self._over.is_set()

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it: the value of -o (by member when there are several), else None; raises what the cell raised.

        Raises LinkTimeout when it is not over within `timeout` seconds; it goes on then.
        """
        if not self._over.wait(timeout):
            raise LinkTimeout(f"the cell still runs at {', '.join(self._cell.run.unfinished)} after {timeout:g} s")
        self._refresh()
        if self._failure is not None:
            raise self._failure
        return self._cell.result()

    def cancel(self) -> bool:
        """Interrupt it (again: kill the kernels that run it). False when it was over already."""
        if self.done():
            return False
        self._cell.interrupt()
        return True

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # shown by `result`, where somebody looks
            self._failure = error
        finally:
            self._over.set()

    def __repr__(self) -> str:
        where = ", ".join(self._cell.run.members)
        if not self.done():
            return f"<cell at {where}: running; .result() waits, .cancel() interrupts>"
        failed = [f"{member}: {failure.ename}" for member, failure in self._cell.failures.items()]
        return f"<cell at {where}: {'failed, ' + ', '.join(failed) if failed else 'done'}>"


@contextmanager
def interrupts(action: Callable[[], None]) -> Iterator[None]:
    """Within, Ctrl-C and a notebook's interrupt call `action` instead of raising at some arbitrary place.

    Outside the main thread, where signals do not arrive, this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        action()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
