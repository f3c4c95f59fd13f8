"""Columns of categories in boosted trees: levels as numbers, at their owner, and what each level is there.

    onehot      a split is one level against all others
    partition   a split is any set of levels against the others; the party with the labels orders them, at each node, by
                the weight that a leaf of each would have, and looks at the sets that this order gives (Fisher 1958, as
                in XGBoost's partition-based splits): target statistics, made anew at each node
    ordered     a number instead of the level: the mean of the label over earlier rows of that level, in a random order
                (Prokhorenkova et al. 2018, CatBoost's ordered target statistics); at the party with the labels only

Ordered statistics at a party without labels would tell it every label: from one row of a level to the next, the
statistic moves by the label of the one before. So that is refused, and "partition" does the same work there without
telling its owner a sum of labels.

A level that no training row has, and one of fewer rows in a node than `min_leaf` asks for, goes where rows without a
value go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset
from fednb.protocols.trees import Floats, Integers

How = Literal["onehot", "partition", "ordered"]
Kind = Literal["number", "onehot", "partition", "ordered"]

KINDS: tuple[Kind, ...] = ("number", "onehot", "partition")  # as others see them; an ordered one is a number to them
MOST_LEVELS = 1000
PRIOR_ROWS = 1.0  # how many rows the mean of all labels counts for in an ordered statistic


@dataclass(frozen=True)
class Coding:
    """What became of each of one party's columns. `levels` and `statistic` are by column that has them."""

    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    levels: Mapping[str, list[Any]]  # text or numbers, by code
    statistic: Mapping[str, list[float]]  # of an ordered column, by code, and last for rows without a known level

    @classmethod
    def fit(
        cls, party: str, data: Dataset, trained: int, asked: Mapping[str, How], most_onehot: int, *, labels: bool
    ) -> Self:
        """Levels of the training rows; text that nobody `asked` about is "onehot" below `most_onehot` levels.

        labels : whether this party has them. DataError naming party and column for what cannot be.
        """
        strange = [repr(name) for name in asked if name not in data.columns]
        if strange:
            raise DataError(f"categorical names {party}'s {', '.join(strange)}, which this frame lacks.")
        if not labels and "ordered" in asked.values():
            name = next(name for name, how in asked.items() if how == "ordered")
            raise DataError(
                f"{party}'s {name!r} cannot have ordered target statistics: {party} has no labels, and they would tell "
                "it each of them. Use 'partition', which orders levels by the target at the party that has it."
            )
        kinds: list[Kind] = []
        levels: dict[str, list[Any]] = {}
        for j, name in enumerate(data.columns):
            if name not in asked and name not in data.levels:
                kinds.append("number")
                continue
            found = np.unique(_values(data, j)[:trained])
            found = found[~np.isnan(found)]
            if len(found) > MOST_LEVELS:
                raise DataError(
                    f"{party}'s {name!r} has {len(found):,} categories, more than {MOST_LEVELS:,}. Merge some, or "
                    "leave the column out."
                )
            named = data.levels.get(name)
            levels[name] = [named[int(code)] for code in found] if named is not None else found.tolist()
            kinds.append(asked.get(name) or ("onehot" if len(found) < most_onehot else "partition"))
        return cls(tuple(data.columns), tuple(kinds), levels, {})

    @property
    def numbers(self) -> Integers:
        """[d] the place of each column's kind in `KINDS`."""
        return np.array([KINDS.index("number" if kind == "ordered" else kind) for kind in self.kinds], dtype=np.int64)

    def renumbered(self, numbering: Callable[[int], Integers]) -> Self:
        """The same levels under other codes."""
        levels = {name: [found[place] for place in numbering(len(found))] for name, found in self.levels.items()}
        return type(self)(self.columns, self.kinds, levels, self.statistic)

    def codes(self, data: Dataset) -> tuple[Floats, dict[str, int]]:
        """X [n, d] with codes for levels, NaN for those unknown, and of each column how many rows had such."""
        X = np.array(data.X, dtype=np.float64)
        unseen: dict[str, int] = {}
        for j, name in enumerate(self.columns):
            if name not in self.levels:
                continue
            values, known = _values(data, j), {level: code for code, level in enumerate(self.levels[name])}
            different, place = np.unique(values, return_inverse=True)
            named = data.levels.get(name)
            as_levels = [named[int(v)] if named is not None and v == v else v for v in different.tolist()]
            codes = np.array([known.get(level, np.nan) for level in as_levels], dtype=np.float64)[place]
            absent = int((np.isnan(codes) & ~np.isnan(values)).sum())
            if absent:
                unseen[name] = absent
            X[:, j] = codes
        return X, unseen

    def check(self, party: str, data: Dataset) -> None:
        """DataError, naming party and column, for text where numbers were trained on, and the other way round."""
        for j, name in enumerate(self.columns):
            text, now = any(isinstance(level, str) for level in self.levels.get(name, ())), name in data.levels
            if text != now and not np.isnan(_values(data, j)).all():
                was, is_now = ("text", "numbers") if text else ("numbers", "text")
                raise DataError(
                    f"{party}'s {name!r} was {was} in the training rows and is {is_now} now. Give the column its type "
                    "back, or fit again."
                )

    def with_statistics(self, X: Floats, y: Floats, trained: int, rng: np.random.Generator) -> tuple[Self, Floats]:
        """Put ordered statistics in the place of codes X; rows after the first `trained` get those of all of these."""
        statistic = {}
        X = X.copy()
        for j, name in enumerate(self.columns):
            if self.kinds[j] != "ordered":
                continue
            codes, size = X[:, j].copy(), len(self.levels[name])
            statistic[name] = _means(codes[:trained], y[:trained], size)
            X[:, j] = _looked_up(codes, statistic[name])
            X[:trained, j] = _ordered(codes[:trained], y[:trained], size, rng)
        return type(self)(self.columns, self.kinds, self.levels, statistic), X

    def applied(self, data: Dataset) -> tuple[Floats, dict[str, int]]:
        """Other rows as a model wants them, and how many had unknown levels, by column."""
        X, unseen = self.codes(data)
        for name, values in self.statistic.items():
            j = self.columns.index(name)
            X[:, j] = _looked_up(X[:, j], values)
        return X, unseen

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        return {
            "kinds": list(self.kinds),
            "levels": {name: list(values) for name, values in self.levels.items()},
            "statistic": {name: list(values) for name, values in self.statistic.items()},
        }

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        columns = tuple(part["columns"])
        kinds = tuple(part.get("kinds", ["number"] * len(columns)))
        return cls(columns, kinds, part.get("levels", {}), part.get("statistic", {}))


