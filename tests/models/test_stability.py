"""Stability by time as its user sees it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import FeatureStatistics, feature_stability

ROWS = 500
YEARS = np.repeat([2022.0, 2023.0, 2024.0, 2025.0, 2026.0], ROWS // 5)


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(3)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    bank = pd.DataFrame({"sme_id": ids, "income": rng.normal(size=ROWS), "year": YEARS})
    agency = pd.DataFrame({"sme_id": ids, "drift": rng.normal(size=ROWS) + (YEARS >= 2024), "town": "Ulm"})
    utility = pd.DataFrame({"sme_id": ids, "usage": rng.normal(size=ROWS)})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables()) as federation:
        yield federation.align({"bank": "loans", "agency": "invoices", "utility": "meters"}, on="sme_id")


def test_the_feature_that_shifted_comes_first_whoever_holds_it(frame: VerticalFrame) -> None:
    found = feature_stability(frame, by="bank.year", since=2024)
    assert found["feature"].tolist()[0] == "drift" and found.loc[0, "psi"] > 0.25
    assert {*zip(found["party"], found["feature"], strict=True)} == {
        ("bank", "income"), ("agency", "drift"), ("utility", "usage")
    }  # fmt: skip
    assert found["psi"].is_monotonic_decreasing and found["psi"].tolist()[1] < 0.2


def test_it_is_about_what_two_frames_give(frame: VerticalFrame) -> None:
    before, after = (frame._take(np.flatnonzero(which), "") for which in (YEARS < 2024, YEARS >= 2024))
    two = FeatureStatistics().fit(before).stability(after).set_index("feature")["psi"]
    one = feature_stability(frame, by="bank.year", since=2024).set_index("feature")["psi"]
    assert one["drift"] == pytest.approx(two["drift"], rel=0.4), "tenths of all rows, and of those before"


@pytest.mark.parametrize(
    ("by", "since", "message"),
    [
        ("bank.month", 1, "no column 'month'"),
        ("bank.year", 2027, "bank has fewer than 100 rows on one side of 'year' = 2027"),
        ("agency.town", 1, "is text"),
    ],
)
def test_what_is_no_time_is_explained(frame: VerticalFrame, by: str, since: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        feature_stability(frame, by=by, since=since)
