"""A table larger than what a party may load: alignment and iterations of training, and each process's peak memory.

    python benchmarks/beyond_memory.py [--rows 5000000] [--features 20] [--iterations 1] [--source duckdb]

The agency's table has `--features` columns of float64, the bank's three and a label, in Parquet (or, with --source
duckdb, the agency's is a query on a DuckDB file). All members are processes of their own on this machine. Memory is
what Linux calls VmHWM, the most that was resident, reset before each phase; files that lie in the page cache do not
count. Beside it stands what pandas takes for reading the agency's table whole, in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import ndtri

import fednb
from fednb.crypto.backend import describe
from fednb.federation import launch
from fednb.models import VerticalLogisticRegression

PARQUET = 'path = "invoices.parquet"'
DUCKDB = 'source = "duckdb:///{folder}/invoices.duckdb"\nquery = "SELECT * FROM invoices"'
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
decryption_quota = 10
[party.bank.tables.loans]
path = "loans.parquet"
id = "sme_id"
label = "default"
[party.agency.tables.invoices]
{invoices}
id = "sme_id"
"""
BANK = 3
GROUP = 1 << 18


def features(ids: np.ndarray, first: int, count: int) -> np.ndarray:
    """[n, count] numbers that follow from a row's id, evenly spread quantiles of a normal distribution."""
    steps = np.sqrt(np.array([p for p in range(2, 2000) if all(p % q for q in range(2, math.isqrt(p) + 1))]))
    return ndtri(np.clip((ids[:, None] * steps[first : first + count]) % 1.0, 1e-4, 1 - 1e-4))


def write(folder: Path, rows: int, width: int) -> None:
    weights = np.random.default_rng(0).normal(scale=0.3, size=BANK + width)
    for name, multiplier in (("loans", 1_000_003), ("invoices", 7_000_003)):
        writer = None
        for start in range(0, rows, GROUP):
            ids = np.arange(start, min(start + GROUP, rows)) * multiplier % rows
            own = features(ids, *((0, BANK) if name == "loans" else (BANK, width)))
            columns = {"sme_id": pa.array([f"S{i:08d}" for i in ids.tolist()])}
            columns |= {f"{name[0]}{j}": own[:, j] for j in range(own.shape[1])}
            if name == "loans":
                score = np.hstack([own, features(ids, BANK, width)]) @ weights - 1.0
                chance = np.random.default_rng(start).random(len(ids))
                columns["default"] = (chance < 1 / (1 + np.exp(-score))).astype(np.int8)
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writer.write_table(table)
        if writer:
            writer.close()


def to_duckdb(folder: Path) -> None:
    import duckdb

    with duckdb.connect(str(folder / "invoices.duckdb")) as connection:
        connection.execute(f"CREATE TABLE invoices AS SELECT * FROM '{folder}/invoices.parquet'")
    (folder / "invoices.parquet").unlink()


class Members:
    """The members' processes."""

    def __init__(self, running: launch.Running) -> None:
        self._pids = {member: process.pid for member, process in running.members.items()}

    def reset(self) -> None:
        for pid in self._pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peaks(self) -> dict[str, float]:
        """MB by member."""
        found = {}
        for member, pid in self._pids.items():
            found[member] = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        return found


@contextlib.contextmanager
def phase(name: str, members: Members, figures: dict[str, dict[str, float]]) -> Iterator[None]:
    members.reset()
    began = time.perf_counter()
    yield
    figures[name] = {"seconds": time.perf_counter() - began, **members.peaks()}
    said = ", ".join(f"{member} {mb:,.0f} MB" for member, mb in figures[name].items() if member != "seconds")
    print(f"{name:10s}{figures[name]['seconds']:9.1f} s   {said}", flush=True)


def read_whole(file: Path) -> float:
    """MB that pandas takes for it."""
    code = f"import pandas as pd, resource; t = pd.read_parquet({str(file)!r}); X = t.iloc[:, 1:].to_numpy(); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--source", choices=["parquet", "duckdb"], default="parquet")
    parsed = parser.parse_args()
    print(describe())
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = name
        write(folder, parsed.rows, parsed.features)
        numbers = 8 * parsed.rows * parsed.features / 1e6
        whole = read_whole(folder / "invoices.parquet")
        print(
            f"{parsed.rows:,} rows × {parsed.features} features at the agency: {numbers:,.0f} MB; "
            f"read whole by pandas: {whole:,.0f} MB"
        )
        if parsed.source == "duckdb":
            to_duckdb(folder)
        invoices = (PARQUET if parsed.source == "parquet" else DUCKDB).format(folder=folder)
        (folder / "federation.toml").write_text(FILE.format(invoices=invoices))
        running = stack.enter_context(launch.up(folder / "federation.toml"))
        federation = stack.enter_context(fednb.connect(running))
        members = Members(running)
        with phase("tables", members, figures):
            federation.tables()
        with phase("align", members, figures):
            frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        model = VerticalLogisticRegression(max_iter=parsed.iterations)
        with phase("fit", members, figures):
            model.fit(frame, y="bank.default")
        print(f"{model.n_iter_} iterations, {model.bytes_ / 1e6:,.0f} MB sent")
        with phase("evaluate", members, figures):
            evaluation = model.evaluate(frame)
        print(f"AUC {evaluation.auc:.4f}")
    print(json.dumps({"rows": parsed.rows, "whole": whole, **figures}))


if __name__ == "__main__":
    main()
