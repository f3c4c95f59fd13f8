"""Where analysts ask for cells, and where those that the owner approved are run: the agent's part of approval mode.

    analyst ── Ask ──> kept as pending, for `fednb inbox` ── approved ──> run here ──> quarantined ── released ──┐
            <── CellDone "waiting", with the state, until then; then what the cell said ──────────────────────────┘

The same cell again tells where it stands, or gives its outputs, also after either end was restarted.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fednb.config import TableConfig
from fednb.errors import DataError, FednbError, LinkError, Refused
from fednb.federation import approved, mock, quarantine
from fednb.federation import messages as m
from fednb.federation.arrow import to_arrow
from fednb.federation.outbox import Outbox
from fednb.federation.receipts import Book
from fednb.federation.tables import TableStore
from fednb.policy import approvals, codeview
from fednb.policy.approvals import ApprovalStore, Request
from fednb.policy.mode import MemberPolicy
from fednb.policy.sandbox import Sandbox
from fednb.wire.endpoint import Conversation, Endpoint

log = logging.getLogger("fednb.approvals")

LOOK_SECONDS = 0.5  # between two looks at whether the owner has decided something
LOOK_ANYWAY = 10.0
CHANGED = "the tables or the software have changed since it was asked for"


class AskDesk:
    """Serves the "asks" conversations of analysts, and runs what was approved, one cell at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        policy: MemberPolicy,
        tables: TableStore,
        store: ApprovalStore,
        sandbox: Sandbox,
        book: Book,
        *,
        declared: Mapping[str, TableConfig],
        run_folder: Path,
        seconds: float,
    ) -> None:
        """`declared` has ranges for invented rows; `seconds` is how long an approved cell may take."""
        self._endpoint = endpoint
        self._policy = policy
        self._tables = tables
        self._store = store
        self._sandbox = sandbox
        self._book = book
        self._declared = declared
        self._run_folder = run_folder
        self._seconds = seconds
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        for each in store.all():
            if each.outcome == "running":  # when this agent was stopped or died: nobody has seen what it said
                store.change(each.id, {}, outcome="", uses=each.uses + 1)
        self._thread = threading.Thread(target=self._watch, name="fednb-approvals", daemon=True)
        self._thread.start()
        endpoint.listen("asks", self._serve)

    def close(self) -> None:
        """Run nothing more. A cell that runs is ended, and runs again when the member starts the next time."""
        self._stop.set()
        self._thread.join(2 * approved.LATE)

    # ------------------------------------------------------------ analysts

    def _serve(self, talk: Conversation) -> None:
        analyst = talk.peer.partition("#")[0]
        known = self._endpoint.members().get(analyst)
        if known is None or known.kind != "analyst":
            talk.close(f"{self._endpoint.me} is asked for cells by analysts only, and {analyst} is none.")
            return
        book = self._book.cells(analyst)
        outbox = Outbox(talk, book.passes)
        try:
            while True:
                request = talk.recv(m.Ask, m.ListAsks, m.AskMock)
                if isinstance(request, m.ListAsks):
                    outbox.put(m.Asks(request.query, [_state(each) for each in self._of(analyst)][-1000:]))
                elif isinstance(request, m.AskMock):
                    outbox.put(self._mock(request, analyst))
                else:
                    try:
                        said = self._ask(analyst, request)
                        if isinstance(said, str):
                            outbox.put(m.CellDone(request.cell, "waiting", reason=said))
                        else:
                            rule = f"approval {said.id}"
                            book.begins(m.Execute(request.cell, said.code), "allowed", rule)
                            for event in quarantine.unpack(self._store.outcome(said.id)):
                                outbox.put(msgspec.structs.replace(event, cell=request.cell))
                            self._store.change(said.id, {}, seen=True)
                    except LinkError:
                        raise
                    except FednbError as error:
                        outbox.put(m.CellDone(request.cell, "refused", reason=str(error)))
        except LinkError as error:
            log.info("the conversation with %s ended: %s", talk.peer, error)
        finally:
            outbox.close()
            book.close()

    def _of(self, analyst: str) -> list[Request]:
        return [each for each in self._store.all() if each.analyst == analyst]

    def _ask(self, analyst: str, ask: m.Ask) -> str | Request:
        """What to wait for, or the request whose outcome is there. Raises Refused, DataError."""
        member = self._endpoint.me
        self._policy.check_asks_of(analyst)
        codeview.parse(ask.code, member)
        cell = codeview.digest(ask.code)
        last = next((each for each in reversed(self._of(analyst)) if each.cell == cell), None)
        before = ""
        if last is not None:
            if last.outcome == "released" and not (last.seen and last.uses and last.decision == "approved"):
                return last
            if last.outcome in ("running", "quarantined", "withheld"):
                return _words(last, member)
            if last.decision == "denied" and last.reason == ask.reason:
                raise Refused(f"its owner denied the request {last.id}: {last.why}", member=member, rule="approval")
            if last.outcome == "released":  # seen, and approved for another time
                self._store.change(last.id, {"outcome": "released"}, outcome="", seen=False)
                return f"request {last.id} is approved and runs once more; ask again for what it says."
            if last.decision in ("pending", "approved"):
                return _words(last, member)
            if last.decision == "expired":
                before = f" (The request before has expired: {last.why}.)"
        reading = codeview.read(ask.code)
        tables = tuple(reading.tables)
        made = self._store.add(analyst, ask.code, ask.reason, cell, self._binding(tables), tables)
        code = self._book.keep(ask.code)
        self._book.note("asked", request=made.id, by=analyst, reason=ask.reason, tables=reading.tables, code=code)
        return _words(made, member) + before

    def _mock(self, ask: m.AskMock, analyst: str) -> m.Mock:
        try:
            self._policy.check_asks_of(analyst)
            table = next((each for each in self._tables.describe() if each.name == ask.table), None)
            if table is None:
                raise DataError(f"{self._endpoint.me} has no table {ask.table!r}.")
            ranges = self._declared[ask.table].mock if ask.table in self._declared else {}
            return m.Mock(ask.query, to_arrow(mock.invent(table, ranges), f"table {ask.table!r}"))
        except FednbError as error:
            return m.Mock(ask.query, error=str(error))

    # ------------------------------------------------------------ approved cells

    def _binding(self, tables: Sequence[str]) -> str:
        """Raises DataError for a table that is not there."""
        return approvals.binding({name: self._tables.digest(name) for name in tables})

    def _watch(self) -> None:
        seen, at = 0, 0.0
        while not self._stop.wait(LOOK_SECONDS):
            stamp, now = self._store.stamp(), time.monotonic()
            if stamp == seen and now - at < LOOK_ANYWAY:
                continue
            seen, at = stamp, now
            try:
                for each in self._store.all():
                    if each.decision == "approved" and not each.outcome and each.uses > 0 and not self._stop.is_set():
                        self._run(each)
            except Exception:  # what is damaged is told to whoever asks; all others go on
                log.exception("the approved cells could not be looked through")

    def _run(self, request: Request) -> None:
        try:
            if self._binding(request.tables) != request.data:
                raise DataError(CHANGED)
            taken = {"decision": "approved", "outcome": "", "uses": request.uses}
            self._store.change(request.id, taken, outcome="running", uses=request.uses - 1)
        except DataError as error:
            self._store.change(request.id, {"outcome": ""}, decision="expired", why=str(error))
            self._book.note("approval expired", request=request.id, by=request.analyst, reason=str(error))
            return
        try:
            code = self._book.keep(request.code)
            self._book.note("approved cell", request=request.id, by=request.analyst, tables=request.tables, code=code)
            tables = {name: self._tables.read(name) for name in request.tables}
            folder = self._run_folder / f"a{next(self._numbers)}"
            began = time.monotonic()
            member, seconds = self._endpoint.me, self._seconds
            events = approved.run(member, request.code, tables, self._sandbox, folder, seconds=seconds, stop=self._stop)
            if self._stop.is_set():
                return
            self._store.keep(request.id, quarantine.pack(events))
            output = self._book.keep(quarantine.text(events))
            after = "released" if request.at_once else "quarantined"
            took = round(time.monotonic() - began, 3)
            self._book.note("approved cell ended", request=request.id, output=output, outcome=after, seconds=took)
            self._store.change(request.id, {}, outcome=after, seen=False)
        except Exception as error:
            log.exception("an approved cell could not be run")
            why = str(error) if isinstance(error, FednbError) else f"an internal error ({type(error).__name__})"
            self._store.change(request.id, {}, outcome="", decision="denied", why=f"it could not be run: {why}")


def _words(request: Request, member: str) -> str:
    """Where a request stands, for the analyst."""
    about = f"request {request.id} at {member}"
    words = {
        "pending": "waits for its owner to approve it",
        "approved": "is approved and runs",
        "running": "is approved and runs",
        "quarantined": "has run; its outputs wait for the owner to release them",
        "withheld": f"has run, and the owner withholds its outputs: {request.why}",
    }
    return f"{about} {words[request.state]}. Run the same cell again, or `%fed asked`, to see how it stands."


def _state(request: Request) -> m.AskState:
    return m.AskState(
        request.id,
        request.state,
        request.why,
        request.reason,
        request.asked,
        request.until,
        request.uses,
        request.code[:200],
    )
