"""The coordinator's host may run the hub too: with the secret key in hand and every frame recorded, it reads nothing.

Real sockets, hub and sealed conversations, all in this process, so that both sides of the seal can be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zmq

from fednb.crypto import paillier
from fednb.federation.client import Federation
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.party import PartyService
from fednb.federation.runs import RunStore
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.models import VerticalLogisticRegression
from fednb.policy.mode import MemberPolicy
from fednb.policy.quota import QuotaLedger
from fednb.protocols import lookup
from fednb.wire import codec
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.hub import Hub
from fednb.wire.keys import enrol_all
from fednb.wire.switchboard import Talk

ROWS = 80


class Recording:
    """The hub's socket, which keeps what comes in."""

    def __init__(self, router: Any, kept: list[bytes]) -> None:
        self._router, self._kept = router, kept

    def recv_multipart(self, *args: Any, **options: Any) -> Any:
        frames = self._router.recv_multipart(*args, **options)
        self._kept += [bytes(frame.buffer) if isinstance(frame, zmq.Frame) else bytes(frame) for frame in frames]
        return frames

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)


def readable(data: bytes, secret: paillier.PrivateKey, tries: int) -> int:
    """How many pieces of a ciphertext's width, taken evenly, decrypt to what a role would encrypt.

    Such plaintexts are packed slots far below n; random bytes decrypt to numbers as large as n.
    """
    key, width = secret.public, secret.public.width
    step = max(width, len(data) // tries)
    pieces = [data[start : start + width] for start in range(0, len(data) - width + 1, step)]
    square = key.n * key.n
    possible = [int.from_bytes(piece, "big") % square for piece in pieces]
    vector = paillier.CipherVector(
        np.frombuffer(b"".join(c.to_bytes(width, "big") for c in possible), np.uint8).reshape(-1, width), 0, key
    )
    return sum(abs(key.signed(plain)).bit_length() < key.bits - 60 for plain in secret.decrypt(vector))


@pytest.mark.slow
def test_the_hub_with_the_secret_key_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets: list[paillier.PrivateKey] = []
    generate = paillier.generate

    def keeping(*args: Any, **options: Any) -> paillier.PrivateKey:
        secrets.append(generate(*args, **options))
        return secrets[-1]

    monkeypatch.setattr(paillier, "generate", keeping)
    between_parties: list[bytes] = []  # what bank and agency send each other, before the seal
    deliver = Talk.deliver

    def watching(self: Talk, frames: Sequence[codec.Frame]) -> None:
        if {self.board.me, self.peer} == {"bank", "agency"}:
            between_parties.extend(bytes(frame) for frame in frames)
        deliver(self, frames)

    monkeypatch.setattr(Talk, "deliver", watching)

    homes = enrol_all(
        tmp_path,
        {"hub": "hub", "coordinator": "coordinator", "bank": "party", "agency": "party", "analyst": "analyst"},
    )
    hub = Hub(homes["hub"], "tcp://127.0.0.1:0")
    seen: list[bytes] = []
    hub._router = Recording(hub._router, seen)  # type: ignore[assignment]
    hub.start()
    endpoints = {n: DealerEndpoint(h, hub=hub.address) for n, h in homes.items() if n != "hub"}
    try:
        rng = np.random.default_rng(0)
        ids = [f"S{k:04d}" for k in range(ROWS)]
        X = rng.normal(size=(ROWS, 4))
        y = (X.sum(axis=1) + rng.logistic(size=ROWS) > 0).astype(int)
        bank = pd.DataFrame({"id": ids, "a": X[:, 0], "b": X[:, 1], "default": y})
        agency = pd.DataFrame({"id": ids, "c": X[:, 2], "d": X[:, 3]})
        for name, table in (("bank", bank), ("agency", agency)):
            PartyService(
                endpoints[name],
                TableStore.of_frames(name, {"own": table}),
                MemberPolicy(name),
                MemberStore(),
                coordinator="coordinator",
                lookup=lookup,
            )
        CoordinatorService(endpoints["coordinator"], MemberStore(), RunStore(), QuotaLedger(multiple=5), lookup=lookup)
        federation = Federation(endpoints["analyst"], "coordinator")
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        VerticalLogisticRegression(max_iter=2).fit(frame, y="bank.default")
    finally:
        for endpoint in endpoints.values():
            endpoint.close()
        hub.close()

    (secret,) = secrets
    width = secret.public.width
    routed = b"".join(seen)
    large = [frame for frame in between_parties if len(frame) >= width and len(frame) % width == 0]
    assert large, "ciphertexts crossed between the parties"
    assert len(routed) > sum(map(len, large)), "and the hub routed them"
    assert sum(readable(frame, secret, 10) for frame in large) > 10, "whoever has them and the key reads them"
    for frame in between_parties:
        for start in range(0, len(frame) - 16, max(16, width)):
            assert frame[start : start + 16] not in routed, "a piece of a message stood in what the hub routed"
    assert readable(routed, secret, 400) == 0, "nothing that the hub saw decrypts to a number"
