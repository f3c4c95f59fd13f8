"""A whole vertical fit: seconds, megabytes and iterations, beside scikit-learn's model and beside phe, in one run.

    python benchmarks/lr.py [--rows 3000 10000 30000] [--data FOLDER] [--threads 1 2] [--rounds 1] [--bits 2048]

All three members run in this process over the loopback network, with the encoding, checking and decoding of every
message. With --threads 1 seconds are those of the processor, for all members together; with more they are the wall's,
so leave the machine alone. The generated data has 13 + 10 features; --data names a folder with FATE's default_credit
files (guest and host), trained on 21,000 rows as well.

phe does the first-order iteration as its users write it, on floats: encrypt a score for each row, subtract the label's
part, randomise, and multiply each by each feature at both parties; no packing. Its cost is the same for every row, so
it is measured on a slice in the same run and multiplied. Ours beside it is the packed coarse iteration; a fine one
stands in the next column. "bytes" is how many times fewer it sends than phe's two numbers a row, "same" than its own
five numbers a row would be unpacked.
"""

from __future__ import annotations

import argparse
import json
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
from fednb.protocols import vertical_logistic as protocol
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.features import Scaling
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


class Fit:
    """One fit by its three roles, on the first `rows` rows."""

    def __init__(self, parts: list[np.ndarray], y: np.ndarray, rows: int, bits: int, threads: int) -> None:
        params = protocol.LogisticParams(key_bits=bits, insecure_short_key=bits < 2048)
        clock = time.process_time if threads == 1 else time.perf_counter
        ticks: list[float] = []

        def tick(phase: str, step: int, total: int | None, metrics: Any) -> None:
            if phase == "train" or not ticks:
                ticks.append(clock())

        def role(member: str, data: Dataset) -> Callable[[Link], Outcome]:
            run = RunContext(threads=threads, emit=tick if member == "agency" else None)
            return lambda link: protocol.PROTOCOL.roles[ROLES[member]].play(link, data, params, run)

        names = [tuple(f"x{j}" for j in range(X.shape[1])) for X in parts]
        data = {
            "bank": Dataset(X=parts[0][:rows], y=y[:rows], columns=names[0], label="y"),
            "agency": Dataset(X=parts[1][:rows], columns=names[1]),
            "coordinator": Dataset(),
        }
        record: list[tuple[str, str, str, int]] = []
        start = clock()
        out = play({member: role(member, own) for member, own in data.items()}, CAST, record=record, timeout=None)
        self.seconds = clock() - start
        self.iterations = int(out["bank"].public["n_iter"])
        self.megabytes = sum(size for *_, size in record) / 1e6
        # the first tick is the end of the first iteration, which also fills the tables of the keys
        spent = np.diff(ticks)
        sizes = np.array([size for _, _, kind, size in record if kind == "Residuals"])
        fine = sizes > 1.2 * sizes[0]
        self.coarse = float(np.median(spent[~fine[1:]]))
        self.fine = float(np.median(spent[fine[1:]])) if fine.any() else float("nan")
        self.coarse_megabytes = sum(size for *_, kind, size in record if kind in ("Scores", "Residuals")) / 1e6
        self.coarse_megabytes *= float(sizes[0] / sizes.sum())
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

    print(describe())
    their_key, _ = phe.generate_paillier_keypair(n_length=options.bits)
    print(
        f"{'data':15s}{'rows':>8s}{'threads':>8s}{'fit s':>9s}{'iterations':>11s}{'MB':>8s}"
        f"{'coarse s':>9s}{'µs/row':>8s}{'fine s':>8s}{'AUC - sklearn':>14s}"
        f"{'phe epoch s':>12s}{'ratio':>8s}{'bytes':>8s}{'same':>8s}"
    )
    lines = []
    for name, rows, parts, y in cases:
        widths = tuple(X.shape[1] for X in parts)
        for threads in options.threads:
            fits, ratios = [], []
            for _ in range(options.rounds):
                row = phe_row(their_key, widths)
                fits.append(Fit(parts, y, rows, options.bits, threads))
                ratios.append(row * rows / fits[-1].coarse)
            figures = {
                key: statistics.median(getattr(fit, key) for fit in fits)
                for key in ("seconds", "iterations", "megabytes", "coarse", "fine", "difference")
            }
            ratio = statistics.median(ratios)
            unpacked = 2 * rows * options.bits / 4 / 1e6  # a score and a residual for each row
            fewer = unpacked / fits[-1].coarse_megabytes
            same = 2.5 * fewer  # the coarse iteration's own two vectors of scores and three of residuals, unpacked
            print(
                f"{name:15s}{rows:8,d}{threads:8d}{figures['seconds']:9.1f}{figures['iterations']:11.0f}"
                f"{figures['megabytes']:8.1f}{figures['coarse']:9.2f}{1e6 * figures['coarse'] / rows:8.1f}"
                f"{figures['fine']:8.2f}{figures['difference']:+14.4f}{ratio * figures['coarse']:12.0f}{ratio:7.0f}×"
                f"{fewer:7.1f}×{same:7.1f}×",
                flush=True,
            )
            lines.append({"data": name, "rows": rows, "threads": threads, "ratio": ratio, "fewer": fewer, **figures})
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")
    print(json.dumps(lines))


if __name__ == "__main__":
    main()
