"""Boosting by its real roles in one process, and XGBoost on the joined table to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import xgboost

from fednb.protocols import boosting_score as bs
from fednb.protocols import vertical_boosting as vb
from fednb.protocols.base import Dataset, Journal, Outcome, RunContext
from fednb.protocols.parting import sets_from_part
from fednb.protocols.trees import Forest
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

Alter = Callable[[str, str, Message], Message]


class Taped:
    def __init__(self, world: World, link: Link) -> None:
        self.me, self.cast, self.recv = link.me, link.cast, link.recv
        self._world, self._link = world, link

    def send(self, to: str, message: Message) -> None:
        message = self._world.alter(self.me, to, message)
        self._world.sent.append((self.me, to, message))
        self._link.send(to, message)


class Memory(Journal):
    """A journal that outlives its run."""

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}
        self.at: int | None = None

    def save(self, step: int, state: Any) -> None:
        self.states[step] = state

    def load(self) -> tuple[int, Any] | None:
        return None if self.at is None else (self.at, self.states[self.at])


@dataclass
class World:
    """bank (active), agency, telco on the columns of one table."""

    X: np.ndarray
    y: np.ndarray
    widths: Sequence[int]  # columns of each party, the bank's first
    params: Mapping[str, Any] = field(default_factory=dict)
    contexts: Mapping[str, RunContext] = field(default_factory=dict)
    earlier: Mapping[str, Outcome] = field(default_factory=dict)
    sent: list[tuple[str, str, Message]] = field(default_factory=list)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of text, by column
    alter: Alter = staticmethod(lambda me, to, message: message)  # type: ignore[assignment]

    @property
    def members(self) -> list[str]:
        return ["bank", "agency", "telco"][: len(self.widths)]

    @property
    def cast(self) -> dict[str, tuple[str, ...]]:
        return {"active": ("bank",), "passive": tuple(self.members[1:])}

    def data(self, member: str, X: np.ndarray, part: Mapping[str, Any] | None = None) -> Dataset:
        i = self.members.index(member)
        start = sum(self.widths[:i])
        own = X[:, start : start + self.widths[i]]
        columns = tuple(f"{member}_{j}" for j in range(self.widths[i]))
        y, label = (self.y, "default") if i == 0 else (None, None)
        levels = {name: self.levels[name] for name in columns if name in self.levels}
        return Dataset(X=own, y=y, columns=columns, label=label, part=part or {}, levels=levels)

    def fit(self) -> dict[str, Outcome]:
        usual = {"key_bits": 512, "insecure_short_key": True, "min_leaf": 1, "objective": "binary:logistic"}
        params = vb.BoostingParams(**{**usual, **self.params})

        def role(member: str) -> Callable[[Link], Outcome]:
            function = vb.active if member == "bank" else vb.passive
            run = self.contexts.get(member) or RunContext(name="run")
            part = self.earlier[member].private if self.earlier else None
            return lambda link: function(Taped(self, link), self.data(member, self.X, part), params, run)

        return play({member: role(member) for member in self.members}, self.cast, timeout=120)

    def predict(self, fitted: Mapping[str, Outcome], X: np.ndarray, **params: Any) -> dict[str, Outcome]:
        def role(member: str) -> Callable[[Link], Outcome]:
            function = bs.active if member == "bank" else bs.passive
            data = self.data(member, X, fitted[member].private)
            return lambda link: function(
                Taped(self, link), data, bs.BoostingScoreParams(**params), RunContext(name="score")
            )

        return play({member: role(member) for member in self.members}, self.cast, timeout=60)

    def kinds(self, sender: str, receiver: str) -> list[str]:
        return [type(m).__name__ for s, r, m in self.sent if (s, r) == (sender, receiver)]


def trees(world: World, fitted: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Every node, in XGBoost's order: column of the joined table, cut, children, missing values, figures."""
    part = fitted["bank"].private
    forest = Forest.from_part(part)
    starts = np.cumsum([0, *world.widths])
    out = []
    for tree, root in enumerate(root for roots in forest.roots for root in roots):
        numbers, queue = {root: 0}, [root]
        nodes = []
        while queue:
            node = queue.pop(0)
            nodes.append(node)
            if forest.left[node] >= 0:
                for child in (forest.left[node], forest.left[node] + 1):
                    numbers[child] = len(numbers)
                    queue.append(child)
        for node in nodes:
            found = {"tree": tree, "node": numbers[node], "weight": forest.weight[node], "cover": forest.cover[node]}
            if forest.left[node] >= 0:
                p = forest.owner[node]
                if p:
                    own = fitted[world.members[p]].private
                    column, cut = own["column"][forest.place[node]], own["threshold"][forest.place[node]]
                    sets = sets_from_part(own["sets"]).get(forest.place[node])
                    if not world.params.get("anonymous_splits"):
                        assert own["order"][forest.feature[node]] == column
                        assert own["default_left"][forest.place[node]] == forest.default_left[node]
                else:
                    column, cut = forest.feature[node], forest.threshold[node]
                    sets = forest.sets.get(node)
                found |= {
                    "column": int(starts[p] + column),
                    "cut": float(cut) if sets is None else sets,
                    "left": numbers[forest.left[node]],
                    "default_left": forest.default_left[node],
                    "gain": forest.gain[node],
                }
            out.append(found)
    return out


