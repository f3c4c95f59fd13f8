"""The sandbox around processes that run analysts' code next to data: which one works here, and how to start in it.

    bubblewrap    its own empty system: no other file, process or network exists in it
    landlock      the same system, with everything closed but what is named; where bubblewrap is not to be had

Both have the same filter of system calls (`seccomp`) and the same limits (`confined`). One process runs inside, with
threads: it starts no programs, connects to nothing, and answers on sockets in its own folder. (A library that does not
work like that has bubblewrap's system quite to itself instead: `programs`.) A machine on which
neither works gets no such process at all: `find` raises, and names what to install. Nothing here ever falls back to
less than was asked for.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from fednb.errors import ConfigError
from fednb.policy import bubblewrap, landlock, seccomp
from fednb.policy.confined import WENT_WRONG, Box
from fednb.policy.confined import Limits as Limits

Backend = Literal["bubblewrap", "landlock"]
BACKENDS: tuple[Backend, ...] = ("bubblewrap", "landlock")

PROBE_SECONDS = 20.0

_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/fonts")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# of itself, where it shares the machine's /proc: DuckDB and psutil ask
_ITSELF = tuple(f"/proc/{name}" for name in ("self/cgroup", "self/stat", "self/status", "meminfo", "cpuinfo"))
_PASSED_ON = ("LANG", "LANGUAGE", "TZ", "PYTHONHOME", "PYTHONHASHSEED")
_PASSED_ON_PREFIXES = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "NUMBA_")


@dataclass(frozen=True)
class Command:
    """What to start a confined process with."""

    argv: list[str]
    env: dict[str, str]


@dataclass(frozen=True)
class Sandbox:
    """How one member confines its kernels.

    private : files and folders that must not be seen inside; checked against what has to be.
    """

    backend: Backend
    limits: Limits = Limits()
    private: Sequence[Path] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for path in self.private:
            for shown in (*_python(), *map(Path, _FOLDERS)):
                if path.resolve().is_relative_to(shown):
                    raise ConfigError(
                        f"{path} lies in {shown}, which sandboxed kernels have to read: their Python or "
                        "its libraries are there. Move the data or the member's home elsewhere."
                    )

    def command(
        self,
        module: str,
        *arguments: str,
        folder: Path,
        read: Iterable[Path] = (),
        pipe: Path | None = None,
        env: Mapping[str, str] | None = None,
        programs: bool = False,
    ) -> Command:
        """How to start a Python module inside.

        folder : the one folder that it may write to, and where its sockets are; exists. The caller removes it.
        read : further files or folders to show, not to be changed.
        pipe : a Unix socket that it shall find connected, as FEDNB_PIPE="fd:N".
        env : on top of an environment that has nothing of the agent's.
        programs : it may start programs, which are confined as it is, and connect sockets, all of its own; and even
            `folder` is in memory, and seen by nobody else. Raises ConfigError without bubblewrap, which makes it so.
        """
        if programs and self.backend != "bubblewrap":
            raise ConfigError(f"{module} runs in a system of its own only, and {self.backend} makes none.")
        scratch = folder / "files"
        scratch.mkdir(mode=0o700, exist_ok=True)
        system = [Path(each) for each in (*_FOLDERS, *_FILES)]
        own, given = _python(), [path.resolve() for path in read]
        box = Box(
            landlock=self.backend == "landlock",
            read=[*(str(path) for path in (*system, *own, *given) if path.exists()), *_ITSELF],
            write=[str(folder), *_DEVICES],
            start=str(scratch),
            limits=self.limits,
            pipe=str(pipe or ""),
            programs=programs,
        )
        # -P: nothing is imported from the folder it starts in, where code may have been left
        python = [sys.executable, "-P", "-m", "fednb.policy.confined"]
        argv = [*python, msgspec.json.encode(box).decode(), module, *arguments]
        if self.backend == "bubblewrap":
            argv = bubblewrap.command(
                argv,
                system=system,
                read=[path for path in (*own, *given) if not any(path.is_relative_to(each) for each in _FOLDERS)],
                write=[*([] if programs else [folder]), *([pipe] if pipe else [])],
                scratch=scratch,
                size=self.limits.file,
            )
        return Command(argv, _environment(scratch) | dict(env or {}))


def find(wish: str = "auto") -> Backend:
    """The sandbox that works on this machine, tried out; "auto": the best. Raises ConfigError when there is none."""
    reasons = []
    for backend in BACKENDS if wish == "auto" else [each for each in BACKENDS if each == wish]:
        reason = missing(backend)
        if not reason:
            return backend
        reasons.append(f"{backend}: {reason}")
    if not reasons:
        raise ConfigError(f"{wish!r} is no sandbox; there are {', '.join(BACKENDS)}.")
    raise ConfigError("no sandbox works on this machine, so no kernel is started next to data. " + " ".join(reasons))


def describe() -> str:
    """In words, for `fednb doctor`."""
    reasons = {backend: missing(backend) for backend in BACKENDS}
    first = next((backend for backend in BACKENDS if not reasons[backend]), None)
    said = f"{first}, tried out just now" if first else "NONE, so no kernel is started next to data"
    return "; ".join([said, *(f"{backend}: {reason}" for backend, reason in reasons.items() if reason)])


@cache
def missing(backend: Backend) -> str:
    """Why a sandbox does not work on this machine, and what to do about it; "" when it does. It is really tried."""
    if sys.platform != "linux" or not seccomp.supported():
        return "needs Linux on x86_64 or aarch64."
    if backend == "bubblewrap" and bubblewrap.program() is None:
        return f"{bubblewrap.PROGRAM} is not installed. Install it (Debian, Ubuntu, Fedora: the package bubblewrap)."
    if backend == "landlock" and (version := landlock.version()) < landlock.NEEDED:
        return (
            f"this Linux has version {version} of Landlock, and {landlock.NEEDED} (Linux 6.12) is needed, with "
            '"landlock" in the boot parameter lsm=.'
        )
    with tempfile.TemporaryDirectory(prefix="fednb-") as name:
        secret = Path(name) / "secret"
        secret.write_text("shut")
        inside = Path(name) / "inside"
        inside.mkdir(mode=0o700)
        command = Sandbox(backend).command("fednb.policy.escapes", "probe", str(secret), folder=inside)
        try:
            done = subprocess.run(
                command.argv,
                env=command.env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it could not be tried: {error}."
    if done.returncode == 0 and done.stdout.strip() == "shut":
        return ""
    said = (done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["it said nothing"])[-1][:300]
    if done.returncode == WENT_WRONG or backend == "landlock":
        return f"it cannot be closed here: {said}."
    return (
        f"it does not start here: {said}. It needs user namespaces for all users, or {bubblewrap.PROGRAM} set-uid root."
    )


def _environment(scratch: Path) -> dict[str, str]:
    """Nothing of the agent's but language, time zone and numbers of threads."""
    kept = {k: v for k, v in os.environ.items() if k in _PASSED_ON or k.startswith(_PASSED_ON_PREFIXES)}
    return kept | {
        "PATH": "/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "IPYTHONDIR": str(scratch / ".ipython"),
        "MPLCONFIGDIR": str(scratch / ".matplotlib"),
        "JOBLIB_MULTIPROCESSING": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _python() -> list[Path]:
    """Where this Python, its packages and fednb lie."""
    packages = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    found = [sys.base_prefix, sys.prefix, *packages, str(Path(__file__).parents[1])]
    shown: list[Path] = []
    for path in dict.fromkeys(each for name in found for each in (Path(name), Path(name).resolve())):
        if path.exists() and path != Path("/usr") and not any(path.is_relative_to(each) for each in shown):
            shown.append(path)
    return shown
