"""What a party's owner can ask of boosted trees: which nodes others see, and splits without their features."""

from __future__ import annotations

import numpy as np
import pytest
from boosting_world import Memory, World, trees

from fednb.config import RulesConfig
from fednb.errors import DataError, PeerLost, Refused
from fednb.policy.protocol_policy import Asked, ProtocolPolicy
from fednb.protocols import vertical_boosting as vb
from fednb.protocols.base import RunContext
from fednb.protocols.binned import MIXED

PARAMS = {"n_estimators": 4, "max_depth": 4, "min_leaf": 5}


def table(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, some of them missing, and in the last column seven categories."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 7)) * 3)
    X[:, 6] = rng.integers(0, 7, n)
    score = np.where(np.isin(X[:, 6], [1, 4]), 1.5, -0.5) + X[:, :6] @ rng.normal(size=6) * 0.3
    for column in (1, 4):
        gone = rng.random(n) < 0.2
        X[gone, column] = np.nan
        score[gone] += 0.8
    return X, (score + rng.logistic(size=n) > 0).astype(float)


def shown_sizes(world: World, member: str) -> list[int]:
    """Rows of each node that a passive party is shown, of what it was sent."""
    sizes = []
    rows: dict[int, np.ndarray] = {}
    for _, to, message in world.sent:
        if to != member:
            continue
        if isinstance(message, vb.Gradients):
            rows = {0: np.arange(len(world.y))}
        if isinstance(message, vb.Level):
            ends = np.cumsum([len(rows[node]) for node in message.nodes])
            bits = np.unpackbits(message.left, count=int(ends[-1]) if len(ends) else 0).astype(bool)
            for node, child, left, is_open in zip(
                message.nodes, message.children, np.split(bits, ends[:-1]), message.open, strict=False
            ):
                for side, mask in enumerate((left, ~left)):
                    rows[child + side] = rows[node][mask]
                    if is_open[side]:
                        sizes.append(int(mask.sum()))
    return sizes


def test_nodes_below_min_shown_are_split_by_the_active_party_alone() -> None:
    X, y = table()
    free, bound = World(X, y, [3, 2, 2], PARAMS), World(X, y, [3, 2, 2], {**PARAMS, "min_shown": 120})
    free.fit()
    fitted = bound.fit()
    sizes = shown_sizes(bound, "agency")
    assert sizes and min(sizes) >= 120 > min(shown_sizes(free, "agency"))
    small = [node for node in trees(bound, fitted) if node.get("column") is not None and node["cover"] < 20]
    assert small and all(node["column"] < 3 for node in small)
    scores = bound.predict(fitted, X)["bank"].private["scores"]
    assert scores.shape == y.shape and len(np.unique(scores)) > 10


def test_with_min_shown_above_all_rows_the_active_party_is_alone() -> None:
    X, y = table()
    world = World(X, y, [3, 4], {**PARAMS, "min_shown": 501})
    fitted = world.fit()
    assert world.kinds("bank", "agency") == ["Begin", *["Next"] * 5] and world.kinds("agency", "bank") == ["Columns"]
    alone = World(X[:, :3], y, [3], PARAMS)
    assert [node.get("gain") for node in trees(world, fitted)] == [
        node.get("gain") for node in trees(alone, alone.fit())
    ]


def test_anonymous_splits_give_the_same_gains_and_name_no_feature() -> None:
    X, y = table()
    params = {**PARAMS, "min_leaf": 1, "n_estimators": 3}
    plain = World(X, y, [3, 4], params)
    world = World(X, y, [3, 4], {**params, "anonymous_splits": True})
    fitted, usual = world.fit(), plain.fit()
    first, second = ([n["gain"] for n in trees(w, f) if "gain" in n] for w, f in ((world, fitted), (plain, usual)))
    assert first == pytest.approx(second)
    said = next(m for _, _, m in world.sent if isinstance(m, vb.Columns))
    assert said.kinds.tolist() == [MIXED] and said.signs.tolist() == [0]
    for _, _, m in world.sent:
        if isinstance(m, vb.Sums):
            assert m.counts.shape[1] == 1 and not m.missing.any() and (m.allowed == 1).all()
    importance = fitted["bank"].public["importance"]
    assert [row["feature"] for row in importance if row["party"] == "agency"] == ["#0"]
    a, b = (w.predict(f, X)["bank"].private["scores"] for w, f in ((world, fitted), (plain, usual)))
    assert a == pytest.approx(b)


def test_mixed_splits_stand_in_no_order_of_their_sums() -> None:
    X, y = table()
    world = World(X, y, [3, 4], {**PARAMS, "anonymous_splits": True})
    seen: list[np.ndarray] = []
    plain = vb.check_sums

    def look(member: str, counts: np.ndarray, sums: np.ndarray, total: np.ndarray, kinds: np.ndarray) -> None:
        seen.append(sums[:, 1])
        plain(member, counts, sums, total, kinds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vb, "check_sums", look)
        world.fit()
    h = next(h for h in seen if len(h) > 40)
    rank = np.argsort(np.argsort(h))
    assert abs(np.corrcoef(np.arange(len(h)), rank)[0, 1]) < 0.4
    assert (np.diff(rank) < 0).mean() > 0.3


def test_categories_are_taken_one_by_one_where_splits_are_anonymous() -> None:
    X, y = table()
    world = World(
        X, y, [3, 4], {**PARAMS, "anonymous_splits": True, "categorical": {"agency": {"agency_3": "partition"}}}
    )
    fitted = world.fit()
    sets = [node["cut"] for node in trees(world, fitted) if isinstance(node.get("cut"), tuple)]
    assert sets and all(len(left) == 1 and len(right) >= 1 for left, right in sets)
    scores = world.predict(fitted, X)["bank"].private["scores"]
    history = fitted["bank"].public["history"]["loss"]
    p = np.clip(scores, 1e-12, 1 - 1e-12)
    assert -np.mean(np.where(y == 1, np.log(p), np.log1p(-p))) == pytest.approx(history[-1])


@pytest.mark.parametrize("option", [{"anonymous_splits": True}, {"min_shown": 120}])
def test_a_run_with_defences_goes_on_to_the_same_model(option: dict[str, object]) -> None:
    X, y = table()
    journals = {member: Memory() for member in ("bank", "agency")}
    contexts = {member: RunContext(name="run", journal=journal) for member, journal in journals.items()}
    world = World(X, y, [3, 4], {**PARAMS, **option}, contexts)
    whole = world.fit()
    for journal in journals.values():
        journal.at = 2
    assert trees(world, world.fit()) == trees(world, whole)


def test_what_does_not_go_together_with_anonymous_splits_is_explained() -> None:
    X, y = table()
    for params, complaint in (
        ({"monotone_constraints": {"agency": {"agency_1": 1}}}, "none of agency's can be constrained"),
        ({"colsample_bytree": 0.5}, "colsample_bytree cannot choose"),
    ):
        with pytest.raises((DataError, PeerLost), match=complaint):
            World(X, y, [3, 4], {**PARAMS, "anonymous_splits": True, **params}).fit()
    # the active party's own may be
    World(X, y, [3, 4], {**PARAMS, "anonymous_splits": True, "monotone_constraints": {"bank": {"bank_1": 1}}}).fit()


def test_rounds_that_look_at_none_of_a_partys_columns_go_on() -> None:
    X, y = table()
    world = World(X, y, [6, 1], {**PARAMS, "colsample_bytree": 0.3})
    assert world.fit()["bank"].public["rounds"] == 4


@pytest.mark.parametrize(
    ("rule", "wish", "complaint"),
    [
        ({"min_leaf": 50}, {"leaf": 10.0}, "no leaf of fewer than 50 rows, and was asked for 10"),
        ({"min_shown": 500}, {"shown": 0.0}, "only where these are 500 or more, and was asked for 0"),
        ({"active_trees": 2}, {"alone": 1.0}, "does the first 2 rounds alone, and was asked for 1"),
        ({"max_purity": 0.95}, {"purity": 1.0}, "of which more than 0.95 are of one class, and was asked for 1"),
        ({"anonymous_splits": True}, {"anonymous": 0.0}, "Use anonymous_splits=True"),
    ],
)
def test_an_owner_can_ask_for_each_defence(rule: dict[str, object], wish: dict[str, float], complaint: str) -> None:
    usual = {name: getattr(vb.BoostingParams(), field) for name, field in vb.PROTOCOL.limits.items()}
    asked = {**{name: float(value) for name, value in usual.items()}, **wish}
    policy = ProtocolPolicy("bank", RulesConfig(**rule))  # type: ignore[arg-type]
    with pytest.raises(Refused, match=complaint) as caught:
        policy.check(Asked("run", "vertical_boosting", "ann", ["agency"], limits=asked))
    (name,) = rule
    assert caught.value.rule == f"protocols.{name}"
    given = {next(what for what in wish): float(rule[name])}  # type: ignore[arg-type]
    policy.check(Asked("run", "vertical_boosting", "ann", ["agency"], limits={**asked, **given}))
    # a protocol that has no such thing is not asked
    policy.check(Asked("run", "vertical_logistic", "ann", ["agency"], limits={"iterations": 10.0}))
