"""What a run is doing, from its events: one summary that a terminal bar and a notebook's widget both read.

Every member of a run reports its own steps, waits, operations and bytes. `RunProgress` folds these events into the
state of the whole, whatever order they arrive in, and `follow` shows them while they come: as a bar on a terminal,
as a typed view inside a notebook kernel (the analyst's own kernel then builds the live widget), else not at all.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TextIO

from fednb.errors import LinkError
from fednb.federation.messages import Event, RunEnded, RunEvent
from fednb.federation.views import TrainingView, bundle

State = Literal["waiting", "running", "ok", "failed", "cancelled"]

CURVES = ("loss", "gradient_norm")  # what is worth a curve, best first; any other metric comes after
POINTS = 2_000  # of a curve; beyond, every second point goes
REDRAW = 0.1  # seconds between two frames of the bar


@dataclass
class MemberProgress:
    """One member's own account."""

    name: str
    role: str = ""
    phase: str = ""
    step: int = 0
    total: int | None = None
    waiting_for: str = ""
    operations: Mapping[str, int] = field(default_factory=dict)
    bytes_out: Mapping[str, int] = field(default_factory=dict)  # by peer
    bytes_in: Mapping[str, int] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        return sum(self.bytes_out.values())

    @property
    def received(self) -> int:
        return sum(self.bytes_in.values())


class RunProgress:
    """The state of a run as far as its events tell. Not thread-safe: one thread adds and reads."""

    def __init__(self, run: str, title: str = "") -> None:
        self.run = run
        self.title = title
        self.state: State = "waiting"
        self.reason = ""
        self.phase = ""  # the latest that any member has begun
        self.step = 0  # of that phase, by the member that is furthest
        self.total: int | None = None
        self.members: dict[str, MemberProgress] = {}
        self.curves: dict[str, dict[str, list[tuple[int, float]]]] = {}  # metric -> member -> (step, value)
        self.timings: dict[str, float] = {}  # what parts of the latest step took, in seconds: "level_1_seconds"
        self.next_seq = 0  # where to attach again
        self.seconds = 0.0
        self._began: dict[str, tuple[float, int]] = {}  # member -> (its clock, its step) when it entered the phase
        self._first: dict[str, float] = {}  # member -> its clock at its first event
        self._eta: float | None = None
        self._phases: set[str] = set()

    def add(self, message: RunEvent) -> None:
        """Take one event in; one that was seen before changes nothing."""
        if message.seq < self.next_seq:
            return
        self.next_seq = message.seq + 1
        if self.state == "waiting":
            self.state = "running"
        self._account(message.event)
        self._advance(message.event)

    def end(self, message: RunEnded) -> None:
        """The last message of a run; its figures are final."""
        self.state, self.seconds = message.status, message.seconds or self.seconds
        if message.status != "ok":
            where = f"at {message.member}: " if message.member else ""
            self.reason = where + (message.error or message.error_type)
        for name, result in message.results.items():
            member = self.members.setdefault(name, MemberProgress(name))
            member.role = result.role or member.role
            member.operations = result.operations or member.operations
            member.bytes_out = result.bytes_out or member.bytes_out
            member.bytes_in = result.bytes_in or member.bytes_in
        for member in self.members.values():
            member.waiting_for = ""
        self._eta = None

    @property
    def eta(self) -> float | None:
        """Seconds to go; None while nobody can know."""
        return self._eta

    @property
    def operations(self) -> dict[str, int]:
        """Encrypted-arithmetic operations of all members, by kind."""
        total: dict[str, int] = {}
        for member in self.members.values():
            for kind, count in member.operations.items():
                total[kind] = total.get(kind, 0) + count
        return total

    @property
    def bytes(self) -> int:
        """Payload that crossed between members, each byte counted where it was sent."""
        return sum(member.sent for member in self.members.values())

    def curve(self) -> str | None:
        """The metric that is worth a curve."""
        known = [name for name in CURVES if name in self.curves]
        return (known + sorted(set(self.curves) - set(CURVES)) + [None])[0]

    def latest(self, metric: str) -> float | None:
        """A metric's value at the furthest step that any member reported."""
        points = [series[-1] for series in self.curves.get(metric, {}).values() if series]
        return max(points)[1] if points else None

    def _account(self, event: Event) -> None:
        member = self.members.setdefault(event.member, MemberProgress(event.member))
        member.role = event.role or member.role
        member.waiting_for = event.waiting_for
        # Counters only grow: an event that carries none (a wait) says nothing about them.
        member.operations = event.operations or member.operations
        member.bytes_out = event.bytes_out or member.bytes_out
        member.bytes_in = event.bytes_in or member.bytes_in
        if event.phase != "wait":
            member.phase, member.step, member.total = event.phase, event.step, event.total
        since = self._first.setdefault(event.member, event.at)
        self.seconds = max(self.seconds, event.at - since)

    def _advance(self, event: Event) -> None:
        if event.phase == "wait":
            return
        if event.phase not in self._phases:
            self._phases.add(event.phase)
            self.phase, self.step, self.total = event.phase, 0, None
            self._began, self._eta = {}, None
        if event.phase == self.phase:
            began, first = self._began.setdefault(event.member, (event.at, event.step))
            self.total = event.total if event.total is not None else self.total
            if event.step >= self.step:
                self.step = event.step
                self._eta = self._remaining(event, began, first)
        timings = {metric: value for metric, value in event.metrics.items() if metric.endswith("_seconds")}
        self.timings = timings or self.timings
        for metric, value in event.metrics.items():
            if metric not in timings:
                self._append(metric, event.member, event.step, value)

    def _remaining(self, event: Event, began: float, first: int) -> float | None:
        """The member's own estimate, else its own pace so far: clocks of two members are never compared."""
        if "eta_seconds" in event.metrics:
            return max(0.0, event.metrics["eta_seconds"])
        if event.total is None or event.step <= first or event.at <= began:
            return self._eta
        return max(0, event.total - event.step) * (event.at - began) / (event.step - first)

    def _append(self, metric: str, member: str, step: int, value: float) -> None:
        series = self.curves.setdefault(metric, {}).setdefault(member, [])
        series.append((step, value))
        if len(series) > POINTS:
            del series[1:-1:2]


