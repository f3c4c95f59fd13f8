"""Binning as its user sees it: over a simulation, with keys of full length, and as a step before a regression."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import fednb
from fednb.errors import DataError, QuotaExceeded
from fednb.federation.frame import VerticalFrame
from fednb.models import VerticalLogisticRegression, WoeBinning, select_features
from fednb.models.evaluation import evaluate

ROWS = 400
DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))
ON = {"bank": "sme_id", "agency": "sme_id", "utility": "customer"}


def tables(rows: int = ROWS) -> dict[str, dict[str, pd.DataFrame]]:
    """Three parties; ids stand in the order of an aligned frame."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, 5))
    label = (X @ [1.0, -0.5, 0.8, -0.7, 0.6] + rng.logistic(size=rows) > 0.5).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(rows)]
    delay = X[:, 3].copy()
    delay[::6] = np.nan
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "debt": X[:, 1], "default": label})
    agency = pd.DataFrame({"sme_id": ids, "turnover": X[:, 2], "delay": delay, "same": 1.0})
    utility = pd.DataFrame({"customer": ids, "usage": X[:, 4]})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


def aligned(federation: fednb.Federation) -> VerticalFrame:
    return federation.align({"bank": "loans", "agency": "invoices", "utility": "meters"}, on=ON)


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables(), decryption_quota=20) as federation:
        yield aligned(federation)


@pytest.fixture(scope="module")
def binning(frame: VerticalFrame) -> WoeBinning:
    return WoeBinning(bins=8).fit(frame.split(0.3, 0)[0], y="bank.default")


def test_information_values_are_those_of_the_bins_and_come_best_first(binning: WoeBinning) -> None:
    y = tables()["bank"]["loans"]["default"].to_numpy()
    assert set(binning.iv_["feature"]) == {"income", "debt", "turnover", "delay", "same", "usage"}
    assert binning.iv_["iv"].is_monotonic_decreasing
    for row in binning.iv_.itertuples():
        table = binning.bin_table(f"{row.party}.{row.feature}")
        assert len(table) == row.bins and table["rows"].min() >= 10
        good, bad = table["rows"] - table["positives"], table["positives"]
        if table["rows"].sum() == binning.n_rows_ == round(0.7 * len(y)) and len(table) > 1:
            share = good / good.sum() - bad / bad.sum()
            assert row.iv == pytest.approx((share * np.log(good / good.sum() / (bad / bad.sum()))).sum(), abs=1e-9)
    assert "missing" in binning.bin_table("agency.delay")["holds"].tolist()


def test_a_column_that_tells_nothing_is_named_and_left_out(frame: VerticalFrame, binning: WoeBinning) -> None:
    coded = binning.transform(frame)
    assert binning.dropped_ == {"agency.same": "one bin only"}
    assert any("'same' has one bin only (every value is the same)" in note for note in binning.notes_)
    assert coded.columns["agency"] == ("turnover", "delay")
    assert coded.labels == {"bank": ("default",)} and len(coded) == ROWS


def test_the_coded_table_stays_at_its_party_under_the_name_that_was_given(
    frame: VerticalFrame, binning: WoeBinning
) -> None:
    _, test = frame.split(0.3, 0)
    coded = binning.transform(test, name="woe_test")
    found = frame.federation.tables()
    own = found[found["table"] == "woe_test"]
    assert set(own["party"]) == {"bank", "agency", "utility"} and set(own["rows"]) == {len(test)}
    assert coded.shape == (len(test), 5) and coded.part == test.part


def poisoned(positions: np.ndarray) -> dict[str, dict[str, pd.DataFrame]]:
    """Other values, and another label, in these rows."""
    made = tables()
    for frames in made.values():
        for table in frames.values():
            numbers = table.columns[1:]
            table.loc[positions, numbers] = 1 - table.loc[positions, numbers] * 1_000
            if "default" in table:
                table.loc[positions, "default"] = np.arange(len(positions)) % 2
    return made


