"""The local pipe between a kernel and its agent: the same conversations over a Unix socket on one machine.

The socket lies in a folder of mode 0700 and both ends compare user ids, so nothing is sealed. It is a stream, not
ZeroMQ: the end of a process is noticed at once, and a caller's message goes out from the caller's own thread. Every
connection has one thread that reads.

    packet   u32 length of head, head, frames     head = msgpack [kind, talk, peer or context or reason, frame lengths,
             seen, wire version]
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from fednb.errors import ConfigError, LinkError, PeerLost, VersionMismatch
from fednb.version import __version__
from fednb.wire import WIRE_VERSION, codec
from fednb.wire.codec import Frame
from fednb.wire.endpoint import Conversation, Presence
from fednb.wire.message import Message
from fednb.wire.switchboard import Handler, Switchboard, Talk

log = logging.getLogger("fednb.wire")

MAX_PATH = 107  # of a Unix socket, on Linux
HELLO_SECONDS = 90.0  # a confined kernel connects before it has loaded what says hello, on a busy machine long before
_MAX_HEAD = 1 << 20
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_GATHER = 64  # buffers handed to the kernel at once
_REMEMBERED = 1000  # conversations closed here that the peer may still be opening from its side


class _Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: Literal["hello", "open", "message", "close"]
    talk: int = 0  # chosen by the opener: even for the side that connected, odd for the one that listens
    text: str = ""  # hello: who it is; open: the context; close: the reason
    lengths: list[int] = []
    seen: int = -1  # open: the number of the last conversation that the other end had opened by then, as this end knew
    wire: int = WIRE_VERSION


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode


class _Wire:
    """One connected socket: packets in, packets out."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()

    def send(self, head: _Head, frames: list[Frame] | None = None) -> None:
        """Blocks while the other end does not read. Raises OSError when it is gone."""
        raw = _encode_head(head)
        views = [memoryview(struct.pack(">I", len(raw)) + raw)]
        views += [view for view in (memoryview(frame).cast("B") for frame in frames or []) if len(view)]
        with self._sending:
            while views:
                sent = self._socket.sendmsg(views[:_GATHER])
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if sent:
                    views[0] = views[0][sent:]

    def recv(self) -> tuple[_Head, list[Frame]]:
        """Raises EOFError at the end, LinkError for nonsense."""
        (size,) = struct.unpack(">I", self._exactly(4))
        if size > _MAX_HEAD:
            raise LinkError("a malformed packet came through the local pipe")
        try:
            head = _decode_head(self._exactly(size))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise LinkError("a malformed packet came through the local pipe") from None
        if (
            any(n < 0 for n in head.lengths)
            or sum(head.lengths) > codec.MAX_BYTES
            or len(head.lengths) > codec.MAX_FRAMES
        ):
            raise LinkError("an oversized packet came through the local pipe")
        return head, [self._exactly(length) for length in head.lengths]

    def _exactly(self, size: int) -> bytearray:
        room = bytearray(size)
        view = memoryview(room)
        while view:
            got = self._socket.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return room

    def check_owner(self) -> None:
        """Raises LinkError unless the process at the other end runs as the same user."""
        if not hasattr(socket, "SO_PEERCRED"):
            return  # the folder's mode alone has to do
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != os.geteuid():
            raise LinkError(f"a process of another user (uid {uid}) is at the other end of the local pipe")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
        self._socket.close()


class PipeTalk(Talk):
    """A conversation over a `_Branch`."""

    def __init__(self, branch: _Branch, context: str, number: int, seen: int = -1) -> None:
        super().__init__(branch.board, branch.peer, context)
        self.number = number
        self.seen = seen
        self._branch = branch
        self._order = threading.Lock()

    def _transmit(self, message: Message, frames: list[Frame]) -> None:
        with self._order:
            self._raise_if_over()
            head = _Head("message", self.number, lengths=[len(memoryview(frame).cast("B")) for frame in frames])
            try:
                self._branch.wire.send(head, frames)
            except OSError:
                self._branch.lost()
                self._raise_if_over()

    def _finish(self, reason: str) -> None:
        with contextlib.suppress(OSError):  # the other end is gone: it needs no notice
            self._branch.wire.send(_Head("close", self.number, reason[:4000]))
        self._branch.forget(self)


