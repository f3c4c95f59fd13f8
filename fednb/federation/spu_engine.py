"""Where a party's `spu` runs: one process a run, in bubblewrap's empty system, given hashes and reaching nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from fednb.errors import ConfigError, RunFailed
from fednb.federation import spu_side
from fednb.policy.sandbox import Limits, Sandbox, missing
from fednb.protocols.psi_spu import MOST, Said
from fednb.text import plain

log = logging.getLogger("fednb.agent")

# address space; bytes of all files; a million ids take a tenth of the latter
LIMITS = Limits(memory=16 << 30, file=4 << 30)

_READ = 1 << 18
_KINDS: dict[int, Literal["piece", "progress", "matches"]] = {
    spu_side.PIECE: "piece",
    spu_side.PROGRESS: "progress",
    spu_side.MATCHES: "matches",
}


def installed() -> bool:
    return importlib.util.find_spec("spu") is not None


def lacking() -> str:
    """What is missing here for `spu` to run, and what to do about it; "" for nothing."""
    if not installed():
        return "spu is not installed (docs/operating-a-party.md says how)."
    reason = missing("bubblewrap")
    return f"it runs in bubblewrap only: {reason}" if reason else ""


class SpuEngine:
    """A `psi_spu.Engine`."""

    def __init__(self, member: str) -> None:
        """Raises ConfigError when it cannot run here."""
        if reason := lacking():
            raise ConfigError(f"{member} cannot align by spu: {reason} Or use method='ecdh', which every party has.")
        self._member = member

    def start(self, rank: int, hashes: Iterable[bytes]) -> SpuSession:
        return SpuSession(self._member, rank, hashes)


class SpuSession:
    """A `psi_spu.Session`."""

    def __init__(self, member: str, rank: int, hashes: Iterable[bytes]) -> None:
        self._member = member
        self._folder = tempfile.TemporaryDirectory(prefix="fednb-")
        command = Sandbox("bubblewrap", LIMITS).command(
            spu_side.__name__, str(rank), folder=Path(self._folder.name), programs=True
        )
        self._process = subprocess.Popen(
            command.argv,
            env=command.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101  (as asked for)
        self._in, self._out = self._process.stdin, self._process.stdout
        self._came = bytearray()
        self._most = MOST  # bytes of a frame; a process that a peer talks to is not believed
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        for block in hashes:
            self._write(spu_side.HASHES, block)
            self._most += len(block)
        self._write(spu_side.HASHES, b"")

    def put(self, piece: bytes) -> None:
        if piece:
            self._write(spu_side.PIECE, piece)

    def next(self, seconds: float) -> Said | None:
        deadline = time.monotonic() + seconds
        while (frame := self._frame()) is None:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                if self._process.poll() is not None:
                    raise self._failed("it was killed")
                return None
            more = os.read(self._out.fileno(), _READ)
            if not more:
                raise self._failed("it ended early")
            self._came += more
        kind, data = frame
        if kind not in _KINDS or (not data and kind != spu_side.MATCHES):  # nothing in common is an answer
            raise self._failed(data.decode(errors="replace"))
        return Said(_KINDS[kind], data)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with contextlib.suppress(OSError):
                pipe.close()
        self._folder.cleanup()

    def _write(self, kind: int, payload: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # it has ended: `next` says so
            self._in.write(spu_side.HEAD.pack(kind, len(payload)) + payload)
            self._in.flush()

    def _frame(self) -> tuple[int, bytes] | None:
        """The next frame, when the whole of it has come."""
        head = spu_side.HEAD.size
        if len(self._came) < head:
            return None
        kind, length = spu_side.HEAD.unpack_from(self._came)
        if length > self._most:
            raise self._failed(f"it announced {length} bytes at once")
        if len(self._came) < head + length:
            return None
        data = bytes(self._came[head : head + length])
        del self._came[: head + length]
        return kind, data

    def _failed(self, why: str) -> RunFailed:
        log.error("spu failed: %s", plain(why, 2000))  # its words, which only this party's own log shows
        return RunFailed(
            f"{self._member}'s spu ended without a result; its log says why. Use method='ecdh'.", member=self._member
        )
