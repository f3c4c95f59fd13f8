"""Predictions of an ensemble whose cuts lie apart: XGBoost's, and what directions and contributions tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost
from boosting_world import World, agree, oracle, trees
from sklearn.model_selection import StratifiedKFold

from fednb.errors import DataError, PeerLost, UnexpectedMessage
from fednb.protocols import boosting_score as bs
from fednb.protocols import vertical_boosting as vb
from fednb.protocols.cuts import fit_cuts
from fednb.protocols.evaluation import auc
from fednb.protocols.trees import Forest

DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))


def sample(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 7)) * 4)
    X[rng.random(X.shape) < 0.1] = np.nan
    score = np.nansum(X * [1, -1, 0.5, 1, -0.8, 0.6, 0.3], axis=1) * 0.2
    return X, (score + rng.logistic(size=n) > 0).astype(float)


@pytest.fixture(scope="module")
def fitted() -> tuple[World, dict[str, Any]]:
    X, y = sample()
    world = World(X, y, [2, 2, 3], {"n_estimators": 5, "max_depth": 4})
    return world, world.fit()


def test_one_row_is_predicted_as_among_many(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    X, _ = sample(9000, seed=4)  # three messages
    many = world.predict(model, X)["bank"].private["scores"]
    assert many.shape == (9000,)
    for row in (0, 4095, 4096, 8999):
        assert world.predict(model, X[row : row + 1])["bank"].private["scores"] == [many[row]]


def test_nobody_but_the_active_party_gets_anything(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    world.sent.clear()
    out = world.predict(model, world.X)
    assert {(s, r, type(m).__name__) for s, r, m in world.sent} == {
        ("agency", "bank", "Directions"),
        ("telco", "bank", "Directions"),
    }
    assert out["agency"].private == out["telco"].private == {}


def test_a_direction_is_sent_only_where_ones_own_nodes_above_lead(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    world.sent.clear()
    world.predict(model, world.X)
    own = model["telco"].private
    (message,) = [m for s, _, m in world.sent if s == "telco"]
    sent = np.unpackbits(message.left, axis=1, count=len(own["column"])).astype(bool)
    full = bs.goes_left(world.X[:, 4:], own["column"], own["threshold"], own["default_left"], {})
    assert (own["ancestor"] >= 0).any()
    hidden = 0
    for node, (above, side) in enumerate(zip(own["ancestor"], own["side"], strict=True)):
        if above < 0:
            assert np.array_equal(sent[:, node], full[:, node])
            continue
        off = full[:, above] != side
        assert not sent[off, node].any()
        hidden += int(full[off, node].sum())
    assert hidden > 0


def test_contributions_are_shapley_values_and_add_up(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    out = world.predict(model, world.X[:20], explain="reasons")["bank"]
    assert out.table is not None
    name, columns = out.table
    assert name == "reasons" and list(columns) == ["mean", "bank", "agency", "telco"]
    assert sum(columns.values()) == pytest.approx(out.private["linear"])
    assert np.std(columns["mean"]) == pytest.approx(0, abs=1e-12)
    assert columns["agency"].std() > 0.01 and columns["telco"].std() > 0.01
    # with a single player besides nobody's share depends on the order: v(all) - v(none)
    forest = Forest.from_part(model["bank"].private)
    directions = np.zeros((1, len(forest)), dtype=bool)
    whole = bs.contributions(forest, directions, np.array([0.0]), 3)
    forest.owner = [0] * len(forest)
    alone = bs.contributions(forest, directions, np.array([0.0]), 3)
    assert alone[0, 2:] == pytest.approx(0) and alone[0, 1] == pytest.approx(whole[0, 1:].sum())


def test_a_players_share_is_that_of_xgboosts_features_where_each_party_has_one() -> None:
    """With one column a party, parties are features: XGBoost's own values of the path-dependent kind."""
    X, y = sample()
    X = X[:, [0, 1, 4]]
    world = World(X, y, [1, 1, 1], {"n_estimators": 4})
    fitted = world.fit()
    booster, _ = oracle(X, y, n_estimators=4)
    expected = booster.predict(xgboost.DMatrix(X[:50]), pred_contribs=True)
    assert fitted["agency"].public["splits"] and fitted["telco"].public["splits"]
    _, columns = world.predict(fitted, X[:50], explain="reasons")["bank"].table
    for place, name in enumerate(["bank", "agency", "telco", "mean"]):
        assert columns[name] == pytest.approx(expected[:, place], abs=2e-5)


def test_directions_of_other_rows_or_nodes_are_refused(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    usual = world.alter
    for change in (lambda bits: bits[:-1], lambda bits: bits[:, :-1], lambda bits: bits.astype(np.int64)):
        world.alter = lambda me, to, m, change=change: msgspec.structs.replace(m, left=change(m.left))
        with pytest.raises((UnexpectedMessage, PeerLost), match="sent directions of shape"):
            world.predict(model, world.X)
    world.alter = usual


def test_only_whoever_was_active_can_have_predictions(fitted: tuple[World, dict[str, Any]]) -> None:
    world, model = fitted
    with pytest.raises((DataError, PeerLost), match="bank was not the active party"):
        world.predict({**model, "bank": model["agency"]}, world.X)
    with pytest.raises((DataError, PeerLost), match="agency holds no boosted model"):
        world.predict({**model, "agency": type(model["agency"])()}, world.X)


@pytest.fixture(scope="module")
def default_credit() -> tuple[np.ndarray, np.ndarray, int]:
    """Features of both sides, the label, and how many features are the active party's."""
    pd = pytest.importorskip("pandas")
    if not (DATA / "default_credit_hetero_guest.csv").exists():
        pytest.skip("no default_credit_hetero_*.csv; set FEDNB_DATA")
    guest, host = (pd.read_csv(DATA / f"default_credit_hetero_{side}.csv") for side in ("guest", "host"))
    joined = guest.merge(host, on="id")
    y = joined.pop("y").to_numpy(np.float64)
    return joined.drop(columns="id").to_numpy(np.float64), y, guest.shape[1] - 2


@pytest.mark.slow
def test_default_credit_gives_xgboosts_trees_where_the_cuts_are_the_same(
    default_credit: tuple[np.ndarray, np.ndarray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 trees of depth 3 on one of five folds of 24,000 rows; a short key, which changes no tree."""
    monkeypatch.setattr(vb, "_numbering", np.arange)
    X, y, own = default_credit
    train, test = next(StratifiedKFold(5).split(X, y))
    coded = np.column_stack([fit_cuts(x[train], bins=32, method="quantile", least=1).cells(x) for x in X.T])
    coded = coded.astype(np.float64)
    world = World(coded[train], y[train], [own, X.shape[1] - own])
    fitted = world.fit()
    ours = auc(y[test], world.predict(fitted, coded[test])["bank"].private["scores"])
    booster, expected = oracle(coded[train], y[train])
    agree(trees(world, fitted), expected)
    assert ours == pytest.approx(auc(y[test], booster.predict(xgboost.DMatrix(coded[test]))), abs=1e-5)
    alone, _ = oracle(coded[train][:, :own], y[train])
    assert ours > auc(y[test], alone.predict(xgboost.DMatrix(coded[test][:, :own]))) + 0.03
