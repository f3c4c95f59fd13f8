"""What happened at a member, in a log that shows when somebody changes it afterwards.

One line of JSON an entry, each with the hash of the line before, written before the member goes on, so that no end of
its process loses it; on disk by then too or, where that would keep a cell waiting, a moment later:

    log.jsonl        {"n": 7, "at": ..., "event": "cell ended", ..., "prev": hash of line 6, "hash": hash of this line}
    head             number and hash of the last line on disk, replaced after it, and there before the first: a log
                     that was cut short lacks it
    witnessed.jsonl  heads of other members, signed by them, as they came with receipts: whoever rewrites log *and* head
                     is contradicted by those who witnessed an earlier head
    blobs/           what cells said and printed. The log holds only a salted digest of each; the salt lies in the
                     blob: once that is erased its text can no longer be guessed, and the chain is whole

A process that is killed while it writes leaves a torn last line, which `verify` names and the next entry takes away
(its bytes go to `torn`): it is not taken for tampering, unless the head says that the line was whole once.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fednb.errors import ConfigError, DataError, FednbError
from fednb.typed import known

log = logging.getLogger("fednb.audit")

START = "0" * 64  # the hash "before" the first line
SYNC_SECONDS = 0.1  # how long an entry that nobody waits for may take to begin its way to the disk
MOST_LINE = 1 << 20  # bytes
MOST_BLOB = 1 << 20  # characters kept of one cell's text or output

_BLOB = re.compile(r"[0-9a-f]{64}")
_OWN = frozenset({"n", "at", "event", "prev", "hash"})


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line of a member's log at one moment. Given to others, it binds the member to all lines before."""

    member: str
    n: int  # of the line, from 0
    hash: str
    signature: str = ""  # Ed25519 by the member, hex; "" where there is nobody to show it to

    @property
    def signed(self) -> bytes:
        """What the signature is over."""
        return f"fednb audit head {self.member} {self.n} {self.hash}".encode()


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n: int
    hash: str


class _Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    salt: str
    text: str


@dataclass
class Verdict:
    """What `verify` found. Nothing is wrong when `problems` is empty."""

    entries: int = 0
    head: str = START
    torn: int = 0  # bytes of a last line that a killed process left unfinished
    erased: int = 0  # blobs that are gone, each with an entry that says so
    witnessed: int = 0  # heads, kept by other members, that agree
    problems: list[str] = field(default_factory=list)


