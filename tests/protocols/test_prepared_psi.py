"""Alignment with a set that was prepared once: the same rows, the small side's cost, and only within its epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError, UnexpectedMessage
from fednb.protocols import prepared_psi as prepared
from fednb.protocols import psi
from fednb.protocols.base import Dataset, Outcome, Protocol, RunContext
from fednb.wire.codec import decode, encode
from fednb.wire.link import Link
from fednb.wire.loopback import play
from fednb.wire.message import Message

CAST = {"large": ("agency",), "small": ("bank",), "coordinator": ("coordinator",)}
ROLES = {"agency": "large", "bank": "small", "coordinator": "coordinator"}
MANY = [f"ZZ-{i:05d}" for i in range(500)]
Parts = Mapping[str, Mapping[str, Any]]
Alter = Callable[[str, Message], Message]


class Tape:
    """Every message in the order of sending: (sender, receiver, message)."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str, Message]] = []

    def kinds(self, sender: str, receiver: str) -> list[str]:
        return [type(m).__name__ for s, r, m in self.messages if (s, r) == (sender, receiver)]


class Recording:
    """A link that puts what it sends on a tape, or sends something else instead."""

    def __init__(self, link: Link, tape: Tape, alter: Alter | None) -> None:
        self.me, self.cast, self.recv = link.me, link.cast, link.recv
        self._link, self._tape, self._alter = link, tape, alter

    def send(self, to: str, message: Message) -> None:
        message = self._alter(to, message) if self._alter else message
        self._tape.messages.append((self.me, to, message))
        self._link.send(to, message)


class Kept(Message):
    values: dict[str, Any]


def run(
    protocol: Protocol,
    name: str,
    ids: Mapping[str, list[str]],
    parts: Parts | None = None,
    tape: Tape | None = None,
    alter: Mapping[str, Alter] | None = None,
    contexts: Mapping[str, RunContext] | None = None,
    **params: Any,
) -> dict[str, Outcome]:
    def role(member: str) -> Callable[[Link], Outcome]:
        own = np.array(ids[member], dtype=object) if member in ids else None
        data = Dataset(ids=own, part=(parts or {}).get(member, {}))
        context = (contexts or {}).get(member) or RunContext(name=name)
        play_it = protocol.roles[ROLES[member]].play
        taped = tape if tape is not None else Tape()
        return lambda link: play_it(
            Recording(link, taped, (alter or {}).get(member)), data, protocol.params(**params), context
        )

    return play({member: role(member) for member in ROLES}, CAST, timeout=60)


@pytest.fixture(scope="module")
def parts() -> Parts:
    """What each member keeps of an epoch, as its store gives it back."""
    out = run(prepared.PREPARE, "epoch-1", {"agency": MANY})
    return {m: decode(encode(Kept(dict(o.private))), Kept).values for m, o in out.items()}


def test_the_rows_are_those_of_a_plain_alignment(parts: Parts) -> None:
    bank = ["zz 00007", "nobody", "ZZ00499", "zz00000", ""]
    out = run(prepared.PROTOCOL, "run-1", {"bank": bank}, parts, epoch="epoch-1", duplicates="drop")
    assert out["bank"].private["index"].tolist() == [3, 0, 2]
    assert out["agency"].private["index"].tolist() == [0, 7, 499]
    assert out["coordinator"].public == {"matched": 3, "ids": {"agency": 500, "bank": 4}}
    said = out["agency"].public
    assert (said["rows"], said["ids"], said["matched"], said["formats"]) == (500, 500, 3, {"AA-99999": 500})
    assert (out["bank"].public["missing"], out["bank"].public["matched"]) == (1, 3)


def test_one_preparation_serves_many_runs_at_the_small_sides_cost(parts: Parts) -> None:
    for start in (0, 100, 490):
        contexts = {member: RunContext(name="run") for member in ROLES}
        tape = Tape()
        bank = {"bank": [f"zz{i:05d}" for i in range(start, start + 20)]}
        out = run(prepared.PROTOCOL, "run", bank, parts, tape, contexts=contexts, epoch="epoch-1")
        assert len(out["bank"].private["index"]) == min(20, 500 - start)
        assert {m: c.operations.get("curve", 0) for m, c in contexts.items()} == {
            "agency": 20,
            "bank": 40,
            "coordinator": 0,
        }
        assert sum(len(m.points) for _, _, m in tape.messages if isinstance(m, psi.Points)) == 40


def test_messages_go_where_the_picture_says(parts: Parts) -> None:
    tape = Tape()
    run(prepared.PREPARE, "epoch-2", {"agency": MANY}, tape=tape)
    assert tape.kinds("agency", "bank") == tape.kinds("bank", "coordinator") == ["Points"]
    assert tape.kinds("agency", "coordinator") == ["Announce"] and tape.kinds("bank", "agency") == []
    tape = Tape()
    run(prepared.PROTOCOL, "run", {"bank": MANY[:9]}, parts, tape, epoch="epoch-1")
    assert tape.kinds("bank", "coordinator") == ["Announce"]
    assert tape.kinds("bank", "agency") == ["Points", "Check"]
    assert tape.kinds("agency", "coordinator") == ["Points"] and tape.kinds("agency", "bank") == ["Secret", "Check"]
    assert tape.kinds("coordinator", "agency") == tape.kinds("coordinator", "bank") == ["Agreed", "Matches"]