def test_only_training_rows_are_fitted_on() -> None:
    from sklearn.model_selection import train_test_split

    _, held_out = train_test_split(np.arange(ROWS), test_size=0.3, random_state=0)
    fitted = []
    for data in (tables(), poisoned(held_out)):
        with fednb.simulate(data) as federation:
            train, _ = aligned(federation).split(0.3, 0)
            found = WoeBinning(bins=6).fit(train, y="bank.default")
            fitted.append((found.iv_, [found.bin_table(name) for name in found._bins]))
    pd.testing.assert_frame_equal(fitted[0][0], fitted[1][0])
    for clean, other in zip(fitted[0][1], fitted[1][1], strict=True):
        pd.testing.assert_frame_equal(clean, other)


def test_a_pipeline_bins_and_fits_and_scores(frame: VerticalFrame) -> None:
    train, test = frame.split(0.3, 0)
    pipeline = make_pipeline(
        WoeBinning(bins=8), VerticalLogisticRegression(max_iter=8, standardize=False, clip=None)
    ).fit(train, y="bank.default")
    assert pipeline[-1].n_features_in_ == 5
    assert evaluate(pipeline.predict_proba(test), "bank.default").auc > 0.65


def test_fitting_on_a_coded_table_opens_no_new_account_of_decryptions() -> None:
    with fednb.simulate(tables(), decryption_quota=0.1) as federation:
        frame = aligned(federation)  # a quota of 40 sums a party
        coded = WoeBinning(bins=8).fit(frame, y="bank.default")
        again = coded.transform(frame)
        with pytest.raises(QuotaExceeded, match=r"bank\.loans\.default"):
            VerticalLogisticRegression(max_iter=20).fit(again, y="bank.default")
        with pytest.raises(QuotaExceeded, match=r"bank\.loans\.default"):
            for _ in range(3):
                WoeBinning().fit(again, y="bank.default")


def test_features_below_min_iv_are_left_out_and_the_report_says_why(frame: VerticalFrame, binning: WoeBinning) -> None:
    train, _ = frame.split(0.3, 0)
    bound = float(binning.iv_["iv"].iloc[2])
    chosen = WoeBinning(bins=8, min_iv=bound).fit(train, y="bank.default")
    kept = {f"{row.party}.{row.feature}" for row in binning.iv_.head(3).itertuples()}
    coded = chosen.transform(train)
    assert {f"{party}.{name}" for party, names in coded.columns.items() for name in names} == kept
    assert set(chosen.dropped_) == {f"{row.party}.{row.feature}" for row in binning.iv_.itertuples()} - kept
    assert all("below min_iv" in why for name, why in chosen.dropped_.items() if name != "agency.same")
    with pytest.raises(DataError, match="no feature is left to code: 6 were left out"):
        WoeBinning(bins=8, min_iv=50).fit(train, y="bank.default").transform(train)


def test_stability_names_the_feature_that_shifted(frame: VerticalFrame, binning: WoeBinning) -> None:
    found = binning.stability(frame)
    assert len(found) == 6 and found["psi"].between(0, 0.1).all()
    high = np.flatnonzero(tables()["utility"]["meters"]["usage"] > 0)
    shifted = binning.stability(frame._take(high, "high usage"))
    assert shifted.loc[0, "feature"] == "usage" and shifted.loc[0, "psi"] > 0.25


