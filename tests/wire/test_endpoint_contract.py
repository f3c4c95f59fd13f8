"""What every endpoint promises, whatever carries it: queues, the hub, or the local pipe."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fednb.errors import DataError, LinkError, LinkTimeout, PeerLost, UnexpectedMessage
from fednb.wire.endpoint import Conversation, Endpoint, Presence
from fednb.wire.link import Link, RunLink
from fednb.wire.loopback import Network
from fednb.wire.message import Message
from fednb.wire.pipe import PipeEndpoint, PipeServer

Pair = tuple[Endpoint, Endpoint]


class Note(Message):
    n: int = 0
    x: np.ndarray | None = None


class Answer(Message):
    text: str


@pytest.fixture(params=["loopback", "dealer", "pipe"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "loopback":
        network = Network({"bank": "party", "agency": "party"})
        ends: Pair = (network.endpoint("bank"), network.endpoint("agency"))
    elif request.param == "dealer":
        federation = request.getfixturevalue("federation")
        ends = (federation.connect("bank"), federation.connect("agency"))
    else:
        folder = Path(tempfile.mkdtemp())
        request.addfinalizer(lambda: shutil.rmtree(folder))
        server = PipeServer(folder / "pipe", "bank")
        arrived = threading.Event()
        server.watch(lambda seen: arrived.set())
        ends = (PipeEndpoint(folder / "pipe", "kernel", "bank"), server)
        assert arrived.wait(10)  # the server knows a kernel a little later than the kernel the server
    yield ends
    for end in ends:
        end.close()


def test_messages_arrive_in_order_both_ways(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "count"), right.open(left.me, "count")
    for n in range(200):
        there.send(Note(n, np.full(n, n)))
        back.send(Note(-n))
    for n in range(200):
        note = back.recv(Note, timeout=10)
        assert note.n == n and np.array_equal(note.x, np.full(n, n))
        assert there.recv(Note, timeout=10).n == -n


def test_both_ends_may_open_at_the_same_time(pair: Pair) -> None:
    left, right = pair
    for round_ in range(10):
        barrier = threading.Barrier(2)
        talks: dict[str, Conversation] = {}

        def open_and_send(
            me: Endpoint, peer: Endpoint, barrier: threading.Barrier = barrier, talks: dict = talks, n: int = round_
        ) -> None:
            barrier.wait()
            talks[me.me] = me.open(peer.me, f"run/{n}")
            talks[me.me].send(Note(n))

        threads = [threading.Thread(target=open_and_send, args=ends) for ends in ((left, right), (right, left))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [talk.recv(Note, timeout=10).n for talk in talks.values()] == [round_, round_]
        for talk in talks.values():
            talk.close()


def test_a_listener_serves_each_conversation_on_a_thread_of_its_own(pair: Pair) -> None:
    left, right = pair
    both = threading.Barrier(2)

    def handler(talk: Conversation) -> None:
        note = talk.recv(Note)
        both.wait(10)  # only passes if the two are served at once
        talk.send(Answer(f"{talk.peer} {talk.context} {note.n}"))

    def other(talk: Conversation) -> None:
        talk.send(Answer("the longer prefix"))

    right.listen("ask", handler)
    right.listen("ask/other", other)
    talks = [left.open(right.me, f"ask/{n}") for n in range(2)]
    for n, talk in enumerate(talks):
        talk.send(Note(n))
    assert [talk.recv(Answer, timeout=10).text for talk in talks] == [f"{left.me} ask/0 0", f"{left.me} ask/1 1"]
    third = left.open(right.me, "ask/other/1")
    assert third.recv(Answer, timeout=10).text == "the longer prefix"
    with pytest.raises(PeerLost):
        third.recv(Answer, timeout=10)  # its handler has returned


def test_what_comes_early_waits_for_the_one_who_opens_or_listens(pair: Pair) -> None:
    left, right = pair
    talk = left.open(right.me, "early/1")
    talk.send(Note(1))
    talk.close("that was all")
    served = threading.Event()
    left.open(right.me, "early/2").send(Note(2))
    late = right.open(left.me, "early/1")
    assert late.recv(Note, timeout=10).n == 1
    with pytest.raises(PeerLost, match="that was all"):
        late.recv(Note, timeout=10)

    def handler(conversation: Conversation) -> None:
        assert conversation.recv(Note, timeout=10).n == 2
        served.set()

    right.listen("early", handler)
    assert served.wait(10)


def test_close_delivers_its_reason_after_what_was_sent(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    there.send(Note(1))
    there.close("the run was cancelled")
    there.close("twice is harmless")
    assert back.recv(Note, timeout=10).n == 1
    for _ in range(2):
        with pytest.raises(PeerLost, match=f"{left.me} ended the conversation: the run was cancelled") as caught:
            back.recv(Note, timeout=10)
        assert caught.value.member == left.me
    with pytest.raises(PeerLost, match="cancelled"):
        back.send(Note(2))
    for use in (lambda: there.send(Note(3)), lambda: there.recv(Note, timeout=10)):
        with pytest.raises(PeerLost, match="is closed"):
            use()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DataError("table 'loans' has no column 'x'"), "table 'loans' has no column 'x'"),
        (KeyError("canary"), "failed unexpectedly: KeyError"),
    ],
)
def test_a_handlers_failure_is_the_reason_and_quotes_no_data(pair: Pair, error: Exception, reason: str) -> None:
    left, right = pair

    def handler(talk: Conversation) -> None:
        raise error

    right.listen("cells", handler)
    talk = left.open(right.me, "cells")
    with pytest.raises(PeerLost, match=reason) as caught:
        talk.recv(Note, timeout=10)
    assert "canary" not in str(caught.value)


def test_a_timeout_names_who_waited_for_what_from_whom(pair: Pair) -> None:
    left, right = pair
    talk = left.open(right.me, "run/1")
    with pytest.raises(LinkTimeout, match=rf"{left.me} waited 0.05 s for Note or Answer from {right.me}") as caught:
        talk.recv(Note, Answer, timeout=0.05)
    assert caught.value.member == right.me
    right.open(left.me, "run/1").send(Note(5))
    assert talk.recv(Note, timeout=10).n == 5  # nothing was lost by waiting


def test_another_kind_than_expected_is_named_and_the_next_message_still_comes(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    there.send(Answer("x"))
    there.send(Note(2))
    with pytest.raises(UnexpectedMessage, match=f"from {left.me}: Answer came where Note was expected") as caught:
        back.recv(Note, timeout=10)
    assert caught.value.member == left.me
    assert back.recv(Note, Answer, timeout=10) == Note(2)


def test_changes_after_sending_do_not_travel(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    for n in range(5):  # before and after the handshake
        x = np.full(100_000, n)
        there.send(Note(n, x))
        x[:] = -1
        got = back.recv(Note, timeout=10).x
        assert got is not None and (got == n).all()


def test_a_big_array_crosses_whole_and_aligned(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    x = np.random.default_rng(0).random((1500, 2001))
    there.send(Note(1, x))
    got = back.recv(Note, timeout=30).x
    assert got is not None and np.array_equal(got, x) and got.flags.aligned and not got.flags.writeable


def test_empty_arrays_cross_too(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    there.send(Note(1, np.zeros((0, 3))))
    got = back.recv(Note, timeout=10).x
    assert got is not None and got.shape == (0, 3)


def test_both_ends_count_the_same_traffic(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    for n in range(3):
        there.send(Note(n, np.zeros(1000)))
    for _ in range(3):
        back.recv(Note, timeout=10)
    assert there.traffic.bytes_out == back.traffic.bytes_in > 24_000
    assert there.traffic.messages_out == back.traffic.messages_in == 3
    assert back.traffic.bytes_out == there.traffic.bytes_in == 0


def test_a_conversation_is_open_once_and_again_after_it_ended(pair: Pair) -> None:
    left, right = pair
    for n in range(3):
        there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
        with pytest.raises(ValueError, match="already; close it first"):
            left.open(right.me, "run/1")
        there.send(Note(n))
        assert back.recv(Note, timeout=10).n == n
        there.close()
        with pytest.raises(PeerLost):
            back.recv(Note, timeout=10)
        if n == 1:
            back.close()  # else the peer's next one replaces it


def test_closing_wakes_whoever_waits_here(pair: Pair) -> None:
    left, right = pair
    talk = left.open(right.me, "run/1")
    heard: list[str] = []

    def wait() -> None:
        try:
            talk.recv(Note)
        except PeerLost as error:
            heard.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    talk.close()
    thread.join(10)
    assert heard and "is closed" in heard[0]


def test_an_endpoint_that_closes_ends_its_conversations_with_its_name(pair: Pair) -> None:
    left, right = pair
    there, back = left.open(right.me, "run/1"), right.open(left.me, "run/1")
    there.send(Note(1))
    left.close()
    left.close()
    assert back.recv(Note, timeout=10).n == 1
    with pytest.raises(PeerLost, match=left.me):
        back.recv(Note, timeout=10)
    with pytest.raises(LinkError):
        left.open(right.me, "run/2")


def test_members_are_known_and_watched(pair: Pair, eventually: Callable[[Callable[[], bool]], None]) -> None:
    left, right = pair
    eventually(lambda: right.me in left.members() and left.members()[right.me].up)
    eventually(lambda: left.me in right.members() and right.members()[left.me].up)
    seen: list[Presence] = []
    left.watch(seen.append)
    right.close()
    eventually(lambda: any(p.name == right.me and not p.up for p in seen))
    assert not left.members()[right.me].up


def test_a_protocols_link_runs_over_it(pair: Pair) -> None:
    left, right = pair
    cast = {"asker": (left.me,), "answerer": (right.me,)}
    results: list[object] = []

    def play(endpoint: Endpoint, role: Callable[[Link], object]) -> None:
        link = RunLink(endpoint, "7", cast, timeout=10)
        try:
            results.append(role(link))
        except ZeroDivisionError as error:
            link.abort(error)
        finally:
            link.close()

    def ask(link: Link) -> object:
        link.send(right.me, Note(3))
        text = link.recv(right.me, Answer).text
        try:
            link.recv(right.me, Answer)
        except PeerLost as error:
            return text, str(error)
        return text

    def answer(link: Link) -> object:
        link.send(left.me, Answer("got " + str(link.recv(left.me, Note).n)))
        return 1 / 0

    threads = [threading.Thread(target=play, args=args) for args in ((left, ask), (right, answer))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [("got 3", f"{right.me} (answerer) left the run: division by zero")]
