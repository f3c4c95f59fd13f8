"""A whole federation on this machine, each member its own process: what `fednb up` does.

    with launch.up("federation.toml") as running:
        federation = fednb.connect(running)

Members start side by side and learn the hub's address as soon as it has one. When one of them ends, all are
stopped; when this process ends, however it does, they notice that their standard input ends, and stop too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from fednb import config
from fednb.config import FederationConfig
from fednb.errors import ConfigError, FednbError, PeerLost
from fednb.federation import profile
from fednb.federation.process import Failed, Ready, short_folder
from fednb.typed import known
from fednb.wire.keys import MemberHome, enrol_all

log = logging.getLogger("fednb.launch")

READY_SECONDS = 60.0
LOOK_UP_SECONDS = 0.5
STOP_SECONDS = 10.0


class Running:
    """A federation at work. As a path it is the first analyst's home, which `fednb.connect` takes."""

    def __init__(self, federation: FederationConfig, root: Path, sockets: Path) -> None:
        self.federation = federation
        self.root = root
        self.address = ""  # of the hub
        self.members: dict[str, subprocess.Popen[str]] = {}  # by name, the hub too
        self.ready: dict[str, Ready] = {}
        self.seconds = 0.0  # until all were ready
        self._sockets = sockets
        self._heard: queue.SimpleQueue[tuple[str, Ready | Failed | None]] = queue.SimpleQueue()
        self._stopped = False

    def __fspath__(self) -> str:
        return str(self.home)

    @property
    def home(self) -> Path:
        """The first analyst's home."""
        return self.root / self.federation.analysts[0]

    def log_file(self, member: str) -> Path:
        """What a member wrote on its standard error."""
        return self.root / member / "member.log"

    def wait(self, timeout: float | None = None) -> None:
        """Until a member ends: then raises PeerLost that names it. Returns after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            with contextlib.suppress(queue.Empty):
                # in steps: a signal that comes just before this thread begins to wait is seen when it looks up again
                member, line = self._heard.get(timeout=LOOK_UP_SECONDS if left is None else min(left, LOOK_UP_SECONDS))
                if line is None:
                    self._tell_ended(member)
                    raise PeerLost(f"{member} {self._ending(member)}", member=member)

    def stop(self) -> None:
        """Stop every member, the hub last; leaves no process and no socket. Idempotent.

        The coordinator goes first: what it sees of parties that stop is no reason why a run failed.
        """
        if self._stopped:
            return
        self._stopped = True
        try:
            kinds = self.federation.members
            for last in ("coordinator", "party", "hub"):
                self._end([name for name in self.members if kinds[name] == last])
        finally:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def start(self, ready: Callable[[Ready], None]) -> None:
        """Start all and wait until they serve. Raises what the first failing member says."""
        began = time.monotonic()
        self._spawn("hub", ["hub", str(self.root / "hub"), "--bind", self.federation.hub])
        names = [name for name, kind in self.federation.members.items() if kind in ("party", "coordinator")]
        for name in names:
            file = str(self.federation.path.absolute())
            self._spawn(name, ["party", str(self.root / name), "--file", file, "--sockets", str(self._sockets / name)])
        deadline = began + READY_SECONDS
        while len(self.ready) < 1 + len(names):
            try:
                member, line = self._heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                late = ", ".join(name for name in ("hub", *names) if name not in self.ready)
                raise FednbError(
                    f"not ready after {READY_SECONDS:g} s: {late}. Their logs are in {self.root}."
                ) from None
            if line is None:
                raise FednbError(f"{member} {self._ending(member)}")
            if isinstance(line, Failed):
                known = ConfigError if line.error_type == "ConfigError" else FednbError
                raise known(line.error if line.error_type == "ConfigError" else f"{member}: {line.error}")
            self.ready[member] = line
            if line.kind == "hub":
                self._tell_address(line.address, names)
            ready(line)
        self.seconds = time.monotonic() - began

    def _tell_address(self, address: str, names: list[str]) -> None:
        self.address = address
        for name in self.federation.analysts:
            MemberHome.load(self.root / name).with_hub(address)
        for name in names:
            to = self.members[name].stdin
            if to is not None:
                with contextlib.suppress(BrokenPipeError):  # it has failed already, and said why
                    to.write(address + "\n")
                    to.flush()

    def _tell_ended(self, member: str) -> None:
        """Why they will be stopped: the hub tells analysts, who are not ours to stop, the coordinator its runs."""
        for process in (each for name, each in self.members.items() if name != member):
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.write(member + "\n")
                    process.stdin.flush()

    def _spawn(self, name: str, arguments: list[str]) -> None:
        file = self.log_file(name)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fednb.cli", *arguments, "--managed"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                start_new_session=True,  # Ctrl-C comes to us, and we stop them in order
            )
        self.members[name] = process
        if process.stdout is not None:
            threading.Thread(
                target=self._listen, args=(name, process.stdout), name=f"fednb-up-{name}", daemon=True
            ).start()

    def _listen(self, name: str, said: IO[str]) -> None:
        with said:
            for text in said:
                with contextlib.suppress(msgspec.MsgspecError):
                    line: Ready | Failed = msgspec.json.decode(text, type=known(Ready | Failed))
                    self._heard.put((name, line))
        self.members[name].wait()
        self._heard.put((name, None))

    def _ending(self, member: str) -> str:
        code = self.members[member].wait()
        how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        return f"{how}. Its log is {self.log_file(member)}."

    def _end(self, names: list[str]) -> None:
        processes = [self.members[name] for name in names]
        for process in processes:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not stop in %g s and is killed", process.pid, STOP_SECONDS)
                process.kill()
                process.wait()


@contextlib.contextmanager
def up(
    path: str | Path, home: str | Path | None = None, *, ready: Callable[[Ready], None] = lambda line: None
) -> Iterator[Running]:
    """Run the federation of a file until the block ends. `ready` is called with each member as it becomes ready.

    Homes, with keys and logs, are made in `home` (default: `.fednb` beside the file) and kept.
    Raises ConfigError for a wrong file, a port that is taken, or a federation that runs already.
    """
    federation = config.load(path)
    if not federation.parties:
        raise ConfigError(f"{federation.path}: a federation needs at least one party: add a section [party.NAME].")
    root = Path(home) if home is not None else federation.path.absolute().parent / profile.HOMES
    root = root.absolute()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(root):
        enrol_all(root, federation.members)  # type: ignore[arg-type]
        running = Running(federation, root, short_folder())
        try:
            running.start(ready)
            profile.remember(federation.name, running.home)
            yield running
        finally:
            running.stop()


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """These homes are in use by one federation at a time."""
    with open(os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = file.read().strip()
            raise ConfigError(
                f"the federation in {root} runs already (process {who}). Stop that one first, or use --home with "
                "another folder."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
