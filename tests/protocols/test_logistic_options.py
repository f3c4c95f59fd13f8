"""Class weights, warm starts, L1: the centralised answer, and nothing more disclosed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fednb.crypto import paillier
from fednb.errors import CryptoError, DataError, Refused
from fednb.protocols import four_steps
from fednb.protocols.base import Dataset, Outcome
from fednb.protocols.features import Scaling, fit_scaling
from fednb.protocols.layout import Layout
from fednb.protocols.steps import Block, lasso
from fednb.protocols.warm import coefficients as warm_start
from fednb.protocols.weights import Weighting

Make = Callable[..., Any]


def standardised(parts: list[np.ndarray]) -> np.ndarray:
    X = np.hstack(parts)
    return np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4)


def coefficients(training: Any, out: Mapping[str, Outcome]) -> np.ndarray:
    return np.concatenate([out[member].private["coef"] for member in training.parties])


# ---------------------------------------------------------------- class weights


@pytest.mark.parametrize(
    ("widths", "weight", "allowed"),
    [
        ((2, 3), "balanced", 0.05),
        ((2, 3), (1.0, 6.0), 0.05),
        ((2, 3), (30.0, 15.0), 0.05),
        ((1, 1, 2), "balanced", 0.1),
    ],
)
def test_weighted_coefficients_are_scikit_learns(
    training: Make, widths: tuple[int, ...], weight: Any, allowed: float
) -> None:
    t = training(widths, n=250, class_weight=weight, C=0.5, max_iter=20)
    t.y[np.flatnonzero(t.y)[::2]] = 0.0  # a rarer class
    out = t.fit()
    given = weight if weight == "balanced" else dict(enumerate(weight))
    reference = LogisticRegression(C=0.5, tol=1e-8, class_weight=given).fit(standardised(t.parts), t.y)
    unweighted = LogisticRegression(C=0.5, tol=1e-8).fit(standardised(t.parts), t.y)
    assert np.abs(coefficients(t, out) - reference.coef_[0]).max() < allowed
    assert abs(out["bank"].private["intercept"] - reference.intercept_[0]) < allowed
    assert abs(out["bank"].private["intercept"] - unweighted.intercept_[0]) > 0.2


def test_equal_weights_change_only_the_penalty(training: Make) -> None:
    plain = training(n=150, C=3.0, max_iter=5)
    weighted = training(n=150, C=1.0, max_iter=5, class_weight=(3.0, 3.0))
    assert coefficients(plain, plain.fit()).tobytes() == coefficients(weighted, weighted.fit()).tobytes()


def test_weights_send_no_message_and_no_number_more(training: Make) -> None:
    tapes = []
    for weight in (None, "balanced"):
        t = training(n=150, max_iter=2, tol=0.0, class_weight=weight)
        t.fit()
        tapes.append([(s, r, type(m).__name__) for s, r, m in t.tape.messages])
        own = {name for s, r, m in t.tape.messages if r == "agency" for name in m.__struct_fields__}
        assert own == {"n", "terms", "windows", "stage", "norm"}
    assert sorted(tapes[0]) == sorted(tapes[1])


def test_what_others_know_of_balanced_weights_does_not_depend_on_the_labels() -> None:
    weighting = Weighting.of("balanced")
    for positives in (4, 500, 996):
        u = weighting.rows(np.repeat([0.0, 1.0], [1000 - positives, positives]))
        assert u is not None and u.mean() == pytest.approx(weighting.unit) and u.max() <= 2**weighting.bits
        assert u[0] == pytest.approx(1000 / (2 * (1000 - positives))) and u[-1] == pytest.approx(1000 / (2 * positives))
    with pytest.raises(DataError, match="fewer than 1 of 256 rows"):
        weighting.rows(np.repeat([0.0, 1.0], [997, 3]))


@pytest.mark.parametrize("weight", [(0.0, 1.0), (1.0, -2.0), (1.0, float("inf")), (float("nan"), 1.0), (1.0, 5000.0)])
def test_weights_that_cannot_be_used_are_refused(weight: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="class weights"):
        Weighting.of(weight)


@pytest.mark.parametrize("passives", [1, 2, 3])
@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_the_largest_weighted_residual_fits_and_a_larger_one_is_refused(stage: Any, passives: int) -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    layout = Layout.of(stage, key, 5, passives, 7)
    whole = 4.0 if passives == 1 else 16.0
    most = 0.99 * whole * 2.0**7
    packed = layout.pack(np.full((5, 1), -most))
    assert layout.packing.unpack(packed, 1)[0] == pytest.approx(-most * 2.0**layout.scale, rel=1e-4)
    with pytest.raises(CryptoError, match="outside"):
        layout.pack(np.full((5, 1), 1.02 * most))


@pytest.mark.parametrize("bits", [7, 10])
def test_weights_fit_a_slot_at_a_million_rows(bits: int) -> None:
    class Bits:
        bits = 2048

    for passives in (1, 2, 3):
        assert Layout.of("fine", Bits(), 30_000, passives, 0).fraction == 14  # type: ignore[arg-type]
        layout = Layout.of("fine", Bits(), 1_000_000, passives, bits)  # type: ignore[arg-type]
        assert layout.packing.slots >= 15 and layout.carry_scale in (0, 8) and layout.fraction >= 3


def test_a_bound_that_is_too_low_is_raised_when_the_gradient_grows() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    weights = np.where(X[:, 0] > 1.5, 40.0, 0.4)  # the heavy rows are far out: their mean says too little
    target = rng.normal(size=3)

    def gradient(v: np.ndarray) -> np.ndarray:
        return np.asarray(0.25 * (X.T * weights) @ X @ (v - target))

    def descend(most: float) -> tuple[float, Block]:
        block = Block(X, 1e6, 1, most=most)
        for _ in range(60):
            block.heed(block.step(gradient(block.v))[0])
        return float(np.abs(block.w - target).max()), block

    lost, _ = descend(1.0)
    assert lost > 100.0
    found, block = descend(128.0)
    assert found < 0.1
    again = Block(X, 1e6, 1, most=128.0)
    again.restore(block.state())
    for b in (block, again):
        b.step(gradient(b.v))
    assert np.array_equal(block.w, again.w)


# ---------------------------------------------------------------- warm start


def own_parts(out: Mapping[str, Outcome]) -> dict[str, Mapping[str, Any]]:
    return {member: outcome.private for member, outcome in out.items() if member != "coordinator"}


@pytest.mark.parametrize("widths", [(2, 3), (0, 2, 2)])
def test_a_warm_start_goes_on_from_each_partys_own_coefficients(training: Make, widths: tuple[int, ...]) -> None:
    t = training(widths, n=200, max_iter=20, tol=1e-3)
    cold = t.fit()
    t.earlier, t.params["warm_start"] = own_parts(cold), True
    warm = t.fit()
    assert warm["bank"].public["n_iter"] < cold["bank"].public["n_iter"]
    first = [out["bank"].public["history"]["gradient_norm"][0] for out in (warm, cold)]
    assert first[0] < first[1] / 10
    assert warm["bank"].public["converged"]
    assert np.abs(coefficients(t, warm) - coefficients(t, cold)).max() < 0.05


def test_a_warm_start_on_other_rows_ends_at_their_model(training: Make, training_on: Make) -> None:
    t = training(n=400)
    first = training_on([X[:200] for X in t.parts], t.y[:200], max_iter=20, tol=1e-3)
    second = training_on([1.5 * X[200:] + 2 for X in t.parts], t.y[200:], max_iter=20, tol=2e-4)
    cold = second.fit()
    second.earlier, second.params["warm_start"] = own_parts(first.fit()), True
    warm = second.fit()
    assert np.abs(coefficients(second, warm) - coefficients(second, cold)).max() < 0.01
    assert abs(warm["bank"].private["intercept"] - cold["bank"].private["intercept"]) < 0.01


def test_coefficients_are_converted_to_the_figures_of_the_new_rows() -> None:
    rng = np.random.default_rng(0)
    X, coef = rng.normal(3, 2, (100, 2)), np.array([0.5, -0.7])
    old, new = (fit_scaling(rows, standardize=True, clip=None) for rows in (X[:50], 3 * X[50:] + 1))
    part = {"coef": coef, "intercept": -1.0, "columns": ["a", "b"], **old.to_part()}
    start = warm_start("bank", Dataset(columns=("a", "b"), label="default", part=part), new)
    np.testing.assert_allclose(new.apply(X) @ start[:2] + start[2], old.apply(X) @ coef - 1.0, atol=1e-12)
    passive = warm_start("agency", Dataset(columns=("a", "b"), part=part), new)
    assert passive.tolist() == [*start[:2], 0.0]


SCALING = Scaling(*np.array([[-np.inf] * 2, [np.inf] * 2, [0.0] * 2, [1.0] * 2]))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({}, "bank holds no coefficients of an earlier fit"),
        ({"scores": np.zeros(3)}, "bank holds no coefficients of an earlier fit"),
        ({"coef": np.zeros(1), "columns": ["a"]}, r"bank was trained on other columns.*\(b\)"),
        ({"coef": np.zeros(2), "columns": ["b", "a"]}, "another order"),
        ({"coef": np.zeros(2), "columns": ["a", "b"]}, "held no label in the earlier fit"),
    ],
)
def test_a_part_that_is_no_model_of_these_columns_is_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        warm_start("bank", Dataset(columns=("a", "b"), label="default", part=part), SCALING)


def test_a_warm_start_without_an_earlier_fit_is_explained(training: Make) -> None:
    with pytest.raises(DataError, match="holds no coefficients of an earlier fit to start from"):
        training(n=60, warm_start=True).fit()


# ---------------------------------------------------------------- L1 and elastic net


@pytest.mark.parametrize(
    ("widths", "C", "l1_ratio"), [((3, 4), 0.05, 1.0), ((3, 4), 0.02, 0.5), ((2, 2, 3), 0.05, 1.0), ((0, 4), 0.1, 1.0)]
)
def test_the_l1_penalty_gives_scikit_learns_zeros(
    training: Make, widths: tuple[int, ...], C: float, l1_ratio: float
) -> None:
    t = training(widths, n=300, C=C, l1_ratio=l1_ratio, max_iter=18)
    reference = LogisticRegression(C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-8, max_iter=20_000)
    expected = reference.fit(standardised(t.parts), t.y).coef_[0]
    found = coefficients(t, t.fit())
    clear = (expected == 0) | (np.abs(expected) > 0.03)
    assert np.array_equal((found == 0)[clear], (expected == 0)[clear]) and (found == 0).any() and (found != 0).any()
    assert np.abs(found - expected).max() < (0.03 if len(widths) == 2 else 0.06)


def test_a_step_minimises_the_penalised_bound() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(20, 6))
    A[:, 5] = A[:, 4]  # singular
    quadratic, v, gradient = A.T @ A, rng.normal(size=6), 5 * rng.normal(size=6)
    threshold = np.array([4.0, 4.0, 30.0, 4.0, 4.0, 0.0])
    w = lasso(quadratic, v, gradient, threshold, np.zeros(6))

    def value(w: np.ndarray) -> float:
        return float(gradient @ (w - v) + (w - v) @ quadratic @ (w - v) / 2 + threshold @ np.abs(w))

    assert w[2] == 0.0
    assert all(value(w) <= value(w + step) + 1e-9 for step in rng.normal(size=(500, 6)) * 10.0 ** rng.uniform(-5, 0))


def test_l1_copes_with_repeated_features(training: Make) -> None:
    t = training((2, 3), n=200, l1_ratio=1.0, C=0.1, max_iter=20, tol=1e-3)
    t.parts[1][:, 2] = -2 * t.parts[1][:, 1]
    out = t.fit()
    assert out["bank"].public["converged"] and np.isfinite(coefficients(t, out)).all()


def test_a_large_penalty_leaves_the_intercept_alone(training: Make) -> None:
    t = training(n=200, l1_ratio=1.0, C=1e-4, max_iter=15)
    out = t.fit()
    assert not coefficients(t, out).any()
    rate = t.y.mean()
    assert out["bank"].private["intercept"] == pytest.approx(np.log(rate / (1 - rate)), abs=0.02)


# ---------------------------------------------------------------- wide tables


def test_hundreds_of_features_are_multiplied_in_parts(training: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = (120, 60, 40)
    models = []
    for at_once in (four_steps.FACTORS_AT_ONCE, 50_000):
        monkeypatch.setattr(four_steps, "FACTORS_AT_ONCE", at_once)
        t = training(widths, n=260, max_iter=2, C=0.01)
        out = t.fit()
        models.append(coefficients(t, out))
    assert models[0].shape == (220,)
    assert np.corrcoef(models[0], LogisticRegression(C=0.01).fit(standardised(t.parts), t.y).coef_[0])[0, 1] > 0.8
    assert models[0].tobytes() == models[1].tobytes()
    assert "2 passive parties" in out["bank"].public["notes"][1]


# ---------------------------------------------------------------- bounds


def bounded_reference(Z: np.ndarray, y: np.ndarray, bounds: list[tuple[float, float]]) -> np.ndarray:
    """scikit-learn's objective within bounds, by L-BFGS-B."""
    from scipy.optimize import minimize

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = Z @ w[:-1] + w[-1]
        p = 1 / (1 + np.exp(-z))
        value = 0.5 * w[:-1] @ w[:-1] + np.sum(np.logaddexp(0, z) - y * z)
        return float(value), np.append(Z.T @ (p - y) + w[:-1], np.sum(p - y))

    start = np.zeros(Z.shape[1] + 1)
    return np.asarray(minimize(objective, start, jac=True, bounds=[*bounds, (None, None)], method="L-BFGS-B").x)


