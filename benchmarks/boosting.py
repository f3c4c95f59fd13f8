"""Boosted trees on 30,000 rows: seconds and megabytes a tree, what each optimisation is worth, and phe beside it.

    python benchmarks/boosting.py [--rows 30000] [--bits 2048] [--trees 3] [--slice 300]
    python benchmarks/boosting.py --linear
    python benchmarks/boosting.py --data FOLDER

All members run in this process over the loopback network, with the encoding, checking and decoding of every message,
each on one thread: seconds are those of the processor, for all members together, so that a busy machine changes them
little. A tree's cost is that of the trees after the first one, whose tables are then made.

phe does it as its users write it: g and h of each row encrypted each by itself, added up by bin for every node and
feature, and every sum decrypted. Its single operations are measured on a slice in the same run and multiplied.

With --linear, nothing of that but a tree on one, three and ten times the rows. With --data, nothing of it either, but
30 trees on each of five folds of FATE's default_credit files, beside XGBoost's on the joined table with the same cut
points and with its own.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import phe
import xgboost

from fednb.crypto import histograms, paillier
from fednb.crypto.backend import describe
from fednb.crypto.histograms import CellPacking
from fednb.protocols import boosting_score
from fednb.protocols import vertical_boosting as protocol
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.cuts import fit_cuts
from fednb.protocols.evaluation import auc
from fednb.protocols.node_sums import NodeSums
from fednb.protocols.vertical_boosting import BoostingParams
from fednb.wire.codec import encode, total_bytes
from fednb.wire.link import Link
from fednb.wire.loopback import play

OWN = 10  # features of the active party
CAST = {"active": ("bank",), "passive": ("agency",)}
Data = dict[str, Dataset]


class Counting:
    """A link that adds up the bytes it sends."""

    def __init__(self, link: Link, sent: list[int], seen: Callable[[Any], Any]) -> None:
        self.me, self.cast, self.recv, self._link, self._sent = link.me, link.cast, link.recv, link, sent
        self._seen = seen

    def send(self, to: str, message: Any) -> None:
        self._seen(message)
        self._sent.append(total_bytes(encode(message)))
        self._link.send(to, message)


def generated(rows: int, passive: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, OWN + passive))
    score = X @ rng.normal(size=OWN + passive) * 0.3 - 1.3
    return X, (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(float)


def parties(X: np.ndarray, y: np.ndarray, own: int = OWN) -> Data:
    names = tuple(f"x{j}" for j in range(X.shape[1]))
    return {
        "bank": Dataset(X=X[:, :own], columns=names[:own], y=y, label="default"),
        "agency": Dataset(X=X[:, own:], columns=names[own:]),
    }


def fit(
    data: Data, params: BoostingParams, seen: Callable[[Any], Any] = lambda message: None
) -> tuple[float, float, int, dict[str, Outcome]]:
    """Processor seconds, megabytes, messages, and what came out. `seen` gets each message that is sent."""
    sent: list[int] = []

    def role(member: str) -> Callable[[Link], Outcome]:
        function = protocol.active if member == "bank" else protocol.passive
        return lambda link: function(Counting(link, sent, seen), data[member], params, RunContext())

    began = time.process_time()
    out = play({member: role(member) for member in data}, CAST, timeout=36_000)
    return time.process_time() - began, sum(sent) / 1e6, len(sent), out


def a_tree(data: Data, trees: int, **params: Any) -> tuple[float, float, float]:
    """Seconds, megabytes and messages of one more tree."""
    one, many = (fit(data, BoostingParams(n_estimators=n, **params)) for n in (1, 1 + trees))
    return tuple((b - a) / trees for a, b in zip(one[:3], many[:3], strict=True))  # type: ignore[return-value]


@contextlib.contextmanager
def without(what: str) -> Iterator[None]:
    """One optimisation switched off."""
    if what == "smaller child only, the other by subtraction":
        switched: Any = mock.patch.object(NodeSums, "rest", lambda self, whole, part, rows: self.of(rows))
    elif what == "many sums in a plaintext":
        plan = CellPacking.plan

        def single(*args: Any) -> CellPacking:
            full = plan(*args)
            return CellPacking(full.numbers, full.number_bits, full.rows, full.slot_bits, 1)

        switched = mock.patch.object(CellPacking, "plan", single)
    elif what == "g and h in one plaintext":
        switched = contextlib.ExitStack()
        for owner, name in (
            (paillier.PrivateKey, "encrypt"),
            (paillier.PublicKey, "accept"),
            (histograms, "bin_sums"),
            (histograms, "cumulated"),
        ):
            switched.enter_context(mock.patch.object(owner, name, _twice(getattr(owner, name))))
    else:
        raise ValueError(what)
    with switched:
        yield


def _twice(work: Callable[..., Any]) -> Callable[..., Any]:
    """As if g and h were two vectors: the same work again. Twice as many sums share a plaintext: as many are sent."""

    def both(*args: Any, **named: Any) -> Any:
        work(*args, **named)
        return work(*args, **named)

    return both


def phes(rows: int, passive: int, depth: int, bins: int, bits: int, some: int) -> tuple[float, float, float]:
    """Seconds a tree from a slice of `some` rows, megabytes a tree, and µs of one addition."""
    public, secret = phe.generate_paillier_keypair(n_length=bits)
    rng = np.random.default_rng(0)
    values = rng.normal(size=some)
    began = time.process_time()
    c = [public.encrypt(float(v), precision=2.0**-30) for v in values]
    encrypting = (time.process_time() - began) / some
    total = c[0]
    began = time.process_time()
    for each in c[1:]:
        total = total + each
    adding = (time.process_time() - began) / (some - 1)
    began = time.process_time()
    total.obfuscate()
    if abs(secret.decrypt(total) - values.sum()) > 1e-6:
        raise SystemExit("phe's sum is wrong")
    ending = time.process_time() - began
    sums = 2 * passive * bins * (2**depth - 1)  # g and h, all nodes that are looked at
    seconds = 2 * rows * encrypting + 2 * rows * passive * depth * adding + sums * ending
    return seconds, (2 * rows + sums) * bits / 4 / 1e6, 1e6 * adding


def per_cell(rows: int, passive: int, bins: int, bits: int) -> float:
    """µs of an encrypted histogram, a (row, feature) of g and h."""
    key = paillier.generate(bits, insecure_short_key=bits < 2048)
    packing = CellPacking.plan(bits, rows, 2, 32)
    c = key.encrypt(packing.pack(np.ones((rows, 2), dtype=np.int64)))
    values = key.public.ring.load(c.data)
    cells = np.random.default_rng(0).integers(0, bins, (rows, passive)).astype(np.int32)
    began = time.process_time()
    histograms.bin_sums(key.public.ring, values, np.arange(rows), cells, [bins] * passive)
    return 1e6 * (time.process_time() - began) / rows / passive


def parity(folder: Path, params: dict[str, Any]) -> None:
    """30 trees of depth 3 on each of five folds of default_credit: out-of-fold AUC, beside XGBoost's."""
    import pandas as pd
    from sklearn.model_selection import StratifiedKFold

    guest, host = (pd.read_csv(folder / f"default_credit_hetero_{side}.csv") for side in ("guest", "host"))
    joined = guest.merge(host, on="id")
    y = joined.pop("y").to_numpy(np.float64)
    X = joined.drop(columns="id").to_numpy(np.float64)
    own, bins = guest.shape[1] - 2, params["max_bin"]
    usual = {"tree_method": "hist", "objective": "binary:logistic", "max_depth": 3, "learning_rate": 0.3, "nthread": 1}
    scores: dict[str, np.ndarray] = {}
    seconds = megabytes = 0.0

    def note(name: str, rows: np.ndarray, found: np.ndarray) -> None:
        scores.setdefault(name, np.zeros(len(y)))[rows] = found

    for train, test in StratifiedKFold(5).split(X, y):
        # what a feature's owner cuts it into, as numbers of cells: so all have the same cut points
        coded = np.column_stack([fit_cuts(x[train], bins=bins, method="quantile", least=1).cells(x) for x in X.T])
        for name, table in (
            ("joined, XGBoost, the same cuts", coded),
            ("active party only, the same cuts", coded[:, :own]),
            ("joined, XGBoost, its own 256 bins", X),
        ):
            booster = xgboost.train(usual, xgboost.DMatrix(table[train].astype(np.float64), y[train]), 30)
            note(name, test, booster.predict(xgboost.DMatrix(table[test].astype(np.float64))))
        for name, least in (("federated, min_leaf=1", 1), ("federated, min_leaf=10", 10)):
            spent, sent, _, out = fit(parties(X[train], y[train], own), BoostingParams(
                n_estimators=30, max_depth=3, min_leaf=least, **params))  # fmt: skip
            seconds, megabytes = seconds + spent / 10, megabytes + sent / 10
            note(name, test, predicted(parties(X[test], y[test], own), out))
    print(f"default_credit, 24,000 rows a fold, {own} + {X.shape[1] - own} features, 30 trees of depth 3, {bins} bins: "
          f"{seconds:.0f} s and {megabytes:.0f} MB a fold; five folds, out of fold")  # fmt: skip
    for name, found in scores.items():
        print(f"  {name:36} AUC {auc(y, found):.5f}  KS {ks(y, found):.4f}")
    apart = np.abs(scores["federated, min_leaf=1"] - scores["joined, XGBoost, the same cuts"])
    print(f"  the largest difference of a row's score to XGBoost's with the same cuts: {apart.max():.1e}")


