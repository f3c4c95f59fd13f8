"""Features that were made in a guarded kernel are aligned and train, as real processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation import launch
from fednb.federation.cells import CellClient
from fednb.models import VerticalLogisticRegression
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome

FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
mode = "guarded"
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""
CELL = """
loans = fed.load("loans").fillna({"debt": 0})
loans = loans.assign(ratio=loans.debt / loans.income, late=(loans.debt > 4.0) * 1.0)
fed.save("features", loans[["sme_id", "income", "ratio", "late", "default"]])
"""


@pytest.mark.slow
def test_a_table_that_stayed_trains_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    rng = np.random.default_rng(4)
    n = 400
    ids = [f"s{number:04d}" for number in range(n)]
    income, debt, turnover = rng.normal(5, 1, n), rng.normal(4, 2, n), rng.normal(0, 1, n)
    default = (debt - income + turnover + rng.normal(0, 1, n) > 0).astype(int)
    bank = pd.DataFrame({"sme_id": ids, "income": income, "debt": debt, "default": default})
    bank.loc[::9, "debt"] = np.nan
    bank.to_csv(tmp_path / "loans.csv", index=False)
    pd.DataFrame({"sme_id": ids, "turnover": turnover}).to_csv(tmp_path / "invoices.csv", index=False)
    (tmp_path / "federation.toml").write_text(FILE)
    with launch.up(tmp_path / "federation.toml") as running:
        with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
            client = CellClient(endpoint)
            statuses = [getattr(event, "status", "") for _, event in client.execute(["bank"], CELL)]
            client.close()
        assert statuses[-1] == "ok"
        with fednb.connect(running) as federation:
            frame = federation.align({"bank": "features", "agency": "invoices"}, on="sme_id")
            assert frame.shape[0] == n and list(frame.columns["bank"]) != []
            model = VerticalLogisticRegression(max_iter=3).fit(frame, y="bank.default")
            assert model.evaluate(frame).auc > 0.8
