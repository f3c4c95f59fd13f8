"""Figures against scikit-learn, intervals against simulation, and no point behind fewer than ten rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score, roc_curve

from fednb.errors import DataError
from fednb.protocols import evaluation
from fednb.protocols.base import Dataset, RunContext
from fednb.protocols.evaluation import EvaluationParams, _bin_ends, assess, auc, delong
from fednb.wire.loopback import play


def scored(n: int = 800, digits: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = np.round(1 / (1 + np.exp(-rng.normal(-1, 1.2, n))), digits)
    return (rng.random(n) < p).astype(float), p


@pytest.mark.parametrize("digits", [6, 1])  # without ties, and almost nothing but ties
def test_figures_are_scikit_learns(digits: int) -> None:
    y, p = scored(digits=digits)
    fpr, tpr, _ = roc_curve(y, p)
    said = assess(y, p)
    assert said.auc.value == pytest.approx(roc_auc_score(y, p))
    assert auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert said.gini.value == pytest.approx(2 * roc_auc_score(y, p) - 1)
    assert said.ks.value == pytest.approx(np.max(tpr - fpr))
    assert said.log_loss.value == pytest.approx(log_loss(y, p))
    assert (said.rows, said.positives) == (800, int(y.sum()))


@pytest.mark.parametrize("digits", [6, 1])
def test_delong_is_the_variance_of_its_definition(digits: int) -> None:
    y, p = scored(150, digits)
    pairs = np.sign(p[y == 1][:, None] - p[y == 0]) / 2 + 0.5
    m, n = pairs.shape
    variance = pairs.mean(axis=1).var(ddof=1) / m + pairs.mean(axis=0).var(ddof=1) / n
    area, error = delong(y, p)
    assert area == pytest.approx(pairs.mean()) and error == pytest.approx(np.sqrt(variance))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    truth_auc, truth_ks = 0.7602, 0.3829  # of N(1, 1) against N(0, 1)
    hits = np.zeros(2)
    for _ in range(60):
        y = (rng.random(400) < 0.4).astype(float)
        p = 1 / (1 + np.exp(-(rng.normal(size=400) + y)))
        said = assess(y, p, level=0.8, rng=rng)
        hits += [said.auc.low < truth_auc < said.auc.high, said.ks.low < truth_ks < said.ks.high]
    assert 0.65 < hits[0] / 60 < 0.95 and 0.55 < hits[1] / 60 < 0.95


def test_the_same_data_gives_the_same_intervals() -> None:
    y, p = scored()
    assert assess(y, p) == assess(y, p)


def test_a_perfect_ranking_has_no_room_for_doubt() -> None:
    y = np.repeat([0.0, 1.0], 30)
    said = assess(y, np.linspace(0, 1, 60))
    assert (said.auc.value, said.auc.low, said.auc.high) == (1.0, 1.0, 1.0)
    assert said.ks.value == 1.0 and np.isfinite(said.log_loss.value)


def test_curves_run_from_corner_to_corner_through_the_true_roc() -> None:
    y, p = scored(2000)
    said = assess(y, p)
    fpr, tpr, _ = roc_curve(y, p, drop_intermediate=False)
    for curve in ((said.roc.fpr, said.roc.tpr), (said.gains.rows, said.gains.positives)):
        assert curve[0][0] == curve[1][0] == 0.0 and curve[0][-1] == curve[1][-1] == 1.0
        assert np.all(np.diff(curve[0]) >= 0) and np.all(np.diff(curve[1]) >= 0)
    points = set(zip(fpr.round(9), tpr.round(9), strict=True))
    assert all(point in points for point in zip(np.round(said.roc.fpr, 9), np.round(said.roc.tpr, 9), strict=True))
    assert sum(said.calibration.rows) == 2000 and len(said.calibration.rows) == 10
    assert np.all(np.diff(said.calibration.predicted) > 0)
    assert np.dot(said.calibration.observed, said.calibration.rows) == pytest.approx(y.sum())


@given(st.integers(20, 400), st.integers(1, 30), st.integers(0, 10**6))
def test_no_bin_has_fewer_than_ten_rows_and_equal_scores_share_one(n: int, values: int, seed: int) -> None:
    scores = np.sort(np.random.default_rng(seed).integers(0, values, n) / values)[::-1]
    ends = _bin_ends(scores, 100)
    sizes = np.diff(ends, prepend=0)
    assert ends[-1] == n and sizes.min() >= 10 or len(ends) == 1
    for end in ends[:-1]:
        assert scores[end - 1] != scores[end]


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        (np.r_[np.ones(9), np.zeros(40)], np.full(49, 0.5), "9 of 49 rows are positive"),
        (np.r_[np.ones(20), np.zeros(20)], np.full(39, 0.5), "40 labels and 39 scores"),
        (np.r_[np.ones(20), np.zeros(20)], np.full(40, 1.5), "probabilities"),
        (np.r_[np.ones(20), np.zeros(20)], np.full(40, np.nan), "probabilities"),
        (np.r_[np.ones(20), np.full(20, 2.0)], np.full(40, 0.5), "labels must be 0 or 1"),
    ],
)
def test_what_cannot_be_assessed_is_explained(y: np.ndarray, p: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assess(y, p)


def play_active(data: Dataset) -> Any:
    roles = {"bank": lambda link: evaluation.active(link, data, EvaluationParams(), RunContext())}
    return play(roles, {"active": ("bank",)})["bank"]


def test_the_role_publishes_aggregates_that_can_travel() -> None:
    import msgspec

    y, p = scored()
    out = play_active(Dataset(y=y, part={"scores": p}))
    assert not out.private
    public = msgspec.msgpack.decode(msgspec.msgpack.encode(out.public))
    assert public["auc"]["low"] < public["auc"]["value"] < public["auc"]["high"]
    assert set(public) == {
        "rows", "positives", "level", "auc", "ks", "gini", "log_loss", "brier", "roc", "gains", "calibration"
    }  # fmt: skip


def test_the_role_needs_scores_and_labels() -> None:
    with pytest.raises(DataError, match="bank holds no scores"):
        play_active(Dataset(y=np.zeros(3)))
    with pytest.raises(DataError, match="bank brought no label"):
        play_active(Dataset(part={"scores": np.zeros(3)}))
    with pytest.raises(DataError, match="cannot be evaluated: 0 of 30 rows"):
        play_active(Dataset(y=np.zeros(30), part={"scores": np.full(30, 0.5)}))
