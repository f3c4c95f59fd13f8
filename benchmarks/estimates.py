"""How near `model.cost` comes to what a fit then takes: generated rows, simulated and in real processes.

    python benchmarks/estimates.py --rows 3000 12000 --repeat 3

Each line is one estimate and the fit after it; "an iteration" takes the assumed number of iterations out of the ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import fednb
from fednb.federation import launch
from fednb.federation.cells import CellClient
from fednb.federation.client import Federation
from fednb.models import VerticalLogisticRegression
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.keys import MemberHome

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
path = "invoices.parquet"
id = "sme_id"
"""


def tables(rows: int, features: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 2 * features))
    label = rng.random(rows) < 1 / (1 + np.exp(-X @ rng.normal(scale=0.4, size=2 * features)))
    ids = [f"S{k:07d}" for k in range(rows)]
    bank = pd.DataFrame(X[:, :features]).add_prefix("b").assign(sme_id=ids, default=label.astype(int))
    agency = pd.DataFrame(X[:, features:]).add_prefix("a").assign(sme_id=ids)
    return bank, agency


@contextlib.contextmanager
def simulated(rows: int) -> Iterator[Federation]:
    bank, agency = tables(rows)
    with fednb.simulate({"bank": {"loans": bank}, "agency": {"invoices": agency}}, decryption_quota=10) as federation:
        yield federation


def processes(rows: int) -> contextlib.AbstractContextManager[Federation]:
    return federated(*tables(rows))


@contextlib.contextmanager
def federated(bank: pd.DataFrame, agency: pd.DataFrame) -> Iterator[Federation]:
    """A hub, a coordinator and two parties in processes of their own, with these tables."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        os.environ["XDG_STATE_HOME"] = folder
        bank.to_parquet(Path(folder, "loans.parquet"))
        agency.to_parquet(Path(folder, "invoices.parquet"))
        Path(folder, "federation.toml").write_text(FILE)
        running = stack.enter_context(launch.up(Path(folder, "federation.toml")))
        with DealerEndpoint(MemberHome.load(running.home)) as endpoint:
            cells = CellClient(endpoint)
            list(cells.execute(["bank", "agency", "coordinator"], "1"))  # kernels start in the background, and have now
            cells.close()
        yield stack.enter_context(fednb.connect(running))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 12000])
    parser.add_argument("--repeat", type=int, default=3)
    parsed = parser.parse_args()
    for place in (simulated, processes):
        for rows in parsed.rows:
            ratios = []
            with place(rows) as federation:
                frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
                for _ in range(parsed.repeat):
                    model = VerticalLogisticRegression()
                    cost = model.cost(frame, y="bank.default")
                    model.fit(frame, y="bank.default")
                    ratio = (cost.seconds / cost.iterations) / (model.seconds_ / model.n_iter_)
                    ratios.append(ratio)
                    print(
                        f"{place.__name__:9} {rows:6,} rows: estimated {cost.seconds:5.1f} s, "
                        f"{cost.bytes / 1e6:5.2f} MB, {cost.iterations} iterations; "
                        f"took {model.seconds_:5.1f} s, {model.bytes_ / 1e6:5.2f} MB, {model.n_iter_}; "
                        f"an iteration: {ratio:.2f}, all: {cost.seconds / model.seconds_:.2f}; "
                        f"load {os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
            print(f"{place.__name__:9} {rows:6,} rows: median ratio of an iteration {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
