"""Boosted trees by their real roles: XGBoost's on the joined table, and what never crossed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xgboost
from boosting_world import Memory, World, agree, oracle, trees

from fednb.crypto.paillier import CipherVector, Fresh, PublicKey
from fednb.errors import DataError, PeerLost, UnexpectedMessage
from fednb.protocols import vertical_boosting as vb
from fednb.protocols.base import RunContext
from fednb.wire.message import Message

DATA = Path(os.environ.get("FEDNB_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def numbered_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal gains go to the first feature; a random numbering would choose another one than XGBoost."""
    monkeypatch.setattr(vb, "_numbering", np.arange)


def table(n: int = 400, d: int = 9, *, missing: bool = True, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns of up to 25 values, some of them missing where that matters, and a binary label."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)) * 3)
    score = X @ rng.normal(size=d) * 0.2 - 0.5 + np.where(X[:, 1] > 2, 1.5, 0)
    if missing:
        for j in range(0, d, 2):
            gone = rng.random(n) < 0.2
            X[gone, j] = np.nan
            score[gone] += (-1) ** j * 0.8
    return X, (score + rng.logistic(size=n) > 0).astype(float)


OPTIONS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "deeper": {"max_depth": 5, "n_estimators": 4},
    "regularised": {"reg_lambda": 3.0, "reg_alpha": 0.7, "gamma": 1.0, "min_child_weight": 4.0},
    "weighted": {"scale_pos_weight": 2.5},
    "from a base": {"base_score": 0.3, "learning_rate": 0.3},
    "bounded": {"max_delta_step": 0.4},
}


@pytest.mark.parametrize("passives", [1, 2])
@pytest.mark.parametrize("option", OPTIONS)
def test_trees_are_xgboosts_on_the_joined_table(option: str, passives: int) -> None:
    X, y = table()
    params = {"n_estimators": 6, **OPTIONS[option]}
    world = World(X, y, [3, 6] if passives == 1 else [3, 2, 4], params)
    fitted = world.fit()
    booster, expected = oracle(X, y, **params)
    agree(trees(world, fitted), expected, reg_lambda=params.get("reg_lambda", 1.0))
    fresh, _ = table(300, seed=5)
    scores = world.predict(fitted, fresh)["bank"].private["scores"]
    assert scores == pytest.approx(booster.predict(xgboost.DMatrix(fresh)), abs=1e-5)


def test_monotone_constraints_are_xgboosts() -> None:
    X, y = table()
    signs = [1, 0, -1, -1, 1, 0, 0, 1, 0]
    names = [f"bank_{j}" for j in range(3)], [f"agency_{j}" for j in range(6)]
    constraints = {
        "bank": dict(zip(names[0], signs[:3], strict=True)),
        "agency": dict(zip(names[1], signs[3:], strict=True)),
    }
    world = World(X, y, [3, 6], {"n_estimators": 6, "monotone_constraints": constraints})
    free = World(X, y, [3, 6], {"n_estimators": 6})
    fitted = world.fit()
    _, expected = oracle(X, y, n_estimators=6, monotone_constraints=tuple(signs))
    agree(trees(world, fitted), expected)
    assert len(trees(free, free.fit())) != len(expected)  # they do bind


@pytest.mark.parametrize("objective", ["reg:squarederror", "count:poisson", "multi:softprob"])
def test_other_objectives_are_xgboosts(objective: str) -> None:
    X, _ = table()
    rng = np.random.default_rng(1)
    mean = np.nan_to_num(X[:, 0]) * 0.3 + np.nan_to_num(X[:, 5]) * 0.2
    y = {
        "reg:squarederror": 1000 * mean + rng.normal(size=len(X)),
        "count:poisson": rng.poisson(np.exp(mean)).astype(float),
        "multi:softprob": np.digitize(mean + 0.2 * rng.normal(size=len(X)), [-0.5, 0.4]).astype(float),
    }[objective]
    params = {"n_estimators": 5, "objective": objective, "max_depth": 4}
    classes = {"num_class": 3} if objective == "multi:softprob" else {}
    world = World(X, y, [3, 6], params)
    fitted = world.fit()
    booster, expected = oracle(X, y, **params, **classes)
    found = trees(world, fitted)
    assert [(n["tree"], n["node"], n.get("column"), n.get("left")) for n in found] == [
        (n["tree"], n["node"], n.get("column"), n.get("left")) for n in expected
    ]
    scores = world.predict(fitted, X)["bank"].private["scores"]
    assert scores == pytest.approx(booster.predict(xgboost.DMatrix(X)), rel=1e-4, abs=1e-5)


