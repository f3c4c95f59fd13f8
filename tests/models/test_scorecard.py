"""A scorecard as its user sees it: over a simulation, in two-party and three-party form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError, Refused
from fednb.federation.card import PartyCard
from fednb.federation.desk import Desk
from fednb.federation.frame import VerticalFrame
from fednb.federation.party import PartyService
from fednb.federation.simulate import Simulation
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.models import Scorecard, VerticalLogisticRegression, WoeBinning
from fednb.policy.mode import MemberPolicy

ROWS = 300
ON = {"bank": "sme_id", "agency": "sme_id", "utility": "customer"}


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(ROWS, 4))
    label = (X @ [1.0, 0.9, -0.8, 0.7] + rng.logistic(size=ROWS) > 0.8).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    delay = X[:, 2].copy()
    delay[::5] = np.nan
    delay[1] = -7.0  # a code
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "default": label})
    agency = pd.DataFrame({"sme_id": ids, "turnover": X[:, 1], "delay": delay})
    utility = pd.DataFrame({"customer": ids, "usage": X[:, 3]})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


class World:
    """A federation with a fitted binning and model, and what its members hold."""

    def __init__(self, federation: Simulation, parts: dict[str, MemberStore], names: dict[str, str]) -> None:
        self.federation, self.parts = federation, parts
        self.frame: VerticalFrame = federation.align(names, on={party: ON[party] for party in names})
        self.binning = WoeBinning(bins=6, special_values=(-7.0,)).fit(self.frame, y="bank.default")
        self.coded = self.binning.transform(self.frame)
        self.model = VerticalLogisticRegression(max_iter=6, standardize=False, clip=None)
        self.model.fit(self.coded, y="bank.default")
        self.card = Scorecard(600, 20, 40).fit(self.binning, self.model, federation)

    def kept(self, party: str, run: str) -> Any:
        return self.parts[party].load(run)

    def own(self, party: str, run: str) -> PartyCard:
        return self.federation.scorecard(party, run)


@pytest.fixture(scope="module", params=[2, 3])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    names = {"bank": "loans", "agency": "invoices", "utility": "meters"}
    chosen = dict(list(names.items())[: request.param])
    parts: dict[str, MemberStore] = {}
    before = PartyService.__init__

    def noted(self: PartyService, endpoint: Any, tables: Any, policy: Any, store: MemberStore, **more: Any) -> None:
        parts[endpoint.me] = store
        before(self, endpoint, tables, policy, store, **more)

    PartyService.__init__ = noted  # type: ignore[method-assign]
    try:
        opened = fednb.simulate(tables(), release={"utility": ["coefficients"]}, decryption_quota=5)
    finally:
        PartyService.__init__ = before  # type: ignore[method-assign]
    with opened as federation:
        yield World(federation, parts, chosen)


def test_the_total_is_the_models_score_to_rounding(world: World) -> None:
    run = world.card.score(world.frame).run
    points = world.kept("bank", run)["points"]
    linear = world.kept("bank", world.model.predict_proba(world.coded).run)["linear"]
    exact = 600 + 40 / np.log(2) * (-linear - np.log(20))
    features = world.coded.shape[1]
    assert np.abs(points - exact).max() <= 0.5 * (features + 1) + 1e-6
    assert np.abs(points - exact).max() > 0, "points are whole numbers, the score is not"
    assert (points == np.round(points)).all() and np.ptp(points) > 100


def test_finer_points_come_closer(world: World) -> None:
    fine = Scorecard(600, 20, 40, digits=4).fit(world.binning, world.model, world.federation)
    points = world.kept("bank", fine.score(world.frame).run)["points"]
    linear = world.kept("bank", world.model.predict_proba(world.coded).run)["linear"]
    assert np.abs(points - (600 + 40 / np.log(2) * (-linear - np.log(20)))).max() < 1e-3
    assert fine.evaluate(world.frame).auc == pytest.approx(world.model.evaluate(world.coded).auc, abs=1e-6)


def test_a_passive_partys_points_are_its_own_unless_it_releases_them(world: World) -> None:
    card = world.card
    assert card.points_["agency"] is None and card.points_["bank"] is not None
    if "utility" in card.runs_:
        assert card.points_["utility"] is not None
    table = card.table()
    assert table.loc[0, "holds"] == "base" and table.loc[0, "points"] == card.base_points_
    assert table.loc[table["party"] == "agency", "points"].isna().all()
    own = table[(table["party"] == "bank") & (table["holds"] != "base")]
    average = (own["points"] * own["rows"]).sum() / own["rows"].sum()
    assert own["points"].notna().all() and abs(average) < 0.5, "points are 0 on average"
    assert (own["points"].diff().dropna() * own["woe"].diff().dropna() > 0).all(), "more weight, more points"
    hidden = json.loads(card.to_json())["bins"]
    assert all(line["points"] is None for line in hidden if line["party"] == "agency")


def test_the_python_functions_of_all_parties_add_up_to_the_score(world: World) -> None:
    total = np.zeros(ROWS)
    for party, held in tables().items():
        if party not in world.card.runs_:
            continue
        names: dict[str, Any] = {}
        exec(world.own(party, world.card.runs_[party]).to_python(), names)
        (table,) = held.values()
        total += [names["points"](row) for row in table.to_dict("records")]
    assert total.tolist() == world.kept("bank", world.card.score(world.frame).run)["points"].tolist()


def test_an_owner_sees_its_own_points_with_their_limits(world: World) -> None:
    own = world.own("agency", world.card.runs_["agency"])
    table = own.table()
    assert own.base is None and set(table["feature"]) == {"turnover", "delay"}
    delay = table[table["feature"] == "delay"]
    assert {"values", "missing", "special 1: -7"} == set(delay["holds"])
    values = delay[delay["holds"] == "values"]
    assert values["low"].iloc[0] == -np.inf and values["high"].iloc[-1] == np.inf
    assert values["low"].tolist()[1:] == values["high"].tolist()[:-1]
    said = json.loads(own.to_json())
    assert said["base"] is None and said["bins"][0]["low"] is None and len(said["bins"]) == len(table)


def test_who_simulates_sees_every_partys_part(world: World) -> None:
    run = world.card.runs_["agency"]
    assert "def points(row)" in world.federation.scorecard("agency", run).to_python()
    with pytest.raises(DataError, match="there is no party 'nobody' here; there are agency, bank, utility"):
        world.federation.scorecard("nobody", run)
    with pytest.raises(DataError, match="made no scorecard"):
        world.federation.scorecard("agency", world.model.run_)


def test_a_partys_cell_reads_its_own_card(world: World) -> None:
    class Pipe:
        def listen(self, name: str, serve: Any) -> None:
            self.serve = serve

    from fednb.federation import messages as m

    desk = Desk(TableStore.of_frames("agency", {}), MemberPolicy("agency", "open"), world.parts["agency"], lambda: None)
    answer = desk._answer(m.ReadModel(world.card.runs_["agency"]), "analyst")
    assert isinstance(answer, m.ModelPart)
    guarded = MemberPolicy("agency", "guarded", ["coefficients"])
    closed = Desk(TableStore.of_frames("agency", {}), guarded, world.parts["agency"], lambda: None)
    with pytest.raises(Refused, match="shows nobody where its bins are cut"):
        closed._answer(m.ReadModel(world.card.runs_["agency"]), "analyst")
    assert PartyCard("agency", answer.values).table().equals(world.own("agency", world.card.runs_["agency"]).table())


def test_reasons_are_the_features_that_cost_most_and_stay_at_the_active_party(world: World) -> None:
    world.card.reasons(world.frame, f"reasons{len(world.card.runs_)}", most=2)
    held = world.federation.tables().set_index(["party", "table"])
    assert held.loc[("bank", f"reasons{len(world.card.runs_)}"), "rows"] == ROWS
    assert ("agency", f"reasons{len(world.card.runs_)}") not in held.index
    codes = world.card.reason_codes_.set_index(["party", "feature"])["code"]
    assert codes["agency"].to_dict() == {"turnover": 1, "delay": 2}


def test_an_override_is_logged_changes_the_score_and_leaves_the_model(world: World) -> None:
    card = Scorecard(600, 20, 40).fit(world.binning, world.model, world.federation)
    before = world.kept("bank", card.score(world.frame).run)["points"]
    first = card.points_["bank"][0][0]  # type: ignore[index]
    card.override("bank.income", 0, first - 25, "thin file, see minutes of 3 May", world.federation)
    (entry,) = card.overrides_.to_dict("records")
    assert entry["before"] == first and entry["points"] == first - 25 and "thin file" in entry["reason"]
    after = world.kept("bank", card.score(world.frame).run)["points"]
    bins = world.binning.bin_table("bank.income")
    assert sorted(set(after - before)) == [-25.0, 0.0]
    assert int((after - before == -25).sum()) == bins["rows"].iloc[0]
    with pytest.raises(Refused, match="only the active party's can be overridden"):
        card.override("agency.turnover", 0, 1000, "to see who is in it", world.federation)
    with pytest.raises(DataError, match="no bin 99"):
        card.override("bank.income", 99, 0, "none", world.federation)


def test_a_saved_card_scores_as_before(world: World, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    card = Scorecard(500, 10, 30).fit(world.binning, world.model, world.federation)
    card.override("bank.income", 0, -1, "for the test", world.federation).save(path, world.federation)
    loaded = Scorecard.load(path, world.federation)
    pd.testing.assert_frame_equal(loaded.table(), card.table())
    pd.testing.assert_frame_equal(loaded.overrides_, card.overrides_)
    before, after = (world.kept("bank", each.score(world.frame).run)["points"] for each in (card, loaded))
    assert before.tolist() == after.tolist()
    with pytest.raises(DataError, match="holds a Scorecard, not a VerticalLogisticRegression"):
        VerticalLogisticRegression.load(path, world.federation)


def test_a_model_of_values_makes_no_card(world: World) -> None:
    tables = {"bank": "loans", "agency": "invoices"}
    whole = world.federation.align(tables, on="sme_id")
    binning = WoeBinning(bins=5).fit(whole, y="bank.default")
    model = VerticalLogisticRegression(max_iter=1).fit(
        world.federation.align({"bank": "loans", "utility": "meters"}, on={"bank": "sme_id", "utility": "customer"}),
        y="bank.default",
    )
    with pytest.raises(DataError, match=r"not fitted on weights of this binning: utility\.usage"):
        Scorecard().fit(binning, model, world.federation)
    every = WoeBinning(bins=5).fit(
        world.federation.align({"bank": "loans", "utility": "meters"}, on={"bank": "sme_id", "utility": "customer"}),
        y="bank.default",
    )
    with pytest.raises(DataError, match="was not trained on weights of evidence"):
        Scorecard().fit(every, model, world.federation)


def test_values_without_evidence_are_told(world: World) -> None:
    (only,) = np.flatnonzero(tables()["agency"]["invoices"]["delay"] == -7.0)
    assert only == 1
    world.card.score(world.frame)
    if "special 1" not in world.binning.bin_table("agency.delay")["holds"].tolist():
        assert any("'delay': fewer than 10 rows" in note for note in world.card.notes_)


@pytest.mark.parametrize("params", [{"pdo": 0}, {"base_odds": -1}, {"digits": 9}])
def test_a_scaling_that_cannot_be_is_refused(world: World, params: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="does not take these parameters"):
        Scorecard(**params).fit(world.binning, world.model, world.federation)
