"""Statistics of features as their user sees them: over a simulation, columns of every kind, other rows beside them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import FeatureStatistics

ROWS = 400


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(7)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    income = rng.normal(50, 9, ROWS)
    income[::8] = np.nan
    bank = pd.DataFrame({"sme_id": ids, "income": income, "default": rng.integers(0, 2, ROWS)})
    agency = pd.DataFrame(
        {
            "sme_id": ids,
            "turnover": rng.normal(size=ROWS),
            "same": 1.0,
            "none": np.nan,
            "town": rng.choice(["Ulm", "Trier", "Jena"], ROWS),
            "owner": [f"owner {k}" for k in range(ROWS)],
            "mixed": [str(k) if k % 3 else "unknown" for k in range(ROWS)],
            "opened": pd.Timestamp("2024-01-01"),
            "ratio": np.where(np.arange(ROWS) == 3, np.inf, 1.0),
            "flag": np.arange(ROWS) % 2 == 0,
            "grade": pd.Categorical(np.arange(ROWS) % 4),
            "written": [str(k) for k in range(ROWS)],
        }
    )
    utility = pd.DataFrame({"sme_id": ids, "usage": rng.normal(size=ROWS)})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables()) as federation:
        yield federation.align({"bank": "loans", "agency": "invoices", "utility": "meters"}, on="sme_id")


@pytest.fixture(scope="module")
def fitted(frame: VerticalFrame) -> FeatureStatistics:
    return FeatureStatistics().fit(frame, y="bank.default")


def test_every_feature_of_every_party_has_a_line_and_the_label_has_none(fitted: FeatureStatistics) -> None:
    table = fitted.table_.set_index(["party", "feature"])
    assert ("bank", "default") not in table.index and ("utility", "usage") in table.index
    income, truth = table.loc["bank", "income"], tables()["bank"]["loans"]["income"]
    assert income["missing"] == 50 and income["rows"] == ROWS
    assert income["mean"] == pytest.approx(truth.mean(), abs=0.5)
    assert income["sd"] == pytest.approx(truth.std(), rel=0.1)
    assert income["p50"] == pytest.approx(truth.median(), abs=0.5)


@pytest.mark.parametrize(
    ("feature", "kind", "note"),
    [
        ("same", "constant", "every value is the same"),
        ("none", "empty", "every value is missing"),
        ("town", "text", "encode it as numbers"),
        ("owner", "text", "as in a name or an id"),
        ("mixed", "mixed", "some of its values are numbers and others are text"),
        ("opened", "date", "days since a fixed day"),
        ("ratio", "infinite", "replace them"),
    ],
)
def test_a_column_that_cannot_be_used_is_named_with_the_reason(
    fitted: FeatureStatistics, feature: str, kind: str, note: str
) -> None:
    line = fitted.table_.set_index("feature").loc[feature]
    assert line["kind"] == kind and np.isnan(line["mean"])
    assert [said for said in fitted.notes_ if said.startswith(f"agency's {feature!r}: ") and note in said]
    assert fitted.histogram(f"agency.{feature}").empty


@pytest.mark.parametrize(("feature", "levels"), [("flag", 2), ("grade", 4), ("written", 0)])
def test_what_can_be_read_as_numbers_has_figures(fitted: FeatureStatistics, feature: str, levels: int) -> None:
    line = fitted.table_.set_index("feature").loc[feature]
    assert (line["kind"], line["levels"], line["note"]) == ("number", levels, "")
    bars = fitted.histogram(f"agency.{feature}")
    assert bars["rows"].sum() == ROWS and bars["rows"].min() >= 10


def test_other_rows_are_compared_with_those_of_the_fit(frame: VerticalFrame, fitted: FeatureStatistics) -> None:
    high = np.flatnonzero(tables()["utility"]["meters"]["usage"] > 0)
    found = fitted.stability(frame._take(high, "high usage"))
    assert found.loc[0, "feature"] == "usage" and found.loc[0, "psi"] > 0.25
    assert set(found["feature"]) == {"income", "turnover", "usage", "flag", "grade", "written"}
    assert fitted.stability(frame)["psi"].max() == 0.0


def test_scikit_learns_conventions_hold(frame: VerticalFrame, fitted: FeatureStatistics) -> None:
    assert clone(fitted).get_params() == {}
    with pytest.raises(NotFittedError):
        FeatureStatistics().histogram("bank.income")
    with pytest.raises(DataError, match=r"no statistics of 'bank\.nothing'"):
        fitted.histogram("bank.nothing")
    with pytest.raises(DataError, match="has 30 rows in this frame; statistics need at least 40"):
        FeatureStatistics().fit(frame._take(np.arange(30), "few"))
