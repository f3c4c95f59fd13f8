"""What a party's own kernels may ask of their agent: tables, derived tables, this party's coefficients, the lock.

The kernel runs an analyst's code, so each request is checked here as one from outside; only rows that the party's
mode gives to its own kernels pass, and nothing of keys or other members.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from fednb.errors import DataError, FednbError, Refused
from fednb.federation import messages as m
from fednb.federation.arrow import from_arrow, to_arrow
from fednb.federation.card import CARD
from fednb.federation.gate_desk import GateDesk
from fednb.federation.seat import explain
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy.mode import MemberPolicy
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.message import Message

log = logging.getLogger("fednb.party")

_Request = m.Describe | m.LoadTable | m.SaveTable | m.AskGate | m.KeepTable | m.ReadModel | m.Lock


class Desk:
    """Serves the "local" conversations of kernels on their pipes."""

    def __init__(
        self,
        tables: TableStore,
        policy: MemberPolicy,
        store: MemberStore,
        lock: Callable[[], None],
        gate: GateDesk | None = None,
    ) -> None:
        """`lock` is called once the policy has become protocol-only; a guarded party has a gate, and gives no rows."""
        self._gate = gate
        self._tables = tables
        self._policy = policy
        self._store = store
        self._lock = lock

    def attach(self, pipe: Endpoint, analyst: str) -> None:
        """Serve the kernel of `analyst`."""
        pipe.listen("local", lambda talk: self._serve(talk, analyst))

    def _serve(self, talk: Conversation, analyst: str) -> None:
        while True:
            request = talk.recv(m.Describe, m.LoadTable, m.SaveTable, m.AskGate, m.KeepTable, m.ReadModel, m.Lock)
            try:
                answer = self._answer(request, analyst)
            except Exception as error:
                if not isinstance(error, FednbError):
                    log.exception("a request of the kernel of %s failed", analyst)
                rule = error.rule if isinstance(error, Refused) else ""
                answer = m.Failed(explain(error), type(error).__name__, self._tables.member, rule)
            talk.send(answer)

    def _answer(self, request: _Request, analyst: str) -> Message:
        if isinstance(request, m.Describe):
            return m.Tables(self._tables.describe())
        if isinstance(request, m.ReadModel):
            return self._own_part(request.run)
        if isinstance(request, m.Lock):
            self._policy.lock()
            self._lock()
            return m.Ok()
        self._policy.check_cells()  # a kernel that is still ending its last cell gets no more rows
        if self._policy.mode != "open" or isinstance(request, m.AskGate | m.KeepTable):
            return self._guarded(request, analyst)
        if isinstance(request, m.LoadTable):
            table = self._tables.table(request.name)
            return m.TableData(
                to_arrow(self._tables.read(request.name), f"table {request.name!r}"), list(table.id), table.label
            )
        frame = from_arrow(request.arrow, f"table {request.name!r}")
        self._tables.save(request.name, frame, request.id, request.label)
        return m.Ok()

    def _guarded(self, request: m.LoadTable | m.SaveTable | m.AskGate | m.KeepTable, analyst: str) -> Message:
        """Answers with schemas and checked aggregates; rows stay on this side."""
        if self._gate is None:
            raise Refused(f"{self._tables.member} has no gate to ask.", member=self._tables.member, rule="mode")
        if isinstance(request, m.LoadTable):
            return m.TableSchema(self._gate.schema(request.name, analyst))
        if isinstance(request, m.AskGate):
            return m.GateAnswer(self._gate.ask(request.question, analyst))
        if isinstance(request, m.KeepTable):
            self._gate.keep(request.plan, analyst)
            return m.Ok()
        raise Refused(
            f"{self._tables.member} is guarded: a table of a cell's own is not taken in, since its ids could pick "
            "rows. Save what was derived from a table that fed.load gave.",
            member=self._tables.member,
            rule="own rows",
        )

    def _own_part(self, run: str) -> m.ModelPart:
        if self._policy.mode == "guarded" and not self._policy.releases("coefficients"):
            raise Refused(
                f"{self._tables.member} does not show its coefficients to analysts.",
                member=self._tables.member,
                rule="release",
            )
        part = self._store.load(run)
        if "prepared" in part:
            if self._policy.mode == "guarded":
                raise Refused(
                    f"{self._tables.member} shows nobody what was fitted on its columns: quantiles and categories are "
                    "rows' own values.",
                    member=self._tables.member,
                    rule="mode",
                )
            return m.ModelPart({"prepared": list(part["prepared"])})
        if "card" in part:
            if self._policy.mode == "guarded":
                raise Refused(
                    f"{self._tables.member} shows nobody where its bins are cut: a cut point is some row's own value. "
                    "card.table() has what it releases.",
                    member=self._tables.member,
                    rule="mode",
                )
            return m.ModelPart({name: part[name] for name in CARD if name in part})
        if "coef" not in part or "columns" not in part:
            raise DataError(f"{self._tables.member} holds no coefficients of run {run}, and no scorecard.")
        found = {name: np.asarray(part[name], dtype=np.float64) for name in ("coef", "std_err") if name in part}
        return m.ModelPart({**found, "columns": list(part["columns"])})
