"""Sealed conversations: two members agree on keys through a hub that both distrust.

    A                                                            B
    hello(ephemeral a, answers nothing)   ───────────────────>
                                          <───────────────────   hello(ephemeral b, answers a)
    hello(ephemeral a, answers b)         ───────────────────>
    records under keys from X25519(a, b)  <──────────────────>

A hello is signed with its sender's Ed25519 identity, as pinned in the roster, and names both addresses, the context
and the sender's incarnation (its process). An end has keys once it holds a hello that answers its own ephemeral
key: an old hello, replayed, answers an old key and gets nowhere. When both begin at once, both answer each other and
meet in the same keys. Ephemeral keys live as long as one conversation: identities that leak later open none of it.

A record is `kind, flags, session, number, acknowledged` in clear, bound as additional data, and ChaCha20-Poly1305
under a key for that direction. The nonce is kind and number, so no two records share one; the receiver takes each
number once and in order (see `stream`).
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fednb.errors import SealBroken, VersionMismatch
from fednb.version import __version__
from fednb.wire import WIRE_VERSION
from fednb.wire.keys import Identity, PublicIdentity
from fednb.wire.switchboard import identity_of

HELLO, DATA, CONTROL, GONE = 1, 2, 3, 4  # a record's first byte

MAX_HELLO = 2048
MAX_CONTEXT = 512
_SIGNATURE = 64
_TAG = 16
_HEADER = struct.Struct(">BB16sQQ")
OVERHEAD = _HEADER.size + _TAG  # bytes that a record adds to its plaintext


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What two ends tell each other to agree on keys. `wire` stays first in every version, to be read by all."""

    wire: int
    version: str  # of fednb
    sender: str  # address
    receiver: str
    context: str
    incarnation: bytes  # [16] drawn by the sender's process when it started
    ephemeral: bytes  # [32] X25519 public key, for this conversation only
    answers: bytes  # the receiver's ephemeral key that this is the answer to; empty: it begins


class Header(NamedTuple):
    """The clear part of a record."""

    kind: int
    flags: int
    session: bytes
    number: int
    acknowledged: int


_encode = msgspec.msgpack.Encoder().encode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_any = msgspec.msgpack.Decoder().decode


class Handshake:
    """One end's ephemeral key, until both ends have agreed."""

    def __init__(self, me: Identity, address: str, peer: str, context: str, incarnation: bytes) -> None:
        if len(context.encode()) > MAX_CONTEXT:
            raise ValueError(f"a context of {len(context):,} characters; at most {MAX_CONTEXT} bytes are possible")
        self._me = me
        self.address = address
        self.peer = peer
        self.context = context
        self.incarnation = incarnation
        self._ephemeral = X25519PrivateKey.generate()
        self.public = self._ephemeral.public_key().public_bytes_raw()

    def hello(self, answers: bytes = b"") -> bytes:
        """The record to send: an opening, or the answer to a peer's ephemeral key."""
        body = _encode(
            Hello(
                WIRE_VERSION,
                __version__,
                self.address,
                self.peer,
                self.context,
                self.incarnation,
                self.public,
                answers,
            )
        )
        return bytes([HELLO]) + body + self._me.sign(b"fednb hello" + body)

    def agree(self, hello: Hello) -> Seal:
        """Keys, from a verified hello that answers this end's ephemeral key."""
        if hello.answers != self.public:
            raise SealBroken(f"{self.peer} answered another hello than ours", member=identity_of(self.peer))
        try:
            shared = self._ephemeral.exchange(X25519PublicKey.from_public_bytes(hello.ephemeral))
        except ValueError:  # a low-order point: anybody would know the shared key
            raise SealBroken(f"{self.peer} offered an unusable key", member=identity_of(self.peer)) from None
        mine = [self.address, self.incarnation, self.public]
        theirs = [hello.sender, hello.incarnation, hello.ephemeral]
        everything = _encode([WIRE_VERSION, self.context, *sorted([mine, theirs])])
        transcript = hashlib.blake2b(everything, digest_size=32).digest()

        def derive(purpose: str, length: int) -> bytes:
            info = b"fednb " + purpose.encode()
            return HKDF(hashes.SHA256(), length, salt=transcript, info=info).derive(shared)

        return Seal(
            derive("session", 16),
            derive("from " + self.address, 32),
            derive("from " + self.peer, 32),
            hello.incarnation,
        )


