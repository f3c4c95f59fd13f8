"""What owners permit an online service of another party's, and what nobody else can begin."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from test_protocol_rules import World

from fednb.config import OnlineConfig, PermitConfig
from fednb.errors import DataError, LinkError, Refused
from fednb.federation import messages as m
from fednb.federation.online_session import Service
from fednb.federation.online_words import OnlineAsk, OnlineScored, OwnModel
from fednb.models import (
    OwnLogisticRegression,
    Scorecard,
    SecureBoostClassifier,
    VerticalLogisticRegression,
    WoeBinning,
    saved,
)
from fednb.protocols import lookup

PERMIT = OnlineConfig("", models=("*",), requests_a_day=5)
Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def make(online: OnlineConfig | None = PERMIT, **options: Any) -> World:
        made.append(World(tmp_path, online=online, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def model(made: World, **options: Any) -> Path:
    path = made.folder / f"{secrets.token_hex(4)}.json"
    fitted = VerticalLogisticRegression(**{"max_iter": 1, **options}).fit(made.align(), y="bank.default")
    fitted.save(path, made.analyst)
    return path


def coded(made: World) -> tuple[WoeBinning, VerticalLogisticRegression]:
    frame = made.align()
    binning = WoeBinning(bins=3).fit(frame, y="bank.default")
    woe = VerticalLogisticRegression(max_iter=1, standardize=False, clip=None)
    return binning, woe.fit(binning.transform(frame), y="bank.default")


def score(made: World, service: Service, id: str = "S0001", **features: Any) -> OnlineScored:
    return made.desks["bank"].score(OnlineAsk(service=service.id, id=id, features=features or None, seconds=10))


def until(service: Service, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, service.state()
        threading.Event().wait(0.01)


@pytest.mark.parametrize("permits", [None, {"analyst": PermitConfig(("*",), ("*",), ("*",))}])
def test_without_the_owners_word_nobody_is_scored_even_where_analysts_may_do_everything(
    world: Make, permits: Any
) -> None:
    made = world(None, permits=permits)
    service = made.serve(model(made))
    assert (service.state().cause, service.state().open) == ("refused", False)
    assert "its owner would say so in [party.agency.online.bank]" in service.state().why
    found = score(made, service)
    assert found.federated is None and found.cause == "refused"
    assert [e["rule"] for e in made.log("agency") if e.get("decision") == "declined"] == ["online"]


def test_a_permit_is_for_models_and_for_so_many_reasons(world: Make) -> None:
    made = world(msgspec.structs.replace(PERMIT, models=("another",)))
    path = model(made)
    assert "agency does not score with the model" in made.serve(path).state().why
    made.online["agency"]["bank"] = msgspec.structs.replace(PERMIT, table="invoices")
    card = Scorecard().fit(*coded(made), made.analyst).save(made.folder / "card.json", made.analyst)
    assert card.base_points_ and made.serve(made.folder / "card.json").state().open
    assert "agency names 0 reasons" in made.serve(made.folder / "card.json", reasons=1).state().why


def test_each_answer_counts_and_the_day_is_over_for_other_services_and_after_a_new_start_too(world: Make) -> None:
    made = world()
    service = made.serve(model(made))
    for k in range(5):
        assert score(made, service, f"S00{k}0").federated is not None
    last = score(made, service)
    assert last.federated is None and last.cause in ("refused", "missing")
    until(service, lambda: service.state().cause == "refused")
    assert "agency answers 5 requests a day of bank's service, and these are used up" in service.state().why
    made.desks["agency"].close()
    next(each for each in made.endpoints if each.me == "agency").close()
    made.start("agency")
    service.wake()
    again = made.serve(model(made))
    assert (again.state().cause, again.state().open) == ("refused", False)


def test_rows_that_are_asked_about_count_as_scored_by_the_model(world: Make) -> None:
    """agency has two features: one model may score its rows."""
    made = world()
    assert made.serve(model(made)).state().open
    other = made.serve(model(made, C=0.01, max_iter=2))
    assert other.state().cause == "refused" and "1 models score" in other.state().why


def test_no_analyst_and_no_other_party_begins_what_is_for_a_service(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world()
    kept = saved.read(model(made), saved.Saved)
    request = m.StartRun(
        protocol="online_score",
        cast={"active": ["bank"], "passive": ["agency"]},
        data={party: m.DataRef(part=kept.run) for party in ("bank", "agency")},
        params={"session": "0" * 32, "seals": kept.seals},
    )
    with pytest.raises(Refused, match="begun by its active party's own service"):
        made.analyst.run(request.protocol, cast=request.cast, data=request.data, params=request.params)
    talk = made.network.endpoints["agency"].open("coordinator", "runs/x")
    talk.send(request)
    with pytest.raises(LinkError, match="agency is not an analyst"):
        talk.recv(m.RunStarted, timeout=10)
    # a coordinator that lies about who asked: bank has no service that began it, and nobody plays for others
    lying = dataclasses.replace(lookup("online_score"), begun_by="")
    monkeypatch.setattr(made.service, "_lookup", lambda name: lying)
    for by, words in (("analyst", "only when its active party begins it"), ("bank", "no online service that began")):
        run = made.service.start(request, by=by)
        (ended,) = [item for item in made.analyst.watch(run) if isinstance(item, m.RunEnded)]
        assert ended.status == "failed" and words in ended.error, ended.error


def test_a_party_sees_no_run_but_its_own(world: Make) -> None:
    made = world()
    service = made.serve(model(made))
    run = service.state().run
    for k, request in enumerate((m.WatchRun(run=run), m.CancelRun(run=run), m.ListRuns(), m.ListTables())):
        talk = made.network.endpoints["agency"].open("coordinator", f"runs/{k}")
        talk.send(request)
        with pytest.raises(LinkError, match="agency is not an analyst"):
            talk.recv(m.RunEvent, m.RunEnded, m.Ok, m.Runs, m.Tables, timeout=10)
    assert service.state().open


def test_a_model_of_prepared_rows_meets_no_raw_applicant(world: Make) -> None:
    """A weight of evidence and the value that it was made of have the same name."""
    made = world()
    binning, woe = coded(made)
    woe.save(made.folder / "coded.json", made.analyst)
    with pytest.raises(DataError, match="bank's part of the model was trained on a table that was prepared"):
        made.serve(made.folder / "coded.json")
    weights = binning.transform(made.align())
    own = OwnLogisticRegression().fit(weights, y="bank.default").save(made.folder / "own.json", made.analyst)
    kept = saved.read(made.folder / "own.json", saved.SavedOwn)
    assert own.coef_.tolist() == kept.coef
    spare = OwnModel(kept.run, kept.seals["bank"], kept.features["bank"])
    with pytest.raises(DataError, match="bank's part of the model was trained on a table that was prepared"):
        made.serve(model(made), fallback=spare)


def test_a_session_takes_rows_anew_without_a_gap(world: Make) -> None:
    made = world()
    path = model(made)
    service = made.serve(path, refresh=0.3)
    first = service.state().run
    before = score(made, service)
    changed = pd.read_csv(made.folder / "agency" / "invoices.csv")
    changed.loc[1, ["c", "d"]] = [3.0, -3.0]
    changed.to_csv(made.folder / "agency" / "invoices.csv", index=False)
    until(service, lambda: service.state().run not in ("", first))
    until(service, lambda: service.state().since > 0 and service.state().open)
    after = score(made, service)
    assert before.federated and after.federated and before.federated.value != after.federated.value
    assert after.run != before.run


def test_a_party_that_leaves_is_missed_before_anybody_asks(world: Make) -> None:
    made = world()
    service = made.serve(model(made))
    assert service.state().open
    next(each for each in made.endpoints if each.me == "agency").close()
    until(service, lambda: not service.state().open)
    assert service.state().cause == "missing" and "agency" in service.state().why


def test_without_the_coordinator_nothing_passes_for_federated(world: Make) -> None:
    made = world()
    service = made.serve(model(made))
    made.service.close()
    made.coordinator.close()
    until(service, lambda: not service.state().open)
    found = score(made, service)
    assert (found.federated, found.cause) == (None, "missing")


def test_categories_are_text_and_one_that_training_never_saw_is_named(world: Make) -> None:
    made = world()
    for party, table, label, column in (("bank", "loans", "default", "sector"), ("agency", "invoices", None, "region")):
        rows = pd.read_csv(made.folder / party / f"{table}.csv")
        rows[column] = np.where(rows.iloc[:, 1] > 0, "north", "south")
        made.write(party, table, label, rows.to_dict("list"))
        next(each for each in made.endpoints if each.me == party).close()
        made.start(party)
    frame = made.align()
    trees = SecureBoostClassifier(n_estimators=3, max_depth=3).fit(frame, y="bank.default")
    trees.save(made.folder / "trees.json", made.analyst)
    trees.predict_proba(frame).save("batch")
    batch = made.tables["bank"].read("batch").set_index("id")["score"]
    kept = saved.read(made.folder / "trees.json", saved.Saved)
    service = made.serve(made.folder / "trees.json")
    row = made.tables["bank"].read("loans").set_index("id").loc["S0007", kept.features["bank"]].to_dict()
    found = score(made, service, "S0007", **row).federated
    assert found and found.value == pytest.approx(batch["S0007"], abs=1e-9) and found.unseen == []
    by_table = score(made, service, "S0007").federated
    assert by_table and by_table.value == found.value
    strange = score(made, service, "S0007", **{**row, "sector": "west"}).federated
    assert strange and strange.unseen == ["sector"] and strange.no_evidence == {"bank": 1}


def test_a_table_that_lost_a_column_since_training_is_named_and_nobody_scored(world: Make) -> None:
    made = world()
    path, table = model(made), made.folder / "agency" / "invoices.csv"
    assert score(made, made.serve(path)).federated is not None
    pd.read_csv(table).drop(columns="d").to_csv(table, index=False)
    again = made.serve(path)
    assert again.state().cause == "data" and "table 'invoices' of agency has no column 'd'" in again.state().why
    found = score(made, again)
    assert (found.federated, found.cause) == (None, "data")


def test_what_cannot_be_asked_is_told(world: Make) -> None:
    made = world()
    service = made.serve(model(made))
    assert score(made, service, "nobody").unknown
    with pytest.raises(DataError, match="id is empty"):
        score(made, service, " - ")
    with pytest.raises(DataError, match="no online service"):
        made.desks["bank"].score(OnlineAsk(service="0", id="S0001"))
    assert "lacks bank's 'b'" in score(made, service, a=1.0).why
    assert "takes numbers for bank's 'a', and text came" in score(made, service, a="x", b=1.0).why
    assert "missing values in 'b'" in score(made, service, a=1.0, b=None).why
