"""Weight of evidence and information value of bins, and which neighbouring bins to merge.

    woe = ln( share of all negatives in the bin / share of all positives in the bin )          (Siddiqi 2006, ch. 6)
    iv  = Σ over bins (share of negatives - share of positives) · woe                           in nats

Merging looks at counts only: of all ways to join neighbours it takes the one with the largest information value whose
bins are large enough and, if asked, whose rates of positives rise or fall throughout. That is a dynamic programme over
(first, last) of the newest bin. Others' ways to merge are in `merging`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from fednb.protocols import merging

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Merge = Literal["monotone", "optimal", "tree", "optbinning", "none"]

NEUTRAL = -1  # a bin without evidence: it has one class only, and weighs 0
EACH = 10  # rows of a class
_GAIN = 1e-12  # more bins must be worth it


def woe(rows: Integers, positives: Integers, all_rows: int, all_positives: int) -> Floats:
    """[bins]; 0 where a bin has one class only."""
    negatives, all_negatives = rows - positives, all_rows - all_positives
    both = (positives > 0) & (negatives > 0)
    return np.where(
        both,
        np.log(np.where(both, negatives, 1) / all_negatives) - np.log(np.where(both, positives, 1) / all_positives),
        0.0,
    )


def information(rows: Integers, positives: Integers, all_rows: int, all_positives: int) -> Floats:
    """What each bin adds to the information value; [bins]."""
    share = (rows - positives) / (all_rows - all_positives) - positives / all_positives
    return np.asarray(share * woe(rows, positives, all_rows, all_positives))


def merged(
    rows: Integers,
    positives: Integers,
    all_rows: int,
    all_positives: int,
    *,
    ordered: int,
    merge: Merge,
    least: int,
    most: int,
) -> Integers:
    """The final bin of each cell, numbered from 0; NEUTRAL for cells that can be no bin of their own.

    The first `ordered` cells are neighbours; the others (missing, special values) stay by themselves.
    """
    groups = np.full(len(rows), NEUTRAL, dtype=np.int64)
    if ordered:
        n, e = rows[:ordered], positives[:ordered]
        if merge == "none":
            groups[:ordered] = _both_classes(n, e)
        elif merge in ("tree", "optbinning"):
            joined = merging.WAYS[merge](n, e, least=least, most=most)
            size = int(joined.max()) + 1
            by_group = [np.bincount(joined, weights=x, minlength=size).astype(np.int64) for x in (n, e)]
            again = _both_classes(by_group[0], by_group[1])
            groups[:ordered] = again[joined]
        else:
            rises = (1, -1) if merge == "monotone" else (0,)
            found = [_best(n, e, all_rows, all_positives, rise=rise, least=least, most=most) for rise in rises]
            groups[:ordered] = max(found, key=lambda pair: pair[0])[1]
    following = int(groups.max(initial=NEUTRAL)) + 1
    for cell in range(ordered, len(rows)):
        if 0 < positives[cell] < rows[cell]:
            groups[cell] = following
            following += 1
    return groups


def whole(groups: Integers, rows: Integers) -> Integers:
    """The same bins, but that cells without one are counted with the largest: nothing is left over.

    What is left over could be found by subtraction from all rows, and with it the labels of a few, or of one class.
    """
    if not (groups == NEUTRAL).any():
        return groups
    used = groups[groups != NEUTRAL]
    if not len(used):
        return np.zeros_like(groups)
    largest = int(np.bincount(used, weights=rows[groups != NEUTRAL]).argmax())
    return np.where(groups == NEUTRAL, largest, groups)


def atoms(groups: Integers, rows: Integers, positives: Integers) -> Integers:
    """[cells] which neighbouring cells of a bin may not be parted, numbered from 0.

    Each atom has `EACH` rows of both classes, or is a whole bin. Bins made of atoms can be compared with other bins of
    the same atoms: no difference of them has one class. And that cells are joined does not say that one has.
    """
    found, following = np.zeros(len(groups), dtype=np.int64), 0
    for b in dict.fromkeys(groups.tolist()):
        here = groups == b
        found[here] = np.maximum(_both_classes(rows[here], positives[here], EACH), 0) + following
        following = int(found[here].max()) + 1
    return found


def _both_classes(rows: Integers, positives: Integers, least: int = 1) -> Integers:
    """Neighbours joined, from the first on, until each bin has `least` rows of both classes."""
    groups, current, has = np.zeros(len(rows), dtype=np.int64), 0, [0, 0]
    for cell, (n, e) in enumerate(zip(rows.tolist(), positives.tolist(), strict=True)):
        if min(has) >= least:
            current, has = current + 1, [0, 0]
        groups[cell] = current
        has = [has[0] + e, has[1] + n - e]
    if min(has) < least:
        if current == 0:
            return np.full(len(rows), NEUTRAL, dtype=np.int64)
        groups[groups == current] = current - 1
    return groups


def _best(
    rows: Integers, positives: Integers, all_rows: int, all_positives: int, *, rise: int, least: int, most: int
) -> tuple[float, Integers]:
    """The largest information value and its groups; `rise` is the sign of the trend, 0 for any."""
    count = len(rows)
    n_to, e_to = (np.concatenate([[0], np.cumsum(x)]) for x in (rows, positives))
    n = n_to[None, 1:] - n_to[:-1, None]  # [first, last]
    e = e_to[None, 1:] - e_to[:-1, None]
    fits = (n >= least) & (e > 0) & (n - e > 0) & (np.arange(count)[:, None] <= np.arange(count)[None, :])
    value = np.where(fits, information(np.where(fits, n, 2), np.where(fits, e, 1), all_rows, all_positives), -np.inf)
    rate = np.where(fits, e / np.maximum(n, 1), np.nan)

    total = np.full((count, count), -np.inf)
    total[0] = value[0]
    totals, came_from = [total], [np.full((count, count), -1)]
    for _ in range(1, min(most, count)):
        total, source = np.full((count, count), -np.inf), np.full((count, count), -1)
        for first in range(1, count):
            before = totals[-1][:first, first - 1]
            step = rise * (rate[first, first:][None, :] - rate[:first, first - 1][:, None])
            # rates of what does not fit are NaN, and so is every comparison with them
            allowed = np.where(step >= 0, before[:, None], -np.inf)
            total[first, first:] = allowed.max(axis=0) + value[first, first:]
            source[first, first:] = allowed.argmax(axis=0)
        totals.append(total)
        came_from.append(source)
    bins, best, first = 0, -np.inf, 0
    for number, total in enumerate(totals):
        at = int(total[:, -1].argmax())
        if total[at, -1] > best + (_GAIN if number else 0):
            bins, best, first = number, float(total[at, -1]), at
    if not np.isfinite(best):  # too few rows, or one class only
        one = 0 if 0 < e_to[-1] < n_to[-1] else NEUTRAL
        return -np.inf, np.full(count, one, dtype=np.int64)
    groups, last = np.zeros(count, dtype=np.int64), count - 1
    for number in range(bins, -1, -1):
        groups[first : last + 1] = number
        first, last = int(came_from[number][first, last]), first - 1
    return best, groups