def oracle(X: np.ndarray, y: np.ndarray, **params: Any) -> tuple[xgboost.Booster, list[dict[str, Any]]]:
    """XGBoost's `hist` on the joined table, and its nodes in the same form."""
    rounds = params.pop("n_estimators", 30)
    types = params.pop("types", None)  # "q" or "c", by column
    usual = {"tree_method": "hist", "objective": "binary:logistic", "max_depth": 3, "learning_rate": 0.3, "nthread": 1}
    data = xgboost.DMatrix(X, y, feature_types=types, enable_categorical=types is not None)
    booster = xgboost.train({**usual, **params}, data, rounds)
    frame = booster.trees_to_dataframe().replace({float("nan"): None})
    out = []
    for row in frame.itertuples():
        if row.Feature == "Leaf":
            out.append({"tree": row.Tree, "node": row.Node, "weight": row.Gain, "cover": row.Cover})
        elif row.Category:  # these go right
            out.append(
                {
                    "tree": row.Tree,
                    "node": row.Node,
                    "column": int(row.Feature[1:]),
                    "cut": set(map(int, row.Category)),
                    "left": int(row.No.split("-")[1]),
                    "default_left": row.Missing == row.No,
                    "gain": row.Gain,
                    "cover": row.Cover,
                }
            )
        else:
            out.append(
                {
                    "tree": row.Tree,
                    "node": row.Node,
                    "column": int(row.Feature[1:]),
                    "cut": row.Split,
                    "left": int(row.Yes.split("-")[1]),
                    "default_left": row.Missing == row.Yes,
                    "gain": row.Gain,
                    "cover": row.Cover,
                }
            )
    return booster, out


def agree(found: list[dict[str, Any]], expected: list[dict[str, Any]], *, reg_lambda: float = 1.0) -> None:
    """The same nodes, and figures equal to what XGBoost's own single precision allows."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("tree", "node", "column", "cut", "left", "default_left"):
            if name == "cut" and ours.get("cut") == np.inf:
                continue  # XGBoost writes the largest value that it has seen
            if name == "cut" and isinstance(ours.get("cut"), tuple):  # XGBoost's set may have some that no row has
                left, right = map(set, ours["cut"])
                assert right <= theirs["cut"] and not left & theirs["cut"] and (left or right), (ours, theirs)
                continue
            assert ours.get(name) == theirs.get(name), (name, ours, theirs)
        assert ours["cover"] == pytest.approx(theirs["cover"], rel=2e-6)
        if "gain" in ours:
            # it is the difference of larger numbers: their errors remain
            scale = theirs["gain"] + (ours["weight"] / 0.3) ** 2 * (ours["cover"] + reg_lambda)
            assert ours["gain"] == pytest.approx(theirs["gain"], rel=1e-6, abs=2e-6 * scale)
        else:
            assert ours["weight"] == pytest.approx(theirs["weight"], rel=1e-4, abs=1e-6)