def test_scikit_learns_conventions_hold(frame: VerticalFrame) -> None:
    made = WoeBinning(bins=7, merge="optimal", special_values=(-1,))
    assert clone(made).get_params() == made.get_params()
    with pytest.raises(NotFittedError):
        made.transform(frame)
    with pytest.raises(NotFittedError):
        made.bin_table("bank.income")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"cuts": {"bank.nothing": [1]}}, "'bank.nothing', which is no party.column of this frame"),
        ({"cuts": {"bank.income": [np.inf]}}, "must be finite"),
        ({"bins": 1}, "does not take these parameters"),
        ({"merge": "forest"}, "does not take these parameters"),
    ],
)
def test_wrong_parameters_are_explained(frame: VerticalFrame, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        WoeBinning(**params).fit(frame, y="bank.default")


def test_a_feature_without_bins_is_explained(binning: WoeBinning) -> None:
    with pytest.raises(DataError, match="no bins of 'bank.nothing'"):
        binning.bin_table("bank.nothing")


def test_a_frame_without_the_columns_of_the_fit_is_explained(frame: VerticalFrame, binning: WoeBinning) -> None:
    two = frame.federation.align({"bank": "loans", "utility": "meters"}, on={"bank": "sme_id", "utility": "customer"})
    with pytest.raises(DataError, match="agency's turnover, delay, same, which this frame lacks"):
        binning.transform(two)


def uci() -> dict[str, dict[str, pd.DataFrame]]:
    if not (DATA / "UCI_Credit_Card.csv").is_file():
        pytest.skip(f"UCI_Credit_Card is not in {DATA}")
    whole = pd.read_csv(DATA / "UCI_Credit_Card.csv", dtype={"ID": str})
    whole = whole.rename(columns={"default.payment.next.month": "default"})
    return {
        "bank": {"own": whole[["ID", "default", "PAY_6"]]},
        "agency": {"own": whole[["ID", "PAY_0", "PAY_2", "LIMIT_BAL"]]},
    }


# as optbinning 1.0.0's OptimalBinning(...).fit(...) cuts, and the information value that it gives for these cuts
OPTBINNING = {
    "agency.PAY_0": ([-0.5, 0.5, 1.5], 0.8693808387272385),
    "agency.PAY_2": ([-1.5, -0.5, 1.5], 0.5468588304752052),
    "agency.LIMIT_BAL": ([25e3, 45e3, 75e3, 125e3, 165e3, 205e3, 245e3, 365e3], 0.17983606897027332),
}


def test_information_values_are_optbinnings_for_the_same_cut_points() -> None:
    with fednb.simulate(uci()) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="ID")
        cuts = {name: points for name, (points, _) in OPTBINNING.items()}
        found = WoeBinning(cuts=cuts, merge="none").fit(frame, y="bank.default").iv_
    for name, (_, expected) in OPTBINNING.items():
        (iv,) = found.loc[found["feature"] == name.partition(".")[2], "iv"]
        assert iv == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("merge", ["tree", "optbinning", "optimal"])
def test_other_ways_to_merge_keep_every_bin_sound(frame: VerticalFrame, merge: Any) -> None:
    found = WoeBinning(bins=15, merge=merge, max_bins=4, min_share=0.1).fit(frame, y="bank.default")
    assert found.iv_.set_index("feature").loc["turnover", "iv"] > 0.1
    for name in ("bank.income", "agency.turnover", "utility.usage"):
        table = found.bin_table(name)
        ordinary = table[table["holds"] == "values"]
        assert 2 <= len(ordinary) <= 4 and ordinary["rows"].min() >= 0.1 * ROWS
        assert ordinary["positives"].between(1, ordinary["rows"] - 1).all()


def test_a_saved_binning_codes_new_rows_as_before(frame: VerticalFrame, binning: WoeBinning, tmp_path: Path) -> None:
    path = tmp_path / "binning.json"
    loaded = WoeBinning.load(binning.save(path, frame.federation) and path, frame.federation)
    pd.testing.assert_frame_equal(loaded.iv_, binning.iv_)
    assert loaded.dropped_ == binning.dropped_ and loaded.get_params() == binning.get_params() | {"special_values": []}
    fresh = aligned(frame.federation)
    model = VerticalLogisticRegression(max_iter=2, standardize=False, clip=None).fit(
        binning.transform(frame), y="bank.default"
    )
    before, after = (model.evaluate(each.transform(fresh)) for each in (binning, loaded))
    assert before.log_loss == after.log_loss
    assert loaded.stability(fresh)["psi"].max() < 0.1
    with pytest.raises(DataError, match="holds a WoeBinning, not a VerticalLogisticRegression"):
        VerticalLogisticRegression.load(path, frame.federation)


