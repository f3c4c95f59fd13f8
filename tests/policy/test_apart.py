"""Sets of rows of which figures leave: no combination of them comes down to a few rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from fednb.errors import ConfigError
from fednb.policy.apart import SetLedger

ROWS = np.arange(1000, dtype=np.uint64)


def test_the_same_rows_but_one_are_found() -> None:
    sets = SetLedger()
    assert sets.take("loans", ROWS, 10) == 0
    assert sets.take("loans", ROWS[1:], 10) == 1
    assert sets.take("loans", np.append(ROWS, ROWS.max() + 1), 10) == 1
    assert sets.take("loans", ROWS[:-9], 10) == 9
    assert sets.take("loans", ROWS[:-10], 10) == 0
    assert sets.take("loans", ROWS[::-1], 10) == 0, "the same set in another order"
    assert sets.take("other", ROWS[1:], 10) == 0


def test_of_three_sets_that_come_down_to_one_row_the_last_is_refused() -> None:
    """No two of them differ by fewer than a hundred rows; what all three leave over is one."""
    sets = SetLedger()
    half, quarter = ROWS[:500], ROWS[500:750]
    target = ROWS[750:751]
    assert sets.take("loans", np.concatenate([half, target]), 10) == 0
    assert sets.take("loans", np.concatenate([quarter, target]), 10) == 1


def test_a_small_set_is_refused_and_a_refused_set_leaves_no_trace() -> None:
    sets = SetLedger()
    assert sets.take("loans", ROWS[:9], 10) == 9
    assert sets.take("loans", ROWS, 10) == 0, "else the nine would cut it"


def test_several_sets_at_once_are_noted_together_or_not_at_all() -> None:
    sets = SetLedger()
    at_300, at_305, at_310 = (np.asarray(edge <= ROWS, dtype=np.int64) for edge in (300, 305, 310))
    assert sets.take("age", ROWS, 10, sets=at_300) == 0
    assert sets.take("age", ROWS, 10, sets=at_305) == 5, "five rows lie between"
    assert sets.take("age", ROWS[::-1], 10, sets=at_300[::-1]) == 0, "each row keeps its set in another order"
    assert sets.take("age", ROWS, 10, sets=at_310) == 0, "what was refused left no trace"
    assert sets.take("age", ROWS[:500], 10, sets=at_300[:500]) == 0
    assert sets.take("age", ROWS[:305], 10, sets=at_300[:305]) == 5


def test_folds_and_a_split_are_let_through() -> None:
    sets, rng = SetLedger(), np.random.default_rng(0)
    order = rng.permutation(ROWS)
    for fold in np.array_split(order, 5):
        assert sets.take("loans", fold, 10) == 0
        assert sets.take("loans", np.setdiff1d(ROWS, fold), 10) == 0
    assert sets.take("loans", ROWS, 10) == 0


def test_whatever_sets_are_asked_for_no_sum_of_sums_is_about_fewer_than_ten_rows() -> None:
    """Searched exhaustively: the smallest number of rows that any combination of the released sets tells apart."""
    rng = np.random.default_rng(1)
    sets, released = SetLedger(), list[np.ndarray]()
    for _ in range(60):
        size = int(rng.integers(5, 400))
        wanted = rng.choice(ROWS[:400], size, replace=False)
        if sets.take("loans", wanted, 10) == 0:
            released.append(np.isin(ROWS[:400], wanted))
    assert 2 <= len(released) < 60
    patterns = [tuple(row) for row in np.array(released).T]
    cells = [sum(1 for p in patterns if p == each) for each in set(patterns) if any(each)]
    assert min(cells) >= 10
    for a, b in itertools.combinations(released, 2):
        assert (a & ~b).sum() in (0, *range(10, 401)) and (a ^ b).sum() in (0, *range(10, 401))


def test_an_owners_own_set_is_noted_whatever_it_leaves() -> None:
    sets = SetLedger()
    assert sets.take("loans", ROWS, 10) == 0
    assert sets.take("loans", ROWS[1:], 10, always=True) == 0
    assert sets.take("loans", ROWS[2:], 10) == 1


def test_sets_outlive_the_process_and_are_for_the_owner_alone(tmp_path: Path) -> None:
    assert SetLedger(tmp_path / "sets").take("loans", ROWS, 10) == 0
    (file,) = (tmp_path / "sets").iterdir()
    assert file.stat().st_mode & 0o077 == 0 and (tmp_path / "sets").stat().st_mode & 0o077 == 0
    again = SetLedger(tmp_path / "sets")
    assert again.take("loans", ROWS[1:], 10) == 1
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match="is damaged: restore it"):
        SetLedger(tmp_path / "sets").take("loans", ROWS[1:], 10)
