"""The operating-system process of one member: when it is ready, when it stops, and what it leaves behind (nothing).

It stops cleanly on SIGINT and SIGTERM. Under a launcher it also stops at the end of its standard input, which comes
when the launcher is gone, however that ended; and it speaks to the launcher in lines of JSON.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fednb.config import FederationConfig, is_loopback, placed
from fednb.errors import ConfigError, FednbError
from fednb.wire.keys import MemberHome

log = logging.getLogger("fednb.agent")

PATH_LIMIT = 103  # of a socket's path: what macOS allows, 4 less than Linux
PATH_SPARE = 16  # of which kernels' sockets need


class Ready(msgspec.Struct, tag=True):
    """To the launcher: this member serves."""

    member: str
    kind: str
    address: str = ""  # of the hub
    mode: str = ""
    tables: list[str] = []
    organisation: str = ""  # a coordinator's: the party whose organisation runs it


class Failed(msgspec.Struct, tag=True):
    """To the launcher: why it does not."""

    member: str
    error: str
    error_type: str


class Stop:
    """Set by a signal, or by the end of standard input."""

    def __init__(self, action: Callable[[], None] = lambda: None) -> None:
        """`action` is run, on a thread of its own, when it is time to stop."""
        self._asked = threading.Event()
        self._action = action
        heard, told = os.pipe()
        os.set_blocking(told, False)
        threading.Thread(target=self._listen, args=(heard,), name="fednb-stop", daemon=True).start()
        # Written by C, at once. A handler in Python would wait for the main thread, which may have begun to wait itself
        # after it last looked, or hold a lock that the handler needs.
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def at_end_of_input(self, heard: Callable[[str], None] = lambda line: None) -> None:
        """Stop at the end of standard input; `heard` is called with each line before it."""

        def read() -> None:
            with open(sys.stdin.fileno(), encoding="utf-8", closefd=False) as said:
                for line in said:
                    heard(line.strip())
            self._ask()

        threading.Thread(target=read, name="fednb-launcher", daemon=True).start()

    def wait(self) -> None:
        self._asked.wait()

    def _ask(self) -> None:
        if not self._asked.is_set():
            self._asked.set()
            self._action()

    def _listen(self, heard: int) -> None:
        """A byte is the number of a signal; others than these two have their own handlers, if any."""
        while not {signal.SIGINT, signal.SIGTERM} & set(os.read(heard, 100)):
            continue
        self._ask()


def run_hub(folder: Path, bind: str, *, managed: bool) -> None:
    """Be the hub until told to stop."""
    from fednb.wire.hub import Hub

    hub = Hub(MemberHome.load(folder), bind)
    stop = Stop(hub.close)
    if managed:
        stop.at_end_of_input(hub.ended)
    say(Ready(hub.name, "hub", hub.address), managed)
    hub.run()


def run_member(
    folder: Path,
    federation: FederationConfig,
    *,
    managed: bool,
    run_folder: Path | None = None,
    preload: Sequence[str] = (),
) -> None:
    """Be a party or the coordinator until told to stop. Raises ConfigError, LinkError."""
    import threadpoolctl

    from fednb.federation.agent import start_coordinator, start_party
    from fednb.protocols import executor
    from fednb.wire.dealer import DealerEndpoint
    from fednb.wire.pipe import PipeServer

    stop = Stop()
    home = MemberHome.load(folder)
    lost: list[str] = []  # members whose end is why this one is stopped
    if managed:  # the hub's port may be known only now
        address = sys.stdin.readline().strip()
        stop.at_end_of_input(lost.append)
        if not address:
            return
        home = home.with_hub(address)
    if not home.hub_address:
        raise ConfigError(f"{folder} does not say where the hub is.")
    settings = federation.parties.get(home.name) or federation.coordinator
    if settings.name != home.name:
        raise ConfigError(f"{federation.path}: it has no section [party.{home.name}].")
    if settings.mode == "open" and not is_loopback(home.hub_address):
        raise ConfigError(
            f"{federation.path}: {home.name} is open, which is for simulation and teaching on one machine, and its "
            f"hub is at {home.hub_address}."
        )
    # numpy's own threads wait by spinning, on the cores that encrypted arithmetic has threads for
    threadpoolctl.threadpool_limits(1, user_api="blas")
    threads = executor.cores()
    sockets = run_folder or short_folder()
    try:
        endpoint = DealerEndpoint(home)
        try:
            if home.name in federation.parties:
                try:
                    agent = start_party(
                        endpoint,
                        federation.parties[home.name],
                        folder,
                        coordinator=federation.coordinator.name,
                        run_folder=sockets,
                        pipe=lambda path: PipeServer(path, home.name),
                        threads=threads,
                        sign=endpoint.sign,
                    )
                except ConfigError as error:  # a table, seen only when it is opened, is not as the file says
                    raise ConfigError(placed(federation.path, str(error))) from None
            else:
                agent = start_coordinator(
                    endpoint,
                    federation.coordinator,
                    folder,
                    run_folder=sockets,
                    pipe=lambda path: PipeServer(path, home.name),
                    preload=preload,
                    threads=threads,
                    sign=endpoint.sign,
                )
            try:
                tables = list(federation.parties[home.name].tables) if home.name in federation.parties else []
                at = "" if home.name in federation.parties else federation.coordinator.organisation
                say(Ready(home.name, home.kind, home.hub_address, settings.mode, tables, at), managed)
                agent.prewarm()
                stop.wait()
            finally:
                agent.close(lost[0] if lost else "")
        finally:
            endpoint.close()
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
        if managed:  # the launcher may be gone: the last member takes the folder of all sockets with it
            with contextlib.suppress(OSError):
                sockets.parent.rmdir()


def say(line: Ready | Failed, managed: bool) -> None:
    """To the launcher as JSON, to a person in words."""
    if managed:
        text = msgspec.json.encode(line).decode()
    elif isinstance(line, Ready):
        text = describe(line)
    else:
        return
    print(text, flush=True)


def describe(ready: Ready) -> str:
    """One line for people."""
    if ready.kind == "hub":
        return f"{ready.member}: ready, at {ready.address}"
    tables = f", tables: {', '.join(ready.tables)}" if ready.tables else ""
    inside = f", inside {ready.organisation}'s organisation" if ready.organisation else ""
    return f"{ready.member}: ready ({ready.kind}{inside}, {ready.mode}{tables})"


def short_folder() -> Path:
    """A new folder for sockets, 0700, whose path leaves room for their names within the system's limit."""
    folder = Path(tempfile.mkdtemp(prefix="fednb-"))
    if len(str(folder)) + PATH_SPARE > PATH_LIMIT:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="fednb-", dir="/tmp"))
    return folder


def main(work: Callable[[], None], member: str, managed: bool) -> int:
    """Run `work` and turn what goes wrong into one line and an exit code: 2 for settings, 1 for the rest."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.umask(0o077)  # what a member, its kernels and their libraries write is its owner's alone
    try:
        work()
    except FednbError as error:
        say(Failed(member, str(error), type(error).__name__), managed)
        print(f"fednb: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except Exception as error:
        log.exception("%s failed", member)
        say(Failed(member, f"an internal error ({type(error).__name__}: {error})", type(error).__name__), managed)
        return 1
    return 0
