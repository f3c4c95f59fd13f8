"""The link a protocol's role talks through: typed messages, named senders, and a cast list.

A role that receives only from a named sender gives the same result whatever the scheduling (a Kahn network),
which is what makes loopback runs, real runs and resumed runs agree.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Protocol, TypeVar

from fednb.errors import LinkError, LinkTimeout, PeerLost
from fednb.wire.endpoint import Conversation, Endpoint
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)


class Link(Protocol):
    """What a role knows of the outside: who plays which role, and how to send and receive."""

    me: str  # the member that holds this end

    @property
    def cast(self) -> Mapping[str, tuple[str, ...]]:
        """Role -> members that play it, in a fixed order."""
        ...

    def send(self, to: str, message: Message) -> None: ...

    def recv(self, sender: str, kind: type[M]) -> M: ...


class Abort(Message):
    """A role failed; every other one learns the cause."""

    reason: str
    member: str = ""  # who failed first
    error: str = ""  # its type's name


class RunLink:
    """A link over an endpoint's conversations, one a peer, all about one run."""

    def __init__(
        self,
        endpoint: Endpoint,
        run: str,
        cast: Mapping[str, tuple[str, ...]],
        *,
        timeout: float | None = None,
    ) -> None:
        self.me = endpoint.me
        self.cast: Mapping[str, tuple[str, ...]] = dict(cast)
        self._timeout = timeout
        self._run = run
        self._role = {member: role for role, members in cast.items() for member in members}
        self._talks: dict[str, Conversation] = {
            member: endpoint.open(member, f"run/{run}") for member in self._role if member != self.me
        }
        self._lock = threading.Lock()
        self._ended = False

    @property
    def conversations(self) -> Mapping[str, Conversation]:
        """By peer; for traffic figures."""
        return self._talks

    def send(self, to: str, message: Message) -> None:
        self._talk(to).send(message)

    def recv(self, sender: str, kind: type[M]) -> M:
        try:
            got = self._talk(sender).recv(kind, Abort, timeout=self._timeout)
        except LinkTimeout:
            raise LinkTimeout(
                f"{self._name(self.me)} waited {self._timeout:g} s for {kind.__name__} from {self._name(sender)}. "
                f"Check that {sender} is up (%fed status) and not busy with another run.",
                member=sender,
            ) from None
        if isinstance(got, Abort):
            who = got.member or sender
            raise PeerLost(f"{self._name(who)} left the run: {got.reason}", member=who)
        return got

    def abort(self, error: BaseException) -> None:
        """Tell every peer why this role stops. Never raises."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        first = error.member if isinstance(error, PeerLost) and error.member else self.me
        # a peer's own words travel on unchanged; ours never quote data (DESIGN: errors name columns, not values)
        notice = Abort(reason=str(error), member=first, error=type(error).__name__)
        for talk in self._talks.values():
            try:
                talk.send(notice)
            except LinkError:
                continue  # that peer is gone already

    def close(self) -> None:
        for talk in self._talks.values():
            talk.close()

    def _talk(self, member: str) -> Conversation:
        if member not in self._talks:
            raise ValueError(f"{member!r} is not a peer in this run; its cast is {dict(self.cast)}")
        return self._talks[member]

    def _name(self, member: str) -> str:
        role = self._role.get(member)
        return f"{member} ({role})" if role else member
