"""Correlations as their user sees them: over a simulation, with a label, with a binning's weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import FeatureCorrelation, FeatureStatistics, WoeBinning
from fednb.protocols.outermost import held_in

ROWS = 600
DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))


def tables() -> dict[str, dict[str, pd.DataFrame]]:
    """The agency's turnover is the bank's income again, and the utility's bill is a sum of others' columns."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(ROWS, 4))
    label = (X @ [1.0, -0.8, 0.9, 0.7] + rng.logistic(size=ROWS) > 0).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    bank = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "debt": X[:, 1], "default": label})
    agency = pd.DataFrame(
        {
            "sme_id": ids,
            "turnover": 1e6 * (X[:, 0] + 0.2 * rng.normal(size=ROWS)),
            "delay": np.where(np.arange(ROWS) % 9, X[:, 2], np.nan),
            "same": 1.0,
            "town": rng.choice(["Ulm", "Trier"], ROWS),
        }
    )
    bill = X[:, 1] + X[:, 2] + X[:, 3] + 0.2 * rng.normal(size=ROWS)
    utility = pd.DataFrame({"sme_id": ids, "usage": X[:, 3], "bill": bill})
    return {"bank": {"loans": bank}, "agency": {"invoices": agency}, "utility": {"meters": utility}}


NUMBERS = ["bank.income", "bank.debt", "agency.turnover", "agency.delay", "utility.usage", "utility.bill"]


def joined() -> pd.DataFrame:
    made = tables()
    both = pd.concat([t.add_prefix(f"{p}.") for p, named in made.items() for t in named.values()], axis=1)
    found = both[[*NUMBERS, "bank.default"]]
    return found.fillna(found.mean())


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    with fednb.simulate(tables(), decryption_quota=20) as federation:
        made = federation.align({"bank": "loans", "agency": "invoices", "utility": "meters"}, on="sme_id")
        made.columns["bank"], made.labels["bank"] = ("income", "debt"), ("default",)  # as if it were declared
        yield made


def numeric(frame: VerticalFrame) -> VerticalFrame:
    """Without the columns that no binning takes."""
    made = frame._take(np.arange(len(frame)), "numbers")
    made.columns["agency"] = ("turnover", "delay", "same")
    return made


def test_correlations_and_vif_are_those_of_the_joined_table(frame: VerticalFrame) -> None:
    found = FeatureCorrelation().fit(frame)
    truth = joined()[NUMBERS].corr()
    assert list(found.matrix_.index) == NUMBERS
    assert np.abs(found.matrix_ - truth).to_numpy().max() < 0.015
    expected = pd.Series(np.diag(np.linalg.inv(truth)), index=NUMBERS)
    assert np.allclose(found.vif_[NUMBERS], expected, rtol=0.12) and found.vif_["utility.bill"] > 10
    assert found.pairs(0.9)[["first", "second"]].to_numpy().tolist() == [["bank.income", "agency.turnover"]]
    assert "agency's 'same' is left out: all rows, or all but a few, have the same value." in found.notes_
    assert "agency's 'town' is left out: it is text." in found.notes_
    assert "agency's 'delay': missing values count as the mean." in found.notes_


def test_a_label_has_its_line_and_is_no_part_of_the_vif(frame: VerticalFrame) -> None:
    found = FeatureCorrelation().fit(frame, y="bank.default")
    assert "bank.default" not in found.vif_.index
    with_label = joined().corr()["bank.default"][NUMBERS]
    assert np.allclose(found.matrix_.loc["bank.default", NUMBERS], with_label, atol=0.015)
    pd.testing.assert_series_equal(found.vif_, FeatureCorrelation().fit(frame).vif_)


def test_weights_of_evidence_are_correlated_too(frame: VerticalFrame) -> None:
    frame = numeric(frame)
    binning = WoeBinning(bins=6).fit(frame, y="bank.default")
    found = FeatureCorrelation(binning=binning).fit(frame)
    coded = {}
    for party, names in binning.transform(frame, "coded_here").columns.items():
        coded |= {f"{party}.{name}": name for name in names}
    assert set(found.matrix_.index) == set(coded)
    assert found.matrix_.loc["bank.income", "agency.turnover"] > 0.7
    with pytest.raises(DataError, match="without binning"):
        FeatureCorrelation(binning=binning).fit(frame, y="bank.default")


def test_scikit_learns_conventions_hold(frame: VerticalFrame) -> None:
    assert clone(FeatureCorrelation()).get_params() == {"binning": None}
    with pytest.raises(NotFittedError):
        FeatureCorrelation().pairs()
    with pytest.raises(DataError, match="this frame has 99 rows; correlations need at least 100"):
        FeatureCorrelation().fit(frame._take(np.arange(99), "few"))


def test_on_public_data_figures_are_those_of_the_joined_table() -> None:
    files = {"bank": DATA / "default_credit_hetero_guest.csv", "agency": DATA / "default_credit_hetero_host.csv"}
    if not all(file.exists() for file in files.values()):
        pytest.skip(f"default_credit is not in {DATA}")
    made = {party: pd.read_csv(file, dtype={"id": str}) for party, file in files.items()}
    with fednb.simulate({party: {"own": table} for party, table in made.items()}) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        found = FeatureCorrelation().fit(frame, y="bank.y")
        statistics = FeatureStatistics().fit(frame, y="bank.y")
    both = made["bank"].merge(made["agency"], on="id", suffixes=("_bank", "_agency")).drop(columns="id")
    joined = both.set_axis([f"{p}.{c}" for p in files for c in made[p].columns if c != "id"], axis=1)
    truth = joined.corr().loc[found.matrix_.index, found.matrix_.index]
    away = (joined - joined.mean()) ** 2
    held = away.max() / away.sum() > 0.1  # columns of which one row has more than a tenth of the variance
    plain = [name for name in truth.index if not held[name]]
    assert 1 <= held.sum() <= 3
    assert np.abs(found.matrix_ - truth).loc[plain, plain].to_numpy().max() < 0.0051
    features = joined.drop(columns="bank.y").apply(lambda x: held_in(x.to_numpy()))
    assert np.allclose(found.vif_[features.columns], np.diag(np.linalg.inv(features.corr())), rtol=0.051)
    table = statistics.table_.set_index(statistics.table_["party"] + "." + statistics.table_["feature"])
    plain.remove("bank.y")
    assert np.abs(table["mean"] - joined[table.index].mean())[plain].max() < 0.01
    assert np.abs(table["sd"] - joined[table.index].std())[plain].max() < 0.01
    assert statistics.rate_ == pytest.approx(joined["bank.y"].mean(), abs=0.001)
