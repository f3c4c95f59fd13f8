"""Members that share one process: the same codec and conversations as between machines, over queues.

`Network` is what `fednb.simulate` and tests stand on. `play` runs the roles of a protocol against each other,
and because here everything in flight is known, it says so when every role waits for another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, MutableSequence
from typing import TypeVar

from fednb.errors import ConfigError, LinkError, PeerLost
from fednb.version import __version__
from fednb.wire import codec
from fednb.wire.codec import Frame
from fednb.wire.endpoint import Conversation, Presence
from fednb.wire.link import Link, RunLink
from fednb.wire.message import Message
from fednb.wire.switchboard import Handler, Switchboard, Talk, identity_of

T = TypeVar("T")
Tap = Callable[[str, str, Message, int], None]  # sender, receiver, message, payload bytes


class Network:
    """Members by name and kind: `Network({"bank": "party", "agency": "party", "coordinator": "coordinator"})`."""

    def __init__(self, members: Mapping[str, str], *, tap: Tap | None = None) -> None:
        self.kinds = dict(members)
        self.lock = threading.RLock()  # one for all: who waits for whom is then exact
        self.tap = tap
        self.endpoints: dict[str, LoopbackEndpoint] = {}  # by address, while they are up
        self.gone: set[str] = set()
        self.waiting: dict[threading.Thread, tuple[LoopbackTalk, tuple[type[Message], ...]]] = {}
        self.roles: set[threading.Thread] = set()  # played by `play` and not done yet

    def endpoint(self, address: str) -> LoopbackEndpoint:
        """A member's endpoint; "analyst#2" is a second process of the analyst."""
        self.check(address)
        with self.lock:
            if address in self.endpoints:
                raise ConfigError(f"{address} is on this network already; close its endpoint first")
            endpoint = LoopbackEndpoint(self, address)
            self.endpoints[address] = endpoint
            self.gone.discard(address)
            for other in self.endpoints.values():
                other.adopt(endpoint)
        self.announce(address)
        return endpoint

    def check(self, address: str) -> None:
        """Raises ConfigError unless the member is known."""
        if identity_of(address) not in self.kinds:
            raise ConfigError(f"there is no member {identity_of(address)!r}; there are {', '.join(sorted(self.kinds))}")

    def presence(self, name: str) -> Presence:
        """Up while any of its processes is."""
        up = any(identity_of(address) == name for address in self.endpoints)
        return Presence(name, self.kinds[name], up, __version__ if up else "", 0.0 if up else None)

    def announce(self, address: str) -> None:
        """Tell every watcher how this member is now."""
        presence = self.presence(identity_of(address))
        for endpoint in list(self.endpoints.values()):
            for callback in list(endpoint.watchers):
                callback(presence)

    def check_deadlock(self) -> None:
        """With the lock held: if every role waits for a message that nobody will send, say so to all of them."""
        if not self.roles or not all(role in self.waiting for role in self.roles):
            return
        stuck = [self.waiting[role] for role in self.roles]
        if any(talk.could_return() for talk, _ in stuck):
            return
        phrases = sorted(
            f"{talk.board.me} for {' or '.join(kind.__name__ for kind in wanted if kind.__name__ != 'Abort')} "
            f"from {talk.peer}"
            for talk, wanted in stuck
        )
        for talk, _ in stuck:
            talk.end(LinkError, "every role is waiting: " + "; ".join(phrases))


