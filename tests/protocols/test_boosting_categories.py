"""Categories in boosted trees: XGBoost's splits of them, target statistics, and what their owners are told."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost
from boosting_world import Memory, World, agree, oracle, trees

from fednb.errors import DataError, PeerLost, UnexpectedMessage
from fednb.protocols import vertical_boosting as vb
from fednb.protocols.base import Dataset, RunContext
from fednb.protocols.boosting_categories import Coding
from fednb.wire.message import Message

TYPES = ["q", "c", "q", "c", "c"]  # bank_0, bank_1, agency_0, agency_1, agency_2
CATEGORICAL = {"bank": {"bank_1": "partition"}, "agency": {"agency_1": "partition", "agency_2": "onehot"}}


def table(n: int = 600, seed: int = 0, missing: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of numbers and three of 9, 12 and 3 categories; the label depends on unordered sets of them."""
    rng = np.random.default_rng(seed)
    X = np.column_stack(
        [
            np.round(rng.normal(size=n) * 3),
            rng.integers(0, 9, n),
            np.round(rng.normal(size=n) * 3),
            rng.integers(0, 12, n),
            rng.integers(0, 3, n),
        ]
    ).astype(float)
    score = 0.3 * X[:, 0] + np.isin(X[:, 1], [1, 4, 6]) * 1.5 + np.isin(X[:, 3], [0, 3, 5, 10]) * 2 + (X[:, 4] == 1) - 2
    if missing:
        for column in (1, 3, 4):
            gone = rng.random(n) < 0.15
            X[gone, column] = np.nan
            score[gone] += 1
    return X, (score + rng.logistic(size=n) > 0).astype(float)


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vb, "_numbering", np.arange)


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("widths", [[2, 3], [5, 0], [2, 2, 1]])
def test_splits_of_categories_are_xgboosts_on_the_joined_table(missing: bool, widths: list[int]) -> None:
    X, y = table(missing=missing)
    names = [f"{member}_{j}" for member, w in zip(["bank", "agency", "telco"], widths, strict=False) for j in range(w)]
    hows = {names[1]: "partition", names[3]: "partition", names[4]: "onehot"}
    asked = {member: {n: h for n, h in hows.items() if n.startswith(member)} for member in ("bank", "agency", "telco")}
    world = World(X, y, [w for w in widths if w], {"n_estimators": 6, "max_depth": 4, "categorical": asked})
    fitted = world.fit()
    booster, expected = oracle(X, y, n_estimators=6, max_depth=4, types=TYPES, max_cat_to_onehot=4)
    found = trees(world, fitted)
    agree(found, expected)
    assert {node["column"] for node in found if isinstance(node.get("cut"), tuple)} == {1, 3, 4}
    scores = world.predict(fitted, X)["bank"].private["scores"]
    assert scores == pytest.approx(booster.predict(xgboost.DMatrix(X, feature_types=TYPES, enable_categorical=True)))


def test_order_and_owner_of_levels_change_nothing() -> None:
    X, y = table()
    one = World(X, y, [2, 3], {"n_estimators": 3, "categorical": CATEGORICAL})
    names = tuple("lkjihgfedcba")  # text whose order is another one
    coded = X.copy()
    coded[:, 3] = np.where(np.isnan(X[:, 3]), np.nan, 11 - X[:, 3])
    other = World(coded, y, [2, 3], {"n_estimators": 3, "categorical": CATEGORICAL}, levels={"agency_1": names[::-1]})
    first, second = one.fit(), other.fit()
    assert other.data("agency", coded).levels["agency_1"][int(coded[0, 3])] == names[int(X[0, 3])]
    scores = one.predict(first, X)["bank"].private["scores"]
    assert scores == pytest.approx(other.predict(second, coded)["bank"].private["scores"])


