"""A stream of messages over records that may get lost: everything, in order, exactly once.

Links drop and hubs restart, and a record in flight is then gone. So the receiver acknowledges, and the sender keeps
what is not acknowledged. Between two ends records never overtake each other; hence a record whose number is not the
next proves a loss, and so does the answer to a probe that names fewer records than were sent before it. There are no
guesses about time: nothing is sent twice because a link is slow.

A message travels as its frames' lengths, then the frames, cut into records of at most 1 MiB. A long message is
decrypted straight into the one buffer that its arrays will refer to.
"""

from __future__ import annotations

import collections
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from fednb.errors import SealBroken
from fednb.wire import codec
from fednb.wire.codec import Frame
from fednb.wire.seal import CONTROL, DATA, OVERHEAD, Header, Seal

CHUNK = 1 << 20  # plaintext of one record
IN_FLIGHT = 8 << 20  # sent and not acknowledged
ACK_BYTES = 2 << 20  # the receiver lets no more than this go unacknowledged ...
ACK_SECONDS = 0.04  # ... nor for longer than this
EACH = 1000  # a record counts as so many bytes more than it has: many small ones are a burden too
PROBE_SECONDS = 1.0  # nothing acknowledged for so long: ask
MAX_BROKEN = 16  # records in a row that fail authentication: somebody on the way is altering them

_FIRST, _LAST, _CLOSE = 1, 2, 4  # flags of data
_ACK, _PROBE = 1, 2  # kinds of control
_HOLD, _GAP = 1, 2  # flags of control
_CONTROL = struct.Struct(">BBQQ")
_ALIGN = 16  # arrays start at multiples of this within a message

_encode_lengths = msgspec.msgpack.Encoder().encode
_decode_lengths = msgspec.msgpack.Decoder(list[int]).decode


class Closed(NamedTuple):
    """The peer ended the stream, with this reason."""

    reason: str


