"""The first thing that a confined process does: give up what it must not have, then become the program it is to be.

    python -P -m fednb.policy.confined BOX MODULE ARGUMENT...

It runs in a process of its own, so that nothing of the agent's is there to be given up: descriptors, memory, threads.
The steps cannot be undone, by this process or by what it runs. When one fails, the program does not start.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import signal
import socket
import struct
import sys
from pathlib import Path

import msgspec

from fednb.policy import landlock, seccomp
from fednb.typed import known

WENT_WRONG = 78  # sysexits.h: a configuration error; no program that Python runs ends like this by itself

_NO_NEW_PRIVILEGES, _AMBIENT, _CLEAR_AMBIENT = 38, 47, 4  # prctl
_CAPABILITIES = 0x20080522  # version 3 of capset's structures


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one confined process may use up; each of them, where it may start others."""

    memory: int = 4 << 30  # bytes of address space
    cpu: int = 3600  # seconds of processor time, over the life of the process
    file: int = 256 << 20  # bytes of a file that it writes; with bubblewrap also of all in its working folder
    files: int = 512  # open at a time
    threads: int = 512  # with bubblewrap, where the user is not root


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to confine a process, as the agent says it on the command line."""

    landlock: bool  # False: file rules and namespaces are those of bubblewrap, which stands around this process
    read: list[str]  # files and folders
    write: list[str]
    start: str  # the folder in which the program begins
    limits: Limits
    pipe: str = ""  # a socket to connect to while that is still possible
    programs: bool = False  # it may start programs and connect sockets: those of bubblewrap's own empty system


def main(arguments: list[str]) -> None:
    """Confine this process, then run a module as its program."""
    try:
        box = msgspec.json.decode(arguments[0], type=known(Box))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # bubblewrap was started deaf to it
        os.chdir(box.start)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        if box.pipe:
            os.environ["FEDNB_PIPE"] = f"fd:{_connected(box.pipe)}"
        _limit(box)
        _drop_privileges()
        if box.landlock:
            landlock.apply(map(Path, box.read), map(Path, box.write))
        seccomp.apply(programs=box.programs and not box.landlock)
    except (OSError, ValueError, LookupError, msgspec.MsgspecError) as error:
        print(f"the sandbox could not be closed, so nothing was started in it: {error}", file=sys.stderr, flush=True)
        sys.exit(WENT_WRONG)
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


def _connected(path: str) -> int:
    """The descriptor of a connection to the agent; later this process can reach nothing outside."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock.detach()


def _limit(box: Box) -> None:
    limits = box.limits
    for what, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, limits.files),
        (resource.RLIMIT_CORE, 0),  # a core holds everything that the process held
        *([] if box.landlock else [(resource.RLIMIT_NPROC, limits.threads)]),  # else it counts all of the user's
    ):
        allowed = resource.getrlimit(what)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(what, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu, limits.cpu + 1))  # the first can be caught, the second not


def _drop_privileges() -> None:
    """Also for an agent that runs as root: no capability is left, and no program gives one back."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = struct.pack("=Ii", _CAPABILITIES, 0), bytes(24)
    calls = ((libc.prctl, _AMBIENT, _CLEAR_AMBIENT), (libc.capset, header, none), (libc.prctl, _NO_NEW_PRIVILEGES, 1))
    for call, *given in calls:
        words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in given]
        if call(*words, *[ctypes.c_ulong(0)] * (3 if call is libc.prctl else 0)):
            raise OSError(ctypes.get_errno(), "privileges could not be dropped")


if __name__ == "__main__":
    main(sys.argv[1:])
