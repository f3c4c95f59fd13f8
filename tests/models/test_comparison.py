"""What a second model is worth, as its user sees it, in two-party and three-party form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import fednb
from fednb.errors import DataError
from fednb.models import (
    Evaluation,
    OwnLogisticRegression,
    VerticalLogisticRegression,
    compare_models,
    compare_scores,
    cross_validate,
    evaluate_by,
    partner_worth,
    score_stability,
)


@pytest.mark.parametrize("others", [("agency",), ("agency", "utility")])
def test_a_partner_is_worth_what_the_joined_scores_say(others: tuple[str, ...]) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 4))
    y = (X @ [0.5, 1.0, 0.8, 0.6] + rng.logistic(size=300) > 0).astype(int)
    ids = [f"k{i:03d}" for i in range(300)]
    tables = {
        "bank": {"own": pd.DataFrame({"id": ids, "a": X[:, 0], "default": y})},
        "agency": {"own": pd.DataFrame({"id": ids, "b": X[:, 1], "weak": rng.normal(size=300)})},
        "utility": {"own": pd.DataFrame({"id": ids, "c": X[:, 2]})},
    }
    with fednb.simulate(tables, decryption_quota=5) as federation:
        frame = federation.align(dict.fromkeys(("bank", *others), "own"), on="id")
        few = federation.align(dict.fromkeys(("bank", *others), "own"), on="id")
        few.columns = {**few.columns, "agency": ("weak",), **({"utility": ("c",)} if "utility" in others else {})}
        scores = [
            VerticalLogisticRegression(max_iter=4).fit(f, y="bank.default").predict_proba(f) for f in (few, frame)
        ]
        found = compare_scores(*scores, "bank.default", names=("without", "with"))
        assert found.auc.change > 0 and found.rows == 300
        assert list(found.table().columns[:2]) == ["without", "with"] and "with without" in repr(found)
        early, late = (VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default").predict_proba(part)
                       for part in frame.split(0.5, 1))  # fmt: skip
        assert 0.0 <= score_stability(early, late) < 0.25
        with pytest.raises(DataError, match="of the same rows"):
            compare_scores(scores[0], VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default").predict_proba(
                frame.split(0.5, 0)[0]), "bank.default")  # fmt: skip


def test_cut_offs_say_what_is_approved_and_how_much_of_it_goes_bad() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(size=2_000)
    y = (rng.random(2_000) < p).astype(int)
    found = Evaluation.of(y, p)
    table = found.cutoffs()
    row = table.iloc[(table["cutoff"] - 0.5).abs().idxmin()]
    below = p < row["cutoff"]
    assert row["approved"] == pytest.approx(below.mean(), abs=0.01)
    assert row["bad_rate"] == pytest.approx(y[below].mean(), abs=0.01)
    assert row["precision"] == pytest.approx(y[~below].mean(), abs=0.01)
    assert row["recall"] == pytest.approx(y[~below].sum() / y.sum(), abs=0.01)
    lift = found.lift()
    assert lift["lift"].iloc[0] > 1.5 and lift["lift"].iloc[-1] == pytest.approx(1.0)
    assert found.at_bad_rate(0.25) == pytest.approx(0.5, abs=0.05) and found.at_bad_rate(0.99) == 1.0
    assert found.precision_at(0.5) == pytest.approx(y[p >= 0.5].mean(), abs=0.01)
    with pytest.raises(DataError, match="no precision is known at 2; released cut-offs are 0.0"):
        found.precision_at(2)
    again = Evaluation.from_dict(found.to_dict())
    assert again.brier == found.brier and again.cutoffs().equals(table)


def test_a_partys_own_model_is_scikit_learns_and_the_partner_is_worth_the_rest() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 3))
    y = (X @ [0.8, 0.4, 1.5] + rng.logistic(size=400) > 0).astype(int)
    ids = [f"k{i:03d}" for i in range(400)]
    tables = {
        "bank": {"own": pd.DataFrame({"id": ids, "a": X[:, 0], "b": X[:, 1], "default": y})},
        "agency": {"own": pd.DataFrame({"id": ids, "c": X[:, 2]})},
    }
    with fednb.simulate(tables, decryption_quota=5) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        train, test = frame.split(0.5, 0)
        own = OwnLogisticRegression().fit(train, "bank.default")
        Z = X[:, :2][train._positions]
        Z = np.clip((Z - Z.mean(axis=0)) / Z.std(axis=0), -4, 4)
        reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(Z, y[train._positions])
        assert own.coef_.tolist() == pytest.approx(reference.coef_[0].tolist(), abs=1e-5)
        assert own.intercept_ == pytest.approx(float(reference.intercept_[0]), abs=1e-5)
        model = VerticalLogisticRegression(max_iter=6).fit(train, "bank.default")
        worth = compare_scores(own.predict_proba(test), model.predict_proba(test), "bank.default")
        assert worth.auc.first == own.evaluate(test).auc and worth.auc.low > 0 and worth.approved.change > 0
        assert cross_validate(OwnLogisticRegression(), frame, "bank.default", cv=2).loc["out of fold", "rows"] == 400
        assert clone(own).get_params() == own.get_params()
        with pytest.raises(DataError, match="has no features of its own|does not take"):
            OwnLogisticRegression(C=-1).fit(train, "bank.default")


def test_segments_have_their_own_figures_and_small_ones_are_pooled() -> None:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(400, 2))
    y = (X.sum(axis=1) + rng.logistic(size=400) > 0).astype(int)
    region = rng.choice([1.0, 2.0, 3.0], 400).astype(float)
    region[:6], region[6:9] = 9.0, np.nan
    ids = [f"k{i:03d}" for i in range(400)]
    bank = pd.DataFrame({"id": ids, "a": X[:, 0], "region": region, "default": y})
    agency = pd.DataFrame({"id": ids, "b": X[:, 1], "kind": region})
    with fednb.simulate({"bank": {"own": bank}, "agency": {"own": agency}}) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        fitted = federation.align({"bank": "own", "agency": "own"}, on="id")
        fitted.columns = {"bank": ("a", "default"), "agency": ("b",)}
        scores = OwnLogisticRegression().fit(fitted, "bank.default").predict_proba(frame)
        found = evaluate_by(scores, "bank.default", "bank.region")
        assert found["rows"].sum() == 400 and found["positives"].sum() == y.sum()
        assert len(found) == 3 and found["segment"].iloc[-1].endswith(", others"), "pooled with the smallest"
        assert "9" not in found["segment"].iloc[-1], "what few rows have is not named"
        own = np.isin(region, [float(found["segment"].iloc[0])])
        assert found["auc"].iloc[0] == pytest.approx(roc_auc_score(y[own], X[own, 0]))
        assert found["rate"].iloc[0] == pytest.approx(y[own].mean())
        alone = Evaluation.of(y[own], 1 / (1 + np.exp(-X[own, 0])))
        assert (found["auc_low"].iloc[0], found["auc_high"].iloc[0]) == pytest.approx(alone.auc_interval)
        assert (found["ks_low"] < found["ks"]).all() and (found["ks"] < found["ks_high"]).all()
        with pytest.raises(DataError, match="is no column of bank"):
            evaluate_by(scores, "bank.default", "agency.kind")
        with pytest.raises(DataError, match="too many for segments"):
            evaluate_by(scores, "bank.default", "bank.a")


def test_several_models_stand_in_one_figure_and_one_table() -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=500)
    y = (x + rng.logistic(size=500) > 0).astype(int)
    good, poor = (Evaluation.of(y, 1 / (1 + np.exp(-z))) for z in (x, 0.2 * x + rng.normal(size=500)))
    found = compare_models({"bank only": poor, "federated": good})
    table = found.table()
    assert table.loc["federated", "auc"] == good.auc > table.loc["bank only", "auc"] == poor.auc
    assert tuple(table.loc["federated", ["brier_low", "brier_high"]]) == good.brier_interval
    assert list(found.view().results) == ["bank only", "federated"] and found.view().results["federated"].roc
    assert f"federated: AUC {good.auc:.4f}" in repr(found)
    with pytest.raises(DataError, match="give evaluations by name"):
        compare_models({"x": 0.7})  # type: ignore[dict-item]


@pytest.mark.parametrize("binned", [False, True])
def test_a_partners_worth_is_the_difference_of_the_same_recipe_with_and_without_it(binned: bool) -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(600, 2))
    y = (X @ [0.6, 1.5] + rng.logistic(size=600) > 0.3).astype(int)
    ids = [f"k{i:03d}" for i in range(600)]
    bank = pd.DataFrame({"id": ids, "a": X[:, 0], "default": y})
    agency = pd.DataFrame({"id": ids, "c": X[:, 1]})
    estimator = None if binned else VerticalLogisticRegression(max_iter=8)
    with fednb.simulate({"bank": {"own": bank}, "agency": {"own": agency}}, decryption_quota=5) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        worth = partner_worth(frame, "bank.default", estimator=estimator, test_size=0.5, bad_rate=0.2)
        _, test = frame.split(0.5, 0)
        with pytest.raises(DataError, match="ends in OwnLogisticRegression"):
            partner_worth(frame, "bank.default", estimator=OwnLogisticRegression())
    rows = test._positions
    assert worth.names == ("bank alone", "with agency") and worth.rows == 300 and worth.bad_rate == 0.2
    assert worth.auc.first == pytest.approx(roc_auc_score(y[rows], X[rows, 0]), abs=0.03 if binned else 1e-9)
    assert worth.auc.second == pytest.approx(roc_auc_score(y[rows], X[rows] @ [0.6, 1.5]), abs=0.03)
    assert worth.auc.low > 0 and worth.ks.low > 0 and worth.approved.change > 0.1
    assert "AUC +0." in worth.view().title and worth.view().results["with agency"].auc.value == worth.auc.second