@pytest.mark.parametrize("widths", [(2, 2), (2, 1, 1)])
def test_bounded_coefficients_are_those_of_the_bounded_optimum(training: Make, widths: tuple[int, ...]) -> None:
    t = training(widths, n=400, max_iter=40, tol=1e-4)
    X = np.hstack(t.parts)
    Z = np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4)
    free = bounded_reference(Z, t.y, [(None, None)] * 4)  # type: ignore[list-item]
    bank = (None, 0.5 * float(free[0])) if free[0] > 0 else (0.5 * float(free[0]), None)
    agency = (None, 0.0) if free[2] > 0 else (0.0, None)  # the sign that it would not have by itself
    t.params["bounds"] = {"bank": {"bank_0": bank}, "agency": {"agency_0": agency}}
    out = t.fit()
    found = np.concatenate([out[member].private["coef"] for member in t.parties])
    expected = bounded_reference(Z, t.y, [bank, (None, None), agency, (None, None)])  # type: ignore[list-item]
    assert found[0] == pytest.approx(0.5 * float(free[0])) and found[2] == 0.0
    assert found == pytest.approx(expected[:-1], abs=0.04)
    assert out["bank"].public["converged"]


@pytest.mark.parametrize("bound", [(1.0, 1.0), (None, 2.0), (-0.5, 0.0)])
def test_a_passive_party_lets_nobody_choose_its_coefficients(training: Make, bound: Any) -> None:
    with pytest.raises(Refused, match="accepts signs only"):
        training(max_iter=1, bounds={"agency": {"agency_0": bound}}).fit()


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({"bank": {"nothing": (0.0, None)}}, "no feature in this run"), ({"bank": {"bank_0": (2.0, 1.0)}}, "no interval")],
)
def test_bounds_that_cannot_be_are_explained(training: Make, bounds: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        training(max_iter=1, bounds=bounds).fit()
