"""What a second core gains: a whole vertical fit by real processes, on one core of this machine and on two.

    python benchmarks/cores.py [--rounds 3] [--data FOLDER]

Hub, coordinator and two parties are processes of their own and share the cores that this one is given before it starts
them. One core and two take turns, and the ratio is that of the medians of the wall's seconds: leave the machine alone.
--data names a folder with FATE's default_credit files, 21,000 rows of which are trained on; else as many are generated.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import pandas as pd
from estimates import federated
from lr import default_credit, generated

from fednb.crypto.backend import describe
from fednb.models import VerticalLogisticRegression

ROWS = 21_000


def seconds(bank: pd.DataFrame, agency: pd.DataFrame, cores: list[int]) -> tuple[float, int]:
    """Of the wall, and iterations."""
    os.sched_setaffinity(0, cores)
    with federated(bank, agency) as federation:
        frame = federation.align({"bank": "loans", "agency": "invoices"}, on="sme_id")
        model = VerticalLogisticRegression().fit(frame, y="bank.default")
        return model.seconds_, model.n_iter_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder with default_credit_hetero_guest.csv and ..._host.csv")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("this process may use one core only")
    parts, y = default_credit(options.data) if options.data else generated(ROWS)
    ids = [f"S{k:07d}" for k in range(ROWS)]
    bank = pd.DataFrame(parts[0][:ROWS]).add_prefix("b").assign(sme_id=ids, default=y[:ROWS].astype(int))
    agency = pd.DataFrame(parts[1][:ROWS]).add_prefix("a").assign(sme_id=ids)

    print(describe())
    taken: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(1, options.rounds + 1):
        for count, found in taken.items():
            wall, iterations = seconds(bank, agency, cores[:count])
            found.append(wall)
            print(f"round {round_}, cores {count}: {wall:5.1f} s, {iterations} iterations", flush=True)
    one, two = (statistics.median(found) for found in taken.values())
    print(f"medians {one:.1f} s and {two:.1f} s: two cores are {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
