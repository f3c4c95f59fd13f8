"""The gate behind a party's agent: which tables it sees, who may ask, and what is written down of each answer.

A table that an analyst saved is kept twice: its rows as any saved table's, for alignments and training, and its plan,
which is what questions about it are worked out from. So a derived column has no more rights under a new name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fednb.config import GuardConfig, TableConfig
from fednb.errors import ConfigError, DataError, Refused
from fednb.federation import messages as m
from fednb.federation.receipts import Book, values_in
from fednb.federation.tables import TableStore
from fednb.policy import plan as p
from fednb.policy import plan_words
from fednb.policy.answer import Answer, Schema
from fednb.policy.gate import Gate, Held
from fednb.policy.ledger import Ledger
from fednb.policy.mode import MemberPolicy
from fednb.typed import known

Question = p.Aggregate | p.Count | p.Histogram | p.Correlate | p.Regress


class GateDesk:
    """Answers the kernels of a guarded party. Safe from any thread."""

    def __init__(
        self, tables: TableStore, policy: MemberPolicy, guard: GuardConfig, home: Path, book: Book | None = None
    ) -> None:
        """home : the member's folder; the ledger and the plans of saved tables lie there. Raises ConfigError."""
        self._tables = tables
        self._policy = policy
        self._book = book or Book(tables.member)
        self._plans = home / "plans"
        self._plans.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ledger = Ledger(home / "ledger", limit=guard.leverage)
        self._gate = Gate(tables.member, guard, self._ledger, self._find)

    def close(self) -> None:
        self._ledger.close()

    def schema(self, name: str, analyst: str) -> Schema:
        self._check(p.Table(name), analyst)
        return self._gate.schema(name)

    def ask(self, question: Question, analyst: str) -> Answer:
        """The answer, once ledger and audit log have it. Raises Refused, DataError."""
        what = plan_words.question(question)
        try:
            self._check(question.rows, analyst)
            answer = self._gate.ask(question, analyst)
        except Refused as refused:
            self._book.note("declined", by=analyst, asked=what, rule=refused.rule)
            raise
        size = len(msgspec.msgpack.encode(answer))
        self._book.released(analyst, what, answer.rules, values_in(answer.values), size)
        return answer

    def keep(self, plan: p.Keep, analyst: str) -> None:
        """Save a derived table. Raises Refused, DataError."""
        what = plan_words.question(plan)
        try:
            self._check(plan.rows, analyst)
            if not _is_name(plan.name):
                raise DataError("a table's name has letters, digits, '_', '.' and '-', a letter first; 64 at most.")
            if plan.name in plan_words.tables(plan.rows):
                plan = msgspec.structs.replace(plan, rows=self._expanded(plan.rows, plan.name))
            frame, table = self._gate.keep(plan, analyst)
        except Refused as refused:
            self._book.note("declined", by=analyst, asked=what, rule=refused.rule)
            raise
        before = self._plan(plan.name)
        if before is None and plan.name in self._tables.names():
            raise Refused(
                f"{self._tables.member} has a table {plan.name!r} that no cell saved; choose another name.",
                member=self._tables.member,
                rule="names",
            )
        self._write(plan.name, plan.rows)  # first: a saved table without its plan would count as one of its own
        self._tables.save(plan.name, frame, table.id, table.label)
        self._book.note("kept", by=analyst, asked=what, rows=len(frame), columns=list(map(str, frame.columns)))

    def _check(self, rows: p.Rows, analyst: str) -> None:
        self._policy.check_cells_of(analyst)
        for name in self._origins(rows):
            self._policy.check_table(analyst, name)

    def _origins(self, rows: p.Rows, depth: int = 0) -> Iterator[str]:
        for name in plan_words.tables(rows):
            saved = self._plan(name) if depth < 30 else None
            if saved is None:
                yield name
            else:
                yield from self._origins(saved, depth + 1)

    def _expanded(self, rows: p.Rows, name: str) -> p.Rows:
        """The rows with a saved table's own plan in place of its name, which is about to mean something else."""
        if isinstance(rows, p.Table):
            return (self._plan(name) or rows) if rows.name == name else rows
        if isinstance(rows, p.Join):
            left, right = self._expanded(rows.left, name), self._expanded(rows.right, name)
            return msgspec.structs.replace(rows, left=left, right=right)
        return msgspec.structs.replace(rows, rows=self._expanded(rows.rows, name))

    # ------------------------------------------------------------ tables

    def _find(self, name: str) -> Held | p.Rows:
        saved = self._plan(name)
        if saved is not None:
            return saved
        table = self._tables.table(name)
        frame = self._tables.read(name)
        return Held(frame, table, self._tables.digest(name), _origin(table))

    def _plan(self, name: str) -> p.Rows | None:
        if not _is_name(name):
            return None
        try:
            content = (self._plans / f"{name}.plan").read_bytes()
        except FileNotFoundError:
            return None
        try:
            found: p.Rows = msgspec.msgpack.decode(content, type=known(p.Rows))
            return found
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigError(f"{self._plans / name}.plan is damaged; save the table again.") from None

    def _write(self, name: str, rows: p.Rows) -> None:
        draft = self._plans / f"{name}.draft"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(msgspec.msgpack.encode(rows))
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, self._plans / f"{name}.plan")


def _is_name(name: str) -> bool:
    """Whether it may become a file's name."""
    try:
        msgspec.convert(name, known(m.Name))
    except msgspec.ValidationError:
        return False
    return True


def _origin(table: TableConfig) -> str:
    return str(table.path) if table.path else f"{table.source} {table.query}" if table.source else table.name
