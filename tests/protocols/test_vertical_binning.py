"""Binning by its real roles: the counts of the joined table, and what never crossed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError, QuotaExceeded, UnexpectedMessage
from fednb.protocols import bin_stability, woe_table
from fednb.protocols import vertical_binning as vb
from fednb.protocols.base import Dataset, FixedBudget, Outcome, RunContext
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

ROWS = 600


class Taped:
    def __init__(self, world: World, link: Link) -> None:
        self.me, self.cast, self.recv = link.me, link.cast, link.recv
        self._world, self._link = world, link

    def send(self, to: str, message: Message) -> None:
        message = self._world.alter(self.me, to, message)
        self._world.sent.append((self.me, to, message))
        self._link.send(to, message)


class World:
    """bank (active), agency, telco and a coordinator."""

    def __init__(self, passives: int = 1, **params: Any) -> None:
        rng = np.random.default_rng(4)
        self.members = ["bank", "agency", "telco"][: 1 + passives]
        self.X = {member: rng.normal(size=(ROWS, 3)) for member in self.members}
        score = sum(X[:, 0] - 0.6 * np.abs(X[:, 1]) for X in self.X.values())
        self.y = (rng.random(ROWS) < 1 / (1 + np.exp(1 - score))).astype(float)
        agency = self.X["agency"]
        agency[::7, 0] = np.nan
        agency[3::50, 1] = -99.0
        agency[5::9, 2] = -99.0
        self.params = vb.BinningParams(**{"key_bits": 512, "insecure_short_key": True, "special": [-99.0], **params})
        self.sent: list[tuple[str, str, Message]] = []
        self.alter: Callable[[str, str, Message], Message] = lambda me, to, message: message
        self.budget = FixedBudget(10_000)

    def columns(self, member: str) -> tuple[str, ...]:
        return tuple(f"{member}_{j}" for j in range(self.X[member].shape[1]))

    def data(self, member: str) -> Dataset:
        if member == "coordinator":
            return Dataset()
        y, label = (self.y, "default") if member == "bank" else (None, None)
        return Dataset(X=self.X[member], columns=self.columns(member), y=y, label=label)

    def play(self) -> dict[str, Outcome]:
        functions = {"bank": vb.active, "coordinator": vb.coordinator}

        def role(member: str) -> Callable[[Link], Outcome]:
            function = functions.get(member, vb.passive)
            run = RunContext(name="run", budget=self.budget)
            return lambda link: function(Taped(self, link), self.data(member), self.params, run)

        cast = {"active": ("bank",), "passive": tuple(self.members[1:]), "coordinator": ("coordinator",)}
        return play({member: role(member) for member in [*self.members, "coordinator"]}, cast, timeout=60)


def by_hand(x: np.ndarray, y: np.ndarray, part: Mapping[str, Any], name: str) -> list[tuple[int, int, float]]:
    """Rows, positives and weight of each bin of a column, counted on the joined table."""
    cuts, weights, bins = cuts_of(part)[name]
    found, here = [], bins[cuts.cells(x)]
    for b in range(bins.max() + 1):
        n, e = int((here == b).sum()), int(y[here == b].sum())
        weight = np.log((n - e) / (len(y) - y.sum())) - np.log(e / y.sum())
        assert weights[bins == b] == pytest.approx(weight, abs=1e-12)
        found.append((n, e, float(weight)))
    return found


@pytest.mark.parametrize("passives", [1, 2])
@pytest.mark.parametrize("merge", ["monotone", "optimal", "none"])
def test_bins_are_those_of_the_joined_table(passives: int, merge: str) -> None:
    world = World(passives, merge=merge)
    out = world.play()
    for member in world.members:
        for j, feature in enumerate(out[member].public["features"]):
            counted = by_hand(world.X[member][:, j], world.y, out[member].private, feature["column"])
            released = zip(feature["rows"], feature["positives"], feature["woe"], strict=True)
            assert np.array(list(released)) == pytest.approx(np.array(counted), abs=1e-12)
            assert min(feature["rows"]) >= 10
            assert all(0 < e < n for n, e in zip(feature["rows"], feature["positives"], strict=True))


def test_a_passive_feature_is_binned_as_the_active_partys_own_would_be() -> None:
    world, swapped = World(), World()
    swapped.X["bank"], swapped.X["agency"] = world.X["agency"], world.X["bank"]
    here, there = world.play(), swapped.play()
    for one, other in (("agency", "bank"), ("bank", "agency")):
        for a, b in zip(here[one].public["features"], there[other].public["features"], strict=True):
            assert {**a, "column": ""} == {**b, "column": ""}


def test_missing_and_special_values_have_their_own_bins_and_few_of_them_weigh_nothing() -> None:
    out = World().play()
    first, second, third = out["agency"].public["features"]
    assert "missing" in first["holds"] and first["rows"][first["holds"].index("missing")] == len(range(0, ROWS, 7))
    assert "special 1" in third["holds"]
    assert second["rows"][second["holds"].index("special 1")] == len(range(3, ROWS, 50))
    world = World()
    world.X["agency"][:, 1] = np.where(np.arange(ROWS) < 9, np.nan, np.abs(world.X["agency"][:, 1]))
    _, second, _ = world.play()["agency"].public["features"]
    assert set(second["holds"]) == {"values"} and sum(second["rows"]) == ROWS
    (few,) = [woe for name, woe in zip(out["agency"].private["columns"], world.play()["agency"].private["woe"],
                                       strict=True) if name == "agency_1"]  # fmt: skip
    assert few[-2] == 0, "what fewer than ten rows have weighs nothing, but is counted"


@pytest.mark.parametrize("merge", ["none", "monotone", "tree"])
def test_no_label_follows_from_what_is_left_over(merge: str) -> None:
    """With the positives of all bins and of all rows, those of rows in no bin would be known: one row's, say."""
    world = World(merge=merge, bins=12)
    X, y = world.X["agency"], world.y
    X[:, 0] = np.abs(X[:, 0])
    X[:, 0][np.isnan(X[:, 0])] = 0.5
    X[7, 0] = np.nan  # one row
    X[:, 1] = np.where(np.arange(ROWS) < 9, -99.0, np.abs(X[:, 1]))  # a few
    X[:, 2] = np.where(y == 0, np.abs(X[:, 2]), np.where(np.arange(ROWS) % 2, np.nan, np.abs(X[:, 2])))  # one class
    world.X["bank"][:, 0] = X[:, 2]
    out = world.play()
    for party in ("agency", "bank"):
        for feature in out[party].public["features"]:
            assert sum(feature["rows"]) == ROWS and sum(feature["positives"]) == int(y.sum()), feature["column"]
            assert all(0 < e < n for n, e in zip(feature["rows"], feature["positives"], strict=True))


