"""How cost grows with rows: an iteration of training and an alignment, at 2048 bits, from 10,000 rows to a million.

    python benchmarks/linear.py [--rows 10000 30000 100000 300000 1000000] [--figure docs/images/linear.png]

Every point is a process of its own, with all members in it over the loopback network: processor seconds of all of them
together, and the peak of their memory. "train" is a fit of one coarse iteration on 13 + 10 generated features,
everything counted but making the key; "align" is a private set intersection, half of the ids in common.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import lr
import numpy as np
import psi as alignment

from fednb.crypto.backend import describe
from fednb.protocols import vertical_logistic as protocol
from fednb.protocols.base import Dataset, RunContext
from fednb.wire.loopback import play

SIZES = [10_000, 30_000, 100_000, 300_000, 1_000_000]


def train(rows: int) -> float:
    parts, y = lr.generated(rows)
    names = [tuple(f"x{j}" for j in range(X.shape[1])) for X in parts]
    data = {
        "bank": Dataset(X=parts[0][:rows], y=y[:rows], columns=names[0], label="y"),
        "agency": Dataset(X=parts[1][:rows], columns=names[1]),
        "coordinator": Dataset(),
    }
    began: list[float] = []

    class Run(RunContext):
        def count(self, kind: str, n: int) -> None:
            if not began:  # the key is there, and everybody has looked at its own columns
                began.append(time.process_time())
            super().count(kind, n)

    params = protocol.LogisticParams(max_iter=1, sigmoid="coarse")
    roles = {
        member: lambda link, role=protocol.PROTOCOL.roles[lr.ROLES[member]], own=own: role.play(
            link, own, params, Run(name="b")
        )
        for member, own in data.items()
    }
    play(roles, lr.CAST, timeout=None)
    return time.process_time() - began[0]


def align(rows: int) -> float:
    return alignment.fednb_psi(rows)["processor"]


def point(answer: Connection, name: str, rows: int) -> None:
    seconds = {"train": train, "align": align}[name](rows)
    answer.send((seconds, alignment.peak()))


def measure(name: str, rows: int) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=point, args=(there, name, rows))
    process.start()
    found: tuple[float, float] = here.recv()
    process.join()
    return found


def draw(points: dict[str, list[tuple[int, float, float]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    time_axis, memory_axis = figure.subplots(1, 2)
    for name, marker in (("train", "o"), ("align", "s")):
        rows, seconds, megabytes = (np.array(column) for column in zip(*points[name], strict=True))
        time_axis.loglog(rows, seconds, marker=marker, label={"train": "an iteration", "align": "an alignment"}[name])
        memory_axis.semilogx(rows, megabytes, marker=marker)
        if name == "train":
            time_axis.loglog(rows, seconds[-1] * rows / rows[-1], "k:", linewidth=1, label="linear")
    time_axis.set(xlabel="rows", ylabel="processor seconds, all members")
    memory_axis.set(xlabel="rows", ylabel="peak MB, all members", ylim=0)
    time_axis.legend(frameon=False)
    figure.savefig(file, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--figure", type=Path)
    parsed = parser.parse_args()
    print(describe())
    points: dict[str, list[tuple[int, float, float]]] = {"train": [], "align": []}
    for rows in parsed.rows:
        for name, found in points.items():
            seconds, megabytes = measure(name, rows)
            found.append((rows, seconds, megabytes))
            print(
                f"{name:6s}{rows:10,d} rows{seconds:9.2f} s{1e6 * seconds / rows:8.1f} µs a row{megabytes:8,.0f} MB",
                flush=True,
            )
    for name, found in points.items():
        if len(found) > 1:
            slope = np.polyfit(*np.log([(rows, seconds) for rows, seconds, _ in found]).T, 1)[0]
            print(f"{name}: seconds grow like rows to the power {slope:.2f}")
    if parsed.figure:
        draw(points, parsed.figure)
    print(json.dumps(points))


if __name__ == "__main__":
    main()
