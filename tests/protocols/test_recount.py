"""A recount by its real roles: the counts of the joined table, of unions of the cells of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError, QuotaExceeded, Refused
from fednb.protocols import recount
from fednb.protocols import vertical_binning as vb
from fednb.protocols.base import Dataset, FixedBudget, Outcome, RunContext
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

ROWS = 500
CAST = {"active": ("bank",), "passive": ("agency",), "coordinator": ("coordinator",)}
SHORT = {"key_bits": 512, "insecure_short_key": True}
NAMES = {"bank": ("age", "debt"), "agency": ("turnover", "delay", "noise")}


class Taped:
    def __init__(self, sent: list[tuple[str, str, Message]], link: Link) -> None:
        self.me, self.cast, self.recv = link.me, link.cast, link.recv
        self._sent, self._link = sent, link

    def send(self, to: str, message: Message) -> None:
        self._sent.append((self.me, to, message))
        self._link.send(to, message)


def played(
    roles: Mapping[str, Callable[..., Outcome]], data: Mapping[str, Dataset], params: Any, **context: Any
) -> tuple[dict[str, Outcome], list[tuple[str, str, Message]]]:
    sent: list[tuple[str, str, Message]] = []

    def role(member: str) -> Callable[[Link], Outcome]:
        run = RunContext(name="run", **context)
        return lambda link: roles[member](Taped(sent, link), data.get(member, Dataset()), params, run)

    cast = {role: players for role, players in CAST.items() if players[0] in roles}
    return play({member: role(member) for member in roles}, cast, timeout=60), sent


@pytest.fixture(scope="module")
def table() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(8)
    X = {party: rng.normal(size=(ROWS, len(names))) for party, names in NAMES.items()}
    score = X["bank"][:, 0] + X["agency"][:, 0] - X["agency"][:, 1]
    y = (rng.random(ROWS) < 1 / (1 + np.exp(1 - score))).astype(float)
    X["agency"][::9, 1] = np.nan
    return X, y


def data(table: Any, party: str, *columns: str, part: Mapping[str, Any] | None = None) -> Dataset:
    X, y = table
    wanted = columns or NAMES[party]
    places = [NAMES[party].index(name) for name in wanted]
    own, label = (y, "default") if party == "bank" else (None, None)
    return Dataset(X=X[party][:, places], columns=tuple(wanted), y=own, label=label, part=part or {})


@pytest.fixture(scope="module")
def parts(table: Any) -> dict[str, Mapping[str, Any]]:
    """What each party keeps of a fit."""
    roles = {"bank": vb.active, "agency": vb.passive, "coordinator": vb.coordinator}
    both = {party: data(table, party) for party in NAMES}
    out, _ = played(roles, both, vb.BinningParams(bins=10, merge="none", **SHORT))
    return {party: out[party].private for party in NAMES}


def again(table: Any, parts: Any, starts: list[list[int]], *columns: str, **context: Any) -> Any:
    roles = {"bank": recount.active, "agency": recount.passive, "coordinator": vb.coordinator}
    own = Dataset(y=table[1], label="default")
    both = {"bank": own, "agency": data(table, "agency", *columns, part=parts["agency"])}
    return played(roles, both, recount.RecountParams(starts={"agency": starts}, **SHORT), **context)


def counted(x: np.ndarray, y: np.ndarray, part: Mapping[str, Any], name: str) -> list[tuple[int, int]]:
    """Rows and positives of each bin on the joined table, which has its weight."""
    cuts, weights, bins = cuts_of(part)[name]
    here, found = bins[cuts.cells(x)], []
    for b in range(bins.max() + 1):
        n, e = int((here == b).sum()), int(y[here == b].sum())
        weight = np.log((n - e) / (len(y) - y.sum())) - np.log(e / y.sum())
        assert weights[bins == b] == pytest.approx(weight, abs=1e-12)
        found.append((n, e))
    assert (weights[bins == NEUTRAL] == 0).all()
    return found


def test_joined_and_parted_cells_are_counted_as_on_the_joined_table(table: Any, parts: Any) -> None:
    X, y = table
    out, sent = again(table, parts, [[1, 4], [5]], "delay", "turnover")
    part, said = out["agency"].private, out["agency"].public["features"]
    assert [feature["column"] for feature in said] == ["delay", "turnover"]
    for feature, sizes in zip(said, ([1, 3, 6, 1], [5, 5]), strict=True):
        x = X["agency"][:, NAMES["agency"].index(feature["column"])]
        assert feature["cells"] == sizes and feature["edges"] == []
        assert counted(x, y, part, feature["column"]) == list(zip(feature["rows"], feature["positives"], strict=True))
    assert said[0]["holds"] == ["values", "values", "values", "missing"]
    old, new = (dict(zip(p["columns"], p["woe"], strict=True)) for p in (parts["agency"], part))
    assert np.array_equal(old["noise"], new["noise"]) and not np.array_equal(old["delay"], new["delay"])
    assert np.array_equal(part["rows"][0], parts["agency"]["rows"][0]), "cells stay, so that bins can be parted again"
    (sums,) = [message for _, _, message in sent if isinstance(message, vb.MaskedSums)]
    assert len(sums.sums) == 6, "one encrypted sum a bin, and none of what did not change"


def test_the_active_party_is_told_no_name_and_the_passive_one_no_label(table: Any, parts: Any) -> None:
    _, sent = again(table, parts, [[5]], "turnover")
    assert {(s, r, type(m).__name__) for s, r, m in sent} == {
        *(("coordinator", to, kind) for to in ("bank", "agency") for kind in ("Key", "Ready")),
        ("coordinator", "bank", "Windows"),
        ("bank", "coordinator", "Shape"),
        ("bank", "agency", "Labels"),
        ("bank", "agency", "Bins"),
        ("agency", "coordinator", "Shape"),
        ("agency", "coordinator", "MaskedSums"),
        ("agency", "bank", "Cells"),
    }
    assert not any("turnover" in repr(message) for _, _, message in sent)


def test_every_new_bin_is_counted_against_the_quota(table: Any, parts: Any) -> None:
    budget = FixedBudget(5)
    again(table, parts, [[3, 6]], "turnover", budget=budget)
    assert budget.spent == {"agency": 3}
    with pytest.raises(QuotaExceeded):
        again(table, parts, [[3, 6]], "turnover", budget=budget)


def test_other_rows_than_those_of_the_fit_are_refused(table: Any, parts: Any) -> None:
    X, y = table
    shifted = {party: np.roll(x, 1, axis=0)[:-1] for party, x in X.items()}
    with pytest.raises(DataError, match="not the rows that agency's 'turnover' was binned on"):
        again((shifted, y[:-1]), parts, [[5]], "turnover")


def own(table: Any, part: Any, starts: Any, edges: Any, *columns: str, **context: Any) -> Outcome:
    params = recount.OwnRecountParams(starts=starts, edges=edges)
    out, sent = played({"bank": recount.own}, {"bank": data(table, "bank", *columns, part=part)}, params, **context)
    assert sent == []
    return out["bank"]


def test_the_active_partys_features_are_cut_at_values_or_by_cell(table: Any, parts: Any) -> None:
    X, y = table
    found = own(table, parts["bank"], [None, [4]], [[-1.0, 0.5], None], "age", "debt")
    age, debt = found.public["features"]
    x = X["bank"][:, 0]
    groups = [x < -1, (x >= -1) & (x < 0.5), x >= 0.5]
    assert age["rows"] == [int(g.sum()) for g in groups]
    assert age["positives"] == [int(y[g].sum()) for g in groups] and age["edges"] == [-1.0, 0.5]
    assert counted(X["bank"][:, 1], y, found.private, "debt") == list(zip(debt["rows"], debt["positives"], strict=True))
    assert debt["cells"] == [4, 6] and debt["edges"] == [] and found.private["given"] == ["age"]
    joined = own(table, found.private, [[2]], [None], "age").public["features"][0]
    assert joined["edges"] == [0.5] and joined["rows"] == [sum(age["rows"][:2]), age["rows"][2]]


def test_a_bin_of_one_class_is_joined_and_a_note_says_so(table: Any, parts: Any) -> None:
    X, y = table
    pure = y * (X["bank"][:, 0] > -1)  # nobody below -1 is positive
    found = own((X, pure), parts["bank"], [None], [[-1.0, 0.0]], "age")
    (age,) = found.public["features"]
    assert age["rows"] == [int((X["bank"][:, 0] < 0).sum()), int((X["bank"][:, 0] >= 0).sum())]
    assert "had one class only and were joined" in found.public["notes"][0]


def test_edges_are_shown_to_the_owners_rules_before_anything_is_counted(table: Any, parts: Any) -> None:
    seen: list[tuple[str, list[int]]] = []

    def apart(column: str, sets: np.ndarray) -> None:
        seen.append((column, np.bincount(sets).tolist()))
        raise Refused("too close")

    with pytest.raises(Refused, match="too close"):
        own(table, parts["bank"], [None], [[0.0]], "age", apart=apart)
    below = int((table[0]["bank"][:, 0] < 0).sum())
    assert seen == [("age", [below, ROWS - below])]
    own(table, parts["bank"], [[4]], [None], "debt", apart=apart)  # unions of cells tell nothing of fewer rows


@pytest.mark.parametrize(
    ("starts", "edges", "message"),
    [
        ([[99]], [None], "'age' has cells 0 to 9, and no 99"),
        ([None], [[0.0, 0.0001]], "fewer than 10 rows between 0.0001 and a neighbouring edge"),
        ([None], [[float("inf")]], "must be finite"),
        ([None], [None], "either by cells or by values"),
        ([[1]], [[0.0]], "either by cells or by values"),
        ([[1], [1]], [None, None], "asked for new bins of 2 features, and brought 1"),
    ],
)
def test_bins_that_cannot_be_are_explained(table: Any, parts: Any, starts: Any, edges: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        own(table, parts["bank"], starts, edges, "age")
