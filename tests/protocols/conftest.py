"""Running real roles in one process, with every message at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednb.protocols import vertical_logistic
from fednb.protocols.base import Dataset, Outcome, Protocol, RunContext
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

sys.path.insert(0, str(Path(__file__).parent))  # for boosting_world, which two files of tests share

KEY_BITS = 512  # for speed; what depends on the size is tested in crypto


@dataclass
class Tape:
    """Every message in the order of sending: (sender, receiver, message)."""

    messages: list[tuple[str, str, Message]] = field(default_factory=list)

    def kinds(self, sender: str, receiver: str) -> list[str]:
        return [type(m).__name__ for s, r, m in self.messages if (s, r) == (sender, receiver)]

    def to(self, receiver: str) -> list[Message]:
        return [m for _, r, m in self.messages if r == receiver]


class Recording:
    """A link that puts what it sends on a tape, or sends something else instead."""

    def __init__(self, link: Link, tape: Tape, alter: Callable[[str, Message], Message] | None = None) -> None:
        self.me, self.cast = link.me, link.cast
        self._link, self._tape, self._alter = link, tape, alter

    def send(self, to: str, message: Message) -> None:
        if self._alter is not None:
            message = self._alter(to, message)
        self._tape.messages.append((self.me, to, message))
        self._link.send(to, message)

    def recv(self, sender: str, kind: Any) -> Any:
        return self._link.recv(sender, kind)


Role = Callable[[Link], Outcome]


@dataclass
class Training:
    """bank (active), agency, telco ... (passive) and the coordinator on the same rows."""

    parts: Sequence[np.ndarray]  # [n, d_p]; the bank's first
    y: np.ndarray
    params: dict[str, Any] = field(default_factory=dict)
    contexts: Mapping[str, RunContext] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replace: Mapping[str, Role] = field(default_factory=dict)  # a member's role, to misbehave
    alter: Mapping[str, Callable[[str, Message], Message]] = field(default_factory=dict)
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # each party's part of an earlier run
    tape: Tape = field(default_factory=Tape)
    protocol: Protocol = vertical_logistic.PROTOCOL

    @property
    def parties(self) -> list[str]:
        return ["bank", "agency", "telco", "energy"][: len(self.parts)]

    @property
    def cast(self) -> dict[str, tuple[str, ...]]:
        return {"active": ("bank",), "passive": tuple(self.parties[1:]), "coordinator": ("coordinator",)}

    def data(self, member: str) -> Dataset:
        i = self.parties.index(member)
        X = self.parts[i]
        names = self.columns.get(member, tuple(f"{member}_{j}" for j in range(X.shape[1])))
        part = self.earlier.get(member, {})
        return Dataset(X=X, y=self.y if i == 0 else None, columns=names, label="default" if i == 0 else None, part=part)

    def roles(self) -> dict[str, Role]:
        params = self.protocol.params(**{"key_bits": KEY_BITS, "insecure_short_key": True, **self.params})

        def role(member: str) -> Role:
            run = self.contexts.get(member) or RunContext(name="run")

            def play_it(link: Link) -> Outcome:
                taped = Recording(link, self.tape, self.alter.get(member))
                role = {"bank": "active", "coordinator": "coordinator"}.get(member, "passive")
                data = Dataset() if member == "coordinator" else self.data(member)
                return self.protocol.roles[role].play(taped, data, params, run)

            return self.replace.get(member, play_it)

        return {member: role(member) for member in [*self.parties, "coordinator"]}

    def fit(self) -> dict[str, Outcome]:
        return play(self.roles(), self.cast, timeout=60)


@dataclass(frozen=True)
class Sample:
    """Rows whose label depends on all parties' features."""

    parts: list[np.ndarray]
    y: np.ndarray


@pytest.fixture
def sample() -> Callable[..., Sample]:
    def make(n: int = 300, widths: Sequence[int] = (2, 3), seed: int = 0) -> Sample:
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(n, 1))
        parts = [0.6 * common + rng.normal(size=(n, d)) * rng.uniform(0.5, 20, d) + 3 for d in widths]
        X = np.hstack(parts)
        Z = (X - X.mean(axis=0)) / X.std(axis=0)
        score = Z @ rng.uniform(-0.9, 0.9, Z.shape[1]) - 0.7
        return Sample(parts, (rng.random(n) < 1 / (1 + np.exp(-score))).astype(float))

    return make


@pytest.fixture
def training(sample: Callable[..., Sample]) -> Callable[..., Training]:
    """training(widths=(2, 3), n=300, max_iter=3, ...): a Training on a made-up sample."""

    def make(widths: Sequence[int] = (2, 3), n: int = 300, seed: int = 0, **params: Any) -> Training:
        made = sample(n, widths, seed)
        return Training(made.parts, made.y, params)

    return make


@pytest.fixture
def training_on() -> Callable[..., Training]:
    """training_on(parts, y, max_iter=3, ...): a Training on rows of one's own."""

    def make(parts: Sequence[np.ndarray], y: np.ndarray, **params: Any) -> Training:
        return Training(parts, y, params)

    return make
