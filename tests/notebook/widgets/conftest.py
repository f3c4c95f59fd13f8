"""A run by its messages: three members, a curve that falls, somebody who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fednb.federation.messages import Event, MemberResult, RunEnded, RunEvent
from fednb.federation.progress import RunProgress

ROLES = {"bank": "active", "agency": "passive", "coordinator": "coordinator"}


def make_training(steps: int = 12, total: int = 20) -> Iterator[RunEvent]:
    seq = 0
    for step in range(1, steps + 1):
        for member, role in ROLES.items():
            waits = "Residuals from bank" if member == "agency" else ""
            yield RunEvent(
                "r1",
                seq,
                Event(
                    member=member,
                    role=role,
                    at=1e9 + step,
                    phase="train",
                    step=step,
                    total=total,
                    metrics={"gradient_norm": 0.5**step} if member == "coordinator" else {},
                    operations={"encrypt": 10 * step, "multiply": 1000 * step} if member != "coordinator" else {},
                    bytes_out={"bank" if member != "bank" else "agency": 50_000 * step},
                    bytes_in={"agency": 40_000 * step},
                    waiting_for=waits,
                ),
            )
            seq += 1


def make_ended(status: str = "ok", error: str = "", member: str = "") -> RunEnded:
    results = {name: MemberResult(role=role) for name, role in ROLES.items()}
    return RunEnded("r1", status, results if status == "ok" else {}, error, "DataError", member, 12.5)  # type: ignore[arg-type]


@pytest.fixture
def training() -> Callable[..., Iterator[RunEvent]]:
    return make_training


@pytest.fixture
def ended() -> Callable[..., RunEnded]:
    return make_ended


@pytest.fixture
def progress() -> RunProgress:
    """In mid-training."""
    state = RunProgress("r1", "VerticalLogisticRegression for bank.default")
    for message in make_training():
        state.add(message)
    return state
