"""The hub: every member dials out to it, and it passes sealed records on.

It lets in the keys of its roster and nobody else (CURVE with a ZAP allow-list), checks with every message that the
connection's authenticated key belongs to the address it speaks for, and tells everybody who is up. It opens, keeps
and logs no record; what it cannot deliver it drops, because the ends notice and send again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from dataclasses import dataclass

import zmq
from zmq.utils import monitor

from fednb.errors import ConfigError
from fednb.version import __version__
from fednb.wire import WIRE_VERSION, relay
from fednb.wire.endpoint import DIED, STOPPED
from fednb.wire.enrolment import Enrolled, Invitations, stamp
from fednb.wire.keys import MemberHome, Roster
from fednb.wire.refusals import Refusals
from fednb.wire.switchboard import identity_of

log = logging.getLogger("fednb.hub")

TICK_SECONDS = 0.5
RETURN_SECONDS = 1.0  # a member whose connection dropped may take so long to come back before others hear of it
SETTLE_SECONDS = 5.0  # after the hub's start: time for everybody to find it again
HANDSHAKE_MS = 5000
_INVITED = "?"  # before an invitation's key, as the user id of its connection; no name begins so
_BATCH = 200  # messages between two looks at the clock


@dataclass
class Line:
    """A member's connection."""

    route: bytes  # ZeroMQ's name for it
    key: bytes  # [32] the CURVE key that it came in with
    address: str
    incarnation: bytes
    version: str
    seconds: float | None = None
    lost_at: float | None = None  # when the connection was found broken


