"""Points and reasons by their real roles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError, Refused, UnexpectedMessage
from fednb.protocols import scorecard, scorecard_score
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.scorecard import CardParams, OverrideParams
from fednb.protocols.scorecard_score import NoParams, ReasonParams, Reasons
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

# two columns in three cells each (below the cut, from it up, missing), weights of evidence and bins by cell
CODING: dict[str, Any] = {
    "columns": ["a", "b"],
    "points": [np.array([0.0]), np.array([10.0])],
    "special": [],
    "woe": [np.array([-1.0, 1.0, 0.0]), np.array([0.5, -0.5, 0.25])],
    "bin": [np.array([0, 1, NEUTRAL]), np.array([0, 1, 2])],
}
SCALING = {"low": [-np.inf] * 2, "high": [np.inf] * 2, "centre": [0.2, 0.1], "scale": [1.0, 2.0]}
MODEL: dict[str, Any] = {"coef": [-0.8, -0.6], "columns": ["a", "b"], **SCALING}


def card(member: str = "agency", digits: int = 3, **model: Any) -> Outcome:
    data = Dataset(part={**MODEL, **model}, origin=CODING)
    params = CardParams(base_score=600, base_odds=30, pdo=20, digits=digits)
    roles = {member: lambda link: scorecard.party(link, data, params, RunContext())}
    return play(roles, {"party": (member,)}, timeout=10)[member]


def test_points_are_the_scaled_part_of_the_log_odds() -> None:
    factor = 20 / np.log(2)
    made = card().private
    assert made["card"][0] == pytest.approx([factor * 0.8 * (-1 - 0.2), factor * 0.8 * (1 - 0.2)], abs=1e-3)
    assert made["card"][1][2] == pytest.approx(factor * 0.6 * (0.25 - 0.1) / 2, abs=1e-3)
    assert made["neutral"][0] == pytest.approx(factor * 0.8 * -0.2, abs=1e-3)
    active = card(intercept=-2.0)
    assert active.private["base"] == pytest.approx(600 + factor * (2 - np.log(30)), abs=1e-3)
    assert active.public["card"] == active.private["card"]


def test_a_passive_party_makes_no_points_public() -> None:
    said = card().public
    assert set(said) == {"columns", "woe"} and said["woe"] == [[-1.0, 1.0], [0.5, -0.5, 0.25]], "known from the binning"


def test_points_of_the_odds_double_with_pdo() -> None:
    at, doubled = (card(intercept=-np.log(odds), digits=6).private["base"] for odds in (30, 60))
    assert at == pytest.approx(600) and doubled == pytest.approx(620)


def test_only_the_active_party_can_be_overridden() -> None:
    def override(part: Any, **params: Any) -> Outcome:
        asked = OverrideParams(**{"column": "a", "bin": 0, "points": 7.0, "reason": "because", **params})
        roles = {"bank": lambda link: scorecard.override(link, Dataset(part=part), asked, RunContext())}
        return play(roles, {"party": ("bank",)}, timeout=10)["bank"]

    active = card(intercept=-2.0).private
    once = override(active)
    assert once.private["card"][0][0] == 7.0 and active["card"][0][0] != 7.0
    twice = override(once.private, points=9.0)
    assert [entry["points"] for entry in twice.public["overrides"]] == [7.0, 9.0]
    assert twice.private["overrides"][1]["before"] == 7.0
    with pytest.raises(Refused):
        override(card().private)
    with pytest.raises(DataError, match="has no 'z'"):
        override(active, column="z")


def reasons(
    parts: dict[str, Any], X: np.ndarray, alter: Any = None, most: int = 2
) -> tuple[dict[str, Outcome], list[Message]]:
    sent: list[Message] = []
    params = ReasonParams(name="why", most=most)

    def role(member: str) -> Any:
        data = Dataset(X=X, columns=("a", "b"), part=parts[member])
        function = scorecard_score.ask_reasons if member == "bank" else scorecard_score.give_reasons

        class Taped:
            def __init__(self, link: Link) -> None:
                self.me, self.cast, self.recv, self._link = link.me, link.cast, link.recv, link

            def send(self, to: str, message: Message) -> None:
                message = alter(message) if alter else message
                sent.append(message)
                self._link.send(to, message)

        return lambda link: function(Taped(link), data, params, RunContext())

    cast = {"active": ("bank",), "passive": tuple(name for name in parts if name != "bank")}
    return play({member: role(member) for member in parts}, cast, timeout=10), sent


ROWS = np.array([[-1.0, 0.0], [1.0, 20.0], [-1.0, 20.0], [np.nan, np.nan]])


@pytest.mark.parametrize("others", [["agency"], ["agency", "telco"]])
def test_reasons_name_what_cost_most_and_nothing_else(others: list[str]) -> None:
    parts = {"bank": card("bank", intercept=-2.0).private, **{name: card(name).private for name in others}}
    out, sent = reasons(parts, ROWS)
    name, table = out["bank"].table or ("", {})
    assert name == "why" and set(table) == {f"{p}_{k}" for p in ("bank", *others) for k in (1, 2)}
    # the card gives a: -27.7, 18.5 (none: -4.6); b: 3.5, -5.2, 1.3
    assert table["agency_1"].tolist() == [1, 2, 1, 1] and table["agency_2"].tolist() == [0, 0, 2, 0]
    assert all(isinstance(message, Reasons) for message in sent) and len(sent) == len(others)
    assert set(np.concatenate([m.codes.ravel() for m in sent])) <= {0, 1, 2}  # type: ignore[attr-defined]
    for member in others:
        assert out[member].public == {"rows": 4} and out[member].table is None and not out[member].private


def test_reasons_that_do_not_fit_are_refused() -> None:
    parts = {"bank": card("bank", intercept=-2.0).private, "agency": card().private}
    with pytest.raises(UnexpectedMessage, match="agency sent reasons that do not fit 4 rows"):
        reasons(parts, ROWS, lambda m: Reasons(m.codes[:2]))


def test_a_passive_party_cannot_take_the_active_ones_seat() -> None:
    parts = {"bank": card().private, "agency": card(intercept=-2.0).private}
    with pytest.raises(DataError, match="bank was not the active party"):
        reasons(parts, ROWS)
    roles = {
        "bank": lambda link: scorecard_score.active(link, rows(parts["bank"]), NoParams(), RunContext()),
        "agency": lambda link: scorecard_score.passive(link, rows(parts["agency"]), NoParams(), RunContext()),
    }
    with pytest.raises(DataError, match="bank was not the active party"):
        play(roles, {"active": ("bank",), "passive": ("agency",)}, timeout=10)


def rows(part: Any) -> Dataset:
    return Dataset(X=ROWS, columns=("a", "b"), part=part)
