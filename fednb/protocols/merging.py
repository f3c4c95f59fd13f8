"""Merging of neighbouring cells by libraries, from the counts of anonymous cells: cell 0, 1, 2 ... stand for values.

Each takes rows and positives [cells] and gives the group of each cell [cells], from 0 in the order of the cells, with
`least` rows or more in a group and at most `most` groups. A group may still have one class only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

Integers = npt.NDArray[np.int64]
SECONDS = 10  # that optbinning may search for one feature


def tree(rows: Integers, positives: Integers, *, least: int, most: int) -> Integers:
    """The leaves of scikit-learn's decision tree (entropy), grown best first."""
    from sklearn.tree import DecisionTreeClassifier

    if len(rows) == 1 or most == 1:
        return np.zeros(len(rows), dtype=np.int64)
    cells = np.arange(len(rows), dtype=np.float64)[:, None]
    grown = DecisionTreeClassifier(
        criterion="entropy",
        max_leaf_nodes=most,
        min_weight_fraction_leaf=min(0.5, least / float(rows.sum())),
        random_state=0,
    ).fit(
        np.vstack([cells, cells]),
        np.repeat([1, 0], len(rows)),
        sample_weight=np.concatenate([positives, rows - positives]),
    )
    return _numbered(grown.apply(cells))


def optbinning(rows: Integers, positives: Integers, *, least: int, most: int) -> Integers:
    """`OptimalBinning` of optbinning (Navas-Palencia 2020), with the trend that it finds best."""
    try:
        from optbinning import OptimalBinning
    except ImportError:
        raise DataError(
            "merge='optbinning' needs the package optbinning at the party that holds the label: pip install "
            "'fednb[optbinning]' there, or use another way to merge."
        ) from None
    cells = np.arange(len(rows))
    if len(rows) == 1:
        return np.zeros(1, dtype=np.int64)
    x = np.concatenate([np.repeat(cells, positives), np.repeat(cells, rows - positives)]).astype(np.float64)
    y = np.repeat([1, 0], [int(positives.sum()), int((rows - positives).sum())])
    found = OptimalBinning(
        dtype="numerical",
        user_splits=cells[1:] - 0.5,
        monotonic_trend="auto",
        max_n_bins=most,
        min_bin_size=min(0.5, least / float(rows.sum())),
        time_limit=SECONDS,
    ).fit(x, y)
    return _numbered(np.searchsorted(np.asarray(found.splits, dtype=np.float64), cells))


def _numbered(groups: npt.NDArray[np.integer]) -> Integers:
    """The same groups, numbered from 0 as they come."""
    return np.concatenate([[0], np.cumsum(np.diff(groups) != 0)]).astype(np.int64)


WAYS: Mapping[str, Callable[..., Integers]] = {"tree": tree, "optbinning": optbinning}