def unseen_notes(party: str, unseen: Mapping[str, int], least: int = 10) -> list[str]:
    """What others may know of levels that a model does not know: in which columns ten rows or more have such.

    Of fewer nothing is said: of a single applicant it would be a value.
    """
    return [
        f"{party}'s {name!r}: {least} rows or more have a category that no training row had; they go where rows "
        "without a value go."
        for name, rows in unseen.items()
        if rows >= least
    ]


def _values(data: Dataset, j: int) -> Floats:
    return np.asarray(data.X[:, j], dtype=np.float64)


def _looked_up(codes: Floats, statistic: Sequence[float]) -> Floats:
    values = np.asarray(statistic)
    return np.asarray(values[np.where(np.isnan(codes), len(values) - 1, codes).astype(np.int64)], dtype=np.float64)


def _means(codes: Floats, y: Floats, size: int) -> list[float]:
    known = ~np.isnan(codes)
    places, prior = codes[known].astype(np.int64), float(y.mean())
    rows = np.bincount(places, minlength=size)
    sums = np.bincount(places, weights=y[known], minlength=size)
    return [*((sums + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)).tolist(), prior]


def _ordered(codes: Floats, y: Floats, size: int, rng: np.random.Generator) -> Floats:
    """Of each row, the mean of y over the rows of its level that come before it in a random order."""
    prior = float(y.mean())
    found = np.full(len(codes), prior)
    order = rng.permutation(len(codes))
    order = order[np.argsort(np.where(np.isnan(codes), size, codes)[order], kind="stable")]  # level after level
    order = order[: int((~np.isnan(codes)).sum())]
    levels = codes[order].astype(np.int64)
    before = np.concatenate([[0.0], np.cumsum(y[order])])[:-1]  # of all levels so far
    firsts = np.searchsorted(levels, levels, side="left")
    rows = np.arange(len(order)) - firsts
    found[order] = (before - before[firsts] + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    return found
