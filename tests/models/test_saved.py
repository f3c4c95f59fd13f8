"""A model that was saved scores as before, and whatever is not as it was saved is named."""

from __future__ import annotations

import gc
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.store import MemberStore
from fednb.models import VerticalLogisticRegression, Withheld
from fednb.protocols.model_part import seal


@pytest.fixture(scope="module")
def federation() -> Iterator[fednb.Federation]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(240, 3))
    y = (X.sum(axis=1) + rng.logistic(size=240) > 0).astype(int)
    ids = [f"k{i:03d}" for i in range(240)]
    bank = pd.DataFrame({"id": ids, "a": X[:, 0], "default": y})
    agency = pd.DataFrame({"id": ids, "b": X[:, 1], "c": X[:, 2]})
    with fednb.simulate(
        {"bank": {"own": bank}, "agency": {"own": agency}}, release={"bank": ["coefficients"]}, decryption_quota=5
    ) as federation:
        yield federation


@pytest.fixture(scope="module")
def frame(federation: fednb.Federation) -> VerticalFrame:
    return federation.align({"bank": "own", "agency": "own"}, on="id")


@pytest.fixture(scope="module")
def model(frame: VerticalFrame) -> VerticalLogisticRegression:
    return VerticalLogisticRegression(max_iter=4, class_weight={0: 1.0, 1: 2.0}).fit(frame, y="bank.default")


def test_a_loaded_model_scores_new_alignments_as_the_saved_one(
    federation: fednb.Federation, model: VerticalLogisticRegression, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    assert model.save(path, federation) is model
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = VerticalLogisticRegression.load(path, federation)
    fresh = federation.align({"bank": "own", "agency": "own"}, on="id")
    assert loaded.evaluate(fresh).auc == model.evaluate(fresh).auc
    assert loaded.evaluation_.log_loss == model.evaluation_.log_loss
    assert loaded.get_params() == model.get_params()
    assert loaded.coef_["bank"].equals(model.coef_["bank"]) and isinstance(loaded.coef_["agency"], Withheld)
    assert repr(loaded.view()) == repr(model.view()).replace(model.run_, loaded.run_)


def test_the_file_holds_nothing_of_a_party_that_releases_nothing(
    federation: fednb.Federation, model: VerticalLogisticRegression, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    model.save(path, federation)
    stores = [o for o in gc.get_objects() if isinstance(o, MemberStore)]
    parts = [dict(store.load(model.run_)) for store in stores if model.run_ in set(store)]
    (own,) = [part for part in parts if list(part.get("columns", ())) == ["b", "c"]]
    text = path.read_text()
    for name in ("coef", "centre", "scale", "low", "high"):
        assert not any(repr(float(value)) in text for value in own[name])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"intercept": ', '"intercept": 1', "its checksum does not fit"),
        ('"format": 1', '"format": 2', "is no model that fednb"),
        ('"label"', '"libel"', "is no model that fednb"),
    ],
)
def test_a_file_that_was_changed_is_refused(
    federation: fednb.Federation, model: VerticalLogisticRegression, tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "model.json"
    model.intercept_ = abs(model.intercept_)
    model.save(path, federation)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        VerticalLogisticRegression.load(path, federation)


def test_a_part_that_is_not_the_saved_one_is_named(
    federation: fednb.Federation, model: VerticalLogisticRegression, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    model.save(path, federation)
    run = VerticalLogisticRegression.load(path, federation).run_
    (store,) = [
        o
        for o in gc.get_objects()
        if isinstance(o, MemberStore) and run in set(o) and list(o.load(run).get("columns", ())) == ["b", "c"]
    ]
    part = dict(store.load(run))
    store.save(run, {**part, "coef": np.asarray(part["coef"]) + 1e-9})
    with pytest.raises(DataError, match="agency's part of the model is not the one that was saved"):
        VerticalLogisticRegression.load(path, federation)
    store.forget(run)
    with pytest.raises(DataError, match="agency: this member holds no part of run"):
        VerticalLogisticRegression.load(path, federation)


def test_another_federation_lacks_the_parties_or_their_parts(
    federation: fednb.Federation, model: VerticalLogisticRegression, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    model.save(path, federation)
    empty = pd.DataFrame({"id": ["x"]})
    with (
        fednb.simulate({"bank": {"own": empty}, "telco": {"own": empty}}) as other,
        pytest.raises(DataError, match="the model needs agency, which this federation does not have"),
    ):
        VerticalLogisticRegression.load(path, other)
    with pytest.raises(DataError, match="cannot be read"):
        VerticalLogisticRegression.load(tmp_path / "nothing.json", federation)


def test_a_seal_tells_every_change_and_nothing_without_its_salt() -> None:
    values = {"coef": np.array([1.0, 2.0]), "columns": ["a", "b"]}
    assert seal(values, b"s" * 32) == seal({**values, "coef": np.array([1.0, 2.0])}, b"s" * 32)
    assert seal(values, b"s" * 32) != seal(values, b"t" * 32)
    assert seal(values, b"s" * 32) != seal({**values, "coef": np.array([1.0, 2.5])}, b"s" * 32)
    assert seal(values, b"s" * 32) != seal({**values, "columns": ["b", "a"]}, b"s" * 32)


def test_a_seal_survives_the_disk(tmp_path: Path) -> None:
    values = {"coef": np.array([1.0, 2.0]), "columns": ["a", "b"], "intercept": -0.25, "scale": np.ones(2)}
    store = MemberStore(tmp_path / "store")
    store.save("0" * 16, values)
    assert seal(dict(store.load("0" * 16)), b"s" * 32) == seal(values, b"s" * 32)
