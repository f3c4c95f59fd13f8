from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation.frame import VerticalFrame
from fednb.models import Cost, VerticalLogisticRegression

ROWS = 150


@pytest.fixture(scope="module")
def frame() -> Iterator[VerticalFrame]:
    rng = np.random.default_rng(2)
    ids = [f"S{k:03d}" for k in range(ROWS)]
    bank = pd.DataFrame({"id": ids, "a": rng.normal(size=ROWS), "b": rng.normal(size=ROWS)})
    bank["default"] = (bank["a"] + rng.logistic(size=ROWS) > 0).astype(int)
    agency = pd.DataFrame({"id": ids, "c": rng.normal(size=ROWS)})
    with fednb.simulate({"bank": {"own": bank}, "agency": {"own": agency}}, decryption_quota=5) as federation:
        yield federation.align({"bank": "own", "agency": "own"}, on="id")


def test_a_fit_is_shown_beside_its_estimate(frame: VerticalFrame) -> None:
    model = VerticalLogisticRegression(max_iter=2)
    cost = model.cost(frame, y="bank.default")
    assert isinstance(cost, Cost) and model.cost_ is cost
    assert cost.seconds > 0 and (cost.iterations, cost.rows) == (2, ROWS)
    assert set(cost.members) == {"bank", "agency", "coordinator"}
    assert "2 iterations on 150 rows; computing: bank" in str(cost)
    assert not hasattr(model, "run_"), "nothing was trained"

    model.fit(frame, y="bank.default")
    assert cost.bytes == pytest.approx(model.bytes_, rel=0.05)
    (note,) = [note for note in model.notes_ if note.startswith("estimated")]
    assert "for 2 iterations; it took" in note and note in model.view().plain()

    latest = frame.federation.costs().iloc[0]
    assert latest["run"] == model.run_
    assert latest["estimated s"] == pytest.approx(cost.seconds, abs=0.06)
    assert latest["s"] == pytest.approx(model.seconds_, abs=0.06)
    assert latest["MB"] == pytest.approx(model.bytes_ / 1e6, abs=0.01)


def test_an_estimate_of_other_rows_is_not_held_against_a_fit(frame: VerticalFrame) -> None:
    model = VerticalLogisticRegression(max_iter=1)
    train, _ = frame.split(test_size=0.2, random_state=0)
    model.cost(train, y="bank.default")
    model.fit(frame, y="bank.default")
    assert not [note for note in model.notes_ if note.startswith("estimated")]
    assert pd.isna(frame.federation.costs().iloc[0]["estimated s"])


def test_what_a_fit_took_is_expected_of_the_next_one_like_it(frame: VerticalFrame) -> None:
    model = VerticalLogisticRegression(max_iter=12, tol=0.02).fit(frame, y="bank.default")
    remembered = frame.federation.iterations
    (key,) = (key for key, taken in remembered.items() if taken == model.n_iter_ and '"tol":0.02' in key)
    remembered[key] = 3  # which nobody would guess
    train, _ = frame.split(test_size=0.2, random_state=0)
    again = VerticalLogisticRegression(C=0.5, max_iter=12, tol=0.02)
    assert again.cost(train, y="bank.default").iterations == 3
    assert again.set_params(tol=0.0).cost(train, y="bank.default").iterations == 12


def test_weights_of_classes_count_in_the_estimate(frame: VerticalFrame) -> None:
    plain = VerticalLogisticRegression().cost(frame, y="bank.default")
    weighted = VerticalLogisticRegression(class_weight="balanced").cost(frame, y="bank.default")
    assert weighted.bytes > plain.bytes, "slots are wider"