def test_breast_gives_identical_trees_and_gains_of_the_joined_table() -> None:
    X, y = breast()
    world = World(X, y, [10, 20], {"n_estimators": 30})
    fitted = world.fit()
    found, (_, expected) = trees(world, fitted), oracle(X, y)
    agree(found, expected)
    # and to 1e-6 with the gains of double precision: XGBoost rounds each gradient to 24 bits
    margins = np.full(len(y), np.log(y.mean() / (1 - y.mean())))
    for tree in range(30):
        p = 1 / (1 + np.exp(-margins))
        g, h = p - y, p * (1 - p)
        nodes = {node["node"]: node for node in found if node["tree"] == tree}
        rows = {0: np.arange(len(y))}
        for number, node in nodes.items():
            here = rows[number]
            if "left" not in node:
                margins[here] += node["weight"]
                continue
            left = X[here, node["column"]] < node["cut"]
            rows[node["left"]], rows[node["left"] + 1] = here[left], here[~left]
            parts = [(here[left], 1), (here[~left], 1), (here, -1)]
            gain = sum(sign * g[part].sum() ** 2 / (h[part].sum() + 1) for part, sign in parts)
            assert node["gain"] == pytest.approx(gain, rel=1e-6)


def breast() -> tuple[np.ndarray, np.ndarray]:
    """The two files' columns, coded by 32 quantiles, so that both sides have the same cuts."""
    pd = pytest.importorskip("pandas")
    if not (DATA / "breast_hetero_guest.csv").exists():
        pytest.skip("no breast_hetero_*.csv; set FEDNB_DATA")
    joined = pd.read_csv(DATA / "breast_hetero_guest.csv").merge(pd.read_csv(DATA / "breast_hetero_host.csv"), on="id")
    y = joined.pop("y").to_numpy(np.float64)
    columns = []
    for name in joined.columns.drop("id"):
        x = joined[name].to_numpy()
        cuts = np.unique(np.quantile(x, np.arange(1, 32) / 32, method="inverted_cdf"))
        columns.append(np.searchsorted(cuts, x, side="right"))
    return np.column_stack(columns).astype(np.float64), y


def test_the_model_does_not_depend_on_whose_a_column_is() -> None:
    X, y = table()
    one, other = World(X, y, [8, 1], {"n_estimators": 4}), World(X, y, [1, 5, 3], {"n_estimators": 4})
    assert trees(one, one.fit()) == trees(other, other.fit())


def test_who_sends_what_and_when() -> None:
    X, y = table()
    world = World(X, y, [3, 2, 4], {"n_estimators": 2, "max_depth": 3, "active_trees": 1})
    world.fit()
    levels = world.kinds("bank", "agency")[3:-1]
    assert world.kinds("bank", "agency") == ["Begin", "Next", "Next", *levels, "Next"]
    assert levels == ["Gradients", *["Splits", "Level"] * 3]  # the first round is made alone
    assert set(world.kinds("agency", "bank")) == {"Columns", "Sums", "Sides"}
    assert world.kinds("agency", "bank").count("Sums") == 3  # one a level, for all its nodes
    assert world.kinds("agency", "telco") == world.kinds("telco", "agency") == []


def test_the_last_levels_leaves_are_shown_to_nobody_else() -> None:
    X, y = table()
    world = World(X, y, [3, 2, 4], {"n_estimators": 3, "max_depth": 2})
    world.fit()
    levels = [m for s, r, m in world.sent if isinstance(m, vb.Level) and r == "telco"]
    assert [len(level.nodes) for level in levels] == [1, 0] * 3


