"""Correlations across parties: those of the joined columns, and nobody sees a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import correlation, dealt
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.collinearity import MOST_VIF, inflation, selected
from fednb.protocols.correlation import CorrelationParams
from fednb.protocols.outermost import held_in
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

ROWS = 500


class Taped:
    def __init__(self, world: World, link: Link) -> None:
        self.me, self.cast, self.recv = link.me, link.cast, link.recv
        self._world, self._link = world, link

    def send(self, to: str, message: Message) -> None:
        message = self._world.alter(self.me, to, message)
        self._world.sent.append((self.me, to, message))
        self._link.send(to, message)


class World:
    """bank, agency, telco and a coordinator; the agency's columns go with the bank's."""

    def __init__(self, parties: int = 2, rows: int = ROWS, **params: Any) -> None:
        rng = np.random.default_rng(2)
        self.members = ["bank", "agency", "telco"][:parties]
        common = rng.normal(size=(rows, 3))
        self.X = {member: 50 + 9 * (common + rng.normal(size=(rows, 3))) for member in self.members}
        self.names: dict[str, tuple[str, ...]] = {m: (f"{m}_0", f"{m}_1", f"{m}_2") for m in self.members}
        self.levels: dict[str, Mapping[str, Any]] = {}
        self.part: dict[str, Mapping[str, Any]] = {}
        self.params = CorrelationParams(**params)
        self.sent: list[tuple[str, str, Message]] = []
        self.alter: Callable[[str, str, Message], Message] = lambda me, to, message: message

    def play(self, run: str = "run") -> dict[str, Outcome]:
        def role(member: str) -> Callable[[Link], Outcome]:
            function, data = correlation.coordinator, Dataset()
            if member != "coordinator":
                function = correlation.party
                part, levels = self.part.get(member, {}), self.levels.get(member, {})
                data = Dataset(X=self.X[member], columns=self.names[member], unfit=levels, part=part)
            return lambda link: function(Taped(self, link), data, self.params, RunContext(name=run))

        cast = {"party": tuple(self.members), "coordinator": ("coordinator",)}
        return play({member: role(member) for member in [*self.members, "coordinator"]}, cast, timeout=60)

    def expected(self) -> np.ndarray:
        """Of the joined table, with extremes held in and missing values at the mean."""
        joined = np.hstack([self.X[member] for member in self.members])
        columns = []
        for x in joined.T:
            there = ~np.isnan(x)
            z = np.full(len(x), held_in(x[there]).mean())
            z[there] = held_in(x[there])
            columns.append(z)
        return np.corrcoef(np.array(columns))


@pytest.mark.parametrize("parties", [1, 2, 3])
def test_correlations_and_vif_are_those_of_the_joined_table(parties: int) -> None:
    world = World(parties)
    world.X["bank"][::7, 1] = np.nan
    out = world.play()
    said, truth = out["coordinator"].public, world.expected()
    assert said["columns"] == [(m, name) for m in world.members for name in world.names[m]]
    assert np.array(said["r"]) == pytest.approx(truth, abs=0.005 + 1e-6)
    assert np.array(said["vif"]) == pytest.approx(np.diag(np.linalg.inv(truth)), rel=0.051)
    assert (said["rows"], out["bank"].public) == (ROWS, {"left_out": {}, "filled": ["bank_1"]})


def test_plain_pearson_is_near_where_there_are_no_extremes() -> None:
    world = World(2, 4_000)
    plain = np.corrcoef(np.hstack([world.X[m] for m in world.members]).T)
    assert np.array(world.play()["coordinator"].public["r"]) == pytest.approx(plain, abs=0.01)


def test_rows_in_several_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = World(3).play()["coordinator"].public
    monkeypatch.setattr("fednb.protocols.rows.ROWS_AT_ONCE", 77)
    world = World(3)
    assert world.play()["coordinator"].public == whole
    hidden = [m for s, r, m in world.sent if (s, r) == ("bank", "telco") and isinstance(m, correlation.Hidden)]
    assert len(hidden) == 7


def test_these_messages_go_around_and_no_others() -> None:
    world = World(3)
    world.play()
    kinds: dict[tuple[str, str], list[str]] = {}
    for sender, receiver, message in world.sent:
        kinds.setdefault((sender, receiver), []).append(type(message).__name__)
    assert kinds == {
        **{(m, "coordinator"): ["Shape", "Own", "Shares"] for m in world.members},
        ("coordinator", "bank"): ["Dealt"],
        ("coordinator", "agency"): ["Dealt", "Correction"],
        ("coordinator", "telco"): ["Dealt", "Correction", "Correction"],
        **{(a, b): ["Pair", "Hidden"] for a, b in [("bank", "agency"), ("bank", "telco"), ("agency", "telco")]},
        **{(b, a): ["Hidden"] for a, b in [("bank", "agency"), ("bank", "telco"), ("agency", "telco")]},
    }


def uniform(numbers: np.ndarray) -> bool:
    """Whether the leading bytes of integers look drawn at random: columns as they are would lie in two of 16 cells."""
    counts = np.bincount((numbers.ravel() >> np.uint64(60)).astype(np.int64), minlength=16)
    expected = counts.sum() / 16
    return bool(((counts - expected) ** 2 / expected).sum() < 60)  # chi-square with 15 degrees of freedom


def test_what_a_party_and_the_dealer_see_is_uniform_and_new_in_each_run() -> None:
    world = World(2, 20_000)
    world.play("first")
    world.play("second")
    hidden = [m.numbers for s, r, m in world.sent if isinstance(m, correlation.Hidden) and s == "bank"]
    assert len(hidden) == 2 and all(uniform(numbers) for numbers in hidden)
    assert uniform(hidden[0] - hidden[1]), "a difference of two runs says as little"
    assert not uniform(dealt.encode((world.X["bank"] - 50) / 13)), "or the check could not fail"
    shares = [m.numbers for _, _, m in world.sent if isinstance(m, correlation.Shares)]
    assert all((share > 2**56).any() for share in shares), "a share alone is no sum"


def test_the_dealer_cannot_take_its_own_numbers_off_a_share() -> None:
    """Without the masks that the parties share it would get sums of the bank's columns, weighed at random."""
    world, dealer = World(2), {}

    def alter(me: str, to: str, message: Message) -> Message:
        if isinstance(message, correlation.Dealt):
            dealer[to] = message.seed
        return message

    world.alter = alter
    world.play("run")
    share = next(m.numbers for s, _, m in world.sent if s == "bank" and isinstance(m, correlation.Shares))
    X = {}
    for member in world.members:
        held = np.apply_along_axis(held_in, 0, world.X[member])
        X[member] = dealt.encode((held - held.mean(axis=0)) / held.std(axis=0))
    R = {m: dealt.stream(dealer[m], "run", "R", 0, shape=(ROWS, 3)) for m in world.members}
    t = dealt.stream(dealer["bank"], "run", "t", "agency", shape=(3, 3))
    open_share = dealt.product(R["bank"], X["agency"] - R["agency"]) + t
    assert not (share == open_share.ravel()).any()


