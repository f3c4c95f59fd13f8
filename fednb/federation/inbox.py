"""The owner's inbox: what analysts ask for, what it would do, and the decision.

It works on the files of the member's home, so it needs no running agent; one that runs sees a decision within a second.
Every decision goes into the member's audit log.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import msgspec

from fednb.config import FederationConfig
from fednb.errors import ConfigError, DataError
from fednb.federation import approved, mock, quarantine
from fednb.federation.agent import sandbox_of
from fednb.federation.cells import CellEvent
from fednb.federation.process import short_folder
from fednb.federation.tables import TableStore
from fednb.policy import approvals, codeview
from fednb.policy.approvals import ApprovalStore, Request
from fednb.policy.audit import AuditLog
from fednb.policy.sandbox import Sandbox, find
from fednb.text import plain
from fednb.wire.keys import MemberHome

TRY_SECONDS = 120.0
DAY = 86_400.0


class Case(msgspec.Struct, frozen=True):
    """A request as an owner looks at it."""

    request: Request
    reading: codeview.Reading
    before: str  # id of the last cell of this analyst that was approved; "": none
    difference: list[str]  # to that one


class Inbox:
    """One member's requests, for its owner."""

    def __init__(self, home: MemberHome, federation: FederationConfig) -> None:
        """Raises ConfigError for a member that approves no cells."""
        settings = federation.parties.get(home.name)
        if settings is None or not settings.approval:
            raise ConfigError(
                f"{federation.path}: {home.name} approves no cells. With approval = true under [party.{home.name}], "
                "analysts may ask for some."
            )
        self._home = home
        self._settings = settings
        self._store = ApprovalStore(home.folder / "approvals")
        self._audit = AuditLog(home.folder / "audit", home.name, home.identity.sign)

    @property
    def home(self) -> MemberHome:
        """The member's."""
        return self._home

    def stamp(self) -> int:
        """Changes when a request does."""
        return self._store.stamp()

    def requests(self, *, all: bool = False) -> list[Request]:
        """What waits for the owner: to be approved, or its outputs to be released; with `all`, everything."""
        return [each for each in self._store.all() if all or _waits(each)]

    def case(self, id: str) -> Case:
        """A request with what it would do and how it differs. Raises DataError."""
        request = self._store.get(id)
        former = [
            each
            for each in self._store.all()
            if each.analyst == request.analyst and each.id != request.id and each.asked < request.asked
            if each.decision == "approved" or each.outcome
        ]
        before = former[-1] if former else None
        difference = codeview.difference(before.code if before else "", request.code)
        return Case(request, codeview.read(request.code), before.id if before else "", difference)

    def dry_run(self, id: str) -> str:
        """What the cell says on invented rows, in the sandbox that the real run would have."""
        request = self._store.get(id)
        tables = TableStore(self._home.name, self._settings.tables, self._home.folder / "tables")
        invented = {}
        for table in tables.describe():
            if table.name in request.tables:
                declared = self._settings.tables.get(table.name)
                invented[table.name] = mock.invent(table, declared.mock if declared else {})
        folder = short_folder()
        try:
            events = approved.run(
                self._home.name, request.code, invented, self._sandbox(), folder / "t", seconds=TRY_SECONDS
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return quarantine.text(events)

    def approve(
        self, id: str, *, uses: int = 1, days: float = approvals.APPROVED_DAYS, release: bool = False
    ) -> Request:
        """Let it run so many times until then. Its outputs wait for `release`, unless they are to go out at once."""
        if not 1 <= uses <= 1000 or not 0 < days <= 366:
            raise ConfigError("a cell is approved for 1 to 1000 times and for up to 366 days.")
        request = self._pending(id)
        until = time.time() + days * DAY
        ticket: dict[str, Any] = {"uses": uses, "until": until, "at_once": release}
        self._audit.append("approved", request=request.id, by=request.analyst, cell=request.cell, **ticket)
        return self._store.change(request.id, {"decision": "pending"}, decision="approved", **ticket)

    def deny(self, id: str, why: str) -> Request:
        """The analyst is told why. Denying what was approved takes the approval back."""
        if not why.strip():
            raise ConfigError("say why: the analyst is told.")
        request = self._store.get(id)
        if request.outcome or request.decision not in ("pending", "approved"):
            raise DataError(f"request {request.id} is {request.state} by now.")
        self._audit.append("denied", request=request.id, by=request.analyst, cell=request.cell, reason=why)
        return self._store.change(request.id, {"outcome": ""}, decision="denied", why=why, uses=0)

    def outputs(self, id: str) -> list[CellEvent]:
        """What an approved cell said, and all that the analyst would get. Raises DataError."""
        return quarantine.unpack(self._store.outcome(self._store.get(id).id))

    def release(self, id: str) -> Request:
        """Let the analyst have the outputs."""
        request = self._quarantined(id)
        self._audit.append("released", request=request.id, by=request.analyst)
        return self._store.change(request.id, {"outcome": "quarantined"}, outcome="released")

    def withhold(self, id: str, why: str) -> Request:
        """Delete the outputs; the analyst is told why. It does not run again."""
        if not why.strip():
            raise ConfigError("say why: the analyst is told.")
        request = self._quarantined(id)
        self._audit.append("withheld", request=request.id, by=request.analyst, reason=why)
        changed = self._store.change(request.id, {"outcome": "quarantined"}, outcome="withheld", why=why, uses=0)
        self._store.forget_outcome(request.id)
        return changed

    def _sandbox(self) -> Sandbox:
        return sandbox_of(self._settings, self._home.folder) or Sandbox(find())

    def _pending(self, id: str) -> Request:
        request = self._store.get(id)
        if request.decision != "pending":
            raise DataError(f"request {request.id} is {request.state} by now.")
        return request

    def _quarantined(self, id: str) -> Request:
        request = self._store.get(id)
        if request.outcome != "quarantined":
            raise DataError(f"request {request.id} has no outputs that wait: it is {request.state}.")
        return request


def open_inbox(home: Path, file: Path | None = None) -> Inbox:
    """Of a member's home; its federation file is `federation.toml` in it, or the one that `fednb up` ran it with.

    Raises ConfigError.
    """
    from fednb import config

    member = MemberHome.load(home)
    # `fednb up` keeps homes in .fednb beside the federation file
    near = [home / "federation.toml", *sorted(home.absolute().parent.parent.glob("*.toml"))]
    for candidate in [file] if file else [each for each in near if each.exists()]:
        federation = config.load(candidate)
        if file or member.name in federation.parties:
            return Inbox(member, federation)
    raise ConfigError(f"{home} holds no federation.toml; name the file with --file.")


def describe(case: Case) -> str:
    """A case in words, for a terminal: what came from the analyst is made harmless."""
    request, reading = case.request, case.reading
    asked = time.strftime("%Y-%m-%d %H:%M", time.localtime(request.asked))
    lines = [f"{request.id}  {request.state}  from {request.analyst}, {asked}", f"reason: {plain(request.reason)}", ""]
    lines += [f"  {number:>3}  {line}" for number, line in enumerate(plain(request.code, 200_000).splitlines(), 1)]
    lines.append("")
    for title, words in (
        ("imports", reading.imports),
        ("tables", reading.tables),
        ("columns and other texts in brackets", reading.columns),
        ("says", reading.outputs),
        ("look at", reading.attention),
    ):
        lines.append(f"{title}: {plain(', '.join(words), 10_000) or 'none'}")
    if case.before and case.difference:
        lines += ["", f"difference to {case.before}, approved before:"]
        lines += [plain(each, 1000) for each in case.difference]
    elif case.before:
        lines += ["", f"the same text as {case.before}, approved before"]
    if request.decision == "approved":
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(request.until))
        lines += ["", f"approved until {until}, {request.uses} more times"]
    if request.why:
        lines += ["", f"why: {plain(request.why)}"]
    return "\n".join(lines)


def _waits(request: Request) -> bool:
    return request.decision == "pending" or request.outcome == "quarantined"
