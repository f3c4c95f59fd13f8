"""Cells that wait for an owner, what she decided, and what came of it: one file a request, in the member's home.

    asked ── pending ──┬── approved (once, n times, until) ── running ── quarantined ──┬── released ── to the analyst
                       ├── denied, with a reason                        │              └── withheld
                       └── expired                                      └── released at once, where she said so

A request is bound to the cell's syntax tree, and its approval to the tables' contents and the software, as they were
when the cell was asked for: when one of them has changed, it is approved no more. The agent and the owner's
`fednb inbox` are two processes that work on the same files; a lock stands between them.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from fednb.errors import DataError, Refused
from fednb.typed import known

PENDING_DAYS = 14.0  # after which nobody has answered
APPROVED_DAYS = 7.0  # unless the owner says another time
MOST_WAITING = 50  # of one analyst

Decision = Literal["pending", "approved", "denied", "expired"]
Outcome = Literal["", "running", "quarantined", "released", "withheld"]

_ID = re.compile(r"[0-9a-f]{12}")


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request, and where it stands."""

    id: str
    analyst: str
    code: str  # as the analyst wrote it: this runs
    reason: str
    asked: float  # seconds since 1970, as all times here
    cell: str  # digest of the syntax tree
    data: str  # digest of the tables' contents and the software
    tables: tuple[str, ...]
    decision: Decision = "pending"
    why: str = ""  # it was denied, or has expired
    until: float = 0.0
    uses: int = 0  # left
    at_once: bool = False  # outputs are released without the owner's looking at them
    outcome: Outcome = ""
    seen: bool = False  # the analyst has had the outcome

    @property
    def state(self) -> str:
        """In a word or two, for people."""
        return self.outcome or self.decision


class ApprovalStore:
    """The requests at one member. Safe from any thread, and beside other processes of the same member."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def all(self) -> list[Request]:
        """Every request, oldest first."""
        found = [self._read(path) for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem)]
        return sorted(map(_aged, found), key=lambda each: (each.asked, each.id))

    def stamp(self) -> int:
        """Changes when a request does, a clock tick of Linux (milliseconds) at most aside."""
        return self.folder.stat().st_mtime_ns

    def get(self, id: str) -> Request:
        """By its id, or the beginning of it that no other has. Raises DataError."""
        found = [path for path in self.folder.glob("*.json") if _ID.fullmatch(path.stem) and path.stem.startswith(id)]
        if len(found) != 1 or not id:
            raise DataError(f"there {'is no request' if not found else 'are several requests'} {id!r}.")
        return _aged(self._read(found[0]))

    def add(self, analyst: str, code: str, reason: str, cell: str, data: str, tables: tuple[str, ...]) -> Request:
        """A new request. Raises Refused when too many of that analyst wait."""
        with self._locked():
            waiting = [each for each in self.all() if each.analyst == analyst and each.decision == "pending"]
            if len(waiting) >= MOST_WAITING:
                raise Refused(f"{MOST_WAITING} requests of {analyst} wait already.", rule="approval")
            made = Request(secrets.token_hex(6), analyst, code, reason, time.time(), cell, data, tables)
            self._write(made)
        return made

    def change(self, id: str, expect: Mapping[str, object], **changes: object) -> Request:
        """Replace fields of a request whose others are still as `expect` says. Raises DataError when they are not."""
        with self._locked():
            request = self.get(id)
            for name, value in expect.items():
                if getattr(request, name) != value:
                    raise DataError(f"request {request.id} is {request.state} by now.")
            changed = msgspec.structs.replace(request, **changes)
            self._write(changed)
        return changed

    def keep(self, id: str, outcome: bytes) -> None:
        """What a cell said, until the owner or the analyst has it."""
        self._replace(self.folder / f"{id}.outcome", outcome)

    def outcome(self, id: str) -> bytes:
        """What `keep` was given last. Raises DataError."""
        try:
            return (self.folder / f"{id}.outcome").read_bytes()
        except FileNotFoundError:
            raise DataError(f"request {id} has not run yet.") from None

    def forget_outcome(self, id: str) -> None:
        """It may be data, and nobody needs it any more."""
        (self.folder / f"{id}.outcome").unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _read(self, path: Path) -> Request:
        try:
            return msgspec.json.decode(path.read_bytes(), type=known(Request))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            raise DataError(f"{path} is damaged: move it away, and ask the analyst to ask again.") from None

    def _write(self, request: Request) -> None:
        self._replace(self.folder / f"{request.id}.json", msgspec.json.encode(request))

    def _replace(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)


def binding(tables: Mapping[str, str]) -> str:
    """One digest of the tables that a cell reads (name: digest of its rows) and of the software it would run on."""
    about = [sorted(tables.items()), _software()]
    return hashlib.sha256(b"fednb approval " + msgspec.json.encode(about)).hexdigest()


@cache
def _software() -> list[str]:
    found = sorted(f"{each.name} {each.version}" for each in importlib.metadata.distributions())
    return [platform.python_version(), *found]


def _aged(request: Request) -> Request:
    """As it stands now: what nobody answered, or nobody used in time, has expired."""
    now = time.time()
    if request.decision == "pending" and now > request.asked + PENDING_DAYS * 86_400:
        why = f"nobody answered within {PENDING_DAYS:g} days"
    elif request.decision == "approved" and now > request.until:
        why = "its time is over"
    else:
        return request
    return msgspec.structs.replace(request, decision="expired", why=why)