@dataclass(frozen=True)
class Following:
    """What a notebook kernel displays for a run; a notebook with fednb loaded shows it live."""

    view: TrainingView
    federation: object = field(repr=False)  # where the run can be watched

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view)


# by thread, so that a widget's own runs show in the widget and nobody else's do
_TELL: ContextVar[Callable[[RunProgress], None] | None] = ContextVar("fednb-tell", default=None)


@contextmanager
def told(tell: Callable[[RunProgress], None]) -> Iterator[None]:
    """Runs that this thread follows meanwhile are told to `tell`, event by event, and shown nowhere else."""
    before = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(before)


def follow(
    run: str, title: str, events: Iterable[RunEvent | RunEnded], federation: object = None
) -> RunEnded:
    """Show a run while its events come, and return how it ended.

    federation : whose run it is, for a notebook that shows it by itself.

    Within `told(...)` nothing is shown: that is told instead. Raises LinkError when the events stop without an end.
    """
    tell = _TELL.get()
    screen: Bar | None = None
    if tell is None and _in_notebook_kernel():
        _display(Following(TrainingView(run=run, title=title), federation))
    elif tell is None:
        screen = Bar(sys.stderr) if sys.stderr.isatty() else None
    progress = RunProgress(run, title)
    try:
        for message in events:
            if isinstance(message, RunEnded):
                progress.end(message)
                return message
            progress.add(message)
            if tell:
                tell(progress)
            if screen:
                screen.draw(progress)
    finally:
        if screen:
            screen.finish(progress)
    raise LinkError(f"run {run} went silent: its events stopped without an end. `runs()` tells whether it goes on.")


