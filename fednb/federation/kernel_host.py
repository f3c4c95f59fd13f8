"""The kernels of a member: one for each analyst, behind the agent, and none where the policy has no place for cells.

Each kernel is a stock ipykernel without keys or network of ours. It reaches its own agent through a pipe that is
made with it, and analysts reach it only through the "cells" vocabulary.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fednb.errors import FednbError, LinkError, Refused
from fednb.federation import messages as m
from fednb.federation.kernel import START_SECONDS, Kernel
from fednb.federation.kernel_process import KernelProcess
from fednb.federation.outbox import Outbox
from fednb.federation.receipts import Book, CellBook
from fednb.federation.translate import no_answer
from fednb.policy.mode import MemberPolicy
from fednb.policy.sandbox import Sandbox
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.message import Message

log = logging.getLogger("fednb.kernel")

Pipe = Callable[[Path], Endpoint]


class KernelHost:
    """Serves the "cells" conversations of analysts on one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        policy: MemberPolicy,
        *,
        run_folder: Path,
        work_folder: Path,
        env: Mapping[str, str] | None = None,
        extensions: Sequence[str] = (),
        pipe: Pipe | None = None,
        attach: Callable[[Endpoint, str], None] | None = None,
        interrupt_abandoned: bool = True,
        book: Book | None = None,
        sandbox: Sandbox | None = None,
        approves: bool = False,
    ) -> None:
        """Listen at once; kernels are started on first use, or by `prewarm`.

        run_folder : for sockets: short, 0700, removed by the caller.
        work_folder : where cells run, in "files"; the kernels' IPython profile lies beside it.
        env, extensions : what a kernel gets beside the plain environment; extensions are modules for IPython.
        pipe : makes the agent's end of a kernel's pipe; its path reaches the kernel as FEDNB_PIPE.
        attach : called with each pipe and the analyst whose kernel it belongs to, before the first cell.
        interrupt_abandoned : interrupt a cell whose analyst has gone. The coordinator does not: a run that such a
            cell follows would be cancelled with it, and runs go on when a notebook ends.
        book : where every cell is written down.
        sandbox : what kernels are started in; None (open mode on loopback only): as any process of the agent's user.
        approves : somebody else serves "asks"; else a cell that is asked for runs, or is refused, as any other.
        """
        self._endpoint = endpoint
        self._policy = policy
        self._run_folder = run_folder
        self._files = work_folder / "files"
        self._profile = work_folder / "ipython"
        for folder in (run_folder, work_folder, self._files, self._profile):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._env = dict(env or {})
        self._extensions = tuple(extensions)
        self._make_pipe = pipe
        self._attach = attach
        self._interrupt_abandoned = interrupt_abandoned
        self._book = book or Book(endpoint.me)
        self._sandbox = sandbox
        self._numbers = itertools.count(1)
        self._seats: dict[str, _Seat] = {}
        self._spare: _Seat | None = None
        self._lock = threading.Lock()
        self._closed = False
        endpoint.listen("cells", self._serve)
        if not approves:
            endpoint.listen("asks", self._serve)

    def prewarm(self) -> None:
        """Start the first analyst's kernel before it is asked for, and wait until it is there.

        Does nothing where cells are not allowed.
        """
        if self._refusal():
            return
        with self._lock:
            if self._spare is not None or self._seats or self._closed:
                return
            seat = self._spare = _Seat(self)
        seat.kernel.ready.wait(START_SECONDS)

    def lock(self) -> None:
        """The policy has become protocol-only: running cells may end, then the kernels go."""
        reason = self._refusal()
        with self._lock:
            seats = [*self._seats.values(), *([self._spare] if self._spare else [])]
        for seat in seats:
            seat.kernel.retire(reason)

    def close(self) -> None:
        """Kill all kernels; leaves no process and no socket behind."""
        with self._lock:
            self._closed = True
            seats = [*self._seats.values(), *([self._spare] if self._spare else [])]
            self._seats, self._spare = {}, None
        for seat in seats:
            seat.close()

    def _refusal(self, analyst: str = "") -> str:
        try:
            if analyst:
                self._policy.check_cells_of(analyst)
            else:
                self._policy.check_cells()
        except Refused as refusal:
            return str(refusal)
        return ""

    def _serve(self, talk: Conversation) -> None:
        analyst = talk.peer.partition("#")[0]
        known = self._endpoint.members().get(analyst)
        if known is None or known.kind != "analyst":
            talk.close(f"{self._endpoint.me} runs cells of analysts only, and {analyst} is none.")
            return
        book = self._book.cells(analyst)
        outbox = Outbox(talk, book.passes)
        try:
            while True:
                request = talk.recv(m.Execute, m.Complete, m.Inspect, m.Interrupt, m.Restart, m.Ask)
                asked = isinstance(request, m.Ask)
                if isinstance(request, m.Ask):
                    request = m.Execute(request.cell, request.code)
                rule = f"mode {self._policy.mode}"
                refusal = self._refusal(analyst)
                unwritten = self._unwritten(request, book, "refused" if refusal else "allowed", rule)
                if refusal := refusal or unwritten:
                    self._refuse(request, refusal, outbox)
                    continue
                if asked and isinstance(request, m.Execute):
                    me, mode = self._endpoint.me, self._policy.mode
                    note = f"[{me}] in mode {mode} this cell needs no approval, so nobody is asked.\n"
                    outbox.put(m.Stream(request.cell, "stderr", note))
                self._pass_on(request, self._seat(analyst).kernel, outbox)
        except LinkError as error:
            log.info("the conversation with %s ended: %s", talk.peer, error)
        finally:
            outbox.close()
            with self._lock:
                seat = self._seats.get(analyst)
            if seat is not None:
                seat.kernel.abandon(outbox, interrupt=self._interrupt_abandoned)
            book.close()

    def _unwritten(self, request: Message, book: CellBook, decision: str, rule: str) -> str:
        """Why a cell cannot be written down, and so not run; "" when it is."""
        if isinstance(request, m.Execute):
            try:
                book.begins(request, decision, rule)
            except LinkError:
                raise
            except FednbError as error:
                log.error("a cell was refused: %s", error)
                return str(error)
        return ""

    def _pass_on(
        self, request: m.Execute | m.Complete | m.Inspect | m.Interrupt | m.Restart, kernel: Kernel, outbox: Outbox
    ) -> None:
        if isinstance(request, m.Execute):
            kernel.submit(request, outbox)
        elif isinstance(request, m.Interrupt):
            kernel.interrupt(request.cell, request.kill)
        elif isinstance(request, m.Restart):
            kernel.restart(request.query, outbox)
        else:
            kernel.ask(request, outbox)

    def _refuse(
        self, request: m.Execute | m.Complete | m.Inspect | m.Interrupt | m.Restart, reason: str, outbox: Outbox
    ) -> None:
        if isinstance(request, m.Execute):
            outbox.put(m.CellDone(request.cell, "refused", reason=reason))
        elif isinstance(request, m.Complete | m.Inspect):
            outbox.put(no_answer(request))
        elif isinstance(request, m.Restart):
            outbox.put(m.Restarted(request.query))

    def _seat(self, analyst: str) -> _Seat:
        with self._lock:
            if self._closed:
                raise LinkError(f"{self._endpoint.me} is stopping.")
            seat = self._seats.get(analyst)
            if seat is None:
                seat, self._spare = self._spare or _Seat(self), None
                seat.claim(analyst)
                self._seats[analyst] = seat
            return seat


