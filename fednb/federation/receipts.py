"""A member's book: every cell and every run goes into the audit log before it begins and when it has ended.

The second entry comes with a receipt: what crossed to whom, under which rule, and the log's head, which whoever gets
the receipt keeps.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fednb.errors import FednbError, UnexpectedMessage
from fednb.federation import messages as m
from fednb.policy.audit import MOST_BLOB, AuditLog, Head
from fednb.text import plain
from fednb.wire.message import Message

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fednb.agent")

COLUMNS = [
    "about",
    "member",
    "status",
    "to",
    "what",
    "messages",
    "values",
    "bytes",
    "rule",
    "entry",
    "hash",
    "signature",
]
_SCALAR = (bool, int, float, str, type(None))


def values_in(part: Any) -> int:
    """How many values a message carries: an array's entries (of raw bytes in two dimensions: rows), else pieces."""
    if isinstance(part, np.ndarray):
        return len(part) if part.dtype == np.uint8 and part.ndim == 2 else int(part.size)
    if isinstance(part, msgspec.Struct):
        return sum(values_in(getattr(part, name)) for name in part.__struct_fields__)
    if isinstance(part, Mapping):
        return sum(values_in(each) for each in part.values())
    if isinstance(part, list | tuple):
        return sum(values_in(each) for each in part)
    if hasattr(part, "to_wire"):
        return sum(values_in(each) for each in part.to_wire() if isinstance(each, np.ndarray))
    return 0 if part is None else 1


class Tally:
    """Counts what crosses, by receiver and kind. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], list[int]] = {}

    def add(self, to: str, what: str, values: int, size: int) -> None:
        with self._lock:
            counts = self._counts.setdefault((to, what), [0, 0, 0])
            for place, more in enumerate((1, values, size)):
                counts[place] += more

    def crossings(self) -> list[m.Crossing]:
        with self._lock:
            return [m.Crossing(to, what, *counts) for (to, what), counts in sorted(self._counts.items())][:1000]


class Book:
    """Writes entries and receipts; without a log (simulation) receipts only."""

    def __init__(self, member: str, audit: AuditLog | None = None) -> None:
        self.member = member
        self._audit = audit
        self._cells: dict[str, list[CellBook]] = {}  # of open conversations, by analyst
        self._lock = threading.Lock()

    def head(self) -> Head | None:
        return self._audit.head() if self._audit else None

    def witness(self, heads: Sequence[Head | None]) -> None:
        """Keep other members' heads."""
        for head in heads:
            if self._audit and head is not None:
                self._audit.witness(head)

    def note(self, event: str, **details: Any) -> None:
        if self._audit:
            self._audit.append(event, **details)

    def keep(self, text: str) -> str | None:
        """The digest of a text that is kept beside the log."""
        return self._audit.keep(text) if self._audit else None

    # ------------------------------------------------------------ runs

    def run_begins(self, join: m.Join, decision: str = "allowed", rule: str = "") -> None:
        """Raises FednbError when it cannot be written down: then the run must not begin."""
        ref = join.data
        self.note(
            "run",
            run=join.run,
            decision=decision,
            rule=rule or run_rule(join),
            by=join.by,
            role=join.role,
            cast=join.cast,
            resumed=join.resume,
            table=ref.table,
            on=ref.on,
            frame=ref.frame,
            rows=None if ref.rows is None else int(ref.rows.size),
            rows_digest=None if ref.rows is None else hashlib.sha256(ref.rows.tobytes()).hexdigest(),
            columns=ref.columns,
            label=ref.label,
            part=ref.part,
            params={name: value for name, value in join.params.items() if isinstance(value, _SCALAR)},
        )

    def run_ended(
        self,
        join: m.Join,
        status: str,
        crossed: list[m.Crossing],
        public: Mapping[str, Any] | None = None,
        to: str = "",
        refused: str = "",
    ) -> m.Receipt:
        """`public` is what the member hands to the coordinator, `to`; `refused` is the rule that ended the run."""
        if public:
            size = len(msgspec.json.encode(dict(public), enc_hook=_plain))
            crossed = [
                *crossed,
                m.Crossing(to, f"result: {', '.join(sorted(public))}"[:200], 1, values_in(dict(public)), size),
            ]
        if self._audit:
            why: dict[str, Any] = {"refused": refused} if refused else {}
            self._audit.append(
                "run ended", run=join.run, status=status, rule=run_rule(join), **why, crossed=_rows(crossed)
            )
        return m.Receipt(self.member, join.run, status, run_rule(join), crossed, self.head())

    # ------------------------------------------------------------ cells

    def cells(self, analyst: str) -> CellBook:
        made = CellBook(self.member, self._audit, analyst)
        with self._lock:
            self._cells[analyst] = [*(each for each in self._cells.get(analyst, []) if not each.closed), made]
        return made

    def released(self, analyst: str, what: str, rules: Sequence[str], values: int, size: int) -> None:
        """A gate's answer, before it leaves. Raises FednbError when it cannot be written down: then it must not."""
        self.note("released", by=analyst, asked=what, rules=list(rules), values=values, bytes=size)
        with self._lock:
            books = list(self._cells.get(analyst, []))
        if any(each.released(f"{what} ({'; '.join(rules)})", values, size) for each in books):
            return
        log.info("an answer left for %s outside any cell", analyst)