class _Branch:
    """One connection, with the conversations on it and the thread that reads."""

    def __init__(
        self, wire: _Wire, board: Switchboard, peer: str, first: int, ended: Callable[[_Branch], None]
    ) -> None:
        self.wire = wire
        self.board = board
        self.peer = peer
        self._numbers = itertools.count(first, 2)
        self._talks: dict[int, PipeTalk] = {}
        self._unanswered: dict[str, list[PipeTalk]] = {}  # opened here; the peer may open the same at the same time
        self._forgotten: collections.deque[PipeTalk] = collections.deque()  # of those, what is closed here already
        self._seen = -1
        self._ended = ended
        self._over = False
        self.thread = threading.Thread(target=self._read, name=f"{board.me}: pipe with {peer}", daemon=True)

    def begin(self, context: str) -> PipeTalk:
        """Called with the board's lock held."""
        talk = PipeTalk(self, context, next(self._numbers), self._seen)
        if self._over:
            talk.end(PeerLost, f"{self.peer} has left")
            return talk
        self._talks[talk.number] = talk
        self._unanswered.setdefault(context, []).append(talk)
        return talk

    def announce(self, talk: PipeTalk) -> None:
        try:
            self.wire.send(_Head("open", talk.number, talk.context, seen=talk.seen))
        except OSError:
            self.lost()

    def forget(self, talk: PipeTalk) -> None:
        with self.board.lock:
            for number in [number for number, each in self._talks.items() if each is talk]:
                del self._talks[number]
            if talk in self._unanswered.get(talk.context, []):
                self._forgotten.append(talk)
                if len(self._forgotten) > _REMEMBERED:
                    self._answered(self._forgotten.popleft())

    def _answered(self, talk: PipeTalk) -> None:
        waiting = self._unanswered.get(talk.context, [])
        if talk in waiting:
            waiting.remove(talk)
            if not waiting:
                del self._unanswered[talk.context]

    def lost(self, why: str = "") -> None:
        """The connection is over, and so is everything on it."""
        with self.board.lock:
            if self._over:
                return
            self._over = True
            talks = list(self._talks.values())
            self._talks.clear()
        self.wire.close()
        self._ended(self)  # first: whoever hears that a conversation ended finds its peer gone
        for talk in talks:
            talk.end(PeerLost, f"{self.peer} has left" + (f": {why}" if why else ""))

    def _read(self) -> None:
        why = ""
        try:
            while True:
                self._take(*self.wire.recv())
        except (EOFError, OSError):
            pass
        except LinkError as error:
            why = str(error)
        except Exception as error:  # whoever waits must hear of it
            log.exception("the pipe between %s and %s failed", self.board.me, self.peer)
            why = f"an unexpected {type(error).__name__} while a packet was taken in"
        finally:
            self.lost(why)

    def _take(self, head: _Head, frames: list[Frame]) -> None:
        if head.kind == "open":
            self._take_open(head)
            return
        with self.board.lock:
            talk = self._talks.get(head.talk)
        if talk is None:
            return  # closed here while it was on its way
        if head.kind == "message":
            talk.deliver(frames)
        elif head.kind == "close":
            self.forget(talk)
            talk.end(PeerLost, f"{self.peer} ended the conversation" + (f": {head.text}" if head.text else ""))

    def _take_open(self, head: _Head) -> None:
        with self.board.lock:
            self._seen = head.talk
            for talk in list(self._unanswered.get(head.text, [])):
                self._answered(talk)
                if talk.number > head.seen:
                    # both ends opened it: it is one conversation, reached under both numbers, sent under each end's
                    # own. One that was closed here meanwhile is over for the peer too, which has had the notice.
                    if talk.number in self._talks:
                        self._talks[head.talk] = talk
                    return
            talk = PipeTalk(self, head.text, head.talk)
            self._talks[head.talk] = talk
            welcome = self.board.arrive(talk)
        if not welcome:
            talk.close(f"too many conversations wait at {self.board.me}")


class PipeEndpoint:
    """A kernel's end of its agent's `PipeServer`."""

    def __init__(self, path: Path | socket.socket, me: str, peer: str) -> None:
        """`path` is where to connect to, or a socket that is connected already."""
        self.me = me
        self.peer = peer
        self._board = Switchboard(me)
        self._watchers: list[Callable[[Presence], None]] = []
        sock = path if isinstance(path, socket.socket) else socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        wire = _Wire(sock)
        try:
            if not isinstance(path, socket.socket):
                sock.connect(os.fspath(path))
            wire.check_owner()
            wire.send(_Head("hello", text=me))
            _check_hello(wire.recv()[0], peer)
        except (OSError, EOFError) as error:
            sock.close()
            where = "its pipe" if isinstance(path, socket.socket) else path
            raise LinkError(
                f"{me} cannot reach its agent through {where}: {error or 'it hung up'}", member=peer
            ) from None
        except LinkError:
            sock.close()
            raise
        self._branch = _Branch(wire, self._board, peer, 0, self._lost)
        self._up = True
        self._branch.thread.start()

    def open(self, peer: str, context: str) -> Conversation:
        if peer != self.peer:
            raise ConfigError(f"{self.me} can only talk to {self.peer} through this pipe, not to {peer}")
        return _open(self._board, self._branch, context)

    def listen(self, prefix: str, handler: Handler) -> None:
        self._board.listen(prefix, handler)

    def members(self) -> Mapping[str, Presence]:
        return {self.peer: Presence(self.peer, "agent", self._up, __version__ if self._up else "")}

    def watch(self, callback: Callable[[Presence], None]) -> None:
        self._watchers.append(callback)

    def close(self) -> None:
        self._board.close(f"{self.me} stopped")
        self._branch.lost("the pipe was closed")
        if threading.current_thread() is not self._branch.thread:
            self._branch.thread.join(5.0)

    def _lost(self, branch: _Branch) -> None:
        self._up = False
        _tell(self._watchers, Presence(self.peer, "agent", False))