class Bar:
    """One line of a terminal, drawn over at most ten times a second."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        unicode = (getattr(stream, "encoding", "") or "").lower().startswith("utf")
        self.full, self.empty, self.up, self.dot = ("━", "─", "↑", " · ") if unicode else ("#", "-", "sent ", ", ")
        self._next = 0.0

    def draw(self, progress: RunProgress) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REDRAW
            self._write(self.line(progress))

    def finish(self, progress: RunProgress) -> None:
        """Leave a last line that stays."""
        self._write(self.line(progress) + "\n")

    def line(self, progress: RunProgress) -> str:
        """What the bar says, cut to the terminal's width."""
        width = max(40, shutil.get_terminal_size().columns - 1)
        title = printable(progress.title or progress.run)[:48]
        parts = [f"{title} {self._gauge(progress)}"] if progress.state in ("waiting", "running") else [title]
        parts += self._figures(progress)
        return self.dot.join(part for part in parts if part)[:width]

    def _gauge(self, progress: RunProgress) -> str:
        if not progress.total:
            return printable(progress.phase) or "waiting"
        filled = round(20 * max(0.0, min(1.0, progress.step / progress.total)))
        return f"{self.full * filled}{self.empty * (20 - filled)} {progress.step}/{progress.total}"

    def _figures(self, progress: RunProgress) -> list[str]:
        metric = progress.curve()
        value = progress.latest(metric) if metric else None
        figures = [f"{printable(metric or '').replace('_', ' ')} {value:.4g}" if value is not None else ""]
        figures.append(f"{self.up}{format_bytes(progress.bytes)}" if progress.bytes else "")
        if progress.state in ("waiting", "running"):
            eta = progress.eta
            figures.insert(0, f"{format_seconds(eta)} left" if eta is not None else "")
            figures += [f"{m.name} waits for {m.waiting_for}" for m in progress.members.values() if m.waiting_for][:2]
        else:
            how = {"ok": "done", "failed": "failed", "cancelled": "cancelled"}[progress.state]
            figures.insert(0, f"{how} in {format_seconds(progress.seconds)}")
            figures.append(progress.reason.partition("\n")[0])
        return [printable(figure) for figure in figures]

    def _write(self, text: str) -> None:
        self.stream.write(f"\r\x1b[K{text}")
        self.stream.flush()


class Steps:
    """One line on work of many runs: how many are done, what goes on, how long it may still take. A context manager.

    It shows on a terminal and in a notebook, where runs that this thread follows meanwhile show nothing of their own.
    """

    def __init__(self, title: str, total: int, stream: TextIO | None = None) -> None:
        self.title = title
        self.total = total
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty() or _in_notebook_kernel()
        self._began = time.monotonic()
        self._done, self._text, self._next = 0, "", 0.0
        self._quiet = told(self._tell)

    def __enter__(self) -> Self:
        if self._shown:
            self._quiet.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._quiet.__exit__(None, None, None)
            took = format_seconds(time.monotonic() - self._began)
            self._write(f"{self.title} · {self._done} of {self.total} done in {took}", end="\n")

    def begin(self, text: str) -> None:
        """What goes on now."""
        self._text = text
        self._draw("")

    def done(self) -> None:
        """It is done."""
        self._done += 1

    def skip(self, number: int) -> None:
        """So many need not be done."""
        self.total -= number

    def _tell(self, progress: RunProgress) -> None:
        if time.monotonic() >= self._next:
            of = f"/{progress.total}" if progress.total else ""
            self._draw(f": {printable(progress.phase)} {progress.step}{of}")

    def _draw(self, detail: str) -> None:
        if not self._shown:
            return
        so_far = time.monotonic() - self._began
        self._next = time.monotonic() + 5 * REDRAW
        time_ = f"{format_seconds(so_far)} so far"
        if self._done:
            time_ = f"about {format_seconds(so_far / self._done * (self.total - self._done))} left"
        self._write(f"{self.title} {self._done}/{self.total} · {self._text}{detail} · {time_}")

    def _write(self, text: str, end: str = "") -> None:
        width = max(40, shutil.get_terminal_size().columns - 1)
        self._stream.write(f"\r{printable(text)[:width]:<{width}}{end}")
        self._stream.flush()


def format_bytes(count: float) -> str:
    """`512 B`, `1.3 kB`, `24 MB`: decimal units, as networks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.3g} {unit}"


def format_seconds(seconds: float) -> str:
    """`0.8 s`, `42 s`, `3:05`, `1:02:05`."""
    if not math.isfinite(seconds):
        return "?"  # clocks and estimates are the members' own
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """Text of another member without control characters: a terminal would obey them."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _in_notebook_kernel() -> bool:
    # A script that never imported IPython is not in its kernel; importing it to find out would cost half a second.
    ipython = sys.modules.get("IPython")
    shell: Any = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


def _display(shown: Following) -> None:
    from IPython.display import display

    display(shown)  # type: ignore[no-untyped-call]
