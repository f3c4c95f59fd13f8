"""What a party offers for a node, with its sums: alike whether these were decrypted or added up in the clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fednb.errors import UnexpectedMessage
from fednb.protocols.binned import MISSING_LEFT, MISSING_RIGHT, Binned, Offer
from fednb.protocols.trees import Choice, Floats, Integers, Node, Options, Rules, Truths, best_split


@dataclass(frozen=True)
class Priced:
    """One party's splits of one node. `sums` [c, 2] of g and h, left of each, are in units."""

    options: Options
    sums: Integers
    total: Integers  # [2] of the node
    start: int = 0  # place of the first among all that the party offers at this level

    @classmethod
    def of(
        cls,
        sums: Integers,
        total: Integers,
        units: Floats,
        counts: Integers,
        missing: Truths,
        allowed: Integers,
        numbers: Integers,
        signs: Integers,
        start: int = 0,
    ) -> Priced:
        """[f] by feature looked at: `counts`, `missing`, its number among all, its monotone sign; [c] `allowed`."""
        ends = np.cumsum(counts)
        absent = np.zeros((len(counts), 2), dtype=np.int64)
        parted = missing & (counts > 0)
        absent[parted] = total - sums[ends[parted] - 1]
        column = np.repeat(np.arange(len(counts)), counts)
        left, aside = sums * units, absent[column] * units
        options = Options(
            feature=numbers[column],
            place=np.arange(len(column)) - (ends - counts)[column],
            G=left[:, 0],
            H=left[:, 1],
            missing_G=aside[:, 0],
            missing_H=aside[:, 1],
            right=(allowed & MISSING_RIGHT) > 0,
            left=(allowed & MISSING_LEFT) > 0,
            sign=signs[column],
        )
        return cls(options, sums, total, start)

    def left(self, place: int, choice: Choice) -> list[int]:
        """Sums of g and h of all rows that a split sends left, missing values among them where they go there."""
        sums = self.sums[place]
        if choice.default_left:
            feature = self.options.feature
            last = int(np.searchsorted(feature, feature[place], side="right")) - 1
            sums = sums + self.total - self.sums[last]
        return [int(value) for value in sums]


@dataclass(frozen=True)
class Split:
    """A node's best split."""

    node: int
    owner: int  # 0: the active party; p: the p-th passive one
    option: int  # place among all that its owner offers at this level
    feature: int  # column, or the number that a passive party gave it
    bin: int  # of one's own: the last one that goes left
    choice: Choice
    sums: list[int]  # g and h of the left child, in units


def choose(
    rules: Rules, node: int, leaf: Node, offers: Sequence[Priced], own: Offer, firsts: Sequence[int]
) -> Split | None:
    """The best of what the parties offer for a node, the active one's (`own`) first; None when none is worth it.

    `firsts`: the number among all features that each party's own begin with.
    """
    choice = best_split(rules, leaf, Options.join([offer.options for offer in offers]))
    if choice is None:
        return None
    starts = np.cumsum([0, *(len(offer.sums) for offer in offers)])
    owner = int(np.searchsorted(starts, choice.option, side="right")) - 1
    place, offer = choice.option - int(starts[owner]), offers[owner]
    return Split(
        node=node,
        owner=owner,
        option=offer.start + place,
        feature=int(offer.options.feature[place]) - firsts[owner],
        bin=own.cut(place, choice.default_left) if owner == 0 else 0,
        choice=choice,
        sums=offer.left(place, choice),
    )


def own_sums(binned: Binned, offer: Offer, rows: Integers, columns: Integers, values: Integers) -> Integers:
    """[c, 2] sums of `values` [n, 2] left of each split on offer, missing values not counted."""
    starts = binned.starts(columns)[:-1]
    found = []
    for value in values.T:
        running = np.cumsum(binned.sums(rows, columns, value.astype(np.float64)))  # exact below 2**53
        before = np.concatenate([[0.0], running])[starts]
        found.append((running[starts[offer.column] + offer.bin] - before[offer.column]).astype(np.int64))
    return np.column_stack(found)


def check_sums(member: str, counts: Integers, sums: Integers, total: Integers) -> None:
    """h is positive: sums of it rise from split to split of a feature, and stay below the node's. UnexpectedMessage."""
    h = sums[:, 1]
    falls = np.diff(h) < 0
    ends = np.cumsum(counts)[:-1] - 1
    falls[ends[(ends >= 0) & (ends < len(falls))]] = False  # another feature begins
    if falls.any() or (h < 0).any() or (h > total[1]).any():
        raise UnexpectedMessage(f"{member} sent sums that no rows' gradients have", member=member)
