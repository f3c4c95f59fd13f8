"""Ways out of a sandbox, tried inside it: `fednb doctor --escapes` and the tests run each in a process of its own.

    python -m fednb.policy.escapes NAME BAIT

Each function does something that a confined process must not be able to do, and returns what it got. It ends with exit
code 0 and one line when that worked, and with HELD when the system declined. What is there to be had, `bait` lays out;
each works against it from a process without a sandbox, or the check would prove nothing.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fednb.typed import known

HELD = 3
TRIED = 64  # processes, of which none should come to be
MEMORY, FILE, FILES, CPU = 2 << 30, 4 << 20, 400, 3  # more than the limits under which `bait` tries them


class Bait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lies outside."""

    folder: str  # a party's, with key.json and table.csv in it
    temporary: str  # a path in the machine's temporary folder where nothing is yet
    agent: int  # a process of the same user with SECRET in its environment
    parent: int  # another, which holds `length` bytes at `address`
    address: int
    length: int
    tcp: int  # ports on loopback, where somebody listens
    udp: int
    unix: str  # socket files
    datagram: str
    abstract: str  # name of a socket without a file
    shared: int  # key of a segment of System V shared memory
    shm: str  # name of a file in /dev/shm
    descriptor: int  # of key.json, left open and inherited


ESCAPES: dict[str, Callable[[Bait], object]] = {}


def escape(name: str) -> Callable[[Callable[[Bait], object]], Callable[[Bait], object]]:
    def add(function: Callable[[Bait], object]) -> Callable[[Bait], object]:
        ESCAPES[name] = function
        return function

    return add


def _simple(name: str, action: Callable[[Bait], object]) -> None:
    ESCAPES[name] = action


def _key(bait: Bait) -> Path:
    return Path(bait.folder, "key.json")


# ---------------------------------------------------------------- files

_simple("read the member's key", lambda bait: _key(bait).read_text())
_simple("read the party's table", lambda bait: Path(bait.folder, "table.csv").read_text())
_simple("list the member's home", lambda bait: os.listdir(bait.folder))
_simple("write into the member's home", lambda bait: Path(bait.folder, "planted").write_text("x"))
_simple("write into the machine's temporary folder", lambda bait: Path(bait.temporary).write_text("x"))
_simple("overwrite the member's key", lambda bait: _key(bait).open("r+").write("x"))
_simple("cut the member's key short", lambda bait: os.truncate(_key(bait), 0))
_simple("delete the member's key", lambda bait: _key(bait).unlink())
_simple("rename the member's key", lambda bait: _key(bait).rename(_key(bait).with_name("other")))
_simple("read the users of the machine", lambda bait: Path("/etc/passwd").read_text())
_simple("read shared memory in /dev/shm", lambda bait: Path("/dev/shm", bait.shm).read_text())  # noqa: S108
_simple("see the network's devices", lambda bait: os.listdir("/sys/class/net"))
_simple("change a setting of Linux", lambda bait: Path("/proc/sys/kernel/core_pattern").open("r+").close())
_simple("change a package of this Python", lambda bait: Path(msgspec.__file__).open("r+").close())
_simple("read a file that was left open", lambda bait: os.pread(bait.descriptor, 100, 0).decode())


@escape("reach the key by a link")
def _(bait: Bait) -> object:
    link = Path("link")
    link.symlink_to(_key(bait))
    return link.read_text()


@escape("reach the key by a second name")
def _(bait: Bait) -> object:
    # beside the temporary folder: a hard link stays on one file system
    os.link(_key(bait), Path(bait.temporary).with_suffix(".second"))
    return "linked"


@escape("open the member's key to everybody")
def _(bait: Bait) -> object:
    _key(bait).chmod(0o666)
    return _done(_key(bait).stat().st_mode & 0o777 == 0o666)


@escape("change the times of the member's key")
def _(bait: Bait) -> object:
    os.utime(_key(bait), (1, 1))
    return _done(_key(bait).stat().st_mtime == 1)


@escape("watch the member's home")
def _(bait: Bait) -> object:
    watch = _libc("inotify_init1", 0)
    return _libc("inotify_add_watch", watch, bait.folder.encode(), 0xFFF)


# ---------------------------------------------------------------- the agent, and other processes


_simple("read the environment that the agent had", lambda bait: dict(os.environ)["FEDNB_SECRET_OF_THE_AGENT"])
_simple("read the agent's environment", lambda bait: _with(b"SECRET", Path(f"/proc/{bait.agent}/environ").read_bytes()))
_simple("read the agent's command line", lambda bait: _with(b"sleep", Path(f"/proc/{bait.agent}/cmdline").read_bytes()))
_simple("signal the agent", lambda bait: os.kill(bait.agent, 0))
_simple("trace the agent", lambda bait: _libc("ptrace", 16, bait.agent, 0, 0))
_simple("slow the agent down", lambda bait: os.setpriority(os.PRIO_PROCESS, bait.agent, 19))
_simple("limit the agent", lambda bait: resource.prlimit(bait.agent, resource.RLIMIT_CORE, (0, 0)))


@escape("read the agent's memory")
def _(bait: Bait) -> object:
    with open(f"/proc/{bait.parent}/mem", "rb", buffering=0) as memory:
        memory.seek(bait.address)
        return memory.read(bait.length)