def test_text_is_recognised_and_few_levels_are_taken_one_by_one() -> None:
    X, y = table()
    levels = {"agency_1": tuple("abcdefghijkl"), "agency_2": ("no", "so", "yes")}
    world = World(X, y, [2, 3], {"n_estimators": 1}, levels=levels)
    fitted = world.fit()
    assert fitted["agency"].private["kinds"] == ["number", "partition", "onehot"]
    assert sorted(fitted["agency"].private["levels"]["agency_2"]) == ["no", "so", "yes"]
    assert "agency_2" not in repr(fitted["agency"].public) and "yes" not in repr(fitted["bank"])


def test_a_passive_partys_levels_have_random_numbers_and_it_hears_of_sets_of_them_only() -> None:
    X, y = table()
    world = World(X, y, [2, 3], {"n_estimators": 3, "categorical": CATEGORICAL})
    fitted = world.fit()
    levels = fitted["agency"].private["levels"]["agency_1"]
    assert sorted(levels) == list(range(12)) != levels
    assert fitted["bank"].private["levels"]["bank_1"] == list(range(9))
    sets = [m for _, to, m in world.sent if isinstance(m, vb.Splits) and len(m.left)]
    assert sets and all(m.left.dtype == np.uint8 for m in sets)


def test_a_run_that_was_cut_off_goes_on_with_the_same_numbers() -> None:
    X, y = table()
    params = {"n_estimators": 4, "categorical": CATEGORICAL, "max_depth": 4}
    journals = {member: Memory() for member in ("bank", "agency")}
    contexts = {member: RunContext(name="run", journal=journal) for member, journal in journals.items()}
    world = World(X, y, [2, 3], params, contexts)
    whole = world.fit()
    for journal in journals.values():
        journal.at = 2
    again = world.fit()
    assert trees(world, again) == trees(world, whole)
    assert again["agency"].private["levels"] == whole["agency"].private["levels"]


def test_rare_levels_are_offered_by_no_node_and_go_with_missing_values() -> None:
    X, y = table()
    X[:7, 3] = 40.0  # a level of seven rows
    params = {"n_estimators": 3, "categorical": CATEGORICAL, "min_leaf": 25, "min_child_weight": 0.0}
    world = World(X, y, [2, 3], params)
    fitted = world.fit()
    own = fitted["agency"].private
    code = own["levels"]["agency_1"].index(40.0)
    assert len(own["sets"]) and code not in own["sets"][own["sets"][:, 0] == 0][:, 1]
    for node in trees(world, fitted):
        if "left" not in node and node["node"]:
            assert node["cover"] > 0
    sizes = [m.counts for _, _, m in world.sent if isinstance(m, vb.Sums)]
    assert max(int(counts[:, place].max()) for counts in sizes for place in range(3) if counts[0, place] < 30) <= 12


def test_levels_that_training_did_not_have_go_where_missing_values_go_and_are_noted() -> None:
    X, y = table()
    world = World(X, y, [2, 3], {"n_estimators": 4, "categorical": CATEGORICAL})
    fitted = world.fit()
    fresh, gone = X[:40].copy(), X[:40].copy()
    fresh[:12, 3], gone[:12, 3] = 99.0, np.nan
    fresh[:5, 1], gone[:5, 1] = 98.0, np.nan
    out = world.predict(fitted, fresh)
    assert np.array_equal(out["bank"].private["scores"], world.predict(fitted, gone)["bank"].private["scores"])
    assert "agency's 'agency_1': 10 rows or more have a category that no training" in out["agency"].public["notes"][0]
    assert out["agency"].private["unseen"] == {"agency_1": 12}
    # of fewer rows their owner alone hears
    assert out["bank"].public["notes"] == [] and out["bank"].private["unseen"] == {"bank_1": 5}
    assert world.predict(fitted, X)["agency"].public["notes"] == []


