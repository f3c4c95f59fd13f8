"""Owners' rules on runs, held against everything that there is to run, an inventive analyst and a lying coordinator."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from spu_stand_in import StandIn

from fednb.config import OnlineConfig, PermitConfig, RulesConfig, TableConfig
from fednb.errors import DataError, QuotaExceeded, Refused
from fednb.federation import messages as m
from fednb.federation.client import Federation
from fednb.federation.coordinator import CoordinatorService
from fednb.federation.frame import VerticalFrame
from fednb.federation.online_desk import OnlineDesk
from fednb.federation.online_session import Service
from fednb.federation.online_words import OnlineAsk, OnlineServe, OwnModel
from fednb.federation.party import PartyService
from fednb.federation.receipts import Book
from fednb.federation.runs import RunStore
from fednb.federation.store import MemberStore
from fednb.federation.tables import TableStore
from fednb.models import (
    FeatureCorrelation,
    FeatureStatistics,
    OwnLogisticRegression,
    Scorecard,
    SecureBoostClassifier,
    SecureBoostRegressor,
    VerticalImputer,
    VerticalLinearRegression,
    VerticalLogisticRegression,
    VerticalOneVsRest,
    VerticalPipeline,
    VerticalPoissonRegression,
    VerticalRatio,
    VerticalScaler,
    VerticalWinsorizer,
    WoeBinning,
    compare_scores,
    evaluate_by,
    feature_stability,
    parcelling,
    partner_worth,
    saved,
    score_stability,
    select_by_model,
    select_features,
)
from fednb.models.evaluation import evaluate
from fednb.policy import audit
from fednb.policy.audit import AuditLog
from fednb.policy.mode import MemberPolicy
from fednb.policy.protocol_policy import ProtocolPolicy
from fednb.policy.quota import QuotaLedger
from fednb.protocols import BUILT_IN, four_steps, lookup
from fednb.protocols.base import Protocol, Role
from fednb.wire.loopback import Network
from fednb.wire.message import Message

ROWS = 240
ALL = ("*",)
KINDS = {
    "bank": "party",
    "agency": "party",
    "telco": "party",
    "coordinator": "coordinator",
    "analyst": "analyst",
    "intern": "analyst",
}


class World:
    """Three parties with rules, all in one process; every message of a run at hand."""

    def __init__(
        self,
        folder: Path,
        rules: Mapping[str, RulesConfig] | None = None,
        permits: Mapping[str, PermitConfig] | None = None,
        coordinators: Callable[[str], Protocol] = lookup,
        quota: float = 5.0,
        more: int = 0,  # columns of noise at each passive party, and segments at the bank
        online: OnlineConfig | None = None,  # what agency and telco permit the bank's service
    ) -> None:
        self.folder = folder
        self.rules, self.permits = rules or {}, permits
        self.online = {
            party: {"bank": msgspec.structs.replace(online, table=table)} if online else {}
            for party, table in (("bank", ""), ("agency", "invoices"), ("telco", "calls"))
        }
        self.desks: dict[str, OnlineDesk] = {}
        self.seen: list[tuple[str, str, Message]] = []
        self.network = Network(KINDS, tap=lambda s, r, message, size: self.seen.append((s, r, message)))
        self.tables: dict[str, TableStore] = {}
        rng = np.random.default_rng(0)
        X = rng.normal(size=(ROWS, 5))
        y = (X.sum(axis=1) + rng.logistic(size=ROWS) > 0).astype(int)
        ids = [f"S{k:04d}" for k in range(ROWS)]
        segment = {"segment": np.arange(ROWS) % 3} if more else {}
        self.write("bank", "loans", "default", {"id": ids, "a": X[:, 0], "b": X[:, 1], "default": y} | segment)
        noise = {f"z{k}": rng.normal(size=ROWS) for k in range(more)}
        self.write("agency", "invoices", None, {"id": ids, "c": X[:, 2], "d": X[:, 3]} | noise)
        self.write("telco", "calls", None, {"id": ids, "e": X[:, 4]} | noise)
        self.endpoints = [self.start(name) for name in ("bank", "agency", "telco")]
        self.coordinator = self.network.endpoint("coordinator")
        self.quota = QuotaLedger(multiple=quota)
        self.service = CoordinatorService(self.coordinator, MemberStore(), RunStore(), self.quota, lookup=coordinators)
        self.analyst = self.federation("analyst")

    def write(self, party: str, name: str, label: str | None, columns: Mapping[str, Any]) -> None:
        home = self.folder / party
        home.mkdir(exist_ok=True)
        pd.DataFrame(columns).to_csv(home / f"{name}.csv", index=False)
        table = TableConfig(name, home / f"{name}.csv", id=("id",), label=label)
        self.tables[party] = TableStore(party, {name: table}, home / "tables")

    def start(self, party: str) -> Any:
        home, endpoint = self.folder / party, self.network.endpoint(party)
        store = MemberStore(home / "runs")
        self.desks[party] = OnlineDesk(endpoint, self.tables[party], store, "coordinator")
        PartyService(
            endpoint,
            self.tables[party],
            MemberPolicy(party, analysts=self.permits, online=self.online[party]),
            store,
            coordinator="coordinator",
            lookup=lookup,
            book=Book(party, AuditLog(home / "audit", party)),
            rules=ProtocolPolicy(party, self.rules.get(party), self.permits, home / "accounts", self.online[party]),
            asks=self.desks[party].asks,
            engine=StandIn,
        )
        return endpoint

    def federation(self, name: str) -> Federation:
        return Federation(self.network.endpoint(name), "coordinator")

    def align(self, bank: str = "loans", **more: str) -> VerticalFrame:
        return self.analyst.align({"bank": bank, "agency": "invoices", **more}, on="id")

    def log(self, party: str) -> list[dict[str, Any]]:
        found = audit.verify(self.folder / party / "audit", party)
        assert found.problems == []
        return list(audit.entries(self.folder / party / "audit"))

    def serve(self, path: Path, **options: Any) -> Service:
        """The bank's service for a saved model, once its session is open or could not be opened."""
        kept = saved.read(path, saved.Saved)
        model = OwnModel(kept.run, kept.seals["bank"], kept.features["bank"])
        seals = {party: seal for party, seal in kept.seals.items() if party != "bank"}
        _, service = self.desks["bank"].begin(OnlineServe(model=model, seals=seals, table="loans", **options))
        deadline = time.monotonic() + 20
        while service.state().cause == "preparing" and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return service

    def close(self) -> None:
        for desk in self.desks.values():
            desk.close()
        self.service.close()
        for endpoint in list(self.network.endpoints.values()):
            endpoint.close()


Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def make(rules: Mapping[str, RulesConfig] | None = None, **options: Any) -> World:
        made.append(World(tmp_path, rules, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


ANYTHING = OnlineConfig("", models=("*",), requests_a_day=100)


def everything(world: World) -> None:
    """Whatever an analyst can have run."""
    federation = world.analyst
    frame = world.align(telco="calls")
    train, test = frame.split(0.3, 0)
    FeatureStatistics().fit(train).stability(frame)
    FeatureCorrelation().fit(train, y="bank.default")
    feature_stability(frame, "bank.default", since=1)
    model = VerticalLogisticRegression(max_iter=2)
    model.cost(train, y="bank.default")
    model.fit(train, y="bank.default")
    scores = model.predict_proba(test)
    evaluate(scores, y="bank.default")
    evaluate_by(scores, y="bank.default", by="bank.segment")
    parcelling(model.predict_proba(train), scores, "bank.default", "parcelled", bands=2)
    scores.summary()
    scores.save("scored")
    assert model.add_standard_errors(train).standard_errors_, model.no_standard_errors_
    select_by_model(VerticalLogisticRegression(penalty="l1", max_iter=1), train, "bank.default", by="l1")
    model.save(world.folder / "model.json", federation)
    VerticalLogisticRegression.load(world.folder / "model.json", federation)
    steps = [("fill", VerticalImputer()), ("scale", VerticalScaler())]
    VerticalPipeline(steps).fit(train, y="bank.default").transform(test)
    binning = WoeBinning(bins=3).fit(train, y="bank.default")
    binning.recut({"bank.a": [0.0]}, cells={"agency.c": [1]})
    binning.stability(frame)
    coded = binning.transform(train)
    woe = VerticalLogisticRegression(max_iter=1, standardize=False, clip=None).fit(coded, y="bank.default")
    own = OwnLogisticRegression().fit(train, y="bank.default")
    compare_scores(own.predict_proba(train), model.predict_proba(train), y="bank.default")
    score_stability(own.predict_proba(frame), own.predict_proba(train))
    card = Scorecard().fit(binning, woe, federation)
    card.score(train)
    card.reasons(train, "reasons")
    select_features(binning, train, max_correlation=0.9)
    card.override("bank.a", 1, 1.0, "a test", federation)
    VerticalLinearRegression(max_iter=2).fit(train, y="bank.a").evaluate(test)
    VerticalPoissonRegression(max_iter=2).fit(world.align().split(0.3, 0)[0], y="bank.default")
    VerticalPoissonRegression(max_iter=1).fit(train, y="bank.default")  # a product over three
    VerticalOneVsRest(VerticalLogisticRegression(max_iter=1)).fit(train, "bank.default").evaluate(train)
    SecureBoostClassifier(n_estimators=2, max_depth=2).fit(train, y="bank.default").predict_proba(test)
    SecureBoostRegressor(n_estimators=1, max_depth=2).fit(train, y="bank.a").evaluate(test)
    federation.align({"bank": "loans", "agency": "invoices"}, on="id", method="spu")
    large = federation.prepare({"agency": "invoices"}, for_party="bank", on="id")
    federation.align({"bank": "loans", "agency": "invoices"}, on="id", prepared=large)
    service = world.serve(world.folder / "model.json")
    assert world.desks["bank"].score(OnlineAsk(service=service.id, id="s 0001")).federated is not None
    run = service.state().run
    service.close()
    assert [item for item in federation.watch(run) if isinstance(item, m.RunEnded)]


YES = RulesConfig(standard_errors=True, psi_spu=True, decrypted_per_row=1.0)
CONSENT = dict.fromkeys(("bank", "agency", "telco"), YES)


@pytest.mark.slow
def test_under_default_rules_and_with_consent_everything_runs_and_says_just_what_it_declares(world: Make) -> None:
    made = world(CONSENT, more=5, online=ANYTHING)
    everything(made)
    runs = {run["run"]: run for run in made.analyst.runs().to_dict("records")}
    assert set(runs) and all(run["status"] == "ok" for run in runs.values())
    entries = [entry for party in ("bank", "agency", "telco") for entry in made.log(party)]
    assert {entry["rule"].split()[1].rstrip(",") for entry in entries if entry["event"] == "run"} == set(BUILT_IN)
    declared = {kind for protocol in BUILT_IN.values() for kinds in protocol.sends.values() for kind in kinds}
    said = {type(message) for _, _, message in made.seen if type(message).__module__.startswith("fednb.protocols")}
    assert said == declared, "nothing is sent undeclared, nothing declared that is never sent"


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_protocol_declares_who_sends_what_and_no_ciphertext_goes_to_the_holder_of_the_key(name: str) -> None:
    protocol = BUILT_IN[name]
    for (sender, receiver), kinds in protocol.sends.items():
        assert {sender, receiver} <= set(protocol.roles)
        for kind in kinds:
            assert kind.discloses is not None, kind
            assert not (kind.discloses.form == "encrypted" and receiver == "coordinator"), kind
            assert not (kind.discloses.decrypts and receiver != "coordinator"), kind
            assert not kind.discloses.sizes or kind.discloses.sizes in kind.__struct_fields__
    assert set(protocol.limits) <= {"iterations", "batch", "leaf", "shown", "alone", "purity", "anonymous"}
    assert set(protocol.limits.values()) <= set(protocol.params.__struct_fields__)


# ------------------------------------------------------------ each rule, told on both sides


def fit(made: World, **options: Any) -> None:
    VerticalLogisticRegression(**{"max_iter": 1, **options}).fit(made.align(), y="bank.default")


def boost(made: World, **options: Any) -> None:
    SecureBoostClassifier(n_estimators=1, max_depth=1, **options).fit(made.align(), y="bank.default")


def align_on_figures(made: World) -> None:
    made.analyst.align({"bank": "loans", "agency": "invoices"}, on={"bank": "a", "agency": "id"})


Act = Callable[[World], object]
SPU = {"bank": "loans", "agency": "invoices"}
REFUSALS: dict[str, tuple[RulesConfig, Act]] = {
    "allow": (RulesConfig(allow=("psi",)), fit),
    "partners": (RulesConfig(partners=("telco",)), World.align),
    "other_ids": (RulesConfig(), align_on_figures),
    "min_ids": (RulesConfig(min_ids=ROWS + 1), World.align),
    "max_ids": (RulesConfig(max_ids=ROWS - 1), World.align),
    "min_rows": (RulesConfig(min_rows=ROWS + 1), fit),
    "rows_per_feature": (RulesConfig(rows_per_feature=ROWS), fit),
    "max_iterations": (RulesConfig(max_iterations=5), lambda made: fit(made, max_iter=6)),
    "min_leaf": (RulesConfig(min_leaf=11), boost),
    "min_shown": (RulesConfig(min_shown=50), boost),
    "active_trees": (RulesConfig(active_trees=1), boost),
    "max_purity": (RulesConfig(max_purity=0.9), lambda made: boost(made, purity=0.95)),
    "anonymous_splits": (RulesConfig(anonymous_splits=True), boost),
    "psi_spu": (RulesConfig(), lambda made: made.analyst.align(SPU, on="id", method="spu")),
    "decrypted_per_row": (RulesConfig(decrypted_per_row=0.001), fit),
    "alignments_a_day": (RulesConfig(alignments_a_day=1), lambda made: [made.align() for _ in range(2)]),
    "runs_a_day": (RulesConfig(runs_a_day=2), lambda made: [made.align() for _ in range(3)]),
    "runs_a_day of one": (
        RulesConfig(of={"psi": RulesConfig(runs_a_day=2)}),
        lambda made: [made.align() for _ in range(3)],
    ),
}


@pytest.mark.parametrize("rule", REFUSALS)
def test_a_refusal_names_the_rule_to_the_analyst_and_in_the_partys_log(world: Make, rule: str) -> None:
    rules, act = REFUSALS[rule]
    made = world({"bank": rules})
    with pytest.raises(Refused) as caught:
        act(made)
    named = f"protocols.{rule.partition(' ')[0]}"
    assert (caught.value.member, caught.value.rule) == ("bank", named)
    assert str(caught.value).startswith("bank ") and str(caught.value).endswith(f"[rule: {named}]")
    entries = [entry for entry in made.log("bank") if named in (entry.get("rule"), entry.get("refused"))]
    assert len(entries) == 1 and (entries[0].get("decision") == "declined" or entries[0]["status"] == "failed")


def test_standard_errors_need_the_consent_of_every_owner(world: Make) -> None:
    made = world({party: rule for party, rule in CONSENT.items() if party != "agency"})
    frame = made.align()
    model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    assert model.add_standard_errors(frame).standard_errors_ is None
    assert "agency takes part in no standard_errors: its owner has not said yes" in model.no_standard_errors_
    assert model.no_standard_errors_.endswith("[rule: protocols.standard_errors]")
    assert not [message for _, _, message in made.seen if type(message).__name__ == "Features"]


def test_standard_errors_count_as_scores_and_as_decrypted_numbers(world: Make) -> None:
    made = world(
        CONSENT | {"agency": RulesConfig(standard_errors=True)},
        permits={"analyst": PermitConfig(ALL, ALL, ALL, decrypted=9)},
    )
    frame = made.align()
    model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")  # 2 + 2 features, 3 and 2 numbers
    with pytest.raises(QuotaExceeded, match="agency has 9 numbers decrypted in runs of analyst") as caught:
        model.add_standard_errors(frame)  # 3 times 2 at the bank, 2 times 2 + 3 at the agency
    assert caught.value.rule == "analysts.decrypted"


def test_columns_that_cells_wrote_have_no_standard_errors(world: Make) -> None:
    """An analyst's column that marks one row would have an error that tells how far that row is from the others."""
    made = world(CONSENT)
    loans = made.tables["bank"].read("loans")
    made.tables["bank"].save(
        "probe", loans.assign(a=np.where(np.arange(ROWS) == 7, 9.0, loans["a"])), ["id"], "default"
    )
    frame = made.align("probe")
    model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    with pytest.raises(Refused, match="no figures of single columns of a table that cells made") as caught:
        model.add_standard_errors(frame)
    assert (caught.value.member, caught.value.rule) == ("bank", "protocols.cell_columns")


def test_a_run_that_asks_for_all_defences_takes_place(world: Make) -> None:
    rules = RulesConfig(min_leaf=12, min_shown=50, active_trees=1, max_purity=0.95, anonymous_splits=True)
    made = world({"bank": rules, "agency": rules})
    chosen = {"min_leaf": 12, "min_shown": 50, "active_trees": 1, "purity": 0.95, "anonymous_splits": True}
    boosted = SecureBoostClassifier(n_estimators=2, max_depth=2, **chosen).fit(made.align(), y="bank.default")
    assert boosted.n_rounds_ == 2


def test_the_sets_of_others_have_a_size_too(world: Make) -> None:
    made = world({"agency": RulesConfig(min_ids=100)})
    loans = made.tables["bank"].read("loans")
    made.tables["bank"].save("probe", loans.head(50), ["id"], "default")
    with pytest.raises(Refused, match="no alignment in which one side brings fewer than 100") as caught:
        made.align("probe")
    assert (caught.value.member, caught.value.rule) == ("agency", "protocols.min_ids")
    assert [e["refused"] for e in made.log("agency") if e["event"] == "run ended"] == ["protocols.min_ids"]


def test_rules_of_one_protocol_hold_for_that_one(world: Make) -> None:
    made = world({"bank": RulesConfig(of={"vertical_logistic": RulesConfig(partners=("telco",))})})
    made.align()
    with pytest.raises(Refused, match="runs vertical_logistic with no agency; allowed are telco"):
        fit(made)


# ------------------------------------------------------------ what a coordinator says changes nothing


def lying(change: Callable[[Any], Any]) -> Callable[[str], Protocol]:
    """Protocols as a dishonest coordinator has them."""
    honest = lookup("vertical_logistic")

    def coordinator(link: Any, *rest: Any) -> Any:
        return honest.roles["coordinator"].play(change(link), *rest)

    roles = {**honest.roles, "coordinator": Role(coordinator)}
    liar = dataclasses.replace(honest, roles=roles)
    return lambda name: liar if name == "vertical_logistic" else lookup(name)


class Endless:
    """A coordinator's link that says "go on" instead of "stop", and keeps playing along."""

    def __init__(self, link: Any) -> None:
        self.me, self.cast, self._link = link.me, link.cast, link

    def send(self, to: str, message: Message) -> None:
        if isinstance(message, four_steps.Next) and message.stage == "stop":
            message = four_steps.Next(stage="coarse", norm=message.norm)
        self._link.send(to, message)

    def recv(self, sender: str, kind: Any) -> Any:
        return self._link.recv(sender, kind)


@pytest.mark.parametrize("who", ["coordinator", "agency"])
@pytest.mark.parametrize("protocol", ["vertical_logistic", "vertical_binning", "calibrate"])
def test_nobody_takes_part_with_keys_that_can_be_broken(
    world: Make, monkeypatch: pytest.MonkeyPatch, protocol: str, who: str
) -> None:
    made = world()
    if who == "agency":  # the coordinator is in league with whoever asks
        monkeypatch.setattr("fednb.federation.coordinator.check_params", lambda *_: None)
    cast = {"active": ["bank"], "passive": ["agency"], "coordinator": ["coordinator"]}
    if protocol == "calibrate":
        cast = {"party": ["bank", "agency"], "coordinator": ["coordinator"]}
    with pytest.raises(Refused, match=f"{'(bank|agency)' if who == 'agency' else who} takes part in no run with keys"):
        made.analyst.run(
            protocol,
            cast=cast,
            data={} if protocol == "calibrate" else made.align().refs(label=("bank", "default")),
            params={"key_bits": 512, "insecure_short_key": True}
            | ({"rows": 100, "features": 2, "passives": 1} if protocol == "calibrate" else {}),
        )
    assert not [message for _, _, message in made.seen if type(message).__name__ == "Key"], "no such key was made"


def test_a_coordinator_that_never_says_stop_gets_no_iteration_more(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world(coordinators=lying(Endless))
    frame = made.align()
    waits = made.analyst.start(
        "vertical_logistic",
        cast={"active": ["bank"], "passive": ["agency"], "coordinator": ["coordinator"]},
        data=frame.refs(label=("bank", "default")),
        params={"max_iter": 2},
    )
    ended = [item for item in made.analyst.watch(waits) if isinstance(item, m.RunEnded)][0]
    assert (ended.status, ended.error_type, ended.rule) == ("failed", "Refused", "protocols.max_iterations")
    assert "in the 2 iterations of this run" in ended.error
    sent = [type(message).__name__ for s, r, message in made.seen if (s, r) == ("agency", "bank")]
    assert sent.count("Scores") == 2, "the third was never sent"
    refused = [e["refused"] for party in ("bank", "agency") for e in made.log(party) if e.get("refused")]
    assert "protocols.max_iterations" in refused


def test_an_analyst_that_names_another_table_for_the_label_gets_its_owners_account(world: Make) -> None:
    """The coordinator counts by what the label's owner says, not by what it was asked for."""
    made = world(quota=0.04)  # 9 numbers a party, a fit of one iteration takes 3 of them at the bank
    loans = made.tables["bank"].read("loans").rename(columns={"default": "late"})
    for k, name in enumerate(("again", "more")):
        made.tables["bank"].save(name, loans.sample(frac=1, random_state=k), ["id"], "late")
    for table, label in (("loans", "default"), ("again", "late"), ("more", "late")):
        VerticalLogisticRegression(max_iter=1).fit(made.align(table), y=f"bank.{label}")
    assert made.quota.spent("bank.loans.default") == {"bank": 9, "agency": 6}
    with pytest.raises(QuotaExceeded, match="decrypted 9 slots of bank.loans.default for bank"):
        VerticalLogisticRegression(max_iter=1).fit(made.align("more"), y="bank.late")


def test_what_is_decrypted_of_a_label_is_counted_at_its_owner_too(world: Make) -> None:
    made = world({"bank": RulesConfig(decrypted_per_row=0.03)}, quota=10)  # 7 numbers
    frame = made.align()
    for _ in range(2):
        VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    with pytest.raises(QuotaExceeded, match="lets 7 numbers made of loans.default be decrypted for bank") as caught:
        VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    assert caught.value.rule == "protocols.decrypted_per_row"


# ------------------------------------------------------------ an analyst who subtracts


def test_figures_of_rows_that_differ_by_one_are_refused_at_every_protocol(world: Make) -> None:
    made = world()
    frame = made.align()
    model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
    one_less = frame._take(np.arange(1, ROWS), "all but one")
    scores = model.predict_proba(one_less)
    attempts: list[Callable[[], object]] = [
        lambda: evaluate(scores, y="bank.default"),
        scores.summary,
        lambda: VerticalLogisticRegression(max_iter=1).fit(one_less, y="bank.default"),
        lambda: WoeBinning(bins=4).fit(one_less, y="bank.default"),
    ]
    for attempt in attempts:
        with pytest.raises(Refused, match="would tell of fewer than 10 rows") as caught:
            attempt()
        assert caught.value.rule == "protocols.rows_apart" and caught.value.member in ("bank", "agency")
    evaluate(model.predict_proba(frame), y="bank.default")


def test_edges_a_row_apart_are_refused_whoever_holds_the_column(world: Make) -> None:
    made = world()
    frame = made.align()
    a = np.sort(made.tables["bank"].read("loans")["a"].to_numpy())
    edges, next_row, further = a[100], a[101], a[120]
    binning = WoeBinning(bins=4).fit(frame, y="bank.default")
    binning.recut({"bank.a": [edges]})
    for attempt in (
        lambda: binning.recut({"bank.a": [next_row]}),
        lambda: WoeBinning(cuts={"bank.a": [next_row]}).fit(frame, y="bank.default"),
    ):
        with pytest.raises(Refused, match="bank does not cut 'a' there: between these edges and those") as caught:
            attempt()
        assert caught.value.rule == "protocols.rows_apart"
    binning.recut({"bank.a": [edges]}).recut({"bank.a": [further]})
    WoeBinning(cuts={"agency.c": [0.0], "bank.b": [next_row]}).fit(frame, y="bank.default")
    with pytest.raises(Refused, match="agency does not cut 'c' there"):
        WoeBinning(cuts={"agency.c": [0.01]}).fit(frame, y="bank.default")


def test_another_alignment_another_table_and_another_spelling_are_the_same_rows(world: Make) -> None:
    made = world()
    model = VerticalLogisticRegression(max_iter=1).fit(made.align(), y="bank.default")
    loans = made.tables["bank"].read("loans").iloc[:-1]
    loans["id"] = loans["id"].str.lower()
    made.tables["bank"].save("variant", loans, ["id"], "default")
    variant = made.analyst.align({"bank": "variant", "telco": "calls"}, on="id")
    with pytest.raises(Refused, match="of other rows of loans") as caught:
        VerticalLogisticRegression(max_iter=1).fit(variant, y="bank.default")
    assert caught.value.rule == "protocols.rows_apart"
    assert model.coef_


def test_a_table_of_a_cells_is_aligned_by_the_id_of_the_one_that_it_comes_from(world: Make) -> None:
    made = world()
    loans = made.tables["bank"].read("loans").assign(key=lambda t: t["id"].str[:4])
    made.tables["bank"].save("keyed", loans, ["id"], "default")
    with pytest.raises(Refused, match="aligns loans by its declared id only"):
        made.analyst.align({"bank": "keyed", "agency": "invoices"}, on={"bank": "key", "agency": "id"})
    assert len(made.align("keyed")) == ROWS


def test_variants_of_a_table_that_differ_by_one_are_not_aligned(world: Make) -> None:
    made = world()
    made.align()
    loans = made.tables["bank"].read("loans")
    made.tables["bank"].save("probe", pd.concat([loans, loans.tail(1).assign(id="S9999")]), ["id"], "default")
    with pytest.raises(Refused, match="bank gives no alignment of these rows") as caught:
        made.align("probe")
    assert (caught.value.member, caught.value.rule) == ("bank", "protocols.rows_apart")
    made.tables["bank"].save("half", loans.head(ROWS // 2), ["id"], "default")
    assert len(made.align("half")) == ROWS // 2


def test_scores_are_evaluated_on_the_rows_that_they_are_of(world: Make) -> None:
    made = world()
    frame = made.align()
    train, test = frame.split(0.5, 0)
    model = VerticalLogisticRegression(max_iter=1).fit(train, y="bank.default")
    scores, others = model.predict_proba(test), model.predict_proba(train)

    def evaluated(rows: VerticalFrame, *runs: str) -> object:
        own = m.DataRef(frame=frame.id, rows=rows.refs()["bank"].rows, columns=[], label="default", parts=list(runs))
        return made.analyst.run("evaluation", cast={"active": ["bank"]}, data={"bank": own})

    for rows, runs in ((train, [scores.run]), (frame, [scores.run, scores.run]), (test, [scores.run, others.run])):
        with pytest.raises(DataError, match="those of other rows"):
            evaluated(rows, *runs)
    both = frame._take(np.concatenate([test.refs()["bank"].rows, train.refs()["bank"].rows]), "both")
    assert evaluated(both, scores.run, others.run) and evaluated(test, scores.run)


@pytest.mark.parametrize("allowed", [False, True])
def test_columns_that_cells_wrote_have_no_figures_of_their_own(world: Make, allowed: bool) -> None:
    made = world({"bank": RulesConfig(cell_columns=allowed)})
    loans = made.tables["bank"].read("loans")
    marked = loans.assign(a=np.where(np.arange(ROWS) == 7, loans["a"], 0.0))  # of one row's value, a column
    made.tables["bank"].save("probe", marked, ["id"], "default")
    frame = made.align("probe")
    if allowed:
        kinds = FeatureStatistics().fit(frame).table_.set_index("feature")["kind"]
        assert kinds["a"] == "constant", "and then the one row does not show"
        return
    with pytest.raises(Refused, match="no figures of single columns of a table that cells made") as caught:
        FeatureStatistics().fit(frame)
    assert (caught.value.member, caught.value.rule) == ("bank", "protocols.cell_columns")
    assert len(FeatureStatistics().fit(made.align()).table_) == 4


def test_statistics_of_sets_that_differ_by_one_row_are_refused(world: Make) -> None:
    made = world()
    frame = made.align()
    FeatureStatistics().fit(frame)
    with pytest.raises(Refused, match="would tell of fewer than 10 rows") as caught:
        FeatureStatistics().fit(frame._take(np.arange(ROWS - 1), "all but one"))
    assert caught.value.rule == "protocols.rows_apart"
    FeatureStatistics().fit(frame._take(np.arange(ROWS - 10), "all but ten"))


def test_points_of_time_between_which_few_rows_lie_are_not_compared(world: Make) -> None:
    made = world()
    frame, values = made.align(), np.sort(made.tables["bank"].read("loans")["a"].to_numpy())
    middle = ROWS // 2
    feature_stability(frame, "bank.a", since=values[middle])
    feature_stability(frame, "bank.a", since=values[middle])
    with pytest.raises(Refused, match="between these edges and those that were used before") as caught:
        feature_stability(frame, "bank.a", since=values[middle + 1])
    assert (caught.value.member, caught.value.rule) == ("bank", "protocols.rows_apart")
    assert len(feature_stability(frame, "bank.a", since=values[middle + 10])) == 3


def test_sums_over_columns_are_counted_until_they_would_be_solvable(world: Make) -> None:
    made = world({"agency": RulesConfig(decrypted_per_row=0.05)})  # 12 sums over each column
    frame = made.align(telco="calls")
    for _ in range(3):  # each tells 4 sums over each of the agency's columns: of a, b, the label and e
        FeatureCorrelation().fit(frame, y="bank.default")
    with pytest.raises(QuotaExceeded, match="agency lets 12 sums over each column of invoices be told") as caught:
        FeatureCorrelation().fit(frame)
    assert caught.value.rule == "protocols.decrypted_per_row"


def test_correlations_with_a_label_count_as_numbers_made_of_it(world: Make) -> None:
    made = world({"bank": RulesConfig(decrypted_per_row=0.005)})  # of 240 rows
    with pytest.raises(QuotaExceeded, match=r"bank lets 1 numbers made of loans\.default be decrypted"):
        FeatureCorrelation().fit(made.align(), y="bank.default")


# ------------------------------------------------------------ what one analyst may use up


def test_each_analyst_has_runs_and_numbers_of_its_own(world: Make) -> None:
    permits = {
        "analyst": PermitConfig(ALL, ALL, ALL, runs_a_day=3, decrypted=100),
        "intern": PermitConfig(ALL, ALL, ALL, decrypted=2),
    }
    made = world(permits=permits)
    frame = made.align()
    fit_one = VerticalLogisticRegression(max_iter=1).fit
    fit_one(frame, y="bank.default")
    made.align()
    with pytest.raises(QuotaExceeded, match="takes part in 3 runs a day for analyst") as caught:
        made.align()
    assert caught.value.rule == "analysts.runs_a_day"
    intern = made.federation("intern")
    theirs = intern.align({"bank": "loans", "agency": "invoices"}, on="id")
    with pytest.raises(QuotaExceeded, match="has 2 numbers decrypted in runs of intern") as caught:
        VerticalLogisticRegression(max_iter=1).fit(theirs, y="bank.default")
    assert caught.value.rule == "analysts.decrypted"


def test_an_owner_has_its_worth_measured_on_a_sample_and_on_nothing_else(world: Make) -> None:
    made = world(permits={"analyst": PermitConfig(("sample",), ALL, ALL)})
    for party, table, label in (("bank", "loans", "default"), ("agency", "invoices", None)):
        made.tables[party].save("sample", made.tables[party].read(table).head(220), ["id"], label)
    sample = made.analyst.align({"bank": "sample", "agency": "sample"}, on="id")
    short = make_pipeline(WoeBinning(bins=4), VerticalLogisticRegression(max_iter=2, standardize=False, clip=None))
    worth = partner_worth(sample, "bank.default", estimator=short, test_size=0.5)
    assert worth.rows == 110 and worth.names == ("bank alone", "with agency")
    assert worth.auc.low < worth.auc.change < worth.auc.high
    with pytest.raises(Refused, match="does not let analyst use the table loans; allowed are sample") as caught:
        made.align()
    assert caught.value.rule == "analysts.tables"
    mine = m.DataRef(table=made.tables["agency"].describe()[-1].name, on=["id"])
    assert mine.table.startswith("woe-")  # type: ignore[union-attr]
    with pytest.raises(Refused, match="does not let analyst use the table woe-"):
        made.analyst.align({"bank": "sample", "agency": str(mine.table)}, on="id")


def test_what_was_used_up_stays_used_up_when_a_party_starts_again(world: Make) -> None:
    made = world({"bank": RulesConfig(alignments_a_day=1)})
    made.align()
    made.endpoints[0].close()
    made.start("bank")
    with pytest.raises(QuotaExceeded, match="1 alignments a day"):
        made.align()


# ------------------------------------------------------------ what an analyst's own rules made


def test_a_prepared_table_keeps_its_origins_label_account_and_rows(world: Make) -> None:
    made = world()
    frame = made.align()
    prepared = VerticalImputer().fit_transform(frame, y="bank.default")
    VerticalLogisticRegression(max_iter=1).fit(prepared, y="bank.default")
    assert made.quota.spent("bank.loans.default") == {"bank": 3, "agency": 2}
    one_less = prepared._take(np.arange(1, ROWS), "all but one")
    for attempt in (VerticalImputer(), VerticalScaler(), VerticalLogisticRegression(max_iter=1)):
        with pytest.raises(Refused, match="of other rows of loans|of other rows of invoices") as caught:
            attempt.fit(one_less, y="bank.default")
        assert caught.value.rule == "protocols.rows_apart"


def test_a_column_that_a_rule_made_is_no_new_label_account(world: Make) -> None:
    made = world()
    prepared = VerticalRatio({"bank.r": ("bank.a", "bank.b")}).fit_transform(made.align(), y="bank.default")
    VerticalLinearRegression(max_iter=1).fit(prepared, y="bank.r")
    assert made.quota.spent("bank.loans.default")["bank"] > 0 and not made.quota.spent("bank.loans.r")
    VerticalLinearRegression(max_iter=1).fit(prepared, y="bank.a")
    assert made.quota.spent("bank.loans.a")["bank"] > 0, "a name that the declared table has stands for that column"


def test_no_rule_touches_the_label_that_an_owner_declared_whatever_the_analyst_says(world: Make) -> None:
    made = world()
    frame = made.align()
    refs = frame.refs()
    refs["bank"] = m.DataRef(frame=frame.id, columns=["a", "default"])
    rules: list[dict[str, Any]] = [
        {"step": "log", "columns": {"bank": ["default"]}},
        {"step": "ratio", "ratios": {"bank": {"x": ("default", "a")}}},
        {"step": "ratio", "ratios": {"bank": {"b": ("a", "a")}}},  # b is not among the columns, and is not free
    ]
    for rule, message in zip(rules, ["is the label", "is the label", "has a column 'b' already"], strict=True):
        with pytest.raises(DataError, match=message):
            made.analyst.run(
                "preparation_fit",
                cast={"party": ["bank", "agency"], "coordinator": ["coordinator"]},
                data=refs,
                params={"steps": [rule], "name": "probe"},
            )


@pytest.mark.parametrize("allowed", [False, True])
def test_statistics_of_columns_that_rules_made_are_the_owners_decision(world: Make, allowed: bool) -> None:
    made = world({"bank": RulesConfig(cell_columns=allowed), "agency": RulesConfig(cell_columns=allowed)})
    # what is left of a column between two limits says how many rows are above them
    above = VerticalWinsorizer(limits="value", lower=0.0, upper=1.0, columns=["bank.a"])
    frame, y = made.align(), "bank.default"
    first, again = above.fit_transform(frame, y), above.transform(frame)
    for prepared in (first, again, WoeBinning(bins=3).fit(again, y).transform(again)):
        if allowed:
            assert len(FeatureStatistics().fit(prepared).table_)
            continue
        with pytest.raises(Refused, match="of a table that an analyst's rules made") as caught:
            FeatureStatistics().fit(prepared)
        assert caught.value.rule == "protocols.cell_columns"


def test_limits_of_an_analysts_choice_that_differ_by_a_few_rows_are_refused(world: Make) -> None:
    made = world()
    frame = made.align()
    a = np.sort(made.tables["bank"].read("loans")["a"].to_numpy())

    def cut(rows: int) -> None:
        upper = float(a[-rows - 1 : -rows + 1].mean()) if rows else 99.0
        VerticalWinsorizer(limits="value", lower=None, upper=upper, columns=["bank.a"]).fit(frame, "bank.default")

    for rows in (0, 4, 30, 30, 60):  # beyond the limit; of four rows no figure can be
        cut(rows)
    with pytest.raises(Refused, match="does not cut 'a' there") as caught:
        cut(31)
    assert (caught.value.member, caught.value.rule) == ("bank", "protocols.rows_apart")