class Stream:
    """One end of a sealed conversation. `put` may be called from any thread, the rest from one thread only."""

    def __init__(self, seal: Seal, wake: Callable[[], None], now: float) -> None:
        self.seal = seal
        self._wake = wake
        self._state = threading.Lock()  # guards what `put` shares with the rest
        # sending
        self._number = 0  # of the last data record sealed
        self._waiting: collections.deque[tuple[int, bytearray]] = collections.deque()
        self._flying: collections.deque[tuple[int, bytearray]] = collections.deque()
        self._flying_bytes = 0
        self.outstanding = 0  # bytes waiting or flying
        self._sent = 0  # highest data record ever handed out
        self._held = False  # the peer asked for a pause
        self._progress = now
        self._probe = False
        # receiving
        self.received = 0
        self._control_seen = 0
        self._control_number = 0
        self._message: _Incoming | None = None
        self._unacknowledged = 0
        self._ack_at: float | None = None
        self._gap_told = False  # since the last record in order: one loss, one request
        self._gap_new = False
        self._echo = 0
        self._broken = 0
        self.hold = False  # ask the peer for a pause
        self.confirmed = False  # the peer has shown that it holds the keys

    # ------------------------------------------------------------ sending

    def put(self, frames: Sequence[Frame]) -> None:
        """Seal a message and queue it. One thread at a time: the caller holds a lock over a whole message."""
        for first, last, chunk in _chunks(frames):
            self._queue(_FIRST * first | _LAST * last, chunk)

    def put_close(self, reason: str) -> None:
        """Queue the end of the stream."""
        self._queue(_CLOSE, reason.encode()[:4000])

    def _queue(self, flags: int, plaintext: bytes | memoryview) -> None:
        self._number += 1
        record = self.seal.seal(DATA, flags, self._number, self.received, plaintext)
        with self._state:
            self._waiting.append((self._number, record))
            self.outstanding += len(record) + EACH
        self._wake()

    def next_record(self, now: float) -> bytearray | None:
        """What to put on the wire now, if anything."""
        control = self._next_control(now)
        if control is not None:
            return control
        with self._state:
            if not self._waiting or self._held or self._flying_bytes >= IN_FLIGHT:
                return None
            if not self._flying:
                self._progress = now
            number, record = self._waiting.popleft()
            self._flying.append((number, record))
            self._flying_bytes += len(record) + EACH
            self._sent = max(self._sent, number)
        return record

    def idle(self) -> bool:
        """Whether all that was put has arrived."""
        with self._state:
            return not self._waiting and not self._flying

    def probe(self) -> None:
        """Ask the peer what it has: the way there was interrupted."""
        self._probe = True

    def deadline(self) -> float | None:
        """When `next_record` may have something without any other event."""
        times = [] if self._ack_at is None else [self._ack_at]
        if self._flying or (self._held and self._waiting):
            times.append(self._progress + PROBE_SECONDS)
        return min(times, default=None)

    def _next_control(self, now: float) -> bytearray | None:
        stuck = self._flying or (self._held and self._waiting)
        if self._probe or (stuck and now >= self._progress + PROBE_SECONDS):
            self._probe = False
            self._progress = now
            return self._control(_PROBE, 0, self._sent)
        if self._ack_at is not None and now >= self._ack_at:
            flags = _HOLD * self.hold | _GAP * self._gap_new
            echo, self._echo, self._gap_new = self._echo, 0, False
            return self._control(_ACK, flags, echo)
        return None

    def _control(self, kind: int, flags: int, number: int) -> bytearray:
        self._control_number += 1
        self._ack_at = None
        self._unacknowledged = 0
        plaintext = _CONTROL.pack(kind, flags, self.received, number)
        return self.seal.seal(CONTROL, 0, self._control_number, self.received, plaintext)

    def _acknowledged(self, upto: int, now: float) -> None:
        with self._state:
            for queue in (self._flying, self._waiting):  # after a rewind, what waits may have arrived long ago
                while queue and queue[0][0] <= upto:
                    _, record = queue.popleft()
                    self.outstanding -= len(record) + EACH
                    if queue is self._flying:
                        self._flying_bytes -= len(record) + EACH
                    self._progress = now

    def _rewind(self, now: float) -> None:
        with self._state:
            self._waiting.extendleft(reversed(self._flying))
            self._flying.clear()
            self._flying_bytes = 0
            self._progress = now

    # ------------------------------------------------------------ receiving

    def take(self, header: Header, record: memoryview, now: float) -> list[Frame] | Closed | None:
        """Take a data or control record in; returns the message that it completes, or the end.

        Raises SealBroken when the peer did not seal it, or speaks nonsense under its seal: then the stream is over.
        A few records that fail are only dropped; the peer sends what is missing again.
        """
        try:
            if header.kind == CONTROL:
                self._take_control(header, record, now)
                done = None
            else:
                done = self._take_data(header, record, now)
        except _Broken:
            self._broken += 1
            if self._broken < MAX_BROKEN:
                return None
            raise SealBroken(
                f"{self._broken} records in a row were altered on the way: by the hub or somebody between"
            ) from None
        return done

    def _take_control(self, header: Header, record: memoryview, now: float) -> None:
        plaintext = self._open(record)
        if header.number <= self._control_seen:
            return  # replayed
        self._control_seen = header.number
        try:
            kind, flags, received, number = _CONTROL.unpack(plaintext)
        except struct.error:
            raise SealBroken("the peer sent a malformed control record") from None
        if received > self._sent:
            raise SealBroken("the peer acknowledged what was never sent")
        self._acknowledged(received, now)
        if kind == _PROBE:
            self._ack_at = now
            self._echo = number
            return
        self._held = bool(flags & _HOLD)
        if flags & _GAP or number > received:
            self._rewind(now)

    def _take_data(self, header: Header, record: memoryview, now: float) -> list[Frame] | Closed | None:
        expected = self.received + 1
        if header.number != expected:
            if header.number < expected:
                self._ack_at = now  # the peer does not know yet that it arrived
            elif not self._gap_told:
                self._gap_told = self._gap_new = True
                self._ack_at = now
            return None
        if header.acknowledged > self._sent:
            raise _Broken
        message = self._message
        if message is not None and not header.flags & (_FIRST | _CLOSE):
            message.room(len(record) - OVERHEAD)
            self._open_into(record, message)
            plaintext = b""
        else:
            plaintext = self._open(record)
        # from here on it is known to be the peer's own
        self.received = expected
        self._gap_told = False
        self._acknowledged(header.acknowledged, now)
        self._unacknowledged += len(record)
        if self._ack_at is None:
            self._ack_at = now + ACK_SECONDS
        if self._unacknowledged >= ACK_BYTES:
            self._ack_at = now
        if header.flags & _CLOSE:
            self._ack_at = now
            return Closed(plaintext.decode(errors="replace"))
        if header.flags & _FIRST:
            if message is not None:
                raise SealBroken("the peer began a message within another")
            self._message = message = _Incoming(plaintext)
        elif message is None:
            raise SealBroken("the peer continued a message that it did not begin")
        if not header.flags & _LAST:
            return None
        self._message = None
        return message.frames()

    def ack_now(self, now: float) -> None:
        """Acknowledge with the next record (after `hold` changed, or to confirm the keys)."""
        self._ack_at = now

    def _open(self, record: memoryview) -> bytes:
        try:
            plaintext = self.seal.open(record)
        except SealBroken:
            raise _Broken from None
        self._genuine()
        return plaintext

    def _open_into(self, record: memoryview, message: _Incoming) -> None:
        try:
            self.seal.open_into(record, message.rest())
        except SealBroken:
            raise _Broken from None
        message.filled += len(record) - OVERHEAD
        self._genuine()

    def _genuine(self) -> None:
        self._broken = 0
        self.confirmed = True


