"""The coordinator's record of runs: who asked, what happened, how it ended. Survives notebooks and kernels.

Events are kept in memory while a run is young and as JSON lines on disk; they hold figures and names, never rows.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fednb.errors import DataError
from fednb.federation.messages import DataRef, Event, MemberResult, RunEnded, RunEvent, RunInfo
from fednb.typed import known

log = logging.getLogger("fednb.coordinator")

MOST_TEXT = 200  # characters of a name or a value that is listed with a run
MOST_FIGURES = 100
MOST_EVENTS = 100_000  # of one run: a member that reports more is not reporting progress


class RunRecord:
    """One run: its events so far, and its end."""

    def __init__(self, info: RunInfo, folder: Path | None) -> None:
        self.info = info
        self.ended: RunEnded | None = None
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._path = folder / f"{info.run}.jsonl" if folder else None

    def add(self, event: Event) -> None:
        with self._changed:
            if len(self._events) < MOST_EVENTS:
                self._events.append(event)
                self._changed.notify_all()

    def end(self, ended: RunEnded) -> None:
        with self._changed:
            self.ended = ended
            sent = sum(sum(result.bytes_out.values()) for result in ended.results.values())
            self.info = msgspec.structs.replace(
                self.info,
                status=ended.status,
                seconds=ended.seconds,
                error=ended.error,
                bytes=sent,
                figures=_figures(ended.results.values()),
                intervals=_intervals(ended.results.values()),
            )
            self._changed.notify_all()
        self._write()

    def made_of(self, member: str, data: str, code: str) -> None:
        """Note digests of what a member brings to the run."""
        with self._changed:
            info = self.info
            self.info = msgspec.structs.replace(
                info,
                data={**info.data, **({member: data} if data else {})},
                code={**info.code, **({member: code} if code else {})},
            )

    def reopen(self) -> None:
        """The run goes on: it is being resumed. Raises DataError when there is nothing to resume."""
        run = self.info.run
        with self._changed:
            if self.ended is None:
                raise DataError(f"run {run} is going on; watch it with fed.watch({run!r}).")
            if self.ended.status == "ok":
                raise DataError(f"run {run} has ended well; there is nothing to resume.")
            self.ended = None
            self.info = msgspec.structs.replace(self.info, status="running", error="")
            self._changed.notify_all()
        self._write()

    def follow(self, since: int = 0) -> Iterator[RunEvent | RunEnded]:
        """Events from `since` on as they come, then the end. Blocks between them."""
        while True:
            with self._changed:
                while len(self._events) <= since and self.ended is None:
                    self._changed.wait()
                fresh = self._events[since:]
                ended = self.ended
            for event in fresh:
                yield RunEvent(run=self.info.run, seq=since, event=event)
                since += 1
            if ended is not None and not fresh:
                yield ended
                return

    def seconds(self) -> float:
        return self.info.seconds if self.ended else time.time() - self.info.started

    def _write(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_suffix(".draft")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for line in (self.info, self.ended, *self._events):
                file.write(msgspec.json.encode(line, enc_hook=_plain) + b"\n")
        os.replace(draft, self._path)


class RunStore:
    """All runs of one coordinator, newest last."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._records: dict[str, RunRecord] = {}
        self._lock = threading.Lock()
        if folder is not None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime):
                try:
                    self._read(path)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # one bad record must not stop the member
                    log.warning("%s is not the record of a run and is left alone: %s", path, error)

    def begin(self, info: RunInfo) -> RunRecord:
        record = RunRecord(info, self._folder)
        record._write()
        with self._lock:
            self._records[info.run] = record
        return record

    def get(self, run: str) -> RunRecord:
        with self._lock:
            record = self._records.get(run)
        if record is None:
            raise DataError(f"the coordinator knows no run {run!r}; `%fed runs` lists those it knows.")
        return record

    def latest(self, limit: int) -> list[RunInfo]:
        with self._lock:
            records = list(self._records.values())[-limit:]
        return [msgspec.structs.replace(record.info, seconds=record.seconds()) for record in reversed(records)]

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().splitlines()
        if len(lines) < 2:
            return
        record = RunRecord(msgspec.json.decode(lines[0], type=known(RunInfo)), self._folder)
        ended = msgspec.json.decode(lines[1], type=known(RunEnded | None))
        if ended is None:
            run = record.info.run
            reason = f"the coordinator stopped while the run was going on; fed.resume({run!r}) continues it."
            ended = RunEnded(run=run, status="failed", error=reason, error_type="RunFailed")
            record.info = msgspec.structs.replace(record.info, status="failed", error=reason)
        record.ended = ended
        record._events = [msgspec.json.decode(line, type=known(Event)) for line in lines[2:]]
        self._records[record.info.run] = record


def single(params: Mapping[str, Any]) -> dict[str, bool | int | float | str | None]:
    """Those parameters of a run that are single values and short."""
    return {
        str(name)[:MOST_TEXT]: value
        for name, value in params.items()
        if value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value) <= MOST_TEXT)
    }


def follows(data: Iterable[DataRef]) -> str:
    """The run whose part a run uses; "" for none, or one that is no id."""
    for ref in data:
        for run in (ref.part, *ref.parts):
            if run:
                return run if len(run) <= MOST_TEXT else ""
    return ""


def _figures(results: Iterable[MemberResult]) -> dict[str, float]:
    """Single numbers that members made public; of a figure with an interval, the figure."""
    found: dict[str, float] = {}
    for result in results:
        for name, said in result.public.items():
            value = said.get("value", said.get("change")) if isinstance(said, Mapping) else said
            # a difference of two models is no figure of either
            called = f"{name}_change" if isinstance(said, Mapping) and "change" in said else str(name)
            fits = isinstance(value, bool | int | float) and len(called) <= MOST_TEXT and len(found) < MOST_FIGURES
            if fits and called not in found:
                found[called] = float(value)
    return found


def _intervals(results: Iterable[MemberResult]) -> dict[str, tuple[float, float]]:
    """Of those figures that have one."""
    found: dict[str, tuple[float, float]] = {}
    for result in results:
        for name, said in result.public.items():
            if not isinstance(said, Mapping) or "value" not in said:
                continue
            low, high = said.get("low"), said.get("high")
            fits = len(str(name)) <= MOST_TEXT and len(found) < MOST_FIGURES and name not in found
            if fits and isinstance(low, int | float) and isinstance(high, int | float):
                found[str(name)] = float(low), float(high)
    return found


def _plain(value: object) -> object:
    """Released coefficients are arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be written down with a run")