def read_hello(record: bytes | memoryview, sender: PublicIdentity, receiver: str) -> Hello:
    """The hello in `record`, which `sender` signed for the address `receiver`.

    Raises SealBroken when it did not, VersionMismatch when it did in another version of the wire format.
    """
    raw = bytes(record)
    body, signature = raw[1:-_SIGNATURE], raw[-_SIGNATURE:]
    if len(raw) > MAX_HELLO or not sender.verifies(signature, b"fednb hello" + body):
        raise SealBroken(f"a hello in the name of {sender.name} is not signed by it", member=sender.name)
    try:
        loose = _decode_any(body)
        if loose[0] != WIRE_VERSION:
            raise VersionMismatch(
                f"{sender.name} speaks version {int(loose[0])} of fednb's wire format, this member version "
                f"{WIRE_VERSION}. Install the same version of fednb at both.",
                member=sender.name,
            )
        hello = _decode_hello(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, LookupError, ValueError):
        raise SealBroken(f"{sender.name} sent a malformed hello", member=sender.name) from None
    fits = (
        identity_of(hello.sender) == sender.name
        and hello.receiver == receiver
        and len(hello.incarnation) == 16
        and len(hello.ephemeral) == 32
        and len(hello.answers) in (0, 32)
        and len(hello.context.encode()) <= MAX_CONTEXT
    )
    if not fits:
        raise SealBroken(f"{sender.name} sent a hello that was not meant for {receiver}", member=sender.name)
    return hello


class Seal:
    """The keys of one conversation, at one end. Shows none of them."""

    def __init__(self, session: bytes, send_key: bytes, receive_key: bytes, peer_incarnation: bytes) -> None:
        self.session = session
        self.peer_incarnation = peer_incarnation
        self._send = ChaCha20Poly1305(send_key)
        self._receive = ChaCha20Poly1305(receive_key)

    def __repr__(self) -> str:
        return f"<seal of session {self.session.hex()[:8]}>"

    def seal(self, kind: int, flags: int, number: int, acknowledged: int, plaintext: bytes | memoryview) -> bytearray:
        """A record. The caller never uses a number twice for the same kind."""
        header = _HEADER.pack(kind, flags, self.session, number, acknowledged)
        record = bytearray(_HEADER.size + len(plaintext) + _TAG)
        record[: _HEADER.size] = header
        self._send.encrypt_into(_nonce(kind, number), plaintext, header, memoryview(record)[_HEADER.size :])
        return record

    def open(self, record: memoryview) -> bytes:
        """A record's plaintext. Raises SealBroken."""
        header = read_header(record)
        try:
            return self._receive.decrypt(
                _nonce(header.kind, header.number), record[_HEADER.size :], bytes(record[: _HEADER.size])
            )
        except InvalidTag:
            raise SealBroken("a record is not what the peer sealed") from None

    def open_into(self, record: memoryview, room: memoryview) -> int:
        """Like `open`, into `room`, which must be as long as the plaintext or longer; returns its length."""
        header = read_header(record)
        length = len(record) - OVERHEAD
        if length > len(room):
            raise SealBroken("a record is longer than its message")
        try:
            self._receive.decrypt_into(
                _nonce(header.kind, header.number),
                record[_HEADER.size :],
                bytes(record[: _HEADER.size]),
                room[:length],
            )
        except InvalidTag:
            raise SealBroken("a record is not what the peer sealed") from None
        return length


def read_header(record: memoryview) -> Header:
    """The clear part of a data or control record. Raises SealBroken when it is too short to be one."""
    if len(record) < OVERHEAD:
        raise SealBroken("a record is too short")
    return Header(*_HEADER.unpack_from(record))


def _nonce(kind: int, number: int) -> bytes:
    return bytes([kind, 0, 0, 0]) + number.to_bytes(8, "big")


# ---------------------------------------------------------------- "I do not know that conversation"


def gone_record(me: Identity, sender: str, receiver: str, session: bytes, reason: str) -> bytes:
    """A signed notice that `session` is over at this end: for a peer that still believes in it."""
    body = _encode([sender, receiver, session, reason[:500]])
    return bytes([GONE]) + body + me.sign(b"fednb gone" + body)


def read_gone(record: bytes | memoryview, sender: PublicIdentity, receiver: str) -> tuple[bytes, str]:
    """Session and reason. Raises SealBroken."""
    raw = bytes(record)
    body, signature = raw[1:-_SIGNATURE], raw[-_SIGNATURE:]
    if len(raw) > MAX_HELLO + 2000 or not sender.verifies(signature, b"fednb gone" + body):
        raise SealBroken(f"a notice in the name of {sender.name} is not signed by it", member=sender.name)
    try:
        source, target, session, reason = msgspec.msgpack.decode(body, type=tuple[str, str, bytes, str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise SealBroken(f"{sender.name} sent a malformed notice", member=sender.name) from None
    if identity_of(source) != sender.name or target != receiver:
        raise SealBroken(f"{sender.name} sent a notice that was not meant for {receiver}", member=sender.name)
    return session, reason
