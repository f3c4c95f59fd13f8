"""Columns and labels as they should not be, at every estimator of the bench: named and explained, or noted.

Each case says what each kind of estimator does: a text that the error must have, a note that must be given, or FITS. No
figure that comes back may be missing or infinite.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import (
    Scorecard,
    SecureBoostClassifier,
    VerticalImputer,
    VerticalLinearRegression,
    VerticalLogisticRegression,
    VerticalOneHotEncoder,
    VerticalPipeline,
    VerticalPoissonRegression,
    WoeBinning,
    cross_validate,
)

ROWS = 240
Tables = dict[str, pd.DataFrame]
PLAIN = {"max_iter": 2, "standardize": False, "clip": None}


def tables() -> Tables:
    """Of the bank and the agency; ids stand in the order of an aligned frame."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(ROWS, 4))
    label = (X.sum(axis=1) + rng.logistic(size=ROWS) > 0).astype(int)
    ids = [f"ZZ-{k:04d}" for k in range(ROWS)]
    bank = {"id": ids, "a": X[:, 0], "b": X[:, 1], "y": label}
    return {"bank": pd.DataFrame(bank), "agency": pd.DataFrame({"id": ids, "c": X[:, 2], "d": X[:, 3]})}


class Card:
    """A scorecard with all that comes before it, as one estimator."""

    def fit(self, frame: VerticalFrame, y: str) -> Card:
        self._binning = WoeBinning(bins=4).fit(frame, y)
        coded = self._binning.transform(frame)
        model = VerticalLogisticRegression(**PLAIN).fit(coded, y)  # type: ignore[arg-type]
        self._card = Scorecard().fit(self._binning, model, frame.federation)
        return self

    @property
    def notes_(self) -> list[str]:
        return [*self._binning.notes_, *self._card.notes_]

    def predict(self, frame: VerticalFrame) -> Any:
        return self._card.score(frame)


def pipeline(**options: Any) -> VerticalPipeline:
    return VerticalPipeline(
        [
            ("fill", VerticalImputer()),
            ("categories", VerticalOneHotEncoder(**options)),
            ("model", VerticalLogisticRegression(**PLAIN)),  # type: ignore[arg-type]
        ]
    )


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "binning": lambda: WoeBinning(bins=4),
    "logistic": lambda: VerticalLogisticRegression(max_iter=2),
    "linear": lambda: VerticalLinearRegression(max_iter=2),
    "poisson": lambda: VerticalPoissonRegression(max_iter=2),
    "boosting": lambda: SecureBoostClassifier(n_estimators=2, max_depth=2),
    "card": Card,
    "pipeline": pipeline,
}
BINS, REGRESSIONS = ("binning", "card"), ("logistic", "linear", "poisson")
FITS = ""


class Note(str):
    """What a note must have, of an estimator that goes on."""


def few(n: int, value: Any, other: Any) -> Any:
    return np.where(np.arange(ROWS) < n, value, other)


def put(party: str, column: str, values: Any) -> Callable[[Tables], None]:
    def change(held: Tables) -> None:
        held[party][column] = values(held[party]) if callable(values) else values

    return change


