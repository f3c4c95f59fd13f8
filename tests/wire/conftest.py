"""A hub and members on the loopback interface, and nothing left of them after a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednb.wire.dealer import DealerEndpoint
from fednb.wire.hub import Hub
from fednb.wire.keys import Kind, MemberHome, enrol_all

KINDS: dict[str, Kind] = {
    "hub": "hub",
    "coordinator": "coordinator",
    "bank": "party",
    "agency": "party",
    "analyst": "analyst",
}


class Federation:
    """Homes, a hub, and whoever connects to it."""

    def __init__(self, root: Path) -> None:
        self.kinds = KINDS
        self.homes: dict[str, MemberHome] = enrol_all(root, KINDS)
        self.endpoints: list[DealerEndpoint] = []
        self.hub = Hub(self.homes["hub"], "tcp://127.0.0.1:0").start()

    def connect(self, name: str, **options: Any) -> DealerEndpoint:
        endpoint = DealerEndpoint(self.homes[name], hub=self.hub.address, **options)
        self.endpoints.append(endpoint)
        return endpoint

    def restart_hub(self) -> None:
        """The same port, a new hub that knows nothing."""
        self.stop_hub()
        self.start_hub()

    def stop_hub(self) -> None:
        self.hub.close()

    def start_hub(self) -> None:
        self.hub = Hub(self.homes["hub"], self.hub.address).start()

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.close()
        self.hub.close()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _no_thread_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    # pyzmq keeps one thread for the whole process, to let go of memory that zero-copy sends were done with
    ours = [thread for thread in threading.enumerate() if type(thread).__name__ != "GarbageCollectorThread"]
    left = [thread for thread in ours if thread not in before]
    for thread in left:
        thread.join(5.0)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds that nothing announces; fails after ten seconds."""

    def wait(condition: Callable[[], bool]) -> None:
        pause = threading.Event()
        for _ in range(1000):
            if condition():
                return
            pause.wait(0.01)
        raise AssertionError("it never happened")

    return wait
