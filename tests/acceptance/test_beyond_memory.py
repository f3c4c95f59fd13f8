"""A party whose table is larger than what it may load: real processes, 2048 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fednb
from fednb.federation import launch
from fednb.models import VerticalLogisticRegression

ROWS, FEATURES = 300_000, 30  # 69 MB of features, more than a party keeps in memory
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 5
[party.bank.tables.loans]
path = "loans.parquet"
id = "sme_id"
label = "default"
[party.agency.tables.invoices]
path = "invoices.parquet"
id = "sme_id"
"""


def peak(running: launch.Running, member: str) -> float:
    """MB, the most that was resident since it started."""
    status = Path(f"/proc/{running.members[member].pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.slow
def test_a_party_trains_on_more_than_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, size=(ROWS, FEATURES)).astype(float)
    y = (X[:, 0] + rng.normal(size=ROWS) > 2).astype(int)
    ids = np.array([f"S{k:06d}" for k in range(ROWS)], dtype=object)
    shuffled = rng.permutation(ROWS)
    pd.DataFrame({"sme_id": ids, "a": rng.normal(size=ROWS), "default": y}).to_parquet(tmp_path / "loans.parquet")
    pd.DataFrame(X[shuffled]).add_prefix("f").assign(sme_id=ids[shuffled]).to_parquet(tmp_path / "invoices.parquet")
    (tmp_path / "federation.toml").write_text(FILE)
    with launch.up(tmp_path / "federation.toml") as running, fednb.connect(running) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        aligned = peak(running, "agency")
        model = VerticalLogisticRegression(max_iter=1).fit(frame, y="bank.default")
        trained = peak(running, "agency")
        assert model.evaluate(frame).auc > 0.8
        folder = running.home / "agency"
        left = [file.name for file in folder.rglob("*") if file.is_file() and file.stat().st_size > 2**22]
    # read whole, the same takes 470 MB to align and 1,740 MB to train; the process alone has 150 MB
    print(f"aligned {aligned:.0f} MB, trained {trained:.0f} MB")
    assert aligned < 300
    assert trained < 550
    assert not left
