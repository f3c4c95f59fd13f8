"""Stability by a time that one party knows: the index of the joined table, and the others do not learn the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import period_stability as ps
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.bin_stability import index
from fednb.protocols.cuts import fit_cuts
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

ROWS = 600


class World:
    """bank (which knows the year), agency, telco and a coordinator."""

    def __init__(self, passives: int = 1) -> None:
        rng = np.random.default_rng(1)
        self.members = ["bank", "agency", "telco"][: 1 + passives]
        self.year = 2020.0 + rng.integers(0, 5, ROWS)
        self.X = {member: rng.normal(size=(ROWS, 4)) for member in self.members}
        new = self.year >= 2023
        agency = self.X["agency"]
        agency[:, 0] += 1.5 * new
        agency[~new, 1] = np.nan  # this column came with the new system
        agency[:, 2] = np.where(new, 5.0, -5.0)  # and this one has nothing in common with what it was
        agency[:9, 3] = np.nan  # too few to be a cell
        self.since = 2023.0
        self.sent: list[tuple[str, str, Message]] = []
        self.noted: list[tuple[str, np.ndarray]] = []
        self.alter: Callable[[str, Message], Message] = lambda me, message: message

    def send(self, link: Link) -> Callable[[str, Message], None]:
        def send(to: str, message: Message) -> None:
            message = self.alter(link.me, message)
            self.sent.append((link.me, to, message))
            link.send(to, message)

        return send

    def play(self) -> dict[str, Outcome]:
        functions = {"bank": ps.active, "coordinator": ps.coordinator}

        def role(member: str) -> Callable[[Link], Outcome]:
            def run(link: Link) -> Outcome:
                taped: Any = type("Taped", (), {"me": link.me, "cast": link.cast, "recv": link.recv})()
                taped.send = self.send(link)
                X = self.X.get(member)
                names = tuple(f"{member}_{j}" for j in range(0 if X is None else X.shape[1]))
                y, label = (self.year, "year") if member == "bank" else (None, None)
                data = Dataset() if X is None else Dataset(X=X, columns=names, y=y, label=label)
                context = RunContext(name="run", apart=lambda column, sets: self.noted.append((column, sets)))
                return functions.get(member, ps.passive)(taped, data, ps.PeriodParams(since=self.since), context)

            return run

        cast = {"active": ("bank",), "passive": tuple(self.members[1:]), "coordinator": ("coordinator",)}
        return play({member: role(member) for member in [*self.members, "coordinator"]}, cast, timeout=60)

    def expected(self, member: str, j: int) -> float:
        x, new = self.X[member][:, j], self.year >= self.since
        cuts = fit_cuts(x, bins=10, method="quantile", least=10)
        then, now = (np.bincount(cuts.cells(x[which]), minlength=cuts.size) for which in (~new, new))
        large = then + now >= 10
        return round(index(then[large], now[large]), 2)


def said(out: dict[str, Outcome]) -> dict[str, float]:
    """The index of each feature, as an analyst puts it together."""
    public = msgspec.msgpack.decode(msgspec.msgpack.encode(out["bank"].public))
    found = dict(public["psi"])
    for member, values in public["numbered"].items():
        found |= dict(zip(out[member].public["order"], values, strict=True))
    return found


@pytest.mark.parametrize("passives", [1, 2])
def test_indices_are_those_of_the_joined_table(passives: int) -> None:
    world = World(passives)
    out = world.play()
    found = said(out)
    assert found == {f"{m}_{j}": world.expected(m, j) for m in world.members for j in range(4)}
    assert min(found["agency_0"], found["agency_1"], found["agency_2"]) > 0.25 > found["agency_3"]
    now = int((world.year >= 2023).sum())
    assert (out["bank"].public["now"], out["bank"].public["then"]) == (now, ROWS - now)


def test_rows_in_several_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = said(World().play())
    monkeypatch.setattr("fednb.protocols.rows.ROWS_AT_ONCE", 77)
    assert said(World().play()) == whole


def test_these_messages_go_around_and_passive_parties_get_nothing_that_can_be_read() -> None:
    world = World(2)
    world.play()
    kinds: dict[tuple[str, str], list[str]] = {}
    for sender, receiver, message in world.sent:
        kinds.setdefault((sender, receiver), []).append(type(message).__name__)
    for passive in ("agency", "telco"):
        assert kinds.pop((passive, "coordinator")) == ["Size"]
        assert kinds.pop(("coordinator", passive)) == ["Dealt", "Correction"]
        assert kinds.pop(("bank", passive)) == ["Pair", "Hidden"]
        assert kinds.pop((passive, "bank")) == ["Hidden", "Cells"]
    assert kinds == {("bank", "coordinator"): ["Size"], ("coordinator", "bank"): ["Dealt"]}
    (time,) = {m.numbers.tobytes() for s, r, m in world.sent if s == "bank" and isinstance(m, ps.Hidden)}
    numbers = np.frombuffer(time, dtype=np.uint64)
    assert len(np.unique(numbers)) == ROWS and (numbers > 2**32).mean() > 0.99
    names = [m for _, r, m in world.sent if r == "bank" and b"agency_" in msgspec.msgpack.encode(repr(m))]
    assert not names, "neither names nor an order by position reach the active party"


def test_whoever_hands_in_more_than_zero_and_one_learns_no_more_than_a_count() -> None:
    world = World()
    world.play()
    (cells,) = [m for _, _, m in world.sent if isinstance(m, ps.Cells)]
    assert int(cells.share.max()) < 2 ** ROWS.bit_length() and cells.rows.min() >= 10


def test_the_rows_of_either_time_are_noted_before_anything_is_told() -> None:
    world = World()
    world.play()
    ((column, sets),) = world.noted
    assert column == "year" and (sets == (world.year >= 2023)).all()


@pytest.mark.parametrize("since", [2019.0, 2025.0, 3000.0, float("nan")])
def test_a_time_that_leaves_too_few_rows_on_a_side_is_refused(since: float) -> None:
    world = World()
    world.since = since
    with pytest.raises(DataError, match="bank has fewer than 100 rows on one side of 'year'"):
        world.play()


def changed(**parts: Callable[[Any], Any]) -> Callable[[str, Message], Message]:
    def alter(me: str, message: Message) -> Message:
        if not isinstance(message, ps.Cells):
            return message
        return msgspec.structs.replace(message, **{name: f(getattr(message, name)) for name, f in parts.items()})

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (changed(rows=lambda a: a[:-1]), "agency sent cells that cannot be read"),
        (changed(rows=lambda a: a.astype(float)), "agency sent cells that cannot be read"),
        (changed(share=lambda a: a[:-1]), "agency sent cells that cannot be read"),
        (changed(sizes=lambda a: -a), "agency sent cells that cannot be read"),
        (changed(sizes=lambda a: a[:-1]), "fewer than 10 rows, or more rows"),
        (changed(rows=lambda a: np.full_like(a, 9)), "fewer than 10 rows"),
        (changed(rows=lambda a: a + ROWS), "more rows than there are"),
        (changed(share=lambda a: a + np.uint64(500)), "agency sent shares that count no rows"),
    ],
)
def test_what_does_not_fit_is_refused_and_its_sender_named(
    alter: Callable[[str, Message], Message], message: str
) -> None:
    world = World()
    world.alter = alter
    with pytest.raises(UnexpectedMessage, match=message):
        world.play()


def test_other_rows_are_refused() -> None:
    world = World()
    world.X["agency"] = world.X["agency"][:500]
    with pytest.raises(DataError, match="bank 600, agency 500"):
        world.play()


def test_features_travel_in_another_order_each_time() -> None:
    orders = {tuple(World().play()["agency"].public["order"]) for _ in range(5)}
    assert len(orders) > 1, "of 24 orders, five times the same"


def test_a_party_without_numbers_has_no_index() -> None:
    world = World(2)
    world.X["agency"] = np.empty((ROWS, 0))
    out = world.play()
    assert out["bank"].public["numbered"]["agency"] == [] == out["agency"].public["order"]
    assert len(said(out)) == 8
