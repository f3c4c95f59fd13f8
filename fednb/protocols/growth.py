"""Trees of one round while they grow: which rows are in which node, and at the active party what they add up to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fednb.errors import UnexpectedMessage
from fednb.protocols.trees import Choice, Floats, Forest, Integers, Node, Rules, Truths

FRACTION_BITS = 30  # of g and h, in units that make the largest one 1
NUMBER_BITS = FRACTION_BITS + 2


class Rows:
    """The node of each row in each tree. The first rows are trained on; `sample` [trained] says which of them count."""

    def __init__(self, roots: Sequence[int], rows: int, sample: Truths) -> None:
        self.where = np.tile(np.asarray(roots, dtype=np.int64)[:, None], (1, rows))
        self.trees = {root: tree for tree, root in enumerate(roots)}  # of each node
        self.sample = sample

    def of(self, node: int) -> Integers:
        """The rows in a node, ascending."""
        return np.flatnonzero(self.where[self.trees[node]] == node)

    def counted(self, rows: Integers) -> Integers:
        """Those of some rows that are in the sample."""
        rows = rows[rows < len(self.sample)]
        return rows[self.sample[rows]]

    def sampled(self, node: int) -> Integers:
        return self.counted(self.of(node))

    def part(self, node: int, left: Truths, child: int) -> None:
        """Move a node's rows to its children, `child` and the next number, by who goes left."""
        tree, rows = self.trees[node], self.of(node)
        self.trees[child] = self.trees[child + 1] = tree
        self.where[tree, rows] = np.where(left, child, child + 1)


class Growth(Rows):
    """A round of the active party's: nodes, their sums, and the forest that they go to.

    `values` [trained, 2·outputs] are g and h of each output in whole numbers of `units` [2]; sums of them are exact,
    whoever adds them up.
    """

    def __init__(
        self,
        forest: Forest,
        rules: Rules,
        learning_rate: float,
        rows: int,
        sample: Truths,
        units: Floats,
        values: Integers,
    ) -> None:
        self.forest, self.first = forest, len(forest)
        self.units, self.values = units, values
        self.nodes: dict[int, Node] = {}
        self._rules, self._learning_rate = rules, learning_rate
        self.roots = list(range(self.first, self.first + values.shape[1] // 2))
        super().__init__(self.roots, rows, sample)
        everybody = np.flatnonzero(sample)
        for tree in range(len(self.roots)):
            self._add(tree, everybody, (-np.inf, np.inf))
        forest.roots.append(self.roots)

    def totals(self, tree: int, rows: Integers) -> Integers:
        """[2] sums of g and h over rows, in units."""
        return np.asarray(self.values[rows, 2 * tree : 2 * tree + 2].sum(axis=0), dtype=np.int64)

    def split(self, node: int, left: Truths, choice: Choice, owner: int, feature: int) -> tuple[int, int]:
        """Give a node its children."""
        tree, rows, child = self.trees[node], self.of(node), len(self.forest)
        for side, bounds in zip((rows[left], rows[~left]), choice.bounds, strict=True):
            self._add(tree, self.counted(side), bounds)
        self.part(node, left, child)
        self.forest.split(node, child, owner=owner, feature=feature, gain=choice.gain, default_left=choice.default_left)
        return child, child + 1

    def steps(self) -> Floats:
        """[rows, outputs] the weight of each row's leaf."""
        return np.asarray(self.forest.weight, dtype=np.float64)[self.where].T

    def _add(self, tree: int, rows: Integers, bounds: tuple[float, float]) -> None:
        G, H = (self.totals(tree, rows) * self.units).tolist()
        weight = float(self._rules.weight(np.float64(G), np.float64(H), *bounds))
        node = self.forest.add(weight * self._learning_rate, H)
        self.nodes[node] = Node(G, H, *bounds)


def in_units(g: Floats, h: Floats) -> tuple[Floats, Integers]:
    """[2] units, powers of two, and [n, 2·outputs] whole numbers of them: g and h of each output in turn."""
    units, parts = [], []
    for values in (g, h):
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        unit = 2.0 ** (np.ceil(np.log2(largest)) - FRACTION_BITS)
        units.append(unit)
        parts.append(np.rint(values / unit).astype(np.int64))
    return np.array(units), np.stack(parts, axis=2).reshape(len(g), -1)


def purest(labels: Floats) -> float:
    """The share of the most frequent class."""
    return float(np.bincount(labels.astype(np.int64)).max() / len(labels)) if len(labels) else 0.0


def packed(sides: Sequence[Truths]) -> npt.NDArray[np.uint8]:
    """Who goes left, node after node, in bits."""
    return np.packbits(np.concatenate(sides)) if sides else np.empty(0, dtype=np.uint8)


def unpacked(member: str, bits: npt.NDArray[np.uint8], sizes: Sequence[int]) -> list[Truths]:
    """What `packed` made, for nodes of these sizes. UnexpectedMessage, naming its sender, for anything else."""
    if bits.dtype != np.uint8 or bits.shape != (-(-sum(sizes) // 8),):
        raise UnexpectedMessage(f"{member} sent sides of other rows than the nodes have", member=member)
    whole = np.unpackbits(bits, count=sum(sizes)).astype(np.bool_)
    return np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []
