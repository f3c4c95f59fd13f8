"""Namespaces around a confined process, by bubblewrap: it sees a system of its own, with nothing of others in it.

No network but an empty one, no processes but its own, and of files only those that are named: the rest of the disk is
not closed but absent. Bubblewrap also keeps memory files (/tmp and the like) within a size.

Source: man bwrap
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

PROGRAM = "bwrap"

# deaf to interrupts: they go to the whole process group, and are meant for the program inside, which hears them; and
# the first to go when memory runs out, before the agent
_DEAF = ("/bin/sh", "-c", 'trap "" INT; echo 1000 > /proc/self/oom_score_adj; exec "$@"', "fednb-sandbox")


def program() -> str | None:
    """Where it is installed, if it is."""
    return shutil.which(PROGRAM)


def command(
    argv: Iterable[str],
    *,
    system: Iterable[Path],
    read: Iterable[Path],
    write: Iterable[Path],
    scratch: Path,
    size: int,
) -> list[str]:
    """The command that runs `argv` with nothing in sight but these paths, which keep their names.

    system, read : shown, not to be changed; those of `system` are skipped where they do not exist, and stay links
        where they are links.
    write : shown, and may be changed.
    scratch : an empty folder in memory, of `size` bytes, over whatever is there.
    """
    made = [*_DEAF, program() or PROGRAM, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL"]
    # an agent that runs as root owns Linux's settings in /proc/sys also without any capability
    made += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", "/tmp"):  # noqa: S108  (inside)
        made += ["--size", str(size), "--tmpfs", folder]
    for path in system:
        if path.is_symlink():
            made += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            made += ["--ro-bind", str(path), str(path)]
    for path in read:
        made += ["--ro-bind", str(path), str(path)]
    for path in write:
        made += ["--bind", str(path), str(path)]
    made += ["--size", str(size), "--tmpfs", str(scratch)]
    for folder in ("/dev", "/"):  # memory files of bubblewrap's own, which have no size
        made += ["--remount-ro", folder]
    return [*made, "--", *argv]