class AuditLog:
    """Appends to one member's log. Safe from any thread, and beside other processes of the same member."""

    def __init__(self, folder: Path, member: str, sign: Callable[[bytes], bytes] | None = None) -> None:
        """`sign` makes heads that others can hold against this member."""
        self.folder = folder
        self.member = member
        self._sign = sign
        self._lock = threading.Lock()
        self._size = -1  # of the log as this process left it; -1: look
        self._last = _Mark(-1, START)
        self._behind: set[Path] = set()  # written, and not known to be on disk
        self._failure: OSError | None = None  # of bringing them there
        self._held: dict[str, int] = {}  # the newest head that was written down, by member
        for each in (folder, folder / "blobs"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, event: str, *, wait: bool = True, **details: Any) -> Head:
        """Write an entry down. Raises FednbError when that fails, now or for an earlier one: then do not go on.

        wait : return when the disk has it; else it gets there a moment later.
        """
        if wrong := _OWN.intersection(details):
            raise ValueError(f"{', '.join(sorted(wrong))}: names that every entry has already")
        try:
            with self._lock, self._opened() as file:
                if self._failure is not None:
                    raise self._failure
                self._catch_up(file)
                entry = {"n": self._last.n + 1, "at": time.time(), "event": event, **details, "prev": self._last.hash}
                mark = _Mark(self._last.n + 1, _hash(entry))
                line = _canonical({**entry, "hash": mark.hash}) + b"\n"
                if len(line) > MOST_LINE:
                    raise FednbError(
                        f"{self.member} was asked for something that takes {len(line):,} bytes to write down; an entry "
                        f"of its audit log has {MOST_LINE:,} at most."
                    )
                _write(file, line, sync=wait)
                self._size += len(line)
                self._last = mark
                if wait:
                    _replace(self.folder / "head", msgspec.json.encode(mark))
                else:
                    self._sync_soon(self.folder / "log.jsonl")
                return self._as_head(mark)
        except OSError as error:
            self._size = -1
            raise FednbError(
                f"{self.member} cannot write its audit log ({error.strerror}), and does nothing that it cannot write "
                f"down. Make room or mend the rights of {self.folder}."
            ) from None

    def head(self) -> Head:
        """The last entry, for others to keep."""
        with self._lock, self._opened() as file:
            self._catch_up(file)
            return self._as_head(self._last)

    def keep(self, text: str, *, wait: bool = True) -> str:
        """Keep what may have to be erased one day; returns the digest that goes into an entry."""
        text = text[:MOST_BLOB]
        salt = secrets.token_hex(16)
        digest = _digest(salt, text)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            handle = os.open(self.folder / "blobs" / digest, flags, 0o600)
            try:
                _write(handle, msgspec.json.encode(_Blob(salt, text)), sync=wait)
            finally:
                os.close(handle)
            if not wait:
                with self._lock:
                    self._sync_soon(self.folder / "blobs" / digest)
        except OSError as error:
            raise FednbError(f"{self.member} cannot write its audit log: {error.strerror}.") from None
        return digest

    def _sync_soon(self, *files: Path) -> None:
        """Called with the lock held."""
        if not self._behind:
            threading.Thread(target=self._sync, name="fednb-audit", daemon=True).start()
        self._behind.update(files)

    def _sync(self) -> None:
        """Bring to disk what came within a moment, then the head: a write that meets a sync would wait for it."""
        threading.Event().wait(SYNC_SECONDS)
        with self._lock:
            files, self._behind = self._behind, set()
        for file in files:
            try:
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
            except FileNotFoundError:
                continue  # a text that was erased meanwhile
            except OSError as error:
                self._fail(error)
        try:
            with self._lock, self._opened() as handle:
                self._catch_up(handle)  # another process of this member may have written since
                _replace(self.folder / "head", msgspec.json.encode(self._last))
        except (FileNotFoundError, ConfigError):
            return  # the folder is gone, or its log was cut: whoever appends next hears of it
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        log.error("the audit log of %s does not get to the disk: %s", self.member, error.strerror)
        self._failure = error

    def erase(self, digest: str, reason: str) -> None:
        """Delete a blob for good, and write down that and why. Raises DataError when there is none."""
        path = self.folder / "blobs" / digest
        if not _BLOB.fullmatch(digest) or not path.exists():
            raise DataError(f"the audit log of {self.member} holds no text {digest!r}; it may be erased already.")
        self.append("erased", blob=digest, reason=reason)  # first: a text that is gone without an entry is a problem
        path.unlink()

    def witness(self, head: Head) -> None:
        """Keep another member's head. The signature is checked when it is held against that member."""
        if head.member == self.member or self._held.get(head.member, -1) >= head.n:
            return
        with self._lock:
            self._held[head.member] = head.n
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            handle = os.open(self.folder / "witnessed.jsonl", flags, 0o600)
            try:
                _write(handle, msgspec.json.encode(head) + b"\n")
            finally:
                os.close(handle)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        handle = os.open(self.folder / "log.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _catch_up(self, log: int) -> None:
        """Find the last entry, where this process did not write it; put a torn one aside."""
        size = os.fstat(log).st_size
        if size == self._size:
            return
        start = max(0, size - 2 * MOST_LINE)
        tail = os.pread(log, size - start, start)
        whole = tail.rfind(b"\n") + 1
        mark = _mark(self.folder)
        if whole < len(tail):
            with open(os.open(self.folder / "torn", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
                file.write(tail[whole:] + b"\n")
            os.ftruncate(log, start + whole)
        self._size = start + whole
        self._last = _Mark(-1, START)
        if whole:
            last = tail[:whole].splitlines()[-1]
            try:
                entry = msgspec.json.decode(last)
                self._last = msgspec.convert({key: entry[key] for key in ("n", "hash")}, type=known(_Mark))
            except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
                self._size = -1
                raise ConfigError(
                    f"the audit log of {self.member} is damaged. Run: fednb audit verify {self.folder.parent}"
                ) from None
        if mark is not None and mark.n > self._last.n:  # going on would cover up what is missing
            self._size = -1
            raise ConfigError(
                f"entries are missing at the end of the audit log of {self.member}: it once had {mark.n + 1}, and has "
                f"{self._last.n + 1}. Restore {self.folder} from a backup, or find out who cut it."
            )
        if mark is None:
            if whole:
                self._size = -1
                raise ConfigError(
                    f"the audit log of {self.member} has lost its head, which says what it had at its end. Restore "
                    f"{self.folder / 'head'} from a backup, or find out who took it."
                )
            _replace(self.folder / "head", msgspec.json.encode(self._last))

    def _as_head(self, mark: _Mark) -> Head:
        head = Head(self.member, mark.n, mark.hash)
        if self._sign is None:
            return head
        return msgspec.structs.replace(head, signature=self._sign(head.signed).hex())


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """Every whole entry, oldest first, as it stands there. Run `verify` before you believe them."""
    for _, line in _lines(folder / "log.jsonl"):
        if not line.endswith(b"\n"):
            return
        try:
            entry = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if isinstance(entry, dict):
            yield entry


def text_of(folder: Path, digest: str) -> str | None:
    """What was kept under a digest; None when it was erased, or is not what was kept."""
    if not _BLOB.fullmatch(digest):
        return None
    try:
        blob = msgspec.json.decode((folder / "blobs" / digest).read_bytes(), type=known(_Blob))
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return blob.text if _digest(blob.salt, blob.text) == digest else None


def witnessed(path: Path) -> list[Head]:
    """The heads in a member's `witnessed.jsonl`; a torn last line is left out."""
    heads = []
    for _, line in _lines(path):
        try:
            heads.append(msgspec.json.decode(line, type=known(Head)))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                raise ConfigError(f"{path} is damaged: ask the member that keeps it for it again.") from None
    return heads


def verify(folder: Path, member: str, held: Iterable[Head] = ()) -> Verdict:
    """Read the whole log and say what is wrong with it: edited, deleted, inserted, swapped or cut off.

    held : heads of this member, by itself signed (the caller has checked that), which others kept.
    """
    found = Verdict()
    hashes: list[str] = []
    kept: set[str] = set()
    gone: set[str] = set()
    for number, line in _lines(folder / "log.jsonl"):
        if not line.endswith(b"\n"):
            found.torn = len(line)
            break
        wrong = _check(line, len(hashes), found.head)
        if isinstance(wrong, str):
            found.problems.append(f"line {number}: {wrong}")
            break
        entry = wrong
        found.head = str(entry["hash"])
        hashes.append(found.head)
        if entry["event"] == "erased":
            gone.add(str(entry.get("blob")))
        kept.update(str(entry[name]) for name in ("code", "output") if entry.get(name))
    found.entries = len(hashes)
    if not found.problems:
        _check_heads(found, hashes, _mark(folder), member, held)
    for digest in sorted(kept):
        if text_of(folder, digest) is None:
            if digest in gone and not (folder / "blobs" / digest).exists():
                found.erased += 1
            elif digest not in gone:
                found.problems.append(f"the text {digest[:12]}… is missing or changed, and no entry says it was erased")
    return found


def _check(line: bytes, n: int, prev: str) -> dict[str, Any] | str:
    """The entry, or what is wrong with it."""
    try:
        entry = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "it is no JSON"
    if not isinstance(entry, dict) or not {"n", "event", "prev", "hash"} <= entry.keys():
        return "it is no entry"
    if _canonical(entry) + b"\n" != line:
        return "it was not written by fednb"
    claimed = entry.pop("hash")
    if _hash(entry) != claimed:
        return f"entry {entry['n']} was changed: its hash is another"
    if entry["n"] != n or entry["prev"] != prev:
        return f"entry {entry['n']} does not follow the line before: one was deleted, inserted or moved"
    return {**entry, "hash": claimed}


def _check_heads(found: Verdict, hashes: list[str], mark: _Mark | None, member: str, held: Iterable[Head]) -> None:
    if mark is None and hashes:
        found.problems.append("its head is missing")
    elif mark is not None and mark.n >= len(hashes):
        found.problems.append(f"entries are missing at the end: it once had {mark.n + 1}, and has {len(hashes)}")
    elif mark is not None and mark.n >= 0 and hashes[mark.n] != mark.hash:
        found.problems.append(f"entry {mark.n} is another than the head says: the log was rewritten")
    for head in held:
        if head.member != member or head.n < 0:
            continue
        if head.n >= len(hashes) or hashes[head.n] != head.hash:
            found.problems.append(f"another member holds a signed entry {head.n} that is missing or different here")
        else:
            found.witnessed += 1


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE + 1):
                number += 1
                yield number, line
    except FileNotFoundError:
        return


def _mark(folder: Path) -> _Mark | None:
    try:
        return msgspec.json.decode((folder / "head").read_bytes(), type=known(_Mark))
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ConfigError(f"{folder / 'head'} is damaged: restore it from a backup.") from None


def _canonical(entry: dict[str, Any]) -> bytes:
    return msgspec.json.encode(entry, order="deterministic")


def _hash(entry: dict[str, Any]) -> str:
    """The entry names the hash before it, so this covers all lines up to here."""
    return hashlib.sha256(b"fednb audit entry" + _canonical(entry)).hexdigest()


def _digest(salt: str, text: str) -> str:
    return hashlib.sha256(f"fednb audit blob {salt} {text}".encode("utf-8", "surrogatepass")).hexdigest()


def _write(handle: int, data: bytes, *, sync: bool = True) -> None:
    while data:
        data = data[os.write(handle, data) :]
    if sync:
        os.fsync(handle)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write(handle, content)
    finally:
        os.close(handle)
    draft.replace(path)
