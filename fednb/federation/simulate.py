"""A federation in one process, for teaching, tests and trying a protocol: same roles, same codec, threads.

Nothing here is a boundary: whoever runs a simulation holds everybody's rows. What it keeps is the shape of the real
thing, down to the encoded messages, so that what works here works between organisations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fednb.errors import DataError, Refused
from fednb.federation.card import CARD, PartyCard
from fednb.federation.client import Federation
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.messages import Join
from fednb.federation.party import PartyService
from fednb.federation.runs import RunStore
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.policy.quota import QuotaLedger
from fednb.protocols import executor, lookup
from fednb.protocols.base import Protocol
from fednb.wire.endpoint import Endpoint
from fednb.wire.loopback import Network

if TYPE_CHECKING:
    import pandas as pd

COORDINATOR = "coordinator"
ANALYST = "analyst"


class Simulation(Federation):
    """A simulated federation. Who holds all tables may look at what is each party's own, too."""

    def __init__(
        self,
        endpoint: Endpoint,
        coordinator: str,
        stores: Mapping[str, MemberStore],
        *,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(endpoint, coordinator, on_close=on_close)
        self._stores = stores

    def scorecard(self, party: str, run: str) -> PartyCard:
        """A party's own part of a scorecard, as `fed.scorecard(run)` gives it in that party's cells.

        `run` : `card.runs_[party]`. Raises DataError where the party has no part of it.
        """
        if party not in self._stores:
            raise DataError(f"there is no party {party!r} here; there are {', '.join(sorted(self._stores))}.")
        part = self._stores[party].load(run)
        if "card" not in part:
            raise DataError(f"run {run} made no scorecard.")
        return PartyCard(party, {name: part[name] for name in CARD if name in part})


class _Lenient:
    """The policy of a simulated party: every protocol, nothing beyond what contracts allow by default."""

    def __init__(self, release: Sequence[str]) -> None:
        self._release = frozenset(release)
        self.mode = "simulation"
        self.approves = False

    def check_run(self, join: Join) -> None:
        """Every run is allowed."""

    def check_analyst(self, analyst: str, protocol: str, table: str, partners: Iterable[str]) -> None:
        """There is one analyst, who holds all tables anyway."""

    def online(self, asker: str, model: str, reasons: int) -> str:
        """A simulation serves nobody."""
        raise Refused("a simulation has no online service; start the members with fednb up.", rule="online")

    def most_models(self, features: int) -> int | None:
        """Any number: whoever simulates holds all rows anyway."""
        return None

    def releases(self, what: str) -> bool:
        return what in self._release


def simulate(
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    *,
    release: Mapping[str, Sequence[str]] | None = None,
    protocols: Sequence[Protocol] = (),
    decryption_quota: float = 0.5,
) -> Simulation:
    """A federation of parties that hold DataFrames, with a coordinator added, on threads of this process.

    Parameters
    ----------
    tables : DataFrames by party and table name: {"bank": {"loans": df}, "agency": {"invoices": df}}.
    release : what a party shows of its own after a run: {"agency": ["coefficients"]}.
    protocols : further protocols, beside the built-in ones, for every member.
    decryption_quota : as in a federation file.
    """
    for party in tables:
        if party in (COORDINATOR, ANALYST, "hub"):
            raise DataError(f"a party cannot be called {party!r}; that is a member of its own.")
    own = {protocol.name: protocol for protocol in protocols}

    def find(name: str) -> Protocol:
        return own[name] if name in own else lookup(name)

    kinds = dict.fromkeys(tables, "party") | {COORDINATOR: "coordinator", ANALYST: "analyst"}
    network = Network(kinds)
    threads = executor.cores()
    coordinator = network.endpoint(COORDINATOR)
    service = CoordinatorService(
        coordinator,
        MemberStore(),
        RunStore(),
        QuotaLedger(multiple=decryption_quota),
        lookup=find,
        threads=threads,
    )
    endpoints, stores = [coordinator], {party: MemberStore() for party in tables}
    for party, frames in tables.items():
        endpoint = network.endpoint(party)
        endpoints.append(endpoint)
        store = TableStore.of_frames(party, frames)
        PartyService(
            endpoint,
            store,
            _Lenient((release or {}).get(party, ())),
            stores[party],
            coordinator=COORDINATOR,
            lookup=find,
            threads=threads,
            guarded=False,
        )

    def close() -> None:
        service.close()
        for endpoint in endpoints:
            endpoint.close()

    return Simulation(network.endpoint(ANALYST), COORDINATOR, stores, on_close=close)

