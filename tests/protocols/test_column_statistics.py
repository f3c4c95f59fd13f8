"""Statistics of columns: right for many rows, and about no single one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednb.errors import DataError
from fednb.protocols import bin_stability
from fednb.protocols import column_statistics as cs
from fednb.protocols.base import Dataset, RunContext
from fednb.protocols.outermost import LEAST, bounds, held_in, varies
from fednb.wire.loopback import play

RNG = np.random.default_rng(5)


def released(levels: dict[str, Any] | None = None, **columns: np.ndarray) -> dict[str, cs.Column]:
    names = tuple(columns)
    X = np.column_stack([columns[name] for name in names]) if names else np.empty((LEAST, 0))
    data = Dataset(X=X, columns=names, unfit=levels or {})
    role = {"bank": lambda link: cs.party(link, data, cs.StatisticsParams(), RunContext())}
    out = play(role, {"party": ("bank",)})["bank"]
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(out.public))
    return {column.name: column for column in msgspec.convert(travelled["columns"], list[cs.Column])}


def test_figures_of_many_rows_are_numpys() -> None:
    x = RNG.normal(40, 12, 20_000)
    said = released(x=np.r_[x, np.full(500, np.nan)])["x"]
    assert (said.kind, said.rows, said.missing) == ("number", 20_500, 500)
    assert said.mean == pytest.approx(x.mean(), abs=0.05) and said.sd == pytest.approx(x.std(), rel=0.01)
    assert said.quantiles == pytest.approx(np.quantile(x, cs.SHARES).tolist(), abs=0.6)
    assert sum(said.counts) == 20_000 and min(said.counts) >= 10 and len(said.edges) == len(said.counts) + 1


@given(st.integers(LEAST, 400), st.integers(0, 10**6), st.sampled_from(["normal", "lognormal", "levels", "spike"]))
def test_a_tenth_of_the_variance_is_the_most_that_one_row_has(n: int, seed: int, shape: str) -> None:
    rng = np.random.default_rng(seed)
    x = {
        "normal": rng.normal(size=n),
        "lognormal": rng.lognormal(0, 4, n),
        "levels": rng.integers(0, 3, n).astype(float),
        "spike": np.where(np.arange(n) == 3, 1e9, rng.normal(size=n)),
    }[shape]
    held = held_in(x)
    if varies(held):
        share = (held - held.mean()) ** 2 / ((held - held.mean()) ** 2).sum()
        assert share.max() <= 0.1 + 1e-9
    low, high = bounds(x)
    assert min((x <= low).sum(), (x >= high).sum()) >= 10
    assert shape != "spike" or not (held > 1e6).any()


def test_one_rows_value_however_large_changes_no_figure() -> None:
    x = RNG.normal(size=300)
    x[7] = 9.0  # the largest
    more = np.where(np.arange(300) == 7, 1e12, x)
    assert released(x=x)["x"] == released(x=more)["x"]


@pytest.mark.parametrize(
    ("column", "kind", "note"),
    [
        (np.full(200, 3.0), "constant", "every value is the same"),
        (np.where(np.arange(200) < 9, 5.0, 3.0), "constant", "all but a few rows"),
        (np.full(200, np.nan), "empty", "every value is missing"),
        (np.where(np.arange(200) < 9, 1.0, np.nan), "empty", "fewer than 10 rows have a value"),
        (np.where(np.arange(200) < 39, np.arange(200.0), np.nan), "few", "fewer than 40 rows have a value"),
    ],
)
def test_a_column_without_figures_says_why(column: np.ndarray, kind: str, note: str) -> None:
    said = released(x=column)["x"]
    assert said.kind == kind and note in said.note
    assert said.mean is None and said.quantiles == [] and said.counts == []


def test_counts_below_ten_are_not_told() -> None:
    x = RNG.normal(size=200)
    x[:9] = np.nan
    some, none = released(x=x)["x"], released(x=np.nan_to_num(x))["x"]
    assert (some.missing, some.some_missing) == (0, True) and (none.missing, none.some_missing) == (0, False)
    x[:10] = np.nan
    assert released(x=x)["x"].missing == 10
    levels = np.r_[np.zeros(100), np.ones(91), np.full(9, 2.0)]
    said = released(x=levels)["x"]
    assert (said.levels, said.others) == (2, False), "nine rows with a third value do not show"
    assert released(x=np.r_[levels[:-1], 3.0, 4.0])["x"].others, "ten rows with rare values do, together"


@pytest.mark.parametrize("kind", ["text", "date", "mixed", "infinite"])
def test_a_column_that_is_no_numbers_is_described_by_its_levels(kind: str) -> None:
    codes = np.r_[np.zeros(20, np.int64), np.ones(20, np.int64), np.full(12, -1)]
    said = released(levels={"x": (kind, codes)})["x"]
    assert (said.kind, said.levels, said.missing, said.others) == (kind, 2, 12, False)
    assert said.note and "share a value" not in said.note


def test_a_column_in_which_no_two_rows_are_alike_is_said_to_look_like_an_id() -> None:
    said = released(levels={"x": ("text", np.arange(60))})["x"]
    assert (said.levels, said.others) == (0, True) and "as in a name or an id" in said.note
    empty = released(levels={"x": ("text", np.full(60, -1))})["x"]
    assert (empty.kind, empty.note) == ("empty", "every value is missing")


def test_few_rows_are_not_described() -> None:
    with pytest.raises(DataError, match="bank has 39 rows in this frame; statistics need at least 40"):
        released(x=np.arange(39.0))


def test_other_rows_can_be_compared_with_those_that_were_described() -> None:
    x = RNG.normal(size=(1000, 2))
    x[:, 1] = np.round(x[:, 1])
    data = Dataset(X=x, columns=("a", "b"))
    part = cs.party(None, data, cs.StatisticsParams(), RunContext()).private  # type: ignore[arg-type]

    def indices(now: np.ndarray) -> dict[str, float]:
        role = {
            "bank": lambda link: bin_stability.party(
                link, Dataset(X=now, columns=("a", "b"), part=part), bin_stability.StabilityParams(), RunContext()
            )
        }
        return play(role, {"party": ("bank",)})["bank"].public["psi"]

    assert max(indices(x).values()) == 0.0
    assert indices(x + [1.0, 0.0])["a"] > 0.25 > 0.1 > indices(x + [1.0, 0.0])["b"]
    gone = np.where(np.arange(1000)[:, None] < 300, [np.nan, 0.0], x)
    assert indices(gone)["a"] > 0.25, "missing values are a bin of their own"
