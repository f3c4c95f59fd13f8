"""Boosted trees as their user sees them: over a simulation, with keys of full length."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.store import MemberStore
from fednb.federation.views import EnsembleView, decode, encode
from fednb.models import SecureBoostClassifier, SecureBoostRegressor, cross_validate

ROWS = 400
ON = {"bank": "sme_id", "agency": "sme_id", "utility": "customer"}


def tables(rows: int = ROWS) -> dict[str, dict[str, pd.DataFrame]]:
    """Three parties; ids stand in the order of an aligned frame, and values are few, so that cuts are XGBoost's."""
    rng = np.random.default_rng(3)
    X = np.round(rng.normal(size=(rows, 5)) * 3)
    margin = X @ [0.3, -0.2, 0.3, -0.2, 0.2]
    ids = [f"ZZ-{k:04d}" for k in range(rows)]
    delay = X[:, 3].copy()
    delay[::6] = np.nan
    bank = pd.DataFrame(
        {
            "sme_id": ids,
            "income": X[:, 0],
            "debt": X[:, 1],
            "default": (margin + rng.logistic(size=rows) > 0.5).astype(int),
            "loss": np.round(100 * margin, 2),
            "claims": rng.poisson(np.exp(margin / 3)),
            "grade": np.digitize(margin, [-1, 1]) + 1,
        }
    )
    agency = pd.DataFrame({"sme_id": ids, "turnover": X[:, 2], "delay": delay, "same": 1.0})
    utility = pd.DataFrame({"customer": ids, "usage": X[:, 4]})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


FEATURES = {"bank": ("income", "debt"), "agency": ("turnover", "delay", "same"), "utility": ("usage",)}


def joined() -> pd.DataFrame:
    own = tables()
    return pd.concat(
        [own["bank"]["loans"], own["agency"]["invoices"].iloc[:, 1:], own["utility"]["meters"].iloc[:, 1:]], axis=1
    )


@pytest.fixture(scope="module")
def whole() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables()) as federation:
        yield federation.align({"bank": "loans", "agency": "invoices", "utility": "meters"}, on=ON)


def of(frame: VerticalFrame, label: str) -> VerticalFrame:
    """The frame with one of the labels and the features only."""
    return VerticalFrame(
        frame.federation,
        frame.id,
        tables=frame.tables,
        columns={**FEATURES, "bank": (*FEATURES["bank"], label)},
        labels={},
        rows=len(frame),
    )


@pytest.fixture(scope="module")
def model(whole: VerticalFrame) -> SecureBoostClassifier:
    train, test = of(whole, "default").split(0.3, 0)
    return SecureBoostClassifier(6, max_depth=2, min_leaf=1).fit(train, y="bank.default", eval_frame=test)


def positions() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(ROWS), test_size=0.3, random_state=0)
    return train, test


def xgboosts(label: str, **params: object) -> tuple[xgboost.Booster, np.ndarray]:
    """XGBoost's model and its predictions of the test rows."""
    data = joined()
    X = data[[name for names in FEATURES.values() for name in names]].to_numpy(np.float64)
    y = data[label].to_numpy(np.float64) - (1 if label == "grade" else 0)
    train, test = positions()
    rounds = int(params.pop("n_estimators"))  # type: ignore[call-overload]
    usual = {"tree_method": "hist", "learning_rate": 0.3, "max_depth": 2, "nthread": 1}
    booster = xgboost.train({**usual, **params}, xgboost.DMatrix(X[train], y[train]), rounds)
    return booster, booster.predict(xgboost.DMatrix(X[test]))


def test_the_model_is_xgboosts(whole: VerticalFrame, model: SecureBoostClassifier) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    _, test = of(whole, "default").split(0.3, 0)
    _, p = xgboosts("default", n_estimators=6, objective="binary:logistic")
    y = joined()["default"].to_numpy()[positions()[1]]
    evaluation = model.evaluate(test)
    assert evaluation.auc == pytest.approx(roc_auc_score(y, p), abs=1e-9)
    assert evaluation.log_loss == pytest.approx(log_loss(y, p.astype(float)), abs=1e-6)
    assert model.history_["validation_loss"].iloc[-1] == pytest.approx(evaluation.log_loss, abs=1e-9)
    assert len(model.history_) == model.n_rounds_ == 6 and model.metric_ == "log_loss"


