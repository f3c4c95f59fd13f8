"""A link that asks first: over queues and over a hub it carries what a protocol declares, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fednb.config import RulesConfig
from fednb.errors import PeerLost, Refused
from fednb.policy.guard import GuardedLink, entries
from fednb.wire.dealer import DealerEndpoint
from fednb.wire.disclosure import Disclosure
from fednb.wire.endpoint import Endpoint
from fednb.wire.hub import Hub
from fednb.wire.keys import enrol_all
from fednb.wire.link import Link, RunLink
from fednb.wire.loopback import Network
from fednb.wire.message import Message

CAST = {"active": ("bank",), "passive": ("agency",), "coordinator": ("coordinator",)}


class Sums(Message):
    discloses = Disclosure("sums", "masked", each="iteration", decrypts=True)

    x: np.ndarray


class Rows(Message):
    discloses = Disclosure("rows", "encrypted", each="piece", label=True)

    x: np.ndarray


class Slice(Message):
    discloses = Disclosure("a part of the rows", "encrypted", each="slice")

    n: int = 0


class Once(Message):
    discloses = Disclosure("a size")

    n: int = 0


class Sizes(Message):
    discloses = Disclosure("how many ids each has", sizes="ids")

    ids: list[int]


class Opened(Message):
    discloses = Disclosure("one row each", "blinded", each="piece", answers=True)

    x: np.ndarray


class Undeclared(Message):
    n: int = 0


SENDS: dict[tuple[str, str], tuple[type[Message], ...]] = {
    ("active", "passive"): (Rows, Slice, Once, Opened, Undeclared),
    ("active", "coordinator"): (Sums, Rows),
    ("passive", "active"): (Once, Sizes),
    ("coordinator", "active"): (Once,),
}


class Spent:
    def __init__(self, limit: int = 1000) -> None:
        self.calls: list[tuple[str, int, bool]] = []
        self.limit = limit

    def __call__(self, member: str, n: int, label: bool) -> None:
        if sum(call[1] for call in self.calls) + n > self.limit:
            raise Refused("used up", member="bank", rule="protocols.decrypted_per_row")
        self.calls.append((member, n, label))


def guarded(link: Link, iterations: int = 3, spend: Spent | None = None, **rules: Any) -> GuardedLink:
    return GuardedLink(link, "toy", SENDS, RulesConfig(**rules), iterations, spend or Spent())


@pytest.fixture(params=["loopback", "dealer"])
def endpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Endpoint]]:
    """Those of bank, agency and coordinator, in one process or over a hub."""
    names = ("bank", "agency", "coordinator")
    if request.param == "loopback":
        network = Network({"bank": "party", "agency": "party", "coordinator": "coordinator"})
        made: dict[str, Endpoint] = {name: network.endpoint(name) for name in names}
        yield made
    else:
        homes = enrol_all(tmp_path, {"hub": "hub", "bank": "party", "agency": "party", "coordinator": "coordinator"})
        hub = Hub(homes["hub"], "tcp://127.0.0.1:0").start()
        made = {name: DealerEndpoint(homes[name], hub=hub.address) for name in names}
        request.addfinalizer(hub.close)
        yield made
    for endpoint in made.values():
        endpoint.close()


@pytest.fixture
def links(endpoints: dict[str, Endpoint]) -> Iterator[dict[str, RunLink]]:
    made = {name: RunLink(endpoint, "r", CAST, timeout=10) for name, endpoint in endpoints.items()}
    yield made
    for link in made.values():
        link.close()


# ---------------------------------------------------------------- the contract of a link, bare and guarded


@pytest.fixture(params=["bare", "guarded"])
def wrap(request: pytest.FixtureRequest) -> Callable[[Link], Link]:
    return guarded if request.param == "guarded" else lambda link: link


def test_a_link_carries_what_is_declared_in_order_both_ways(
    links: dict[str, RunLink], wrap: Callable[[Link], Link]
) -> None:
    bank, agency = wrap(links["bank"]), wrap(links["agency"])
    assert (bank.me, bank.cast) == ("bank", CAST)
    for n in range(50):
        bank.send("agency", Rows(np.full(3, n)))
    agency.send("bank", Once(7))
    for n in range(50):
        assert np.array_equal(agency.recv("bank", Rows).x, np.full(3, n))
    assert bank.recv("agency", Once).n == 7


def test_a_failure_wakes_who_waits_through_it(links: dict[str, RunLink], wrap: Callable[[Link], Link]) -> None:
    agency, caught = wrap(links["agency"]), list[BaseException]()

    def wait() -> None:
        try:
            agency.recv("bank", Rows)
        except PeerLost as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    links["bank"].abort(Refused("bank says no", member="bank", rule="protocols.min_rows"))
    waiting.join(10)
    assert "bank (active) left the run: bank says no" in str(caught[0])


def test_who_is_not_in_the_cast_gets_nothing(links: dict[str, RunLink], wrap: Callable[[Link], Link]) -> None:
    with pytest.raises((ValueError, Refused)):
        wrap(links["bank"]).send("telco", Once())


# ---------------------------------------------------------------- what the guard refuses


@pytest.mark.parametrize(
    ("to", "message", "rule", "words"),
    [
        ("agency", Undeclared(), "messages", "declares no such message from active to passive"),
        ("coordinator", Once(), "messages", "declares no such message from active to coordinator"),
        ("coordinator", Rows(np.zeros(2)), "messages", "which holds the secret key"),
        ("agency", Sums(np.zeros(2)), "messages", "declares no such message"),
    ],
)
def test_what_is_not_declared_for_that_way_is_refused_and_does_not_leave(
    links: dict[str, RunLink], to: str, message: Message, rule: str, words: str
) -> None:
    bank = guarded(links["bank"])
    with pytest.raises(Refused, match=words) as caught:
        bank.send(to, message)
    assert (caught.value.member, caught.value.rule) == ("bank", f"protocols.{rule}")
    assert all(talk.traffic.messages_out == 0 for talk in links["bank"].conversations.values())


def test_one_iteration_more_than_the_run_has_is_refused(links: dict[str, RunLink]) -> None:
    bank = guarded(links["bank"], iterations=2)
    for _ in range(2):
        bank.send("coordinator", Sums(np.zeros(4)))
    with pytest.raises(Refused, match="in the 2 iterations of this run") as caught:
        bank.send("coordinator", Sums(np.zeros(4)))
    assert caught.value.rule == "protocols.max_iterations"
    assert links["bank"].conversations["coordinator"].traffic.messages_out == 2


def test_slices_go_until_the_last_iteration_is_over(links: dict[str, RunLink]) -> None:
    bank = guarded(links["bank"], iterations=2)
    for _ in range(2):
        for _ in range(5):
            bank.send("agency", Slice())
        bank.send("coordinator", Sums(np.zeros(4)))
    with pytest.raises(Refused, match="asked for Slice once more") as caught:
        bank.send("agency", Slice())
    assert caught.value.rule == "protocols.max_iterations"
    assert links["bank"].conversations["agency"].traffic.messages_out == 10


def test_what_goes_once_goes_once(links: dict[str, RunLink]) -> None:
    bank = guarded(links["bank"])
    bank.send("agency", Once(1))
    with pytest.raises(Refused, match="once in a run"):
        bank.send("agency", Once(2))


def test_what_is_to_be_decrypted_is_counted_before_it_leaves(links: dict[str, RunLink]) -> None:
    spent = Spent(limit=9)
    bank = guarded(links["bank"], spend=spent)
    bank.send("coordinator", Sums(np.zeros(4)))
    bank.send("agency", Rows(np.zeros(100)))
    assert spent.calls == [("bank", 4, False), ("agency", 1, True)]
    bank.send("coordinator", Sums(np.zeros(4)))
    with pytest.raises(Refused, match="used up"):
        bank.send("coordinator", Sums(np.zeros(1)))
    assert links["bank"].conversations["coordinator"].traffic.messages_out == 2


@pytest.mark.parametrize(("ids", "rule"), [([500, 3], "min_ids"), ([10**9, 500], "max_ids"), ([500, 500], "")])
def test_a_set_that_is_too_small_or_too_large_ends_the_run(
    links: dict[str, RunLink], ids: list[int], rule: str
) -> None:
    bank = guarded(links["bank"])
    links["agency"].send("bank", Sizes(ids=ids))
    if not rule:
        assert bank.recv("agency", Sizes).ids == ids
        return
    with pytest.raises(Refused, match="one side brings") as caught:
        bank.recv("agency", Sizes)
    assert caught.value.rule == f"protocols.{rule}"
    assert not any(str(size) in str(caught.value) for size in ids), "sizes are in the log of whoever saw them"


def test_entries_are_those_of_arrays_and_ciphertexts() -> None:
    assert entries(Sums(np.zeros(17))) == 17 and entries(Once(3)) == 0


def test_answers_about_single_rows_are_counted_one_by_one_before_they_leave(links: dict[str, RunLink]) -> None:
    counted: list[int] = []

    def answer(n: int) -> None:
        if sum(counted) + n > 5:
            raise Refused("enough", member="bank", rule="online.requests_a_day")
        counted.append(n)

    bank = GuardedLink(links["bank"], "toy", SENDS, RulesConfig(), 1, Spent(), answer)
    bank.send("agency", Opened(np.zeros((3, 32))))
    with pytest.raises(Refused, match="enough"):
        bank.send("agency", Opened(np.zeros((3, 32))))
    bank.send("agency", Opened(np.zeros((2, 32))))
    assert counted == [3, 2]
    assert [len(links["agency"].recv("bank", Opened).x) for _ in range(2)] == [3, 2]
    with pytest.raises(Refused, match="no answers about single rows"):
        guarded(links["bank"]).send("agency", Opened(np.zeros((1, 32))))
