"""A whole vertical fit: seconds, megabytes and iterations, beside scikit-learn's model and beside phe, in one run.

    python benchmarks/lr.py [--rows 3000 10000 30000] [--data FOLDER] [--threads 1 2] [--rounds 1] [--bits 2048]

All three members run in this process over the loopback network, with the encoding, checking and decoding of every
message. With --threads 1 seconds are those of the processor, for all members together; with more they are the wall's,
so leave the machine alone. With N threads the process may use N cores only: the wall's seconds with one and with two
say what a second core gains. The generated data has 13 + 10 features; --data names a folder with FATE's default_credit
files (guest and host), trained on 21,000 rows as well.

phe does the first-order iteration as its users write it, on floats: encrypt a score for each row, subtract the label's
part, randomise, and multiply each by each feature at both parties; no packing. Its cost is the same for every row, so
it is measured on a slice in the same run and multiplied. Ours beside it is three: "first" is the packed first-order
iteration, with one function of the passive party's score for each row; it sends as little as there is to send, and
stands here as a measure only. "coarse" and "fine" are those that a fit consists of. "ratio" is how many times as long
phe takes, and "fewer" how many times the bytes of phe's two numbers a row, for the first-order and the coarse one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import phe
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fednb.crypto.backend import describe
from fednb.protocols import four_steps
from fednb.protocols import vertical_logistic as protocol
from fednb.protocols.base import Dataset, Outcome, Role, RunContext
from fednb.protocols.features import Scaling
from fednb.protocols.separable import Expansion
from fednb.protocols.steps import Stage
from fednb.wire.link import Link
from fednb.wire.loopback import play

WIDTHS = (13, 10)
PHE_ROWS = 12
TEST_ROWS = 9000
CAST = {"active": ("bank",), "passive": ("agency",), "coordinator": ("coordinator",)}
ROLES = {"bank": "active", "agency": "passive", "coordinator": "coordinator"}


def generated(rows: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two parties' correlated features, a label that depends on both, and as many test rows after the first `rows`."""
    rng = np.random.default_rng(0)
    n = rows + TEST_ROWS
    common = rng.normal(size=(n, 3))
    X = common @ rng.normal(size=(3, sum(WIDTHS))) + rng.normal(size=(n, sum(WIDTHS)))
    X[:, ::4] = np.exp(0.5 * X[:, ::4])  # amounts
    score = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.normal(size=sum(WIDTHS)) * 0.3 - 1.3
    y = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(float)
    return [X[:, : WIDTHS[0]], X[:, WIDTHS[0] :]], y


def default_credit(folder: Path, rows: int = 21_000) -> tuple[list[np.ndarray], np.ndarray]:
    guest, host = (
        np.genfromtxt(folder / f"default_credit_hetero_{who}.csv", delimiter=",", skip_header=1)
        for who in ("guest", "host")
    )
    order = np.random.default_rng(1).permutation(len(guest))
    return [guest[order, 2:], host[order, 1:]], guest[order, 1]


class FirstOrder(protocol.Logistic):
    """One function of each score crosses, and what it is multiplied with."""

    @staticmethod
    def expansion(stage: Stage) -> Expansion:
        return Expansion((0.0,))


class Fit:
    """One fit by its three roles, on the first `rows` rows."""

    def __init__(
        self,
        parts: list[np.ndarray],
        y: np.ndarray,
        rows: int,
        bits: int,
        threads: int,
        roles: dict[str, Role] = protocol.PROTOCOL.roles,
        **options: Any,
    ) -> None:
        params = protocol.LogisticParams(key_bits=bits, insecure_short_key=bits < 2048, **options)
        clock = time.process_time if threads == 1 else time.perf_counter
        ticks: list[float] = []

        def tick(phase: str, step: int, total: int | None, metrics: Any) -> None:
            if phase == "train" or not ticks:
                ticks.append(clock())

        def role(member: str, data: Dataset) -> Callable[[Link], Outcome]:
            run = RunContext(threads=threads, emit=tick if member == "agency" else None)
            return lambda link: roles[ROLES[member]].play(link, data, params, run)

        names = [tuple(f"x{j}" for j in range(X.shape[1])) for X in parts]
        data = {
            "bank": Dataset(X=parts[0][:rows], y=y[:rows], columns=names[0], label="y"),
            "agency": Dataset(X=parts[1][:rows], columns=names[1]),
            "coordinator": Dataset(),
        }
        record: list[tuple[str, str, str, int]] = []
        start, wall = clock(), time.perf_counter()
        out = play({member: role(member, own) for member, own in data.items()}, CAST, record=record, timeout=None)
        self.seconds, self.wall = clock() - start, time.perf_counter() - wall
        self.iterations = int(out["bank"].public["n_iter"])
        self.megabytes = sum(size for *_, size in record) / 1e6
        # the first tick is the end of the first iteration, which also fills the tables of the keys
        spent = np.diff(ticks)
        sizes = np.array([[size for *_, kind, size in record if kind == wanted] for wanted in ("Scores", "Residuals")])
        sent = sizes.sum(axis=0).reshape(self.iterations, -1).sum(axis=1)  # rows travel in parts
        fine = sent > 1.2 * sent[0]
        self.coarse = float(np.median(spent[~fine[1:]]))
        self.fine = float(np.median(spent[fine[1:]])) if fine.any() else float("nan")
        self.coarse_megabytes = float(sent[0]) / 1e6
        self.difference = self._beside_scikit_learn(out, parts, y, rows)

    @staticmethod
    def _beside_scikit_learn(out: dict[str, Outcome], parts: list[np.ndarray], y: np.ndarray, rows: int) -> float:
        X = np.hstack(parts)
        Z = np.clip((X - X[:rows].mean(axis=0)) / X[:rows].std(axis=0), -4, 4)
        reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(Z[:rows], y[:rows])
        ours = sum(
            Scaling.from_part(out[member].private).apply(own[rows:]) @ out[member].private["coef"]
            for member, own in zip(("bank", "agency"), parts, strict=True)
        )
        theirs = reference.decision_function(Z[rows:])
        return float(roc_auc_score(y[rows:], ours) - roc_auc_score(y[rows:], theirs))


