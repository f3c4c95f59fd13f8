"""Scores by their real roles: the sum at the active party, and nothing else anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols import vertical_score as vs
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.features import fit_scaling
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message


def model(X: np.ndarray, coef: np.ndarray, **more: Any) -> dict[str, Any]:
    scaling = fit_scaling(X, standardize=True, clip=3.0)
    return {"coef": coef, "columns": [f"x{j}" for j in range(X.shape[1])], **scaling.to_part(), **more}


class World:
    def __init__(self, passives: int, n: int = 50) -> None:
        rng = np.random.default_rng(passives)
        self.members = ["bank", "agency", "telco", "energy"][: 1 + passives]
        self.X = {member: rng.normal(size=(n, 2)) * 5 + 1 for member in self.members}
        self.part = {m: model(rng.normal(size=(80, 2)) * 4, rng.normal(size=2)) for m in self.members}
        self.part["bank"]["intercept"] = -0.5
        self.columns = dict.fromkeys(self.members, ("x0", "x1"))
        self.sent: list[tuple[str, str, Message]] = []
        self.alter: Callable[[str, str, Message], Message] = lambda me, to, message: message

    def share(self, member: str) -> np.ndarray:
        p = self.part[member]
        return np.asarray((np.clip(self.X[member], p["low"], p["high"]) - p["centre"]) / p["scale"] @ p["coef"])

    def play(self) -> dict[str, Outcome]:
        def role(member: str) -> Callable[[Link], Outcome]:
            data = Dataset(X=self.X[member], columns=self.columns[member], part=self.part[member])
            play_it = vs.active if member == "bank" else vs.passive

            class Taped:
                def __init__(self, link: Link) -> None:
                    self.me, self.cast, self.recv, self._link = link.me, link.cast, link.recv, link

                def send(taped, to: str, message: Message) -> None:
                    message = self.alter(member, to, message)
                    self.sent.append((member, to, message))
                    taped._link.send(to, message)

            return lambda link: play_it(Taped(link), data, vs.ScoreParams(), RunContext(name="run"))

        cast = {"active": ("bank",), "passive": tuple(self.members[1:])}
        return play({member: role(member) for member in self.members}, cast, timeout=30)


@pytest.mark.parametrize("passives", [1, 2, 3])
def test_scores_are_the_sum_of_what_all_parties_add(passives: int) -> None:
    world = World(passives)
    out = world.play()
    linear = sum(world.share(member) for member in world.members) - 0.5
    np.testing.assert_allclose(out["bank"].private["linear"], linear, atol=1e-8)
    np.testing.assert_allclose(out["bank"].private["scores"], 1 / (1 + np.exp(-linear)), atol=1e-8)
    assert out["bank"].public == {"rows": 50} and not out["agency"].private


def test_of_several_passive_parties_the_active_one_sees_only_the_sum() -> None:
    world = World(2)
    world.play()
    for sender in ("agency", "telco"):
        (partial,) = [m for s, r, m in world.sent if (s, r) == (sender, "bank")]
        seen = np.ldexp(partial.part.view(np.int64).astype(float), -vs.FRACTION_BITS)
        assert np.abs(np.corrcoef(seen, world.share(sender))[0, 1]) < 0.5
        assert np.median(np.abs(seen)) > 1e6  # 64 random bits, not a score
    assert {(s, r) for s, r, m in world.sent if isinstance(m, vs.Seed)} == {("agency", "telco")}


def test_masks_differ_from_run_to_run() -> None:
    first, second = World(2), World(2)
    first.play()
    second.play()
    a, b = (next(m.part for s, _, m in w.sent if s == "agency" and isinstance(m, vs.Partial)) for w in (first, second))
    assert not np.any(a == b)


def test_columns_may_come_in_another_order() -> None:
    world = World(1)
    expected = world.play()["bank"].private["scores"]
    world.X["agency"] = world.X["agency"][:, ::-1]
    world.columns["agency"] = ("x1", "x0")
    assert np.array_equal(world.play()["bank"].private["scores"], expected)


def test_scoring_needs_a_model_and_its_columns() -> None:
    world = World(1)
    world.columns["agency"] = ("x0", "y0")
    with pytest.raises(DataError, match="agency's model was trained on 'x1', which these rows lack"):
        world.play()
    world = World(1)
    world.part["agency"] = {}
    with pytest.raises(DataError, match="agency holds no model"):
        world.play()


def test_missing_values_are_explained() -> None:
    world = World(1)
    world.X["agency"][3, 1] = np.nan
    with pytest.raises(DataError, match=r"agency has missing values in 'x1' \(1 rows\)"):
        world.play()


@pytest.mark.parametrize(
    ("who", "instead", "message"),
    [
        ("agency", vs.Partial(np.zeros(49, np.uint64)), r"agency sent \(49,\) scores for 50 rows"),
        ("agency", vs.Partial(np.zeros((50, 1), np.uint64)), "agency sent"),
        ("agency", vs.Partial(np.zeros(50)), "agency sent"),
        ("agency", vs.Seed(b"short"), "agency sent a seed of 5 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_naming_its_sender(who: str, instead: Message, message: str) -> None:
    world = World(2)
    world.alter = lambda me, to, sent: instead if me == who and type(sent) is type(instead) else sent
    with pytest.raises(UnexpectedMessage, match=message):
        world.play()


def test_scores_beyond_all_bounds_are_refused() -> None:
    world = World(1)
    world.part["agency"]["coef"] = np.array([1e9, 1e9])
    with pytest.raises(CryptoError, match="outside"):
        world.play()
