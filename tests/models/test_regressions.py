"""Linear and Poisson regression as their user sees them: over a simulation, with keys of full length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.metrics import d2_tweedie_score, log_loss, mean_absolute_error, r2_score

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import (
    VerticalLinearRegression,
    VerticalLogisticRegression,
    VerticalPoissonRegression,
    Withheld,
)
from fednb.models.evaluation import evaluate

ROWS = 200


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(ROWS, 3))
    years = rng.uniform(0.5, 2.0, ROWS)
    ids = [f"k{i:03d}" for i in range(ROWS)]
    claims = rng.poisson(years * np.exp(0.3 * X[:, 0] - 0.4 * X[:, 1]))
    cost = 100 + 30 * X @ [1.0, -0.5, 0.8] + 10 * rng.normal(size=ROWS)
    bank = pd.DataFrame(
        {"id": ids, "age": X[:, 0], "years": years, "claims": claims, "cost": cost, "high": 1 * (cost > 100)}
    )
    return {
        "bank": {"own": bank},
        "agency": {"own": pd.DataFrame({"id": ids, "speed": X[:, 1]})},
        "utility": {"own": pd.DataFrame({"id": ids, "usage": X[:, 2]})},
    }


@pytest.fixture(scope="module")
def federation() -> Iterator[fednb.Federation]:
    release = {"agency": ["coefficients"], "bank": ["coefficients"]}
    with fednb.simulate(tables(), release=release, decryption_quota=5) as federation:
        yield federation


def aligned(federation: fednb.Federation, *parties: str) -> VerticalFrame:
    return federation.align(dict.fromkeys(parties, "own"), on="id")


def only(frame: VerticalFrame, *bank: str) -> VerticalFrame:
    """The frame with these columns of the bank's."""
    frame.columns = {**frame.columns, "bank": bank}
    return frame


def scaled(*columns: Any) -> np.ndarray:
    X = np.column_stack(columns)
    return np.clip((X - X.mean(axis=0)) / X.std(axis=0), -4, 4)


@pytest.mark.parametrize("others", [("agency",), ("agency", "utility")])
def test_linear_regression_is_scikit_learns_in_the_labels_unit(
    federation: fednb.Federation, others: tuple[str, ...], tmp_path: Path
) -> None:
    frame = only(aligned(federation, "bank", *others), "age", "cost")
    model = VerticalLinearRegression().fit(frame, y="bank.cost")
    own = tables()
    Z = scaled(own["bank"]["own"]["age"], *(own[p]["own"].iloc[:, 1] for p in others))
    y = own["bank"]["own"]["cost"]
    reference = LinearRegression().fit(Z, y)
    assert float(model.coef_["bank"]["age"]) == pytest.approx(reference.coef_[0], abs=1e-3 * y.std())
    assert float(model.coef_["agency"]["speed"]) == pytest.approx(reference.coef_[1], abs=1e-3 * y.std())
    assert model.intercept_ == pytest.approx(float(reference.intercept_), rel=1e-6)
    if "utility" in others:
        assert isinstance(model.coef_["utility"], Withheld)
    quality = model.evaluate(frame)
    assert quality.r2 == pytest.approx(r2_score(y, reference.predict(Z)), abs=1e-6)
    assert quality.mae == pytest.approx(mean_absolute_error(y, reference.predict(Z)), rel=1e-4)
    assert quality.d2 is None and quality.calibration()["rows"].min() >= 10
    loaded = VerticalLinearRegression.load(
        model.save(tmp_path / "m.json", federation) and tmp_path / "m.json", federation
    )
    assert loaded.evaluate(frame).rmse == quality.rmse and loaded.coef_["bank"].equals(model.coef_["bank"])


def test_poisson_regression_with_an_exposure_is_scikit_learns(federation: fednb.Federation, tmp_path: Path) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "years", "claims")
    model = VerticalPoissonRegression(alpha=0.0, exposure="bank.years").fit(frame, y="bank.claims")
    own = tables()["bank"]["own"]
    Z, years = scaled(own["age"], tables()["agency"]["own"]["speed"]), own["years"]
    rate = own["claims"] / years
    reference = PoissonRegressor(alpha=0.0, tol=1e-9).fit(Z, rate, sample_weight=years)
    assert [*model.coef_["bank"], *model.coef_["agency"]] == pytest.approx(reference.coef_, abs=1e-3)
    assert list(model.coef_["bank"].index) == ["age"], "the exposure is no feature"
    quality = model.evaluate(frame)
    expected = d2_tweedie_score(rate, reference.predict(Z), sample_weight=years, power=1)
    assert quality.d2 == pytest.approx(expected, abs=1e-5)
    summary = model.predict(frame).summary()
    assert summary["rows"] == ROWS and 0 < summary["p10"] < summary["p90"]
    path = tmp_path / "m.json"
    loaded = VerticalPoissonRegression.load(model.save(path, federation) and path, federation)
    assert loaded.exposure == "bank.years" and loaded.evaluate(frame).d2 == quality.d2
    with pytest.raises(DataError, match="holds a VerticalPoissonRegression, not a VerticalLinearRegression"):
        VerticalLinearRegression.load(path, federation)


def test_probabilities_and_numbers_are_not_mixed_up(federation: fednb.Federation) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "cost")
    model = VerticalLinearRegression(max_iter=2).fit(frame, y="bank.cost")
    with pytest.raises(DataError, match="are no probabilities"):
        evaluate(model.predict(frame), "bank.cost")