def test_importances_are_xgboosts_under_names_that_only_their_owner_knows(model: SecureBoostClassifier) -> None:
    booster, _ = xgboosts("default", n_estimators=6, objective="binary:logistic")
    names = [name for own in FEATURES.values() for name in own]
    gains = booster.get_score(importance_type="total_gain")
    counts = booster.get_score(importance_type="weight")
    theirs = {names[int(feature[1:])]: (gains[feature], counts[feature]) for feature in gains}
    found = model.feature_importances_
    assert found["gain"].is_monotonic_decreasing
    assert sorted(found["gain"]) == pytest.approx(sorted(gain for gain, _ in theirs.values()), rel=1e-4)
    assert sorted(found["frequency"]) == sorted(count for _, count in theirs.values())
    bank = found[found["party"] == "bank"].set_index("feature")
    assert bank.loc["income", "gain"] == pytest.approx(theirs["income"][0], rel=1e-4)
    assert all(name.startswith("#") for name in found.loc[found["party"] != "bank", "feature"])
    text = repr(encode(model.view())) + repr(model.feature_importances_.to_dict())
    assert not any(name in text for name in ("turnover", "delay", "usage"))
    run = model.run_
    (part,) = [
        store.load(run)
        for store in gc.get_objects()
        if isinstance(store, MemberStore) and run in set(store) and "turnover" in store.load(run).get("columns", ())
    ]
    resolved = {f"#{number}": part["columns"][column] for number, column in enumerate(part["order"])}
    for row in found[found["party"] == "agency"].itertuples():
        assert row.gain == pytest.approx(theirs[resolved[row.feature]][0], rel=1e-4)


@pytest.mark.parametrize(
    ("label", "objective", "figure"),
    [
        ("loss", "reg:squarederror", "rmse"),
        ("claims", "count:poisson", "rmse"),
        ("grade", "multi:softprob", "log_loss"),
    ],
)
def test_amounts_counts_and_classes(whole: VerticalFrame, label: str, objective: str, figure: str) -> None:
    train, test = of(whole, label).split(0.3, 0)
    kind = SecureBoostClassifier if label == "grade" else SecureBoostRegressor
    classes = {"num_class": 3} if label == "grade" else {}
    found = kind(4, objective=objective, max_depth=2, min_leaf=1).fit(train, y=f"bank.{label}").evaluate(test)
    _, p = xgboosts(label, n_estimators=4, objective=objective, **classes)
    y = joined()[label].to_numpy(np.float64)[positions()[1]]
    if label == "grade":
        expected = -np.log(p[np.arange(len(y)), y.astype(int) - 1]).mean()
        assert found.accuracy == pytest.approx((p.argmax(axis=1) + 1 == y).mean())
    else:
        expected = np.sqrt(((p - y) ** 2).mean())
    assert getattr(found, figure) == pytest.approx(expected, rel=1e-4)


def test_scores_and_contributions_stay_at_the_active_party(whole: VerticalFrame, model: SecureBoostClassifier) -> None:
    _, test = of(whole, "default").split(0.3, 0)
    scores = model.predict_proba(test)
    assert scores.party == "bank" and len(scores) == 120
    assert 0 < scores.summary()["mean"] < 1
    assert model.explain(test._take(np.array([5]), "one"), "reasons") == "bank.reasons"
    found = whole.federation.tables()
    (row,) = found[found["table"] == "reasons"].itertuples()
    assert (row.party, row.rows) == ("bank", 1)


def test_a_saved_model_scores_as_before_and_a_changed_one_is_refused(
    whole: VerticalFrame, model: SecureBoostClassifier, tmp_path: Path
) -> None:
    train, test = of(whole, "default").split(0.3, 0)
    path = tmp_path / "model.json"
    model.save(path, whole.federation)
    loaded = SecureBoostClassifier.load(path, whole.federation)
    assert loaded.evaluate(test).log_loss == model.evaluate(test).log_loss
    assert loaded.get_params() == model.get_params()
    pd.testing.assert_frame_equal(loaded.feature_importances_, model.feature_importances_)
    assert not any(name in path.read_text() for name in ('"threshold"', '"weight"', "cut"))
    with pytest.raises(DataError, match="holds a SecureBoostClassifier"):
        SecureBoostRegressor.load(path, whole.federation)
    path.write_text(path.read_text().replace('"rounds": 6', '"rounds": 5'))
    with pytest.raises(DataError, match="checksum does not fit"):
        SecureBoostClassifier.load(path, whole.federation)


def test_a_warm_start_adds_rounds(whole: VerticalFrame) -> None:
    train, test = of(whole, "default").split(0.3, 0)
    growing = SecureBoostClassifier(2, max_depth=2, min_leaf=1, warm_start=True).fit(train, y="bank.default")
    growing.set_params(n_estimators=6).fit(train, y="bank.default")
    _, p = xgboosts("default", n_estimators=6, objective="binary:logistic")
    assert growing.n_rounds_ == 6 and len(growing.history_) == 4
    from sklearn.metrics import roc_auc_score

    y = joined()["default"].to_numpy()[positions()[1]]
    assert growing.evaluate(test).auc == pytest.approx(roc_auc_score(y, p), abs=1e-9)


def test_it_is_cross_validated_like_a_regression(whole: VerticalFrame) -> None:
    found = cross_validate(SecureBoostClassifier(2, max_depth=2), of(whole, "default"), "bank.default", cv=2)
    assert found.loc["out of fold", "rows"] == ROWS and found["auc"].between(0.6, 0.9).all()


