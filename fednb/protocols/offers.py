"""What a party offers for a node, with its sums: alike whether these were decrypted or added up in the clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fednb.errors import UnexpectedMessage
from fednb.protocols.binned import MISSING_LEFT, MISSING_RIGHT, NUMBER, ONEHOT, PARTITION, Binned, Offer
from fednb.protocols.parting import Cut
from fednb.protocols.trees import Choice, Floats, Integers, Node, Options, Rules, Truths, best_split

CATEGORIES = (ONEHOT, PARTITION)


@dataclass(frozen=True)
class Features:
    """What is known of the features looked at of one party, [f] each."""

    numbers: Integers  # among all features of all parties
    signs: Integers  # monotone constraints
    kinds: Integers  # NUMBER, ONEHOT, PARTITION or MIXED


@dataclass(frozen=True)
class Priced:
    """One party's splits of one node, as options of equal standing."""

    options: Options
    entry: Integers  # [options] place among what the party offers for this node
    lefts: dict[int, Truths]  # of an option on categories: which of its feature's go left
    sums: Integers  # [options, 2] of g and h, left of each, in units
    absent: Integers  # [options, 2] of the rows without a value there
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
        features: Features,
        rules: Rules,
        start: int = 0,
    ) -> Priced:
        """`sums` [c, 2] as offered, in units; `total` [2] of the node; `counts`, `missing` [f] and `allowed` [c]."""
        ends = np.cumsum(counts)
        absent = np.zeros((len(counts), 2), dtype=np.int64)
        sets_of = np.isin(features.kinds, CATEGORIES)
        parted = missing & (counts > 0) & ~sets_of
        absent[parted] = total - sums[ends[parted] - 1]
        column = np.repeat(np.arange(len(counts)), counts)
        entry = np.flatnonzero(~sets_of[column])
        place = entry - (ends - counts)[column[entry]]
        parts = [_Part(column[entry], entry, place, sums[entry], absent[column[entry]], allowed[entry])]
        lefts: dict[int, Truths] = {}
        for at in np.flatnonzero(sets_of & (counts > 0)).tolist():
            own = slice(int(ends[at] - counts[at]), int(ends[at]))
            weights = rules.weight(*(sums[own] * units).T)
            sets = _one_by_one(len(weights)) if features.kinds[at] == ONEHOT else _ordered(weights)
            first = sum(len(part.entry) for part in parts)
            lefts |= {first + k: left for k, left in enumerate(sets)}
            parts.append(_Part.of_sets(at, own.start, sets, sums[own], total, allowed[own], features.kinds[at]))
        one = _Part.join(parts)
        left, aside = one.sums * units, one.absent * units
        options = Options(
            feature=features.numbers[one.column],
            place=one.place,
            G=left[:, 0],
            H=left[:, 1],
            missing_G=aside[:, 0],
            missing_H=aside[:, 1],
            right=(one.allowed & MISSING_RIGHT) > 0,
            left=(one.allowed & MISSING_LEFT) > 0,
            sign=features.signs[one.column],
        )
        return cls(options, one.entry, lefts, one.sums, one.absent, start)

    def left(self, option: int, choice: Choice) -> list[int]:
        """Sums of g and h of all rows that a split sends left, missing values among them where they go there."""
        sums = self.sums[option] + (self.absent[option] if choice.default_left else 0)
        return [int(value) for value in sums]


