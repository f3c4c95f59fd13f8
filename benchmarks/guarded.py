"""An exploration of 30,000 rows at a guarded party: how many of its questions are answered, and how fast.

    OPENBLAS_NUM_THREADS=1 python benchmarks/guarded.py

The gate alone, in this process, with its ledger on disk; a question's way through the kernel's pipe adds a few ms.
Processor time of one thread, so that a busy machine does not show.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fednb.config import ColumnConfig, GuardConfig, TableConfig
from fednb.errors import Refused
from fednb.federation.guarded_frame import GuardedFrame
from fednb.policy.gate import Gate, Held
from fednb.policy.ledger import Ledger

ROWS = 30_000
KEYS = {
    "sex": ColumnConfig("key"),
    "education": ColumnConfig("key"),
    "marital": ColumnConfig("key"),
    "region": ColumnConfig("key"),
    "age": ColumnConfig("key", tuple(float(age) for age in range(25, 75, 5))),
}


def people() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, 21)
    frame = pd.DataFrame(
        {
            "person": [f"P{number:08d}" for number in rng.choice(10**8, ROWS, replace=False)],
            "sex": rng.choice(["F", "M"], ROWS, p=[0.6, 0.4]),
            "education": rng.choice(["graduate", "university", "school", "other"], ROWS, p=[0.35, 0.47, 0.16, 0.02]),
            "marital": rng.choice(["single", "married", "other"], ROWS, p=[0.53, 0.455, 0.015]),
            "region": rng.choice([f"R{number}" for number in range(20)], ROWS, p=weights / weights.sum()),
            "age": rng.integers(21, 76, ROWS),
            "limit": np.round(rng.lognormal(11.7, 0.7, ROWS), -3),
            "income": np.round(rng.lognormal(10.4, 0.6, ROWS), 2),
        }
    )
    frame["bill"] = np.round(frame["limit"] * rng.beta(1.2, 2.5, ROWS), 2)
    frame["default"] = np.where(rng.random(ROWS) < 0.1 + 0.2 * frame["bill"] / frame["limit"], "yes", "no")
    return frame


class Bank:
    """The gate, as a handle asks it."""

    member = "bank"

    def __init__(self, folder: Path) -> None:
        frame = people()
        table = TableConfig("loans", id=("person",), label="default", roles=KEYS)
        held = Held(frame, table, "1", "loans")
        self.ledger = Ledger(folder)
        self.gate = Gate("bank", GuardConfig(), self.ledger, lambda name: held)

    def ask(self, question: Any) -> Any:
        return self.gate.ask(question, "analyst")


def session(loans: GuardedFrame) -> list[tuple[str, Callable[[], Any]]]:
    """100 questions, as one gets to know a table."""
    asked: list[tuple[str, Callable[[], Any]]] = [
        ("describe", loans.describe),
        ("correlations", lambda: loans.corr(["income", "limit", "bill", "age"])),
        ("rows", lambda: len(loans)),
    ]

    def add(name: str, question: Callable[[], Any]) -> None:
        asked.append((name, question))

    for measure, key in itertools.product(("income", "limit", "bill"), KEYS):
        add(f"mean of {measure} by {key}", lambda m=measure, k=key: loans.groupby(k)[m].mean())
        add(f"std of {measure} by {key}", lambda m=measure, k=key: loans.groupby(k)[m].std())
    for measure, (a, b) in itertools.product(("income", "bill"), itertools.combinations(KEYS, 2)):
        add(f"mean of {measure} by {a}, {b}", lambda m=measure, a=a, b=b: loans.groupby([a, b])[m].mean())
    for measure, age in itertools.product(("income", "limit", "bill"), (30.0, 40.0, 50.0)):
        add(f"{measure} from {age:g}", lambda m=measure, c=age: loans[loans.age >= c].groupby("sex")[m].mean())
    for measure, q in itertools.product(("income", "limit", "bill"), (0.1, 0.25, 0.5, 0.75, 0.9)):
        add(f"{q} of {measure}", lambda m=measure, q=q: loans[m].quantile(q))
    for key in KEYS:
        add(f"crosstab of {key}", lambda k=key: loans.crosstab(k, "default"))
        add(f"counts of {key}", lambda k=key: loans.value_counts(k))
    for measure in ("income", "limit", "bill"):
        add(f"histogram of {measure}", lambda m=measure: loans[m].histogram())
        add(f"log of {measure}", lambda m=measure: np.log1p(loans[m]).mean())
    use = loans.assign(use=loans.bill / loans.limit, bad=(loans.default == "yes") * 1.0)
    for key in KEYS:
        add(f"rate by {key}", lambda k=key: use.groupby(k)[["use", "bad"]].mean())
    add("logit", lambda: use.logit("bad", ["use", "sex"]))
    add("ols", lambda: loans.ols("income", ["age", "sex", "education"]))
    return asked


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bank = Bank(Path(folder))
        began = time.process_time()
        loans = GuardedFrame.of(bank, bank.gate.schema("loans"))
        print(f"the table is opened in {time.process_time() - began:.2f} s")
        seconds, refused = [], []
        asked = session(loans)
        for name, question in asked:
            began = time.process_time()
            try:
                question()
            except Refused as error:
                refused.append(f"{name}: rule {error.rule}")
            seconds.append((time.process_time() - began, name))
        times = sorted(each for each, _ in seconds)
        print(f"{len(asked)} questions, {len(asked) - len(refused)} answered")
        print(
            f"median {statistics.median(times):.3f} s, 90% {times[int(0.9 * len(times))]:.3f} s, sum {sum(times):.1f} s"
        )
        print("slowest:", ", ".join(f"{name} {each:.2f} s" for each, name in sorted(seconds, reverse=True)[:5]))
        print("refused:", ", ".join(refused) or "none")
        size = (Path(folder) / "ledger.log").stat().st_size
        bank.ledger.close()
        began = time.process_time()
        again = Ledger(Path(folder))
        print(f"ledger: {size / 1e6:.2f} MB, read again in {time.process_time() - began:.1f} s")
        print(f"largest leverage: {again.leverage('income').max():.3f}")
        again.close()


if __name__ == "__main__":
    main()
