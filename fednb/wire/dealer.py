"""A member's endpoint on the network: one connection out to the hub, owned by one I/O thread.

The thread does everything on the socket; callers hand it work and wake it through a pipe. If it ever stops on an
error that nobody foresaw, every conversation ends with that error.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping

import zmq
from zmq.utils import monitor

from fednb.errors import ConfigError, FednbError, LinkError, VersionMismatch
from fednb.version import __version__
from fednb.wire import WIRE_VERSION, relay
from fednb.wire.endpoint import Conversation, Presence
from fednb.wire.enrolment import stamp
from fednb.wire.exchange import Exchange
from fednb.wire.keys import MemberHome
from fednb.wire.switchboard import Handler, Switchboard, identity_of

log = logging.getLogger("fednb.wire")

PING_SECONDS = 1.0
AWAY_SECONDS = 3.0  # a hub that is away for longer is worth a word
LINGER_SECONDS = 3.0  # `close` waits so long for what was sent to arrive
_BATCH = 100  # messages between two looks at everything else


class DealerEndpoint:
    """Connects to the hub; raises LinkError within `timeout` when it cannot (None: keeps trying, does not wait).

    While the hub is away conversations wait for it for `grace` seconds, then they end. An analyst's address has an
    instance, "analyst#4f2c01", because several of its processes may be at work.
    """

    def __init__(
        self,
        home: MemberHome,
        *,
        hub: str | None = None,
        grace: float = 30.0,
        timeout: float | None = 10.0,
    ) -> None:
        self.hub_address = hub or home.hub_address
        if not self.hub_address:
            raise ConfigError(f"{home.folder} does not say where the hub is: write its address into the file `hub`")
        self.me = f"{home.name}#{secrets.token_hex(3)}" if home.kind == "analyst" else home.name
        self._home = home
        self._stamp = -1  # of the roster as it was taken up; -1: look whether it changed since `home` was read
        self._grace = grace
        self._incarnation = os.urandom(16)
        self._board = Switchboard(self.me)
        self._wake_lock = threading.Lock()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._exchange = Exchange(home.identity, home.roster, self.me, self._incarnation, self._board, self._wake)
        self._exchange.hub_address = self.hub_address
        self._watchers: list[Callable[[Presence], None]] = []
        self._present: dict[str, relay.Entry] = {}
        self._left: dict[str, str] = {}  # why a member, by name, is no longer there
        self._seconds: dict[str, float] = {}  # by address, to the hub and back
        self._linked = self._was_linked = self._said_away = False
        self._decided = threading.Event()  # linked for the first time, or never will be
        self._failure: LinkError | None = None
        self._trouble = ""  # the last thing that went wrong before the first welcome
        self._lost_at = time.monotonic()
        self._closing = False
        self._stop_at: float | None = None
        self._stopped = False
        self._unsent: collections.deque[bytes] = collections.deque()
        self._ping_number = 0
        self._ping_sent = 0.0
        self._next_ping = 0.0
        self._next_look = 0.0
        self._context = zmq.Context()
        self._socket, self._events = self._connect()
        self._thread = threading.Thread(target=self._run, name=f"{self.me}: wire", daemon=True)
        self._thread.start()
        if timeout is not None:
            self._wait(timeout)

    def _connect(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        """The socket, and the one that tells what becomes of its connection."""
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._home.identity.unlock(socket)
        socket.curve_serverkey = self._home.roster.hub.curve.encode()
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing queues for a connection that may never be
        socket.setsockopt(zmq.MAXMSGSIZE, relay.MAX_RECORD + 4096)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.HEARTBEAT_IVL, relay.HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, relay.SILENCE_MS)
        socket.setsockopt(zmq.LINGER, 500)
        # watched before it connects: a handshake that nobody saw succeed would never be followed by an announcement
        events = socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_CONNECT_RETRIED
            | zmq.EVENT_DISCONNECTED
        )
        try:
            socket.connect(self.hub_address)
        except zmq.ZMQError as error:
            socket.disable_monitor()
            events.close()
            socket.close()
            self._context.term()
            self._close_pipe()
            raise ConfigError(f"{self.hub_address!r} is not an address of a hub: {error.strerror}") from None
        return socket, events

    def _wait(self, timeout: float) -> None:
        if not self._decided.wait(timeout):
            trouble = self._trouble or "nothing answers there; is it running? (fednb up, or fednb hub)"
            self.close()
            raise LinkError(
                f"{self.me} could not reach the hub at {self.hub_address} within {timeout:g} s: {trouble}", member="hub"
            )
        failure = self._failure
        if failure is not None:
            self.close()
            raise failure

    def __repr__(self) -> str:
        return f"<endpoint of {self.me} at {self.hub_address}, {'linked' if self._linked else 'not linked'}>"

    # ------------------------------------------------------------ what callers use

    def open(self, peer: str, context: str) -> Conversation:
        self._check_usable()
        if identity_of(peer) not in self._home.roster:
            known = ", ".join(sorted(set(self._home.roster) - {self._home.roster.hub.name}))
            raise ConfigError(f"there is no member {identity_of(peer)!r}; the roster of {self.me} has {known}")
        if peer == self.me:
            raise ValueError(f"{self.me} cannot have a conversation with itself")
        return self._board.open(peer, context, lambda: self._exchange.begin(peer, context, time.monotonic()))

    def listen(self, prefix: str, handler: Handler) -> None:
        self._check_usable()
        self._board.listen(prefix, handler)

    def members(self) -> Mapping[str, Presence]:
        return {name: self._presence(name) for name in self._home.roster}

    def watch(self, callback: Callable[[Presence], None]) -> None:
        self._watchers.append(callback)

    def sign(self, data: bytes) -> bytes:
        """64 bytes, Ed25519, by this member's present keys."""
        return self._home.identity.sign(data)

    def close(self) -> None:
        """Say goodbye: what was sent gets up to LINGER_SECONDS to arrive."""
        with self._board.lock:
            if self._closing:
                return
            self._closing = True
        self._board.close(f"{self.me} stopped")
        self._stop_at = time.monotonic() + LINGER_SECONDS
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(LINGER_SECONDS + 5.0)

    def __enter__(self) -> DealerEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure), member=self._failure.member)

    def _presence(self, name: str) -> Presence:
        member = self._home.roster[name]
        if name in (self._home.name, self._home.roster.hub.name):
            seconds = self._seconds.get(self.me)
            return Presence(name, member.kind, self._linked, __version__ if self._linked else "", seconds)
        entries = [entry for address, entry in list(self._present.items()) if identity_of(address) == name]
        if not entries:
            return Presence(name, member.kind, False, reason=self._left.get(name, ""))
        mine, theirs = self._seconds.get(self.me), self._seconds.get(entries[-1].address)
        seconds = None if mine is None or theirs is None else mine + theirs
        return Presence(name, member.kind, True, entries[-1].version, seconds)

    # ------------------------------------------------------------ the I/O thread

    def _wake(self) -> None:
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # full: it wakes anyway
            if self._wake_in >= 0:  # else nobody is left to wake
                os.write(self._wake_in, b"x")

    def _run(self) -> None:
        self._exchange.adopt_thread()
        try:
            self._loop()
        except Exception as error:  # whatever it is, those who wait must not wait for ever
            log.exception("the I/O thread of %s failed", self.me)
            self._fail(LinkError(f"the connection of {self.me} failed unexpectedly: {type(error).__name__}: {error}"))
        finally:
            self._exchange.fail_all(LinkError, str(self._failure or f"the endpoint of {self.me} is closed"))
            self._decided.set()
            with self._board.lock:
                self._stopped = True
            self._socket.disable_monitor()
            self._events.close()
            self._socket.close()
            self._context.term()
            self._close_pipe()

    def _close_pipe(self) -> None:
        with self._wake_lock:  # or a late caller might write into whatever gets the number next
            out, into, self._wake_out, self._wake_in = self._wake_out, self._wake_in, -1, -1
            os.close(out)
            os.close(into)

    def _loop(self) -> None:
        poller = self._poller()
        while True:
            now = time.monotonic()
            if self._finished(now):
                return
            poller.register(self._socket, zmq.POLLIN | zmq.POLLOUT if self._unsent and self._linked else zmq.POLLIN)
            ready = dict(poller.poll(self._timeout_ms(now)))
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_out, 4096)
            now = time.monotonic()
            if self._events in ready:
                self._watch_connection(now)
            self._receive(now)
            self._keep_time(now)
            if self._reread(now):
                poller = self._poller()
            self._flush()
            if self._linked:
                self._exchange.pump(self._post, lambda: bool(self._unsent), now)

    def _poller(self) -> zmq.Poller:
        poller = zmq.Poller()
        poller.register(self._events, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        return poller

    def _reread(self, now: float) -> bool:
        """Take up what the owner changed in this home meanwhile; True when it has a new socket then."""
        if now < self._next_look:
            return False
        self._next_look = now + PING_SECONDS
        changed = stamp(self._home.folder)
        if changed == self._stamp or self._failure is not None:
            return False
        self._stamp = changed
        try:
            home = MemberHome.load(self._home.folder)
            if home.roster.hub != self._home.roster.hub or home.name != self._home.name:
                raise ConfigError("it has another hub or name")
        except ConfigError as error:
            log.error("the changed roster of %s is not taken up: %s", self._home.name, error)
            return False
        rekeyed = home.identity.fingerprint != self._home.identity.fingerprint
        if home.roster == self._home.roster and not rekeyed:
            return False
        self._exchange.take_up(home.identity, home.roster)
        for address in [address for address in self._present if identity_of(address) not in home.roster]:
            self._leave(address, f"was taken off the roster of {self._home.name}")
        self._home = home
        log.info("%s has taken up its changed roster", self._home.name)
        if not rekeyed:
            if self._linked:
                self._announce(now)  # the answer says who of the new ones is up
            return False
        # to the hub this is the same process, which lost its connection: conversations go on
        self._socket.disable_monitor()
        self._events.close()
        self._socket.close()
        self._lost_at = now
        self._set_linked(False)
        self._socket, self._events = self._connect()
        log.info("%s uses its new keys", self._home.name)
        return True

    def _timeout_ms(self, now: float) -> int:
        times = [self._next_ping, self._next_look]
        if self._stop_at is not None:
            times.append(self._stop_at)
        if self._linked and not self._unsent:
            due = self._exchange.deadline()
            if due is not None:
                times.append(due)
        return max(0, int((min(times) - now) * 1000) + 1)

    def _finished(self, now: float) -> bool:
        if self._stop_at is None:
            return False
        idle = not self._unsent and self._exchange.idle(now)
        if not idle and now < self._stop_at and self._failure is None:
            return False
        if self._linked:
            self._unsent.clear()
            self._send(relay.BYE)
        return True

    def _fail(self, error: LinkError) -> None:
        """For good."""
        self._failure = error
        self._set_linked(False)
        self._exchange.fail_all(type(error), str(error))
        self._decided.set()

    def _watch_connection(self, now: float) -> None:
        while self._events.poll(0):
            event = monitor.recv_monitor_message(self._events, zmq.NOBLOCK)
            kind = event["event"]
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._announce(now)
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._fail(
                    LinkError(
                        f"the hub at {self.hub_address} does not know the key of {self._home.name} "
                        f"(fingerprint {self._home.identity.fingerprint}). Whoever runs the hub has to enrol it.",
                        member="hub",
                    )
                )
            elif kind in (zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL):
                self._trouble = (
                    "something answers there, but not as the hub on this member's roster: it is another program, or a "
                    "hub with other keys"
                )
            elif kind == zmq.EVENT_DISCONNECTED and self._linked:
                self._lost_at = now
                self._set_linked(False)

    def _announce(self, now: float) -> None:
        self._send(relay.ANNOUNCE, relay.pack(relay.Announce(WIRE_VERSION, __version__, self.me, self._incarnation)))
        self._next_ping = now + PING_SECONDS

    def _set_linked(self, linked: bool) -> None:
        if linked == self._linked:
            return
        self._linked = linked
        self._was_linked |= linked
        self._said_away = False
        self._unsent.clear()  # was meant for the old connection: the streams send again what matters
        log.debug("%s %s the hub", self.me, "found" if linked else "lost")
        self._notify(self._home.roster.hub.name)

    def _keep_time(self, now: float) -> None:
        if now < self._next_ping:
            return
        self._next_ping = now + PING_SECONDS
        if self._linked:
            self._ping_number += 1
            self._ping_sent = now
            if not self._unsent:
                self._send(relay.PING, relay.pack(relay.Ping(self._ping_number, self._seconds.get(self.me))))
            return
        away = now - self._lost_at
        if self._was_linked and not self._said_away and self._failure is None and away >= AWAY_SECONDS:
            self._said_away = True
            log.warning("the hub at %s is away; %s waits %g s for it", self.hub_address, self.me, self._grace)
        if self._failure is None and away >= self._grace:
            self._lost_at = now  # what is opened from here on gets a grace of its own
            self._exchange.fail_all(
                LinkError, f"the hub at {self.hub_address} has not answered for {self._grace:g} s; is it running?"
            )
            for address in list(self._present):
                self._leave(address, "cannot be reached while the hub is away")

    # ------------------------------------------------------------ sending

    def _post(self, receiver: str, record: bytes | bytearray) -> None:
        self._put(relay.route(receiver, record))

    def _send(self, kind: bytes, rest: bytes = b"") -> None:
        self._put(kind + rest)

    def _put(self, said: bytes) -> None:
        self._unsent.append(said)
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            try:
                self._socket.send(self._unsent[0], zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._unsent.popleft()

    # ------------------------------------------------------------ receiving

    def _receive(self, now: float) -> None:
        for _ in range(_BATCH):
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            said = frame.buffer
            kind, rest = bytes(said[:1]), said[1:]
            if kind == relay.ROUTE:
                routed = relay.read_route(rest)
                if routed is None:
                    self._exchange.rejected += 1
                else:
                    self._exchange.take(*routed, now)
            else:
                self._hear_hub(kind, rest, now)

    def _hear_hub(self, kind: bytes, data: memoryview, now: float) -> None:
        if kind == relay.PONG:
            pong = relay.unpack(data, relay.Pong)
            if pong is not None and pong.number == self._ping_number:
                self._seconds = {**pong.seconds, self.me: now - self._ping_sent}
        elif kind == relay.PRESENCE:
            entry = relay.unpack(data, relay.Entry)
            if entry is not None:
                self._hear_of(entry, now)
        elif kind == relay.WELCOME:
            welcome = relay.unpack(data, relay.Welcome)
            if welcome is not None:
                self._hear_welcome(welcome, now)
        elif kind == relay.REFUSED:
            self._hear_refusal(data)
        elif kind == relay.WHO:
            self._announce(now)
        elif kind != relay.TICK:
            self._exchange.rejected += 1

    def _hear_welcome(self, welcome: relay.Welcome, now: float) -> None:
        for entry in welcome.entries:
            self._hear_of(entry, now)
        if welcome.settled:
            up = {entry.address for entry in welcome.entries}
            for address in [address for address in self._present if address not in up]:
                self._leave(address, "lost its connection to the hub")
        if not self._linked:
            self._set_linked(True)
            self._exchange.way_restored(now)
            self._next_ping = now
        self._decided.set()

    def _hear_refusal(self, data: memoryview) -> None:
        wire = relay.version_of(data)
        refusal = relay.unpack(data, relay.Refusal)
        if wire is not None and wire != WIRE_VERSION:
            self._fail(
                VersionMismatch(
                    f"the hub at {self.hub_address} speaks version {wire} of fednb's wire format, {self.me} version "
                    f"{WIRE_VERSION}. Install the same version of fednb at both.",
                    member="hub",
                )
            )
        else:
            reason = refusal.reason if refusal else "it gave no reason"
            self._fail(LinkError(f"the hub at {self.hub_address} refused {self.me}: {reason}", member="hub"))

    def _hear_of(self, entry: relay.Entry, now: float) -> None:
        if entry.address == self.me or identity_of(entry.address) not in self._home.roster:
            return
        if not entry.up:
            self._leave(entry.address, entry.reason or "is down")
            return
        before = self._present.get(entry.address)
        if before is not None and before.incarnation != entry.incarnation:
            self._leave(entry.address, "restarted")
            before = None
        self._present[entry.address] = entry
        self._exchange.peer_up(entry.address, entry.incarnation, now)
        if before is None:
            self._notify(identity_of(entry.address))

    def _leave(self, address: str, reason: str) -> None:
        if self._present.pop(address, None) is not None:
            self._left[identity_of(address)] = reason
            self._exchange.peer_down(address, reason)
            self._notify(identity_of(address))

    def _notify(self, name: str) -> None:
        presence = self._presence(name)
        for callback in list(self._watchers):
            try:
                callback(presence)
            except FednbError as error:
                log.warning("a watcher of %s failed: %s", self.me, error)
            except Exception:  # a caller's defect must not end everybody's conversations
                log.exception("a watcher of %s failed", self.me)