def test_the_cells_that_bins_can_be_made_of_later_have_ten_rows_of_both_classes() -> None:
    world = World(merge="monotone", bins=40)
    x, y = world.X["agency"][:, 1], world.y
    y[x < np.nanquantile(x[x > -99], 0.15)] = 0  # several cells of one class
    out = world.play()["agency"]
    for j, name in enumerate(out.private["columns"]):
        cuts, _, bins = cuts_of(out.private)[name]
        atoms = np.asarray(out.private["atoms"][j])
        cells = cuts.cells(world.X["agency"][:, j])
        for atom in range(atoms.max() + 1):
            inside = np.isin(cells, np.flatnonzero(atoms == atom))
            few = min(y[inside].sum(), inside.sum() - y[inside].sum())
            whole = set(bins[cells[inside]].tolist()) - set(bins[cells[~inside]].tolist())
            assert few >= 10 or (few > 0 and whole), "ten rows of each class, or a whole bin"
            assert len(set(bins[: cuts.ordered][atoms == atom].tolist())) == 1, "a bin is made of whole ones"
        feature = out.public["features"][j]
        ordinary = [n for n, holds in zip(feature["cells"], feature["holds"], strict=True) if holds == "values"]
        assert sum(ordinary) == atoms.max() + 1
    assert len(set(np.asarray(out.private["atoms"][1]).tolist())) < cuts_of(out.private)["agency_1"][0].ordered


def test_a_monotone_feature_rises_or_falls_throughout() -> None:
    for feature in World(merge="monotone").play()["agency"].public["features"]:
        rates = [
            e / n
            for e, n, holds in zip(feature["positives"], feature["rows"], feature["holds"], strict=True)
            if holds == "values"
        ]
        assert rates in (sorted(rates), sorted(rates, reverse=True))


def test_these_messages_go_around_and_no_others() -> None:
    world = World(2)
    world.play()
    kinds: dict[tuple[str, str], list[str]] = {}
    for sender, receiver, message in world.sent:
        kinds.setdefault((sender, receiver), []).append(type(message).__name__)
    for passive in ("agency", "telco"):
        assert kinds.pop(("coordinator", passive)) == ["Key", "Ready"]
        assert kinds.pop((passive, "coordinator")) == ["Shape", "MaskedSums"]
        assert kinds.pop(("bank", passive)) == ["Labels", "Bins"]
        assert kinds.pop((passive, "bank")) == ["Cells"]
    assert kinds == {
        ("coordinator", "bank"): ["Key", "Ready", "Windows", "Windows"],
        ("bank", "coordinator"): ["Shape"],
    }


