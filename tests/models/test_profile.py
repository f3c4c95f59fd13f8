"""A profile: what statistics, correlations and stability say of the same features, best first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.views import decode, encode
from fednb.models import FeatureProfile, WoeBinning, profile_features

ROWS = 500


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(ROWS, 3))
    label = (2 * X[:, 2] + 0.8 * X[:, 0] + rng.logistic(size=ROWS) > 1).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "noise": X[:, 1], "default": label})
    score = np.where(np.arange(ROWS) % 5, X[:, 2], np.nan)
    drift = X[:, 2] + 2.0 * (np.arange(ROWS) >= ROWS // 2)
    agency = pd.DataFrame({"sme_id": ids, "score": score, "drift": drift, "town": "Ulm", "same": 1.0})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}}


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables(), decryption_quota=20) as federation:
        yield federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")


@pytest.fixture(scope="module")
def profile(frame: VerticalFrame) -> FeatureProfile:
    early, late = frame._take(np.arange(ROWS // 2), "early"), frame._take(np.arange(ROWS // 2, ROWS), "late")
    return profile_features(early, "bank.default", newer=late)


def test_features_come_best_first_and_the_label_is_none(profile: FeatureProfile) -> None:
    table = profile.table()
    assert table["feature"].tolist()[:2] in (["score", "drift"], ["drift", "score"])
    assert set(table["feature"]) == {"income", "noise", "score", "drift", "town", "same"}
    assert table["label"].abs().dropna().is_monotonic_decreasing
    score = table.set_index("feature").loc["score"]
    assert (score["missing"], score["nearest"]) == (50, "agency.drift") and score["near"] > 0.8
    drift = table.set_index("feature").loc["drift"]
    assert drift["psi"] > 0.25 > table.set_index("feature").loc["income", "psi"]


def test_means_by_label_are_those_of_the_joined_table(profile: FeatureProfile) -> None:
    made = tables()
    y = made["bank"]["loans"]["default"][: ROWS // 2]
    for party, named in made.items():
        for column in next(iter(named.values())).columns.intersection(["income", "noise", "score", "drift"]):
            x = next(iter(named.values()))[column][: ROWS // 2]
            x = x.fillna(x.mean())
            line = profile.table().set_index(["party", "feature"]).loc[party, column]
            for value in (0, 1):
                assert line[f"mean_{value}"] == pytest.approx(x[y == value].mean(), abs=0.02 * x.std()), column
    assert profile.statistics.rate_ == pytest.approx(y.mean(), abs=1e-3)


def test_columns_that_cannot_be_used_come_last_with_the_reason(profile: FeatureProfile) -> None:
    last = profile.table().tail(2)
    assert set(last["feature"]) == {"town", "same"} and last["note"].str.len().min() > 0
    assert last[["mean", "psi", "vif", "near", "label"]].isna().all().all()
    assert profile.notes == [
        "agency's 'town': it is text: encode it as numbers (one column for each category, say) to use it.",
        "agency's 'same': every value is the same.",
        "agency's 'score': missing values count as the mean.",
    ]


def test_a_front_end_gets_a_view_that_it_can_draw(profile: FeatureProfile) -> None:
    view = profile.view()
    assert decode(encode(view)) == view, "nothing in it is NaN"
    assert view.features[-1].note and view.rate is not None and view.newer == ROWS // 2
    assert "nan" not in repr(profile) and "ranked" not in repr(profile)


def test_a_binnings_information_values_rank(frame: VerticalFrame) -> None:
    numbers = frame._take(np.arange(ROWS), "numbers")
    numbers.columns["agency"] = ("score", "drift", "same")
    binning = WoeBinning(bins=6).fit(numbers, y="bank.default")
    profile = profile_features(frame, "bank.default", binning=binning)
    ranked = profile.table().dropna(subset="iv")
    assert ranked["iv"].is_monotonic_decreasing and len(ranked) == 5
    assert profile.view().ranked == "information value" and profile.psi is None


def test_without_a_label_features_keep_their_order(frame: VerticalFrame) -> None:
    profile = profile_features(frame)
    assert profile.table()["feature"].tolist() == [*frame.columns["bank"], *frame.columns["agency"]]
    assert profile.table()["mean_1"].isna().all() and np.isnan(profile.statistics.rate_)


def test_frames_of_two_federations_are_not_compared(frame: VerticalFrame) -> None:
    with fednb.simulate(tables()) as other:
        theirs = other.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        with pytest.raises(DataError, match="of one federation"):
            profile_features(frame, newer=theirs)
