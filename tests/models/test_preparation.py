"""Preparation as its user sees it: over simulated parties, in a pipeline, in folds, and in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, train_test_split

import fednb
from fednb.errors import DataError, Refused
from fednb.federation import messages, simulate
from fednb.federation.desk import Desk
from fednb.federation.fitted import table_of
from fednb.federation.frame import VerticalFrame
from fednb.federation.store import MemberStore, Part
from fednb.federation.tables import TableStore
from fednb.models import (
    Scorecard,
    SecureBoostClassifier,
    VerticalDateFeatures,
    VerticalGridSearch,
    VerticalImputer,
    VerticalLinearRegression,
    VerticalLog,
    VerticalLogisticRegression,
    VerticalOneHotEncoder,
    VerticalPipeline,
    VerticalPoissonRegression,
    VerticalRatio,
    VerticalScaler,
    VerticalWinsorizer,
    WoeBinning,
    cross_validate,
)
from fednb.policy.mode import MemberPolicy
from fednb.protocols.preparation import Figures

ROWS = 300
Tables = dict[str, dict[str, pd.DataFrame]]


def tables(rows: int = ROWS) -> Tables:
    """Two parties with columns of all kinds; ids stand in the order of an aligned frame."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(rows, 4))
    region = rng.choice(["north", "south", "east"], rows)
    odds = X @ [1.0, -0.8, 0.9, 0.5] + 1.0 * (region == "north")
    label = (odds + rng.logistic(size=rows) > 0.3).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(rows)]
    income = X[:, 0].copy()
    income[::9] = np.nan
    day = pd.Timestamp("2020-01-01")
    bank = {"id": ids, "income": income, "debt": X[:, 1], "limit": rng.integers(1, 9, rows) * 1.0}
    bank |= {"opened": day + pd.to_timedelta(rng.integers(0, 999, rows), unit="D"), "default": label}
    agency = {"id": ids, "turnover": np.exp(3 * X[:, 2]), "delay": X[:, 3], "region": region}
    return {"bank": {"loans": pd.DataFrame(bank)}, "agency": {"invoices": pd.DataFrame(agency)}}


def aligned(federation: fednb.Federation) -> VerticalFrame:
    return federation.align({"bank": "loans", "agency": "invoices"}, on="id")


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables(), decryption_quota=50) as federation:
        yield aligned(federation)


def steps(**options: Any) -> list[tuple[str, Any]]:
    """One of each, as a team would use them."""
    return [
        ("dates", VerticalDateFeatures(features=["age_days", "month"], reference="2023-01-01")),
        ("ratio", VerticalRatio({"bank.burden": ("bank.debt", "bank.limit")}, clip=(-3, 3))),
        ("log", VerticalLog(columns=["agency.turnover"])),
        ("fill", VerticalImputer(add_indicator=True)),
        ("tails", VerticalWinsorizer(lower=0.02, upper=0.98, columns=["bank.income", "agency.turnover"])),
        ("categories", VerticalOneHotEncoder(unseen="other", **options)),
        ("scale", VerticalScaler()),
    ]


def model(**options: Any) -> VerticalLogisticRegression:
    return VerticalLogisticRegression(**{"max_iter": 12, "standardize": False, "clip": None, **options})