def test_neither_names_nor_values_nor_cut_points_reach_the_active_party() -> None:
    world = World()
    out = world.play()
    for _, _, message in [entry for entry in world.sent if entry[1] == "bank"]:
        text = repr(message)
        assert "agency_" not in text
        for points in out["agency"].private["points"]:
            assert not any(repr(float(point)) in text for point in points)
    (cells,) = [m for _, _, m in world.sent if isinstance(m, vb.Cells)]
    assert cells.rows.min() >= 10


def test_the_order_of_features_is_another_each_time() -> None:
    orders = set()
    for _ in range(20):
        world = World()
        world.play()
        (cells,) = [m for _, _, m in world.sent if isinstance(m, vb.Cells)]
        orders.add(tuple(cells.rows.tolist()))
    assert len(orders) > 1  # alike by chance: once in 6**19


def test_what_the_coordinator_decrypts_is_uniform_whatever_the_labels_are() -> None:
    windows = []
    for _ in range(2):
        world = World()
        world.play()
        windows += [m.windows for _, _, m in world.sent if isinstance(m, vb.Windows)]
    assert not np.any(windows[0] == windows[1])
    assert np.median(windows[0]) > ROWS * 2**vb.GUARD  # beyond any count


def test_every_sum_is_counted_against_the_quota_before_it_is_decrypted() -> None:
    world = World(2)
    out = world.play()
    assert world.budget.spent == out["coordinator"].public["cells"]
    world = World()
    world.budget = FixedBudget(10)
    with pytest.raises(QuotaExceeded, match="agency"):
        world.play()
    assert not [m for _, _, m in world.sent if isinstance(m, vb.Labels)]


def test_cut_points_that_were_given_are_used() -> None:
    world = World(cuts={"agency": {"agency_1": [0.0]}}, merge="none")
    cuts, _, _ = cuts_of(world.play()["agency"].private)["agency_1"]
    assert cuts.points.tolist() == [0.0]
    with pytest.raises(DataError, match="cut points were given for agency's 'nobody'"):
        World(cuts={"agency": {"nobody": [0.0]}}).play()


def test_constant_and_all_missing_columns_are_named() -> None:
    world = World()
    world.X["agency"][:, 0] = 4.0
    world.X["agency"][:, 1] = np.nan
    notes = world.play()["agency"].public["notes"]
    assert "agency's 'agency_0' has one bin only (every value is the same): it tells nothing and is left out." in notes
    assert any("'agency_1' has one bin only (every value is missing)" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.X.update(agency=w.X["agency"][:-1]), "not have the same rows"),
        (lambda w: w.X["agency"].__setitem__((3, 1), np.inf), "agency has infinite values in 'agency_1'"),
        (lambda w: w.y.fill(0), "one class only"),
        (lambda w: w.y.__setitem__(0, 2), "not binary"),
        (lambda w: w.X.update(bank=w.X["bank"][:15]), "bank has 15 rows"),
        (lambda w: w.X.update(agency=np.empty((ROWS, 0))), "agency has no features"),
    ],
)
def test_bad_input_is_explained(change: Callable[[World], None], message: str) -> None:
    world = World()
    change(world)
    with pytest.raises(DataError, match=message):
        world.play()


def changed(kind: type[Message], **fields: Callable[[Any], Any]) -> Callable[[str, str, Message], Message]:
    def alter(me: str, to: str, message: Message) -> Message:
        if type(message) is not kind:
            return message
        own = {name: getattr(message, name) for name in message.__struct_fields__}
        return kind(**{**own, **{name: change(own[name]) for name, change in fields.items()}})

    return alter


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (changed(vb.Cells, rows=lambda a: a - 200), "cells that cannot be read"),
        (changed(vb.Cells, rows=lambda a: np.full_like(a, 9)), "fewer than 10 rows"),
        (changed(vb.Cells, rows=lambda a: np.full_like(a, ROWS)), "more rows than there are"),
        (changed(vb.Cells, rows=lambda a: a[:-1]), "cannot be read"),
        (changed(vb.Cells, rows=lambda a: a.astype(float)), "cannot be read"),
        (changed(vb.Cells, ordered=lambda a: a + 1), "agency sent rows of"),
        (changed(vb.Cells, masks=lambda a: a ^ np.uint64(2**14)), "sums that count no labels"),
        (changed(vb.Windows, windows=lambda a: a[:-1]), "agency or coordinator sent"),
        (changed(vb.Bins, groups=lambda a: a[::-1].copy()), "bank sent bins"),
        (changed(vb.Bins, groups=lambda a: np.arange(len(a))), "bank sent bins"),
        (changed(vb.Bins, positives=lambda a: a * 0), "without both classes"),
        (changed(vb.Bins, positives=lambda a: np.append(a, 1)), "bank sent positives"),
        (changed(vb.Bins, all_positives=lambda a: 0), "cannot be read"),
        (changed(vb.Labels, labels=lambda c: c[:-1]), "bank sent labels that cannot be used"),
        (changed(vb.MaskedSums, sums=lambda c: c[:-1]), "agency sent sums that cannot be used"),
        (changed(vb.Shape, cells=lambda n: -1), "announced -1 cells"),
    ],
)
def test_what_does_not_fit_is_refused_naming_its_sender(alter: Any, message: str) -> None:
    world = World()
    world.alter = alter
    with pytest.raises(UnexpectedMessage, match=message):
        world.play()


