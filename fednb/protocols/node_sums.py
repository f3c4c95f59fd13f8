"""A passive party's encrypted histograms, node by node: the smaller child's own, the larger one's by subtraction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fednb.crypto import histograms
from fednb.crypto.backend import Vector
from fednb.crypto.histograms import CellPacking
from fednb.crypto.paillier import CipherVector
from fednb.protocols.binned import NUMBER, Binned
from fednb.protocols.menus import Menu
from fednb.protocols.trees import Integers, Truths


class NodeSums:
    """Of one round: `pairs` are the encrypted numbers of the rows in `sample` [trained], `columns` those looked at."""

    def __init__(
        self,
        pairs: CipherVector,
        sample: Truths,
        binned: Binned,
        columns: Integers,
        count: Callable[[int], None],
        threads: int,
    ) -> None:
        self._key, self._binned, self._columns = pairs.key, binned, columns
        self._pairs = pairs.key.ring.load(pairs.data)
        self._position = np.cumsum(sample) - 1  # of a sampled row's ciphertext
        self._sizes, self._starts = binned.sizes[columns], binned.starts(columns)
        self._count, self._threads = count, threads

    def of(self, rows: Integers) -> Vector:
        """The sums of some rows by cell of each column."""
        self._count(len(rows) * len(self._columns))
        cells = self._binned.cells[np.ix_(rows, self._columns)]
        sizes = self._sizes.tolist()
        return histograms.bin_sums(self._key.ring, self._pairs, self._position[rows], cells, sizes, self._threads)

    def rest(self, whole: Vector, part: Vector, rows: Integers) -> Vector:
        """The larger child's sums: the node's without the smaller one's. `rows` are the larger child's own."""
        return histograms.difference(self._key.ring, whole, part)

    def left(self, sums: Mapping[int, Vector], menus: Mapping[int, Menu], packing: CellPacking) -> CipherVector:
        """Sums left of every split shown, node after node, packed. Not fresh: refresh them before they leave."""
        ring, nodes = self._key.ring, list(menus)
        pool = ring.join([sums[node] for node in nodes])
        first = np.arange(len(nodes))[:, None] * self._starts[-1] + self._starts[:-1]
        # the last cell of a column, missing values, is left of no split
        running = histograms.cumulated(ring, pool, first.ravel(), np.tile(self._sizes - 1, len(nodes)))
        found = ring.join([running, pool, ring.ones(1)])  # of a column of categories each level counts by itself
        alone = len(pool) * (self._binned.kinds[self._columns] != NUMBER)
        places, missing = [], []
        for start, menu in zip(first, menus.values(), strict=True):
            column, bins = menu.offer.column[menu.place], menu.offer.bin[menu.place]
            places.append((start + alone)[column] + bins)
            missing.append(np.where(menu.full, (start + self._sizes - 1)[column], len(found) - 1))
        taken = ring.take(found, np.concatenate(places))
        if any(menu.full.any() for menu in menus.values()):
            taken = ring.multiply_taken(taken, found, np.concatenate(missing))
        return histograms.packed(self._key, taken, packing, self._threads)

    def children(
        self, whole: Vector, rows: Sequence[Integers], wanted: Sequence[bool]
    ) -> tuple[Vector | None, Vector | None]:
        """Sums of a node's two children with these rows, where they are wanted."""
        small = int(len(rows[1]) < len(rows[0]))
        found: list[Vector | None] = [None, None]
        found[small] = self.of(rows[small])
        if wanted[1 - small]:
            found[1 - small] = self.rest(whole, found[small], rows[1 - small])
        return found[0], found[1]