class _Broken(Exception):
    """This record was not sealed by the peer."""


class _Incoming:
    """A message that is coming in."""

    def __init__(self, first: bytes) -> None:
        try:
            (size,) = struct.unpack_from(">I", first)
            lengths = _decode_lengths(first[4 : 4 + size])
        except (struct.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise SealBroken("the peer sent a malformed message layout") from None
        self.places, total = _places(lengths)
        if not 1 <= len(lengths) <= codec.MAX_FRAMES or total > codec.MAX_BYTES + _ALIGN * codec.MAX_FRAMES:
            raise SealBroken(f"the peer announced a message of {total:,} bytes in {len(lengths):,} frames")
        body = memoryview(first)[4 + size + -(4 + size) % _ALIGN :]
        if len(body) > total:
            raise SealBroken("the peer sent more than it announced")
        if len(body) == total:
            self._buffer = body
        else:
            self._buffer = np.empty(total, np.uint8).data  # untouched pages cost nothing yet
            self._buffer[: len(body)] = body
        self.filled = len(body)

    def room(self, size: int) -> None:
        if size > len(self._buffer) - self.filled:
            raise _Broken  # whoever sealed it, it does not belong here

    def rest(self) -> memoryview:
        return self._buffer[self.filled :]

    def frames(self) -> list[Frame]:
        if self.filled != len(self._buffer):
            raise SealBroken("the peer sent less than it announced")
        return [self._buffer[start:stop] for start, stop in self.places]


def _places(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """Where frames of these lengths stand in a message, and its total length."""
    places, end = [], 0
    for length in lengths:
        if length < 0:
            raise SealBroken("the peer announced a frame of negative length")
        start = -(-end // _ALIGN) * _ALIGN
        end = start + length
        places.append((start, end))
    return places, end


def _chunks(frames: Sequence[Frame]) -> Iterator[tuple[bool, bool, bytes | memoryview]]:
    """A message in pieces of at most CHUNK bytes: whether it is the first, the last, and the piece."""
    views = [memoryview(frame).cast("B") for frame in frames]
    places, total = _places([len(view) for view in views])
    layout = _encode_lengths([len(view) for view in views])
    prefix = struct.pack(">I", len(layout)) + layout
    prefix += bytes(-len(prefix) % _ALIGN)
    if len(prefix) + total <= CHUNK:
        yield True, True, _gather(views, places, 0, total, prefix)
        return
    start = CHUNK - len(prefix)
    yield True, False, _gather(views, places, 0, start, prefix)
    while start < total:
        stop = min(start + CHUNK, total)
        yield False, stop == total, _gather(views, places, start, stop)
        start = stop


def _gather(
    views: Sequence[memoryview], places: Sequence[tuple[int, int]], start: int, stop: int, prefix: bytes = b""
) -> bytes | memoryview:
    """Bytes `start` to `stop` of a message, without a copy where they lie within one frame."""
    parts: list[bytes | memoryview] = [prefix] if prefix else []
    at = start
    for view, (begin, end) in zip(views, places, strict=True):
        if end <= at or begin >= stop:
            continue
        if begin > at:
            parts.append(bytes(begin - at))  # alignment
            at = begin
        parts.append(view[at - begin : min(stop, end) - begin])
        at = min(stop, end)
    if at < stop:
        parts.append(bytes(stop - at))  # alignment before a frame that is empty or in the next piece
    return parts[0] if len(parts) == 1 else b"".join(parts)
