"""One stock ipykernel as a child process, reachable only through sockets in a folder of its owner.

What an analyst's code sees of this process is decided here: its environment (nothing of the agent's, which may
hold passwords of databases), its folder, its own IPython profile, and no history file. In a sandbox it sees only what
that has.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq
from jupyter_client.session import Session

from fednb.federation import nudge
from fednb.policy.sandbox import Sandbox

log = logging.getLogger("fednb.kernel")

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV")
_PASSED_ON_PREFIXES = ("LC_", "PYTHON", "CONDA", "LD_", "DYLD_", "OMP_", "MKL_", "OPENBLAS_", "NUMBA_")
# Waits for a word; when its input ends without one, the agent is gone, and the group that it is given is killed.
_GUARD = 'read -r word || kill -s KILL -- "-$1"'
_CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What a kernel inherits: what Python and its libraries need to run, and `extra`."""
    kept = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_PREFIXES)}
    # an agent that was started from a notebook must not make its kernels believe that they are that notebook's
    return kept | {"JPY_PARENT_PID": str(os.getpid())} | dict(extra)


class KernelProcess:
    """A started kernel: its channels, signals, and how it ended. The channels belong to one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        cwd: Path,
        profile: Path,
        extensions: Sequence[str],
        env: Mapping[str, str],
        ended: Callable[[], None],
        sandbox: Sandbox | None = None,
        read: Sequence[Path] = (),
    ) -> None:
        """Start it in `folder` (sockets; removed by `close`). `ended` is called, on another thread, when it exits.

        sandbox : start it in this; then it has a folder and a profile of its own for as long as it lives, instead of
            `cwd` and `profile`, and of other files it sees `read`.
        """
        self.folder = folder
        self._sandbox = sandbox
        folder.mkdir(mode=0o700)
        key = secrets.token_hex(32)
        self.session = Session(key=key.encode(), username="fednb")
        connection = {
            "transport": "ipc",
            "ip": str(folder / "k"),
            "key": key,
            "signature_scheme": "hmac-sha256",
            **{f"{channel}_port": port for port, channel in enumerate(_CHANNELS, start=1)},
        }
        file = folder / "connection.json"
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(connection))
        module = ["ipykernel_launcher", "-f", str(file), "--HistoryManager.enabled=False"]
        # a first completion by jedi takes seconds; the completer on live objects needs 3 ms and knows columns
        module.append("--IPCompleter.use_jedi=False")
        module += [f"--ext={extension}" for extension in (nudge.__name__, *extensions)]
        if sandbox is None:
            argv, inherits = [sys.executable, "-m", *module], environment({"IPYTHONDIR": str(profile), **env})
        else:
            pipe = Path(env["FEDNB_PIPE"]) if "FEDNB_PIPE" in env else None
            command = sandbox.command(*module, folder=folder, read=read, pipe=pipe, env=env)
            argv, inherits, cwd = command.argv, command.env, folder
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=inherits,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # one process group: a signal reaches what a cell started too
        )
        self.pid = self._process.pid
        # an agent that is killed closes nothing, and a kernel in C code does not notice that its parent is gone
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "fednb-guard", str(self.pid)],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.exit_code: int | None = None
        self._said: collections.deque[bytes] = collections.deque(maxlen=20)
        self._reader = threading.Thread(target=self._read, name=f"fednb-kernel-{self.pid}-log", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, args=(ended,), name=f"fednb-kernel-{self.pid}", daemon=True).start()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets = {"shell": self._socket(zmq.DEALER, 1), "iopub": self._socket(zmq.SUB, 2)}
        self._sockets["iopub"].setsockopt(zmq.SUBSCRIBE, b"")
        self._poller = zmq.Poller()
        for each in self._sockets.values():
            self._poller.register(each, zmq.POLLIN)

    def wait(self, wake: socket.socket, seconds: float) -> None:
        """Return when the kernel says something, when `wake` can be read, or after so many seconds."""
        if wake not in self._poller:
            self._poller.register(wake, zmq.POLLIN)
        self._poller.poll(int(seconds * 1000))

    def request(self, kind: str, content: Mapping[str, object]) -> str:
        """Send a request on the shell channel; returns its id, which its answers and outputs carry."""
        message = self.session.msg(kind, dict(content))
        self.session.send(self._sockets["shell"], message)
        return str(message["header"]["msg_id"])

    def receive(self, channel: Literal["shell", "iopub"]) -> tuple[str, str, dict[str, Any]] | None:
        """(type, id of the request, content) of one waiting message; empty when it is not genuine, None: none waits."""
        try:
            frames = self._sockets[channel].recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        try:
            _, rest = self.session.feed_identities(frames)
            message = self.session.deserialize(rest)
        except (ValueError, TypeError, IndexError):
            return "", "", {}
        return message["msg_type"], str(message["parent_header"].get("msg_id", "")), message["content"]

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal."""
        self._signal(signal.SIGINT)

    def nudge(self) -> None:
        """After an interrupt, until it has shown: Python may have begun to wait just before it could see it."""
        self._signal(nudge.NUDGE)

    def kill(self) -> None:
        """End it and whatever its cells started, now."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill it and leave nothing behind."""
        self.kill()
        self._process.wait()
        self._signal(signal.SIGKILL)  # children that a cell started, where they outlived the kernel
        self._dismiss_guard()
        self._context.destroy(linger=0)
        _remove(self.folder)
        self._reader.join(1.0)

    def how_it_ended(self) -> str:
        """In words, for the analyst."""
        code = self._process.poll()
        if code is None:
            return "is running"
        if self._sandbox is not None and self._sandbox.backend == "bubblewrap" and code > 128:
            code = 128 - code  # how bubblewrap, which stands between, tells of a signal
        if code >= 0:
            return f"exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        hint = {
            "SIGKILL": "; the machine may be out of memory",
            "SIGXCPU": "; it had used up the processor time that its owner allows one kernel",
        }.get(name, "")
        return f"was ended by signal {name}{hint}"

    def last_words(self) -> str:
        """The last lines of its standard error: why it did not start."""
        return b"".join(self._said).decode(errors="replace").strip()

    def _socket(self, kind: int, port: int) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.linger = 0
        made.rcvhwm = 0  # the kernel would drop what we are slow to take, the end of a cell too; we take all, at once
        made.reconnect_ivl = 20  # ms; the kernel binds only after its imports
        made.connect(f"ipc://{self.folder / 'k'}-{port}")
        return made

    def _dismiss_guard(self) -> None:
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError), self._guard.stdin as word:
                word.write(b"closed\n")
        self._guard.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # gone already

    def _read(self) -> None:
        if self._process.stderr is not None:
            with self._process.stderr as stderr:
                while line := stderr.readline(4096):
                    self._said.append(line)

    def _wait(self, ended: Callable[[], None]) -> None:
        self.exit_code = self._process.wait()
        ended()


def _remove(folder: Path) -> None:
    """All that is in it, whatever a cell left there; links are not followed."""
    try:
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        folder.rmdir()
    except (OSError, RecursionError) as error:
        log.error("a kernel left something in %s that cannot be removed: %s", folder, error)
