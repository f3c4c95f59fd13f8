"""What each defence of boosted trees costs, and what it hides: seconds, megabytes, AUC, and what groups of rows tell.

    python benchmarks/boosting_defences.py --data FOLDER [--folds 5] [--trees 3]

On FATE's default_credit files. Seconds of processor time and megabytes are those of one more tree of depth 3 with 2048
bits, on 24,000 rows, for both members together. The AUC is out of fold, after 30 trees, with a short key, which changes
no tree. A passive party sees groups: the rows of each node that it was shown. Beside each stands which share of the
labels' variance lies between the smallest groups of the first round that it takes part in, on the first fold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from boosting import Data, a_tree, fit, ks, parties, predicted
from sklearn.model_selection import StratifiedKFold

from fednb.crypto.backend import describe
from fednb.protocols.evaluation import auc
from fednb.protocols.vertical_boosting import BoostingParams, Gradients, Level

VARIANTS: dict[str, dict[str, Any]] = {
    "none (min_leaf=1)": {},
    "min_leaf=10": {"min_leaf": 10},
    "min_leaf=100": {"min_leaf": 100},
    "min_shown=2400": {"min_leaf": 10, "min_shown": 2400},
    "min_shown=9600": {"min_leaf": 10, "min_shown": 9600},
    "active_trees=3": {"min_leaf": 10, "active_trees": 3},
    "purity=0.95": {"min_leaf": 10, "purity": 0.95},
    "purity=0.9": {"min_leaf": 10, "purity": 0.9},
    "anonymous_splits": {"min_leaf": 10, "anonymous_splits": True},
    "max_bin=8": {"min_leaf": 10, "max_bin": 8},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--trees", type=int, default=3)
    asked = parser.parse_args()
    X, y, own = credit(asked.data)
    folds = list(StratifiedKFold(5).split(X, y))[: asked.folds]
    train = folds[0][0]
    print(describe())
    print("                     s a tree   MB     AUC      KS  groups tell")
    for name, params in VARIANTS.items():
        chosen = {"max_depth": 3, "max_bin": 32, **params}
        later = {**chosen, "active_trees": 0}  # the price of a tree that is made together
        seconds, megabytes, _ = a_tree(parties(X[train], y[train], own), asked.trees, **later)
        scores, rows = [], []
        for fitted_on, others in folds:
            short = BoostingParams(n_estimators=30, key_bits=512, insecure_short_key=True, **chosen)
            out = fit(parties(X[fitted_on], y[fitted_on], own), short)[3]
            scores.append(predicted(parties(X[others], y[others], own), out))
            rows.append(others)
        truth, found = y[np.concatenate(rows)], np.concatenate(scores)
        tell = shown(parties(X[train], y[train], own), chosen)
        figures = f"{auc(truth, found):.4f}  {ks(truth, found):.4f}  {tell:.3f}"
        print(f"  {name:18} {seconds:8.2f} {megabytes:5.1f}  {figures}", flush=True)


def credit(folder: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Features of both sides, the label, and how many features are the active party's."""
    import pandas as pd

    guest, host = (pd.read_csv(folder / f"default_credit_hetero_{side}.csv") for side in ("guest", "host"))
    joined = guest.merge(host, on="id")
    y = joined.pop("y").to_numpy(np.float64)
    return joined.drop(columns="id").to_numpy(np.float64), y, guest.shape[1] - 2


def shown(data: Data, params: dict[str, Any]) -> float:
    """The share of the labels' variance that lies between the smallest groups that the passive party can tell apart."""
    sent: list[Any] = []
    rounds = params.get("active_trees", 0) + 1
    fit(data, BoostingParams(n_estimators=rounds, key_bits=512, insecure_short_key=True, **params), sent.append)
    y = np.asarray(data["bank"].y)
    group, rows = np.zeros(len(y), dtype=np.int64), dict[int, np.ndarray]()
    for message in sent:
        if isinstance(message, Gradients):
            rows = {0: np.arange(len(y))}
        elif isinstance(message, Level):
            ends = np.cumsum([0, *(len(rows[node]) for node in message.nodes)])
            bits = np.unpackbits(message.left, count=int(ends[-1])).astype(bool)
            for node, child, start, end in zip(message.nodes, message.children, ends, ends[1:], strict=False):
                left = bits[start:end]
                rows[child], rows[child + 1] = rows[node][left], rows[node][~left]
                group[rows[child]], group[rows[child + 1]] = child, child + 1
    means = {each: y[group == each].mean() for each in np.unique(group)}
    return float(np.var([means[each] for each in group]) / np.var(y))


if __name__ == "__main__":
    main()