class LoopbackEndpoint:
    """One member's endpoint on a `Network`."""

    def __init__(self, network: Network, me: str) -> None:
        self.me = me
        self.network = network
        self.board = Switchboard(me, network.lock)
        self.watchers: list[Callable[[Presence], None]] = []

    def open(self, peer: str, context: str) -> Conversation:
        self.network.check(peer)
        if peer == self.me:
            raise ValueError(f"{self.me} cannot have a conversation with itself")
        with self.network.lock:
            return self.board.open(peer, context, lambda: self._begin(peer, context))

    def _begin(self, peer: str, context: str) -> Talk:
        talk = LoopbackTalk(self.board, peer, context, self.network)
        if peer in self.network.gone:
            talk.end(PeerLost, f"{peer} is not connected")
        elif peer in self.network.endpoints:
            self.network.endpoints[peer].meet(talk)
        return talk  # an endpoint that does not exist yet meets it when it does

    def meet(self, caller: LoopbackTalk) -> None:
        """Give `caller`, begun by a peer, its other end here."""
        mine = LoopbackTalk(self.board, caller.board.me, caller.context, self.network)
        mine.other, caller.other = caller, mine
        for frames in caller.early:
            mine.deliver(frames)
        caller.early.clear()
        if not self.board.arrive(mine):
            caller.end(PeerLost, f"{self.me} has too many conversations waiting")

    def adopt(self, newcomer: LoopbackEndpoint) -> None:
        """Conversations that were opened before the peer's endpoint existed."""
        for talk in self.board.talks():
            if isinstance(talk, LoopbackTalk) and talk.peer == newcomer.me and talk.other is None:
                newcomer.meet(talk)

    def listen(self, prefix: str, handler: Handler) -> None:
        self.board.listen(prefix, handler)

    def members(self) -> Mapping[str, Presence]:
        with self.network.lock:
            return {name: self.network.presence(name) for name in self.network.kinds}

    def watch(self, callback: Callable[[Presence], None]) -> None:
        self.watchers.append(callback)

    def close(self) -> None:
        with self.network.lock:
            if self.network.endpoints.pop(self.me, None) is None:
                return
            self.network.gone.add(self.me)
        self.board.close(f"{self.me} stopped")
        self.network.announce(self.me)


class LoopbackTalk(Talk):
    """Knows its other end."""

    def __init__(self, board: Switchboard, peer: str, context: str, network: Network) -> None:
        super().__init__(board, peer, context)
        self.other: LoopbackTalk | None = None
        self.early: list[list[Frame]] = []  # sent before the other end existed
        self.network = network

    def could_return(self) -> bool:
        """Whether `recv` has something to hand out or to raise."""
        return bool(self._arrived or self._ended or self._closed)

    def _transmit(self, message: Message, frames: list[Frame]) -> None:
        if self.network.tap:
            self.network.tap(self.board.me, self.peer, message, codec.total_bytes(frames))
        copies: list[Frame] = [bytes(frame) for frame in frames]
        with self.network.lock:
            if self.other is None:
                self.early.append(copies)
            else:
                self.other.deliver(copies)

    def _finish(self, reason: str) -> None:
        if self.other:
            self.other.end(PeerLost, f"{self.board.me} ended the conversation" + (f": {reason}" if reason else ""))

    def _blocked(self, wanted: tuple[type[Message], ...]) -> None:
        self.network.waiting[threading.current_thread()] = (self, wanted)
        self.network.check_deadlock()

    def _unblocked(self) -> None:
        self.network.waiting.pop(threading.current_thread(), None)


def play(
    roles: Mapping[str, Callable[[Link], T]],
    cast: Mapping[str, tuple[str, ...]],
    *,
    record: MutableSequence[tuple[str, str, str, int]] | None = None,
    timeout: float | None = 60.0,
) -> dict[str, T]:
    """Run each member's role on a thread of its own, and return what each returned.

    `record` collects (sender, receiver, kind, payload bytes) of every message, in the order of sending.
    Raises the first failure that was not caused by another role's, with a note saying whose it was. When every role
    waits for another, LinkError says who waits for what from whom.
    """

    def tap(sender: str, receiver: str, message: Message, size: int) -> None:
        if record is not None:
            record.append((sender, receiver, type(message).__name__, size))

    network = Network(dict.fromkeys(roles, "party"), tap=tap)
    endpoints = {member: network.endpoint(member) for member in roles}
    links = {member: RunLink(endpoints[member], "play", cast, timeout=timeout) for member in roles}
    results: dict[str, T] = {}
    failures: list[tuple[str, BaseException]] = []

    def perform(member: str, role: Callable[[Link], T]) -> None:
        try:
            results[member] = role(links[member])
        except BaseException as error:  # a role's failure belongs to whoever called `play`, whatever it is
            failures.append((member, error))
            links[member].abort(error)
        finally:
            links[member].close()
            with network.lock:
                network.roles.discard(threading.current_thread())
                network.check_deadlock()

    threads = [
        threading.Thread(target=perform, args=(member, role), name=member, daemon=True)
        for member, role in roles.items()
    ]
    network.roles.update(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for endpoint in endpoints.values():
        endpoint.close()
    if failures:
        causes = [pair for pair in failures if not isinstance(pair[1], PeerLost)] or failures
        member, error = causes[0]
        error.add_note(f"in the role of {member}")
        raise error
    return results