def joined(train: np.ndarray, test: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """The same preparation of the joined table with pandas, fitted on `train`."""
    held = tables()
    x = held["bank"]["loans"].merge(held["agency"]["invoices"], on="id")
    y = x["default"].to_numpy()
    x["opened_age_days"], x["opened_month"] = (pd.Timestamp("2023-01-01") - x["opened"]).dt.days, x["opened"].dt.month
    x["burden"] = (x["debt"] / x["limit"]).clip(-3, 3)
    x["turnover"] = np.log1p(x["turnover"])
    x["income_missing"] = x["income"].isna().astype(float)
    x["income"] = x["income"].fillna(x.loc[train, "income"].median())
    for name in ("income", "turnover"):
        x[name] = x[name].clip(*x.loc[train, name].quantile([0.02, 0.98]))
    least = x.loc[train, "region"].value_counts().idxmin()
    for value in sorted(set(x["region"])):
        x["region_other" if value == least else f"region_{value}"] = (x["region"] == value).astype(float)
    x = x.drop(columns=["id", "default", "opened", "region"])
    return (x - x.loc[train].mean()) / x.loc[train].std(ddof=0), y


def test_a_pipeline_gives_what_pandas_and_scikit_learn_give_on_the_joined_table(frame: VerticalFrame) -> None:
    train, test = frame.split(0.3, 0)
    pipeline = VerticalPipeline([*steps(), ("model", model(max_iter=30))]).fit(train, y="bank.default")
    inside, outside = train_test_split(np.arange(ROWS), test_size=0.3, random_state=0)
    X, y = joined(inside, outside)
    reference = LogisticRegression(C=1.0).fit(X.loc[inside], y[inside])
    assert pipeline.model_.n_features_in_ == X.shape[1] == 12
    auc = roc_auc_score(y[outside], reference.predict_proba(X.loc[outside])[:, 1])
    assert pipeline.evaluate(test).auc == pytest.approx(auc, abs=0.002)
    assert pipeline.predict_proba(test).summary()["rows"] == len(test)


def test_neighbouring_steps_share_a_run_and_a_table(frame: VerticalFrame) -> None:
    federation = frame.federation
    before, had = len(federation.runs()), set(federation.tables()["table"])
    head = VerticalPipeline(steps())
    made = head.fit_transform(frame, y="bank.default")
    assert len(federation.runs()) - before == 1
    assert len(set(federation.tables()["table"]) - had) == 1
    assert made.columns["agency"] == ("turnover", "delay", "region_1", "region_2", "region_other")
    assert made.find_label("bank.default") and "default" not in head[0].feature_names_in_["bank"]
    assert head.transform(frame).columns == made.columns
    fill = head.named_steps["fill"]
    assert set(fill.feature_names_out_["bank"]) - set(fill.feature_names_in_["bank"]) == {"income_missing"}
    with pytest.raises(DataError, match="VerticalImputer was fitted on bank's .*burden, .*which this frame lacks"):
        fill.transform(frame)


# ------------------------------------------------------------ only training rows


def poisoned(held: Tables, positions: np.ndarray) -> Tables:
    """Other values of every column, and another label, in these rows."""
    bank, agency = held["bank"]["loans"], held["agency"]["invoices"]
    for name in ("income", "debt", "limit"):
        bank.loc[positions, name] = 1e4 * np.arange(1.0, 1 + len(positions))
    bank.loc[positions, "opened"] = pd.Timestamp("1950-05-05")
    bank.loc[positions, "default"] = 1 - bank.loc[positions, "default"]
    agency.loc[positions, ["turnover", "delay"]] = -1e5
    agency.loc[positions, "region"] = "moon"
    return held


FITS = ("preparation_fit", "vertical_binning", "vertical_logistic")
NOT_FITTED = {"keys", "index", "frame", "digest", "origin", "account", "table", "role", "name", "trained_on", "recipe"}


def parts(data: Tables, act: Callable[[VerticalFrame], object], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each party keeps of each fit of `act`, in their order."""
    stores: list[MemberStore] = []

    class Watched(MemberStore):
        def __init__(self) -> None:
            super().__init__()
            stores.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(simulate, "MemberStore", Watched)
        with fednb.simulate(data, decryption_quota=50) as federation:
            act(aligned(federation))
            kept = []
            for run in federation.runs()["run"].iloc[::-1]:
                found = [part.values for store in stores if (part := store.read(run, Part)) is not None]
                own = [values for values in found if values.get("protocol") in FITS]
                if own:
                    kept.append([{k: v for k, v in values.items() if k not in NOT_FITTED} for values in own])
    assert kept and all(len(each) == 2 for each in kept)
    return kept


def same(one: Any, other: Any) -> bool:
    try:
        np.testing.assert_equal(one, other)
    except AssertionError:
        return False
    return True


ALONE: dict[str, Any] = dict(steps()) | {
    "binning": WoeBinning(bins=5),
    "model": VerticalLogisticRegression(max_iter=2),
}
NUMBERS_ONLY = {"binning", "model"}


def test_every_transformer_is_tried() -> None:
    assert {type(step) for step in ALONE.values()} >= {
        kind
        for kind in vars(fednb.models).values()
        if isinstance(kind, type) and hasattr(kind, "_rule") and kind.__module__.endswith("transformers")
    }
    assert {type(step)._rule for step in ALONE.values() if hasattr(step, "_rule")}
    assert len(Figures.__args__) == 7


@pytest.mark.parametrize("name", ALONE)
def test_only_training_rows_are_fitted_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, held_out = train_test_split(np.arange(ROWS), test_size=0.3, random_state=0)

    def numbers(held: Tables) -> Tables:
        if name in NUMBERS_ONLY:
            held["bank"]["loans"] = held["bank"]["loans"].drop(columns=["opened"]).fillna(0.0)
            held["agency"]["invoices"] = held["agency"]["invoices"].drop(columns=["region"])
        return held

    def act(frame: VerticalFrame) -> None:
        clone(ALONE[name]).fit(frame.split(0.3, 0)[0], "bank.default")

    clean = parts(numbers(tables()), act, monkeypatch)
    assert same(clean, parts(numbers(poisoned(tables(), held_out)), act, monkeypatch))
    if name not in ("log", "ratio", "dates"):  # of which nothing but names is fitted
        assert not same(clean, parts(numbers(poisoned(tables(), inside[:40])), act, monkeypatch)), "it can be told"


@pytest.mark.slow
def test_every_fold_is_fitted_on_its_own_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poison in the test rows of the second fold: it is all that the others see, and nothing that this one sees."""
    folds = [test for _, test in KFold(3, shuffle=True, random_state=0).split(np.arange(ROWS))]

    def act(frame: VerticalFrame) -> None:
        pipeline = VerticalPipeline([*steps()[:-1], ("woe", WoeBinning(bins=4)), ("model", model(max_iter=2))])
        cross_validate(pipeline, frame, "bank.default", cv=3)

    clean, other = parts(tables(), act, monkeypatch), parts(poisoned(tables(), folds[1]), act, monkeypatch)
    assert len(clean) == len(other) == 9  # preparation, binning and model of each fold
    assert [same(*pair) for pair in zip(clean, other, strict=True)] == [False] * 3 + [True] * 3 + [False] * 3


# ------------------------------------------------------------ as one estimator


@pytest.mark.slow
def test_a_grid_over_a_pipeline_prepares_each_fold_once(frame: VerticalFrame) -> None:
    pipeline = VerticalPipeline([*steps(), ("model", model(max_iter=3))])
    before = len(frame.federation.runs())
    search = VerticalGridSearch(pipeline, {"model__C": [0.01, 1.0]}, cv=2, refit=False).fit(frame, "bank.default")
    runs = frame.federation.runs()
    titles = runs.head(len(runs) - before)["title"]
    assert titles.str.startswith("VerticalDateFeatures and 6 more steps on").sum() == 2, "once a fold"
    assert titles.str.startswith("VerticalDateFeatures and 6 more steps of").sum() == 2
    assert titles.str.startswith("VerticalLogisticRegression").sum() == 4
    assert set(search.cv_results_["model__C"]) == {0.01, 1.0}
    assert clone(pipeline).set_params(fill__strategy="mean").get_params()["fill__strategy"] == "mean"
    tails = VerticalGridSearch(pipeline, {"tails__upper": [0.9, 0.99]}, cv=2, refit=False).fit(frame, "bank.default")
    assert len(tails.cv_results_) == 2


@pytest.mark.parametrize("last", [VerticalLinearRegression(max_iter=3), VerticalPoissonRegression(max_iter=3)])
def test_regressions_on_numbers_stand_at_the_end_too(frame: VerticalFrame, last: Any) -> None:
    if isinstance(last, VerticalPoissonRegression):
        last.set_params(exposure="bank.limit")
    pipeline = VerticalPipeline([*steps()[2:], ("model", last)])
    pipeline.steps[0:0] = [("dates", VerticalDateFeatures(features=["month"]))]
    pipeline.fit(frame, y="bank.default")
    assert pipeline.evaluate(frame).rows == len(pipeline.predict(frame)) == ROWS
    if isinstance(last, VerticalPoissonRegression):
        assert "limit" not in pipeline[0].feature_names_in_["bank"], "how long a row was observed is left as it is"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["woe", "trees"])
def test_a_loaded_pipeline_scores_as_the_saved_one(frame: VerticalFrame, kind: str, tmp_path: Path) -> None:
    train, test = frame.split(0.3, 0)
    last: list[tuple[str, Any]] = [
        ("woe", WoeBinning(bins=5)),
        ("model", model(max_iter=3, bounds={"bank.debt": (None, 0)})),
    ]
    if kind == "trees":
        last = [("model", SecureBoostClassifier(n_estimators=2, max_depth=2))]
    pipeline = VerticalPipeline([*steps()[:-1], *last]).fit(train, y="bank.default")
    assert pipeline.save(tmp_path / "p.json", frame.federation) is pipeline
    loaded = VerticalPipeline.load(tmp_path / "p.json", frame.federation)
    fresh = aligned(frame.federation).split(0.3, 0)[1]
    assert loaded.evaluate(fresh).auc == pipeline.evaluate(test).auc
    assert [name for name, _ in loaded.steps] == [name for name, _ in pipeline.steps]
    assert loaded.named_steps["ratio"].get_params()["clip"] == [-3, 3]
    text = (tmp_path / "p.json").read_text()
    assert "north" not in text and repr(float(tables()["bank"]["loans"]["income"].median())) not in text
    (tmp_path / "p.json").write_text(text.replace('"unseen": "other"', '"unseen": "error"'))
    with pytest.raises(DataError, match="its checksum does not fit"):
        VerticalPipeline.load(tmp_path / "p.json", frame.federation)


@pytest.mark.slow
def test_a_scorecard_is_made_of_a_pipelines_last_steps(frame: VerticalFrame) -> None:
    train, test = frame.split(0.3, 0)
    pipeline = VerticalPipeline([*steps()[:-1], ("woe", WoeBinning(bins=5)), ("model", model(max_iter=5))])
    assert list(pipeline._repr_mimebundle_()) == ["text/plain"]
    pipeline.fit(train, y="bank.default")
    card = Scorecard(digits=2).fit(pipeline["woe"], pipeline.model_, frame.federation)
    assert card.evaluate(pipeline[:-2].transform(test)).auc == pytest.approx(pipeline.evaluate(test).auc, abs=0.01)
    shown = pipeline._repr_mimebundle_()
    assert "VerticalLogisticRegression" in str(shown) and len(shown) > 1, "fitted, it is shown as its model is"


def test_a_transformer_is_saved_by_itself(frame: VerticalFrame, tmp_path: Path) -> None:
    encoder = VerticalOneHotEncoder(categories={"agency.region": ["north", "east"]}).fit(frame, y="bank.default")
    encoder.save(tmp_path / "e.json", frame.federation)
    loaded = VerticalOneHotEncoder.load(tmp_path / "e.json", frame.federation)
    assert loaded.transform(frame).columns["agency"] == (
        "turnover",
        "delay",
        "region_north",
        "region_east",
        "region_other",
    )
    with pytest.raises(DataError, match="holds a VerticalOneHotEncoder, not a VerticalScaler"):
        VerticalScaler.load(tmp_path / "e.json", frame.federation)
    with pytest.raises(DataError, match="holds a Preparation, not a VerticalPipeline"):
        VerticalPipeline.load(tmp_path / "e.json", frame.federation)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (VerticalScaler(columns=["telco.calls"]), "'telco.calls' is no party.column of this frame"),
        (VerticalScaler(columns="bank.income"), "columns are a list"),
        (VerticalRatio({"bank.x": ("bank.debt", "agency.delay")}), "a ratio lies at one party"),
        (VerticalScaler(columns=["bank.default"]), "'default' is the label"),
        (VerticalImputer(strategy="mode"), "does not take these parameters"),
        (VerticalDateFeatures(reference={"telco": "2020-01-01"}), "no party of this frame"),
    ],
)
def test_what_is_asked_wrongly_is_explained(frame: VerticalFrame, step: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        step.fit(frame, y="bank.default")


def test_steps_of_two_fits_are_not_mixed(frame: VerticalFrame) -> None:
    one, two = VerticalImputer().fit(frame, "bank.default"), VerticalScaler().fit(frame, "bank.default")
    with pytest.raises(DataError, match="were not fitted together"):
        VerticalPipeline([("fill", one), ("scale", two)]).transform(frame)


def test_the_way_in_the_docs_runs_as_printed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "modelling.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("cross_validate(")[0]  # what comes then is tried above
    held = tables()
    for parts in held.values():
        for name, table in parts.items():
            parts[name] = table.rename(columns={"id": "sme_id"})
    with fednb.simulate(held, decryption_quota=5) as federation:
        names: dict[str, Any] = {**vars(fednb.models), "fed": federation}
        exec(compile(code, "modelling.md", "exec", dont_inherit=True), names)
        assert names["pipeline"].model_.n_features_in_ == 13 and len(names["test"]) == 90


def test_a_partys_own_cell_reads_what_was_fitted_and_a_guarded_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stores: list[MemberStore] = []
    make = MemberStore
    monkeypatch.setattr(simulate, "MemberStore", lambda: stores.append(make()) or stores[-1])
    with fednb.simulate(tables(), decryption_quota=5) as federation:
        head = VerticalPipeline(steps()).fit(aligned(federation), y="bank.default")
        (own,) = [store for store in stores if (part := store.read(head[0].run_, Part)) and "region" in str(part)]
    bare = TableStore.of_frames("agency", {})
    desk = Desk(bare, MemberPolicy("agency", "open"), own, lambda: None)  # type: ignore[arg-type]
    found = table_of(desk._answer(messages.ReadModel(head[0].run_), "analyst").values["prepared"])
    held = tables()["agency"]["invoices"]
    counts = held["region"].value_counts()
    categories = found[found["rule"] == "onehot"].set_index("figure")["value"]
    assert categories["region_other"] == counts.idxmin() and set(categories) == set(counts.index)
    scale = found[(found["rule"] == "standardise") & (found["figure"] == "centre")].set_index("column")["value"]
    assert scale["delay"] == pytest.approx(held["delay"].mean())
    closed = Desk(bare, MemberPolicy("agency", "guarded", ["coefficients"]), own, lambda: None)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="shows nobody what was fitted on its columns"):
        closed._answer(messages.ReadModel(head[0].run_), "analyst")
