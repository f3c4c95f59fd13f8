"""What a run was made of, so that it can be told whether two runs had the same data and the same code.

A table's digest is keyed with a secret of its party: it says that the table is the same as in another run, and nobody
can find out which table it is by trying. Code is fednb's own at that member, and the file of the protocol.
"""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from pathlib import Path

from fednb.federation.store import MemberStore, Part
from fednb.protocols.base import Protocol

NAME = "digest-key"
DIGITS = 16

PACKAGE = Path(__file__).parents[1]


def of_data(store: MemberStore, digest: str) -> str:
    """A table's content, as others may know it."""
    kept = store.read(NAME, Part)
    if kept is None:
        kept = Part(values={"key": secrets.token_bytes(32)})
        store.write(NAME, kept)
    return hashlib.blake2b(digest.encode(), key=bytes(kept.values["key"]), digest_size=DIGITS // 2).hexdigest()


def of_code(protocol: Protocol) -> str:
    """The code that plays a run here."""
    files = {role.play.__code__.co_filename for role in protocol.roles.values() if hasattr(role.play, "__code__")}
    own = sorted(name for name in files if not Path(name).is_relative_to(PACKAGE) and Path(name).is_file())
    parts = [_of_package(), *(hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in own)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]


@cache  # a process runs the code that it began with
def _of_package() -> str:
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()
