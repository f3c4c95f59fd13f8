"""Cuts, weights and merging, against the published formulas and against trying every grouping."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fednb.protocols.cuts import Cuts, fit_cuts
from fednb.protocols.evidence import NEUTRAL, information, merged, woe


def test_values_on_a_cut_belong_to_the_upper_bin_and_codes_have_their_own() -> None:
    cuts = Cuts(np.array([0.0, 2.0]), special=(99.0,))
    cells = cuts.cells(np.array([-1.0, 0.0, 1.9, 2.0, 50.0, np.nan, 99.0]))
    assert cells.tolist() == [0, 1, 1, 2, 2, 3, 4]
    assert [cuts.name(cell) for cell in (0, 2, 3, 4)] == ["values", "values", "missing", "special 1"]


@pytest.mark.parametrize("method", ["quantile", "width"])
def test_every_bin_has_the_rows_it_needs(method: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.exp(rng.normal(size=500) * 2), np.full(300, 1.0), [np.nan] * 7, [-9.0] * 40])
    cuts = fit_cuts(x, bins=20, method=method, least=10, special=[-9.0])  # type: ignore[arg-type]
    rows = np.bincount(cuts.cells(x), minlength=cuts.size)
    assert (rows[: cuts.ordered] >= 10).all()
    assert rows[cuts.ordered :].tolist() == [7, 40]
    assert -9.0 not in cuts.points


def test_columns_with_few_values_get_a_bin_a_value() -> None:
    cuts = fit_cuts(np.repeat([1.0, 2.0, 7.0], 20), bins=5, method="quantile", least=10)
    assert cuts.points.tolist() == [2.0, 7.0]


@pytest.mark.parametrize("x", [np.full(50, 3.0), np.full(50, np.nan)])
def test_columns_that_tell_nothing_get_no_cut(x: np.ndarray) -> None:
    assert len(fit_cuts(x, bins=5, method="quantile", least=10).points) == 0
    assert len(fit_cuts(x, bins=5, method="width", least=10).points) == 0


def test_cut_points_that_leave_too_few_rows_are_left_out() -> None:
    x = np.arange(100.0)
    assert fit_cuts(x, bins=5, method="quantile", least=10, given=[5, 10, 15, 50, 95]).points.tolist() == [10, 50]


def test_weights_follow_the_published_formula() -> None:
    rows, positives = np.array([100, 50, 30]), np.array([10, 20, 0])
    expected = [np.log((90 / 150) / (10 / 30)), np.log((30 / 150) / (20 / 30)), 0.0]
    assert woe(rows, positives, 180, 30) == pytest.approx(expected, abs=1e-12)
    shares = [90 / 150 - 10 / 30, 30 / 150 - 20 / 30, 0.0]
    assert information(rows, positives, 180, 30) == pytest.approx(np.multiply(shares, expected), abs=1e-12)


def best_by_trying(n: np.ndarray, e: np.ndarray, trend: str, least: int, most: int) -> float:
    best = -np.inf
    for kept in itertools.product([False, True], repeat=len(n) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(kept) if cut), len(n)]
        N = np.array([n[a:b].sum() for a, b in itertools.pairwise(edges)])
        E = np.array([e[a:b].sum() for a, b in itertools.pairwise(edges)])
        steps = np.diff(E / N)
        if len(N) > most or (least > N).any() or (E == 0).any() or (E == N).any():
            continue
        if trend == "monotone" and not ((steps >= 0).all() or (steps <= 0).all()):
            continue
        best = max(best, float(information(N, E, n.sum(), e.sum()).sum()))
    return best


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("merge", ["monotone", "optimal"])
def test_merging_is_as_good_as_the_best_of_all_groupings(seed: int, merge: str) -> None:
    rng = np.random.default_rng(seed)
    n = rng.integers(10, 60, 8)
    e = rng.binomial(n, rng.uniform(0, 0.6, 8))
    groups = merged(n, e, n.sum(), e.sum(), ordered=8, merge=merge, least=25, most=4)  # type: ignore[arg-type]
    assert set(np.diff(groups).tolist()) <= {0, 1}
    rows = np.array([n[groups == b].sum() for b in range(groups.max() + 1)])
    positives = np.array([e[groups == b].sum() for b in range(groups.max() + 1)])
    found = float(information(rows, positives, n.sum(), e.sum()).sum())
    assert (rows >= 25).all() and len(rows) <= 4
    assert found == pytest.approx(best_by_trying(n, e, merge, 25, 4), abs=1e-12)


def test_without_merging_bins_of_one_class_are_still_joined() -> None:
    n, e = np.array([20, 20, 20, 20, 20]), np.array([0, 3, 20, 4, 0])
    groups = merged(n, e, 100, 27, ordered=5, merge="none", least=50, most=1)
    assert groups.tolist() == [0, 0, 1, 1, 1]


def test_missing_values_of_one_class_weigh_nothing() -> None:
    n, e = np.array([40, 40, 15, 15]), np.array([5, 20, 0, 7])
    for merge in ("monotone", "optimal", "none"):
        groups = merged(n, e, 110, 32, ordered=2, merge=merge, least=10, most=5)  # type: ignore[arg-type]
        assert groups.tolist() == [0, 1, NEUTRAL, 2]


def test_a_column_whose_values_have_one_class_weighs_nothing() -> None:
    n, e = np.array([40, 40, 30]), np.array([0, 0, 11])
    for merge in ("monotone", "optimal", "none"):
        groups = merged(n, e, 110, 11, ordered=2, merge=merge, least=10, most=5)  # type: ignore[arg-type]
        assert groups.tolist() == [NEUTRAL, NEUTRAL, 0]
