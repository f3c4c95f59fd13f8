"""Two identities agree on keys, and nobody else's record, old record or altered record is taken for theirs."""

from __future__ import annotations

import random

import msgspec
import pytest

from fednb.errors import SealBroken, VersionMismatch
from fednb.wire import seal
from fednb.wire.keys import Identity
from fednb.wire.seal import CONTROL, DATA, Handshake, Hello, Seal, gone_record, read_gone, read_hello

BANK, AGENCY, EVE = (Identity.generate(name) for name in ("bank", "agency", "eve"))
PUBLIC = {identity.name: identity.public("party") for identity in (BANK, AGENCY, EVE)}


def begin(me: Identity, peer: str, context: str = "run/1") -> Handshake:
    return Handshake(me, me.name, peer, context, me.name.encode().ljust(16))


def read(record: bytes, sender: str, receiver: str) -> Hello:
    return read_hello(record, PUBLIC[sender], receiver)


def pair(context: str = "run/1") -> tuple[Seal, Seal]:
    bank, agency = begin(BANK, "agency", context), begin(AGENCY, "bank", context)
    at_agency = read(bank.hello(agency.public), "bank", "agency")
    at_bank = read(agency.hello(bank.public), "agency", "bank")
    return bank.agree(at_bank), agency.agree(at_agency)


def test_both_ends_reach_the_same_keys_and_each_direction_has_its_own() -> None:
    bank, agency = pair()
    assert bank.session == agency.session
    record = bank.seal(DATA, 0, 1, 0, b"hello")
    assert b"hello" not in record
    assert agency.open(memoryview(record)) == b"hello"
    with pytest.raises(SealBroken):
        bank.open(memoryview(record))  # reflected to its sender


def test_every_conversation_has_keys_of_its_own() -> None:
    (first, _), (second, second_end) = pair(), pair()
    assert first.session != second.session
    with pytest.raises(SealBroken):
        second_end.open(memoryview(first.seal(DATA, 0, 1, 0, b"x")))


def test_a_hello_is_for_one_receiver_and_signed_by_its_sender() -> None:
    record = begin(BANK, "agency").hello()
    assert read(record, "bank", "agency").context == "run/1"
    for sender, receiver in (("eve", "agency"), ("bank", "eve")):
        with pytest.raises(SealBroken):
            read(record, sender, receiver)
    in_banks_name = Handshake(EVE, "bank", "agency", "run/1", b"e" * 16).hello()
    with pytest.raises(SealBroken, match="not signed"):
        read(in_banks_name, "bank", "agency")


def test_an_old_hello_answers_an_old_key_and_gets_nowhere() -> None:
    old = begin(AGENCY, "bank")
    replayed = read(begin(BANK, "agency").hello(old.public), "bank", "agency")
    with pytest.raises(SealBroken, match="another hello"):
        begin(AGENCY, "bank").agree(replayed)


def test_keys_differ_when_the_ends_disagree_about_the_context() -> None:
    bank, agency = begin(BANK, "agency", "run/1"), begin(AGENCY, "bank", "run/2")
    first = bank.agree(read(agency.hello(bank.public), "agency", "bank"))
    second = agency.agree(read(bank.hello(agency.public), "bank", "agency"))
    with pytest.raises(SealBroken):
        second.open(memoryview(first.seal(DATA, 0, 1, 0, b"x")))


def test_a_low_order_key_is_refused() -> None:
    bank = begin(BANK, "agency")
    hello = read(begin(AGENCY, "bank").hello(bank.public), "agency", "bank")
    with pytest.raises(SealBroken, match="unusable key"):
        bank.agree(msgspec.structs.replace(hello, ephemeral=bytes(32)))


def test_another_version_is_refused_with_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "WIRE_VERSION", 7)
    record = begin(BANK, "agency").hello()
    monkeypatch.undo()
    with pytest.raises(VersionMismatch, match=r"bank speaks version 7 .* this member version 1"):
        read(record, "bank", "agency")


def test_every_altered_byte_of_a_record_is_noticed() -> None:
    bank, agency = pair()
    record = bank.seal(CONTROL, 3, 9, 4, b"payload")
    for position in range(len(record)):
        altered = bytearray(record)
        altered[position] ^= 1
        with pytest.raises(SealBroken):
            agency.open(memoryview(altered))
    assert agency.open(memoryview(record)) == b"payload"


def test_opening_into_a_buffer_gives_the_same_and_never_writes_past_it() -> None:
    bank, agency = pair()
    record = memoryview(bank.seal(DATA, 0, 1, 0, b"payload"))
    room = bytearray(10)
    assert agency.open_into(record, memoryview(room)) == 7 and room[:7] == b"payload"
    with pytest.raises(SealBroken, match="longer"):
        agency.open_into(record, memoryview(bytearray(6)))


def test_a_gone_notice_is_signed_for_one_session_and_receiver() -> None:
    record = gone_record(BANK, "bank", "agency", b"s" * 16, "restarted")
    assert read_gone(record, PUBLIC["bank"], "agency") == (b"s" * 16, "restarted")
    for sender, receiver in (("eve", "agency"), ("bank", "eve")):
        with pytest.raises(SealBroken):
            read_gone(record, PUBLIC[sender], receiver)


def test_no_keys_show() -> None:
    bank, _ = pair()
    handshake = begin(BANK, "agency")
    assert repr(bank) == f"<seal of session {bank.session.hex()[:8]}>"
    assert "Key" not in repr(handshake)


def test_thousands_of_mutated_records_are_all_refused_cleanly() -> None:
    rng = random.Random(11)
    bank, agency = pair()
    handshake = begin(BANK, "agency")
    originals = [
        bytes(bank.seal(DATA, 3, 1, 0, b"p" * 50)),
        handshake.hello(),
        handshake.hello(b"a" * 32),
        gone_record(BANK, "bank", "agency", b"s" * 16, "bye"),
    ]
    readers = [
        lambda record: agency.open(memoryview(record)),
        lambda record: read_hello(record, PUBLIC["bank"], "agency"),
        lambda record: read_hello(record, PUBLIC["bank"], "agency"),
        lambda record: read_gone(record, PUBLIC["bank"], "agency"),
    ]
    accepted = 0
    for round_ in range(4000):
        original = originals[round_ % 4]
        record = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(1, len(original))  # the first byte only chooses the reader
            if rng.random() < 0.2:
                del record[position:]
            elif position < len(record):
                record[position] ^= rng.randrange(1, 256)
        if record == original:
            continue  # one change undid another
        try:
            readers[round_ % 4](record)
            accepted += 1
        except SealBroken:
            continue
    assert accepted == 0
