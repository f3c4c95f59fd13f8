"""What an endpoint and the hub say to each other, outside the sealed records that the hub passes on.

    endpoint ──> hub     ANNOUNCE Announce · PING number, seconds · ROUTE receiver, record · BYE
    hub ──> endpoint     WELCOME Welcome · REFUSED Refusal · PRESENCE Entry · PONG number, seconds by address
                         ROUTE sender, record · TICK · WHO

Each is one ZeroMQ frame: a letter, then the rest. Of a message of several frames only the first may be there when the
connection breaks while it is read, and ZeroMQ then aborts the whole process (libzmq 4.3.5, fq.cpp: `!_more`).

The first fields of Announce and Refusal stay as they are in every version of the wire format, so that two versions can
tell each other which they are.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from fednb.typed import known

ANNOUNCE, PING, ROUTE, BYE = b"A", b"P", b"R", b"B"
ENROL, ENROLLED = b"E", b"D"  # see `enrolment`; under an invitation's key nothing else is heard
WELCOME, REFUSED, PRESENCE, PONG, TICK, WHO = b"W", b"X", b"N", b"O", b"T", b"?"

MAX_RECORD = 4 << 20  # a routed record; streams cut theirs at 1 MiB
HEARTBEAT_MS = 1000  # ZeroMQ's own heartbeats, which need no Python: a busy process is not taken for a dead one
SILENCE_MS = 3000  # without any of them the connection is closed


class Announce(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An endpoint's first words on every connection."""

    wire: int
    version: str  # of fednb
    address: str
    incarnation: bytes  # [16]


class Refusal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The hub does not want this connection, for good."""

    wire: int
    reason: str


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How an address is now."""

    address: str
    up: bool
    version: str
    incarnation: bytes
    reason: str = ""  # why it is down


class Welcome(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who is up. Until the hub has been up for a while, others may only not have found it again yet."""

    version: str
    settled: bool
    entries: list[Entry]


class Ping(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: int
    seconds: float | None  # the last round trip to the hub that the endpoint measured


class Pong(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: int
    seconds: dict[str, float]  # by address, to the hub and back


def route(address: str, record: bytes | bytearray | memoryview) -> bytes:
    """ROUTE: to the hub with the receiver's address, from the hub with the sender's."""
    name = address.encode()
    return b"".join((ROUTE, bytes((len(name),)), name, record))


def read_route(rest: memoryview) -> tuple[str, memoryview] | None:
    """The address and the record of a ROUTE, without its letter; None for what is none."""
    start = 1 + rest[0] if len(rest) else 1
    if len(rest) < start:
        return None
    try:
        return str(rest[1:start], "utf-8"), rest[start:]
    except UnicodeDecodeError:
        return None


S = TypeVar("S", bound=msgspec.Struct)

pack = msgspec.msgpack.Encoder().encode


def unpack(data: bytes | memoryview, kind: type[S]) -> S | None:
    """None for whatever is not a `kind`."""
    try:
        return msgspec.msgpack.decode(data, type=known(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def version_of(data: bytes | memoryview) -> int | None:
    """The wire version at the head of an Announce or Refusal, of whatever version that is."""
    try:
        loose = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return loose[0] if isinstance(loose, list) and loose and type(loose[0]) is int else None
