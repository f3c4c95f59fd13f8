"""SecretFlow's `spu` in a process of its own, inside the sandbox: its peer is behind two pipes, and it does not know.

    python -m fednb.federation.spu_side RANK

`spu` wants to listen on an address and to call its peer's. Here both addresses are Unix sockets in a folder that only
this process sees: it listens on one, and this module on the other. Whatever comes in there goes out through the
standard output, and what arrives at the standard input is put through to the first. No network exists.

    agent ── hashes, then pieces ──> stdin            stdout ── pieces, matches or a failure ──> agent
                                       └─> own ─ spu ─ peer ─┘

A frame is a kind, a length and so many bytes. What is in a piece only the processes at both ends read.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fednb.protocols.psi_spu import HASH

HASHES, PIECE, MATCHES, FAILED = range(4)  # kinds of frames
HEAD = struct.Struct("<BI")  # kind, length

_PIECE_HEAD = struct.Struct("<I?")  # stream: even where rank 0 called, odd where rank 1 did; whether it ends
# instead of a stream: this side's spu can start; it takes calls; it has its link
_READY, _LISTENS, _LINKED = _WORDS = 0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF
_READ = 1 << 18  # bytes of a piece
_WAIT_MS = 900_000  # for the peer's start, its computing, and one call: this may be a slow line
_AGAIN_MS = 100  # until a peer that does not listen yet is called again
_HELD_SECONDS = 1.0
_FOLDER = Path("/tmp")  # noqa: S108  (the sandbox's own, in memory)

Write = Callable[[int, bytes], None]


class Tunnel:
    """Connections of `spu` to its peer, and of its peer to it, as pieces."""

    def __init__(self, rank: int, write: Write) -> None:
        self.own, self.peer = _FOLDER / "own", _FOLDER / "peer"
        self.over = False  # spu has its matches, and takes no more calls
        self._rank = self._next = rank
        self._write = write
        self._streams: dict[int, socket.socket] = {}
        self._halves: set[int] = set()  # streams that have ended in one direction
        self._lock = threading.Lock()
        self._heard = {word: threading.Event() for word in _WORDS}  # from the other side
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.peer))
        self._listener.listen()

    def open(self) -> None:
        """Wait until the other side's `spu` can start too, then take the calls of this one."""
        self._meet(_READY)
        for work in (self._accept, self._tell):
            threading.Thread(target=work, daemon=True).start()

    def linked(self) -> None:
        """Wait until both have their links.

        spu greets its peer again when it begins to intersect; a greeting that comes before the first was read is lost.
        """
        self._meet(_LINKED)

    def put_through(self, piece: bytes) -> None:
        """A piece from the other side. Raises struct.error for what is none."""
        stream, ends = _PIECE_HEAD.unpack_from(piece)
        if stream in self._heard:
            self._heard[stream].set()
            return
        with self._lock:
            sock = self._streams.get(stream)
        if sock is None and not ends and stream % 2 != self._rank:
            if (sock := self._called()) is None:
                self._write(PIECE, _PIECE_HEAD.pack(stream, True))
                return
            self._carry_on(stream, sock)
        if sock is not None:
            with contextlib.suppress(OSError):  # it has ended here
                sock.sendall(piece[_PIECE_HEAD.size :])
                if ends:
                    sock.shutdown(socket.SHUT_WR)
            if ends:
                self._ended(stream)

    def _called(self) -> socket.socket | None:
        """A connection to `spu`; None when it no longer listens."""
        sock = socket.socket(socket.AF_UNIX)
        while not self.over:
            try:
                sock.connect(str(self.own))
            except (FileNotFoundError, ConnectionRefusedError):  # between `bind` and `listen`
                time.sleep(0.01)
            else:
                return sock
        sock.close()
        return None

    def _tell(self) -> None:
        """The other side, once `spu` listens."""
        while not self.own.exists():
            time.sleep(0.01)
        self._say(_LISTENS)

    def _meet(self, word: int) -> None:
        self._say(word)
        self._heard[word].wait()

    def _say(self, word: int) -> None:
        self._write(PIECE, _PIECE_HEAD.pack(word, False))

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            # spu calls again when it is refused; held for two seconds, its greeting would be given up and said again
            if not self._heard[_LISTENS].wait(_HELD_SECONDS):
                sock.close()
                continue
            self._next += 2
            self._carry_on(self._next - 2, sock)

    def _carry_on(self, stream: int, sock: socket.socket) -> None:
        with self._lock:
            self._streams[stream] = sock
        threading.Thread(target=self._carry, args=(stream, sock), daemon=True).start()

    def _carry(self, stream: int, sock: socket.socket) -> None:
        data = b"-"
        while data:
            try:
                data = sock.recv(_READ)
            except OSError:
                data = b""
            self._write(PIECE, _PIECE_HEAD.pack(stream, not data) + data)
        self._ended(stream)

    def _ended(self, stream: int) -> None:
        """In one direction; the second time in both."""
        with self._lock:
            if stream not in self._halves:
                self._halves.add(stream)
            elif sock := self._streams.pop(stream, None):
                sock.close()


