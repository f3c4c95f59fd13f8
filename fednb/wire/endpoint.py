"""Conversations between members: the interface that loopback, ZeroMQ and the agent's local pipe share.

An endpoint is a member's one connection to the rest of the federation. A conversation is an ordered, typed
exchange with one peer about one context ("cells", "run/4f2c…"); both ends open the same (peer, context), or one
end opens and the other listens for the context's prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import msgspec

from fednb.wire.message import Message

M = TypeVar("M", bound=Message)

DIED = "has died"
STOPPED = "stopped"



class Presence(msgspec.Struct, frozen=True):
    """What is known of a member now."""

    name: str
    kind: str  # "party", "coordinator", "analyst" or "hub"
    up: bool
    version: str = ""  # of fednb, as the member announced it
    seconds: float | None = None  # round trip through the hub, last measured
    reason: str = ""  # why it is not up, as the hub said: "has died", "stopped", "lost its connection to the hub"

    @property
    def over(self) -> bool:
        """Whether its process has ended, and whatever it was doing with it. What lost its connection may go on."""
        return not self.up and self.reason in (DIED, STOPPED)


class Traffic(msgspec.Struct):
    """Payload bytes and messages of one conversation, counted after encoding and before sealing."""

    bytes_out: int = 0
    bytes_in: int = 0
    messages_out: int = 0
    messages_in: int = 0


class Conversation(Protocol):
    """An ordered, typed exchange with one peer. `send` may be called from any thread, `recv` from one at a time."""

    peer: str  # address: a member's name, or "name#instance" for an analyst's process
    context: str
    traffic: Traffic

    def send(self, message: Message) -> None:
        """Queue a message; it is encoded before this returns, so later changes to its arrays do not travel.

        Raises PeerLost when the conversation is over.
        """
        ...

    def recv(self, kind: type[M], /, *more: type[Message], timeout: float | None = None) -> M:
        """The next message, decoded into one of the kinds given.

        Raises UnexpectedMessage, PeerLost (with the peer's reason when it gave one), LinkTimeout.
        """
        ...

    def close(self, reason: str = "") -> None:
        """End it at both ends: the peer's `recv` raises PeerLost(reason) after what was already sent. Idempotent."""
        ...


class Endpoint(Protocol):
    """A member's connection to all others."""

    me: str

    def open(self, peer: str, context: str) -> Conversation:
        """The conversation with `peer` about `context`; does not wait for the peer."""
        ...

    def listen(self, prefix: str, handler: Callable[[Conversation], None]) -> None:
        """Call `handler(conversation)` on a thread of its own for each one a peer opens under `prefix`.

        The conversation is closed when the handler returns or raises (then with its error's text as reason).
        """
        ...

    def members(self) -> Mapping[str, Presence]:
        """Every member on the roster, up or down."""
        ...

    def watch(self, callback: Callable[[Presence], None]) -> None:
        """Call back (on the endpoint's own thread: return quickly) whenever a member comes or goes."""
        ...

    def close(self) -> None:
        """Close every conversation and stop. Idempotent."""
        ...