@dataclass
class _Open:
    rule: str
    tally: Tally = field(default_factory=Tally)
    said: list[str] = field(default_factory=list)
    length: int = 0


class CellBook:
    """The cells of one conversation: what they were and what they said."""

    def __init__(self, member: str, audit: AuditLog | None, analyst: str) -> None:
        self._member = member
        self._audit = audit
        self._analyst = analyst
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self.closed = False

    def released(self, what: str, values: int, size: int) -> bool:
        """Put a gate's answer on the receipt of the cell that runs: the first that has not ended."""
        with self._lock:
            cell = next(iter(self._open.values()), None)
        if cell is None:
            return False
        cell.tally.add(self._analyst, what[:200], values, size)
        return True

    def begins(self, request: m.Execute, decision: str, rule: str) -> None:
        """Raises FednbError when it cannot be written down: then the cell must not run."""
        with self._lock:
            if request.cell in self._open:
                # one cell's end would be taken for the other's, and the rest go unrecorded
                raise UnexpectedMessage(f"{self._analyst} sent a cell {request.cell} while another has that id")
        if self._audit:
            self._audit.append(
                "cell",
                wait=False,
                cell=request.cell,
                decision=decision,
                rule=rule,
                by=self._analyst,
                capture=request.capture[:100],
                code=self._audit.keep(request.code, wait=False),
                length=len(request.code),
            )
        with self._lock:
            self._open[request.cell] = _Open(rule)

    def passes(self, message: Message) -> Message:
        """Count what goes to the analyst; a cell's last word gets its receipt."""
        with self._lock:
            cell = self._open.get(str(getattr(message, "cell", "")))
        if cell is None:
            return message
        if isinstance(message, m.CellDone):
            return msgspec.structs.replace(message, receipt=self._ended(message.cell, message.status))
        text, values = _said(message)
        size = values if isinstance(message, m.Captured) else len(text)
        if text:
            cell.tally.add(self._analyst, type(message).__name__, 1, size)
            if cell.length < MOST_BLOB:
                cell.said.append(text)
            cell.length += len(text)
        return message

    def close(self) -> None:
        """The analyst has gone: what is still open ended without anybody to tell."""
        with self._lock:
            cells = list(self._open)
            self.closed = True
        for cell in cells:
            self._ended(cell, "abandoned")

    def _ended(self, name: str, status: str) -> m.Receipt | None:
        with self._lock:
            cell = self._open.pop(name, None)
        if cell is None:
            return None
        crossed = cell.tally.crossings()
        head = None
        if self._audit:
            try:
                output = self._audit.keep("\n".join(cell.said), wait=False) if cell.said else None
                head = self._audit.append(
                    "cell ended",
                    wait=False,
                    cell=name,
                    status=status,
                    rule=cell.rule,
                    by=self._analyst,
                    output=output,
                    crossed=_rows(crossed),
                )
            except FednbError as error:  # it ran already; the next cell will be refused
                log.error("the end of a cell could not be written down: %s", error)
        return m.Receipt(self._member, name, status, cell.rule, crossed, head)


def run_rule(join: m.Join) -> str:
    """The rule a run stands under: its protocol's own table of what each role learns."""
    return f"protocol {join.protocol}, version {join.version}, as {join.role}"[:200]


def _said(message: Message) -> tuple[str, int]:
    """What a cell's event shows, as text, and the bytes of a captured value, which itself is not kept."""
    if isinstance(message, m.Stream):
        return message.text, 0
    if isinstance(message, m.Display):
        return msgspec.json.encode(message.data, enc_hook=_plain).decode(), 0
    if isinstance(message, m.CellError):
        return "\n".join([f"{message.ename}: {message.evalue}", *message.traceback]), 0
    if isinstance(message, m.Captured):
        value = message.value
        if isinstance(value, m.PlainValue):
            size = len(msgspec.json.encode(value.value, enc_hook=_plain))
        else:
            size = int((value.value if isinstance(value, m.ArrayValue) else value.arrow).nbytes)
        return f"-o {message.name}: {size} bytes", size
    return "", 0


def _rows(crossed: list[m.Crossing]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(each) for each in crossed]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(type(value).__name__)


def table(receipts: Sequence[m.Receipt]) -> pd.DataFrame:
    """One row for each kind of message that left a member; of a receipt under which nothing left, one that says so.

    The columns `entry`, `hash` and `signature` are the head of the member's audit log: keep them, and the member cannot
    rewrite what came before without your seeing it.
    """
    import pandas as pd

    rows = []
    for receipt in receipts:
        head = receipt.head
        for each in receipt.crossed or [m.Crossing("", "nothing", 0, 0, 0)]:
            rows.append(
                {
                    "about": plain(receipt.about, 64),
                    "member": plain(receipt.member, 64),
                    "status": plain(receipt.status, 64),
                    "to": plain(each.to, 100),
                    "what": plain(each.what, 200),
                    "messages": each.messages,
                    "values": each.values,
                    "bytes": each.bytes,
                    "rule": plain(receipt.rule, 200),
                    "entry": head.n if head else None,
                    "hash": plain(head.hash, 64) if head else "",
                    "signature": plain(head.signature, 128) if head else "",
                }
            )
    return pd.DataFrame(rows, columns=COLUMNS)
