"""What a party has released of its data, for all analysts and all tables: written down before the answer leaves.

Rows are known by their ids, not by a table's name: a copy of a table, a part of it and its next version share their
rows' account. A column is known by its name among these rows, and by its content: renaming it opens no new account.
For each column and each function of it that was released (itself, its square, its product with another, ...) there is
a basis of leverages; a row's leverages of all functions of a column are added up, and none may exceed the limit.

    ledger.log     one record a release, with its checksum; a torn last one is of an answer that never left
    salt           secret; ids appear in the log only as keyed hashes
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import sparse

from fednb.errors import ConfigError, FednbError
from fednb.policy.leverage import Basis, Floats, Vectors
from fednb.typed import known

Positions = npt.NDArray[np.int64]
DAY = 86_400.0
_HEADER = 8 + 32  # bytes of length and of checksum before a record


class Account(NamedTuple):
    """Which quantity of which column; `unit` is what an unknown stands for: a row, or all rows of one id."""

    column: str
    function: str
    unit: str = "row"


class Charge(NamedTuple):
    """Sums over an account's rows that an answer would release. `total`: the rows whose sum is taken as known."""

    account: Account
    vectors: Vectors  # [g, rows]
    total: Vectors | None = None  # [1, rows]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: float
    kind: str  # "rows", "column", "release", "refusal"
    note: dict[str, Any] = {}
    rows: bytes = b""  # uint64 keys
    charges: list[tuple[str, str, str, list[int]]] = []  # account, then which of `vectors`
    vectors: list[bytes] = []


class Trial:
    """What the accounts would be after an answer; `over[i]` are the rows of charge i that it would expose."""

    def __init__(self, charges: Sequence[Charge], over: list[npt.NDArray[np.bool_]], added: list[Floats]) -> None:
        self.charges = charges
        self.over = over
        self._added = added

    @property
    def fits(self) -> bool:
        return not any(each.any() for each in self.over)

    def exposed(self, charge: int) -> list[int]:
        """Which vectors of a charge touch a row that would be exposed."""
        vectors = self.charges[charge].vectors
        touching = abs(vectors) @ self.over[charge].astype(np.float64)
        return [int(g) for g in np.flatnonzero(touching)]


class Ledger:
    """One party's ledger. Hold `lock` from trial to commit. `folder=None` keeps it in memory (tests)."""

    def __init__(self, folder: Path | None = None, *, limit: float = 0.2) -> None:
        """limit : the leverage that no row may exceed. Raises ConfigError for a ledger that is damaged or in use."""
        self.limit = limit
        self.lock = threading.RLock()
        self.salt = secrets.token_hex(8)  # 16 characters, as pandas' keyed hash wants them
        self._place: dict[int, int] = {}
        self._columns: dict[str, str] = {}  # content -> account name
        self._bases: dict[Account, Basis] = {}
        self._fresh: dict[Account, Vectors] = {}  # known totals that are not written down yet
        self._sums: dict[tuple[str, str], Floats] = {}  # leverages of all functions of a column, by unit
        self._times: dict[str, list[float]] = {"release": [], "refusal": []}
        self._handle = -1
        if folder is not None:
            self._open(folder)

    # ------------------------------------------------------------ rows and columns

    def rows(self, keys: npt.NDArray[np.uint64]) -> Positions:
        """[n] positions of rows; unknown ones get new positions, written down."""
        new = [key for key in dict.fromkeys(keys.tolist()) if key not in self._place]
        if new:
            array = np.array(new, dtype="<u8")
            self._write(_Record(time.time(), "rows", rows=array.tobytes()))
            self._take_rows(array)
        return np.fromiter((self._place[key] for key in keys.tolist()), dtype=np.int64, count=len(keys))

    def column(self, name: str, content: str) -> str:
        """The account name of a column: the one under which the same content is known, else its own."""
        if content not in self._columns:
            self._write(_Record(time.time(), "column", {"name": name, "content": content}))
            self._columns[content] = name
        return self._columns[content]

    @property
    def size(self) -> int:
        """Rows known so far."""
        return len(self._place)

    def used(self, kind: str, since: float) -> int:
        """How many of a kind ("release", "refusal") since a time."""
        return sum(at >= since for at in self._times[kind])

    # ------------------------------------------------------------ releases

    def trial(self, charges: Sequence[Charge]) -> Trial:
        """What the charges together would do. Changes nothing that matters."""
        before: dict[tuple[str, str], Floats] = {}
        added = []
        for charge in charges:
            basis = self._basis(charge.account, charge.total)
            directions, then = basis.trial(charge.vectors)
            added.append(directions)
            key = (charge.account.column, charge.account.unit)
            if key not in before:
                before[key] = self.leverage(*key)
            before[key] = before[key] - basis.leverage() + then
        over = []
        for charge in charges:
            exposed = before[charge.account.column, charge.account.unit] > self.limit + 1e-9
            over.append(exposed)
        return Trial(charges, over, added)

    def commit(self, trial: Trial, **note: Any) -> None:
        """Write a release down, on disk before this returns. Raises FednbError: then the answer must not leave."""
        vectors: list[bytes] = []
        place: dict[bytes, int] = {}
        listed = []
        for charge in trial.charges:
            which = []
            fresh = self._fresh.get(charge.account)
            everything = [fresh] if fresh is not None else []
            for vector in (*everything, *(charge.vectors[[g], :] for g in range(charge.vectors.shape[0]))):
                packed = _pack(vector)
                which.append(place.setdefault(packed, len(place)))
                if len(place) > len(vectors):
                    vectors.append(packed)
            listed.append((*charge.account, which))
        record = _Record(time.time(), "release", note, charges=listed, vectors=vectors)
        self._write(record)
        self._times["release"].append(record.at)
        for charge, directions in zip(trial.charges, trial._added, strict=True):
            self._bases[charge.account].add(directions)
            self._fresh.pop(charge.account, None)
            self._sums.pop((charge.account.column, charge.account.unit), None)

    def refused(self, **note: Any) -> None:
        """Write down a refusal that depended on values: each tells a little."""
        record = _Record(time.time(), "refusal", note)
        self._write(record)
        self._times["refusal"].append(record.at)

    def leverage(self, column: str, unit: str = "row") -> Floats:
        """[rows] of each row, over everything released of functions of this column."""
        total = self._sums.get((column, unit))
        if total is None or len(total) < self.size:
            total = np.zeros(self.size)
            for account, basis in self._bases.items():
                if (account.column, account.unit) == (column, unit):
                    basis.grow(self.size)
                    total += basis.leverage()
            self._sums[column, unit] = total
        return total

    def _basis(self, account: Account, total: Vectors | None) -> Basis:
        basis = self._bases.get(account)
        if basis is None:
            basis = Basis()
            basis.grow(self.size)
            if total is not None:
                basis.add(basis.trial(total)[0])
                self._fresh[account] = total
            self._bases[account] = basis
            self._sums.pop((account.column, account.unit), None)
        basis.grow(self.size)
        return basis

    # ------------------------------------------------------------ disk

    def _open(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(folder / "ledger.log", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise ConfigError(f"{folder} is in use by another process of this member; stop that first.") from None
        salt = folder / "salt"
        if not salt.exists() and os.fstat(self._handle).st_size:
            self.close()
            raise ConfigError(f"{salt} is missing: without it known rows would count as new. Restore it from a backup.")
        if not salt.exists():
            with open(os.open(salt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(self.salt)
                file.flush()
                os.fsync(file.fileno())
            _sync(folder)
        self.salt = salt.read_text()
        try:
            for record in _records(self._handle, folder):
                self._replay(record)
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _replay(self, record: _Record) -> None:
        if record.kind == "rows":
            self._take_rows(np.frombuffer(record.rows, dtype="<u8"))
        elif record.kind == "column":
            self._columns[record.note["content"]] = record.note["name"]
        elif record.kind == "refusal":
            self._times["refusal"].append(record.at)
        else:
            self._times["release"].append(record.at)
            for column, function, unit, which in record.charges:
                basis = self._bases.setdefault(Account(column, function, unit), Basis())
                basis.grow(self.size)
                if which:
                    vectors = sparse.vstack([_unpack(record.vectors[g], self.size) for g in which], format="csr")
                    basis.add(basis.trial(sparse.csr_array(vectors))[0])

    def _take_rows(self, keys: npt.NDArray[np.uint64]) -> None:
        for key in keys.tolist():
            self._place.setdefault(key, len(self._place))

    def _write(self, record: _Record) -> None:
        if self._handle < 0:
            return
        payload = zlib.compress(msgspec.msgpack.encode(record), 1)
        line = len(payload).to_bytes(8, "big") + hashlib.sha256(payload).digest() + payload
        end = os.fstat(self._handle).st_size
        try:
            while line:
                line = line[os.write(self._handle, line) :]
            os.fsync(self._handle)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, end)
            raise FednbError(
                f"the ledger of releases cannot be written ({error.strerror}), so nothing is released. "
                "The owner of this party has to make room or repair its disk."
            ) from None


def _records(handle: int, folder: Path) -> Iterator[_Record]:
    """Every whole record; a torn last one is cut off."""
    end, at = os.fstat(handle).st_size, 0
    while at < end:
        header = os.pread(handle, _HEADER, at)
        length = int.from_bytes(header[:8], "big")
        if len(header) < _HEADER or at + _HEADER + length > end:
            os.ftruncate(handle, at)
            return
        payload = os.pread(handle, length, at + _HEADER)
        if hashlib.sha256(payload).digest() != header[8:]:
            raise ConfigError(
                f"{folder / 'ledger.log'} is damaged at byte {at:,}: what was released is not known any more. "
                "Restore it from a backup, or keep this party in protocol-only mode."
            )
        yield msgspec.msgpack.decode(zlib.decompress(payload), type=known(_Record))
        at += _HEADER + length


def _pack(vector: Vectors) -> bytes:
    """One sum: gaps between positions, and weights."""
    order = np.argsort(vector.indices, kind="stable")
    index = vector.indices[order].astype("<i8")
    weight = vector.data[order].astype("<f8")
    gaps = np.diff(index, prepend=0).astype("<i4")
    return b"".join((len(index).to_bytes(8, "big"), gaps.tobytes(), weight.tobytes()))


def _unpack(packed: bytes, n: int) -> Vectors:
    count = int.from_bytes(packed[:8], "big")
    index = np.cumsum(np.frombuffer(packed, "<i4", count, 8).astype(np.int64))
    weight = np.frombuffer(packed, "<f8", count, 8 + 4 * count)
    return sparse.csr_array((weight, index, [0, count]), shape=(1, n))


def vectors(parts: Sequence[tuple[Positions, Floats]], n: int) -> Vectors:
    """Sums, each given by positions (repeated ones add up; -1: no row) and weights, as a [len(parts), n] matrix."""
    index = [positions[positions >= 0] for positions, _ in parts]
    weight = [np.broadcast_to(w, p.shape)[p >= 0] for p, w in parts]
    pointer = np.concatenate([[0], np.cumsum([len(each) for each in index])])
    flat = np.concatenate(index) if index else np.zeros(0, dtype=np.int64)
    values = np.concatenate(weight) if weight else np.zeros(0)
    made = sparse.csr_array((values.astype(np.float64), flat, pointer), shape=(len(parts), n))
    made.sum_duplicates()
    made.eliminate_zeros()
    return made


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
