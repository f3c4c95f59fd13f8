"""The system calls that a confined process may not make, as a filter that Linux itself applies from then on.

What is left open serves one process with threads that computes, reads and writes its own files, and answers on sockets
that it was given. Closed are: other programs and processes, every network, sockets of others, other processes'
memory and limits, rights and times of files (Landlock does not cover those), keys, namespaces, io_uring (which would
make calls past this filter), and every call that is newer than the newest looked at here. A process with a whole
system to itself may start programs and connect to sockets in it.

Numbers: x86_64 from arch/x86/entry/syscalls/syscall_64.tbl, aarch64 from include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence

NEWEST = 462  # mseal, Linux 6.10; the same on both

# name: (x86_64, aarch64); -1: it does not exist there
REFUSED = {
    # other programs, other processes
    "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157),
    "setpgid": (109, 154), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "setpriority": (141, 140), "ioprio_set": (251, 30),
    # sockets of others; what shares memory or messages with others
    "connect": (42, 203), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # calls that go past this filter, and parts of the system that ordinary programs do without
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "seccomp": (317, 277), "syslog": (103, 116),
    "personality": (135, 92), "modify_ldt": (154, -1), "uselib": (134, -1), "iopl": (172, -1), "ioperm": (173, -1),
    "lookup_dcookie": (212, 18), "quotactl": (179, 60), "quotactl_fd": (443, 443), "vhangup": (153, 58),
    "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "setdomainname": (171, 162), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    # files outside, through their names
    "chown": (92, -1), "lchown": (94, -1), "fchown": (93, 55), "fchownat": (260, 54), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "inotify_add_watch": (254, 27), "fanotify_init": (300, 262), "fanotify_mark": (301, 263),
}  # fmt: skip
# answered as if done, and not done: what copies a file or starts a thread would fail for nothing
IGNORED = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "utime": (132, -1),
    "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
}  # fmt: skip
# answered as by an older Linux: libraries know what to do without
ABSENT = {"clone3": (435, 435), "memfd_create": (319, 279), "memfd_secret": (447, 447)}  # memory that no limit counts
# allowed on the calling process itself, which is number 0
OWN = {"prlimit64": (302, 261), "migrate_pages": (256, 238), "move_pages": (279, 239)}
CLONE = (56, 220)  # for threads
PROGRAMS = ("fork", "vfork", "execve", "connect")  # open to a process that has nothing around it to start or reach
SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}  # Unix streams: datagrams may name another receiver each time

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH
_SYS_SECCOMP = (317, 277)
_CLONE_THREAD, _CLONE_NAMESPACES = 0x10000, 0x7E020000
_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF

# classic BPF (linux/filter.h) and what it may answer (linux/seccomp.h)
_LOAD, _AND, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENT = 0, 4, (16, 24)  # offsets in struct seccomp_data; the low words of the first two arguments

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def supported() -> bool:
    """Whether this machine's instruction set is one that the filter knows."""
    return platform.machine() in _ARCHITECTURES


def program(machine: str, programs: bool = False) -> list[Instruction]:
    """The filter for "x86_64" or "aarch64".

    programs : what it filters may start programs and connect Unix sockets. Only for where no others are in reach.
    """
    column, arch = _ARCHITECTURES[machine]
    refuse, absent = _answer(errno.EPERM), _answer(errno.ENOSYS)
    made: list[Instruction] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL)]
    # above everything known lie new calls, and on x86_64 those of another way to number them (x32)
    made += [(_LOAD, 0, 0, _NUMBER), (_ABOVE, 0, 1, NEWEST), absent]
    for table, answer in ((REFUSED, refuse), (ABSENT, absent), (IGNORED, _answer(0))):
        for name, numbers in table.items():
            if numbers[column] >= 0 and not (programs and name in PROGRAMS):
                made += [(_EQUAL, 0, 1, numbers[column]), answer]
    allow = (_RETURN, 0, 0, _ALLOW)
    flags = (_ANY_BIT, 1, 0, _CLONE_NAMESPACES) if programs else (_ANY_BIT, 0, 1, _CLONE_THREAD)
    made += _when(CLONE[column], [(_LOAD, 0, 0, _ARGUMENT[0]), flags, allow, refuse])
    unsupported = _answer(errno.EOPNOTSUPP)  # of all answers the one on which ZeroMQ does not abort
    for numbers in SOCKETS.values():
        family: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENT[0]), (_EQUAL, 1, 0, _AF_UNIX), unsupported]
        kind: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENT[1]), (_AND, 0, 0, _SOCK_TYPE), (_EQUAL, 0, 1, _SOCK_STREAM)]
        made += _when(numbers[column], [*family, *kind, allow, unsupported])
    for numbers in OWN.values():
        made += _when(numbers[column], [(_LOAD, 0, 0, _ARGUMENT[0]), (_EQUAL, 0, 1, 0), allow, refuse])
    return [*made, allow]


def apply(programs: bool = False) -> None:
    """Filter this process, all of its threads, from now on and for good. Raises OSError when Linux declines."""
    made = program(platform.machine(), programs)
    code = b"".join(struct.pack("=HBBI", *each) for each in made)
    room = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    number = _SYS_SECCOMP[_ARCHITECTURES[platform.machine()][0]]
    set_filter, all_threads = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
    handed = ctypes.byref(Program(len(made), ctypes.addressof(room)))
    failed = libc.syscall(ctypes.c_long(number), ctypes.c_uint(set_filter), ctypes.c_uint(all_threads), handed)
    if failed:
        code_of_error = ctypes.get_errno()
        raise OSError(code_of_error, f"seccomp: {os.strerror(code_of_error)}")


def _answer(error: int) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | error)


def _when(number: int, steps: Sequence[Instruction]) -> list[Instruction]:
    """`steps` for one call; the number is loaded before and, where the call is another, still after."""
    return [(_EQUAL, 0, len(steps), number), *steps]