class PipeServer:
    """An agent's end: listens at `path`, whose folder is made with mode 0700, for any number of kernels."""

    def __init__(self, path: Path, me: str) -> None:
        self.me = me
        self.path = path
        self._board = Switchboard(me)
        self._watchers: list[Callable[[Presence], None]] = []
        self._branches: dict[str, _Branch] = {}
        self._closed = False
        if len(os.fsencode(path)) > MAX_PATH:
            raise ConfigError(f"{path} is too long for a socket ({MAX_PATH} bytes at most): use a shorter folder")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            raise ConfigError(f"{path.parent} is open to other users. Run: chmod 700 {path.parent}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(os.fspath(path))
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"{me} cannot listen at {path}: {error.strerror}") from None
        path.chmod(0o600)
        self._socket.listen()
        self._wake_out, self._wake_in = os.pipe()
        self._thread = threading.Thread(target=self._accept, name=f"{me}: pipe", daemon=True)
        self._thread.start()

    def open(self, peer: str, context: str) -> Conversation:
        with self._board.lock:
            branch = self._branches.get(peer)
        if branch is None:
            raise PeerLost(f"{peer} is not connected to {self.me}", member=peer)
        return _open(self._board, branch, context)

    def listen(self, prefix: str, handler: Handler) -> None:
        self._board.listen(prefix, handler)

    def members(self) -> Mapping[str, Presence]:
        with self._board.lock:
            return {name: Presence(name, "kernel", True, __version__) for name in self._branches}

    def watch(self, callback: Callable[[Presence], None]) -> None:
        self._watchers.append(callback)

    def close(self) -> None:
        with self._board.lock:
            if self._closed:
                return
            self._closed = True
        self._board.close(f"{self.me} stopped")
        os.write(self._wake_in, b"x")
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)
        with self._board.lock:
            branches = list(self._branches.values())
        for branch in branches:
            branch.lost(f"{self.me} stopped")
            if threading.current_thread() is not branch.thread:
                branch.thread.join(5.0)
        self._socket.close()
        self.path.unlink(missing_ok=True)
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        while not self._closed:
            ready = {handle for handle, _ in poll.poll()}
            if self._socket.fileno() not in ready:
                continue
            try:
                sock, _ = self._socket.accept()
            except OSError as error:
                log.warning("%s could not accept a kernel: %s", self.me, error)
                continue
            threading.Thread(target=self._greet, args=(sock,), name=f"{self.me}: pipe hello", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        wire = _Wire(sock)
        try:
            sock.settimeout(HELLO_SECONDS)
            wire.check_owner()
            head, _ = wire.recv()
            wire.send(_Head("hello", text=self.me))
            _check_hello(head, None)
            sock.settimeout(None)
        except (OSError, EOFError, LinkError) as error:
            log.warning("%s refused a connection to its pipe: %s", self.me, error or "it hung up")
            wire.close()
            return
        branch = _Branch(wire, self._board, head.text, 1, self._lost)
        with self._board.lock:
            old = self._branches.get(head.text)
            closed = self._closed
            if not closed:
                self._branches[head.text] = branch
                branch.thread.start()  # under the lock: `close` joins what it finds
        if old:
            old.lost("it connected anew")
        if closed:
            wire.close()
            return
        _tell(self._watchers, Presence(head.text, "kernel", True, __version__))

    def _lost(self, branch: _Branch) -> None:
        with self._board.lock:
            if self._branches.get(branch.peer) is not branch:
                return
            del self._branches[branch.peer]
        _tell(self._watchers, Presence(branch.peer, "kernel", False))


def _open(board: Switchboard, branch: _Branch, context: str) -> Conversation:
    begun: list[PipeTalk] = []

    def make() -> Talk:
        begun.append(branch.begin(context))
        return begun[0]

    talk = board.open(branch.peer, context, make)
    for new in begun:
        branch.announce(new)
    return talk


def _check_hello(head: _Head, peer: str | None) -> None:
    if head.wire != WIRE_VERSION:
        raise VersionMismatch(
            f"{head.text or 'the other end'} speaks version {head.wire} of fednb's wire format, this process version "
            f"{WIRE_VERSION}. Both ends of a local pipe must run the same fednb."
        )
    if head.kind != "hello" or not head.text or (peer is not None and head.text != peer):
        raise LinkError(f"{head.text or 'something'} answers at the local pipe where {peer or 'a kernel'} was expected")


def _tell(watchers: list[Callable[[Presence], None]], presence: Presence) -> None:
    for callback in list(watchers):
        try:
            callback(presence)
        except Exception:  # a caller's defect must not end everybody's conversations
            log.exception("a watcher of %s failed", presence.name)
