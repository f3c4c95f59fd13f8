"""Cross-validation, grids and several classes, over a simulation with keys of full length."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import (
    SecureBoostClassifier,
    VerticalGridSearch,
    VerticalLogisticRegression,
    VerticalOneVsRest,
    WoeBinning,
    cross_validate,
)
from fednb.models.search import _worth_another_fold

ROWS = 240


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(ROWS, 4))
    score = X @ [1.0, 0.8, -0.6, 0.5] + rng.logistic(size=ROWS)
    ids = [f"k{i:03d}" for i in range(ROWS)]
    grade = np.digitize(score, np.quantile(score, [0.4, 0.75])) + 1
    bank = pd.DataFrame({"id": ids, "income": X[:, 0], "grade": grade, "default": (score > 0.3).astype(int)})
    agency = pd.DataFrame({"id": ids, "delay": X[:, 1], "turnover": X[:, 2]})
    return {
        "bank": {"own": bank},
        "agency": {"own": agency},
        "utility": {"own": pd.DataFrame({"id": ids, "usage": X[:, 3]})},
    }


@pytest.fixture(scope="module")
def federation() -> Iterator[fednb.Federation]:
    with fednb.simulate(tables(), decryption_quota=10) as federation:
        yield federation


def frame(federation: fednb.Federation, *others: str, label: str = "default") -> VerticalFrame:
    found = federation.align(dict.fromkeys(("bank", *others), "own"), on="id")
    found.columns = {**found.columns, "bank": ("income", label)}
    return found


def joined(others: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    own = tables()
    X = np.column_stack([own["bank"]["own"]["income"], *(own[p]["own"].drop(columns="id") for p in others)])
    return X, own["bank"]["own"]["default"].to_numpy()


@pytest.mark.parametrize("others", [("agency",), ("agency", "utility")])
def test_out_of_fold_figures_are_those_of_scikit_learns_folds(
    federation: fednb.Federation, others: tuple[str, ...]
) -> None:
    found = cross_validate(VerticalLogisticRegression(max_iter=10), frame(federation, *others), "bank.default", cv=3)
    X, y = joined(others)
    scores = np.empty(ROWS)
    aucs = []
    for train, test in KFold(3, shuffle=True, random_state=0).split(X):
        centre, sd = X[train].mean(axis=0), X[train].std(axis=0)
        model = LogisticRegression(C=1.0).fit(np.clip((X[train] - centre) / sd, -4, 4), y[train])
        scores[test] = model.predict_proba(np.clip((X[test] - centre) / sd, -4, 4))[:, 1]
        aucs.append(roc_auc_score(y[test], scores[test]))
    assert found.index.tolist() == [1, 2, 3, "out of fold"]
    assert found.loc[[1, 2, 3], "auc"].tolist() == pytest.approx(aucs, abs=0.01)
    assert found.loc["out of fold", "auc"] == pytest.approx(roc_auc_score(y, scores), abs=0.006)
    assert found.loc["out of fold", "rows"] == ROWS == found.loc[[1, 2, 3], "rows"].sum()


@pytest.mark.slow
def test_a_pipelines_binning_is_fitted_in_each_fold_and_once(federation: fednb.Federation) -> None:
    whole = frame(federation, "agency")
    pipeline = make_pipeline(WoeBinning(bins=5), VerticalLogisticRegression(max_iter=3, standardize=False, clip=None))
    before = len(federation.runs())
    grid = {"verticallogisticregression__C": [0.001, 1.0]}
    search = VerticalGridSearch(pipeline, grid, cv=2, refit=False).fit(whole, "bank.default")
    titles = federation.runs()["title"].head(len(federation.runs()) - before)
    assert titles.str.startswith("WoeBinning").sum() == 2, "once a fold, not once a candidate"
    assert titles.str.startswith("VerticalLogisticRegression").sum() == 4
    assert set(search.cv_results_["verticallogisticregression__C"]) == {0.001, 1.0}
    validated = cross_validate(pipeline, whole, "bank.default", cv=2)
    assert validated.loc["out of fold", "rows"] == ROWS


@pytest.mark.slow
def test_the_best_candidate_is_found_and_fitted_on_all_rows(federation: fednb.Federation) -> None:
    whole = frame(federation, "agency")
    search = VerticalGridSearch(
        VerticalLogisticRegression(max_iter=6), {"C": [1e-5, 1.0]}, scoring="log_loss", cv=3, random_state=1
    ).fit(whole, "bank.default")
    assert search.best_params_ == {"C": 1.0} and search.best_estimator_.n_rows_ == ROWS
    table = search.cv_results_
    assert table["rank"].tolist() == [1, 2] and table["mean"].is_monotonic_increasing and table["folds"].max() == 3
    assert search.best_score_ == table["mean"].iloc[0] > 0
    assert clone(search).get_params()["cv"] == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_search_stops_early_and_one_line_tells_how_far_it_is(
    federation: fednb.Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    before = len(federation.list_runs(1000))
    search = VerticalGridSearch(
        VerticalLogisticRegression(max_iter=2), {"C": [1e-6, 1.0]}, scoring="log_loss", cv=4, refit=False
    ).fit(frame(federation, "agency"), "bank.default")
    assert search.cv_results_.set_index("C")["folds"].to_dict() == {1.0: 4, 1e-6: 3}
    runs = federation.list_runs(1000)[: len(federation.list_runs(1000)) - before]
    assert sum(run.protocol == "vertical_logistic" for run in runs) == 7, "the eighth fit was not needed"
    lines = shown.getvalue().split("\r")
    assert any("Grid search 3/8 · fold 2 of 4, candidate 2 of 2" in line and " left" in line for line in lines)
    assert lines[-1].startswith("Grid search · 7 of 7 done in") and lines[-1].endswith("\n")
    assert not any("VerticalLogisticRegression" in line for line in lines), "runs show nothing of their own"


def test_nothing_is_shown_where_nobody_looks(federation: fednb.Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    cross_validate(VerticalLogisticRegression(max_iter=1), frame(federation, "agency"), "bank.default", cv=2)
    assert shown.getvalue() == ""


def test_trees_stop_early_in_each_fold_by_rows_of_its_training_part(federation: fednb.Federation) -> None:
    whole = frame(federation, "agency")
    model = SecureBoostClassifier(n_estimators=3, max_depth=1, learning_rate=1.0, early_stopping_rounds=1)
    found = cross_validate(model, whole, "bank.default", cv=2)
    assert found.loc["out of fold", "rows"] == ROWS and found.loc["out of fold", "auc"] > 0.6
    fits = [run for run in federation.list_runs(10) if run.protocol == "vertical_boosting"]
    assert [run.figures["rows"] for run in fits[:2]] == [round(0.8 * ROWS / 2)] * 2


def test_a_candidate_that_is_clearly_behind_gets_no_further_fold() -> None:
    found = [[0.80, 0.79, 0.81], [0.70, 0.68, 0.71], [0.79, 0.80, 0.80]]
    assert _worth_another_fold(found, {0, 1, 2}) == {0, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"param_grid": {"nothing": [1]}}, "the grid does not fit"), ({"scoring": "f1"}, "scoring is one of"), ({"cv": 1},
    "folds, not 1")],
)  # fmt: skip
def test_wrong_searches_are_explained(federation: fednb.Federation, change: dict[str, Any], message: str) -> None:
    params: dict[str, Any] = {"estimator": VerticalLogisticRegression(), "param_grid": {"C": [1.0]}, **change}
    with pytest.raises(DataError, match=message):
        VerticalGridSearch(**params).fit(frame(federation, "agency"), "bank.default")


def test_parts_of_one_alignment_can_be_joined_and_others_not(federation: fednb.Federation) -> None:
    whole = frame(federation, "agency")
    (_, first), (_, second) = whole.folds(2, 0)
    assert len(whole.joined([first, second], "both")) == ROWS
    with pytest.raises(DataError, match="not disjoint parts"):
        whole.joined([first, whole], "both")


@pytest.mark.slow
@pytest.mark.parametrize("others", [("agency",), ("agency", "utility")])
def test_one_against_the_rest_is_scikit_learns(federation: fednb.Federation, others: tuple[str, ...]) -> None:
    whole = frame(federation, *others, label="grade")
    model = VerticalOneVsRest(VerticalLogisticRegression(max_iter=8)).fit(whole, "bank.grade")
    assert model.classes_.tolist() == [1, 2, 3]
    found = model.evaluate(whole)
    X, _ = joined(others)
    Z, y = np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4), tables()["bank"]["own"]["grade"]
    reference = OneVsRestClassifier(LogisticRegression(C=1.0)).fit(Z, y)
    assert found.accuracy == pytest.approx(reference.score(Z, y), abs=0.025) and found.rows == ROWS
    counts = found.counts()
    assert counts.shape == (3, 3) and (counts.to_numpy(dtype=float, na_value=10) >= 10).all()


def test_a_class_of_few_rows_is_explained(federation: fednb.Federation) -> None:
    held = tables()
    held["bank"]["own"].loc[:3, "grade"] = 9
    with fednb.simulate(held) as other, pytest.raises(DataError, match="1 classes with fewer than 10 rows"):
        VerticalOneVsRest(VerticalLogisticRegression()).fit(frame(other, "agency", label="grade"), "bank.grade")