class Hub:
    """Binds at once (`address` has the port that was taken when 0 was asked for); `run` serves until `close`."""

    def __init__(self, home: MemberHome, bind: str) -> None:
        if home.kind != "hub":
            raise ConfigError(f"{home.name} is a {home.kind}: a hub runs with the hub's own home")
        self.name = home.name
        self.roster = home.roster
        self._folder = home.folder
        self._stamp = stamp(home.folder)
        self._invitations = Invitations(home.folder)
        self._refusals = Refusals(log)
        self.routed = 0  # records passed on
        self.dropped = 0  # messages that were malformed, unauthorised or undeliverable
        self._lines: dict[bytes, Line] = {}
        self._by_address: dict[str, Line] = {}
        self._started = time.monotonic()
        self._settled = False
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()  # members that the launcher saw end
        self._stop = threading.Event()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._wake_lock = threading.RLock()  # `close` may be called by a signal handler
        self._wake_out, self._wake_in = os.pipe()
        self._context = zmq.Context()
        self._gatekeeper = self._context.socket(zmq.REP)  # ZAP looks for it before any connection comes in
        self._gatekeeper.bind("inproc://zeromq.zap.01")
        self._router = self._context.socket(zmq.ROUTER)
        # who does not even speak CURVE, or not with this hub's key, never comes as far as the gatekeeper
        self._strangers = self._router.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        try:
            self._configure(home)
            self._router.bind(bind)
        except zmq.ZMQError as error:
            self._release()
            raise ConfigError(_explain_bind(bind, error)) from None
        self.address = self._router.getsockopt_string(zmq.LAST_ENDPOINT)

    def _configure(self, home: MemberHome) -> None:
        router = self._router
        home.identity.unlock(router)
        router.curve_server = True
        router.zap_domain = b"fednb"
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.MAXMSGSIZE, relay.MAX_RECORD + 4096)
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.setsockopt(zmq.HEARTBEAT_IVL, relay.HEARTBEAT_MS)
        router.setsockopt(zmq.HEARTBEAT_TIMEOUT, relay.SILENCE_MS)
        router.setsockopt(zmq.SNDHWM, 10_000)  # what is in flight is bounded by the ends
        router.setsockopt(zmq.LINGER, 200)

    def __repr__(self) -> str:
        return f"<hub at {self.address}, {len(self._by_address)} connected>"

    def start(self) -> Hub:
        """Serve on a thread of its own."""
        self._thread = threading.Thread(target=self.run, name="fednb hub", daemon=True)
        self._thread.start()
        return self

    def run(self) -> None:
        """Serve until `close` is called (from another thread or a signal handler)."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._gatekeeper, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        poller.register(self._strangers, zmq.POLLIN)
        next_tick = time.monotonic() + TICK_SECONDS
        try:
            while not self._stop.is_set():
                poller.poll(max(0, int((next_tick - time.monotonic()) * 1000) + 1))
                self._admit()
                self._note_strangers()
                self._serve()
                self._take_ended()
                if time.monotonic() >= next_tick:
                    self._tick(time.monotonic())
                    next_tick = time.monotonic() + TICK_SECONDS
            self._take_ended()
        finally:
            self._release()
            self._done.set()

    def close(self) -> None:
        """Stop `run`, and wait until it has. Idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        with self._wake_lock:
            if self._wake_in >= 0:
                os.write(self._wake_in, b"x")
        if self._thread and self._thread is not threading.current_thread():
            self._done.wait(5.0)
            self._thread.join(5.0)

    def ended(self, name: str) -> None:
        """The process of `name` is gone: the others learn it at once. May be called from any thread.

        Without it they would learn it when its connection stays away, and that may be after the hub has stopped too.
        """
        self._ended.put(name)

    def revoke(self, name: str) -> None:
        """From now on nothing is taken from or passed to `name`. May be called from any thread."""
        self.roster = Roster(member for member in self.roster.values() if member.name != name)

    def _release(self) -> None:
        self._router.disable_monitor()
        for socket in (self._strangers, self._router, self._gatekeeper):
            socket.close()
        self._context.term()
        with self._wake_lock:
            os.close(self._wake_out)
            os.close(self._wake_in)
            self._wake_out = self._wake_in = -1

    # ------------------------------------------------------------ who may come in

    def _admit(self) -> None:
        """ZAP (ZeroMQ RFC 27): is this CURVE key on the roster?"""
        while True:
            try:
                request = self._gatekeeper.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            member = None
            if len(request) == 7 and request[2] == b"fednb" and request[5] == b"CURVE":
                member = self.roster.by_curve_key(request[6])
            head = [b"1.0", request[1] if len(request) > 1 else b""]
            # with the key: a name that gets other keys keeps no connection of the old ones
            name, refusal = (f"{member.name} {request[6].hex()}", "") if member else self._invited(request)
            if refusal:
                self.dropped += 1
                self._refusals.note(f"a connection: {refusal}")
                self._gatekeeper.send_multipart([*head, b"400", b"unknown key", b"", b""])
            else:
                self._gatekeeper.send_multipart([*head, b"200", b"OK", name.encode(), b""])

    def _note_strangers(self) -> None:
        while self._strangers.poll(0):
            monitor.recv_monitor_message(self._strangers, zmq.NOBLOCK)
            self.dropped += 1
            self._refusals.note("a connection: it does not speak CURVE, or expects a hub with another key")

    def _invited(self, request: list[bytes]) -> tuple[str, str]:
        """The user id of a connection under an invitation's key, which no member can have, or why it is refused."""
        curve = len(request) == 7 and request[2] == b"fednb" and request[5] == b"CURVE"
        invitation = self._invitations.by_key(request[6]) if curve else None
        if invitation is None:
            return "", "its key is not on the roster"
        return _INVITED + request[6].hex(), self._invitations.refusal(invitation, self.roster)

    def _enrol(self, route: bytes, key: bytes, said: memoryview) -> None:
        invitation = self._invitations.by_key(key)
        if invitation is None or bytes(said[:1]) != relay.ENROL:
            refusal = "an invitation serves to enrol, and for nothing else"
        else:
            refusal = self._invitations.take(invitation, said[1:], self.roster)
        if refusal or invitation is None:
            self.dropped += 1
            self._refusals.note(f"an enrolment: {refusal}")
            self._refuse(route, refusal)
            return
        log.info("%s enrolled; compare its fingerprint, then confirm it", invitation.name)
        self._send(route, relay.ENROLLED, relay.pack(Enrolled(list(self.roster.values()))))

    # ------------------------------------------------------------ what they say

    def _serve(self) -> None:
        for _ in range(_BATCH):
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                self._handle(frames)
            except Exception:  # one member's message must not stop the service for all
                self.dropped += 1
                log.exception("a message could not be handled")

    def _handle(self, frames: list[zmq.Frame]) -> None:
        try:
            found = str(frames[-1].get("User-Id"))  # what ZAP found out, whatever the message claims
        except zmq.ZMQError:
            found = ""
        route = frames[0].bytes
        if found.startswith(_INVITED):
            said = frames[1].buffer if len(frames) == 2 else memoryview(b"")
            self._enrol(route, bytes.fromhex(found.removeprefix(_INVITED)), said)
            return
        name, _, key = found.partition(" ")
        line = self._lines.get(route)
        if not self._good(name, bytes.fromhex(key)) or (line and identity_of(line.address) != name):
            self.dropped += 1
            if line:
                self._cut(line)
            return
        said = frames[1].buffer if len(frames) == 2 else memoryview(b"")
        kind, rest = bytes(said[:1]), said[1:]
        if kind == relay.ROUTE and line:
            self._take_record(line, rest)
        elif kind == relay.PING and line:
            self._pong(line, rest)
        elif kind == relay.ANNOUNCE:
            self._welcome(route, bytes.fromhex(key), name, rest)
        elif kind == relay.BYE and line:
            self._down(line, STOPPED)
        elif line is None:
            self._send(route, relay.WHO)  # a connection from before: it should announce itself
        else:
            self.dropped += 1

    def _take_record(self, line: Line, rest: memoryview) -> None:
        routed = relay.read_route(rest)
        if routed is None:
            self.dropped += 1
        else:
            self._route(line.address, *routed)

    def _route(self, sender: str, receiver: str, record: memoryview) -> None:
        line = self._by_address.get(receiver)
        if line is None or len(record) > relay.MAX_RECORD or identity_of(line.address) not in self.roster:
            self.dropped += 1
            return
        try:
            self._router.send_multipart([line.route, relay.route(sender, record)], zmq.NOBLOCK, copy=False)
            self.routed += 1
        except zmq.ZMQError as error:
            self.dropped += 1
            if error.errno == zmq.EHOSTUNREACH and line.lost_at is None:
                line.lost_at = time.monotonic()

    def _good(self, name: str, key: bytes) -> bool:
        member = self.roster.by_curve_key(key)
        return member is not None and member.name == name

    def _cut(self, line: Line) -> None:
        """A connection of a member, or of keys, that are no longer on the roster."""
        name = identity_of(line.address)
        if name in self.roster:
            self._refusals.note(f"a connection: it uses keys that {name} has no longer")
            self._refuse(line.route, f"{name} has other keys now, and this connection uses those that it had before")
            self._down(line, "uses keys that are no longer good")
        else:
            self._refusals.note(f"a connection: {name} was removed from the roster")
            self._refuse(line.route, f"{name} was removed from this federation")
            self._down(line, "was removed from the federation")

    def _welcome(self, route: bytes, key: bytes, name: str, data: memoryview) -> None:
        wire = relay.version_of(data)
        if wire != WIRE_VERSION:
            self.dropped += 1
            self._refusals.note(f"a connection: {name} speaks version {wire} of the wire format")
            self._refuse(route, f"this hub speaks version {WIRE_VERSION} of the wire format, {name} version {wire}")
            return
        announce = relay.unpack(data, relay.Announce)
        if announce is None or not self._may_use(name, announce.address) or len(announce.incarnation) != 16:
            self.dropped += 1
            self._refusals.note(f"a connection: {name} announced itself wrongly")
            self._refuse(route, f"{name} announced itself wrongly")
            return
        old = self._by_address.get(announce.address)
        line = Line(route, key, announce.address, announce.incarnation, announce.version)
        if old and old.incarnation != line.incarnation:
            if old.lost_at is None:
                self._refuse(old.route, f"another process connected as {line.address}; only one may be at work")
            self._down(old, "restarted")
        if old:
            self._lines.pop(old.route, None)
        self._lines[route] = line
        self._by_address[line.address] = line
        self._send_welcome(line)
        if old is None or old.incarnation != line.incarnation:
            log.info("%s is up", line.address)
            self._tell(relay.Entry(line.address, True, line.version, line.incarnation), but=line)

    def _may_use(self, name: str, address: str) -> bool:
        """Only analysts work in several processes."""
        if address == name:
            return True
        instance = address.removeprefix(name + "#")
        return (
            self.roster[name].kind == "analyst" and address != instance and instance.isalnum() and len(instance) <= 32
        )

    def _pong(self, line: Line, data: memoryview) -> None:
        ping = relay.unpack(data, relay.Ping)
        if ping is None:
            self.dropped += 1
            return
        line.seconds = ping.seconds
        seconds = {address: other.seconds for address, other in self._by_address.items() if other.seconds is not None}
        self._send(line.route, relay.PONG, relay.pack(relay.Pong(ping.number, seconds)))

    # ------------------------------------------------------------ who is up

    def _reread(self) -> None:
        """Take up what the owner confirmed or revoked meanwhile."""
        changed = stamp(self._folder)
        if changed == self._stamp:
            return
        self._stamp = changed
        try:
            roster = Roster.load(self._folder / "roster.json")
            if roster.hub != self.roster.hub:
                raise ConfigError("it has another hub")
        except ConfigError as error:
            log.error("the changed roster is not taken up: %s", error)
            return
        for name in self.roster.keys() | roster.keys():
            if name not in roster or name not in self.roster:
                log.info("%s is %s the roster", name, "now on" if name in roster else "off")
            elif self.roster[name] != roster[name]:
                log.info("the keys of %s on the roster have changed", name)
        self.roster = roster

    def _tick(self, now: float) -> None:
        self._reread()
        for line in list(self._lines.values()):
            if not self._good(identity_of(line.address), line.key):
                self._cut(line)
            elif not self._send(line.route, relay.TICK):
                line.lost_at = line.lost_at or now
                if now - line.lost_at >= RETURN_SECONDS:
                    self._down(line, "lost its connection to the hub")
        if not self._settled and now - self._started >= SETTLE_SECONDS:
            self._settled = True
            for line in list(self._lines.values()):
                self._send_welcome(line)

    def _take_ended(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                name = self._ended.get_nowait()
                for line in [line for line in self._lines.values() if identity_of(line.address) == name]:
                    self._down(line, DIED)

    def _down(self, line: Line, reason: str) -> None:
        self._lines.pop(line.route, None)
        if self._by_address.get(line.address) is line:
            del self._by_address[line.address]
            log.info("%s %s", line.address, reason)
            self._tell(relay.Entry(line.address, False, line.version, line.incarnation, reason), but=line)

    def _tell(self, entry: relay.Entry, but: Line) -> None:
        data = relay.pack(entry)
        for line in list(self._lines.values()):
            if line is not but:
                self._send(line.route, relay.PRESENCE, data)

    def _send_welcome(self, line: Line) -> None:
        entries = [relay.Entry(each.address, True, each.version, each.incarnation) for each in self._lines.values()]
        self._send(line.route, relay.WELCOME, relay.pack(relay.Welcome(__version__, self._settled, entries)))

    def _refuse(self, route: bytes, reason: str) -> None:
        self._send(route, relay.REFUSED, relay.pack(relay.Refusal(WIRE_VERSION, reason)))

    def _send(self, route: bytes, kind: bytes, rest: bytes = b"") -> bool:
        """False when the connection is gone."""
        try:
            self._router.send_multipart([route, kind + rest], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            return error.errno != zmq.EHOSTUNREACH
        return True


def _explain_bind(bind: str, error: zmq.ZMQError) -> str:
    if error.errno == zmq.EADDRINUSE:
        return (
            f"the hub cannot listen on {bind}: another program uses that port already. Stop it, or choose another "
            "port for `hub` under [federation]; port 0 takes any free one."
        )
    return (
        f"the hub cannot listen on {bind}: {error.strerror}. `hub` under [federation] must be an address of this "
        "machine, such as tcp://127.0.0.1:0."
    )
