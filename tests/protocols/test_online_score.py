"""Applicants one by one by the real roles: the scores of a batch, and what nobody sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from boosting_world import World as Boosting
from test_scorecard import ROWS as CARD_ROWS
from test_scorecard import card
from test_vertical_score import World as Linear

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import online_score as o
from fednb.protocols import scorecard_score
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.model_part import seal
from fednb.protocols.online_part import Score, bring
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message


@dataclass
class Asked:
    id: str
    own: Dataset
    found: Any = None

    def answer(self, found: Score | DataError) -> None:
        self.found = found


@dataclass
class Queue:
    """Applicants that are known beforehand."""

    left: list[Asked]
    ready: bool = False
    why: list[str] = field(default_factory=list)

    def opened(self) -> None:
        self.ready = True

    def take(self, most: int) -> Sequence[Asked] | None:
        some, self.left = self.left[:2], self.left[2:]
        return some or None

    def over(self, why: str) -> None:
        self.why.append(why)


@dataclass
class Online:
    """bank asks; the others have the same ids "S 0", "S 1" ..., written in their own way."""

    parts: dict[str, Any]
    X: dict[str, np.ndarray]
    columns: tuple[str, ...]
    reasons: int = 0
    ids: dict[str, list[str]] = field(default_factory=dict)
    seals: dict[str, str] = field(default_factory=dict)
    alter: Callable[[str, str, Message], Message] = lambda me, to, message: message
    sent: list[tuple[str, str, Message]] = field(default_factory=list)

    def ask(self, *applicants: tuple[str, int]) -> list[Any]:
        """What became of each, an id and the row of the bank's features."""
        asked = [Asked(id, Dataset(X=self.X["bank"][[row]], columns=self.columns)) for id, row in applicants]
        self.queue = Queue(list(asked))
        kept = {member: {**part, "salt": b"s" * 32} for member, part in self.parts.items()}
        seals = {member: seal(part, b"s" * 32) for member, part in self.sealed().items()} | self.seals
        params = o.OnlineParams(session="0" * 32, seals=seals, reasons=self.reasons)

        def role(member: str) -> Callable[[Link], Outcome]:
            ids = self.ids.get(member, [f"s-{k}" for k in range(len(self.X[member]))])
            if member == "bank":
                data = Dataset(part=kept[member], asks=self.queue)
            else:
                data = Dataset(ids=ids, X=self.X[member], columns=self.columns, part=kept[member])
            world = self

            class Taped:
                def __init__(self, link: Link) -> None:
                    self.me, self.cast, self.recv, self._link = link.me, link.cast, link.recv, link

                def send(self, to: str, message: Message) -> None:
                    message = world.alter(member, to, message)
                    world.sent.append((member, to, message))
                    self._link.send(to, message)

            play_it = o.active if member == "bank" else o.passive
            return lambda link: play_it(Taped(link), data, params, RunContext(name="run"))

        members = list(self.parts)
        cast = {"active": ("bank",), "passive": tuple(members[1:])}
        self.out = play({member: role(member) for member in members}, cast, timeout=30)
        return [each.found for each in asked]

    def sealed(self) -> dict[str, dict[str, Any]]:
        """Parts as `model_part` seals them: by name, in order."""
        return {member: {name: part[name] for name in sorted(part)} for member, part in self.parts.items()}


def linear(passives: int, **more: Any) -> tuple[Online, Linear, np.ndarray]:
    world = Linear(passives, n=9)
    expected = world.play()["bank"].private["scores"]
    return Online(world.part, dict(world.X), ("x0", "x1"), **more), world, expected


@pytest.mark.parametrize("passives", [1, 2, 3])
def test_an_applicants_score_is_that_of_a_batch(passives: int) -> None:
    online, _, expected = linear(passives)
    found = online.ask(("S 3", 3), ("s7", 7), ("S 0", 0))
    assert [each.value for each in found] == pytest.approx(expected[[3, 7, 0]], abs=1e-12)
    assert online.queue.ready and online.queue.why == [""]
    assert online.out["agency"].public == {"answered": 3} and not online.out["agency"].private


def test_who_has_no_row_or_none_that_can_be_used_is_named() -> None:
    online, world, expected = linear(2)
    online.ids["telco"] = [f"s-{k}" for k in range(8)] + ["other"]
    online.X["agency"] = np.where(np.arange(9)[:, None] == 4, np.nan, online.X["agency"])
    found = online.ask(("S 8", 8), ("S 4", 4), ("stranger", 0), ("S 1", 1))
    assert [getattr(each, "members", None) for each in found] == [("telco",), ("agency",), ("agency", "telco"), None]
    assert found[3].value == pytest.approx(expected[1], abs=1e-12)


def test_passive_parties_see_nothing_of_who_is_asked_about() -> None:
    """The same applicant twice, and strangers, look alike: points that never come again, and of no table's."""
    online, _, _ = linear(2)
    online.ask(("S 3", 3), ("S 3", 3), ("stranger", 0), ("S 3", 3))
    asked = [m for s, r, m in online.sent if (s, r) == ("bank", "agency")]
    assert {type(m) for m in asked} == {o.Blinded}
    points = np.concatenate([m.points for m in asked])  # type: ignore[attr-defined]
    assert len(points) == 4 == len({p.tobytes() for p in points})
    other = [m for s, r, m in online.sent if (s, r) == ("bank", "telco")]
    assert all(np.array_equal(a.points, b.points) for a, b in zip(asked, other, strict=True))  # type: ignore


