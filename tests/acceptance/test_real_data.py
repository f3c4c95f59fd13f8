"""Public credit and medical data, split by columns as FATE ships it, between real processes at 2048 bits.

The files are not part of the project: FEDNB_DATA names their folder, else ../shared/data beside the checkout is
looked at, and the tests skip when they are not there. Every party is protocol-only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split

import fednb
from fednb.federation import launch
from fednb.models import VerticalLogisticRegression, Withheld, WoeBinning
from fednb.protocols.cuts import fit_cuts
from fednb.protocols.evidence import merged, woe
from fednb.protocols.ids import prepare

DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = {quota}
[party.guest]
mode = "protocol-only"
[party.guest.tables.own]
path = "guest.csv"
id = "id"
label = "y"
[party.host]
mode = "protocol-only"
release = {release}
[party.host.tables.own]
path = "host.csv"
id = "id"
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    yield


def split_of(name: str, folder: Path, rows: int | None, quota: float, release: str) -> tuple[Path, pd.DataFrame]:
    """A federation file on a sample of a public data set, and the joined rows in the order of an aligned frame."""
    files = [DATA / f"{name}_hetero_{side}.csv" for side in ("guest", "host")]
    if not all(file.is_file() for file in files):
        pytest.skip(f"{name} is not in {DATA}")
    guest, host = (pd.read_csv(file, dtype={"id": str}) for file in files)
    if rows is not None:
        guest = guest.sample(rows, random_state=1)
    host = host.sample(frac=1.0, random_state=2)  # another order, and more rows than the guest has
    guest.to_csv(folder / "guest.csv", index=False)
    host.to_csv(folder / "host.csv", index=False)
    file = folder / "federation.toml"
    file.write_text(FILE.format(quota=quota, release=release))
    columns = {column: f"host_{column}" for column in host.columns if column != "id"}
    joined = guest.merge(host.rename(columns=columns), on="id", validate="one_to_one")
    order = sorted(range(len(joined)), key=lambda row: prepare(joined["id"].to_numpy(dtype=object)).ids[row])
    return file, joined.iloc[order].reset_index(drop=True)


def centralised(joined: pd.DataFrame) -> tuple[LogisticRegression, float]:
    """scikit-learn on the joined rows: the same split, standardised and winsorised on training rows; and its AUC."""
    y = joined["y"].to_numpy()
    X = joined.drop(columns=["id", "y"]).to_numpy(dtype=np.float64)
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, random_state=0)
    mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
    Z = np.clip((X - mean) / sd, -4, 4)
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5_000).fit(Z[train], y[train])
    return model, float(roc_auc_score(y[test], model.predict_proba(Z[test])[:, 1]))


@pytest.mark.slow
def test_default_credit_is_as_good_as_scikit_learn_on_the_joined_table(tmp_path: Path) -> None:
    file, joined = split_of("default_credit", tmp_path, 3_000, 0.5, '["coefficients"]')
    expected, auc = centralised(joined)
    with launch.up(file) as running, fednb.connect(running) as federation:
        frame = federation.align({"guest": "own", "host": "own"}, on="id")
        assert frame.shape == (3_000, 23)
        train, test = frame.split(test_size=0.3, random_state=0)
        model = VerticalLogisticRegression().fit(train, y="guest.y")
        evaluation = model.evaluate(test)
    assert model.n_iter_ <= 20
    assert evaluation.auc == pytest.approx(auc, abs=0.001)
    found = np.concatenate([np.asarray(model.coef_["guest"]), np.asarray(model.coef_["host"])])
    assert found == pytest.approx(expected.coef_[0], abs=0.05)
    assert model.intercept_ == pytest.approx(float(expected.intercept_[0]), abs=0.1)


@pytest.mark.slow
def test_breast_is_as_good_as_scikit_learn_and_the_host_keeps_its_coefficients(tmp_path: Path) -> None:
    file, joined = split_of("breast", tmp_path, None, 2.0, "[]")
    expected, auc = centralised(joined)
    with launch.up(file) as running, fednb.connect(running) as federation:
        train, test = federation.align({"guest": "own", "host": "own"}, on="id").split(test_size=0.3, random_state=0)
        model = VerticalLogisticRegression().fit(train, y="guest.y")
        evaluation = model.evaluate(test)
    assert evaluation.auc == pytest.approx(auc, abs=0.005)
    assert isinstance(model.coef_["host"], Withheld)
    own = np.asarray(model.coef_["guest"])
    # the classes nearly separate: the ranking is exact, sizes are less so
    assert np.corrcoef(own, expected.coef_[0][: len(own)])[0, 1] > 0.9


def weighed(x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """A column of the joined table as weights of evidence of its training rows."""
    cuts = fit_cuts(x[train], bins=20, method="quantile", least=10)
    cells, label = cuts.cells(x), y[train]
    rows, positives = (
        np.bincount(cells[train], weights=w, minlength=cuts.size)[: cuts.ordered].astype(np.int64)
        for w in (np.ones(len(train)), label)
    )
    bins = merged(
        rows,
        positives,
        len(train),
        int(label.sum()),
        ordered=cuts.ordered,
        merge="monotone",
        least=int(np.ceil(0.05 * len(train))),
        most=10,
    )
    counts = [np.array([c[bins == b].sum() for b in range(bins.max() + 1)]) for c in (rows, positives)]
    return np.asarray(woe(*counts, len(train), int(label.sum()))[bins[cells]])


@pytest.mark.slow
def test_weights_of_evidence_and_a_regression_are_as_good_as_on_the_joined_table(tmp_path: Path) -> None:
    file, joined = split_of("default_credit", tmp_path, 6_000, 0.5, "[]")
    y = joined["y"].to_numpy()
    train, test = train_test_split(np.arange(len(y)), test_size=0.3, random_state=0)
    features = joined.drop(columns=["id", "y"])
    W = np.column_stack([weighed(features[name].to_numpy(dtype=np.float64), y, train) for name in features])
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5_000).fit(W[train], y[train])
    scores = reference.predict_proba(W[test])[:, 1]
    fpr, tpr, _ = roc_curve(y[test], scores)
    with launch.up(file) as running, fednb.connect(running) as federation:
        frame = federation.align({"guest": "own", "host": "own"}, on="id")
        some, others = frame.split(test_size=0.3, random_state=0)
        binning = WoeBinning().fit(some, y="guest.y")
        coded = binning.transform(some)
        model = VerticalLogisticRegression(standardize=False, clip=None).fit(coded, y="guest.y")
        evaluation = model.evaluate(binning.transform(others))
    assert evaluation.auc == pytest.approx(roc_auc_score(y[test], scores), abs=0.002)
    assert evaluation.ks == pytest.approx(float((tpr - fpr).max()), abs=0.01)
    assert evaluation.auc > centralised(joined)[1] + 0.02  # what weights are for