def predicted(data: Data, fitted: dict[str, Outcome]) -> np.ndarray:
    """Scores of other rows."""

    def role(member: str) -> Callable[[Link], Outcome]:
        function = boosting_score.active if member == "bank" else boosting_score.passive
        mine = Dataset(X=data[member].X, columns=data[member].columns, part=dict(fitted[member].private))
        return lambda link: function(link, mine, boosting_score.BoostingScoreParams(), RunContext())

    scores: np.ndarray = play({member: role(member) for member in data}, CAST, timeout=600)["bank"].private["scores"]
    return scores


def ks(y: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(y, scores)
    return float((tpr - fpr).max())


def linear(rows: int, params: dict[str, Any]) -> None:
    """A tree of depth 5 with 13 passive features, on more and more rows."""
    for times in (1, 10 / 3, 10):
        count = round(rows * times)
        seconds, megabytes, _ = a_tree(parties(*generated(count, 13)), 1, max_depth=5, **params)
        print(f"{count:9,} rows: {seconds:6.1f} s a tree, {1e6 * seconds / count:5.0f} µs a row; {megabytes:5.0f} MB, "
              f"{1e6 * megabytes / count:4.0f} bytes a row", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--bits", type=int, default=2048)
    parser.add_argument("--bins", type=int, default=32)
    parser.add_argument("--trees", type=int, default=3)
    parser.add_argument("--slice", type=int, default=300)
    parser.add_argument("--linear", action="store_true", help="one, three and ten times the rows: is it linear?")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    usual: dict[str, Any] = {"max_bin": asked.bins, "key_bits": asked.bits, "insecure_short_key": asked.bits < 2048}
    print(describe())
    if asked.data:
        parity(asked.data, usual)
        return
    if asked.linear:
        linear(asked.rows, usual)
        return
    print(f"{asked.rows:,} rows, {OWN} features at the active party, {asked.bins} bins, {asked.bits} bits\n")
    print("passive  depth   s a tree   MB  messages   phe, s      MB   phe/fednb")
    for passive in (10, 13):
        data = parties(*generated(asked.rows, passive))
        for depth in (3, 5):
            seconds, megabytes, messages = a_tree(data, asked.trees, max_depth=depth, **usual)
            theirs, bulk, adding = phes(asked.rows, passive, depth, asked.bins, asked.bits, asked.slice)
            print(
                f"{passive:7} {depth:6} {seconds:10.2f} {megabytes:4.0f} {messages:9.0f} {theirs:8.0f} {bulk:7.0f} "
                f"{theirs / seconds:8.0f}",
                flush=True,
            )
    ours = per_cell(asked.rows, 13, asked.bins, asked.bits)
    print(f"\nhistogram, µs a (row, feature): {ours:.2f}; phe {2 * adding:.1f}, {2 * adding / ours:.0f} times")
    data = parties(*generated(asked.rows, 13))
    base = a_tree(data, asked.trees, max_depth=5, **usual)[0]
    print(f"\n13 passive features, depth 5: {base:.2f} s; switched off, one by one:")
    for what in (
        "g and h in one plaintext",
        "smaller child only, the other by subtraction",
        "many sums in a plaintext",
    ):
        with without(what):
            seconds, megabytes, _ = a_tree(data, asked.trees, max_depth=5, **usual)
        megabytes += asked.rows * asked.bits / 4 / 1e6 if what == "g and h in one plaintext" else 0
        print(f"  {what:46} {seconds:6.2f} s  {seconds / base:.2f} times  {megabytes:.0f} MB", flush=True)
    seconds, megabytes, _ = a_tree(data, asked.trees, max_depth=5, sampling_method="goss", **usual)
    print(f"  with sampling_method='goss'                    {seconds:6.2f} s  {seconds / base:.2f} times  "
          f"{megabytes:.0f} MB", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