def test_sealed_rows_open_only_with_the_owners_help() -> None:
    online, world, _ = linear(1)
    online.ask(("S 3", 3))
    (rows,) = [m.rows for _, _, m in online.sent if isinstance(m, o.SealedPart)]
    values = bring("agency", Dataset(X=world.X["agency"], columns=("x0", "x1"), part=world.part["agency"]), 0).values
    assert rows.shape == (9, 16 + values.shape[1])
    assert not {row[16:].tobytes() for row in rows} & {value.tobytes() for value in values}
    again, _, _ = linear(1)
    again.ask(("S 3", 3))
    (later,) = [m.rows for _, _, m in again.sent if isinstance(m, o.SealedPart)]
    assert not {row[:16].tobytes() for row in rows} & {row[:16].tobytes() for row in later}, "sessions can be linked"


def test_of_several_passive_parties_only_the_sum_of_their_parts_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    online, world, _ = linear(2)
    opened: list[dict[str, bytes]] = []
    scoring = o.scoring

    def spied(*args: Any) -> Any:
        model = scoring(*args)
        score = model.score
        monkeypatch.setattr(model, "score", lambda own, values: opened.append(dict(values)) or score(own, values))
        return model

    monkeypatch.setattr(o, "scoring", spied)
    online.ask(("S 3", 3))
    (values,) = opened
    read = {member: np.frombuffer(value[:8], "<i8")[0] / 2.0**32 for member, value in values.items()}
    for member in ("agency", "telco"):
        assert abs(read[member] - world.share(member)[3]) > 1e3, "64 random bits, not a part"
    total = sum(np.frombuffer(value[:8], "<u8").astype(np.uint64) for value in values.values())
    both = world.share("agency")[3] + world.share("telco")[3]
    assert total.view(np.int64)[0] / 2.0**32 == pytest.approx(both, abs=1e-8)


def test_points_and_reasons_are_those_of_a_batch() -> None:
    parts = {"bank": card("bank", intercept=-2.0).private, "agency": card("agency").private}
    online = Online(parts, dict.fromkeys(parts, CARD_ROWS), ("a", "b"), reasons=2)

    def role(member: str) -> Any:
        data = Dataset(X=CARD_ROWS, columns=("a", "b"), part=parts[member])
        play_it = scorecard_score.active if member == "bank" else scorecard_score.passive
        return lambda link: play_it(link, data, scorecard_score.NoParams(), RunContext())

    batch = play({m: role(m) for m in parts}, {"active": ("bank",), "passive": ("agency",)}, timeout=10)["bank"]
    found = online.ask(*[(f"S {k}", k) for k in range(4)])
    assert [each.points for each in found] == batch.private["points"].tolist()
    assert [each.value for each in found] == batch.private["scores"].tolist()
    assert [each.reasons["agency"] for each in found] == [(1,), (2,), (1, 2), (1,)]
    assert found[3].no_evidence == {"bank": 1, "agency": 1} and found[0].no_evidence == {"bank": 0, "agency": 0}


def test_trees_score_one_applicant_as_many() -> None:
    rng = np.random.default_rng(5)
    X = np.round(rng.normal(size=(300, 5)) * 4)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = (np.nansum(X, axis=1) * 0.2 + rng.logistic(size=300) > 0).astype(float)
    world = Boosting(X, y, [2, 3], {"n_estimators": 4, "max_depth": 3})
    fitted = world.fit()
    expected = world.predict(fitted, X)["bank"].private["scores"]
    parts = {member: dict(fitted[member].private) for member in ("bank", "agency")}
    names = tuple(parts["bank"]["columns"]), tuple(parts["agency"]["columns"])
    online = Online(parts, {"bank": X, "agency": X}, (*names[0], *names[1]))
    found = online.ask(("S 3", 3), ("S 299", 299), ("S 17", 17))
    assert [each.value for each in found] == expected[[3, 299, 17]].tolist()


def test_a_part_that_changed_since_it_was_saved_serves_nobody() -> None:
    for member in ("bank", "agency"):
        online, _, _ = linear(1, seals={member: "0" * 64})
        with pytest.raises(DataError, match=f"{member}'s part of the model is not the one that was saved"):
            online.ask(("S 3", 3))
        assert online.queue.why and "not the one that was saved" in online.queue.why[0] and not online.queue.ready


def test_repeated_ids_and_reasons_that_a_model_has_not_are_refused() -> None:
    online, _, _ = linear(1)
    online.ids["agency"] = ["s-1"] * 9
    with pytest.raises(DataError, match="8 rows of agency's table repeat an id"):
        online.ask(("S 3", 3))
    online, _, _ = linear(1, reasons=1)
    with pytest.raises(DataError, match="given by scorecards only"):
        online.ask(("S 3", 3))


@pytest.mark.parametrize("kind", [o.Register, o.SealedPart, o.Evaluated, o.Blinded])
def test_messages_that_do_not_fit_are_refused_and_their_sender_is_named(kind: type[Message]) -> None:
    online, _, _ = linear(1)

    def alter(me: str, to: str, message: Message) -> Message:
        if isinstance(message, o.Register) and kind is o.Register:
            return o.Register(rows=message.rows, width=3)
        if isinstance(message, o.SealedPart) and kind is o.SealedPart:
            return o.SealedPart(message.rows[:-1])
        if isinstance(message, o.Evaluated) and kind is o.Evaluated:
            return o.Evaluated(np.zeros_like(message.points))  # a point of small order
        if isinstance(message, o.Blinded) and kind is o.Blinded and len(message.points):
            return o.Blinded(np.zeros_like(message.points))
        return message

    online.alter = alter
    with pytest.raises(UnexpectedMessage) as caught:
        online.ask(("S 3", 3))
    assert caught.value.member == ("bank" if kind is o.Blinded else "agency")