@dataclass(frozen=True)
class _Part:
    """Options of some features."""

    column: Integers
    entry: Integers
    place: Integers
    sums: Integers
    absent: Integers
    allowed: Integers

    @classmethod
    def of_sets(
        cls, at: int, first: int, sets: Sequence[Truths], sums: Integers, total: Integers, allowed: Integers, kind: int
    ) -> _Part:
        """Sets of one feature's categories; of the k-th of "onehot", the k-th category goes right."""
        count = len(sets)
        chosen = np.arange(count) if kind == ONEHOT else np.zeros(count, dtype=np.int64)
        left = np.array([sums[each].sum(axis=0) for each in sets], dtype=np.int64).reshape(-1, 2)
        # of equal gains XGBoost takes the first category; of sets, the one with the fewest to the right
        place = np.arange(count)[::-1] if kind == ONEHOT else np.arange(count)
        aside = np.tile(total - sums.sum(axis=0), (count, 1))
        return cls(np.full(count, at), first + chosen, place, left, aside, allowed[chosen])

    @classmethod
    def join(cls, parts: Sequence[_Part]) -> _Part:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def _one_by_one(count: int) -> list[Truths]:
    return list(~np.eye(count, dtype=np.bool_))


def _ordered(weights: Floats) -> list[Truths]:
    """The first, the first two and so on, of the largest weights: the best of all sets is among them (Fisher 1958)."""
    order = np.argsort(weights, kind="stable")[::-1]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return [rank <= k for k in range(len(order) - 1)]


@dataclass(frozen=True)
class Split:
    """A node's best split."""

    node: int
    owner: int  # 0: the active party; p: the p-th passive one
    option: int  # place among all that its owner offers at this level
    feature: int  # column, or the number that a passive party gave it
    left: Truths | None  # of categories: which of those on offer go left
    cut: Cut | None  # one's own
    choice: Choice
    sums: list[int]  # g and h of the left child, in units


def choose(
    rules: Rules,
    node: int,
    leaf: Node,
    offers: Sequence[Priced],
    own: Offer,
    columns: Integers,
    firsts: Sequence[int],
) -> Split | None:
    """The best of what the parties offer for a node, the active one's (`own`, of `columns`) first.

    None when no split is worth it. `firsts`: the number among all features that each party's own begin with.
    """
    choice = best_split(rules, leaf, Options.join([offer.options for offer in offers]))
    if choice is None:
        return None
    starts = np.cumsum([0, *(len(offer.sums) for offer in offers)])
    owner = int(np.searchsorted(starts, choice.option, side="right")) - 1
    option, offer = choice.option - int(starts[owner]), offers[owner]
    entry, left = int(offer.entry[option]), offer.lefts.get(option)
    return Split(
        node=node,
        owner=owner,
        option=offer.start + entry,
        feature=int(offer.options.feature[option]) - firsts[owner],
        left=left,
        cut=own.cut(entry, columns, choice.default_left, left) if owner == 0 else None,
        choice=choice,
        sums=offer.left(option, choice),
    )


def own_sums(binned: Binned, offer: Offer, rows: Integers, columns: Integers, values: Integers) -> Integers:
    """[c, 2] sums of `values` [n, 2] left of each split on offer, or of each category; missing values not counted."""
    starts = binned.starts(columns)[:-1]
    place, alone = starts[offer.column] + offer.bin, binned.kinds[columns][offer.column] != NUMBER
    found = []
    for value in values.T:
        cells = binned.sums(rows, columns, value.astype(np.float64))  # exact below 2**53
        running = np.cumsum(cells)
        before = np.concatenate([[0.0], running])[starts]
        found.append(np.where(alone, cells[place], running[place] - before[offer.column]).astype(np.int64))
    return np.column_stack(found)


def check_sums(member: str, counts: Integers, sums: Integers, total: Integers, kinds: Integers) -> None:
    """h is positive: sums of it rise from split to split of a number, and stay below the node's. UnexpectedMessage."""
    h = sums[:, 1]
    column = np.repeat(np.arange(len(counts)), counts)
    falls = (np.diff(h) < 0) & (np.diff(column) == 0) & (kinds[column[:-1]] == NUMBER)
    whole = np.bincount(column, weights=np.where(np.isin(kinds[column], CATEGORIES), h.astype(np.float64), 0.0))
    if falls.any() or (h < 0).any() or (h > total[1]).any() or (whole > total[1]).any():
        raise UnexpectedMessage(f"{member} sent sums that no rows' gradients have", member=member)
