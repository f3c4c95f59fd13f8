"""An engine in place of `spu`, so that what is around it can be tested where `spu` is not installed.

It intersects by sending its hashes, which the real one does not.
"""

from __future__ import annotations

import queue
from collections.abc import Iterable

from fednb.errors import RunFailed
from fednb.protocols.psi_spu import HASH, Said

PIECE = 100 * HASH


class StandIn:
    """A `psi_spu.Engine`. `sessions` are those that it started."""

    def __init__(
        self, member: str = "", *, says: bytes | None = None, fails: bool = False, waits: bool = False
    ) -> None:
        self.member, self.says, self.fails, self.waits = member, says, fails, waits
        self.sessions: list[Session] = []

    def start(self, rank: int, hashes: Iterable[bytes], ids: int) -> Session:
        self.sessions.append(Session(self, rank, b"".join(hashes)))
        return self.sessions[-1]


class Session:
    def __init__(self, engine: StandIn, rank: int, hashes: bytes) -> None:
        self.engine, self.rank, self.closed = engine, rank, False
        self._own = {hashes[at : at + HASH] for at in range(0, len(hashes), HASH)}
        self._others: set[bytes] = set()
        self._says: queue.SimpleQueue[Said] = queue.SimpleQueue()
        if not engine.waits:
            for at in range(0, len(hashes), PIECE):
                self._says.put(Said("piece", hashes[at : at + PIECE]))
            self._says.put(Said("piece", b"end"))

    def put(self, piece: bytes) -> None:
        if not piece or piece == b"late":
            return
        if piece != b"end":
            self._others |= {piece[at : at + HASH] for at in range(0, len(piece), HASH)}
            return
        common = b"".join(sorted(self._own & self._others))
        self._says.put(Said("matches", common if self.engine.says is None else self.engine.says))
        self._says.put(Said("piece", b"late"))  # its peer may still need it

    def next(self, seconds: float) -> Said | None:
        if self.engine.fails:
            raise RunFailed(f"{self.engine.member}'s spu ended without a result", member=self.engine.member)
        try:
            return self._says.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        self.closed = True
