"""A party on a Dask cluster of its own: real scheduler, real worker processes."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

import fednb
from fednb.crypto import paillier
from fednb.crypto.packing import Packing
from fednb.errors import ClusterError, ConfigError
from fednb.federation import launch
from fednb.federation.cluster import Cluster
from fednb.models import VerticalLogisticRegression
from fednb.protocols.executor import Threads

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # distributed looks for a free port
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the same, as pytest tells it
]

VALUES = list(range(20))
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 10
[party.bank]
release = ["coefficients"]
{bank}
[party.bank.tables.loans]
path = "../loans.csv"
id = "sme_id"
label = "default"
[party.agency]
release = ["coefficients"]
{agency}
[party.agency.tables.invoices]
path = "../invoices.csv"
id = "sme_id"
"""


def started(workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCluster]:
    with started(2) as made:
        yield made


@pytest.fixture
def cluster(local: LocalCluster) -> Iterator[Cluster]:
    made = Cluster("bank", local.scheduler_address)
    yield made
    made.close()


def test_a_cluster_computes_what_threads_compute(cluster: Cluster) -> None:
    key = paillier.generate(512, insecure_short_key=True)
    rng = np.random.default_rng(3)
    packing = Packing.plan(512, 500, 20, 12)
    c = cluster.executor.encrypt(key.public, packing.pack(rng.integers(-1000, 1000, 500)), 0)
    columns = rng.integers(-2000, 2000, (500, 3))
    there = cluster.executor.inner_products(c, columns, packing)
    here = Threads().inner_products(c, columns, packing)
    assert [packing.window(m) for m in key.decrypt(there)] == [packing.window(m) for m in key.decrypt(here)]


def test_a_repeated_encryption_is_no_repetition(cluster: Cluster) -> None:
    """Dask answers what it takes for pure from memory; a ciphertext given out twice would tell that two are equal."""
    key = paillier.generate(512, insecure_short_key=True)
    vectors = [cluster.executor.encrypt(key.public, [7] * 20, 0).data for _ in range(2)]
    assert len({row.tobytes() for vector in vectors for row in vector}) == 40


def test_what_fails_on_a_worker_is_named_and_not_quoted(cluster: Cluster) -> None:
    key = paillier.generate(512, insecure_short_key=True)
    with pytest.raises(ClusterError, match=r"the Dask cluster of bank failed \(CryptoError\)") as caught:
        cluster.executor.encrypt(key.public, [key.public.n * 4711], 0)
    assert "does not fit" not in str(caught.value)


def test_a_cluster_that_loses_its_workers_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fednb.federation.cluster.ROUND_SECONDS", 0.2)
    monkeypatch.setattr("fednb.federation.cluster.NO_WORKER_ROUNDS", 2)
    key = paillier.generate(512, insecure_short_key=True)
    with started(1) as local:
        cluster = Cluster("bank", local.scheduler_address)
        assert key.decrypt(cluster.executor.encrypt(key.public, VALUES, 0)) == VALUES
        local.scale(0)
        with pytest.raises(ClusterError, match="the Dask cluster of bank has no worker any more"):
            for _ in range(100):  # a worker that is told to stop may finish what it has
                cluster.executor.encrypt(key.public, VALUES, 0)
        cluster.close()


def test_a_cluster_that_cannot_serve_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fednb.federation.cluster.CONNECT_SECONDS", 1)
        with pytest.raises(ConfigError, match=rf"bank cannot reach the Dask scheduler at tcp://127.0.0.1:{port}"):
            Cluster("bank", f"tcp://127.0.0.1:{port}")
    with (
        started(0) as empty,
        pytest.raises(ConfigError, match="has no worker. Start one: dask worker tcp://"),
    ):
        Cluster("bank", empty.scheduler_address)


def test_workers_with_another_fednb_are_refused(local: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fednb.federation.cluster.__version__", "9.9")
    with pytest.raises(ConfigError, match=r"have fednb \S+, and bank has 9.9. Install the same version"):
        Cluster("bank", local.scheduler_address)


def test_without_dask_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['distributed'] = None\n"
        "from fednb.federation.cluster import Cluster\n"
        "try: Cluster('bank', 'tcp://127.0.0.1:8786')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout
    assert said.startswith("ConfigError") and "pip install 'fednb[dask]'" in said


@pytest.mark.slow
def test_members_with_and_without_a_cluster_end_in_the_same_model(
    local: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("FEDNB_PROFILE", raising=False)
    rng = np.random.default_rng(1)
    n = 600
    X = rng.normal(size=(n, 4))
    ids = [f"S{k:04d}" for k in range(n)]
    y = (X.sum(axis=1) + rng.logistic(size=n) > 0).astype(int)
    pd.DataFrame({"sme_id": ids, "a": X[:, 0], "b": X[:, 1], "default": y}).to_csv(tmp_path / "loans.csv", index=False)
    pd.DataFrame({"sme_id": ids, "c": X[:, 2], "d": X[:, 3]}).to_csv(tmp_path / "invoices.csv", index=False)
    found = []
    for name, line in (("alone", ""), ("cluster", f'dask = "{local.scheduler_address}"')):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "federation.toml"
        file.write_text(FILE.format(bank=line, agency=line))
        done = local.scheduler.transition_counter
        with launch.up(file), fednb.connect(file) as federation:
            frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
            model = VerticalLogisticRegression(max_iter=3).fit(frame, y="bank.default")
            found.append({party: dict(coef) for party, coef in model.coef_.items()})
        assert (local.scheduler.transition_counter > done) == (name == "cluster"), "it works when asked to, only then"
    assert found[0] == found[1]
