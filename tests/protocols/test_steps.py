"""The expansion of the sigmoid, each party's steps, features, packing, and when training goes on, changes or stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.crypto import paillier
from fednb.errors import CryptoError, DataError
from fednb.protocols.features import Scaling, check_features, check_training, fit_scaling
from fednb.protocols.layout import Layout, largest
from fednb.protocols.separable import COARSE, FINE, Expansion, averaged, sigmoid, spread_of
from fednb.protocols.steps import Block, Schedule

# ---------------------------------------------------------------- the sigmoid


@pytest.mark.parametrize(("expansion", "allowed"), [(COARSE, 0.11), (FINE, 0.08)])
def test_a_sum_of_products_is_near_the_sigmoid_of_a_sum(expansion: Expansion, allowed: float) -> None:
    a, b = np.linspace(-3, 3, 61), np.linspace(-3, 3, 61)
    f, g = expansion.factors(a, 1.0), np.column_stack([np.ones(61), expansion.basis(b)])
    error = np.abs(f @ g.T - sigmoid(a[:, None] + b))
    assert error.max() < allowed
    typical = np.exp(-(a[:, None] ** 2) / 2 - b**2 / 2)
    assert np.average(error, weights=typical) < allowed / 8


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.7, 4.0), st.integers(0, 3))
def test_scores_of_any_size_give_a_bounded_residual(a: float, b: float, spread: float, others: int) -> None:
    for expansion in (COARSE, FINE):
        f = expansion.factors(np.array([a]), spread, others)
        assert np.abs(f).max() < 2.0  # what Layout plans for, less the label
        assert abs(f[0, 0] + f[0, 1:] @ expansion.basis(np.array([b]))[0]) < 2.1


@pytest.mark.parametrize(("others", "spread"), [(1, 1.0), (2, 1.0), (1, 3.0)])
def test_unknown_scores_are_averaged_out(others: int, spread: float) -> None:
    z, rng = np.linspace(-4, 4, 9), np.random.default_rng(0)
    drawn = sigmoid(z[:, None] + rng.normal(size=(9, 40_000)) * spread * np.sqrt(others)).mean(axis=1)
    assert np.abs(averaged(z, others, spread) - drawn).max() < 0.02


def test_the_spread_of_others_is_taken_from_own_scores_within_bounds() -> None:
    a = np.random.default_rng(0).normal(size=500)
    assert spread_of(a * 1.5) == pytest.approx(np.std(a) * 1.5)
    assert spread_of(np.zeros(5)) == 0.7 and spread_of(a * 1e6) == 4.0


def test_what_another_party_adds_is_carried_over_on_average() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(-1, 0.7, 400), rng.normal(0, 0.6, 400), rng.normal(0, 0.8, 400)
    f = FINE.factors(a, 0.7, 1) + np.column_stack([np.ones(400), FINE.basis(c)]) @ FINE.carry(a, 0.7, 1).T
    with_carry = np.sum(f * np.column_stack([np.ones(400), FINE.basis(b)]), axis=1)
    without = np.sum(FINE.factors(a, 0.7, 1) * np.column_stack([np.ones(400), FINE.basis(b)]), axis=1)
    truth = sigmoid(a + b + c)
    assert np.abs(with_carry - truth).mean() < 0.3 * np.abs(without - truth).mean()


# ---------------------------------------------------------------- packing


@pytest.mark.parametrize("passives", [1, 2, 3])
@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_numbers_come_back_from_the_layout_as_multiples_of_four(stage: str, passives: int) -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    layout = Layout.of(stage, key, 23, passives)  # type: ignore[arg-type]
    numbers = np.random.default_rng(0).uniform(-0.99, 0.99, (23, 3))
    for packed, scale in ((layout.pack(numbers), layout.scale), (layout.pack_scores(numbers), layout.score_scale)):
        assert len(packed) == 3 * layout.length
        flat = layout.packing.unpack(packed, len(packed) * layout.packing.slots).reshape(3, -1)
        assert np.all(flat % 4 == 0) and np.all(flat[:, 23:] == 0)
        np.testing.assert_allclose(np.ldexp(flat[:, :23].astype(float), -scale).T, numbers, atol=2.0**-layout.fraction)


def test_a_number_beyond_the_plan_is_refused() -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    with pytest.raises(CryptoError, match="outside"):
        Layout.of("coarse", key, 5, 1).pack(np.full((5, 1), 4.0))


@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_factors_use_the_bits_that_each_column_allows(stage: str) -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    layout = Layout.of(stage, key, 6, 1)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    left, X = rng.normal(size=(6, 2)), rng.normal(size=(6, 3)) * [1e-6, 0.0, 1e6]
    values = left.T[:, :, None] * X
    shift = layout.shifts(largest(left, X))
    whole = layout.factors(left, X, shift)
    layout.packing.check_columns(whole)
    assert np.abs(whole[:, [0, 2]]).max(axis=0).min() >= (1 << layout.packing.right_bits - 2) - 1
    assert not whole[:, 1].any()
    back = np.ldexp(whole.reshape(2, -1, 3)[:, :6].astype(float), -shift)
    for j in range(3):
        np.testing.assert_allclose(back[:, :, j], values[:, :, j], atol=np.abs(values[:, :, j]).max() * 2.0**-8)


@pytest.mark.parametrize("terms", [1, 3])
def test_rounding_errors_of_a_category_do_not_add_up(terms: int) -> None:
    key = paillier.generate(512, insecure_short_key=True).public
    layout = Layout.of("coarse", key, 3000, 1)
    X = np.random.default_rng(0).choice([-0.3013, 3.877], size=(3000, 2))
    left = np.full((3000, terms), 0.7)
    shift = layout.shifts(largest(left, X))
    whole = layout.factors(left, X, shift)
    back = np.ldexp(whole.reshape(terms, -1, 2)[:, :3000].astype(float), -shift)
    assert np.abs(back - 0.7 * X).max() > 2e-3  # one number is rounded
    for value in np.unique(X):
        for j in range(2):
            assert np.abs((back - 0.7 * X)[:, X[:, j] == value, j].mean(axis=1)).max() < 4e-4


def test_a_million_rows_still_fit_a_slot() -> None:
    class Bits:
        bits = 2048

    for passives in (1, 2):
        assert Layout.of("fine", Bits(), 1_000_000, passives).packing.slots >= 15  # type: ignore[arg-type]


# ---------------------------------------------------------------- steps


def test_blocks_that_know_only_their_own_features_reach_the_joint_optimum() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    common = rng.normal(size=(500, 1))
    X = [common + rng.normal(size=(500, 3)), common + rng.normal(size=(500, 4))]
    y = (rng.random(500) < sigmoid(X[0] @ [1, -1, 0.5] + X[1] @ [0.5, 0.5, -1, 0])).astype(float)
    blocks = [Block(np.column_stack([X[0], np.ones(500)]), 1.0, 2, intercept=True), Block(X[1], 1.0, 2)]
    for _ in range(150):
        residual = sigmoid(sum(block.X @ block.at() for block in blocks)) - y
        norm = max(block.step(block.X.T @ residual)[0] for block in blocks)
    reference = LogisticRegression(tol=1e-10, max_iter=1000).fit(np.hstack(X), y)
    assert norm < 1e-5
    np.testing.assert_allclose(np.r_[blocks[0].w[:3], blocks[1].w], reference.coef_[0], atol=1e-3)
    assert blocks[0].w[3] == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_a_block_continues_from_its_state() -> None:
    rng = np.random.default_rng(0)
    X, gradients = rng.normal(size=(30, 2)), rng.normal(size=(6, 2))
    one, two = Block(X, 1.0, 2), Block(X, 1.0, 2)
    for g in gradients[:3]:
        one.step(g)
    two.restore(one.state())
    for g in gradients[3:]:
        assert one.step(g)[0] == two.step(g)[0]
    assert np.array_equal(one.w, two.w)


def run_schedule(schedule: Schedule, norms: list[float]) -> list[str]:
    return [schedule.after(norm) for norm in norms]


def test_the_fine_stage_begins_when_the_coarse_one_is_nearly_done() -> None:
    schedule = Schedule(20, 1e-3, "staged")
    assert run_schedule(schedule, [0.3, 0.01, 0.0015, 0.0009, 0.0008, 0.0007]) == [
        "coarse", "coarse", "fine", "fine", "fine", "stop"
    ]  # fmt: skip
    assert schedule.converged


@pytest.mark.parametrize(("max_iter", "coarse"), [(1, 1), (2, 1), (8, 4), (20, 15)])
def test_the_last_iterations_are_fine_even_if_the_coarse_ones_did_not_converge(max_iter: int, coarse: int) -> None:
    stages = run_schedule(Schedule(max_iter, 1e-3, "staged"), [0.3] * max_iter)
    assert stages[-1] == "stop" and 1 + stages.count("coarse") == coarse
    assert len(stages) == max_iter


@pytest.mark.parametrize("sigmoid_choice", ["coarse", "fine"])
def test_one_stage_alone_stops_at_the_tolerance(sigmoid_choice: str) -> None:
    assert run_schedule(Schedule(20, 1e-3, sigmoid_choice), [0.3, 0.002, 0.0005]) == [sigmoid_choice] * 2 + ["stop"]


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), 3.1])
def test_divergence_is_detected_and_explained(norm: float) -> None:
    schedule = Schedule(20, 1e-3, "staged")
    run_schedule(schedule, [0.3, 0.2, 0.25, 0.2])
    with pytest.raises(DataError, match="training diverges: at iteration 5.*winsorise"):
        schedule.after(norm)


def test_a_schedule_continues_from_its_state() -> None:
    one, two = Schedule(20, 1e-3, "staged"), Schedule(20, 1e-3, "staged")
    run_schedule(one, [0.3, 0.0015, 0.0009])
    two.restore(one.state())
    assert run_schedule(one, [0.0008, 0.0007]) == run_schedule(two, [0.0008, 0.0007]) == ["fine", "stop"]


# ---------------------------------------------------------------- features


def test_features_are_winsorised_scaled_and_centred_by_their_training_rows() -> None:
    X = np.random.default_rng(0).normal(5, 3, (200, 2))
    X[0, 1] = 1e4
    scaling = fit_scaling(X, standardize=True, clip=2.0)
    expected = np.clip((X - X.mean(axis=0)) / X.std(axis=0), -2, 2)
    np.testing.assert_allclose(scaling.apply(X), expected - expected.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(scaling.apply(X).mean(axis=0), 0, atol=1e-12)
    again = Scaling.from_part(scaling.to_part())
    assert np.array_equal(again.apply(X[:3] * 9), scaling.apply(X[:3] * 9))


def test_without_clip_new_extremes_are_left_alone() -> None:
    X = np.arange(20.0)[:, None]
    scaling = fit_scaling(X, standardize=False, clip=None)
    assert scaling.apply(np.array([[1e6]]))[0, 0] == 1e6 - X.mean()


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(DataError, match="agency brought no table of features for its 3 columns"):
        check_features("agency", np.zeros((5, 2)), ("a", "b", "c"))


def test_two_values_need_ten_rows_each_but_more_values_do_not() -> None:
    X = np.zeros((100, 1))
    X[:10] = 1
    check_training("agency", X, ("flag",))
    X[9] = 0
    with pytest.raises(DataError, match="'flag' has two values and one of them stands in 9"):
        check_training("agency", X, ("flag",))
    X[9] = 2
    check_training("agency", X, ("flag",))


def test_the_pictures_and_tables_of_protocols_are_in_their_files() -> None:
    """What a protocol discloses stands at its top, for whoever reads the code first."""
    import fednb.protocols as package

    for name in ("psi", "vertical_logistic", "vertical_score", "evaluation", "scores"):
        text = (Path(package.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        assert "| role | learns" in text.split('"""')[1], name
