"""Two members' endpoints, in one process or over a hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fednb.wire.dealer import DealerEndpoint
from fednb.wire.endpoint import Endpoint
from fednb.wire.hub import Hub
from fednb.wire.keys import enrol_all
from fednb.wire.loopback import Network


@pytest.fixture(params=["loopback", "dealer"])
def endpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Endpoint]]:
    """Those of bank, agency and coordinator."""
    names = ("bank", "agency", "coordinator")
    if request.param == "loopback":
        network = Network({"bank": "party", "agency": "party", "coordinator": "coordinator"})
        made: dict[str, Endpoint] = {name: network.endpoint(name) for name in names}
        yield made
    else:
        homes = enrol_all(tmp_path, {"hub": "hub", "bank": "party", "agency": "party", "coordinator": "coordinator"})
        hub = Hub(homes["hub"], "tcp://127.0.0.1:0").start()
        made = {name: DealerEndpoint(homes[name], hub=hub.address) for name in names}
        request.addfinalizer(hub.close)
        yield made
    for endpoint in made.values():
        endpoint.close()
