"""Which files a confined process may open, by Linux's Landlock: whatever is not named here is closed.

It needs no rights and no program beside Python, and cannot be taken off again. Asked for is version 6 of Landlock
(Linux 6.12), the first that also keeps signals and abstract Unix sockets inside. What no version of Landlock covers
(connecting to a socket file, changing a file's mode), the filter of `seccomp` does.

Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

NEEDED = 6

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # system calls, the same on every machine
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _DEVICE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_ALL_FILES = (1 << 16) - 1
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character, block
_ALL_TCP = 0b11  # bind, connect
_SCOPE = 0b11  # abstract Unix sockets, signals
_OF_A_FILE = _EXECUTE | _WRITE | _READ | _TRUNCATE | _DEVICE  # the others are rights on folders
_LOOK = _EXECUTE | _READ | _LIST


def version() -> int:
    """What this Linux has; 0: none."""
    return max(0, int(_call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def apply(read: Iterable[Path], write: Iterable[Path]) -> None:
    """Let this process, from now on and for good, open only these files and what is in these folders.

    The calling thread must be the only one. "No new privileges" must be set. Raises OSError.
    """
    if version() < NEEDED:
        raise OSError(f"this Linux has version {version()} of Landlock, and {NEEDED} is needed")
    attributes = struct.pack("=QQQ", _ALL_FILES, _ALL_TCP, _SCOPE)
    rules = _checked("landlock", _call(_CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)))
    try:
        for paths, rights in ((read, _LOOK), (write, _ALL_FILES & ~_EXECUTE & ~_MAKE_DEVICES)):
            for path in paths:
                _allow(rules, path, rights)
        _checked("landlock", _call(_RESTRICT, rules, ctypes.c_uint(0)))
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, handle)
        _checked(f"landlock: {path}", _call(_ADD, rules, ctypes.c_int(1), rule, ctypes.c_uint(0)))
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    given = [ctypes.c_int(each) if isinstance(each, int) else each for each in arguments]
    return int(libc.syscall(ctypes.c_long(number), *given))


def _checked(what: str, result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
