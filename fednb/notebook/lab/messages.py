"""What a kernel and the page around its notebook say to each other, over one comm.

Names, counts and states; never a key, a row or a value. Every message carries the version: a page and a kernel of
different releases ignore what they do not know, and say so once.

    kernel ──> page    hello, federation, tables, runs, run, cell, note; to an owner: inbox, case, tried, audit
           <────────   hello, look, cancel, interrupt, refresh; an owner's: open, try, approve, deny, verify
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from fednb.typed import known

TARGET = "fednb.lab"
VERSION = 1

Id = Annotated[str, msgspec.Meta(max_length=200)]

CellState = Literal["waiting", "pending", "running", "ok", "error", "interrupted", "refused", "died"]


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of what the kernel tells."""

    v: int = VERSION


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the structs inside."""


class Hello(Told, frozen=True, tag="hello"):
    """fednb is loaded in this kernel."""

    release: str  # of fednb


# ---------------------------------------------------------------- the federation


class Member(Part, frozen=True):
    name: str
    kind: str  # "party", "coordinator", "analyst", "hub"
    up: bool
    version: str = ""
    ms: float | None = None  # round trip, milliseconds
    mode: str = ""  # of a party; "" where it is not known
    why: str = ""  # what is wrong with it


class FederationNews(Told, frozen=True, tag="federation"):
    """Whom this notebook is connected to."""

    connected: bool
    me: str = ""
    coordinator: str = ""
    parties: list[str] = []
    members: list[Member] = []
    attached: str | None = None  # the member whose cells need no magic
    asks: list[str] = []  # parties that invent rows to try cells on
    advice: str = ""  # what is wrong, and what to do


class Column(Part, frozen=True):
    name: str
    dtype: str
    role: str  # "id", "label", "feature"


class Table(Part, frozen=True):
    member: str
    name: str
    rows: int
    columns: list[Column]
    more: int = 0  # columns that are not listed


class TablesNews(Told, frozen=True, tag="tables"):
    """Who holds which tables."""

    tables: list[Table]


# ---------------------------------------------------------------- runs and cells


class Overlap(Part, frozen=True):
    """How the tables of an alignment overlap."""

    matched: int
    ids: dict[str, int]  # by party, after normalisation
    duplicates: dict[str, int]
    notes: list[str] = []


class Run(Part, frozen=True):
    run: str
    title: str
    protocol: str
    status: Literal["running", "ok", "failed", "cancelled"]
    seconds: float
    started: float  # unix seconds
    by: str
    members: list[str]
    mine: bool  # whether this analyst may cancel it
    bytes: int = 0
    estimate: float | None = None  # seconds that were expected
    error: str = ""
    overlap: Overlap | None = None


class RunsNews(Told, frozen=True, tag="runs"):
    """The coordinator's runs, newest first."""

    runs: list[Run]


class Crossing(Part, frozen=True):
    """What one member sent to another, by kind of message."""

    member: str
    to: str
    what: str
    messages: int
    values: int
    bytes: int
    rule: str
    status: str
    entry: int | None = None  # in the member's audit log


class RunNews(Told, frozen=True, tag="run"):
    """How one run goes, in the words and figures of its widget."""

    run: str
    over: bool
    progress: dict[str, Any]  # `widgets.training.snapshot`
    receipts: list[Crossing] = []


class Place(Part, frozen=True):
    """A cell at one member."""

    member: str
    state: CellState
    seconds: float = 0.0  # since it began to wait or run there; when it is over: that it took
    reason: str = ""


class CellNews(Told, frozen=True, tag="cell"):
    """Where a cell runs, and what left members for it."""

    cell: str  # the notebook's own id of the cell
    places: list[Place]
    runs: list[str] = []  # that it began
    receipts: list[Crossing] = []
    invented: bool = False  # it ran here, on invented rows


class Note(Told, frozen=True, tag="note"):
    """An answer in words, for a person."""

    text: str
    failed: bool = False


# ---------------------------------------------------------------- to the owner of a party


