"""Roles played in one process: results, first causes, transcripts and deadlocks."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fednb.errors import ConfigError, LinkError, LinkTimeout, PeerLost
from fednb.wire.link import Link
from fednb.wire.loopback import Network, play
from fednb.wire.message import Message


class Numbers(Message):
    x: np.ndarray


class Total(Message):
    total: float


CAST = {"summer": ("a",), "holder": ("b", "c")}


def summer(link: Link) -> float:
    total = 0.0
    for holder in link.cast["holder"]:
        total += float(link.recv(holder, Numbers).x.sum())
    for holder in link.cast["holder"]:
        link.send(holder, Total(total))
    return total


def holder(link: Link) -> float:
    link.send("a", Numbers(np.arange(4.0)))
    return link.recv("a", Total).total


def test_every_role_returns_its_result_and_the_transcript_says_what_went_where() -> None:
    record: list[tuple[str, str, str, int]] = []
    assert play({"a": summer, "b": holder, "c": holder}, CAST, record=record) == {"a": 12.0, "b": 12.0, "c": 12.0}
    assert sorted(entry[:3] for entry in record) == [
        ("a", "b", "Total"),
        ("a", "c", "Total"),
        ("b", "a", "Numbers"),
        ("c", "a", "Numbers"),
    ]
    assert all(size > 0 for *_, size in record)


def test_the_first_cause_is_raised_with_the_role_it_happened_in() -> None:
    def broken(link: Link) -> float:
        raise ZeroDivisionError("in b")

    with pytest.raises(ZeroDivisionError) as caught:
        play({"a": summer, "b": broken, "c": holder}, CAST)
    assert caught.value.__notes__ == ["in the role of b"]


def test_a_deadlock_is_reported_at_once_with_who_waits_for_what_from_whom() -> None:
    def waits_too(link: Link) -> float:
        return link.recv("a", Total).total

    with pytest.raises(LinkError) as caught:
        play({"a": summer, "b": waits_too, "c": holder}, CAST, timeout=None)
    assert str(caught.value) == ("every role is waiting: a for Numbers from b; b for Total from a; c for Total from a")


def test_waiting_for_a_role_that_has_returned_is_an_error_and_not_a_hang() -> None:
    def leaves(link: Link) -> float:
        return 0.0

    with pytest.raises(PeerLost, match="b ended the conversation"):
        play({"a": summer, "b": leaves, "c": holder}, CAST)


def test_what_is_sent_does_not_change_with_the_senders_array() -> None:
    def sender(link: Link) -> float:
        x = np.ones(3)
        link.send("a", Numbers(x))
        x[:] = 5
        return 0.0

    def receiver(link: Link) -> float:
        return float(link.recv("b", Numbers).x.sum())

    assert play({"a": receiver, "b": sender}, {"r": ("a",), "s": ("b",)})["a"] == 3.0


def test_a_role_that_never_comes_is_a_timeout_naming_it() -> None:
    release = threading.Event()

    def slow(link: Link) -> float:
        release.wait(10)
        return 0.0

    def impatient(link: Link) -> float:
        try:
            return float(link.recv("b", Numbers).x.sum())
        finally:
            release.set()

    with pytest.raises(LinkTimeout, match=r"a \(r\) waited 0.05 s for Numbers from b \(s\)"):
        play({"a": impatient, "b": slow}, {"r": ("a",), "s": ("b",)}, timeout=0.05)


def test_an_unknown_member_is_refused_and_an_address_may_be_used_once() -> None:
    network = Network({"bank": "party", "analyst": "analyst"})
    endpoint = network.endpoint("analyst#1")
    with pytest.raises(ConfigError, match="no member 'agency'; there are analyst, bank"):
        endpoint.open("agency", "cells")
    with pytest.raises(ConfigError, match="on this network already"):
        network.endpoint("analyst#1")
    network.endpoint("analyst#2").close()
    endpoint.close()


def test_a_conversation_opened_before_the_peer_exists_waits_for_it() -> None:
    network = Network({"bank": "party", "agency": "party"})
    bank = network.endpoint("bank")
    talk = bank.open("agency", "run/1")
    talk.send(Total(2.0))
    assert not bank.members()["agency"].up
    agency = network.endpoint("agency")
    assert agency.open("bank", "run/1").recv(Total, timeout=5).total == 2.0
    agency.close()
    with pytest.raises(PeerLost, match="agency stopped"):
        talk.recv(Total, timeout=5)
    bank.close()