def test_no_sum_and_no_split_has_fewer_rows_than_min_leaf() -> None:
    X, y = table(missing=True)
    world = World(X, y, [3, 6], {"n_estimators": 5, "min_leaf": 40, "min_child_weight": 0.0, "max_depth": 4})
    found = trees(world, world.fit())
    offered = sum(int(m.counts.sum()) for _, _, m in world.sent if isinstance(m, vb.Sums))
    loose = World(X, y, [3, 6], {"n_estimators": 5, "min_child_weight": 0.0, "max_depth": 4})
    loose.fit()
    assert offered < 0.7 * sum(int(m.counts.sum()) for _, _, m in loose.sent if isinstance(m, vb.Sums))
    for tree in range(5):
        rows = {0: np.arange(len(y))}
        for node in (node for node in found if node["tree"] == tree):
            here = rows[node["node"]]
            assert len(here) >= 40
            if "left" in node:
                x = X[here, node["column"]]
                left = np.where(np.isnan(x), node["default_left"], x < node["cut"])
                rows[node["left"]], rows[node["left"] + 1] = here[left], here[~left]


def test_a_split_with_too_pure_a_child_is_undone_and_its_owner_forgets_it() -> None:
    X, y = table(seed=3)
    y = np.where(X[:, 5] > 3, 1.0, y)  # agency's: a child of one class
    params = {"n_estimators": 3, "purity": 0.9, "min_leaf": 10}
    world = World(X, y, [3, 6], params)
    fitted = world.fit()
    found = trees(world, fitted)
    kept = [bool(each) for _, _, m in world.sent if isinstance(m, vb.Level) for each in m.kept]
    assert not all(kept) and sum(kept) == len(fitted["agency"].private["column"])
    for tree in range(3):
        rows = {0: np.arange(len(y))}
        for node in (node for node in found if node["tree"] == tree):
            here = rows[node["node"]]
            if node["node"]:
                assert max(y[here].mean(), 1 - y[here].mean()) <= 0.9
            if "left" in node:
                x = X[here, node["column"]]
                left = np.where(np.isnan(x), node["default_left"], x < node["cut"])
                rows[node["left"]], rows[node["left"] + 1] = here[left], here[~left]
    assert world.predict(fitted, X)["bank"].private["scores"].shape == y.shape


def test_all_that_goes_to_the_key_holder_hides_from_the_key_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = PublicKey.refresh_for_key_holder, []

    def refresh(key: PublicKey, c: CipherVector, threads: int = 1) -> Fresh:
        made.append(plain(key, c, threads))
        return made[-1]

    monkeypatch.setattr(PublicKey, "refresh_for_key_holder", refresh)
    X, y = table()
    world = World(X, y, [3, 2, 4], {"n_estimators": 2})
    world.fit()
    sums = [m.sums for _, _, m in world.sent if isinstance(m, vb.Sums)]
    assert sums and all(any(each is fresh for fresh in made) for each in sums)


def test_a_passive_party_gets_ciphertexts_and_whole_numbers_only() -> None:
    X, y = table()
    world = World(X, y, [3, 6], {"n_estimators": 2})
    world.fit()
    for _, to, message in world.sent:
        if to == "agency":
            for name in message.__struct_fields__:
                value = getattr(message, name)
                assert isinstance(value, Fresh | np.ndarray | bytes | int | str)
                assert not isinstance(value, np.ndarray) or value.dtype in (np.uint8, np.int64)


@pytest.mark.parametrize("step", [1, 3])
def test_a_run_that_was_cut_off_goes_on_to_the_same_model(step: int) -> None:
    X, y = table()
    params = {"n_estimators": 5, "subsample": 0.7, "colsample_bytree": 0.6, "validation": 80, "max_depth": 2}
    journals = {member: Memory() for member in ("bank", "agency")}
    contexts = {member: RunContext(name="run", journal=journal) for member, journal in journals.items()}
    world = World(X, y, [3, 6], params, contexts)
    whole = world.fit()
    for journal in journals.values():
        journal.at = step
    world.sent.clear()
    again = world.fit()
    assert sum(isinstance(m, vb.Gradients) for _, _, m in world.sent) == 5 - step
    assert trees(world, again) == trees(world, whole)
    assert again["bank"].public == whole["bank"].public


