"""A passive party counts the models that score its rows, and stops before its features could be solved for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import QuotaExceeded
from fednb.federation import simulate
from fednb.federation.frame import VerticalFrame
from fednb.federation.row_keys import keys_of
from fednb.federation.scored import ScoredRows
from fednb.federation.store import MemberStore
from fednb.models import Scorecard, VerticalLogisticRegression, VerticalWinsorizer, WoeBinning
from fednb.policy.mode import MemberPolicy


def test_rows_are_counted_one_by_one_and_the_count_outlives_the_process(tmp_path: Path) -> None:
    rows = keys_of([f"k{i}" for i in range(10)])
    scored = ScoredRows(MemberStore(tmp_path), "agency")
    scored.count(rows[:5], "first", 2)
    scored.count(rows[5:], "second", 2)
    scored.count(rows, "third", 2)  # the second model of each row
    scored.count(rows, "third", 2)  # the same once more tells nothing new
    again = ScoredRows(MemberStore(tmp_path), "agency")
    with pytest.raises(QuotaExceeded, match="has let 2 models score 1 of these rows"):
        again.count(rows[:1], "fourth", 2)
    again.count(rows[:1], "first", 2)
    again.count(keys_of(["new"]), "fourth", 2)


def test_a_members_policy_keeps_models_below_features() -> None:
    policy = MemberPolicy("agency")
    assert [policy.most_models(d) for d in (1, 2, 10)] == [1, 1, 9]


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch) -> Iterator[VerticalFrame]:
    """Parties that count as real ones do."""
    monkeypatch.setattr(simulate._Lenient, "most_models", lambda self, d: MemberPolicy("agency").most_models(d))
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 4))
    y = (X.sum(axis=1) + rng.logistic(size=200) > 0).astype(int)
    ids = [f"k{i:03d}" for i in range(200)]
    tables: dict[str, Any] = {
        "bank": {"own": pd.DataFrame({"id": ids, "a": X[:, 0], "default": y})},
        "agency": {"own": pd.DataFrame({"id": ids, "b": X[:, 1], "c": X[:, 2], "d": X[:, 3]})},
    }
    with fednb.simulate(tables, decryption_quota=10) as federation:
        yield federation.align({"bank": "own", "agency": "own"}, on="id")


def test_more_models_than_features_are_declined_on_the_same_rows(frame: VerticalFrame) -> None:
    train, test = frame.split(0.5, 0)
    models = [VerticalLogisticRegression(C=C, max_iter=2).fit(train, y="bank.default") for C in (0.01, 0.1, 1.0)]
    for model in models[:2]:
        model.evaluate(test)
    models[0].evaluate(test)  # again: nothing new
    with pytest.raises(QuotaExceeded, match="agency has let 2 models score 100 of these rows"):
        models[2].evaluate(test)
    models[2].evaluate(train)  # other rows


def test_a_derived_table_opens_no_new_account_and_a_scorecard_is_its_model(frame: VerticalFrame) -> None:
    binning = WoeBinning(bins=4).fit(frame, y="bank.default")
    coded = [binning.transform(frame) for _ in range(2)]
    plain = {"standardize": False, "clip": None, "max_iter": 2}
    first = VerticalLogisticRegression(**plain).fit(coded[0], y="bank.default")
    first.evaluate(coded[0])
    Scorecard(digits=2).fit(binning, first, frame.federation).evaluate(frame)  # counts as the model that it is of
    VerticalLogisticRegression(C=0.1, **plain).fit(coded[1], y="bank.default").evaluate(coded[1])
    with pytest.raises(QuotaExceeded, match="2 models score 200 of these rows"):
        VerticalLogisticRegression(C=0.01, **plain).fit(coded[1], y="bank.default").evaluate(coded[1])


def test_rows_that_were_prepared_in_another_way_count_as_scored_by_another_model(frame: VerticalFrame) -> None:
    def cut(upper: float) -> VerticalFrame:
        only = VerticalWinsorizer(limits="value", lower=-9.0, upper=upper, columns=["agency.b"])
        return only.fit_transform(frame, y="bank.default")

    model = VerticalLogisticRegression(max_iter=2).fit(cut(9.0), y="bank.default")
    model.evaluate(cut(9.0))
    model.evaluate(cut(9.0))  # the same values by the same rules tell nothing new
    model.evaluate(frame)  # other ones
    with pytest.raises(QuotaExceeded, match="2 models score 200 of these rows"):
        model.evaluate(cut(0.0))


def test_a_prepared_table_that_is_aligned_again_still_tells_how_it_was_made(frame: VerticalFrame) -> None:
    def cut(upper: float, name: str) -> VerticalFrame:
        only = VerticalWinsorizer(limits="value", lower=-9.0, upper=upper, columns=["agency.b"])
        return only.fit(frame, y="bank.default").transform(frame, name)

    same = cut(9.0, "same")
    cut(0.0, "other")
    cut(1.0, "third")
    model = VerticalLogisticRegression(max_iter=2).fit(same, y="bank.default")
    again = [frame.federation.align({"bank": "own", "agency": name}, on="id") for name in ("same", "other", "third")]
    model.predict_proba(same)
    model.predict_proba(again[0])  # the same rows, made in the same way
    model.predict_proba(again[1])  # the same model of other values: a second one
    with pytest.raises(QuotaExceeded, match="2 models score 200 of these rows"):
        model.predict_proba(again[2])