class _Seat:
    """A kernel, the pipe of its present process, and the analyst whom it belongs to."""

    def __init__(self, host: KernelHost) -> None:
        self._host = host
        self._pipe: Endpoint | None = None
        self._analyst = ""
        self._lock = threading.Lock()
        self.kernel = Kernel(host._endpoint.me, self._start)

    def claim(self, analyst: str) -> None:
        with self._lock:
            self._analyst = analyst
            if self._pipe is not None:
                self._open(self._pipe)

    def close(self) -> None:
        self.kernel.close()
        with self._lock:
            if self._pipe is not None:
                self._pipe.close()

    def _start(self, ended: Callable[[], None]) -> KernelProcess:
        host = self._host
        folder = host._run_folder / f"{next(host._numbers)}"
        env = dict(host._env)
        with self._lock:
            if self._pipe is not None:
                self._pipe.close()  # the pipe of the process before
                self._pipe = None
            if host._make_pipe is not None:
                path = folder.with_suffix(".pipe")
                self._pipe = host._make_pipe(path)
                env["FEDNB_PIPE"] = str(path)
                if self._analyst:
                    self._open(self._pipe)
        return KernelProcess(
            folder,
            cwd=host._files,
            profile=host._profile,
            extensions=host._extensions,
            env=env,
            ended=ended,
            sandbox=host._sandbox,
        )

    def _open(self, pipe: Endpoint) -> None:
        """Requests of a kernel that nobody has claimed yet wait until it is."""
        pipe.listen("capture", self._capture)
        if self._host._attach is not None:
            self._host._attach(pipe, self._analyst)

    def _capture(self, talk: Conversation) -> None:
        while True:
            self.kernel.capture(talk.recv(m.Put))
            talk.send(m.Ok())