def test_runs_of_one_epoch_can_be_linked_as_the_table_says_and_epochs_cannot(parts: Parts) -> None:
    def seen(epoch: str, parts: Parts) -> tuple[set[bytes], set[bytes]]:
        tape = Tape()
        run(prepared.PROTOCOL, "run", {"bank": MANY[:9]}, parts, tape, epoch=epoch)
        points = [(to, m) for _, to, m in tape.messages if isinstance(m, psi.Points)]
        by = [{row.tobytes() for to, m in points if to == who for row in m.points} for who in ("agency", "coordinator")]
        return by[0], by[1]

    first, again = seen("epoch-1", parts), seen("epoch-1", parts)
    assert first == again and not first[0] & first[1]
    out = run(prepared.PREPARE, "epoch-2", {"agency": MANY})
    other = seen("epoch-2", {member: o.private for member, o in out.items()})
    assert not (first[0] | first[1]) & (other[0] | other[1])


def test_what_is_kept_says_nothing_to_who_keeps_it(parts: Parts) -> None:
    assert set(parts["bank"]) == {"epoch", "between", "ends", "secret"}  # nothing of the large set
    assert not {"secret", "text", "rows"} & set(parts["coordinator"])
    text = b"zz00007"
    assert text in bytes(parts["agency"]["text"]) and text not in bytes(parts["coordinator"]["points"])
    assert parts["bank"]["secret"] != parts["agency"]["secret"]


@pytest.mark.parametrize("member", list(ROLES))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": time.time() - 1}, "is over"),
        ({"epoch": "epoch-0"}, "keeps no preparation"),
        ({"between": ["agency", "shop"]}, "keeps no preparation"),
    ],
)
def test_an_epoch_is_used_by_those_who_agreed_to_it_until_it_ends(
    parts: Parts, member: str, change: dict[str, Any], message: str
) -> None:
    changed = {**parts, member: {**parts[member], **change}}
    with pytest.raises(DataError, match=message) as caught:
        run(prepared.PROTOCOL, "run", {"bank": MANY[:3]}, changed, epoch="epoch-1")
    assert f"in the role of {member}" in caught.value.__notes__


def test_a_member_without_the_preparation_refuses(parts: Parts) -> None:
    with pytest.raises(DataError, match="agency keeps no preparation"):
        run(prepared.PROTOCOL, "run", {"bank": MANY[:3]}, {**parts, "agency": {}}, epoch="epoch-1")


def test_nothing_in_common_and_repeated_ids_are_explained(parts: Parts) -> None:
    with pytest.raises(DataError, match=r"no id is common.*agency writes ids as 'AA-99999' \(100%\)"):
        run(prepared.PROTOCOL, "run", {"bank": ["x"]}, parts, epoch="epoch-1")
    with pytest.raises(DataError, match="bank has 1 rows .* one-to-many joins are refused"):
        run(prepared.PROTOCOL, "run", {"bank": ["zz00001", "ZZ 00001"]}, parts, epoch="epoch-1")
    with pytest.raises(DataError, match="agency has 1 rows .* one-to-many joins are refused"):
        run(prepared.PREPARE, "epoch-3", {"agency": ["zz00001", "ZZ 00001"]})


def replaced(kind: type[Message], instead: Message) -> Alter:
    return lambda to, message: instead if isinstance(message, kind) else message


@pytest.mark.parametrize(
    ("who", "alter", "message"),
    [
        ("bank", replaced(psi.Announce, psi.Announce(ids=0, formats={})), "bank announced 0 ids"),
        ("coordinator", replaced(prepared.Agreed, prepared.Agreed(ids=7)), "coordinator agreed to another number"),
        ("bank", replaced(psi.Points, psi.Points(np.zeros((3, 32), np.uint8))), "bank sent points that cannot be used"),
        ("agency", replaced(psi.Points, psi.Points(np.zeros((3, 32), np.uint8))), "points repeat in the set of bank"),
        ("agency", replaced(psi.Points, psi.Points(np.zeros((4, 32), np.uint8))), "agency sent points of shape"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([1, 0]))), "coordinator sent matches"),
        ("coordinator", replaced(psi.Matches, psi.Matches(np.array([0]))), "told different matches"),
    ],
)
def test_what_does_not_fit_is_refused_naming_its_sender(parts: Parts, who: str, alter: Alter, message: str) -> None:
    with pytest.raises(UnexpectedMessage, match=message):
        run(prepared.PROTOCOL, "run", {"bank": MANY[:3]}, parts, alter={who: alter}, epoch="epoch-1")