def test_wrong_parameters_are_explained(federation: fednb.Federation) -> None:
    frame = aligned(federation, "bank", "agency")
    with pytest.raises(DataError, match="is no column of bank, who has the label"):
        VerticalPoissonRegression(exposure="agency.speed").fit(frame, y="bank.claims")
    with pytest.raises(DataError, match="does not take these parameters"):
        VerticalLinearRegression(alpha=-1).fit(frame, y="bank.cost")
    made = VerticalPoissonRegression(0.5, exposure="bank.years")
    assert clone(made).get_params() == made.get_params()


def test_standard_errors_are_shown_where_they_are_released(federation: fednb.Federation) -> None:
    frame = only(aligned(federation, "bank", "agency", "utility"), "age", "cost")
    model = VerticalLinearRegression().fit(frame, y="bank.cost")
    assert model.standard_errors_ is None and model.no_standard_errors_.startswith("not asked for")
    before = model.summary()
    assert before.table["std_err"].isna().all() and before.aic is None and "not asked for" in repr(before)
    summary = model.add_standard_errors(frame).summary()
    own = tables()
    Z = scaled(own["bank"]["own"]["age"], own["agency"]["own"]["speed"], own["utility"]["own"]["usage"])
    reference = sm.OLS(own["bank"]["own"]["cost"], sm.add_constant(Z)).fit()
    shown = summary.table.drop(index=("utility", "usage"))
    order = ["x1", "x2", "const"]
    expected = np.column_stack([reference.params, reference.bse, reference.tvalues, reference.pvalues])
    expected = pd.DataFrame(np.hstack([expected, reference.conf_int()]), index=reference.params.index).loc[order]
    np.testing.assert_allclose(shown.iloc[:, :6].to_numpy(dtype=float), expected.to_numpy(), rtol=1e-3, atol=1e-9)
    assert (summary.aic, summary.bic) == pytest.approx((reference.aic, reference.bic))
    assert summary.table.loc[("utility", "usage")].isna()[:6].all()
    assert "utility.usage" in repr(summary) and "withheld: only this party sees them" in repr(summary)
    found = model.standard_errors_
    assert found is not None and isinstance(found["utility"], Withheld)
    assert repr(found["utility"]) == "<1 standard errors of utility: only this party sees them>"
    assert model.fit(frame, y="bank.cost").standard_errors_ is None, "a new fit has none yet"


def test_standard_errors_know_the_exposure(federation: fednb.Federation) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "years", "claims")
    model = VerticalPoissonRegression(alpha=0.0, exposure="bank.years").fit(frame, y="bank.claims")
    summary = model.add_standard_errors(frame).summary()
    own = tables()["bank"]["own"]
    Z = sm.add_constant(scaled(own["age"], tables()["agency"]["own"]["speed"]))
    reference = sm.GLM(own["claims"], Z, family=sm.families.Poisson(), exposure=own["years"]).fit()
    assert summary.table["std_err"].tolist() == pytest.approx(reference.bse[["x1", "x2", "const"]], rel=1e-4)
    assert list(summary.table.columns[:3]) == ["coef", "std_err", "z"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"penalty": "l1"}, "what L1 sets to zero"),
        ({"bounds": (None, 0)}, "at a bound"),
        ({"class_weight": "balanced"}, "with class weights"),
    ],
)
def test_fits_that_have_no_standard_errors_say_why(
    federation: fednb.Federation, options: dict[str, Any], why: str
) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "high")
    model = VerticalLogisticRegression(max_iter=1, **options).fit(frame, y="bank.high")
    runs = len(federation.runs())
    assert model.add_standard_errors(frame).standard_errors_ is None and why in model.no_standard_errors_
    assert len(federation.runs()) == runs, "nobody was asked"
    assert why in repr(model.summary())


def test_a_saved_model_can_have_standard_errors_again(federation: fednb.Federation, tmp_path: Path) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "cost")
    model = VerticalLinearRegression().fit(frame, y="bank.cost").add_standard_errors(frame)
    loaded = VerticalLinearRegression.load(
        model.save(tmp_path / "m.json", federation) and tmp_path / "m.json", federation
    )
    assert loaded.standard_errors_ is None
    again = loaded.add_standard_errors(frame).summary().table
    pd.testing.assert_frame_equal(again, model.summary().table, rtol=1e-6)


def test_a_refined_logistic_regression_is_an_exact_fit_and_scores_like_one(federation: fednb.Federation) -> None:
    frame = only(aligned(federation, "bank", "agency"), "age", "high")
    model = VerticalLogisticRegression(C=1.0, max_iter=12).fit(frame, y="bank.high")
    before = np.array([*model.coef_["bank"], *model.coef_["agency"]])
    own = tables()
    Z, y = scaled(own["bank"]["own"]["age"], own["agency"]["own"]["speed"]), own["bank"]["own"]["high"]
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(Z, y)
    run = model.run_
    model.refine(frame).refine(frame)
    after = np.array([*model.coef_["bank"], *model.coef_["agency"]])
    assert np.abs(after - reference.coef_[0]).max() < 1e-3 < np.abs(before - reference.coef_[0]).max()
    assert model.intercept_ == pytest.approx(float(reference.intercept_[0]), abs=1e-3)
    assert model.run_ != run and model.standard_errors_ is None
    assert model.evaluate(frame).log_loss == pytest.approx(log_loss(y, reference.predict_proba(Z)[:, 1]), abs=1e-5)
    assert model.add_standard_errors(frame).summary().log_likelihood == pytest.approx(
        -len(y) * model.evaluate(frame).log_loss, abs=1e-3
    )
    with pytest.raises(DataError, match="no step can be taken: what L1 sets to zero"):
        VerticalLogisticRegression(penalty="l1", max_iter=1).fit(frame, y="bank.high").refine(frame)