def test_a_seed_that_is_dealt_twice_gives_other_numbers_in_another_run() -> None:
    seed = bytes(32)
    assert not (dealt.stream(seed, "a", "R", 0, shape=(9,)) == dealt.stream(seed, "b", "R", 0, shape=(9,))).any()
    assert (dealt.stream(seed, "a", "R", 0, shape=(9,)) == dealt.stream(seed, "a", "R", 0, shape=(9,))).all()


def test_columns_that_cannot_be_used_are_left_out_and_named() -> None:
    world = World()
    world.X["agency"][:, 0] = 4.0
    world.X["agency"][:, 1] = np.where(np.arange(ROWS) < 39, np.arange(ROWS), np.nan)
    world.X["agency"][:, 2] = np.where(np.arange(ROWS) == 3, 1e9, 0.0)
    world.levels["agency"] = {"town": ("text", np.zeros(ROWS, np.int64))}
    out = world.play()
    assert out["agency"].public["left_out"] == {
        "town": "it is text",
        "agency_0": "all rows, or all but a few, have the same value",
        "agency_1": "fewer than 40 rows have a value",
        "agency_2": "all rows, or all but a few, have the same value",
    }
    assert [m for m, _ in out["coordinator"].public["columns"]] == ["bank"] * 3
    assert np.isfinite(out["coordinator"].public["r"]).all()