def test_a_warm_start_goes_on_as_if_it_had_never_stopped() -> None:
    X, y = table()
    long = World(X, y, [3, 6], {"n_estimators": 5})
    whole = long.fit()
    first = World(X, y, [3, 6], {"n_estimators": 2}).fit()
    world = World(X, y, [3, 6], {"n_estimators": 5, "warm_start": True}, earlier=first)
    found, expected = trees(world, world.fit()), trees(long, whole)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    with pytest.raises(DataError, match="2 rounds already"):
        World(X, y, [3, 6], {"n_estimators": 2, "warm_start": True}, earlier=first).fit()
    other = World(X, y, [4, 5], {"n_estimators": 5, "warm_start": True}, earlier=first)
    with pytest.raises((DataError, PeerLost), match="to go on from"):
        other.fit()


def test_training_stops_early_and_later_trees_are_forgotten() -> None:
    X, y = table(300)
    rng = np.random.default_rng(0)
    y[200:] = rng.integers(0, 2, 100)  # nothing to be learnt for these
    params = {"n_estimators": 40, "validation": 100, "early_stopping_rounds": 3, "learning_rate": 1.0}
    world = World(X, y, [3, 6], params)
    fitted = world.fit()
    said = fitted["bank"].public
    losses = said["history"]["validation_loss"]
    best = int(np.argmin(losses)) + 1
    assert said["rounds"] == best == len(losses) - 3 and said["stopped"]
    assert set(fitted["agency"].private["round"]) <= set(range(best))
    booster = xgboost.train(
        {"tree_method": "hist", "objective": "binary:logistic", "max_depth": 3, "learning_rate": 1.0},
        xgboost.DMatrix(X[:200], y[:200]),
        40,
        evals=[(xgboost.DMatrix(X[200:], y[200:]), "valid")],
        early_stopping_rounds=3,
        evals_result=(record := {}),  # type: ignore[var-annotated]
        verbose_eval=False,
    )
    assert booster.best_iteration + 1 == best
    assert losses == pytest.approx(record["valid"]["logloss"], abs=1e-5)


def test_rows_that_are_validated_with_never_count_in_a_sum_or_a_cut() -> None:
    X, y = np.random.default_rng(0).normal(size=(300, 9)), table(300)[1]
    params = {"n_estimators": 3, "validation": 60, "max_bin": 8}
    one = World(X, y, [3, 6], params)
    flipped = np.concatenate([y[:240], 1 - y[240:]])
    shifted = np.vstack([X[:240], X[240:] * 50])
    other = World(shifted, flipped, [3, 6], params)
    assert trees(one, one.fit()) == trees(other, other.fit())


def test_goss_keeps_the_rows_with_the_largest_gradients_and_the_right_sum() -> None:
    from fednb.protocols.sampling import one_sided

    rng = np.random.default_rng(0)
    g, h = rng.normal(size=(1000, 1)), np.ones((1000, 1))
    chosen, factors = one_sided(g, h, 0.2, 0.1, rng)
    assert chosen.sum() == 300 and chosen[np.argsort(-np.abs(g[:, 0]))[:200]].all()
    assert factors[chosen].sum() == pytest.approx(1000)
    X, y = table(600)
    world = World(X, y, [3, 6], {"n_estimators": 8, "sampling_method": "goss", "top_rate": 0.3, "other_rate": 0.3})
    fitted = world.fit()
    samples = [m for _, _, m in world.sent if isinstance(m, vb.Gradients)]
    assert {len(m.pairs) for m in samples} == {360}
    assert fitted["bank"].public["history"]["loss"][-1] < 0.55


# ------------------------------------------------------------ what is refused


