"""Alignment by its real roles: the rows, what crossed, and what happens when somebody misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fednb.crypto import curve
from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import psi
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.psi import PsiParams
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

Alter = Callable[[str, Message], Message]


class Taped:
    """A link that notes what it sends, or sends something else instead."""

    def __init__(self, link: Link, tape: list[tuple[str, str, Message]], alter: Alter | None) -> None:
        self.me, self.cast, self._link, self._tape, self._alter = link.me, link.cast, link, tape, alter

    def send(self, to: str, message: Message) -> None:
        message = self._alter(to, message) if self._alter else message
        self._tape.append((self.me, to, message))
        self._link.send(to, message)

    def recv(self, sender: str, kind: Any) -> Any:
        return self._link.recv(sender, kind)


def align(
    ids: Mapping[str, Sequence[Any]],
    tape: list[tuple[str, str, Message]] | None = None,
    alter: Mapping[str, Alter] | None = None,
    contexts: Mapping[str, RunContext] | None = None,
    **params: Any,
) -> dict[str, Outcome]:
    cast = {"party": tuple(ids), "coordinator": ("coordinator",)}
    notes: list[tuple[str, str, Message]] = [] if tape is None else tape

    def role(member: str) -> Callable[[Link], Outcome]:
        run = (contexts or {}).get(member) or RunContext(name="run-1")
        data = Dataset(ids=np.array(ids[member], dtype=object)) if member in ids else Dataset()
        play_it = psi.party if member in ids else psi.coordinator
        return lambda link: play_it(Taped(link, notes, (alter or {}).get(member)), data, PsiParams(**params), run)

    return play({member: role(member) for member in [*ids, "coordinator"]}, cast, timeout=60)


def rows(ids: Mapping[str, Sequence[Any]], out: Mapping[str, Outcome], member: str) -> list[Any]:
    return [ids[member][i] for i in out[member].private["index"]]


TWO = {
    "bank": ["ZZ 3", "zz-1", "zz 5", "ZZ9", "zz-4"],
    "agency": ["zz4", "ZZ-9", "ZZ 7", "zz 1"],
}


def test_common_ids_are_found_in_one_order_at_both_parties() -> None:
    out = align(TWO)
    assert rows(TWO, out, "bank") == ["zz-1", "zz-4", "ZZ9"]
    assert rows(TWO, out, "agency") == ["zz 1", "zz4", "ZZ-9"]
    assert out["coordinator"].public == {"matched": 3, "ids": {"bank": 5, "agency": 4}}
    assert out["coordinator"].private["rows"] == 3


def test_rows_stand_in_the_order_of_the_utf8_bytes_of_their_normalised_ids() -> None:
    ids = {"a": ["é", "z", "10", "9", "Z1"], "b": ["9", "z1", "É", "10", "Z"]}
    out = align(ids)
    expected = sorted(["é", "z", "10", "9", "z1"], key=lambda text: text.encode())
    assert [text.lower() for text in rows(ids, out, "a")] == expected
    assert [text.lower() for text in rows(ids, out, "b")] == expected


def test_many_ids_travel_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psi, "CHUNK", 16)
    ids = {"a": [f"x{i}" for i in range(0, 100)], "b": [f"X-{i}" for i in range(60, 135)]}
    tape: list[tuple[str, str, Message]] = []
    steps: list[tuple[int, int]] = []
    run = RunContext(name="run-1", emit=lambda phase, step, total, metrics: steps.append((step, total or 0)))
    out = align(ids, tape, contexts={"a": run})
    assert len(out["a"].private["index"]) == 40
    assert [int(text[1:]) for text in rows(ids, out, "a")] == [int(text[2:]) for text in rows(ids, out, "b")]
    assert sum(isinstance(m, psi.Points) for _, _, m in tape) == 2 * (7 + 5)
    assert steps[-1] == (275, 275) and run.operations["curve"] == 275


def test_three_parties_learn_what_all_of_them_share_and_no_pair() -> None:
    ids = {"a": list("abcdef"), "b": list("bcdxyz"), "c": list("cdefyz")}
    tape: list[tuple[str, str, Message]] = []
    out = align(ids, tape)
    assert [rows(ids, out, member) for member in ids] == [["c", "d"]] * 3
    assert all(isinstance(m, psi.Ring | psi.Matches) for s, r, m in tape if s == "coordinator")
    # nobody but the coordinator meets points that all three have multiplied, by which sets could be compared
    finished = {p.tobytes() for _, r, m in tape if r == "coordinator" and isinstance(m, psi.Points) for p in m.points}
    assert len(finished) == len(set("abcdefxyz"))
    for member in ids:
        met = {p.tobytes() for _, r, m in tape if r == member and isinstance(m, psi.Points) for p in m.points}
        assert len(met) == 12 and not met & finished


def test_no_id_no_hash_and_no_order_leaves_a_party() -> None:
    ids = {"a": [f"secret-{i:03d}" for i in range(40)], "b": [f"secret-{i:03d}" for i in range(20, 60)]}
    tape: list[tuple[str, str, Message]] = []
    align(ids, tape)
    names = [f"secret{i:03d}".encode() for i in range(60)]
    bare = {p.tobytes() for p in curve.hash_to_curve(names, b"run-1")}
    for _, _, message in tape:
        assert not any(name in repr(message).encode() for name in names)
        if isinstance(message, psi.Points):
            assert not {p.tobytes() for p in message.points} & bare
    # the same set twice: other secrets, other points
    again: list[tuple[str, str, Message]] = []
    align(ids, again)
    first, second = (
        {p.tobytes() for _, _, m in notes if isinstance(m, psi.Points) for p in m.points} for notes in (tape, again)
    )
    assert not first & second


def test_points_of_one_run_are_of_no_use_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = curve.random_scalar()
    monkeypatch.setattr(curve, "random_scalar", lambda: fixed)

    def points_of(run: str) -> set[bytes]:
        tape: list[tuple[str, str, Message]] = []
        align(TWO, tape, contexts={member: RunContext(name=run) for member in TWO})
        return {p.tobytes() for _, _, m in tape if isinstance(m, psi.Points) for p in m.points}

    assert points_of("run-1") == points_of("run-1")  # with the same secret, which never happens
    assert not points_of("run-1") & points_of("run-2")


def test_sets_of_different_sizes_go_around_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psi, "CHUNK", 8)
    ids = {"a": [f"{i}" for i in range(50)], "b": [f"{i}" for i in range(40, 43)], "c": [f"{i}" for i in range(25, 60)]}
    tape: list[tuple[str, str, Message]] = []
    out = align(ids, tape)
    assert [rows(ids, out, member) for member in ids] == [["40", "41", "42"]] * 3
    points = [(s, r) for s, r, m in tape if isinstance(m, psi.Points)]
    # nobody is far ahead: what c has been sent it has passed on, but for the chunks of one round
    lead = np.cumsum([(r == "c") - (s == "c") for s, r in points])
    assert np.abs(lead).max() <= 6


def test_a_party_that_sends_an_id_twice_is_found_out() -> None:
    def twice(to: str, message: Message) -> Message:
        if isinstance(message, psi.Points) and to == "agency":
            return psi.Points(message.points[[0, 0, 1, 2, 3]])
        return message

    with pytest.raises(UnexpectedMessage, match="points repeat in the set of bank"):
        align(TWO, alter={"bank": twice})


def test_matches_do_not_tell_which_rows_they_are() -> None:
    ids = {"a": [f"{i}" for i in range(200)], "b": [f"{i}" for i in range(100)]}
    tape: list[tuple[str, str, Message]] = []
    align(ids, tape)
    positions = next(m.positions for _, r, m in tape if r == "a" and isinstance(m, psi.Matches))
    assert len(positions) == 100 and set(positions.tolist()) != set(range(100))  # the coordinator sees a shuffled set


def test_messages_go_where_the_picture_says() -> None:
    tape: list[tuple[str, str, Message]] = []
    align(TWO, tape)
    kinds: dict[tuple[str, str], list[str]] = {}
    for sender, receiver, message in tape:
        kinds.setdefault((sender, receiver), []).append(type(message).__name__)
    assert kinds == {
        ("bank", "coordinator"): ["Announce", "Points"],
        ("agency", "coordinator"): ["Announce", "Points"],
        ("coordinator", "bank"): ["Ring", "Matches"],
        ("coordinator", "agency"): ["Ring", "Matches"],
        ("bank", "agency"): ["Points", "Secret", "Check"],
        ("agency", "bank"): ["Points", "Check"],
    }


def test_nothing_in_common_is_explained_by_formats_not_ids() -> None:
    ids = {"bank": [f"12-AB{i:02d}" for i in range(30)], "agency": [f"{i:06d}" for i in range(30)]}
    with pytest.raises(DataError) as caught:
        align(ids)
    assert "bank writes ids as '99-AA99' (100%)." in str(caught.value)
    assert "agency writes ids as '999999' (100%)." in str(caught.value)
    assert "AB07" not in str(caught.value) and "000007" not in str(caught.value)


def test_repeated_ids_are_refused_with_their_number() -> None:
    ids = {**TWO, "bank": ["a", "b", "A", "a ", "c"]}
    with pytest.raises(DataError, match=r"bank has 2 rows whose id .* one-to-many joins are refused"):
        align(ids)


def test_the_first_of_repeated_ids_is_kept_on_request() -> None:
    ids = {"bank": ["zz4", "b", "ZZ 4", None, ""], "agency": TWO["agency"]}
    out = align(ids, duplicates="drop")
    assert out["bank"].private["index"].tolist() == [0]
    said = dict(out["bank"].public)
    assert said.pop("formats") == {"other": 3}
    assert said == {"rows": 5, "ids": 2, "duplicates": 1, "missing": 2, "matched": 1}


@pytest.mark.parametrize(
    ("ids", "params", "message"),
    [
        ({"bank": [None, ""], "agency": ["a"]}, {}, "bank has no ids to align on; 2 rows have none"),
        (TWO, {"max_ids": 4}, "bank has 5 ids, and this alignment allows 4 a party"),
        ({"bank": ["a"]}, {}, "two parties or more"),
    ],
)
def test_what_cannot_be_aligned_is_explained(ids: Any, params: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        align(ids, **params)


def points(array: np.ndarray) -> Alter:
    return lambda to, message: psi.Points(array) if isinstance(message, psi.Points) else message


def replaced(kind: type[Message], instead: Message) -> Alter:
    return lambda to, message: instead if isinstance(message, kind) else message


SMALL_ORDER = np.zeros((5, 32), np.uint8)
P = 2**255 - 19
TWIST = next(u for u in range(2, 50) if pow(u * (u * u + 486662 * u + 1), (P - 1) // 2, P) == P - 1)
OFF_CURVE = np.frombuffer(TWIST.to_bytes(32, "little") * 5, np.uint8).reshape(5, 32)


@pytest.mark.parametrize(
    ("who", "alter", "message"),
    [
        ("bank", points(SMALL_ORDER), "bank sent points that cannot be used"),
        ("bank", points(OFF_CURVE), "bank sent points that cannot be used"),
        ("bank", points(np.full((5, 32), 255, np.uint8)), "bank sent points that cannot be used"),
        ("bank", points(np.zeros((6, 32), np.uint8)), r"bank sent points of shape \(6, 32\)"),
        ("bank", points(np.zeros((0, 32), np.uint8)), r"bank sent points of shape \(0, 32\)"),
        ("bank", points(np.zeros((5, 31), np.uint8)), r"bank sent points of shape \(5, 31\)"),
        ("bank", points(np.zeros((5, 32), np.int64)), "bank sent points"),
        ("bank", replaced(psi.Announce, psi.Announce(ids=-1, formats={})), "bank announced -1 ids"),
        ("bank", replaced(psi.Announce, psi.Announce(ids=4, formats={})), "coordinator sent a ring"),
        ("bank", replaced(psi.Check, psi.Check(b"x")), "told different matches"),
        ("coordinator", replaced(psi.Ring, psi.Ring(["agency", "bank"], [4, 5])), "coordinator sent a ring"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([9]))), "coordinator sent matches"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([1, 1]))), "coordinator sent matches"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([], np.int64))), "coordinator sent matches"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([0.5]))), "coordinator sent matches"),
    ],
)
def test_what_does_not_fit_is_refused_naming_its_sender(who: str, alter: Alter, message: str) -> None:
    with pytest.raises(UnexpectedMessage, match=message):
        align(TWO, alter={who: alter})


def test_a_coordinator_that_mixes_rows_up_is_found_out() -> None:
    def lie(to: str, message: Message) -> Message:
        if to == "bank" and isinstance(message, psi.Matches):
            wrong = [i for i in range(5) if i not in message.positions][0]
            return psi.Matches(np.sort(np.append(message.positions[1:], wrong)))
        return message

    with pytest.raises(UnexpectedMessage, match="told different matches"):
        align(TWO, alter={"coordinator": lie})
