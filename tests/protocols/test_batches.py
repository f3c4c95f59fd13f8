"""Which rows an iteration takes: all of them in turn, spread over the frame, the same at every member."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fednb.federation.spill import FileMatrix
from fednb.protocols.batches import Batches, choose


@pytest.mark.parametrize(("rows", "size", "count"), [(1000, 100, 10), (1003, 250, 4), (199, 100, 1), (50, None, 1)])
def test_batches_in_turn_are_all_rows_once(rows: int, size: int | None, count: int) -> None:
    batches = Batches(rows, size, "run")
    assert batches.count == count
    taken = [np.arange(rows)[batches.rows(k)] for k in range(count)]
    assert np.array_equal(np.sort(np.concatenate(taken)), np.arange(rows))
    assert [len(some) for some in taken] == [batches.size(k) for k in range(count)]
    assert min(map(len, taken)) >= batches.smallest
    assert np.array_equal(np.arange(rows)[batches.rows(count)], taken[0]), "after the last comes the first"


def test_every_stretch_of_the_frame_is_in_every_batch() -> None:
    batches = Batches(10_000, 1000, "run")
    for k in range(10):
        share = np.histogram(batches.rows(k), bins=20, range=(0, 10_000))[0]
        assert share.min() >= 49 and share.max() <= 51
    steps = np.diff(batches.rows(0))
    assert len(np.unique(steps)) > 5, "no fixed distance: ids may come in a rhythm"


def test_the_run_decides_which_rows_and_every_version_of_numpy_agrees() -> None:
    assert Batches(20, 5, "a").rows(0).tolist() == Batches(20, 5, "a").rows(0).tolist() == KNOWN
    assert Batches(200, 50, "a").rows(0).tolist() != Batches(200, 50, "b").rows(0).tolist()


KNOWN = [2, 4, 9, 14, 16]


def test_chosen_rows_are_the_same_from_memory_and_from_a_file(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(300, 3))
    kept = FileMatrix(tmp_path, X.shape)
    for j in range(3):
        kept[:, j] = X[:, j]
    rows = Batches(300, 100, "run").rows(1)
    assert not isinstance(rows, slice)
    for part in (slice(0, 100), slice(10, 20), slice(0, 0)):
        assert np.array_equal(choose(X, rows)[part], X[rows[part]])
        assert np.array_equal(choose(kept, rows)[part], X[rows[part]])
    assert choose(X, slice(0, 300)) is X
