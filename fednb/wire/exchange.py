"""All sealed conversations of one endpoint, without its socket: handshakes, sessions, and who has gone.

The endpoint's I/O thread feeds it records and news (`take`, `peer_up`, `peer_down`, `way_restored`) and asks it for
records to send (`pump`). Callers' threads come in through `begin` and through each conversation's `send` and `close`.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fednb.errors import LinkError, PeerLost, SealBroken, VersionMismatch
from fednb.text import plain
from fednb.wire.codec import Frame, total_bytes
from fednb.wire.keys import Identity, Roster
from fednb.wire.message import Message
from fednb.wire.refusals import Refusals
from fednb.wire.seal import (
    CONTROL,
    DATA,
    GONE,
    HELLO,
    Handshake,
    Hello,
    gone_record,
    read_gone,
    read_header,
    read_hello,
)
from fednb.wire.stream import EACH, Closed, Stream
from fednb.wire.switchboard import Switchboard, Talk, identity_of

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("fednb.wire")

OPEN_SECONDS = 5.0  # a peer that is down when a conversation opens may take so long to come up
NEWS_SECONDS = 1.0  # until then it may be up, and the news of it on its way: what was sent to it is not given up
HELLO_SECONDS = 0.5  # until the first repetition of a hello; then twice as long each time
HELLO_SECONDS_MAX = 5.0
HALF_OPEN_SECONDS = 60.0  # a peer that began a handshake may take so long to end it
MAX_HALF_OPEN = 1024
MAX_TOMBSTONES = 4096
GONE_NOTICES = 50  # signed notices a second, at most
SEND_BYTES = 128 << 20  # `send` blocks while more than this has not arrived at the peer
INBOX_BYTES = 512 << 20  # a peer is asked to pause while more than this waits for `recv`

Post = Callable[[str, bytes | bytearray], None]


class SealedTalk(Talk):
    """A conversation that is sealed end to end."""

    def __init__(self, exchange: Exchange, peer: str, context: str) -> None:
        super().__init__(exchange.board, peer, context)
        self.exchange = exchange
        self.handshake: Handshake | None = None
        self.stream: Stream | None = None
        self.peer_ephemeral: bytes = b""  # what the keys were agreed with
        self.last_hello: bytes = b""  # to be repeated until the peer has shown that it has the keys
        self.hello_at: float | None = None
        self.hello_wait = HELLO_SECONDS
        self.give_up_at: float | None = None  # while the peer is down and has never answered
        self.draining = False  # closed here; what was sent still has to arrive
        self._order = threading.Lock()  # messages go out in the order in which `send` was called
        self._early: collections.deque[list[Frame]] = collections.deque()
        self._early_bytes = 0
        self._reason: str | None = None
        self._room = threading.Condition()
        self._inbox_bytes = 0

    # ------------------------------------------------------------ callers' threads

    def _transmit(self, message: Message, frames: list[Frame]) -> None:
        self._wait_for_room()
        with self._order:
            self._raise_if_over()
            if self.stream is not None:
                self.stream.put(frames)
                return
            copies: list[Frame] = [bytes(frame) for frame in frames]
            self._early.append(copies)
            self._early_bytes += total_bytes(copies) + EACH

    def _wait_for_room(self) -> None:
        if self.exchange.is_io_thread():
            return  # it makes the room
        with self._room:
            while self._outstanding() > SEND_BYTES and self._over() is None:
                self._room.wait()

    @property
    def early(self) -> bool:
        """Whether something was sent before keys were agreed, which waits for them."""
        return bool(self._early)

    def _outstanding(self) -> int:
        return self.stream.outstanding if self.stream else self._early_bytes

    def _finish(self, reason: str) -> None:
        with self._order:
            self.draining = True
            if self.stream is not None:
                self.stream.put_close(reason)
            else:
                self._reason = reason
        self.make_room()
        self.exchange.wake()

    def end(self, error: type[LinkError], text: str) -> None:
        super().end(error, text)
        self.make_room()

    def _taken(self, frames: Sequence[Frame]) -> None:
        self._inbox_bytes -= total_bytes(frames) + EACH
        if self.stream and self.stream.hold and self._inbox_bytes < INBOX_BYTES // 2:
            self.stream.hold = False
            self.exchange.later(self._resume)

    # ------------------------------------------------------------ the I/O thread

    def _resume(self, now: float) -> None:
        if self.stream:
            self.stream.ack_now(now)

    def make_room(self) -> None:
        """Wake senders that wait for what they sent to arrive."""
        with self._room:
            self._room.notify_all()

    def arrive(self, frames: list[Frame], now: float) -> None:
        """A whole message came in."""
        with self.board.lock:
            if not self._closed:
                self._inbox_bytes += total_bytes(frames) + EACH
        if self.stream and self._inbox_bytes > INBOX_BYTES and not self.stream.hold:
            self.stream.hold = True
            self.stream.ack_now(now)
        self.deliver(frames)

    def establish(self, stream: Stream) -> None:
        """Keys are agreed: what was sent before can go."""
        with self._order:
            self.stream = stream
            self.handshake = None
            while self._early:
                stream.put(self._early.popleft())
            self._early_bytes = 0
            if self._reason is not None:
                stream.put_close(self._reason)


class Exchange:
    """See the module."""

    def __init__(
        self,
        identity: Identity,
        roster: Roster,
        address: str,
        incarnation: bytes,
        board: Switchboard,
        wake: Callable[[], None],
    ) -> None:
        self.identity = identity
        self.roster = roster
        self.address = address
        self.incarnation = incarnation
        self.board = board
        self.wake = wake
        self.hub_address = ""  # for messages
        self.rejected = 0  # records that were forged, malformed or stale
        self._io_thread: threading.Thread | None = None
        self._up: dict[str, bytes] = {}  # address -> incarnation
        self._opening: dict[tuple[str, str], collections.deque[SealedTalk]] = {}
        self._half_open: collections.OrderedDict[tuple[str, str], tuple[Handshake, float]] = collections.OrderedDict()
        self._sessions: dict[bytes, SealedTalk] = {}
        self._tombstones: collections.OrderedDict[bytes, str] = collections.OrderedDict()
        self._outbox: collections.deque[tuple[str, bytes]] = collections.deque()
        self._later: collections.deque[Callable[[float], None]] = collections.deque()
        self._notices = (0.0, 0)
        self._refusals = Refusals(log)

    # ------------------------------------------------------------ callers' threads

    def begin(self, peer: str, context: str, now: float) -> SealedTalk:
        """A new conversation with `peer`; called with the board's lock held."""
        talk = SealedTalk(self, peer, context)
        key = (peer, context)
        half = self._half_open.pop(key, None)
        handshake = half[0] if half else Handshake(self.identity, self.address, peer, context, self.incarnation)
        talk.handshake = handshake
        talk.last_hello = handshake.hello()
        talk.hello_at = now
        if peer not in self._up:
            talk.give_up_at = now + OPEN_SECONDS
        self._opening.setdefault(key, collections.deque()).append(talk)
        self.wake()
        return talk

    def later(self, action: Callable[[float], None]) -> None:
        """Have the I/O thread do something."""
        self._later.append(action)
        self.wake()

    def is_io_thread(self) -> bool:
        return threading.current_thread() is self._io_thread

    def idle(self, now: float) -> bool:
        """Whether everything that was sent has arrived, as far as it can."""
        with self.board.lock:
            streams = [talk.stream for talk in self._sessions.values() if talk.stream]
            opening = any(self._may_open(queue[0], now) for queue in self._opening.values())
        return not opening and all(stream.idle() for stream in streams)

    def _may_open(self, talk: SealedTalk, now: float) -> bool:
        if talk.peer in self._up:
            return True
        began = (talk.give_up_at or 0.0) - OPEN_SECONDS
        return talk.early and now < began + NEWS_SECONDS

    # ------------------------------------------------------------ the I/O thread: what comes in

    def adopt_thread(self) -> None:
        self._io_thread = threading.current_thread()

    def take(self, sender: str, record: memoryview, now: float) -> None:
        """A record from `sender`, as the hub says. Never raises: what is wrong is dropped or ends one conversation."""
        talk: SealedTalk | None = None
        try:
            kind = record[0] if len(record) else 0
            if kind in (DATA, CONTROL):
                header = read_header(record)
                with self.board.lock:
                    talk = self._sessions.get(header.session)
                if talk is None or talk.peer != sender or talk.stream is None:
                    talk = None
                    self._disown(sender, header.session, now)
                    return
                done = talk.stream.take(header, record, now)
                if isinstance(done, Closed):
                    why = f"{sender} ended the conversation" + (f": {done.reason}" if done.reason else "")
                    self._retire(talk, PeerLost, why, now)
                elif done is not None:
                    talk.arrive(done, now)
                talk.make_room()
            elif kind == HELLO:
                self._take_hello(sender, record, now)
            elif kind == GONE:
                self._take_gone(sender, record)
            else:
                self.rejected += 1
        except LinkError as error:
            self.rejected += 1
            self._refusals.note(f"a record that came to {self.address} as from {plain(sender, 100)}: {error}")
            if talk is not None:  # nonsense under a valid seal, or an altered way: this conversation cannot go on
                self._drop(talk, type(error), f"the conversation with {sender} is broken: {error}")
        except Exception as error:  # a defect of ours: whoever waits must hear of it
            log.exception("%s could not handle a record from %s", self.address, sender)
            if talk is not None:
                self._drop(talk, LinkError, f"an unexpected {type(error).__name__} while a record was taken in")

    def _take_hello(self, sender: str, record: memoryview, now: float) -> None:
        member = self.roster.get(identity_of(sender))
        if member is None:
            self.rejected += 1
            self._refusals.note(f"a hello that came to {self.address}: {plain(sender, 100)} is not on its roster")
            return
        try:
            hello = read_hello(record, member, self.address)
        except VersionMismatch as error:
            self._refuse_version(sender, str(error))
            return
        if hello.sender != sender:
            raise SealBroken(f"a hello of {hello.sender} came from {sender}")
        key = (sender, hello.context)
        with self.board.lock:
            queue = self._opening.get(key)
            talk = queue[0] if queue else None
            half = self._half_open.get(key)
            handshake = talk.handshake if talk else half[0] if half else None
            if self._agreed_already(sender, hello, now):
                return
            if handshake is None:
                if hello.answers:
                    return  # it answers a key that we do not hold any more
                handshake = Handshake(self.identity, self.address, sender, hello.context, self.incarnation)
                self._half_open[key] = (handshake, now)
                while len(self._half_open) > MAX_HALF_OPEN:
                    self._half_open.popitem(last=False)
            answer = handshake.hello(hello.ephemeral)
            if hello.answers != handshake.public:
                if not hello.answers:
                    self._outbox.append((sender, answer))
                return  # else it answers an older key of ours
            stream = Stream(handshake.agree(hello), self.wake, now)
            if talk is None:
                talk = SealedTalk(self, sender, hello.context)
                self._half_open.pop(key, None)
            elif queue is not None:
                queue.popleft()
                if not queue:
                    del self._opening[key]
            self._sessions[stream.seal.session] = talk
            # under the same lock: whoever opens it here at this moment finds it, and does not begin a second one
            welcome = talk.handshake is not None or self.board.arrive(talk)
        talk.give_up_at = None
        talk.peer_ephemeral = hello.ephemeral
        talk.last_hello, talk.hello_at, talk.hello_wait = answer, now + HELLO_SECONDS, HELLO_SECONDS
        self._outbox.append((sender, answer))
        stream.ack_now(now)  # shows the peer that we hold the keys
        talk.establish(stream)
        if not welcome:
            talk.close(f"too many conversations wait at {self.address}")

    def _agreed_already(self, sender: str, hello: Hello, now: float) -> bool:
        """Whether this hello repeats one that led to keys: the peer then has not heard that it did."""
        for talk in self._sessions.values():
            if talk.peer == sender and talk.stream and talk.peer_ephemeral == hello.ephemeral:
                if not hello.answers:
                    self._outbox.append((sender, talk.last_hello))
                talk.stream.ack_now(now)
                return True
        return False

    def _refuse_version(self, sender: str, why: str) -> None:
        self._refusals.note(f"a hello that came to {self.address}: {why}")
        with self.board.lock:
            talks = [talk for queue in self._opening.values() for talk in queue if talk.peer == sender]
        for talk in talks:
            self._outbox.append((sender, talk.last_hello))  # so that the other side hears of it too
            self._drop(talk, VersionMismatch, why)

    def _take_gone(self, sender: str, record: memoryview) -> None:
        member = self.roster.get(identity_of(sender))
        if member is None:
            self.rejected += 1
            return
        session, reason = read_gone(record, member, self.address)
        with self.board.lock:
            talk = self._sessions.get(session)
        if talk is not None and talk.peer == sender:
            self._drop(talk, PeerLost, f"{sender} ended the conversation: {reason}")

    def _disown(self, sender: str, session: bytes, now: float) -> None:
        """A record of a conversation that we do not have (any more): tell the sender, who still believes in it."""
        self.rejected += 1
        second, count = self._notices
        if now - second >= 1.0:
            second, count = now, 0
        self._notices = (second, count + 1)
        with self.board.lock:
            may_follow = any(peer == sender for peer, _ in [*self._half_open, *self._opening])
        if count >= GONE_NOTICES or identity_of(sender) not in self.roster:
            return
        if session not in self._tombstones and may_follow:
            return  # its last hello may have been lost, and comes again
        reason = self._tombstones.get(session) or f"{self.address} does not know it; it may have been restarted"
        self._outbox.append((sender, gone_record(self.identity, self.address, sender, session, reason)))

    # ------------------------------------------------------------ the I/O thread: who is there

    def peer_up(self, address: str, incarnation: bytes, now: float) -> None:
        """The hub sees `address`, in the process `incarnation`."""
        self._up[address] = incarnation
        for talk in self._with(address):
            if talk.stream and talk.stream.seal.peer_incarnation != incarnation:
                self._drop(talk, PeerLost, f"{address} restarted")
            elif talk.stream:
                talk.stream.probe()  # it may have been away: what was sent meanwhile is lost
            else:
                talk.give_up_at = None
                talk.hello_at, talk.hello_wait = now, HELLO_SECONDS

    def peer_down(self, address: str, reason: str) -> None:
        """The hub lost `address`."""
        self._up.pop(address, None)
        for talk in self._with(address):
            self._drop(talk, PeerLost, f"{address} {reason}")

    def way_restored(self, now: float) -> None:
        """The link to the hub was interrupted: find out what got lost."""
        with self.board.lock:
            for queue in self._opening.values():
                for talk in queue:
                    talk.hello_at, talk.hello_wait = now, HELLO_SECONDS
                    if talk.peer not in self._up:
                        talk.give_up_at = now + OPEN_SECONDS
            for talk in self._sessions.values():
                if talk.stream:
                    talk.stream.probe()

    def take_up(self, identity: Identity, roster: Roster) -> None:
        """The member's home was changed: conversations with whom it no longer knows by any key are over."""
        known, self.identity, self.roster = self.roster, identity, roster
        with self.board.lock:
            talks = [*self._sessions.values(), *(talk for queue in self._opening.values() for talk in queue)]
            for key in [key for key in self._half_open if _strange(known, roster, key[0])]:
                del self._half_open[key]
        for talk in talks:
            if _strange(known, roster, talk.peer):
                why = f"{talk.peer} is on the roster of {self.address} no longer, or with other keys"
                if talk.stream:  # the other end waits for us
                    session = talk.stream.seal.session
                    self._outbox.append((talk.peer, gone_record(identity, self.address, talk.peer, session, why)))
                self._drop(talk, PeerLost, why)

    def fail_all(self, error: type[LinkError], text: str) -> None:
        """Every conversation is over."""
        with self.board.lock:
            talks = [*self._sessions.values(), *(talk for queue in self._opening.values() for talk in queue)]
        for talk in talks:
            self._drop(talk, error, text)

    def _with(self, address: str) -> list[SealedTalk]:
        with self.board.lock:
            opening = [talk for queue in self._opening.values() for talk in queue if talk.peer == address]
            return opening + [talk for talk in self._sessions.values() if talk.peer == address]

    def _retire(self, talk: SealedTalk, error: type[LinkError], text: str, now: float) -> None:
        """The peer ended it in good order; acknowledge, then forget."""
        talk.end(error, text)
        if talk.stream:
            record = talk.stream.next_record(now)
            if record is not None:
                self._outbox.append((talk.peer, bytes(record)))
        self._drop(talk, error, text)

    def _drop(self, talk: SealedTalk, error: type[LinkError], text: str) -> None:
        talk.end(error, text)
        with self.board.lock:
            queue = self._opening.get((talk.peer, talk.context))
            if queue and talk in queue:
                queue.remove(talk)
                if not queue:
                    del self._opening[(talk.peer, talk.context)]
            if talk.stream and self._sessions.pop(talk.stream.seal.session, None):
                self._tombstones[talk.stream.seal.session] = text
                while len(self._tombstones) > MAX_TOMBSTONES:
                    self._tombstones.popitem(last=False)
        talk.make_room()

    # ------------------------------------------------------------ the I/O thread: what goes out

    def pump(self, post: Post, blocked: Callable[[], bool], now: float) -> None:
        """Hand every record that may go now to `post`, in turns, until `blocked`."""
        while self._later:
            self._later.popleft()(now)
        self._greet(now)
        while self._outbox and not blocked():
            post(*self._outbox.popleft())
        with self.board.lock:
            active = [talk for talk in self._sessions.values() if talk.stream]
        while active and not blocked():
            still = []
            for talk in active:
                if blocked() or talk.stream is None:
                    break
                record = talk.stream.next_record(now)
                if record is not None:
                    post(talk.peer, record)
                    still.append(talk)
                elif talk.draining and talk.stream.idle():
                    self._drop(talk, PeerLost, "it was closed")
            active = still

    def _greet(self, now: float) -> None:
        """Hellos that are due, and openings that nobody answered."""
        with self.board.lock:
            heads = [queue[0] for queue in self._opening.values()]
            unsure = [talk for talk in self._sessions.values() if talk.stream and not talk.stream.confirmed]
            while self._half_open:
                key, (_, since) = next(iter(self._half_open.items()))
                if now - since < HALF_OPEN_SECONDS:
                    break
                del self._half_open[key]
        for talk in heads:
            if talk.give_up_at is not None and now >= talk.give_up_at and talk.peer not in self._up:
                where = f" at {self.hub_address}" if self.hub_address else ""
                self._drop(talk, PeerLost, f"{talk.peer} is not connected to the hub{where}")
        for talk in heads + unsure:
            if talk.hello_at is not None and now >= talk.hello_at and talk.peer in self._up:
                self._outbox.append((talk.peer, talk.last_hello))
                talk.hello_at = now + talk.hello_wait
                talk.hello_wait = min(2 * talk.hello_wait, HELLO_SECONDS_MAX)

    def deadline(self) -> float | None:
        """When `pump` has to be called again at the latest."""
        times: list[float] = []
        with self.board.lock:
            for queue in self._opening.values():
                talk = queue[0]
                if talk.peer in self._up:
                    if talk.hello_at is not None:
                        times.append(talk.hello_at)
                elif talk.give_up_at is not None:
                    times.append(talk.give_up_at)
            for talk in self._sessions.values():
                if talk.stream is None:
                    continue
                due = talk.stream.deadline()
                if due is not None:
                    times.append(due)
                if not talk.stream.confirmed and talk.hello_at is not None:
                    times.append(talk.hello_at)
        return min(times, default=None)


def _strange(before: Roster, now: Roster, address: str) -> bool:
    """Whether none of the keys by which a peer was known are on the roster any more."""
    old, new = before.get(identity_of(address)), now.get(identity_of(address))
    return old is None or new is None or not old.keys & new.keys