def coded(part: Mapping[str, Any], X: np.ndarray, columns: tuple[str, ...]) -> Outcome:
    roles = {
        "agency": lambda link: woe_table.party(
            link, Dataset(X=X, columns=columns, part=part), woe_table.TableParams(name="t"), RunContext()
        ),
        "coordinator": lambda link: woe_table.coordinator(
            link, Dataset(), woe_table.TableParams(name="t"), RunContext()
        ),
    }
    return play(roles, {"party": ("agency",), "coordinator": ("coordinator",)}, timeout=30)["agency"]


def test_new_rows_are_coded_by_the_bins_of_the_training_rows() -> None:
    world = World()
    part = world.play()["agency"].private
    X = np.array([[np.nan, 0.5, -99.0], [1e9, -1e9, np.nan], [0.0, 0.0, 0.0]])
    out = coded(part, X, world.columns("agency"))
    assert out.table is not None
    for j, (name, (cuts, weights, _)) in enumerate(cuts_of(part).items()):
        assert out.table[1][name].tolist() == weights[cuts.cells(X[:, j])].tolist()
    # no training row of the third column was missing
    assert out.table[1]["agency_2"][1] == 0
    assert out.public["notes"] == [
        "agency's 'agency_2': fewer than 10 rows are missing or special in a way that too few training rows were; "
        "they weigh 0."
    ]


def test_coding_needs_a_binning_and_its_columns() -> None:
    world = World()
    part = world.play()["agency"].private
    with pytest.raises(DataError, match="agency holds no binning"):
        coded({}, np.ones((3, 3)), world.columns("agency"))
    with pytest.raises(DataError, match="not fitted on 'other'"):
        coded(part, np.ones((3, 1)), ("other",))


def test_only_columns_that_were_asked_for_are_coded() -> None:
    world = World()
    out = coded(world.play()["agency"].private, np.ones((3, 1)), ("agency_2",))
    assert out.public["columns"] == ["agency_2"]


def stability(part: Mapping[str, Any], X: np.ndarray, columns: tuple[str, ...]) -> dict[str, float]:
    def role(link: Link) -> Outcome:
        data = Dataset(X=X, columns=columns, part=part)
        return bin_stability.party(link, data, bin_stability.StabilityParams(), RunContext())

    return dict(play({"agency": role}, {"party": ("agency",)}, timeout=30)["agency"].public["psi"])


def test_the_same_rows_are_stable_and_shifted_ones_are_not() -> None:
    world = World()
    part, X = world.play()["agency"].private, world.X["agency"]
    assert stability(part, X, world.columns("agency")) == pytest.approx({f"agency_{j}": 0.0 for j in range(3)})
    moved = X.copy()
    moved[:, 0] += 3.0
    found = stability(part, moved, world.columns("agency"))
    assert found["agency_0"] > 0.25 and found["agency_1"] == pytest.approx(0.0)


def test_the_index_is_the_published_one() -> None:
    then, now = np.array([300_000, 700_000]), np.array([400_000, 600_000])
    assert bin_stability.index(then, now) == pytest.approx(0.1 * np.log(0.4 / 0.3) - 0.1 * np.log(0.6 / 0.7), abs=1e-6)
    assert np.isfinite(bin_stability.index(then, np.array([0, 500])))


def test_stability_needs_a_binning_and_rows_enough() -> None:
    world = World()
    part = world.play()["agency"].private
    with pytest.raises(DataError, match="agency holds no binning"):
        stability({}, world.X["agency"], world.columns("agency"))
    with pytest.raises(DataError, match="fewer than 100 rows"):
        stability(part, world.X["agency"][:99], world.columns("agency"))
    with pytest.raises(DataError, match="not fitted on 'other'"):
        stability(part, world.X["agency"][:, :1], ("other",))
