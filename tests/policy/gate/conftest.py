"""A guarded table of 30,000 rows with one person whom the attacks are after, and the gate that holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fednb.config import ColumnConfig, GuardConfig, TableConfig
from fednb.errors import DataError
from fednb.federation.guarded_frame import GuardedFrame
from fednb.policy import plan as p
from fednb.policy.answer import Answer
from fednb.policy.gate import Gate, Held
from fednb.policy.ledger import Ledger

VICTIM = 777
AGES = tuple(float(age) for age in range(25, 75, 5))


def people(n: int = 30_000) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    regions = 1 / np.arange(1, 21)
    frame = pd.DataFrame(
        {
            "person": [f"P{number:08d}" for number in rng.choice(10**8, n, replace=False)],
            "sex": rng.choice(["F", "M"], n, p=[0.6, 0.4]),
            "education": rng.choice(["graduate", "university", "school", "other"], n, p=[0.35, 0.47, 0.16, 0.02]),
            "marital": rng.choice(["single", "married", "other"], n, p=[0.53, 0.455, 0.015]),
            "region": rng.choice([f"R{number}" for number in range(20)], n, p=regions / regions.sum()),
            "age": rng.integers(21, 76, n),
        }
    )
    frame["limit"] = np.round(rng.lognormal(11.7, 0.7, n), -3)
    frame["income"] = np.round(rng.lognormal(10.4, 0.6, n) + 20 * frame["age"], 2)
    frame["bill"] = np.round(frame["limit"] * rng.beta(1.2, 2.5, n), 2)
    risk = -1.8 + 0.9 * frame["bill"] / frame["limit"] - 1e-5 * frame["income"] + 0.1 * (frame["sex"] == "M")
    frame["default"] = np.where(rng.random(n) < 1 / (1 + np.exp(-risk)), "yes", "no")
    frame["note"] = [f"note {number}" for number in range(n)]
    victim = ["P13800000", "F", "other", "other", "R19", 74, 98765.43, "yes"]
    frame.loc[VICTIM, ["person", "sex", "education", "marital", "region", "age", "income", "default"]] = victim
    return frame


ROLES = {name: ColumnConfig("key") for name in ("sex", "education", "marital", "region")} | {
    "age": ColumnConfig("key", AGES),
    "note": ColumnConfig("hidden"),
}
LOANS = TableConfig("loans", id=("person",), label="default", roles=ROLES)


@dataclass
class Bank:
    """A gate with tables, and handles of them as an analyst's kernel has them."""

    tables: dict[str, tuple[pd.DataFrame, TableConfig]]
    guard: GuardConfig = GuardConfig()
    ledger: Ledger = field(default_factory=Ledger)
    saved: dict[str, p.Rows] = field(default_factory=dict)
    member: str = "bank"
    analyst: str = "ann"
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate = Gate(self.member, self.guard, self.ledger, self.find)

    def find(self, name: str) -> Held | p.Rows:
        if name in self.saved:
            return self.saved[name]
        if name not in self.tables:
            raise DataError(f"bank has no table {name!r}.")
        frame, table = self.tables[name]
        return Held(frame, table, f"{name}{self.versions.get(name, 0)}", name)

    def ask(self, question: p.Aggregate | p.Count | p.Histogram | p.Correlate | p.Regress) -> Answer:
        return self.gate.ask(question, self.analyst)

    def load(self, name: str = "loans") -> GuardedFrame:
        return GuardedFrame.of(self, self.gate.schema(name))

    def save(self, name: str, handle: GuardedFrame) -> pd.DataFrame:
        frame, _ = self.gate.keep(p.Keep(handle._plan(), name, handle.ids), self.analyst)
        self.saved[name] = handle._plan()
        return frame


@pytest.fixture(scope="session")
def population() -> pd.DataFrame:
    return people()


@pytest.fixture
def make_bank(population: pd.DataFrame) -> Callable[..., Bank]:
    def make(
        frame: pd.DataFrame | None = None, table: TableConfig = LOANS, folder: Path | None = None, **guard: float
    ) -> Bank:
        settings = GuardConfig(**guard)  # type: ignore[arg-type]
        ledger = Ledger(folder, limit=settings.leverage)
        return Bank({"loans": (population if frame is None else frame, table)}, settings, ledger)

    return make


@pytest.fixture
def bank(make_bank: Callable[..., Bank]) -> Bank:
    return make_bank()
