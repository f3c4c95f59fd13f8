"""Views are decoded strictly: they come from a remote member's cell."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fednb.federation import views
from fednb.federation.views import (
    MIME,
    AlignmentView,
    Calibration,
    Coefficients,
    Estimate,
    EvaluationView,
    FrameView,
    ModelView,
    PartyAlignment,
    Roc,
    ScoresView,
    TrainingView,
)

ALIGNMENT = AlignmentView(
    run="r1",
    matched=70,
    seconds=1.5,
    parties=[
        PartyAlignment(
            member="bank", table="loans", on=["id"], rows=102, ids=100, duplicates=2, formats={"AA-99": 102}
        ),
        PartyAlignment(member="agency", table="invoices", on=["id"], rows=90, ids=90),
    ],
)
EVALUATION = EvaluationView(
    name="test",
    auc=Estimate(value=0.72, low=0.70, high=0.74),
    ks=Estimate(value=0.35),
    rows=1000,
    positives=100,
    roc=Roc(fpr=[0, 0.5, 1], tpr=[0, 0.8, 1], threshold=[1, 0.4, 0]),
    calibration=Calibration(predicted=[0.1, 0.3], observed=[0.12, 0.29], rows=[500, 500]),
)
MODEL = ModelView(
    title="VerticalLogisticRegression",
    parts=[
        Coefficients(member="bank", columns=["income"], values=[-0.5]),
        Coefficients(member="agency", columns=["a", "b"], withheld="agency keeps its coefficients"),
    ],
    evaluation=EVALUATION,
)
EVERY_VIEW = [
    ALIGNMENT,
    FrameView(frame="f1", rows=70, columns={"bank": ["income"]}, labels=["bank.default"], alignment=ALIGNMENT),
    TrainingView(run="r1", title="a fit"),
    MODEL,
    EVALUATION,
    ScoresView(member="bank", rows=10, summary={"mean": 0.1}, edges=[0, 0.5, 1], counts=[4, 6]),
]


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda view: type(view).__name__)
def test_a_view_survives_json_and_has_plain_text(view: views.AnyView) -> None:
    data = json.loads(json.dumps(views.bundle(view), allow_nan=False))
    assert views.decode(data[MIME]) == view
    assert data["text/plain"] == view.plain() != ""


@pytest.mark.parametrize(
    "value",
    [
        None,
        "training",
        [],
        {},
        {"view": "script"},
        {"view": "training"},
        {"view": "training", "run": 7},
        {"view": "training", "run": "r", "html": "<b>"},
        {"view": "training", "run": "r" * 10_000},
        {"view": "alignment", "matched": -1, "parties": []},
        {"view": "alignment", "matched": 1, "parties": [{"member": "a"}] * 1_000},
        {"view": "evaluation", "auc": {"value": "<img>"}, "ks": {"value": 1}},
        {"view": "scores", "member": "a", "rows": 1, "edges": [0.0] * 100_000},
    ],
)
def test_anything_else_is_a_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="not a view"):
        views.decode(value)


def test_lists_that_belong_together_have_one_length() -> None:
    ragged = [
        EvaluationView(auc=Estimate(value=1), ks=Estimate(value=1), roc=Roc(fpr=[0, 1], tpr=[0])),
        ModelView(title="m", parts=[Coefficients(member="bank", columns=["a", "b"], values=[1.0])]),
        ScoresView(member="bank", rows=1, edges=[0, 1], counts=[1, 1]),
        EvaluationView(
            auc=Estimate(value=1),
            ks=Estimate(value=1),
            calibration=Calibration(predicted=[1], observed=[1], rows=[1, 2]),
        ),
    ]
    for view in ragged:
        with pytest.raises(ValueError, match="differ in length"):
            views.decode(views.encode(view))


def test_numpy_values_become_plain_and_what_is_not_finite_becomes_none() -> None:
    view = EvaluationView(
        auc=Estimate(value=np.float64(0.5), low=math.nan, high=math.inf),
        ks=Estimate(value=0.1),
        rows=np.int64(3),  # type: ignore[arg-type]
        roc=Roc(fpr=np.array([0.0, 1.0]), tpr=np.array([0.0, np.nan])),  # type: ignore[arg-type]
    )
    decoded = views.decode(views.encode(view))
    assert isinstance(decoded, EvaluationView) and decoded.roc is not None
    assert decoded.auc == Estimate(value=0.5) and decoded.rows == 3
    assert decoded.roc.tpr == [0.0, None]


def test_a_withheld_part_says_so_in_plain_text() -> None:
    text = MODEL.plain()
    assert "bank: income -0.5" in text
    assert "agency: 2 coefficients, withheld: agency keeps its coefficients" in text
    assert "AUC 0.7200 (0.7000 to 0.7400)" in text


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_no_figure_can_hold_are_not_defined(number: float) -> None:
    known = views.decode({"view": "alignment", "parties": [], "matched": 1, "seconds": number})
    assert isinstance(known, AlignmentView) and known.seconds is None
