"""One member's part in one run: its link, its data, its progress, and how it ends.

A seat is the same thing at a party, at the coordinator and in a simulation. It watches what its role does
(bytes, operations, whom it waits for) and says so in events; it knows nothing of any protocol.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from fednb.errors import FednbError, LinkError, RunCancelled, UnexpectedMessage
from fednb.federation.messages import Crossing, Event, Join, MemberResult
from fednb.federation.receipts import Tally, values_in
from fednb.protocols.base import Budget, Dataset, Journal, Outcome, Protocol, RunContext
from fednb.protocols.executor import Executor
from fednb.typed import known
from fednb.wire.endpoint import Endpoint
from fednb.wire.link import Link, RunLink
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)

PULSE = 1.0  # seconds between events of a role that is busy or waiting


class WatchedLink:
    """A link that remembers what its role waits for, and counts what it sends."""

    def __init__(self, link: RunLink) -> None:
        self.me = link.me
        self.cast = link.cast
        self.waiting_for = ""
        self.tally = Tally()
        self._link = link

    def send(self, to: str, message: Message) -> None:
        talk = self._link.conversations.get(to)
        before = talk.traffic.bytes_out if talk else 0
        self._link.send(to, message)
        size = talk.traffic.bytes_out - before if talk else 0
        self.tally.add(to, type(message).__name__, values_in(message), size)

    def recv(self, sender: str, kind: type[M]) -> M:
        self.waiting_for = f"{kind.__name__} from {sender}"
        try:
            return self._link.recv(sender, kind)
        finally:
            self.waiting_for = ""


class Seat:
    """Plays one role once. `play` blocks; `cancel` may come from any thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        protocol: Protocol,
        join: Join,
        *,
        emit: Callable[[Event], None],
        guard: Callable[[Link], Link] = lambda link: link,
        budget: Budget | None = None,
        journal: Journal | None = None,
        threads: int = 1,
        executor: Executor | None = None,
        apart: Callable[[str, npt.NDArray[np.int64]], None] | None = None,
    ) -> None:
        self._protocol = protocol
        self._join = join
        self._emit = emit
        self._endpoint = endpoint
        self._budget = budget
        self._journal = journal
        self._threads = threads
        self._executor = executor
        self._guard = guard
        self._apart = apart
        self._cancelled: str | None = None
        self._link: RunLink | None = None
        self._watched: WatchedLink | None = None
        self._context: RunContext | None = None
        self._last: tuple[str, int, int | None] = ("prepare", 0, None)
        self._over = threading.Event()

    def play(self, data: Dataset) -> tuple[Outcome, MemberResult]:
        """Play to the end. Raises what the role raised, after every peer has been told."""
        join = self._join
        params = msgspec.convert(join.params, known(self._protocol.params))
        cast = {role: tuple(members) for role, members in join.cast.items()}
        self._link = RunLink(self._endpoint, join.run, cast)
        self._watched = WatchedLink(self._link)
        self._context = RunContext(
            name=join.run,
            emit=self._progress,
            budget=self._budget,
            journal=self._journal,
            check=self._check,
            threads=self._threads,
            executor=self._executor,
            apart=self._apart,
        )
        pulse = threading.Thread(target=self._pulse, name=f"fednb-pulse-{join.run}", daemon=True)
        pulse.start()
        try:
            self._check()
            outcome = self._protocol.roles[join.role].play(self._guard(self._watched), data, params, self._context)
            result = MemberResult(
                role=join.role,
                public=dict(outcome.public),
                operations=dict(self._context.operations),
                bytes_out=self._bytes("bytes_out"),
                bytes_in=self._bytes("bytes_in"),
            )
        except BaseException as error:
            ours = error
            if self._cancelled is not None:
                ours = RunCancelled(self._cancelled or "the run was cancelled.", run=join.run, member=join.role)
            self._link.abort(ours if isinstance(ours, FednbError) else _internal(ours))
            if ours is not error:
                raise ours from None
            raise
        finally:
            self._over.set()
            pulse.join()
            self._link.close()
        return outcome, result

    def crossed(self) -> list[Crossing]:
        """What this role sent so far."""
        return self._watched.tally.crossings() if self._watched else []

    def cancel(self, reason: str) -> None:
        """Stop as soon as the role looks up from its work or its wait."""
        if self._over.is_set():
            return
        if self._cancelled is None:
            self._cancelled = reason
        if self._link is not None:
            self._link.abort(RunCancelled(reason))
            self._link.close()

    def _check(self) -> None:
        if self._cancelled is not None:
            raise RunCancelled(self._cancelled, run=self._join.run)

    def _progress(self, phase: str, step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        self._last = (phase, step, total)
        self._say({name: float(value) for name, value in metrics.items()})

    def _pulse(self) -> None:
        before: tuple[object, ...] = ()
        while not self._over.wait(PULSE):
            waiting = self._watched.waiting_for if self._watched else ""
            now = (waiting, *sorted(self._bytes("bytes_in").items()), *sorted(self._operations().items()))
            if now != before:
                before = now
                self._say({}, waiting)

    def _say(self, metrics: dict[str, float], waiting: str = "") -> None:
        phase, step, total = self._last
        event = Event(
            member=self._endpoint.me,
            role=self._join.role,
            at=time.time(),
            phase=phase,
            step=step,
            total=total,
            metrics=metrics,
            operations=self._operations(),
            bytes_out=self._bytes("bytes_out"),
            bytes_in=self._bytes("bytes_in"),
            waiting_for=waiting,
        )
        try:
            self._emit(event)
        except LinkError:
            return  # nobody listens any more; the role itself learns it from its own link

    def _operations(self) -> dict[str, int]:
        return dict(self._context.operations) if self._context else {}

    def _bytes(self, direction: str) -> dict[str, int]:
        if self._link is None:
            return {}
        return {peer: getattr(talk.traffic, direction) for peer, talk in self._link.conversations.items()}


def explain(error: BaseException) -> str:
    """What may be said of an error to other members: fednb's own words, or only the type of anything else.

    The text of a foreign exception (pandas, numpy) can quote values of rows.
    """
    if isinstance(error, UnexpectedMessage | FednbError):
        return str(error)
    return f"an internal error ({type(error).__name__}); the member's own log has the details."


def _internal(error: BaseException) -> FednbError:
    return FednbError(explain(error))
