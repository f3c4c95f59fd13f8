"""Parcelling as its user sees it: from accepted and rejected applicants to labels for all."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.errors import DataError
from fednb.models import VerticalLogisticRegression, parcelling

PAGE = (Path(__file__).parents[2] / "docs" / "reject-inference.md").read_text(encoding="utf-8")


def test_the_page_runs_as_printed() -> None:
    rng = np.random.default_rng(0)
    n = 900
    X = rng.normal(size=(n, 4))
    bad = (X.sum(axis=1) + rng.logistic(size=n) > 1).astype(float)
    ids = [f"S{k:04d}" for k in range(n)]
    all_of_them = pd.DataFrame({"sme_id": ids, "a": X[:, 0], "b": X[:, 1], "default": bad})
    taken = X[:, 0] + rng.normal(size=n) < 0.4  # an earlier decision, on what the bank knew
    loans, turned_away = all_of_them[taken], all_of_them[~taken].drop(columns="default")
    invoices = pd.DataFrame({"sme_id": ids, "c": X[:, 2], "d": X[:, 3]})
    tables = {"bank": {"loans": loans, "rejected": turned_away}, "agency": {"invoices": invoices}}
    first, cell, second = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert cell.startswith("%%party bank") and "parcelled" in cell and "all_applicants" in second
    model = lambda: VerticalLogisticRegression(max_iter=8)  # noqa: E731
    with fednb.simulate(tables, decryption_quota=5) as fed:
        names = {"fed": fed, "VerticalLogisticRegression": model, "parcelling": parcelling}
        exec(compile(first.replace('y="bank.default"', '"bank.default"'), "page", "exec"), names)
        drawn = names["drawn"]
        assert drawn.rows == len(turned_away) and drawn.table == "bank.parcelled"
        assert drawn.bands["rate"].is_monotonic_increasing and (drawn.bands["bad"] >= 10).all()
        assert drawn.bands["assumed"].tolist() == (1.5 * drawn.bands["rate"]).clip(upper=1.0).tolist()
        truth = bad[~taken].mean()
        assert drawn.bands["bad"].sum() / drawn.bands["rows"].sum() < truth, "the accepted alone look too good"
        assert drawn.share == pytest.approx(truth, abs=0.15)
        frame = fed.align({"bank": "parcelled", "agency": "invoices"}, on="sme_id")
        ref = fednb.federation.messages.DataRef(frame=frame.id, label="default")
        said = fed.run("label_classes", cast={"active": ["bank"]}, data={"bank": ref}).public("bank")
        assert said["classes"] == [0.0, 1.0] and sum(said["rows"]) == len(turned_away)
        assert said["rows"][1] / len(turned_away) == pytest.approx(drawn.share, abs=0.005)
        scores = names["model"].predict_proba(names["train"])
        with pytest.raises(DataError, match="lie at the party of the label, agency"):
            parcelling(scores, scores, "agency.c", "x")