MIXED = pd.Series([1.5, 2.5] * (ROWS // 2 - 10) + ["n/a"] * 20, dtype=object)
TEXT_FITS = {"boosting": FITS, "pipeline": FITS}

# what is wrong -> the change, and what happens: to all, and to those that differ
TRAINING: dict[str, tuple[Callable[[Tables], None], str, dict[str, str]]] = {
    "a constant column of the passive party": (
        put("agency", "d", 7.0),
        "agency has the same value in all training rows of 'd'",
        dict.fromkeys(BINS, Note("agency's 'd' has one bin only (every value is the same)"))
        | {"boosting": Note("agency's 'd' has the same value in all training rows: no split uses it")},
    ),
    "a constant column of the active party": (
        put("bank", "b", 7.0),
        "bank has the same value in all training rows of 'b'",
        dict.fromkeys(BINS, Note("bank's 'b' has one bin only (every value is the same)"))
        | {"boosting": Note("bank's 'b' has the same value in all training rows: no split uses it")},
    ),
    "a column without any value": (
        put("agency", "d", np.nan),
        "'d' of table 'own' of agency has 240 missing values in 240 rows. Fill them with VerticalImputer",
        dict.fromkeys(BINS, Note("agency's 'd' has one bin only (every value is missing)"))
        | {
            "boosting": Note("agency's 'd' has no value in any training row: no split uses it"),
            "pipeline": "agency's 'd' has no value in any training row",
        },
    ),
    "a column with missing values": (
        put("agency", "d", lambda t: t["d"].where(np.arange(ROWS) > 20)),
        "'d' of table 'own' of agency has 21 missing values in 240 rows",
        {"binning": FITS, "card": FITS, "boosting": FITS, "pipeline": FITS},
    ),
    "a name for each row": (
        put("agency", "d", [f"street {k}" for k in range(ROWS)]),
        "'d' of table 'own' of agency is text: 240 of 240 values are not numbers. Encode it",
        {
            "boosting": Note("agency's 'd' has no category of 10 training rows: no split uses it"),
            "pipeline": "too few of its 240 categories have 10 training rows or more",
        },
    ),
    "text among numbers": (
        put("agency", "d", MIXED),
        "'d' of table 'own' of agency is text: 20 of 240 values are not numbers. Encode it",
        TEXT_FITS,
    ),
    "infinite values": (
        put("agency", "d", few(12, np.inf, 1.0)),
        "infinite values",
        {},
    ),
    "a date": (
        put("agency", "d", pd.Timestamp("2020-01-01")),
        "'d' of table '(own|prepared-[0-9a-f]+)' of agency is a date. Turn it into numbers with VerticalDateFeatures",
        {},
    ),
    "a value that few rows have": (
        put("agency", "d", few(4, 1.0, 0.0)),
        "agency's column 'd' has two values and one of them stands in 4 training rows",
        dict.fromkeys(BINS, Note("agency's 'd' has one bin only")) | {"boosting": FITS},
    ),
    "a bin without events": (
        put("agency", "d", lambda t: np.where(tables()["bank"]["y"] == 1, np.abs(t["d"]), -np.abs(t["d"]))),
        FITS,
        {},
    ),
    "a label that is missing in some rows": (
        put("bank", "y", few(6, np.nan, 1.0)),
        "bank: label 'y' of table '(own|prepared-[0-9a-f]+)' of bank has 6 missing values in 240 rows. Save a table",
        {},
    ),
    "a label that is text": (
        put("bank", "y", few(30, "yes", "no")),
        "label 'y' of table '(own|prepared-[0-9a-f]+)' of bank is text: 240 of 240 values are not numbers. Save a",
        {},
    ),
    "a label of one class": (
        put("bank", "y", 1),
        "bank's label 'y' (has one class only|is the same in all rows)",
        {},
    ),
    "a label of which one class is in a few rows": (
        put("bank", "y", few(4, 1, 0)),
        "fewer than 10 rows of one class",
        {"linear": FITS, "poisson": FITS, "boosting": FITS},
    ),
}  # fmt: skip


def finite(found: Any) -> bool:
    values = [found] if isinstance(found, pd.Series) else list(found.coef_.values())
    numbers = [value.to_numpy(dtype=np.float64) for value in values if isinstance(value, pd.Series)]
    return all(np.isfinite(each).all() for each in numbers)


def said(act: Callable[[], Any], expected: str) -> Any:
    """The estimator after `act`; None where it was refused as expected."""
    if expected and not isinstance(expected, Note):
        with pytest.raises(DataError) as caught:
            act()
        assert re.search(re.escape(expected) if "(" not in expected else expected, str(caught.value)), str(caught.value)
        return None
    found = act()
    notes = getattr(found, "notes_", [])
    assert not expected or any(expected in note for note in notes), notes
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINING)
def test_what_cannot_be_trained_on_is_named_and_explained(case: str) -> None:
    change, everybody, others = TRAINING[case]
    held = tables()
    change(held)
    with fednb.simulate({party: {"own": table} for party, table in held.items()}, decryption_quota=50) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        for name, make in ESTIMATORS.items():
            found = said(lambda make=make: make().fit(frame, "bank.y"), others.get(name, everybody))  # type: ignore[misc]
            if isinstance(found, WoeBinning):
                assert np.isfinite(found.iv_["iv"]).all()
            elif found is not None:
                scores = (
                    found.predict(frame)
                    if hasattr(found, "predict") and name != "pipeline"
                    else found.predict_proba(frame)
                )
                assert finite(scores.summary()), name


# ------------------------------------------------------------ new rows


NEW: dict[str, tuple[Callable[[Tables], None], str, dict[str, str]]] = {
    "a column that is gone": (
        lambda held: held.update(agency=held["agency"].drop(columns="d")),
        "agency's d, which this frame lacks",
        {},
    ),
    "a column that has become text": (
        put("agency", "d", "many"),
        "'d' of table 'new' of agency is text: 240 of 240 values are not numbers",
        {"pipeline": "agency's columns have changed since this was fitted: 'd' was a number and is text now",
         "boosting": "'d'"},
    ),
    "a column that has become a date": (
        put("agency", "d", pd.Timestamp("2020-01-01")),
        "'d' of table 'new' of agency is a date",
        {"pipeline": "'d' was a number and is a date now"},
    ),
    "infinite values": (put("agency", "d", few(12, np.inf, 1.0)), "infinite values", {}),
    "missing values that no training row had": (
        put("agency", "d", lambda t: t["d"].where(np.arange(ROWS) > 20)),
        "'d' of table 'new' of agency has 21 missing values in 240 rows",
        {"pipeline": FITS, "boosting": Note("agency's 'd' is missing in 21 rows, and in no training row")}
        | dict.fromkeys(BINS, Note("agency's 'd': 21 rows are missing or special in a way that too few training rows")),
    ),
    "no value at all": (
        put("agency", "d", np.nan),
        "'d' of table 'new' of agency has 240 missing values in 240 rows",
        {"pipeline": FITS, "boosting": Note("agency's 'd' is missing in 240 rows, and in no training row")}
        | dict.fromkeys(BINS, Note("agency's 'd': 240 rows are missing or special in a way")),
    ),
    "no label yet": (lambda held: held.update(bank=held["bank"].drop(columns="y")), FITS, {}),
    "a column more, and another order": (
        lambda held: held.update(agency=held["agency"].assign(e="x")[["e", "d", "id", "c"]]), FITS, {}
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_new_rows_that_are_not_as_the_training_rows_are_named_and_explained(name: str) -> None:
    held = {party: {"own": table} for party, table in tables().items()}
    for case, (change, _, _) in NEW.items():
        later = tables()
        change(later)
        for party, table in later.items():
            held[party][case] = table
    with fednb.simulate(held, decryption_quota=50) as federation:
        trained = ESTIMATORS[name]().fit(federation.align({"bank": "own", "agency": "own"}, on="id"), "bank.y")

        def score(frame: VerticalFrame) -> Any:
            if isinstance(trained, WoeBinning):
                trained.transform(frame)
            else:
                scores = (
                    trained.predict(frame)
                    if isinstance(trained, Card) or name in ("linear", "poisson")
                    else (trained.predict_proba(frame))
                )
                assert finite(scores.summary())
            return trained

        for case, (_, everybody, others) in NEW.items():
            expected = others.get(name, everybody).replace("'new'", f"'{case}'")
            kind = type(others.get(name, everybody))
            frame = federation.align({"bank": case, "agency": case}, on="id")
            said(lambda frame=frame: score(frame), kind(expected))  # type: ignore[misc]


def test_a_category_that_is_new_at_scoring_is_an_error_or_counted_with_the_others() -> None:
    held = {party: {"own": table, "new": table.copy()} for party, table in tables().items()}
    held["agency"]["own"]["d"] = np.array(["north", "south", "east"])[np.arange(ROWS) % 3]
    held["agency"]["new"]["d"] = np.array(["north", "south", "moon"])[np.arange(ROWS) % 3]
    with fednb.simulate(held, decryption_quota=50) as federation:
        frame, new = (federation.align({"bank": name, "agency": name}, on="id") for name in ("own", "new"))
        strict = pipeline().fit(frame, "bank.y")
        with pytest.raises(DataError, match="agency's 'd' has a category that no training row has in 80 rows of 240"):
            strict.predict_proba(new)
        lenient = pipeline(unseen="other").fit(frame, "bank.y")
        assert lenient.predict_proba(new).summary()["rows"] == ROWS
        assert any("no training row has in 80 rows of 240; they count as 'd_other'" in note for note in lenient.notes_)


def test_a_fold_that_lacks_a_class_is_named() -> None:
    held = tables()
    held["bank"]["y"] = few(12, 1, 0)
    with fednb.simulate({party: {"own": table} for party, table in held.items()}) as federation:
        frame = federation.align({"bank": "own", "agency": "own"}, on="id")
        with pytest.raises(DataError, match=r"in fold 1 of 3: bank's label 'y' has fewer than 10 rows of one class"):
            cross_validate(VerticalLogisticRegression(max_iter=2), frame, "bank.y", cv=3)
