"""The vocabulary between analysts, the coordinator and parties: cells, runs and tables.

It is closed on purpose. An agent drives a stock Jupyter kernel, but nothing of Jupyter's own protocol crosses the
network: what these messages cannot say (debugging, history, comms, user expressions, stdin) cannot be asked.

    analyst ── "cells" ──────> agent          Execute, Interrupt, Complete, Inspect, Restart
            <───────────────────               Stream, Display, ClearOutput, CellError, Captured, CellDone, ...
    analyst ── "asks" ───────> agent          Ask, ListAsks, AskMock
            <───────────────────               CellStarted, Stream, ..., CellDone | Asks | Mock
    client  ── "runs/<id>" ──> coordinator    StartRun | ResumeRun | WatchRun | CancelRun | ListRuns | ListTables
                                              | AskPlacement
            <───────────────────               RunStarted, RunEvent*, RunEnded | Runs | Tables | Placement
    coordinator ── "member/<run>" ──> agent   Join, Go, Cancel | Describe
                <───────────────────           Joined | Declined, MemberEvent*, MemberDone | MemberFailed | Tables
    role    ── "run/<run>" ──> role           the protocol's own messages
    kernel  ── "local" (pipe) ─> its agent    LoadTable, SaveTable, Describe, Lock, ReadModel, ListMembers
                                              and at a guarded party AskGate, KeepTable
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from fednb.policy.answer import Answer, Schema
from fednb.policy.audit import Head
from fednb.policy.plan import Aggregate, Correlate, Count, Histogram, Keep, Regress
from fednb.wire.endpoint import Presence
from fednb.wire.message import Message

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")]
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Text = Annotated[str, msgspec.Meta(max_length=1 << 24)]
Word = Annotated[str, msgspec.Meta(max_length=200)]
# of one event: the coordinator keeps many of them, so none may be large
Figures = Annotated[dict[Word, float], msgspec.Meta(max_length=100)]
Intervals = Annotated[dict[Word, tuple[float, float]], msgspec.Meta(max_length=100)]
Counts = Annotated[dict[Word, int], msgspec.Meta(max_length=100)]


# ---------------------------------------------------------------- receipts


class Crossing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went from one member to another, by kind of message."""

    to: Word
    what: Word  # "Points", "Residuals", "Display", ...
    messages: int
    values: int  # numbers, ciphertexts or points; of text, pieces
    bytes: int  # of payload


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What left one member for a cell or a run, under which rule, and the head of its audit log then."""

    member: Word
    about: Id  # the cell or the run
    status: Word
    rule: Word
    crossed: Annotated[list[Crossing], msgspec.Meta(max_length=1000)] = []
    head: Head | None = None  # None: this member keeps no audit log (simulation)


# ---------------------------------------------------------------- cells: analyst -> agent


class Execute(Message):
    cell: Id  # chosen by the analyst's side; every answer repeats it
    code: Text
    capture: list[str] = []  # names whose values the analyst wants back (-o)


class Interrupt(Message):
    cell: Id
    kill: bool = False  # after the grace time: kill the kernel


class Complete(Message):
    query: Id
    code: Text
    cursor: int  # in unicode code points


class Inspect(Message):
    query: Id
    code: Text
    cursor: int
    detail: Literal[0, 1] = 0


class Restart(Message):
    query: Id


# ---------------------------------------------------------------- cells: agent -> analyst


class CellStarted(Message):
    cell: Id


class Stream(Message):
    cell: Id
    name: Literal["stdout", "stderr"]
    text: Text


class Display(Message):
    cell: Id
    data: dict[str, Any]  # MIME bundle: str, or JSON for "…+json"; images as base64 str
    metadata: dict[str, Any] = {}
    display_id: str | None = None
    update: bool = False  # replaces what was shown under display_id
    result: bool = False  # the cell's value (execute_result) rather than a display call


class ClearOutput(Message):
    cell: Id
    wait: bool = False


class CellError(Message):
    cell: Id
    ename: Text
    evalue: Text
    traceback: list[str]  # lines with ANSI colours, as IPython made them


class PlainValue(Message):
    value: Any  # None, bool, int, float, str, bytes, and lists and dicts of these


class ArrayValue(Message):
    value: np.ndarray


class TableValue(Message):
    arrow: np.ndarray  # uint8: Arrow IPC stream
    series: bool = False  # it was a pandas Series (one column)


class Captured(Message):
    cell: Id
    name: str
    value: PlainValue | ArrayValue | TableValue


class CellDone(Message):
    cell: Id
    status: Literal["ok", "error", "interrupted", "refused", "died", "waiting"]  # waiting: for an owner, see reason
    seconds: float = 0.0
    count: int | None = None  # the party kernel's execution count
    reason: str = ""  # why refused or died, and what to do next
    receipt: Receipt | None = None


class Completions(Message):
    query: Id
    matches: list[str]
    start: int
    end: int
    types: dict[str, str] = {}


class Inspection(Message):
    query: Id
    found: bool
    data: dict[str, str] = {}  # text/plain only


class Restarted(Message):
    query: Id


# ---------------------------------------------------------------- cells that an owner approves


class Ask(Message):
    """Ask for a cell, or for what became of the same one: its outputs and CellDone, or CellDone alone."""

    cell: Id
    code: Text
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]


class ListAsks(Message):
    query: Id


class AskState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one request of the analyst's stands."""

    request: Id
    state: Word
    why: str
    reason: str
    asked: float  # seconds since 1970
    until: float
    uses: int
    code: str


