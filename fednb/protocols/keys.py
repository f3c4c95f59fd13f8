"""The public key with which a run begins: how it travels, and what its receiver asks of it."""

from __future__ import annotations

from typing import Protocol

from fednb.crypto.paillier import PublicKey
from fednb.errors import CryptoError, UnexpectedMessage
from fednb.wire.disclosure import Disclosure
from fednb.wire.message import Message


class KeyParams(Protocol):
    """What parameters say of a run's key; everybody in the run has the same."""

    @property
    def key_bits(self) -> int: ...

    @property
    def insecure_short_key(self) -> bool: ...


class Key(Message):
    discloses = Disclosure("a public key")

    n: bytes  # the Paillier modulus, big-endian


def accept_key(n: bytes, params: KeyParams, sender: str) -> PublicKey:
    """UnexpectedMessage, naming the sender, for a key that is unsound or not of the agreed length."""
    try:
        key = PublicKey.from_bytes(n, insecure_short_key=params.insecure_short_key)
    except CryptoError as error:
        raise UnexpectedMessage(f"{sender} sent a key that cannot be used: {error}", member=sender) from None
    if key.bits != params.key_bits:
        raise UnexpectedMessage(f"{sender} sent a key of {key.bits} bits, not of {params.key_bits}", member=sender)
    return key