def main() -> None:
    """Intersect, and end. Says FAILED, in words, when that does not work."""
    rank, source, sink = int(sys.argv[1]), sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # where spu's own log goes
    writing = threading.Lock()

    def write(kind: int, payload: bytes) -> None:
        frame = memoryview(HEAD.pack(kind, len(payload)) + payload)
        with writing, contextlib.suppress(BrokenPipeError):  # the agent has ended this
            while frame:
                frame = frame[os.write(sink, frame) :]

    def fail(error: BaseException) -> None:
        write(FAILED, f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)

    threading.excepthook = lambda what: fail(what.exc_value or SystemExit())  # no thread may end and leave spu waiting
    try:
        file = _FOLDER / "in.csv"
        _write_down(source, file)
        tunnel = Tunnel(rank, write)
        threading.Thread(target=_put_through, args=(source, tunnel), daemon=True).start()
        matches = intersect(rank, file, tunnel)
    except BaseException as error:
        fail(error)
    tunnel.over = True
    write(MATCHES, matches)
    threading.Event().wait()  # what this spu said last its peer may still need; the agent ends us


def intersect(rank: int, file: Path, tunnel: Tunnel) -> bytes:
    """The hashes that both have, end to end."""
    link, psi = _spu()
    tunnel.open()
    description = link.Desc()
    for number in (0, 1):
        description.add_party(f"rank{number}", f"unix:{tunnel.own if number == rank else tunnel.peer}")
    description.http_timeout_ms = description.recv_timeout_ms = _WAIT_MS
    description.connect_retry_interval_ms, description.connect_retry_times = _AGAIN_MS, _WAIT_MS // _AGAIN_MS
    csv, found = psi.SourceType.SOURCE_TYPE_FILE_CSV, _FOLDER / "out.csv"
    config = psi.PsiExecuteConfig(
        protocol_conf=psi.PsiProtocolConfig(
            protocol=psi.PsiProtocol.PROTOCOL_RR22, receiver_rank=0, broadcast_result=True
        ),
        input_params=psi.InputParams(type=csv, path=str(file), selected_keys=["id"], keys_unique=True),
        output_params=psi.OutputParams(type=csv, path=str(found)),
    )
    context = link.create_brpc(description, rank)
    tunnel.linked()
    psi.psi_execute(config, context)
    context.stop_link()
    return b"".join(line.strip(b'"') for line in found.read_bytes().split()[1:])


def read(source: IO[bytes]) -> tuple[int, bytes]:
    """The next frame. Raises EOFError at the end."""
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    kind, length = HEAD.unpack(head)
    return kind, source.read(length)


def _write_down(source: IO[bytes], file: Path) -> None:
    """Hashes, to an empty frame, as a table of one column."""
    with file.open("wb") as out:
        out.write(b"id\n")
        while block := read(source)[1]:
            out.write(b"".join(block[at : at + HASH] + b"\n" for at in range(0, len(block), HASH)))


def _put_through(source: IO[bytes], tunnel: Tunnel) -> None:
    with contextlib.suppress(EOFError):
        while True:
            tunnel.put_through(read(source)[1])
    os._exit(0)  # the agent has gone


def _spu() -> tuple[Any, Any]:
    """The parts of `spu` that intersect. The whole would load JAX and an old NumPy, which they do not need."""
    found = importlib.util.find_spec("spu")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("spu is not installed")
    package = types.ModuleType("spu")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["spu"] = package
    return importlib.import_module("spu.libspu").link, importlib.import_module("spu.psi")


if __name__ == "__main__":
    main()
