"""A federation of real processes with saved models, for all tests of serving."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation import launch
from fednb.models import OwnLogisticRegression, Scorecard, VerticalLogisticRegression, WoeBinning

sys.path.insert(0, str(Path(__file__).parent))

from serving_world import FILE, ROWS, Served, World, serving


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("serving")
    before = {name: os.environ.pop(name, None) for name in ("XDG_STATE_HOME", "FEDNB_PROFILE")}
    os.environ["XDG_STATE_HOME"] = str(folder / "state")
    rng = np.random.default_rng(4)
    X = rng.normal(size=(ROWS, 6))
    y = (X.sum(axis=1) + rng.logistic(size=ROWS) > 0).astype(int)
    ids = [f"S-{k:03d}" for k in range(ROWS)]
    loans = pd.DataFrame({"sme_id": ids, "income": X[:, 0], "PAY 0": X[:, 1], "default": y})
    loans.to_csv(folder / "loans.csv", index=False)
    invoices = pd.DataFrame(X[:, 2:], columns=["delay", "usage", "count", "amount"])
    invoices.assign(sme_id=[f"s{k:03d}" for k in range(ROWS)]).to_csv(folder / "invoices.csv", index=False)
    (folder / "federation.toml").write_text(FILE)
    with launch.up(folder / "federation.toml") as running:
        with fednb.connect(running) as federation:
            frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
            model = VerticalLogisticRegression(max_iter=2).fit(frame, y="bank.default")
            model.predict_proba(frame).save("regression")
            model.save(folder / "model.json", federation)
            own = OwnLogisticRegression().fit(frame, y="bank.default").save(folder / "own.json", federation)
            own.predict_proba(frame).save("own")
            binning = WoeBinning(bins=4).fit(frame, y="bank.default")
            coded = binning.transform(frame, name="weights")
            woe = VerticalLogisticRegression(max_iter=2, standardize=False, clip=None).fit(coded, y="bank.default")
            card = Scorecard(digits=1).fit(binning, woe, federation)
            card.override("bank.income", 0, -40.0, "seasonal income is understated", federation)
            card.score(frame).save("card")
            card.save(folder / "card.json", federation)
            alone = OwnLogisticRegression(standardize=False, clip=None).fit(coded, y="bank.default")
            alone.predict_proba(coded).save("alone")
            Scorecard(digits=3).fit(binning, alone, federation).save(folder / "spare.json", federation)
        kept = running.root / "bank" / "tables"
        tables = {name: pd.read_parquet(kept / f"{name}.parquet") for name in ("regression", "card", "own", "alone")}
        scores = tables["card"].set_index("sme_id").rename(columns={"score": "card"})
        scores["regression"] = tables["regression"].set_index("sme_id")["score"]
        scores["spare"] = tables["alone"].set_index("sme_id")["score"]
        made = World(folder, running, loans.set_index("sme_id"), scores, tables["own"].set_index("sme_id")["score"])
        yield made
        for party in ("bank", "agency"):
            if running.members[party] in made.own:
                made.kill(party)
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def regression(world: World) -> Iterator[Served]:
    """The regression, with its fallback and a table."""
    files = ("--model", world.folder / "model.json", "--fallback", world.folder / "own.json", "--table", "loans")
    with serving(world.bank, *files, "--timeout", "3") as served:
        served.until(lambda said: said["federated"])
        yield served
