"""A model, a binning and a scorecard outlive the processes that made them: members start again, and score new rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation import launch
from fednb.models import Scorecard, VerticalLogisticRegression, WoeBinning

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 5.0
[party.bank]
mode = "protocol-only"
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency]
mode = "protocol-only"
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""


@pytest.mark.slow
def test_a_saved_model_scores_after_every_member_was_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 3))
    X[::9, 1] = np.nan
    y = (np.nansum(X, axis=1) + rng.logistic(size=300) > 0).astype(int)
    ids = [f"{k:04d}" for k in range(300)]
    pd.DataFrame({"sme_id": ids, "income": X[:, 0], "default": y}).to_csv(tmp_path / "loans.csv", index=False)
    pd.DataFrame({"sme_id": ids, "delay": X[:, 1], "usage": X[:, 2]}).to_csv(tmp_path / "invoices.csv", index=False)
    file, path = tmp_path / "federation.toml", tmp_path / "model.json"
    file.write_text(FILE)
    with launch.up(file) as running, fednb.connect(running) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        binning = WoeBinning(bins=5).fit(frame, y="bank.default")
        coded = binning.transform(frame, name="weights")
        model = VerticalLogisticRegression(max_iter=3, standardize=False, clip=None).fit(coded, y="bank.default")
        model.save(path, federation)
        before = model.evaluate(coded)
        card = Scorecard(pdo=200).fit(binning, model, federation).save(tmp_path / "card.json", federation)
        points = card.evaluate(frame)
    with launch.up(file) as running, fednb.connect(running) as federation:
        loaded = VerticalLogisticRegression.load(path, federation)
        again = federation.align({"bank": "weights", "agency": "weights"}, on="sme_id")
        assert set(again.columns["agency"]) == {"delay", "usage"}
        after = loaded.evaluate(again)
        fresh = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        card = Scorecard.load(tmp_path / "card.json", federation)
        assert card.evaluate(fresh).auc == points.auc == pytest.approx(before.auc, abs=0.01)
        assert card.points_["agency"] is None
        card.reasons(fresh, "reasons")
        (reasons,) = federation.tables().query("table == 'reasons'").to_dict("records")
        assert (reasons["party"], reasons["rows"], reasons["columns"]) == ("bank", 300, 5)
    assert (after.auc, after.log_loss) == (before.auc, before.log_loss)