def broken(world: World, kind: type, change: dict[str, Any]) -> None:
    """Have the first message of a kind altered on its way."""
    done = []

    def alter(me: str, to: str, message: Message) -> Message:
        if isinstance(message, kind) and not done and all(len(getattr(message, name)) for name in change):
            done.append(message)
            return msgspec.structs.replace(
                message, **{name: value(getattr(message, name)) for name, value in change.items()}
            )
        return message

    world.alter = alter


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        (vb.Sides, {"left": lambda bits: ~bits}, "agency sent other rows left"),
        (vb.Sides, {"left": lambda bits: bits[:-1]}, "agency sent sides of other rows"),
        (vb.Sums, {"counts": lambda c: c + 1}, "agency sent sums that cannot be read"),
        (vb.Sums, {"sums": lambda c: c[::-1]}, "agency sent sums that no rows' gradients have"),
        (vb.Splits, {"splits": lambda s: s + 10_000}, "bank took splits that were not on offer"),
        (vb.Splits, {"nodes": lambda s: s + 77}, "bank took splits that were not on offer"),
        (vb.Level, {"children": lambda c: c * 0}, "bank sent a level that cannot be read"),
        (vb.Level, {"children": lambda c: c.astype(float)}, "bank sent a level that cannot be read"),
        (vb.Level, {"left": lambda bits: bits[:-1]}, "bank sent sides of other rows"),
        (vb.Level, {"open": lambda bits: bits.astype(np.int64)}, "bank sent a level that does not fit"),
        (vb.Gradients, {"sample": lambda s: s[:-1]}, "bank sent gradients of other rows"),
        (vb.Gradients, {"features": lambda s: s.astype(np.int64)}, "bank sent gradients of other rows"),
        (vb.Gradients, {"pairs": lambda c: c[1:]}, "bank sent gradients that cannot be used"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_and_its_sender_named(
    kind: type, change: dict[str, Any], complaint: str
) -> None:
    X, y = table(200)
    world = World(X, y, [1, 8], {"n_estimators": 2})
    broken(world, kind, change)
    with pytest.raises((UnexpectedMessage, PeerLost), match=complaint):
        world.fit()


def test_labels_that_cannot_be_trained_on_are_named() -> None:
    X, y = table(200)
    for label, params, complaint in [
        (np.where(np.arange(200) < 3, np.nan, y), {}, "'default' is missing in 3 rows"),
        (np.zeros(200), {}, "one class only"),
        (y + 1, {}, "is not binary"),
        (np.where(y, np.inf, 0), {"objective": "reg:squarederror"}, "infinite"),
        (y - 1, {"objective": "count:poisson"}, "negative values"),
        (np.arange(200.0), {"objective": "multi:softprob"}, "too many for classes"),
        (np.concatenate([np.zeros(150), np.ones(50)]), {"validation": 50}, "lack a class"),
        (1e200 * (y + 1), {"objective": "count:poisson", "base_score": 1e308}, "not finite"),
    ]:
        with pytest.raises(DataError, match=complaint):
            World(X, label, [3, 6], params).fit()


def test_columns_without_anything_to_split_are_passed_over() -> None:
    X, y = table(200, missing=False)
    X[:, 1] = 7.0  # constant, at the bank
    X[:, 4] = np.nan  # nothing but missing values, at the agency
    X[:, 5] = np.where(np.arange(200) % 2, np.nan, 3.0)  # one value or none
    world = World(X, y, [3, 6], {"n_estimators": 4, "max_bin": 500})
    fitted = world.fit()
    booster, expected = oracle(X, y, n_estimators=4)
    agree(trees(world, fitted), expected)
    empty = X.copy()
    empty[:, 3:] = np.nan
    alone = World(empty, y, [3, 6], {"n_estimators": 2})
    out = alone.fit()
    assert {row["party"] for row in out["bank"].public["importance"]} == {"bank"}
    infinite = X.copy()
    infinite[0, 5] = np.inf
    with pytest.raises((DataError, PeerLost), match="agency has infinite values in 'agency_2'"):
        World(infinite, y, [3, 6], {}).fit()


def test_parties_with_other_rows_or_too_few_are_told() -> None:
    X, y = table(200)
    with pytest.raises((DataError, PeerLost), match="10 rows to train on"):
        World(X[:10], y[:10], [3, 6], {"min_leaf": 10}).fit()
    with pytest.raises((DataError, PeerLost), match="agency's 'agency_9', which this frame lacks"):
        World(X, y, [3, 6], {"monotone_constraints": {"agency": {"agency_9": 1}}}).fit()