def phe_row(key: phe.PaillierPublicKey, widths: tuple[int, ...]) -> float:
    """Processor seconds of phe for one row of a first-order iteration, without packing."""
    rng = np.random.default_rng(0)
    n = PHE_ROWS
    parts, scores, y = [rng.normal(size=(n, d)) for d in widths], rng.normal(size=n), rng.integers(0, 2, n)
    start = time.process_time()
    received = [key.encrypt(float(b)) for b in scores]  # the passive party's
    residuals = [0.25 * b + float(0.5 - label) for b, label in zip(received, y, strict=True)]
    for residual in residuals:
        residual.obfuscate()
    for X in parts:
        for j in range(X.shape[1]):
            total = residuals[0] * float(X[0, j])
            for i in range(1, n):
                total += residuals[i] * float(X[i, j])
    return (time.process_time() - start) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 10_000, 30_000])
    parser.add_argument("--data", type=Path, help="folder with default_credit_hetero_guest.csv and ..._host.csv")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--bits", type=int, default=2048)
    options = parser.parse_args()
    cases = [("generated", rows, *generated(rows)) for rows in options.rows]
    if options.data and (options.data / "default_credit_hetero_guest.csv").exists():
        cases.append(("default_credit", 21_000, *default_credit(options.data)))

    cores = sorted(os.sched_getaffinity(0))
    if max(options.threads) > len(cores):
        parser.error(f"this machine has {len(cores)} cores")
    first_order = four_steps.roles(FirstOrder)
    print(describe())
    their_key, _ = phe.generate_paillier_keypair(n_length=options.bits)
    print(
        f"{'data':15s}{'rows':>8s}{'threads':>8s}{'fit s':>8s}{'wall s':>8s}{'iterations':>11s}{'MB':>7s}"
        f"{'AUC - sklearn':>14s}{'phe epoch s':>12s}{'first s':>9s}{'ratio':>7s}{'fewer':>8s}"
        f"{'coarse s':>10s}{'ratio':>7s}{'fewer':>8s}{'fine s':>8s}"
    )
    lines = []
    for name, rows, parts, y in cases:
        widths = tuple(X.shape[1] for X in parts)
        unpacked = 2 * rows * options.bits / 4 / 1e6  # a score and a residual for each row
        for threads in options.threads:
            os.sched_setaffinity(0, cores[:threads])
            rounds = []
            for _ in range(options.rounds):
                epoch = phe_row(their_key, widths) * rows
                first = Fit(parts, y, rows, options.bits, threads, first_order, max_iter=4, sigmoid="coarse")
                fit = Fit(parts, y, rows, options.bits, threads)
                rounds.append(
                    {
                        "seconds": fit.seconds,
                        "wall": fit.wall,
                        "iterations": fit.iterations,
                        "megabytes": fit.megabytes,
                        "difference": fit.difference,
                        "phe": epoch,
                        "first": first.coarse,
                        "first_ratio": epoch / first.coarse,
                        "first_fewer": unpacked / first.coarse_megabytes,
                        "coarse": fit.coarse,
                        "coarse_ratio": epoch / fit.coarse,
                        "coarse_fewer": unpacked / fit.coarse_megabytes,
                        "fine": fit.fine,
                    }
                )
            f = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
            print(
                f"{name:15s}{rows:8,d}{threads:8d}{f['seconds']:8.1f}{f['wall']:8.1f}{f['iterations']:11.0f}"
                f"{f['megabytes']:7.1f}{f['difference']:+14.4f}{f['phe']:12.0f}"
                f"{f['first']:9.2f}{f['first_ratio']:6.0f}×{f['first_fewer']:7.1f}×"
                f"{f['coarse']:10.2f}{f['coarse_ratio']:6.0f}×{f['coarse_fewer']:7.1f}×{f['fine']:8.2f}",
                flush=True,
            )
            lines.append({"data": name, "rows": rows, "threads": threads, **f})
        alone = [line["wall"] for line in lines if line["data"] == name and line["rows"] == rows]
        if len(alone) > 1:
            print(f"{name}, {rows:,} rows: {alone[0] / alone[-1]:.2f} times as fast on {options.threads[-1]} cores")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
