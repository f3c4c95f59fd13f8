"""One analyst's kernel at a party: cells in, typed events out, through interrupts, floods and the kernel's death.

A thread of its own owns the kernel's sockets and all state below; others only post to it. Cells run one at a time,
in the order in which they came. Nothing of Jupyter's protocol passes but what is rebuilt here.
"""

from __future__ import annotations

import collections
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fednb.errors import FednbError
from fednb.federation import messages as m
from fednb.federation import translate
from fednb.federation.kernel_process import KernelProcess
from fednb.federation.outbox import Allowance, Outbox

log = logging.getLogger("fednb.kernel")

START_SECONDS = 60.0
KILL_SECONDS = 20.0  # after an interrupt; an analyst's side usually gives up earlier and asks for the kill
QUESTION_SECONDS = 3.0
REPLY_SECONDS = 1.0  # between the parts of a cell's end, which come on two channels


@dataclass
class Cell:
    """A cell on its way through a kernel."""

    request: m.Execute
    outbox: Outbox
    allowance: Allowance
    message: str = ""  # id of the request to the kernel
    began: float = 0.0
    running: bool = False  # the kernel has begun with it: only now a signal reaches the cell
    interrupted: float | None = None  # when
    replied: dict[str, Any] | None = None
    replied_at: float = 0.0
    idle: float | None = None  # when
    failed: bool = False  # its error has been sent

    @property
    def id(self) -> str:
        return self.request.cell


@dataclass
class Question:
    """A completion or an inspection."""

    request: m.Complete | m.Inspect
    outbox: Outbox
    deadline: float = field(default_factory=lambda: time.monotonic() + QUESTION_SECONDS)