class Asks(Message):
    query: Id
    asks: Annotated[list[AskState], msgspec.Meta(max_length=10_000)]


class AskMock(Message):
    """Invented rows of a table's shape."""

    query: Id
    table: Name


class Mock(Message):
    query: Id
    arrow: np.ndarray | None = None  # uint8: Arrow IPC stream
    error: str = ""  # why there is none


# ---------------------------------------------------------------- tables


class ColumnInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    dtype: str  # "int", "float", "bool", "text", "date", "category"
    role: Literal["id", "label", "feature"]


class TableInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    member: str
    name: str
    rows: int
    columns: list[ColumnInfo]


class Describe(Message):
    """Which tables do you hold? Names, types and row counts; never values."""


class AskPlacement(Message):
    """In whose organisation does the coordinator run?"""


class Placement(Message):
    organisation: str = ""  # a party's name; "": apart from all


class ListTables(Message):
    """Which tables does every party hold?"""


class Tables(Message):
    tables: list[TableInfo]
    missing: dict[str, str] = {}  # member -> why it did not answer
    modes: dict[str, Word] = {}  # member -> the mode that its owner set
    asks: list[Word] = []  # members whose owners approve cells, and who invent rows to write them on


# ---------------------------------------------------------------- runs: client <-> coordinator


class DataRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of a member's rows and columns a run uses."""

    table: str | None = None  # a table by name, all rows (alignment) ...
    on: list[str] = []  # ... and its id columns
    frame: str | None = None  # or an aligned frame, by the id of the run that made it ...
    rows: np.ndarray | None = None  # ... with int64 positions within it (None: all)
    columns: list[str] | None = None  # None: every feature
    label: str | None = None
    part: str | None = None  # this member's private part of an earlier run (a model)
    parts: Annotated[list[str], msgspec.Meta(max_length=1000)] = []  # and of several (scores of folds or of classes)


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody expects a run to take."""

    seconds: float
    bytes: int
    iterations: int


class StartRun(Message):
    protocol: str
    cast: dict[str, list[str]]  # role -> members
    data: dict[str, DataRef] = {}  # member -> what it uses
    params: dict[str, Any] = {}
    title: str = ""  # for people: "VerticalLogisticRegression on bank, agency"
    estimate: Estimate | None = None  # to be shown beside what it took


class RunStarted(Message):
    run: Id


class WatchRun(Message):
    run: Id
    since: int = 0  # events with seq >= since


class CancelRun(Message):
    run: Id


class ResumeRun(Message):
    """Continue a run that failed half-way from the last step that every member has in its journal."""

    run: Id


class ListRuns(Message):
    limit: int = 50


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that happened at one member in a run."""

    member: Word
    role: Word
    at: float  # unix seconds, the member's clock
    phase: Word  # "prepare", "train", "intersect", ...; "wait" while a role waits for a message
    step: int = 0
    total: int | None = None
    metrics: Figures = {}  # loss, gradient_norm, eta_seconds, ...
    operations: Counts = {}  # encrypted-arithmetic operations so far, by kind
    bytes_out: Counts = {}  # payload bytes so far, by peer
    bytes_in: Counts = {}
    waiting_for: Word = ""  # "Residuals from bank", while it waits


class RunEvent(Message):
    run: Id
    seq: int
    event: Event


class MemberResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    public: dict[str, Any] = {}
    operations: dict[str, int] = {}
    bytes_out: dict[str, int] = {}
    bytes_in: dict[str, int] = {}


class RunEnded(Message):
    run: Id
    status: Literal["ok", "failed", "cancelled"]
    results: dict[str, MemberResult] = {}
    error: str = ""
    error_type: str = ""
    member: str = ""  # who failed first
    seconds: float = 0.0
    rule: str = ""  # that refused, where one did
    notices: list[str] = []  # what the owner of some rows should know of this run
    receipts: list[Receipt] = []  # one of each member that played, however it ended


class RunInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: str
    protocol: str
    title: str
    status: Literal["running", "ok", "failed", "cancelled"]
    started: float  # unix seconds
    seconds: float
    by: str  # who asked for it
    cast: dict[str, list[str]]
    error: str = ""
    estimate: Estimate | None = None
    bytes: int = 0  # payload that crossed between members, once it ended well
    params: dict[Word, bool | int | float | Word | None] = {}  # those that are single values
    figures: Figures = {}  # single numbers that members made public, once it ended well
    follows: Word = ""  # the run whose part this one used: a fit is followed by its scores, these by an evaluation
    version: Word = ""  # of fednb at the coordinator
    intervals: Intervals = {}  # of those figures that have one
    data: dict[Word, Word] = {}  # member -> digest of the table that it used; the same for the same content only
    code: dict[Word, Word] = {}  # member -> digest of the code that played there


class Runs(Message):
    runs: list[RunInfo]


class Failed(Message):
    """The request itself could not be served (the run never began)."""

    error: str
    error_type: str = ""
    member: str = ""
    rule: str = ""


# ---------------------------------------------------------------- runs: coordinator <-> member


class Join(Message):
    run: Id
    protocol: str
    version: int
    role: str
    cast: dict[str, list[str]]
    params: dict[str, Any]
    data: DataRef
    by: str  # the analyst who asked
    coordinator_at: str = ""  # the party whose organisation runs the coordinator; "": apart from all
    resume: bool = False  # say which steps of this run are in your journal


class Joined(Message):
    """The member's policy agrees and its data is ready."""

    steps: list[int] = []  # of a run to be resumed: where this member could continue from
    head: Head | None = None
    data: Word = ""  # digest of the table that it uses, keyed with a secret of its own
    code: Word = ""  # digest of the code that plays here
    label_set: Word = ""  # where it holds the label: "loans.default", whatever was derived from that table since


class Declined(Message):
    error: str
    error_type: str = ""
    rule: str = ""


class Go(Message):
    """Everybody has joined: play."""

    step: int | None = None  # continue from this step of the journal
    heads: list[Head] = []  # of every member's audit log: each keeps those of the others


class Cancel(Message):
    reason: str = ""


class MemberEvent(Message):
    event: Event


class MemberDone(Message):
    result: MemberResult
    receipt: Receipt | None = None


class MemberFailed(Message):
    error: str
    error_type: str = ""
    member: str = ""  # who failed first, as this member saw it
    rule: str = ""  # of this member's, that refused
    receipt: Receipt | None = None


# ---------------------------------------------------------------- a party kernel and its own agent (pipe)


class LoadTable(Message):
    name: str


class SaveTable(Message):
    name: Name
    arrow: np.ndarray  # uint8: Arrow IPC stream
    id: list[str]
    label: str | None = None


class TableData(Message):
    arrow: np.ndarray  # uint8: Arrow IPC stream
    id: list[str] = []
    label: str | None = None


class TableSchema(Message):
    """What a guarded party gives in place of a table's data."""

    schema: Schema


class AskGate(Message):
    """A question for a guarded party's gate."""

    question: Aggregate | Count | Histogram | Correlate | Regress


class GateAnswer(Message):
    answer: Answer


class KeepTable(Message):
    """Make a table that stays at a guarded party."""

    plan: Keep


class Lock(Message):
    """From now on, protocols only: no cells until the owner starts this party again."""


class ReadModel(Message):
    """This member's own part of a model: its coefficients."""

    run: Id


class ModelPart(Message):
    values: dict[str, Any]


class ListMembers(Message):
    """Who is in this federation, and who of them is up?"""


class Members(Message):
    members: list[Presence]


class Put(Message):
    """A kernel hands its agent a captured value (-o), to go out with the cell's answers."""

    cell: Id
    name: str
    value: PlainValue | ArrayValue | TableValue


class Ok(Message):
    """Done."""
