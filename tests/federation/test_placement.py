"""A coordinator inside a party's organisation: never without the others' agreement, and never unsaid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from fednb.errors import Refused
from fednb.federation.client import Federation
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.party import PartyService
from fednb.federation.placement import exposure
from fednb.federation.process import Ready, describe
from fednb.federation.runs import RunStore
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.models import VerticalLogisticRegression
from fednb.policy.mode import MemberPolicy
from fednb.policy.quota import QuotaLedger
from fednb.protocols import BUILT_IN, lookup
from fednb.wire.loopback import Network

ROWS = 60


def federation(organisation: str, **accepted: list[str]) -> Iterator[Federation]:
    network = Network({"bank": "party", "agency": "party", "coordinator": "coordinator", "analyst": "analyst"})
    rng = np.random.default_rng(0)
    ids = [f"S{k}" for k in range(ROWS)]
    bank = pd.DataFrame({"id": ids, "a": rng.normal(size=ROWS), "default": rng.integers(0, 2, ROWS)})
    agency = pd.DataFrame({"id": ids, "b": rng.normal(size=ROWS)})
    for name, table in (("bank", bank), ("agency", agency)):
        PartyService(
            network.endpoint(name),
            TableStore.of_frames(name, {"own": table}),
            MemberPolicy(name, accept_coordinator_at=accepted.get(name, [])),
            MemberStore(),
            coordinator="coordinator",
            lookup=lookup,
        )
    service = CoordinatorService(
        network.endpoint("coordinator"),
        MemberStore(),
        RunStore(),
        QuotaLedger(multiple=5),
        lookup=lookup,
        organisation=organisation,
    )
    with Federation(network.endpoint("analyst"), "coordinator", on_close=service.close) as federation:
        yield federation


@pytest.fixture
def apart() -> Iterator[Federation]:
    yield from federation("")


@pytest.fixture
def at_the_bank() -> Iterator[Federation]:
    yield from federation("bank", agency=["bank"])


@pytest.fixture
def not_accepted() -> Iterator[Federation]:
    yield from federation("bank", bank=["agency"], agency=["other"])


def test_a_party_whose_policy_does_not_accept_the_place_takes_part_in_nothing(not_accepted: Federation) -> None:
    with pytest.raises(Refused, match=r"agency takes part in no run of a coordinator inside bank's") as caught:
        not_accepted.align({"bank": "own", "agency": "own"}, on="id")
    assert caught.value.member == "agency"


def test_every_result_says_who_could_read_what(at_the_bank: Federation) -> None:
    frame = at_the_bank.align({"bank": "own", "agency": "own"}, on="id")
    assert frame.alignment is not None
    assert "bank could read whether ids that it guesses are among the others'" in frame.alignment.plain()

    model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    (note,) = [note for note in model.notes_ if "coordinator" in note]
    assert "runs in bank's organisation, which agency accepted" in note
    assert "the score of each row" in note
    assert note in model.view().plain()

    found = at_the_bank.doctor().set_index("member")["inside"]
    assert found["coordinator"] == "bank" and not found["agency"]


def test_nothing_is_said_of_a_coordinator_apart_from_all(apart: Federation) -> None:
    frame = apart.align({"bank": "own", "agency": "own"}, on="id")
    assert frame.alignment is not None and frame.alignment.notes == []
    assert "inside" not in apart.doctor()


def test_a_passive_party_with_the_key_is_said_to_read_labels() -> None:
    cast = {"active": ["bank"], "passive": ["agency"], "coordinator": ["coordinator"]}
    (said,) = exposure("agency", lookup("vertical_logistic"), cast)
    assert "which bank accepted" in said and "agency could read the label of each row" in said
    assert exposure("register", lookup("vertical_logistic"), cast) == [], "it takes no part and receives nothing"
    assert exposure("bank", lookup("vertical_score"), {"active": ["bank"], "passive": ["agency"]}) == []


@pytest.mark.parametrize("name", [name for name, protocol in BUILT_IN.items() if "coordinator" in protocol.roles])
def test_every_protocol_with_a_coordinator_declares_what_its_place_exposes(name: str) -> None:
    protocol = lookup(name)
    assert set(protocol.learns_with_key) == set(protocol.roles) - {"coordinator"}


def test_the_ready_line_says_where_the_coordinator_is() -> None:
    ready = Ready("coordinator", "coordinator", mode="protocol-only", organisation="bank")
    assert describe(ready) == "coordinator: ready (coordinator, inside bank's organisation, protocol-only)"
