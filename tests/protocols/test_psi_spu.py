"""Alignment by a library in another process: what is around it, with a stand-in for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from spu_stand_in import StandIn

from fednb.errors import DataError, FednbError, PeerLost, RunCancelled, RunFailed, UnexpectedMessage
from fednb.protocols import psi, psi_spu
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.protocols.psi import PsiParams
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

Ids = Mapping[str, Sequence[Any]]
Alter = Callable[[Message], Message]
TWO: Ids = {"bank": ["ZZ 3", "zz-1", "zz 5", "ZZ9", "zz-4"], "agency": ["zz4", "ZZ-9", "ZZ 7", "zz 1"]}


class Altering:
    """A link that sends something else instead, and notes what it sends."""

    def __init__(self, link: Link, tape: list[Message], alter: Alter | None) -> None:
        self.me, self.cast, self._link, self._tape, self._alter = link.me, link.cast, link, tape, alter

    def send(self, to: str, message: Message) -> None:
        self._tape.append(self._alter(message) if self._alter else message)
        self._link.send(to, self._tape[-1])

    def recv(self, sender: str, kind: Any) -> Any:
        return self._link.recv(sender, kind)


def align(
    ids: Ids,
    engines: Mapping[str, StandIn] | None = None,
    tape: list[Message] | None = None,
    alter: Mapping[str, Alter] | None = None,
    contexts: Mapping[str, RunContext] | None = None,
) -> dict[str, Outcome]:
    cast = {"party": tuple(ids), "coordinator": ("coordinator",)}
    notes: list[Message] = [] if tape is None else tape
    given = {member: StandIn(member) for member in ids} | dict(engines or {})

    def role(member: str) -> Callable[[Link], Outcome]:
        run = (contexts or {}).get(member) or RunContext(name="run-1")
        data = Dataset(ids=np.array(ids[member], dtype=object), engine=given[member]) if member in ids else Dataset()
        play_it = psi_spu.party if member in ids else psi_spu.coordinator
        return lambda link: play_it(Altering(link, notes, (alter or {}).get(member)), data, PsiParams(), run)

    return play({member: role(member) for member in [*ids, "coordinator"]}, cast, timeout=20)


def test_it_finds_what_psi_finds_in_the_same_order_and_tells_the_same() -> None:
    engines = {member: StandIn(member) for member in TWO}
    out = align(TWO, engines)
    assert [[TWO[member][i] for i in out[member].private["index"]] for member in TWO] == [
        ["zz-1", "zz-4", "ZZ9"],
        ["zz 1", "zz4", "ZZ-9"],
    ]
    assert out["coordinator"] == Outcome(private={"rows": 3}, public={"matched": 3, "ids": {"bank": 5, "agency": 4}})
    assert out["bank"].public == {
        "rows": 5, "ids": 5, "duplicates": 0, "missing": 0, "matched": 3, "formats": out["bank"].public["formats"]
    }  # fmt: skip
    assert sorted(session.rank for each in engines.values() for session in each.sessions) == [0, 1]
    assert all(session.closed for each in engines.values() for session in each.sessions)


def test_many_ids_go_in_pieces_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psi_spu, "CHUNK", 16)
    monkeypatch.setattr(psi_spu, "usual_traffic", lambda first, second: (32 * first, 32 * second))
    ids = {"a": [f"x{i}" for i in range(1000)], "b": [f"X-{i}" for i in range(600, 1350)]}
    tape: list[Message] = []
    steps: list[tuple[str, int, int | None]] = []
    run = RunContext(name="run-1", emit=lambda phase, step, total, metrics: steps.append((phase, step, total)))
    out = align(ids, tape=tape, contexts={"a": run})
    assert [ids["a"][i] for i in out["a"].private["index"]] == sorted(f"x{i}" for i in range(600, 1000))
    assert sum(isinstance(m, psi_spu.Piece) and len(m.data) >= psi_spu.HASH for m in tape) == 10 + 8
    assert steps[-1] == ("intersect", 100, 100) and len(steps) > 3
    assert [step for _, step, _ in steps] == sorted({step for _, step, _ in steps})


def test_a_process_gets_hashes_of_one_run_only() -> None:
    seen: list[set[bytes]] = []
    for name in ("run-1", "run-2"):
        tape: list[Message] = []
        align({"a": ["1", "2"], "b": ["2", "3"]}, tape=tape, contexts=dict.fromkeys("ab", RunContext(name=name)))
        said = [m.data.tobytes() for m in tape if isinstance(m, psi_spu.Piece) and len(m.data) >= psi_spu.HASH]
        seen.append({each[at : at + psi_spu.HASH] for each in said for at in range(0, len(each), psi_spu.HASH)})
    assert [len(each) for each in seen] == [3, 3]
    assert not seen[0] & seen[1]


@pytest.mark.parametrize("says", [b"0" * 32, b"0" * 31, "twice"], ids=["another", "half", "twice"])
def test_matches_that_are_not_among_the_ids_are_not_believed(says: bytes | str) -> None:
    if says == "twice":
        one = psi_spu._hashes(psi.spelling.prepare(TWO["bank"][:1]), RunContext(name="run-1")).tobytes()
        says = one + one
    assert isinstance(says, bytes)
    with pytest.raises(UnexpectedMessage, match="spu gave bank matches that are not among its ids"):
        align(TWO, {"bank": StandIn("bank", says=says)})


def test_parties_that_were_told_different_matches_do_not_go_on() -> None:
    one = psi_spu._hashes(psi.spelling.prepare(["zz1"]), RunContext(name="run-1")).tobytes()
    with pytest.raises(UnexpectedMessage, match="were told different matches; align again"):
        align(TWO, {"bank": StandIn("bank", says=one)})


def test_numbers_that_differ_are_no_alignment() -> None:
    def more(message: Message) -> Message:
        return psi_spu.Matched(4) if isinstance(message, psi_spu.Matched) else message

    with pytest.raises(UnexpectedMessage, match="bank and agency say that they have 4 and 3 ids in common"):
        align(TWO, alter={"bank": more})
    with pytest.raises(UnexpectedMessage, match="coordinator repeated another number"):
        align(TWO, alter={"coordinator": more})


def test_nothing_in_common_is_explained_by_how_ids_are_written() -> None:
    with pytest.raises(DataError, match="no id is common.* bank writes ids as .*agency writes ids as"):
        align({"bank": ["ZZ 1"], "agency": ["7"]})


@pytest.mark.parametrize("victim", ["bank", "agency"])
def test_whose_process_ends_early_is_named_and_the_others_is_ended(victim: str) -> None:
    engines = {member: StandIn(member, fails=member == victim, waits=True) for member in TWO}
    with pytest.raises(FednbError, match=f"{victim}'s spu ended without a result"):
        align(TWO, engines)
    assert all(session.closed for each in engines.values() for session in each.sessions)


def test_one_that_fails_after_its_matches_is_an_error_too() -> None:
    engines = {member: StandIn(member) for member in TWO}

    def fail(message: Message) -> Message:
        if isinstance(message, psi_spu.Piece) and message.word == "matched":
            engines["bank"].fails = True
        return message

    with pytest.raises(FednbError, match="bank's spu ended without a result"):
        align(TWO, engines, alter={"bank": fail, "agency": lambda message: _late(message)})
    assert all(session.closed for each in engines.values() for session in each.sessions)


def _late(message: Message) -> Message:
    if isinstance(message, psi_spu.Piece) and message.word == "matched":
        threading.Event().wait(0.5)
    return message


def test_a_cancelled_run_ends_both_processes() -> None:
    waiting = threading.Event()

    def check() -> None:
        if waiting.is_set():
            raise RunCancelled("enough")
        waiting.set()

    engines = {member: StandIn(member, waits=True) for member in TWO}
    with pytest.raises((RunCancelled, PeerLost, RunFailed), match="enough"):
        align(TWO, engines, contexts={"bank": RunContext(name="run-1", check=check)})
    assert all(session.closed for each in engines.values() for session in each.sessions)


@pytest.mark.parametrize(
    "data",
    [np.zeros(8, np.int64), np.zeros((2, 2), np.uint8), np.zeros(psi_spu.MOST + 1, np.uint8), np.zeros(0, np.uint8)],
    ids=["integers", "two dimensions", "too long", "empty"],
)
def test_pieces_that_are_none_are_refused(data: np.ndarray) -> None:
    def other(message: Message) -> Message:
        return psi_spu.Piece(data) if isinstance(message, psi_spu.Piece) else message

    with pytest.raises(UnexpectedMessage, match="agency sent a piece that is not up to"):
        align(TWO, alter={"agency": other})


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (["end"], "'end' out of order"),
        (["matched", "matched"], "'matched' out of order"),
        (["matched", "end"], "'end'"),
    ],
)
def test_who_ends_before_both_have_matches_is_named(says: list[str], words: str) -> None:
    """Else the other would wait for ever for what nobody says."""
    left = list(says)

    def other(message: Message) -> Message:
        if isinstance(message, psi_spu.Piece) and left:
            return psi_spu.Piece(message.data, left.pop(0))  # type: ignore[arg-type]
        return message

    with pytest.raises(UnexpectedMessage, match=f"agency said {words}"):
        align(TWO, {"bank": StandIn("bank", waits=True)}, alter={"agency": other})


def test_more_than_the_announced_ids_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a party may bring is what it announced, as near as that can be seen from outside."""
    enough = (
        5 * psi_spu.HASH // 2 + 4,
        4 * psi_spu.HASH // 2 + 4,
    )  # half of bank's hashes, of agency's, and of "endlate"
    monkeypatch.setattr(psi_spu, "usual_traffic", lambda first, second: enough)
    align(TWO)
    for place, who in enumerate(TWO):
        less = tuple(each - 8 * (place == rank) for rank, each in enumerate(enough))
        monkeypatch.setattr(psi_spu, "usual_traffic", lambda first, second, less=less: less)
        with pytest.raises(UnexpectedMessage, match=f"{who} sends more than so many ids as it announced take"):
            align(TWO)


def test_more_matches_than_the_other_has_ids_are_not_believed() -> None:
    left = [psi.Ring(order=["bank", "agency"], ids=[5, 2])]  # what bank is told; agency hears what is so

    def fewer(message: Message) -> Message:
        return left.pop() if isinstance(message, psi.Ring) and left else message

    with pytest.raises(UnexpectedMessage, match="agency has more matches than ids that it announced"):
        align(TWO, alter={"coordinator": fewer})


def test_three_parties_use_another_method() -> None:
    with pytest.raises(DataError, match="two parties; align more with method='ecdh'"):
        align({"a": ["1"], "b": ["1"], "c": ["1"]})
