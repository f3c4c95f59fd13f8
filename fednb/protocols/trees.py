"""Regression trees of a boosted ensemble: which split is best, and where a row ends.

With sums G and H of gradients and hessians over a node's rows, its best weight is -T(G)/(H + λ) with T the soft
threshold at α, and a split gains score(left) + score(right) - score(node), score = T(G)²/(H + λ) (Chen and Guestrin
2016, eq. 5 to 7; the factor 1/2 is left out, as XGBoost does). Rows without a value go left or right, whichever gains
more. Ties go to the first feature, rows without a value to the right, and the lowest cut, as XGBoost's `hist` has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fednb.protocols.parting import sets_from_part, sets_to_part

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

LEAST_GAIN = 1e-6  # XGBoost's: below it nothing is split
LEAF = -1


@dataclass(frozen=True)
class Rules:
    """What makes a split worth while."""

    reg_lambda: float = 1.0
    reg_alpha: float = 0.0
    gamma: float = 0.0
    min_child_weight: float = 1.0
    max_delta_step: float = 0.0
    monotone: bool = False  # some feature has a direction: weights are bounded

    def weight(self, G: Any, H: Any, low: float = -np.inf, high: float = np.inf) -> Any:
        """The best weight of a leaf with these sums, within bounds."""
        sound = (H > 0) & (self.min_child_weight <= H)
        w = np.where(sound, -self._threshold(G) / np.where(sound, H + self.reg_lambda, 1.0), 0.0)
        if self.max_delta_step:
            w = np.clip(w, -self.max_delta_step, self.max_delta_step)
        return np.clip(w, low, high)

    def score(self, G: Any, H: Any, w: Any) -> Any:
        """What a leaf of weight w takes off the objective, twice."""
        safe = np.where(H > 0, H + self.reg_lambda, 1.0)
        if self.monotone or self.max_delta_step:
            return np.where(H > 0, -(2 * G * w + safe * w * w), 0.0)
        return np.where(H > 0, self._threshold(G) ** 2 / safe, 0.0)

    def _threshold(self, G: Any) -> Any:
        return np.sign(G) * np.maximum(np.abs(G) - self.reg_alpha, 0.0)


@dataclass(frozen=True)
class Options:
    """Candidate splits of one node, of all parties. Sums are those of the left side, missing values not counted."""

    feature: Integers  # [c] number among all features, for ties
    place: Integers  # [c] order of cuts within its feature
    G: Floats  # [c]
    H: Floats
    missing_G: Floats  # [c] sums over the rows without a value of this feature
    missing_H: Floats
    right: Truths  # [c] whether missing values may go right
    left: Truths  # ... and left
    sign: Integers  # [c] 1, -1: the prediction may only rise, or fall, with the feature

    @classmethod
    def join(cls, parts: Sequence[Options]) -> Options:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Node:
    """A leaf that may be split."""

    G: float
    H: float
    low: float = -np.inf  # bounds of its weight
    high: float = np.inf


@dataclass(frozen=True)
class Choice:
    """The best split of a node."""

    option: int
    default_left: bool
    gain: float
    bounds: tuple[tuple[float, float], tuple[float, float]]  # of the weights of the left and the right child


def best_split(rules: Rules, node: Node, options: Options) -> Choice | None:
    """None when no option gains enough."""
    count = len(options.G)
    if not count:
        return None
    option = np.concatenate([np.arange(count)] * 2)
    default_left = np.repeat([False, True], count)
    allowed = np.concatenate([options.right, options.left])
    G = np.concatenate([options.G, options.G + options.missing_G])
    H = np.concatenate([options.H, options.H + options.missing_H])
    RG, RH = node.G - G, node.H - H
    left, right = rules.weight(G, H, node.low, node.high), rules.weight(RG, RH, node.low, node.high)
    before = rules.score(node.G, node.H, rules.weight(node.G, node.H, node.low, node.high))
    gain = rules.score(G, H, left) + rules.score(RG, RH, right) - before
    sign = options.sign[option]
    allowed &= (np.minimum(H, RH) >= rules.min_child_weight) & (np.minimum(H, RH) > 0) & ((right - left) * sign >= 0)
    gain = np.where(allowed, gain, -np.inf)
    # a scan upwards with missing values on the right, then one downwards with them on the left
    order = np.lexsort((np.where(default_left, -1, 1) * options.place[option], default_left, options.feature[option]))
    best = int(order[np.argmax(gain[order])])
    if not gain[best] > LEAST_GAIN or gain[best] < rules.gamma:
        return None
    low, high = node.low, node.high
    bounds = ((low, high), (low, high))
    if sign[best]:
        middle = float(left[best] + right[best]) / 2
        bounds = ((low, middle), (middle, high)) if sign[best] > 0 else ((middle, high), (low, middle))
    return Choice(int(option[best]), bool(default_left[best]), float(gain[best]), bounds)


@dataclass
class Forest:
    """The active party's part of an ensemble: all nodes of all trees, one after the other.

    A passive party's node says only whose it is, under which number of that party's features (an alias), and which of
    the nodes of that party: where it cuts, its owner knows.
    """

    roots: list[list[int]] = field(default_factory=list)  # by round, one tree an output
    left: list[int] = field(default_factory=list)  # LEAF, or a node; the right child is the next one
    owner: list[int] = field(default_factory=list)  # 0: the active party; p: the p-th passive one
    feature: list[int] = field(default_factory=list)  # column, or alias
    place: list[int] = field(default_factory=list)  # which of its owner's nodes, as they were made
    threshold: list[float] = field(default_factory=list)  # the active party's: below it, left
    default_left: list[bool] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    gain: list[float] = field(default_factory=list)
    cover: list[float] = field(default_factory=list)  # sum of hessians
    # of the active party's nodes on categories, which codes go left and which right; all others the default way
    sets: dict[int, tuple[list[int], list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inner = [owner for owner, left in zip(self.owner, self.left, strict=True) if left != LEAF]
        self._owned = {owner: inner.count(owner) for owner in set(inner)}  # inner nodes of each party

    def __len__(self) -> int:
        return len(self.left)

    def add(self, weight: float, cover: float) -> int:
        """A new leaf; its number."""
        for values, value in zip(self._columns(), (LEAF, 0, 0, 0, np.nan, False, weight, 0.0, cover), strict=True):
            values.append(value)
        return len(self) - 1

    def split(self, node: int, left: int, *, owner: int, feature: int, gain: float, default_left: bool) -> None:
        """Make `node` an inner one, of children `left` and `left + 1`."""
        self.left[node], self.owner[node], self.feature[node] = left, owner, feature
        self.gain[node], self.default_left[node] = gain, default_left
        self.place[node] = self._owned.get(owner, 0)
        self._owned[owner] = self.place[node] + 1

    def keep(self, rounds: int) -> None:
        """Forget all trees after the first `rounds`."""
        if rounds < len(self.roots):
            first = self.roots[rounds][0]
            for values in self._columns():
                del values[first:]
            self.sets = {node: sets for node, sets in self.sets.items() if node < first}
            del self.roots[rounds:]

    def to_part(self) -> dict[str, Any]:
        """For the party's own store."""
        values = {name: np.asarray(getattr(self, name)) for name in _KINDS if name != "roots"}
        roots = np.asarray(self.roots, dtype=np.int64).reshape(len(self.roots), -1)
        arrays = {name: array.astype(_KINDS[name]) for name, array in values.items()}
        return {"roots": roots, **arrays, "sets": sets_to_part(self.sets)}

    @classmethod
    def from_part(cls, part: Mapping[str, Any]) -> Self:
        values = {name: np.asarray(part[name]).tolist() for name in _KINDS}
        return cls(**values, sets=sets_from_part(part.get("sets", ())))

    def leaves(self, goes_left: Truths) -> Integers:
        """[n, trees]: the leaf of each row, from its direction at each node, [n, nodes]."""
        left, rows = np.asarray(self.left, dtype=np.int64), np.arange(len(goes_left))
        found = np.empty((len(goes_left), sum(map(len, self.roots))), dtype=np.int64)
        for tree, root in enumerate(root for roots in self.roots for root in roots):
            here = np.full(len(rows), root)
            while (inner := left[here] != LEAF).any():
                here = np.where(inner, left[here] + ~goes_left[rows, here], here)
            found[:, tree] = here
        return found

    def margins(self, leaves: Integers, base: Floats) -> Floats:
        """[n, outputs]: the sum of the leaves' weights."""
        weights = np.asarray(self.weight, dtype=np.float64)[leaves]
        return np.asarray(base + weights.reshape(len(leaves), -1, len(base)).sum(axis=1), dtype=np.float64)

    def _columns(self) -> list[list[Any]]:
        return [getattr(self, name) for name in _KINDS if name != "roots"]


_KINDS: Mapping[str, Any] = {
    "roots": np.int64,
    "left": np.int64,
    "owner": np.int64,
    "feature": np.int64,
    "place": np.int64,
    "threshold": np.float64,
    "default_left": np.bool_,
    "weight": np.float64,
    "gain": np.float64,
    "cover": np.float64,
}