class Kernel:
    """Runs the cells of one analyst. Every public method may be called from any thread and returns at once."""

    def __init__(self, member: str, start: Callable[[Callable[[], None]], KernelProcess]) -> None:
        """`start(ended)` starts a kernel process; it is called again whenever one is gone."""
        self.member = member
        self._start = start
        self._posts: collections.deque[Callable[[], None]] = collections.deque()
        self._wake_end, self._wake = socket.socketpair()
        for end in (self._wake_end, self._wake):
            end.setblocking(False)
        self._process: KernelProcess | None = None
        self._heard = False  # the process answered on the shell channel ...
        self._ready = False  # ... and is heard on iopub too
        self._begun = self._asked = 0.0
        self._deaths = 0  # in a row, before it was ready
        self._refused = ""  # why no more cells are taken
        self._broken = ""  # why no kernel could be started
        self._notice = ""  # what the next cell should know
        self._closing = False
        self._queue: collections.deque[Cell] = collections.deque()
        self._cell: Cell | None = None
        self._questions: dict[str, Question] = {}
        self._restarts: list[tuple[str, Outbox]] = []
        self.ready = threading.Event()  # the first process is there, or none will be
        self.pid = 0
        self._thread = threading.Thread(target=self._run, name=f"fednb-kernel-{member}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ what others ask for

    def submit(self, request: m.Execute, outbox: Outbox) -> None:
        """Run a cell after those that wait already."""
        cell = Cell(request, outbox, Allowance(self.member))
        self._post(lambda: self._queue.append(cell))

    def interrupt(self, cell: str, kill: bool) -> None:
        """Interrupt the cell where it runs, or take it out of the queue; `kill` ends the kernel it runs in."""
        self._post(lambda: self._interrupt(cell, kill))

    def ask(self, request: m.Complete | m.Inspect, outbox: Outbox) -> None:
        """Answered at once, with nothing, while a cell runs."""
        self._post(lambda: self._ask(request, outbox))

    def restart(self, query: str, outbox: Outbox) -> None:
        """A fresh process; what runs or waits is given up."""
        self._post(lambda: self._restart(query, outbox))

    def abandon(self, outbox: Outbox, *, interrupt: bool = True) -> None:
        """Nobody listens to these cells any more: forget those that wait, and interrupt the one that runs."""
        self._post(lambda: self._abandon(outbox, interrupt))

    def retire(self, reason: str) -> None:
        """Let the running cell end, refuse all others with `reason`, and give up the process."""
        self._post(lambda: self._retire(reason))

    def capture(self, put: m.Put) -> None:
        """Send a value on that the running cell was asked for; returns when it is queued before the cell's end."""
        done = threading.Event()

        def take() -> None:
            cell = self._cell
            if cell is not None and cell.id == put.cell and put.name in cell.request.capture:
                cell.outbox.put(m.Captured(cell.id, put.name, put.value))
            done.set()

        self._post(take)
        done.wait(10.0)

    def close(self) -> None:
        """Kill the process and stop."""
        self._post(self._close)
        self._thread.join(10.0)

    def _post(self, action: Callable[[], None]) -> None:
        self._posts.append(action)
        self._rouse()

    def _rouse(self) -> None:
        try:
            self._wake.send(b"!")
        except OSError:
            return  # full: it wakes anyway; or closed

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._closing:
            try:
                self._serve()
            except Exception as error:  # whoever waits for a cell must hear of it, and a restart may help
                log.exception("a kernel's thread failed")
                self._broken = f"{self.member} has a problem with its kernels ({type(error).__name__}); see its log."
                self._replace(self._broken)
        self._drop()
        self._finish("died", f"{self.member} stopped.")
        for cell in self._queue:
            cell.outbox.put(m.CellDone(cell.id, "died", reason=f"{self.member} stopped."))
        self.ready.set()  # nobody should wait for it any more
        self._wake.close()
        self._wake_end.close()

    def _serve(self) -> None:
        """From the start of one process to its end."""
        if self._may_begin:
            self._begin()
        process = self._process
        while not self._closing and self._process is process and (process is not None or not self._may_begin):
            if process is not None:
                process.wait(self._wake_end, self._patience())
            else:
                select.select([self._wake_end], [], [], 60.0)
            try:
                self._wake_end.recv(4096)
            except BlockingIOError:
                pass
            if process is not None:
                # in batches: a flood of output must not keep an interrupt waiting
                for _ in range(100):
                    if not self._hear(process, "iopub"):
                        break
                while self._hear(process, "shell"):
                    pass
            while self._posts and self._process is process and not self._closing:
                self._posts.popleft()()
            if process is not None and self._process is process:
                if process.exit_code is not None:
                    self._died(process)
                else:
                    self._look_at_the_clock(process)
            self._dispatch()

    @property
    def _may_begin(self) -> bool:
        return not self._refused and not self._broken

    def _begin(self) -> None:
        self._heard = self._ready = False
        try:
            self._process = self._start(self._rouse)
        except (OSError, FednbError) as error:
            log.exception("a kernel could not be started")
            self._broken = f"{self.member} cannot start a kernel: {error}"
            self.ready.set()
            return
        self.pid = self._process.pid
        self._begun = self._asked = time.monotonic()
        self._process.request("kernel_info_request", {})

    def _patience(self) -> float:
        """Seconds until something is due."""
        if not self._ready:
            return 0.05
        if self._cell is not None and (self._cell.replied is not None or self._cell.idle is not None):
            return 0.1
        if self._questions or (self._cell is not None and self._cell.interrupted is not None):
            return 0.25
        return 60.0

    def _hear(self, process: KernelProcess, channel: Literal["shell", "iopub"]) -> bool:
        if self._process is not process:  # given up while it was heard: its sockets are closed
            return False
        heard = process.receive(channel)
        if heard is None:
            return False
        kind, request, content = heard
        if channel == "iopub" and self._heard and not self._ready:
            self._ready, self._deaths = True, 0
            self.ready.set()
            self._confirm_restarts()
        try:
            if channel == "shell":
                self._reply(kind, request, content)
            elif self._cell is not None and request == self._cell.message:
                self._output(self._cell, kind, content)
        except (TypeError, ValueError, KeyError, AttributeError):
            log.exception("a message of type %r from a kernel could not be understood", kind)  # cells can forge them
        return True

    def _look_at_the_clock(self, process: KernelProcess) -> None:
        now = time.monotonic()
        if not self._ready:
            if now - self._begun > START_SECONDS:
                process.kill()
            elif self._heard and now - self._asked > 0.1:  # iopub may have connected after the first answer
                self._asked = now
                process.request("kernel_info_request", {})
        for message, question in list(self._questions.items()):
            if now > question.deadline:
                del self._questions[message]
                question.outbox.put(translate.no_answer(question.request))
        cell = self._cell
        if cell is None:
            return
        if cell.replied is not None and (cell.idle is not None or now - cell.replied_at > REPLY_SECONDS):
            self._conclude(cell)
        elif cell.idle is not None and now - cell.idle > REPLY_SECONDS:
            # the interrupt struck outside the analyst's code, and the kernel forgot to reply
            self._finish("interrupted")
        elif cell.interrupted is not None and now - cell.interrupted > KILL_SECONDS:
            self._replace(
                f"the cell did not stop within {KILL_SECONDS:g} s of its interrupt, so {self.member} ended its kernel. "
                "Its variables are gone; a new kernel is ready."
            )
        elif cell.interrupted is not None and cell.running:
            process.nudge()

    def _dispatch(self) -> None:
        """Start the next cell when none runs."""
        if self._cell is not None or not self._queue:
            return
        if self._refused or self._broken:
            while self._queue:
                cell = self._queue.popleft()
                if self._refused:
                    cell.outbox.put(m.CellDone(cell.id, "refused", reason=self._refused))
                else:
                    cell.outbox.put(m.CellDone(cell.id, "died", reason=self._broken))
            return
        if not self._ready or self._process is None:
            return
        cell = self._cell = self._queue.popleft()
        cell.began = time.monotonic()
        cell.message = self._process.request(
            "execute_request",
            {
                "code": cell.request.code,
                "silent": False,
                "store_history": True,
                "user_expressions": translate.capture(cell.request),
                "allow_stdin": False,
                "stop_on_error": False,  # the analyst's side decides what of its own stops
            },
        )
        cell.outbox.put(m.CellStarted(cell.id))
        self._note(cell, self._notice)
        self._notice = ""

    # ------------------------------------------------------------ what the kernel says

    def _reply(self, kind: str, request: str, content: Mapping[str, Any]) -> None:
        if kind == "kernel_info_reply":
            self._heard = True
        elif kind == "execute_reply":
            cell = self._cell
            if cell is not None and request == cell.message:
                cell.replied, cell.replied_at = dict(content), time.monotonic()
                if cell.idle is not None:
                    self._conclude(cell)
        elif (question := self._questions.pop(request, None)) is not None:
            question.outbox.put(translate.answer(question.request, kind, content))

    def _output(self, cell: Cell, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "stream":
            text, note = cell.allowance.text(str(content.get("text", "")))
            if text:
                cell.outbox.put(m.Stream(cell.id, "stderr" if content.get("name") == "stderr" else "stdout", text))
            self._note(cell, note)
        elif kind in ("display_data", "execute_result", "update_display_data"):
            self._display(cell, kind, content)
        elif kind == "error":
            self._error(cell, content)
        elif kind == "clear_output":
            cell.outbox.put(m.ClearOutput(cell.id, bool(content.get("wait"))))
        elif kind == "execute_input":
            cell.running = True
            if cell.interrupted is not None and self._process is not None:
                self._process.interrupt()
        elif kind == "status" and content.get("execution_state") == "idle":
            cell.idle = time.monotonic()
            if cell.replied is not None:
                self._conclude(cell)

    def _display(self, cell: Cell, kind: str, content: Mapping[str, Any]) -> None:
        data = translate.presentable(content.get("data"))
        if not data:
            return
        passes, note = cell.allowance.display(sum(translate.size(value) for value in data.values()))
        if passes:
            transient = content.get("transient") or {}
            display_id = transient.get("display_id")
            cell.outbox.put(
                m.Display(
                    cell.id,
                    data,
                    translate.sizes(content.get("metadata")),
                    display_id=str(display_id) if display_id is not None else None,
                    update=kind == "update_display_data",
                    result=kind == "execute_result",
                )
            )
        self._note(cell, note)

    def _note(self, cell: Cell, note: str) -> None:
        if note:
            cell.outbox.put(m.Stream(cell.id, "stderr", note))

    def _error(self, cell: Cell, content: Mapping[str, Any]) -> None:
        if cell.failed:
            return
        cell.failed = True
        lines = [str(line) for line in content.get("traceback") or []]
        traceback, _ = cell.allowance.text("\n".join(lines)[: 1 << 20])
        cell.outbox.put(
            m.CellError(
                cell.id,
                str(content.get("ename", ""))[:1000],
                str(content.get("evalue", ""))[: 1 << 16],
                traceback.split("\n") if traceback else [],
            )
        )

    def _conclude(self, cell: Cell) -> None:
        """Both the reply and the end of its outputs are here."""
        reply = cell.replied or {}
        if translate.leaves(reply):  # now, under this cell: the process would be gone a moment later, in another's
            self._replace(
                f"the cell ended the kernel at {self.member} with exit() or quit(). Its variables are gone; a new "
                "kernel is started and the agent goes on."
            )
            return
        count = reply.get("execution_count")
        if reply.get("status") == "ok":
            for result in (reply.get("user_expressions") or {}).values():
                if isinstance(result, Mapping) and result.get("status") == "error":
                    reply = {**result, "execution_count": count}  # a value asked for with -o could not be given
        status = str(reply.get("status"))
        if status == "error":
            self._error(cell, reply)
            if cell.interrupted is not None and reply.get("ename") == "KeyboardInterrupt":
                status = "interrupted"
        self._finish(
            status if status in ("ok", "error") else "interrupted", count=count if isinstance(count, int) else None
        )

    def _finish(self, status: Any, reason: str = "", count: int | None = None) -> None:
        cell, self._cell = self._cell, None
        if cell is not None:
            seconds = time.monotonic() - cell.began if cell.began else 0.0
            cell.outbox.put(m.CellDone(cell.id, status, seconds, count, reason))
        if self._refused:
            self._drop()

    # ------------------------------------------------------------ ends and new beginnings

    def _died(self, process: KernelProcess) -> None:
        while self._hear(process, "iopub"):  # its last words count
            pass
        how = process.how_it_ended()
        if self._cell is None and not self._ready:
            self._deaths += 1
            if self._deaths >= 3:
                said = process.last_words().splitlines()[-1:] or ["it said nothing"]
                self._broken = f"{self.member} cannot start a kernel: the process {how}: {said[0]}"
                log.error("%s\n%s", self._broken, process.last_words())
        elif self._cell is None:
            self._notice = f"[{self.member}] since the last cell the kernel {how}; its variables are gone.\n"
        self._replace(
            f"the kernel at {self.member} {how}. Its variables are gone; a new kernel is started and the agent goes on."
        )

    def _replace(self, reason: str) -> None:
        """Give up the process; `_serve` starts the next one."""
        self._finish("died", reason)
        self._drop()

    def _drop(self) -> None:
        process, self._process = self._process, None
        self._ready = False
        for question in self._questions.values():
            question.outbox.put(translate.no_answer(question.request))
        self._questions.clear()
        if process is not None:
            process.close()

    def _interrupt(self, cell_id: str, kill: bool) -> None:
        for waiting in self._queue:
            if waiting.id == cell_id:
                self._queue.remove(waiting)
                waiting.outbox.put(m.CellDone(cell_id, "interrupted", reason="it had not begun yet."))
                return
        cell = self._cell
        if cell is None or cell.id != cell_id or self._process is None:
            return
        if kill:
            self._replace(
                f"the kernel at {self.member} was killed, as asked. Its variables are gone; a new kernel is started."
            )
            return
        if cell.interrupted is None:
            cell.interrupted = time.monotonic()
        if cell.running:
            self._process.interrupt()

    def _ask(self, request: m.Complete | m.Inspect, outbox: Outbox) -> None:
        if self._process is None or not self._ready or self._cell is not None or self._queue:
            outbox.put(translate.no_answer(request))
            return
        content: dict[str, Any] = {"code": request.code, "cursor_pos": request.cursor}
        kind = "complete_request"
        if isinstance(request, m.Inspect):
            kind = "inspect_request"
            content["detail_level"] = request.detail
        self._questions[self._process.request(kind, content)] = Question(request, outbox)

    def _restart(self, query: str, outbox: Outbox) -> None:
        while self._queue:
            cell = self._queue.popleft()
            cell.outbox.put(m.CellDone(cell.id, "interrupted", reason="the kernel was restarted."))
        self._restarts.append((query, outbox))
        self._broken, self._deaths = "", 0
        if self._refused:
            self._confirm_restarts()
        else:
            self._replace(f"the kernel at {self.member} was restarted, as asked. Its variables are gone.")

    def _confirm_restarts(self) -> None:
        restarts, self._restarts = self._restarts, []
        for query, outbox in restarts:
            outbox.put(m.Restarted(query))

    def _abandon(self, outbox: Outbox, interrupt: bool) -> None:
        self._queue = collections.deque(cell for cell in self._queue if cell.outbox is not outbox)
        self._restarts = [(query, other) for query, other in self._restarts if other is not outbox]
        if interrupt and self._cell is not None and self._cell.outbox is outbox:
            self._interrupt(self._cell.id, kill=False)

    def _retire(self, reason: str) -> None:
        self._refused = reason
        if self._cell is None:
            self._drop()

    def _close(self) -> None:
        self._closing = True