def test_few_rows_or_other_rows_are_refused() -> None:
    with pytest.raises(DataError, match="fewer than 100 rows"):
        World(rows=99).play()
    world = World()
    world.X["agency"] = world.X["agency"][:400]
    with pytest.raises(DataError, match="bank 500, agency 400"):
        world.play()


@pytest.mark.parametrize(
    ("sender", "kind", "change", "message"),
    [
        ("agency", correlation.Hidden, lambda m: correlation.Hidden(m.numbers[:-1]), "agency sent columns for"),
        ("agency", correlation.Hidden, lambda m: correlation.Hidden(m.numbers.astype(float)), "agency sent columns"),
        ("agency", correlation.Hidden, lambda m: correlation.Hidden(np.array(3, np.uint64)), "agency sent columns"),
        ("agency", correlation.Shares, lambda m: correlation.Shares(m.numbers[:-1]), "agency sent 8 sums, not 9"),
        ("agency", correlation.Shares, lambda m: correlation.Shares(m.numbers + np.uint64(7)), ""),
        ("agency", correlation.Shares, lambda m: correlation.Shares(m.numbers * np.uint64(7)), "make no correlations"),
        ("bank", correlation.Own, lambda m: correlation.Own(m.r * np.nan), "bank sent correlations that cannot"),
        ("bank", correlation.Own, lambda m: correlation.Own(m.r * 2), "make no correlations"),
        ("coordinator", correlation.Dealt, lambda m: correlation.Dealt(b"short"), "a seed of 5 bytes"),
        ("bank", correlation.Pair, lambda m: correlation.Pair(b""), "a seed of 0 bytes"),
        ("coordinator", correlation.Correction, lambda m: correlation.Correction(m.numbers[:1]), "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused_and_its_sender_named(
    sender: str, kind: type[Message], change: Callable[[Any], Message], message: str
) -> None:
    world = World()
    world.alter = lambda me, to, said: change(said) if me == sender and isinstance(said, kind) else said
    if not message:
        world.play()  # what is off by a rounding error is none
        return
    with pytest.raises(UnexpectedMessage, match=message):
        world.play()


# ------------------------------------------------------------ what to leave out


def test_vif_is_that_of_a_regression_on_the_others() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 4))
    X[:, 3] = X[:, 0] + X[:, 1] + 0.3 * rng.normal(size=300)
    r = np.corrcoef(X.T)
    for j, vif in enumerate(inflation(r)):
        others = np.column_stack([np.delete(X, j, axis=1), np.ones(300)])
        left = X[:, j] - others @ np.linalg.lstsq(others, X[:, j], rcond=None)[0]
        assert vif == pytest.approx(X[:, j].var() / left.var(), rel=1e-6)


def test_a_column_that_is_a_sum_of_others_has_the_largest_vif_that_is_said() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4))
    X[:, 3] = X[:, 0] - X[:, 1]
    vif = inflation(np.corrcoef(X.T))
    assert vif[[0, 1, 3]].tolist() == [MOST_VIF] * 3 and vif[2] < 1.1
    assert inflation(np.ones((2, 2))).tolist() == [MOST_VIF] * 2


def test_of_two_that_go_together_the_later_goes_and_then_what_follows_from_the_rest() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 5))
    X[:, 1] = X[:, 0] + 0.2 * rng.normal(size=500)
    X[:, 4] = X[:, 0] + X[:, 2] + X[:, 3] + 0.2 * rng.normal(size=500)
    r = np.corrcoef(X.T)
    first, second = selected(r, [1, 0, 2, 3, 4], 0.8, 5.0)
    assert (first.column, first.near, round(first.value, 2)) == (0, 1, round(r[0, 1], 2))
    assert (second.column, second.near) == (4, -1) and second.value > 5
    assert selected(r, [1, 0, 2, 3, 4], None, None) == selected(r, [], 0.3, 1.1) == []
    twins = np.ones((2, 2))
    assert [drop.column for drop in selected(twins, [1, 0], None, 10.0)] == [0], "of equal ones the less useful"


def test_a_target_is_no_part_of_the_vif() -> None:
    world = World(target=("bank", "bank_1"))
    said = world.play()["coordinator"].public
    rest = np.delete(np.delete(world.expected(), 1, 0), 1, 1)
    assert said["vif"][1] is None
    assert [v for v in said["vif"] if v is not None] == pytest.approx(np.diag(np.linalg.inv(rest)), rel=0.051)
