"""Selection by the model as its user sees it, beside statsmodels on the joined table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import fednb
from fednb.errors import DataError
from fednb.models import VerticalLinearRegression, VerticalLogisticRegression, select_by_model

ROWS = 240


def joined() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(ROWS, 9)) + 0.5 * rng.normal(size=(ROWS, 1))
    table = pd.DataFrame(X, columns=[f"{party}{j}" for party in "abc" for j in range(3)])
    score = 0.9 * table["a0"] + 0.7 * table["b1"] - 0.6 * table["b2"]
    table["cost"] = score + rng.normal(size=ROWS)
    table["late"] = (score + rng.logistic(size=ROWS) > 0.3).astype(int)
    table["id"] = [f"k{i:03d}" for i in range(ROWS)]
    return table


def scaled(table: pd.DataFrame) -> pd.DataFrame:
    z = ((table - table.mean()) / table.std(ddof=0)).clip(-4, 4)
    return z - z.mean()


@pytest.fixture(scope="module")
def federation() -> Iterator[fednb.Federation]:
    table = joined()
    owns = {"bank": ["a0", "a1", "a2", "cost"], "agency": ["b0", "b1", "b2"], "telco": ["c0", "c1", "c2"]}
    tables = {party: {"own": table[["id", *names]]} for party, names in owns.items()}
    tables["bank"]["binary"] = table[["id", "a0", "a1", "a2", "late"]]
    with fednb.simulate(tables, decryption_quota=5) as made:
        yield made


def backward(y: pd.Series, X: pd.DataFrame, criterion: str) -> list[str]:
    """One model a step, on the joined table."""
    kept = list(X.columns)

    def figure(names: list[str]) -> float:
        return float(getattr(sm.OLS(y, sm.add_constant(X[names])).fit(), criterion))

    while True:
        best = min(([name for name in kept if name != out] for out in kept), key=figure)
        if figure(best) >= figure(kept):
            return kept
        kept = best


def test_stepwise_keeps_what_a_model_a_step_would_on_the_joined_table(federation: fednb.Federation) -> None:
    frame, by = federation.align({"bank": "own", "agency": "own", "telco": "own"}, on="id"), "aic"
    found = select_by_model(VerticalLinearRegression(tol=2e-3), frame, "bank.cost")
    table = joined()
    X = scaled(table.drop(columns=["cost", "late", "id"]))
    kept = found.report[found.report["kept"]]["feature"].tolist()
    assert kept == backward(table["cost"], X, by)
    assert found.history["features"].iloc[0] == 9 and len(found.history) <= 4, "a model a party, and one more"
    reference = sm.OLS(table["cost"], sm.add_constant(X[kept])).fit()
    assert found.history[by].iloc[-1] == pytest.approx(getattr(reference, by), abs=1e-2)
    assert found.history[by].iloc[-1] < found.history[by].iloc[0]
    gone = found.report[~found.report["kept"]]
    assert gone["why"].str.startswith(f"{by.upper()}: without it, it is lower (step ").all()
    assert sorted(name for names in found.model.feature_names_in_.values() for name in names) == sorted(kept)
    assert found.transform(frame).columns == found.frame.columns
    assert "features kept" in repr(found)


def test_l1_says_which_coefficients_it_made_zero(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "binary", "agency": "own", "telco": "own"}, on="id")
    frame.columns = {**frame.columns, "bank": ("a0", "a1", "a2", "late")}
    estimator = VerticalLogisticRegression(C=0.05, penalty="l1", max_iter=8)
    found = select_by_model(estimator, frame, "bank.late", by="l1")
    kept = found.report[found.report["kept"]]["feature"].tolist()
    assert {"a0", "b1", "b2"} <= set(kept) and len(kept) < 9
    assert set(found.report[~found.report["kept"]]["why"]) == {"L1: its coefficient is zero"}
    own = found.model.coef_["bank"]
    assert [name for name in own.index if own[name] == 0.0] == [name for name in ("a0", "a1", "a2") if name not in kept]
    again = VerticalLogisticRegression(max_iter=2).fit(found.frame, "bank.late")
    assert again.n_features_in_ == len(kept)


def test_what_cannot_be_selected_is_explained(federation: fednb.Federation) -> None:
    frame = federation.align({"bank": "own", "agency": "own"}, on="id")
    with pytest.raises(DataError, match="needs a VerticalLogisticRegression with penalty='l1'"):
        select_by_model(VerticalLinearRegression(), frame, "bank.cost", by="l1")
    with pytest.raises(DataError, match="by is 'aic', 'bic' or 'l1'"):
        select_by_model(VerticalLinearRegression(), frame, "bank.cost", by="p")  # type: ignore[arg-type]
    bounded = VerticalLogisticRegression(max_iter=1, bounds=(None, 0))
    binary = federation.align({"bank": "binary", "agency": "own"}, on="id")
    with pytest.raises(DataError, match="stepwise selection needs standard errors, and there are none: .*at a bound"):
        select_by_model(bounded, binary, "bank.late")


def test_a_frame_without_some_features_has_the_same_rows(federation: fednb.Federation) -> None:
    train, _ = federation.align({"bank": "own", "agency": "own", "telco": "own"}, on="id").split(0.3, 0)
    less = train.without(["agency.b0", "telco.c0", "telco.c1", "telco.c2"])
    assert less.parties == ("bank", "agency") and less.columns["agency"] == ("b1", "b2")
    assert (less.refs()["agency"].rows == train.refs()["agency"].rows).all() and train.shape[1] == 10
    with pytest.raises(DataError, match="'telco.b9' is no feature of this frame"):
        train.without(["telco.b9"])
    with pytest.raises(DataError, match="no two parties have anything left"):
        less.without(["agency.b1", "agency.b2"])