def test_ordered_statistics_are_means_over_earlier_rows_and_stay_where_the_labels_are() -> None:
    X, y = table()
    data = Dataset(X=X[:, :2], y=y, columns=("a", "b"))
    coding = Coding.fit("bank", data, 500, {"b": "ordered"}, 4, labels=True)
    codes, _ = coding.codes(data)
    coding, Z = coding.with_statistics(codes, y, 500, np.random.default_rng(7))
    order, prior = np.random.default_rng(7).permutation(500), y[:500].mean()
    for place, row in enumerate(order):
        before = [y[other] for other in order[:place] if codes[other, 1] == codes[row, 1]]
        assert Z[row, 1] == pytest.approx((sum(before) + prior) / (len(before) + 1))
    assert np.array_equal(Z[:, 0], X[:, 0])
    for row in range(500, 520):
        same = codes[:500, 1] == codes[row, 1]
        assert Z[row, 1] == pytest.approx((y[:500][same].sum() + prior) / (same.sum() + 1))
    again, unseen = Coding.from_part({**coding.to_part(), "columns": ["a", "b"]}).applied(
        Dataset(X=np.array([[0.0, 77.0], [0.0, 1.0]]), columns=("a", "b"))
    )
    assert again[0, 1] == pytest.approx(prior) and unseen == {"b": 1}


def test_ordered_statistics_help_the_active_party_and_score_alike_at_prediction() -> None:
    X, y = table()
    plain = World(X, y, [2, 3], {"n_estimators": 4})
    world = World(X, y, [2, 3], {"n_estimators": 4, "categorical": {"bank": {"bank_1": "ordered"}}})
    losses = [w.fit()["bank"].public["history"]["loss"][-1] for w in (plain, world)]
    assert losses[1] < losses[0] - 0.005
    fitted = world.fit()
    assert fitted["bank"].private["kinds"] == ["number", "ordered"]
    assert world.predict(fitted, X)["bank"].private["scores"].shape == y.shape


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"categorical": {"agency": {"agency_1": "ordered"}}}, "agency has no labels, and they would tell"),
        ({"categorical": {"agency": {"agency_7": "onehot"}}}, "agency's 'agency_7', which this frame lacks"),
        (
            {"categorical": CATEGORICAL, "monotone_constraints": {"agency": {"agency_1": 1}}},
            "categories have no direction: leave agency's 'agency_1'",
        ),
        ({"categorical": {"bank": {"bank_0": "onehot"}}}, "more than 1,000"),
        ({"categorical": {"bank": {"bank_1": "ordered"}}, "objective": "multi:softprob"}, "need one target"),
    ],
)
def test_what_cannot_be_done_with_categories_is_explained(params: dict[str, Any], complaint: str) -> None:
    X, y = table(1200, missing=False)
    if "bank_0" in params["categorical"].get("bank", {}):
        X[:, 0] = np.arange(1200)
    label = np.digitize(np.arange(1200) % 3, [1, 2]).astype(float) if "objective" in params else y
    with pytest.raises((DataError, PeerLost), match=complaint):
        World(X, label, [2, 3], params).fit()


def test_a_set_that_leaves_too_few_rows_is_refused_by_its_owner() -> None:
    X, y = table(missing=False)

    def alter(me: str, to: str, message: Message) -> Message:
        if isinstance(message, vb.Splits) and len(message.left):
            return msgspec.structs.replace(message, left=np.zeros_like(message.left))
        return message

    world = World(X, y, [2, 3], {"n_estimators": 2, "categorical": CATEGORICAL, "min_leaf": 10})
    world.alter = alter
    with pytest.raises((UnexpectedMessage, PeerLost), match="bank took splits that were not on offer"):
        world.fit()


def test_a_warm_start_keeps_the_levels_of_the_earlier_model() -> None:
    X, y = table()
    params = {"categorical": CATEGORICAL}
    whole = World(X, y, [2, 3], {"n_estimators": 4, **params})
    first = World(X, y, [2, 3], {"n_estimators": 2, **params}).fit()
    more = World(X, y, [2, 3], {"n_estimators": 4, "warm_start": True, **params}, earlier=first)
    a, b = (w.predict(w.fit(), X)["bank"].private["scores"] for w in (whole, more))
    assert a == pytest.approx(b)