class Waiting(Part, frozen=True):
    """A request in an owner's inbox: what an analyst asks for, or what it said and waits to be released."""

    id: str
    analyst: str
    reason: str
    state: str  # "pending", "quarantined"
    asked: float  # unix seconds


class OwnInbox(Part, frozen=True):
    """The inbox of one member whose home this notebook's user opened."""

    home: str  # its folder
    member: str
    requests: list[Waiting] = []  # oldest first
    command: str = ""  # the magic that shows it under a cell, outputs too
    wrong: str = ""  # why there is none


class InboxNews(Told, frozen=True, tag="inbox"):
    """What waits for this notebook's user as an owner."""

    inboxes: list[OwnInbox]


class CaseNews(Told, frozen=True, tag="case"):
    """A request as an owner has to see it: all of its text, and what stands in it."""

    home: str
    request: str
    code: str
    before: str  # the last cell of this analyst that was approved; "": none
    difference: list[str]  # to that one, lines of a unified difference
    imports: list[str]
    tables: list[str]
    columns: list[str]
    outputs: list[str]
    attention: list[str]


class TriedNews(Told, frozen=True, tag="tried"):
    """What a request says on invented rows."""

    home: str
    request: str
    over: bool
    text: str = ""
    failed: bool = False  # it could not be tried


class Left(Part, frozen=True):
    """What left a member, by receiver, kind and rule, over the whole log."""

    to: str
    what: str
    rule: str
    messages: int
    values: int
    bytes: int


class CheckedLog(Part, frozen=True):
    """What `fednb audit verify` finds in one member's log, and what the log says has left."""

    home: str
    member: str
    entries: int = 0
    head: str = ""  # hash of the last entry
    notes: list[str] = []  # what was checked, in words
    problems: list[str] = []
    left: list[Left] = []


class AuditNews(Told, frozen=True, tag="audit"):
    """The audit logs of the members that this notebook's user owns."""

    checked: float  # unix seconds
    logs: list[CheckedLog]


# ---------------------------------------------------------------- page -> kernel


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """Base of what the page asks."""

    v: int = VERSION


class HelloPage(Asked, frozen=True, tag="hello"):
    """A page is there: tell it everything."""


class Look(Asked, frozen=True, tag="look"):
    """Somebody looks at this run."""

    run: Id


class Cancel(Asked, frozen=True, tag="cancel"):
    """Cancel this run."""

    run: Id


class Interrupt(Asked, frozen=True, tag="interrupt"):
    """Interrupt every cell of this notebook at every member, those in the background too."""


class Refresh(Asked, frozen=True, tag="refresh"):
    """Ask members again."""


class AboutRequest(Asked, frozen=True):
    """Base of what an owner's page asks about one request."""

    home: Annotated[str, msgspec.Meta(max_length=4096)]
    request: Id


class Open(AboutRequest, frozen=True, tag="open"):
    """Somebody reads this request."""


class Try(AboutRequest, frozen=True, tag="try"):
    """Run it on invented rows."""


class Approve(AboutRequest, frozen=True, tag="approve"):
    """Let it run so many times within so many days; its outputs wait to be released."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    days: Annotated[float, msgspec.Meta(gt=0, le=366)]


class Deny(AboutRequest, frozen=True, tag="deny"):
    """The analyst is told why."""

    why: Annotated[str, msgspec.Meta(max_length=4000)]


class Verify(Asked, frozen=True, tag="verify"):
    """Check the audit logs of the members that this notebook's user owns."""


OwnersQuestion = Open | Try | Approve | Deny | Verify
Question = HelloPage | Look | Cancel | Interrupt | Refresh | OwnersQuestion


def told(message: Told) -> dict[str, Any]:
    """As a comm carries it."""
    return msgspec.to_builtins(message)  # type: ignore[no-any-return]


def asked(data: object) -> Question:
    """What a page asks. Raises ValueError for another version, an unknown kind or anything else."""
    if not isinstance(data, dict) or data.get("v") != VERSION:
        raise ValueError(f"a message of another version than {VERSION}")
    question: Question = msgspec.convert(data, known(Question))  # ValidationError is a ValueError
    return question