def selectable() -> dict[str, dict[str, pd.DataFrame]]:
    """Features that each fail in one way."""
    made = tables()
    rng = np.random.default_rng(12)
    (bank,), (agency,) = made["bank"].values(), made["agency"].values()
    bank["income_again"] = bank["income"] + 0.05 * rng.normal(size=ROWS)
    bank["noise"] = rng.integers(0, 2, ROWS).astype(float)
    rare = agency["turnover"].to_numpy().copy()
    rare[40:] = np.nan
    agency["rare"] = rare
    agency["drift"] = np.where(np.arange(ROWS) < ROWS // 2, 0.0, 3.0) + agency["turnover"]
    return made


def test_selection_says_what_was_dropped_and_why() -> None:
    with fednb.simulate(selectable(), decryption_quota=20) as federation:
        frame = aligned(federation)
        early, late = frame._take(np.arange(ROWS // 2), "early"), frame._take(np.arange(ROWS // 2, ROWS), "late")
        binning = WoeBinning(bins=6).fit(early, y="bank.default")
        report = select_features(binning, early, min_iv=0.03, max_missing=0.7, max_correlation=0.85, newer=late)
        coded = binning.transform(early)
    why = {f"{row.party}.{row.feature}": row.why for row in report.itertuples()}
    assert why["agency.same"] == "one bin only"
    assert why["agency.drift"].startswith("stability index")
    twins = {why["bank.income"], why["bank.income_again"]}
    assert "" in twins and any(reason.startswith("correlation 0.9") for reason in twins)
    assert why["agency.turnover"] == "" and report.set_index("feature").loc["rare", "missing"] > 0.6
    kept = {f"{party}.{name}" for party, names in coded.columns.items() for name in names}
    assert kept == {name for name, reason in why.items() if not reason}
    assert report["iv"].is_monotonic_decreasing and set(report["kept"]) == {True, False}


def test_selection_looks_across_parties_and_at_what_follows_from_several() -> None:
    made = tables(2 * ROWS)
    rng = np.random.default_rng(12)
    bank, agency, utility = (next(iter(named.values())) for named in made.values())
    agency["wage"] = bank["income"] + 0.1 * rng.normal(size=2 * ROWS)
    utility["bill"] = bank["debt"] + agency["turnover"] + utility["usage"] + 0.1 * rng.normal(size=2 * ROWS)
    with fednb.simulate(made, decryption_quota=20) as federation:
        frame = aligned(federation)
        binning = WoeBinning(bins=8).fit(frame, y="bank.default")
        report = select_features(binning, frame, min_iv=0, max_vif=1.5).set_index("feature")
        without = select_features(binning, frame, min_iv=0, max_correlation=None, max_vif=None).set_index("feature")
    income, wage = report.loc["income"], report.loc["wage"]
    stays, goes = (income, wage) if income["iv"] > wage["iv"] else (wage, income)
    assert stays["kept"] and goes["why"].startswith("correlation 0.")
    assert f"with {stays['party']}.{stays.name}, which tells more" in goes["why"]
    assert goes["correlation"] > 0.8 > stays["correlation"]
    several = report.loc[["bill", "debt", "turnover", "usage"]]
    (gone,) = several.loc[~several["kept"], "why"]
    assert gone.startswith("variance inflation ") and gone.endswith(", above 1.5") and several["vif"].max() > 1.5
    weak = select_features(binning, frame, min_iv=float(income["iv"]), max_correlation=None, max_vif=None)
    assert weak["kept"].sum() == (weak["iv"] >= income["iv"]).sum() < len(weak) - 2
    assert without["kept"].sum() == len(without) - 1 and without["vif"].isna().all()
    for wrong in ({"max_correlation": 0.2}, {"max_vif": 1.0}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            select_features(binning, frame, **wrong)


def test_a_missing_extra_is_named(frame: VerticalFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optbinning", None)
    with pytest.raises(DataError, match=r"pip install 'fednb\[optbinning\]'"):
        WoeBinning(merge="optbinning").fit(frame, y="bank.default")
