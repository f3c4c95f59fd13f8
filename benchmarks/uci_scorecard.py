"""UCI_Credit_Card as a scorecard's model: weights of evidence and a regression, federated and on the joined table.

    python benchmarks/uci_scorecard.py DATA [--merge monotone|optbinning|optimal|tree] [--rows N]

DATA is a folder with default_credit_hetero_guest.csv and ..._host.csv, FATE's split by columns: 30,000 rows, 13 + 10
features. Both sides take the same recipe: five folds of KFold(shuffle=True, random_state=0), bins of the training rows
(20 quantile cells, merged as --merge says), regression with C=1 on the weights, AUC and KS of all out-of-fold scores.
Federated at 2048 bits, all members in this process. Seconds are those of the processor.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline

import fednb
from fednb.crypto.backend import describe
from fednb.models import VerticalLogisticRegression, WoeBinning, cross_validate
from fednb.protocols.cuts import fit_cuts
from fednb.protocols.evidence import NEUTRAL, merged, woe
from fednb.protocols.ids import prepare

FOLDS = 5
AUC, KS = 0.002, 0.01  # how far a federated model may be from the joined one


def read(folder: Path, rows: int | None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """guest, host, and their join in the order of an aligned frame."""
    guest, host = (
        pd.read_csv(folder / f"default_credit_hetero_{side}.csv", dtype={"id": str}) for side in ("guest", "host")
    )
    if rows is not None:
        guest = guest.sample(rows, random_state=1)
    columns = {column: f"host_{column}" for column in host.columns if column != "id"}
    joined = guest.merge(host.rename(columns=columns), on="id", validate="one_to_one")
    order = prepare(joined["id"].to_numpy(dtype=object)).ids
    return guest, host, joined.iloc[np.argsort(np.asarray(order, dtype=object), kind="stable")].reset_index(drop=True)


def weights(x: np.ndarray, y: np.ndarray, train: np.ndarray, merge: str) -> np.ndarray:
    """[n] weights of evidence of one column, learnt on the training rows."""
    cuts = fit_cuts(x[train], bins=20, method="quantile", least=10)
    cells = cuts.cells(x)
    rows, positives = (
        np.bincount(cells[train], weights=w, minlength=cuts.size)[: cuts.ordered].astype(np.int64)
        for w in (np.ones(len(train)), y[train])
    )
    total, bad = len(train), int(y[train].sum())
    least = int(np.ceil(0.05 * total))
    bins = merged(rows, positives, total, bad, ordered=cuts.ordered, merge=merge, least=least, most=10)  # type: ignore[arg-type]
    counts = [np.array([c[bins == b].sum() for b in range(bins.max() + 1)]) for c in (rows, positives)]
    of_bin = np.append(woe(counts[0], counts[1], total, bad), 0.0)
    return np.asarray(of_bin[np.where(bins == NEUTRAL, -1, bins)][cells])


def joined_table(joined: pd.DataFrame, merge: str) -> tuple[float, float]:
    """AUC and KS out of fold."""
    y = joined["y"].to_numpy()
    X = joined.drop(columns=["id", "y"]).to_numpy(dtype=np.float64)
    scores = np.empty(len(y))
    for train, test in KFold(FOLDS, shuffle=True, random_state=0).split(X):
        W = np.column_stack([weights(x, y, train, merge) for x in X.T])
        model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5_000).fit(W[train], y[train])
        scores[test] = model.predict_proba(W[test])[:, 1]
    fpr, tpr, _ = roc_curve(y, scores)
    return float(roc_auc_score(y, scores)), float((tpr - fpr).max())


def federated(guest: pd.DataFrame, host: pd.DataFrame, merge: str) -> tuple[float, float]:
    tables = {"guest": {"own": guest}, "host": {"own": host}}
    with fednb.simulate(tables, decryption_quota=5) as federation:
        frame = federation.align({"guest": "own", "host": "own"}, on="id")
        pipeline = make_pipeline(
            WoeBinning(merge=merge),  # type: ignore[arg-type]
            VerticalLogisticRegression(standardize=False, clip=None),
        )
        found = cross_validate(pipeline, frame, "guest.y", cv=FOLDS, random_state=0).loc["out of fold"]
    return float(found["auc"]), float(found["ks"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--merge", default="monotone", choices=["monotone", "optimal", "tree", "optbinning"])
    parser.add_argument("--rows", type=int)
    asked = parser.parse_args()
    guest, host, joined = read(asked.data, asked.rows)
    print(describe())
    print(f"{len(joined):,} rows, merge={asked.merge}")
    auc, ks = joined_table(joined, asked.merge)
    print(f"joined     AUC {auc:.4f}, KS {ks:.4f}")
    began = time.process_time()
    fed_auc, fed_ks = federated(guest, host, asked.merge)
    print(f"federated  AUC {fed_auc:.4f}, KS {fed_ks:.4f}, {time.process_time() - began:.0f} s")
    print(f"apart      AUC {fed_auc - auc:+.4f}, KS {fed_ks - ks:+.4f}")
    if abs(fed_auc - auc) > AUC or abs(fed_ks - ks) > KS:
        raise SystemExit(f"more than {AUC} of AUC or {KS} of KS apart")


if __name__ == "__main__":
    main()
