"""What a passive party shows of its splits of a node: column by column, or all mixed.

Mixed, the splits of all its columns stand in one list in random order, each complete: rows without a value are in its
sum already, or are not. So the active party neither sees which splits are of one feature, nor the order of a feature's
bins, nor how many rows lack a value, nor how many features there are. Of categories each is then taken by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fednb.protocols.binned import MISSING_LEFT, MISSING_RIGHT, NUMBER, Offer
from fednb.protocols.parting import Cut
from fednb.protocols.trees import Integers, Truths


@dataclass(frozen=True)
class Menu:
    """Splits of one node by `columns`, whose kinds are `kinds` [f]."""

    offer: Offer
    columns: Integers
    kinds: Integers
    place: Integers  # [m] of each split shown, among those of `offer`
    full: Truths  # [m] rows without a value go left, and are in the sum
    mixed: bool

    @classmethod
    def by_column(cls, offer: Offer, columns: Integers, kinds: Integers) -> Menu:
        every = np.arange(len(offer.bin))
        return cls(offer, columns, kinds, every, np.zeros(len(every), dtype=np.bool_), mixed=False)

    @classmethod
    def shuffled(cls, offer: Offer, columns: Integers, kinds: Integers, rng: np.random.Generator) -> Menu:
        number = kinds[offer.column] == NUMBER
        plain = np.flatnonzero(offer.allowed & np.where(number, MISSING_RIGHT, MISSING_LEFT))
        full = np.flatnonzero(number & (offer.allowed & MISSING_LEFT > 0))
        order = rng.permutation(len(plain) + len(full))
        filled = np.repeat([False, True], [len(plain), len(full)])
        return cls(offer, columns, kinds, np.concatenate([plain, full])[order], filled[order], mixed=True)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def counts(self) -> Integers:
        """[features as they are announced] splits of each."""
        return np.array([len(self)]) if self.mixed else self.offer.counts

    @property
    def missing(self) -> Truths:
        """[the same] whether the last sum is that of all rows with a value."""
        return np.zeros(1, dtype=np.bool_) if self.mixed else self.offer.missing

    @property
    def allowed(self) -> Integers:
        """[m] where rows without a value may go that are in no sum."""
        return np.full(len(self), MISSING_RIGHT) if self.mixed else self.offer.allowed

    def categories(self, split: int) -> int:
        """How many categories the active party has put into sets for a split; 0: none."""
        at = int(self.offer.column[self.place[split]])
        return 0 if self.mixed or self.kinds[at] == NUMBER else int(self.offer.counts[at])

    def cut(self, split: int, default_left: bool, left: Truths | None) -> Cut:
        """How a split parts rows; `left` says of the categories which go left."""
        place = int(self.place[split])
        if self.mixed and self.kinds[self.offer.column[place]] != NUMBER:
            own = self.offer.of(int(self.offer.column[place]))
            left = np.arange(own.start, own.stop) == place
        return self.offer.cut(place, self.columns, default_left or bool(self.full[split]), left)
