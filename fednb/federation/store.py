"""What a member keeps of its runs: its private part of each, in memory or as files only it can read.

Values are scalars, strings, lists, dicts and arrays. They are written with the wire's own codec (never pickle),
0600 in a 0700 folder, and replaced in one step, so a crash leaves the old part or the new one.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fednb.errors import DataError
from fednb.protocols.base import Journal
from fednb.wire.codec import decode, encode
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Part(Message):
    """One member's part of one run, as it lies on disk."""

    values: dict[str, Any]


class MemberStore:
    """Parts by run id. `folder=None` keeps them in memory (simulation)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._memory: dict[str, Message] = {}
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, run: str, values: Mapping[str, Any]) -> None:
        """Keep `values` as this member's part of `run`."""
        self.write(run, Part(values=dict(values)))

    def load(self, run: str) -> Mapping[str, Any]:
        """This member's part of `run`. Raises DataError when it has none."""
        part = self.read(run, Part)
        if part is None:
            raise DataError(f"this member holds no part of run {run!r}; it took no part in it, or it was forgotten.")
        return part.values

    def journal(self, run: str) -> StoreJournal:
        """Where a role keeps its state at iteration boundaries of `run`."""
        return StoreJournal(self, run)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            if self._folder is None:
                return iter(sorted(self._memory))
            return iter(sorted(path.stem for path in self._folder.glob("*.part")))

    def write(self, name: str, message: Message) -> None:
        """Keep any message under a name; what was there is replaced in one step."""
        _check(name)
        with self._lock:
            if self._folder is None:
                self._memory[name] = message
                return
            target = self._folder / f"{name}.part"
            draft = target.with_suffix(".draft")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                for frame in encode(message):
                    file.write(struct.pack(">Q", memoryview(frame).nbytes))
                    file.write(frame)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)

    def read(self, name: str, kind: type[M]) -> M | None:
        """The message of that kind under a name, or None."""
        _check(name)
        with self._lock:
            if self._folder is None:
                kept = self._memory.get(name)
                return kept if isinstance(kept, kind) else None
            try:
                content = memoryview((self._folder / f"{name}.part").read_bytes())
            except FileNotFoundError:
                return None
        frames: list[memoryview] = []
        while content:
            (size,) = struct.unpack(">Q", content[:8])
            frames.append(content[8 : 8 + size])
            content = content[8 + size :]
        return decode(frames, kind)

    def forget(self, name: str) -> None:
        """Remove what is under a name, if anything."""
        _check(name)
        with self._lock:
            if self._folder is None:
                self._memory.pop(name, None)
            else:
                (self._folder / f"{name}.part").unlink(missing_ok=True)


class StoreJournal(Journal):
    """The last two boundaries of a role's run, so that members one step apart find a common one."""

    def __init__(self, store: MemberStore, run: str) -> None:
        self._store = store
        self._run = run
        self._resume: int | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        self._store.save(self._slot(step), {"step": step, "state": dict(state)})

    def load(self) -> tuple[int, Mapping[str, Any]] | None:
        if self._resume is None:
            return None
        part = self._store.read(self._slot(self._resume), Part)
        if part is None or part.values["step"] != self._resume:
            raise DataError(f"the journal of run {self._run} has no step {self._resume}; start the run anew.")
        return int(part.values["step"]), part.values["state"]

    def steps(self) -> list[int]:
        """Where this member could continue from, oldest first."""
        parts = (self._store.read(self._slot(parity), Part) for parity in (0, 1))
        return sorted(int(part.values["step"]) for part in parts if part is not None)

    def resume_from(self, step: int | None) -> None:
        """Let `load` give the state as of `step`."""
        self._resume = step

    def forget(self) -> None:
        """The run ended: its steps are of no more use."""
        for parity in (0, 1):
            self._store.forget(self._slot(parity))

    def _slot(self, step: int) -> str:
        return f"{self._run}-step{step % 2}"


def _check(run: str) -> None:
    if not _NAME.fullmatch(run):
        raise DataError(f"{run!r} is not the id of a run.")