@escape("copy the agent's memory")
def _(bait: Bait) -> object:
    room = ctypes.create_string_buffer(bait.length)
    here = struct.pack("PP", ctypes.addressof(room), bait.length)
    there = struct.pack("PP", bait.address, bait.length)
    _libc("process_vm_readv", bait.parent, here, 1, there, 1, 0)
    return room.raw


@escape("read the agent's shared memory")
def _(bait: Bait) -> object:
    return _libc("shmget", bait.shared, 0, 0)


# ---------------------------------------------------------------- network and sockets


_simple("connect to a port", lambda bait: socket.create_connection(("127.0.0.1", bait.tcp), 2).close())
_simple("listen on a port", lambda bait: socket.create_server(("127.0.0.1", 0)).close())
_simple("send a datagram", lambda bait: _datagram(socket.AF_INET, ("127.0.0.1", bait.udp)))
_simple("ask for routes", lambda bait: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).bind((0, 0)))
_simple("connect to a socket file", lambda bait: socket.socket(socket.AF_UNIX).connect(bait.unix))
_simple("send to a socket file", lambda bait: _datagram(socket.AF_UNIX, bait.datagram))
_simple("connect to an abstract socket", lambda bait: socket.socket(socket.AF_UNIX).connect("\0" + bait.abstract))


@escape("send to a socket file from a pair")
def _(bait: Bait) -> object:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return pair[0].sendto(b"x", bait.datagram)


# ---------------------------------------------------------------- programs, and ways around the filter


_simple("start a shell", lambda bait: subprocess.run(["/bin/sh", "-c", "echo hi"], check=True, capture_output=True))
_simple("become another program", lambda bait: os.execv("/bin/echo", ["echo", "another program"]))  # noqa: S606
_simple("enter a namespace of its own", lambda bait: _libc("unshare", 0x10000000))


@escape("start a process in a namespace of its own")
def _(bait: Bait) -> object:
    child = _system(56, 220, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if not child:
        os._exit(0)
    return os.waitpid(child, 0)


_simple("use the user's keyring", lambda bait: _system(250, 219, 0, -4, 1))
_simple("load a program into Linux", lambda bait: _system(321, 280, 0, struct.pack("=IIIIQ12x", 2, 4, 4, 1, 0), 36))
_simple("measure the machine", lambda bait: _perf())


@escape("call past the filter with io_uring")
def _(bait: Bait) -> object:
    return _system(425, 425, 1, ctypes.create_string_buffer(120))


# ---------------------------------------------------------------- limits


_simple("take memory", lambda bait: len(bytearray(MEMORY)))
_simple("map memory", lambda bait: len(mmap.mmap(-1, MEMORY)))
_simple("write a large file", lambda bait: _write_all("large", FILE))
_simple("keep memory that no limit counts", lambda bait: os.memfd_create("hidden"))
_simple("open many files", lambda bait: len([open("/dev/null") for _ in range(FILES)]))  # noqa: SIM115


@escape("start many processes")
def _(bait: Bait) -> object:
    children: list[int] = []
    try:
        for _ in range(TRIED):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return len(children)


@escape("compute without end")
def _(bait: Bait) -> object:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)  # the first word can be ignored; the second comes soon after
    while time.process_time() < CPU:
        pass
    return time.process_time()


# ---------------------------------------------------------------- how they are run


def main(arguments: list[str]) -> int:
    """Try one; 0: it worked, HELD: it did not."""
    if arguments[0] == "probe":
        print(_probe(arguments[1]))
        return 0
    bait = msgspec.json.decode(arguments[1], type=known(Bait))
    try:
        got = ESCAPES[arguments[0]](bait)
    except (OSError, MemoryError, KeyError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}")
        return HELD
    print(f"{got!r}"[:200])
    return 0


def _probe(secret: str) -> str:
    """ "shut" when a process that runs here cannot do the worst, but what a kernel needs."""
    worst: dict[str, Callable[[], object]] = {
        "a file outside was read": lambda: Path(secret).read_text(),
        "a network socket was made": lambda: socket.socket(socket.AF_INET).close(),
        "a program was started": lambda: subprocess.run(["/bin/true"], check=True),
        "a process was started": lambda: os.fork() or os._exit(0),
        "a namespace was entered": lambda: _libc("unshare", 0x10000000),
    }
    for what, action in worst.items():
        try:
            action()
        except OSError:
            continue
        return what
    thread = threading.Thread(target=Path("mine").write_text, args=("x",))
    thread.start()
    thread.join()
    return "shut" if Path("mine").read_text() == "x" else "it cannot work in its own folder"


def _done(done: bool) -> bool:
    if not done:
        raise PermissionError(errno.EPERM, "it was not done")
    return done


def _with(word: bytes, content: bytes) -> bytes:
    if word not in content:
        raise PermissionError(errno.EACCES, "it is not the agent's")
    return content


def _write_all(name: str, size: int) -> int:
    with open(name, "wb") as file:
        return file.write(bytes(size))


def _datagram(family: int, address: object) -> int:
    return socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", address)  # type: ignore[call-overload, no-any-return]


def _perf() -> int:
    attributes = ctypes.create_string_buffer(struct.pack("=IIQ", 1, 64, 1) + bytes(48), 64)
    return _system(298, 241, attributes, 0, -1, -1, 0)


def _system(x86_64: int, aarch64: int, *arguments: object) -> int:
    return _libc("syscall", x86_64 if os.uname().machine == "x86_64" else aarch64, *arguments)


def _libc(name: str, *arguments: object) -> int:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)  # all of these answer with an int
    got = int(function(*[ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return got


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