def test_what_cannot_be_asked_is_explained(whole: VerticalFrame) -> None:
    frame = of(whole, "default")
    train, test = frame.split(0.3, 0)
    with pytest.raises(DataError, match="needs rows to validate with"):
        SecureBoostClassifier(early_stopping_rounds=3).fit(train, y="bank.default")
    with pytest.raises(DataError, match="not disjoint parts of one alignment"):
        SecureBoostClassifier().fit(train, y="bank.default", eval_frame=train)
    with pytest.raises(DataError, match="no party.column"):
        SecureBoostClassifier(monotone_constraints={"agency.height": 1}).fit(train, y="bank.default")
    with pytest.raises(DataError, match="knows binary:logistic, multi:softprob"):
        SecureBoostClassifier(objective="count:poisson").fit(train, y="bank.default")
    with pytest.raises(NotFittedError):
        SecureBoostClassifier().predict_proba(test)
    with pytest.raises(DataError, match="does not take these parameters"):
        SecureBoostClassifier(max_depth=99).fit(train, y="bank.default")
    narrow = of(whole, "default")
    narrow.columns["agency"] = ("turnover",)
    fitted = SecureBoostClassifier(1, max_depth=1).fit(train, y="bank.default")
    with pytest.raises(DataError, match="agency's delay, same, which this frame lacks"):
        fitted.predict_proba(narrow)


def test_text_is_split_by_sets_of_its_values_and_new_ones_are_noted() -> None:
    own = tables()
    rng, codes = np.random.default_rng(0), np.arange(ROWS) % 7
    sectors = np.array([f"sector {letter}" for letter in "ghacbfe"])
    own["agency"]["invoices"]["sector"] = sectors[codes]
    y = (np.isin(codes, [1, 4, 5]) + rng.normal(size=ROWS) > 0.5).astype(int)
    own["bank"]["loans"]["default"] = y
    own["bank"]["loans"]["region"] = pd.Categorical(np.where(codes < 3, "north", "south"))
    with fednb.simulate(own) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        frame = VerticalFrame(
            frame.federation,
            frame.id,
            tables=frame.tables,
            columns={"bank": ("income", "region", "default"), "agency": ("sector", "turnover")},
            labels={},
            rows=len(frame),
        )
        train, test = frame.split(0.3, 0)
        model = SecureBoostClassifier(3, max_depth=2, min_leaf=1).fit(train, y="bank.default")
        found = model.evaluate(test)
        X = pd.concat(
            [own["bank"]["loans"][["income", "region"]], own["agency"]["invoices"][["sector", "turnover"]]], axis=1
        )
        X = X.astype({"region": "category", "sector": "category"})
        rows, others = positions()
        booster = xgboost.XGBClassifier(
            n_estimators=3, max_depth=2, max_cat_to_onehot=4, enable_categorical=True, tree_method="hist", n_jobs=1
        ).fit(X.iloc[rows], y[rows])
        from sklearn.metrics import log_loss

        assert found.log_loss == pytest.approx(
            log_loss(y[others], booster.predict_proba(X.iloc[others])[:, 1].astype(float)), abs=1e-5
        )
        assert not any(name in repr(encode(model.view())) for name in ("sector a", "north"))
        assert model.notes_ == []
        few = train._take(np.flatnonzero(codes[rows] != 2), "without a sector")
        model.fit(few, y="bank.default").predict_proba(test)
        assert [
            "agency's 'sector': " in note and "a category that no training row had" in note for note in model.notes_
        ] == [True]
        assert "sector a" not in repr(model.notes_)
        with pytest.raises(DataError, match="agency has no labels"):
            SecureBoostClassifier(categorical={"agency.sector": "ordered"}).fit(train, y="bank.default")
        with pytest.raises(DataError, match="categorical names 'agency.colour'"):
            SecureBoostClassifier(categorical={"agency.colour": "onehot"}).fit(train, y="bank.default")
        ordered = SecureBoostClassifier(3, categorical={"bank.region": "ordered"}).fit(train, y="bank.default")
        assert ordered.evaluate(test).auc > 0.6


def test_scikit_learns_conventions_hold(model: SecureBoostClassifier) -> None:
    copy = clone(model)
    assert copy.get_params() == model.get_params() and not hasattr(copy, "run_")


def test_the_view_travels_and_says_who_contributes(model: SecureBoostClassifier) -> None:
    view = decode(encode(model.view()))
    assert isinstance(view, EnsembleView)
    assert sum(view.shares().values()) == pytest.approx(1)
    assert "% of the gain" in view.plain() and "6 rounds" in view.plain()
    broken = encode(model.view())
    broken["tree"][0]["left"] = 10_000
    with pytest.raises(ValueError, match="nodes are not in order"):
        decode(broken)
