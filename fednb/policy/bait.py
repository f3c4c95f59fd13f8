"""What lies outside a sandbox for `escapes` to reach for, and the trial of each with and without one."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from fednb.policy import escapes
from fednb.policy.confined import Limits
from fednb.policy.sandbox import Backend, Sandbox

LIMITS = Limits(memory=1 << 30, cpu=1, file=1 << 20, files=128)
SECONDS = 30.0


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt ended."""

    escaped: bool
    said: str  # what was got, or why nothing was


class Outside:
    """A party's folder, an agent and its sockets, as bait. A context manager; leaves nothing behind."""

    def __enter__(self) -> Outside:
        self._stack = ExitStack()
        self._root = Path(tempfile.mkdtemp(prefix="fednb-"))
        self._stack.callback(shutil.rmtree, self._root, ignore_errors=True)
        secret = {"FEDNB_SECRET_OF_THE_AGENT": "hunter2"}
        agent = subprocess.Popen(["sleep", "600"], env={**os.environ, **secret})
        self._stack.callback(agent.wait)
        self._stack.callback(agent.kill)
        self._held = ctypes.create_string_buffer(b"in the agent's memory")
        tcp = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = self._socket(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self._socket(socket.AF_UNIX, socket.SOCK_STREAM, str(self._root / "stream"))
        self._socket(socket.AF_UNIX, socket.SOCK_DGRAM, str(self._root / "datagram"))
        abstract = f"fednb-{secrets.token_hex(8)}"
        self._socket(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract)
        self._libc = ctypes.CDLL(None, use_errno=True)
        shared = secrets.randbelow(1 << 30) + 1
        segment = self._libc.shmget(shared, 4096, 0o1600)
        self._stack.callback(self._libc.shmctl, segment, 0, None)
        self._shm = Path("/dev/shm", f"fednb-{secrets.token_hex(8)}")  # noqa: S108
        self._stack.callback(self._shm.unlink, missing_ok=True)
        folder = self._root / "home"
        self.bait = escapes.Bait(
            folder=str(folder),
            temporary=str(Path(tempfile.gettempdir(), f"fednb-{secrets.token_hex(8)}")),
            agent=agent.pid,
            parent=os.getpid(),
            address=ctypes.addressof(self._held),
            length=len(self._held),
            tcp=tcp.getsockname()[1],
            udp=udp.getsockname()[1],
            unix=str(self._root / "stream"),
            datagram=str(self._root / "datagram"),
            abstract=abstract,
            shared=shared,
            shm=self._shm.name,
            descriptor=-1,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def attempt(self, name: str, backend: Backend | None, *, programs: bool = False) -> Outcome:
        """Try one escape; `backend` None: without any sandbox. `programs`: in one that lets it start programs."""
        home = Path(self.bait.folder)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        (home / "key.json").write_text("the key")
        (home / "table.csv").write_text("id,default\n1,0\n")
        self._shm.write_text("shared")
        inside = Path(tempfile.mkdtemp(prefix="fednb-"))
        open_key = os.open(home / "key.json", os.O_RDONLY)
        temporary = Path(self.bait.temporary)
        try:
            bait = msgspec.json.encode(msgspec.structs.replace(self.bait, descriptor=open_key)).decode()
            module = escapes.__name__
            argv, env = [sys.executable, "-P", "-m", module, name, bait], dict(os.environ)
            secret = {"FEDNB_SECRET_OF_THE_AGENT": "hunter2"}
            if backend:
                command = Sandbox(backend, LIMITS).command(module, name, bait, folder=inside, programs=programs)
                argv, env, secret = command.argv, command.env, {}
            done = subprocess.run(
                argv,
                env={**env, **secret},
                cwd=inside,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
                pass_fds=(open_key,),
                start_new_session=True,
            )
            said = (done.stdout.strip() or done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
            escaped = done.returncode == 0
            if escaped and "temporary folder" in name and not temporary.exists():
                escaped, said = False, "it wrote into a folder of its own"
            return Outcome(escaped, said)
        finally:
            os.close(open_key)
            for path in (temporary, temporary.with_suffix(".second")):
                path.unlink(missing_ok=True)
            shutil.rmtree(inside, ignore_errors=True)

    def _socket(self, family: int, kind: int, address: object) -> socket.socket:
        made = self._stack.enter_context(socket.socket(family, kind))
        made.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made


def attempts(backends: Sequence[Backend]) -> Iterator[tuple[str, dict[Backend | None, Outcome]]]:
    """Every escape, without a sandbox (None) and with each of these."""
    with Outside() as outside:
        for name in escapes.ESCAPES:
            yield name, {each: outside.attempt(name, each) for each in (None, *backends)}
