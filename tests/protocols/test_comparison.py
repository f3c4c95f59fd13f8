"""Differences of two models, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from fednb.errors import DataError
from fednb.protocols import comparison
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.comparison import CompareParams, NoParams, approved, compare
from fednb.protocols.evaluation import assess
from fednb.wire.loopback import play


def made(n: int = 600, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = (x.sum(axis=1) + rng.logistic(size=n) > 0.8).astype(float)
    return y, 1 / (1 + np.exp(-x[:, 0])), 1 / (1 + np.exp(-x.sum(axis=1)))


def test_the_better_model_is_better_by_the_difference_of_its_figures() -> None:
    y, weak, strong = made()
    found = compare(y, weak, strong, bad_rate=0.2)
    assert found.auc.change == pytest.approx(roc_auc_score(y, strong) - roc_auc_score(y, weak))
    assert 0 < found.auc.low < found.auc.change < found.auc.high and found.auc.p < 0.01
    assert found.ks.change > 0 and found.approved.change > 0
    back = compare(y, strong, weak, bad_rate=0.2)
    assert back.auc.change == pytest.approx(-found.auc.change) and back.auc.high == pytest.approx(-found.auc.low)


def test_a_model_beside_itself_is_worth_nothing() -> None:
    y, weak, _ = made()
    found = compare(y, weak, weak)
    for figure in (found.auc, found.ks, found.approved):
        assert figure.change == figure.low == figure.high == 0.0 and figure.p == 1.0


def test_the_interval_covers_chance_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        y = (rng.random(150) < 0.4).astype(float)
        found = compare_auc(y, rng.random(150), rng.random(150))
        inside += found.low <= 0.0 <= found.high
    assert 0.90 <= inside / 200 <= 0.99


def compare_auc(y: np.ndarray, first: np.ndarray, second: np.ndarray) -> Any:
    before = comparison.RESAMPLES
    comparison.RESAMPLES = 2  # type: ignore[misc]
    try:
        return compare(y, first, second).auc
    finally:
        comparison.RESAMPLES = before  # type: ignore[misc]


def test_approvals_are_the_longest_run_of_good_scores_within_the_bad_rate() -> None:
    y = np.array([0, 0, 1, 0, 0, 1, 1, 0.0])
    order = np.arange(8)
    assert approved(y, order, np.ones(8), 0.2) == 5 / 8
    assert approved(y, order, np.ones(8), 0.0) == 2 / 8
    assert approved(1 - y, order, np.ones(8), 0.0) == 0.0


def ask(protocol: Any, params: Any, y: Any, *scores: np.ndarray, X: Any = None) -> Outcome:
    data = Dataset(X=X, y=y, label="default", parts=tuple({"scores": s} for s in scores))
    roles = {"bank": lambda link: protocol(link, data, params, RunContext())}
    return play(roles, {"active": ("bank",)}, timeout=30)["bank"]


def test_only_aggregates_of_enough_rows_leave() -> None:
    y, weak, strong = made()
    public = ask(comparison.active, CompareParams(), y, weak, strong).public
    assert set(public) == {"rows", "positives", "bad_rate", "auc", "ks", "approved"}
    with pytest.raises(DataError, match="100 or more with 10 of each class"):
        ask(comparison.active, CompareParams(), y[:99], weak[:99], strong[:99])
    few = np.where(np.arange(600) < 9, 1.0, 0.0)
    with pytest.raises(DataError, match="fewer than 10 rows of one class"):
        ask(comparison.active, CompareParams(), few, weak, strong)
    with pytest.raises(DataError, match="holds no scores of these 2 runs"):
        ask(comparison.active, CompareParams(), y, weak)


def test_scores_that_shifted_have_a_large_index() -> None:
    _, weak, _ = made()
    assert ask(comparison.stability, NoParams(), None, weak, weak).public == {"psi": 0.0}
    assert ask(comparison.stability, NoParams(), None, weak, np.clip(weak + 0.3, 0, 1)).public["psi"] > 0.25
    with pytest.raises(DataError, match="needs 100 each"):
        ask(comparison.stability, NoParams(), None, weak, weak[:50])


def test_the_brier_score_is_scikit_learns_and_curves_have_cut_offs() -> None:
    y, _, strong = made()
    found = assess(y, strong)
    assert found.brier is not None and found.brier.value == pytest.approx(brier_score_loss(y, strong))
    assert found.brier.low < found.brier.value < found.brier.high
    assert len(found.roc.threshold) == len(found.roc.fpr) - 1 and not set(found.roc.threshold) & set(strong.tolist())
    assert found.roc.threshold == sorted(found.roc.threshold, reverse=True)
