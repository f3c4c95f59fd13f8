"""Where a party's `spu` runs: one process a run, in bubblewrap's empty system, given hashes and reaching nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, cast

from fednb.errors import ConfigError, RunFailed
from fednb.federation import spu_side
from fednb.policy.sandbox import Limits, Sandbox, missing
from fednb.protocols.psi_spu import MOST, Said
from fednb.text import plain

log = logging.getLogger("fednb.agent")

# least, and for an id of either side, of files in each of three folders and of address space: more than twice what two
# million ids take
FILES, MEMORY = (64 << 20, 200), (4 << 30, 1000)
CORE_MEMORY = 128 << 20
LOG_BYTES = 2000  # of spu's own words, the last of which go to the party's log

_READ = 1 << 18


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

    def __init__(self, member: str, private: Sequence[Path] = ()) -> None:
        """`private` must not be seen by `spu`. Raises ConfigError when it cannot run here."""
        if reason := lacking():
            log.error("no alignment by spu: %s", reason)  # it may tell of the machine
            what = "bubblewrap that works" if installed() else "spu"
            raise ConfigError(
                f"{member} cannot align by spu: its machine has no {what} (fednb doctor says more there). Use "
                "method='ecdh', which every party has."
            )
        try:
            Sandbox("bubblewrap", private=private)
        except ConfigError as error:
            log.error("no alignment by spu: %s", error)
            raise ConfigError(
                f"{member} cannot align by spu, which would see what it must not; {member}'s log says what. Use "
                "method='ecdh'."
            ) from None
        self._member = member

    def start(self, rank: int, hashes: Iterable[bytes], ids: int) -> SpuSession:
        cores = os.cpu_count() or 1  # spu's pools of threads go by it
        limits = Limits(
            memory=MEMORY[0] + MEMORY[1] * ids + CORE_MEMORY * cores,
            file=FILES[0] + FILES[1] * ids,
            threads=256 + 8 * cores,
        )
        session = SpuSession(self._member, rank, Sandbox("bubblewrap", limits))
        try:
            session.begin(hashes)
        except BaseException:
            session.close()
            raise
        return session


class SpuSession:
    """A `psi_spu.Session`."""

    def __init__(self, member: str, rank: int, sandbox: Sandbox) -> None:
        self._member = member
        self._folder = tempfile.TemporaryDirectory(prefix="fednb-", ignore_cleanup_errors=True)
        command = sandbox.command(
            spu_side.__name__, str(rank), folder=Path(self._folder.name), programs=True, env={"MALLOC_ARENA_MAX": "4"}
        )
        self._process = subprocess.Popen(
            command.argv,
            env=command.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        assert all(pipes)  # noqa: S101  (as asked for)
        self._in, self._out, self._log = cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._came = bytearray()
        self._hashes = 0  # bytes of them
        self._matched = False
        self._words = b""
        self._listening = threading.Thread(target=self._listen, name=f"fednb-spu-log-{self._process.pid}", daemon=True)

    def begin(self, hashes: Iterable[bytes]) -> None:
        """Hand over what is to be intersected."""
        self._listening.start()
        for block in hashes:
            self._write(spu_side.HASHES, block)
            self._hashes += len(block)
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
        return self._understood(*frame)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of them: bubblewrap's own child, too, when it is just made
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._listening.ident is not None:
            self._listening.join(1.0)
        for pipe in (self._in, self._out, self._log):
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
        most = {spu_side.PIECE: MOST, spu_side.MATCHES: self._hashes}.get(kind, LOG_BYTES)
        if length > most:
            raise self._failed(f"it announced {length} bytes at once")
        if len(self._came) < head + length:
            return None
        data = bytes(self._came[head : head + length])
        del self._came[: head + length]
        return kind, data

    def _understood(self, kind: int, data: bytes) -> Said:
        """What a frame says. A process that a peer talks to is not believed."""
        if kind == spu_side.PIECE and data:
            return Said("piece", data)
        if kind == spu_side.MATCHES and not self._matched:
            self._matched = True
            return Said("matches", data)
        raise self._failed(data.decode(errors="replace") if kind == spu_side.FAILED else f"a frame of kind {kind}")

    def _listen(self) -> None:
        while words := os.read(self._log.fileno(), _READ):
            self._words = (self._words + words)[-LOG_BYTES:]

    def _failed(self, why: str) -> RunFailed:
        self._listening.join(0.5)  # when it has ended, what it said last is there by then
        said = self._words.decode(errors="replace")
        code = self._process.poll()
        log.error("spu failed: %s; exit code %s. It said last: %s", plain(why, LOG_BYTES), code, plain(said, LOG_BYTES))
        return RunFailed(
            f"{self._member}'s spu ended without a result; its log says why. Use method='ecdh'.", member=self._member
        )
