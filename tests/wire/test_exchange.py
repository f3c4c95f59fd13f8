"""Handshakes and sessions without a socket: any order of opening, over a way that loses records, on simulated time."""

from __future__ import annotations

import collections
import random
import threading
from typing import Any

import pytest

from fednb.errors import LinkError, PeerLost
from fednb.wire import exchange as exchange_module
from fednb.wire.exchange import Exchange, SealedTalk
from fednb.wire.keys import Identity, Roster
from fednb.wire.message import Message
from fednb.wire.switchboard import Switchboard

HUB, BANK, AGENCY = (Identity.generate(name) for name in ("hub", "bank", "agency"))
ROSTER = Roster([HUB.public("hub"), BANK.public("party"), AGENCY.public("party")])


class Note(Message):
    n: int


class World:
    """Two exchanges, what is on the way between them, and a clock."""

    def __init__(self, *, loss: float = 0.0, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 100.0
        self.ends: dict[str, Exchange] = {}
        self.replay: list[tuple[str, str, bytes]] = []
        for identity in (BANK, AGENCY):
            self.start(identity)
        for me, peer in (("bank", "agency"), ("agency", "bank")):
            self.ends[me].peer_up(peer, self.ends[peer].incarnation, self.now)

    def start(self, identity: Identity) -> Exchange:
        name = identity.name
        incarnation = self.rng.randbytes(16)
        self.ends[name] = Exchange(identity, ROSTER, name, incarnation, Switchboard(name), lambda: None)
        self.ends[name].adopt_thread()
        return self.ends[name]

    def open(self, me: str, peer: str, context: str = "run/1") -> SealedTalk:
        end = self.ends[me]
        talk = end.board.open(peer, context, lambda: end.begin(peer, context, self.now))
        assert isinstance(talk, SealedTalk)
        return talk

    def step(self) -> bool:
        """Everything that is ready goes on its way; if nothing was, time passes."""
        moved = False
        for me, end in self.ends.items():
            outgoing: collections.deque[tuple[str, bytes]] = collections.deque()
            end.pump(lambda peer, record, out=outgoing: out.append((peer, bytes(record))), lambda: False, self.now)
            for peer, record in outgoing:
                moved = True
                self.replay.append((me, peer, record))
                if self.rng.random() >= self.loss:
                    self.ends[peer].take(me, memoryview(record), self.now)
        if not moved:
            times = [due for end in self.ends.values() if (due := end.deadline()) is not None]
            if not times:
                return False
            self.now = max(self.now, min(times)) + 1e-6
        return True

    def settle(self, steps: int = 3000) -> None:
        for _ in range(steps):
            if not self.step():
                return
        raise RuntimeError("it never came to rest")


def notes(talk: Any) -> list[int | str]:
    """What has arrived, and how it ended."""
    got: list[int | str] = []
    try:
        while True:
            got.append(talk.recv(Note, timeout=0).n)
    except LinkError as error:
        got.append(type(error).__name__)
    return got


@pytest.mark.parametrize("seed", range(40))
def test_two_ends_always_meet_in_one_conversation(seed: int) -> None:
    world = World(loss=(seed % 4) * 0.15, seed=seed)
    rng = random.Random(seed)
    talks: dict[str, SealedTalk] = {}
    order = [("bank", "agency"), ("agency", "bank")]
    rng.shuffle(order)
    for me, peer in order:
        talks[me] = world.open(me, peer)
        for n in range(rng.randint(0, 3)):
            talks[me].send(Note(n))
        talks[me].send(Note(100))
        for _ in range(rng.choice([0, 0, 1, 2, 5])):
            world.step()
    world.settle()
    for talk in talks.values():
        assert notes(talk)[-2:] == [100, "LinkTimeout"]
    for end in world.ends.values():
        assert len(end.board.talks()) == 1 and len(end._sessions) == 1 and not end._opening


@pytest.mark.parametrize("seed", range(12))
def test_closing_reaches_the_other_end_and_leaves_nothing_behind(seed: int) -> None:
    world = World(loss=(seed % 3) * 0.2, seed=seed)
    bank, agency = world.open("bank", "agency"), world.open("agency", "bank")
    bank.send(Note(1))
    bank.close("done")
    if seed % 2:
        agency.send(Note(2))
        agency.close("done too")
        world.settle()
    else:
        world.settle()
        assert notes(agency) == [1, "PeerLost"]
        agency.close()
    world.settle()
    for end in world.ends.values():
        assert not end.board.talks() and not end._sessions and not end._opening


def test_one_after_another_under_the_same_name_do_not_mix() -> None:
    world = World()
    for n in range(3):
        bank = world.open("bank", "agency")
        bank.send(Note(n))
        bank.close(f"end of {n}")
    world.settle()
    for n in range(3):
        agency = world.open("agency", "bank")
        assert agency.recv(Note, timeout=0).n == n
        with pytest.raises(PeerLost, match=f"end of {n}"):
            agency.recv(Note, timeout=0)
        agency.close()


def test_replaying_everything_that_ever_went_by_changes_nothing() -> None:
    world = World()
    bank, agency = world.open("bank", "agency"), world.open("agency", "bank")
    for n in range(5):
        bank.send(Note(n))
    world.settle()
    assert notes(agency) == [0, 1, 2, 3, 4, "LinkTimeout"]
    for _ in range(2):
        for me, peer, record in list(world.replay):
            world.ends[peer].take(me, memoryview(record), world.now)
            world.ends[me].take(peer, memoryview(record), world.now)  # reflected
            world.step()
    world.settle()
    bank.send(Note(5))
    world.settle()
    assert notes(agency) == [5, "LinkTimeout"]
    for end in world.ends.values():
        assert len(end.board.talks()) == 1


def test_a_replayed_hello_wakes_no_listener() -> None:
    world = World()
    talk = world.open("bank", "agency", "cells")
    talk.send(Note(1))
    world.settle()
    recorded = [entry for entry in world.replay if entry[0] == "bank"]
    fresh = World(seed=9)  # the agency restarted; somebody plays the bank's old records to it
    served: list[object] = []
    fresh.ends["agency"].board.listen("cells", served.append)
    for me, peer, record in recorded:
        fresh.ends[peer].take(me, memoryview(record), fresh.now)
        fresh.settle()
    assert not served and not fresh.ends["agency"].board.talks()


def test_a_restarted_peer_is_told_apart_by_its_incarnation() -> None:
    world = World()
    bank, _ = world.open("bank", "agency"), world.open("agency", "bank")
    world.settle()
    reborn = world.start(AGENCY)
    reborn.peer_up("bank", world.ends["bank"].incarnation, world.now)
    bank.send(Note(1))
    world.settle()  # the new process disowns the old conversation, even before the hub says that it is new
    with pytest.raises(PeerLost, match="agency does not know it; it may have been restarted"):
        bank.recv(Note, timeout=0)


def test_a_sender_waits_while_too_much_is_under_way_and_wakes_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "SEND_BYTES", 10_000)
    world = World()
    talk = world.open("bank", "agency")
    outcome: list[str] = []

    def flood() -> None:
        try:
            for n in range(1000):
                talk.send(Note(n))
                outcome.append("sent")
        except PeerLost as error:
            outcome.append(str(error))

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and 0 < len(outcome) < 50
    world.ends["bank"].peer_down("agency", "went away")
    thread.join(5)
    assert outcome[-1] == "agency went away"


def test_a_receiver_that_does_not_read_makes_its_peer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "INBOX_BYTES", 50_000)
    world = World()
    bank, agency = world.open("bank", "agency"), world.open("agency", "bank")
    world.settle()
    for n in range(300):
        bank.send(Note(n))
        world.step()
    waiting = len(agency._arrived)
    assert 0 < waiting < 200
    got = []
    for _ in range(2000):
        if agency._arrived:
            got.append(agency.recv(Note, timeout=0).n)
        elif len(got) == 300:
            break
        world.step()
    assert got == list(range(300))
