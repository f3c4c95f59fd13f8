"""Bins that are changed after the fit, as their user does it: over a simulation, with keys of full length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import Scorecard, VerticalLogisticRegression, WoeBinning
from fednb.models.recut import find

ROWS = 400


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(ROWS, 4))
    label = (X @ [1.0, -0.5, 0.8, 0.0] + rng.logistic(size=ROWS) > 0.5).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "debt": X[:, 1], "default": label})
    agency = pd.DataFrame({"sme_id": ids, "turnover": X[:, 2], "noise": X[:, 3]})
    with fednb.simulate({"bank": {"loans": bank}, "agency": {"invoices": agency}}, decryption_quota=20) as federation:
        yield federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")


@pytest.fixture(scope="module")
def fitted(frame: VerticalFrame) -> WoeBinning:
    return WoeBinning(bins=8, merge="none", min_iv=0.02).fit(frame, y="bank.default")


@pytest.fixture
def binning(fitted: WoeBinning) -> Iterator[WoeBinning]:
    yield fitted
    while fitted._before:
        fitted.undo()


def counts(binning: WoeBinning, name: str) -> list[tuple[int, int]]:
    table = binning.bin_table(name)
    return list(zip(table["rows"], table["positives"], strict=True))


def iv(binning: WoeBinning, name: str) -> float:
    table = binning.iv_.set_index(binning.iv_["party"] + "." + binning.iv_["feature"])
    return float(table.loc[name, "iv"])


def test_bins_are_joined_and_parted_again_by_real_runs(frame: VerticalFrame, binning: WoeBinning) -> None:
    before = counts(binning, "agency.turnover")
    others = {name: counts(binning, name) for name in binning._bins if name != "agency.turnover"}
    binning.join("agency.turnover", 1, 3)
    joined = (sum(n for n, _ in before[1:4]), sum(e for _, e in before[1:4]))
    assert counts(binning, "agency.turnover") == [before[0], joined, *before[4:]]
    run = frame.federation.list_runs(1)[0]
    assert (run.protocol, run.run) == ("recount", binning._runs["agency"]) and "turnover" in run.title
    assert {name: counts(binning, name) for name in others} == others
    table = binning.bin_table("agency.turnover")
    assert table["cells"].tolist() == [1, 3, 1, 1, 1, 1]
    assert iv(binning, "agency.turnover") == pytest.approx(table["iv"].sum(), abs=1e-12)
    binning.split("agency.turnover", 1, 2)
    assert binning.bin_table("agency.turnover")["cells"].tolist() == [1, 2, 1, 1, 1, 1, 1]
    binning.undo().undo()
    assert counts(binning, "agency.turnover") == before
    with pytest.raises(DataError, match="no recount to take back"):
        binning.undo()


def test_ones_own_features_are_cut_at_values_and_both_kinds_at_once(frame: VerticalFrame, binning: WoeBinning) -> None:
    fresh = WoeBinning(merge="none", cuts={"bank.income": [-1, 0.5]}).fit(frame, y="bank.default")
    binning.recut({"bank.income": [0.5, -1]}, cells={"agency.turnover": [4], "bank.debt": [2, 6]})
    pd.testing.assert_frame_equal(binning.bin_table("bank.income"), fresh.bin_table("bank.income"))
    assert binning.bin_table("bank.income")["holds"].tolist() == ["below -1", "-1 to below 0.5", "0.5 and above"]
    assert len(binning.bin_table("agency.turnover")) == 2
    assert binning.bin_table("bank.debt")["holds"].tolist() == ["values"] * 3, "cells of the fit have no known edges"
    assert len(binning._before) == 1, "one step to take back"


def test_what_follows_uses_the_new_bins(frame: VerticalFrame, binning: WoeBinning) -> None:
    def distinct() -> int:
        coded = binning.transform(frame)
        model = VerticalLogisticRegression(max_iter=1, standardize=False, clip=None).fit(coded, y="bank.default")
        return len(model.evaluate(coded).roc())

    binning.recut({"bank.income": [0.0]}, cells={"bank.debt": [], "agency.turnover": [4], "agency.noise": []})
    assert binning.dropped_["bank.debt"] == "one bin only" and binning.dropped_["agency.noise"] == "one bin only"
    assert distinct() == 5, "two bins at each party make four different scores"
    binning.undo()
    assert "bank.debt" not in binning.dropped_ and distinct() > 5


def test_a_card_is_made_of_the_bins_that_its_model_was_fitted_on(frame: VerticalFrame, binning: WoeBinning) -> None:
    def fitted_on(coded: VerticalFrame) -> VerticalLogisticRegression:
        return VerticalLogisticRegression(max_iter=1, standardize=False, clip=None).fit(coded, y="bank.default")

    binning.recut(cells={"agency.turnover": [3]})
    model = fitted_on(binning.transform(frame))
    Scorecard().fit(binning, model, frame.federation)
    binning.recut(cells={"agency.turnover": [4]})  # as many bins, elsewhere
    with pytest.raises(DataError, match="agency's bins have changed since the model's frame was made"):
        Scorecard().fit(binning, model, frame.federation)
    table = Scorecard().fit(binning, fitted_on(binning.transform(frame)), frame.federation).table()
    assert (table["feature"] == "turnover").sum() == 2


def test_a_feature_whose_information_changes_is_dropped_or_kept_anew(binning: WoeBinning) -> None:
    assert "agency.turnover" not in binning.dropped_
    binning.min_iv = 0.99 * iv(binning, "agency.turnover")
    binning.join("agency.turnover", 0, 6)
    assert "below min_iv" in binning.dropped_["agency.turnover"]
    binning.min_iv = 0.02


def test_a_saved_binning_keeps_its_new_bins_and_needs_the_frame_for_others(
    frame: VerticalFrame, binning: WoeBinning, tmp_path: Path
) -> None:
    binning.recut(cells={"agency.turnover": [4]})
    binning.save(tmp_path / "binning.json", frame.federation)
    loaded = WoeBinning.load(tmp_path / "binning.json", frame.federation)
    pd.testing.assert_frame_equal(loaded.iv_, binning.iv_)
    with pytest.raises(DataError, match="does not know its rows: give the frame"):
        loaded.split("agency.turnover", 0)
    loaded.split("agency.turnover", 0, frame=frame)
    assert loaded.bin_table("agency.turnover")["cells"].tolist() == [2, 2, 4]


def test_what_cannot_be_is_explained_and_changes_nothing(frame: VerticalFrame, binning: WoeBinning) -> None:
    before = counts(binning, "agency.turnover"), len(frame.federation.list_runs(1000))
    for wrong, message in (
        (lambda: binning.recut(), "name a feature and its new bins"),
        (lambda: binning.recut({"agency.turnover": [0]}), "stay with their party. Name cells instead"),
        (lambda: binning.recut({"bank.income": [0]}, cells={"bank.income": [1]}), "by values and by cells at once"),
        (lambda: binning.recut({"bank.nothing": [0]}), "no bins of 'bank.nothing'"),
        (lambda: binning.join("agency.turnover", 3, 9), "bins 0 to 7 of ordinary values; 3 to 9 cannot be joined"),
        (lambda: binning.split("agency.turnover", 3), "is a single cell and cannot be parted"),
        (lambda: binning.split("agency.turnover", 9), "bins 0 to 7 of ordinary values, and no 9"),
    ):
        with pytest.raises(DataError, match=message):
            wrong()
    assert (counts(binning, "agency.turnover"), len(frame.federation.list_runs(1000))) == before
    with pytest.raises(DataError, match="cells 0 to 7, and no 8"):
        binning.recut(cells={"agency.turnover": [8]})
    assert counts(binning, "agency.turnover") == before[0] and not binning._before


def test_a_front_end_finds_a_binning_by_its_handle(binning: WoeBinning) -> None:
    other = WoeBinning()
    pipeline = make_pipeline(binning, VerticalLogisticRegression())
    assert find({"x": 1, "other": other, "b": binning}, binning.handle_) is binning
    assert find({"x": 1, "p": pipeline}, binning.handle_) is binning
    with pytest.raises(DataError, match="in no variable"):
        find({"x": 1, "other": other}, binning.handle_)
