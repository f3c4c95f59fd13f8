"""Malformed frames against everything that decodes what another member sent.

FEDNB_FUZZ=1000000 asks for more of them than a CI run does.
"""

from __future__ import annotations

import inspect
import os
import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from fednb.errors import FednbError, SealBroken, UnexpectedMessage
from fednb.federation import messages as m
from fednb.wire import codec, relay, seal
from fednb.wire.keys import Identity
from fednb.wire.message import Message

FRAMES = int(os.environ.get("FEDNB_FUZZ", "100000"))
FLAT = 8 << 20  # bytes that all of them together may leave behind: caches of types and regular expressions

KINDS = sorted(
    (each for _, each in inspect.getmembers(m, inspect.isclass) if issubclass(each, Message) and each is not Message),
    key=lambda kind: kind.__name__,
)
SAMPLES: list[Message] = [
    m.Execute("c1", "1 + 1", ["x"]),
    m.Display("c1", {"text/plain": "x", "application/json": {"a": [1, 2.5, None, {"b": True}]}}),
    m.Captured("c1", "x", m.ArrayValue(np.arange(6.0).reshape(2, 3))),
    m.CellDone("c1", "ok", 1.0, receipt=m.Receipt("bank", "c1", "ok", "r", [m.Crossing("a", "b", 1, 2, 3)])),
    m.StartRun("psi", {"party": ["bank"]}, {"bank": m.DataRef(rows=np.arange(9), columns=["x"])}, {"a": 1}),
    m.RunEvent("r1", 1, m.Event("bank", "active", 1.0, "train", metrics={"loss": 0.5}, bytes_out={"agency": 7})),
    m.Go(3, [m.Head("bank", 1, "0" * 64, "00")]),
    m.MemberDone(m.MemberResult("active", {"auc": 0.7, "curve": np.arange(4, dtype=np.uint8)})),
]


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Bits flipped, bytes overwritten, cut, doubled, swapped or grown."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(out)) if out else 0
        way = chance.randrange(6)
        if way == 0 and out:
            out[at] ^= 1 << chance.randrange(8)
        elif way == 1 and out:
            out[at] = chance.choice((0, 0x7F, 0x80, 0xC1, 0xC7, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0xFF))
        elif way == 2:
            del out[at:]
        elif way == 3:
            out[at:at] = out[at : at + chance.randrange(1, 32)]
        elif way == 4:
            out[at : at + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
        else:
            del out[at : at + chance.randrange(1, 9)]
    return bytes(out)


def malformed(chance: random.Random) -> tuple[list[bytes], type[Message]]:
    """Frames that are not what `encode` makes, and the kind that the receiver expects."""
    sample = chance.choice(SAMPLES)
    frames = [bytes(frame) for frame in codec.encode(sample)]
    way = chance.randrange(10)
    if way == 0:
        frames = [chance.randbytes(chance.randrange(64)) for _ in range(chance.randrange(4))]
    elif way == 1:
        frames = frames[: chance.randrange(len(frames) + 1)] + [b"x"] * chance.randrange(1, 3)
    elif way == 2:
        frames[0] = b"\x91" * chance.randrange(1, 3000) + frames[0]  # deep nesting
    elif way == 3:
        loose = msgspec.msgpack.decode(frames[0], ext_hook=lambda code, data: msgspec.msgpack.Ext(code, bytes(data)))
        loose[chance.choice([*loose, "unheard of"])] = chance.choice((None, -1, 1 << 63, "x", [], {}, b"", 1e308))
        frames[0] = msgspec.msgpack.encode(loose)
    else:
        at = chance.randrange(len(frames))
        frames[at] = mutated(chance, frames[at])
    kind = type(sample) if chance.randrange(4) else chance.choice(KINDS)
    return frames, kind


def is_sound(got: Message, kind: type[Message]) -> bool:
    """Whether what came out is what it says: of the expected kind, every field of its type, and able to travel on."""
    if type(got) is not kind:
        return False
    again: Any = codec.decode([bytes(frame) for frame in codec.encode(got)], kind)
    return type(again) is kind


def flat(work: Callable[[], None]) -> int:
    """Bytes that `work` leaves behind."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        after, _ = tracemalloc.get_traced_memory()
        return after - before
    finally:
        tracemalloc.stop()


def test_malformed_frames_are_refused_by_the_decoder_and_leave_nothing_behind() -> None:
    chance = random.Random(20)
    refused = wrong = 0

    def attack(times: int) -> None:
        nonlocal refused, wrong
        for _ in range(times):
            frames, kind = malformed(chance)
            try:
                got = codec.decode(frames, kind)
            except UnexpectedMessage as error:
                refused += 1
                assert len(str(error)) < 600
            else:  # a flipped bit in a number or a text is another valid message; the seal is what finds that
                wrong += not is_sound(got, kind)

    attack(FRAMES - FRAMES // 10)
    assert flat(lambda: attack(FRAMES // 10)) < FLAT
    assert wrong == 0
    assert refused > FRAMES // 2


def test_no_altered_record_is_accepted_under_a_seal() -> None:
    chance = random.Random(23)
    bank, agency = Identity.generate("bank"), Identity.generate("agency")
    ours = seal.Handshake(bank, "bank", "agency", "run/1", b"b" * 16)
    theirs = seal.Handshake(agency, "agency", "bank", "run/1", b"a" * 16)
    hello = seal.read_hello(ours.hello(theirs.public), bank.public("party"), "agency")
    answer = seal.read_hello(theirs.hello(ours.public), agency.public("party"), "bank")
    sender, receiver = ours.agree(answer), theirs.agree(hello)
    record = bytes(sender.seal(seal.DATA, 3, 1, 0, b"p" * 60))
    assert receiver.open(memoryview(record)) == b"p" * 60
    accepted = 0
    for _ in range(FRAMES):
        altered = mutated(chance, record)
        if altered == record:
            continue
        try:
            receiver.open(memoryview(altered))
            accepted += 1
        except SealBroken:
            continue
    assert accepted == 0


def test_malformed_words_to_the_hub_are_refused() -> None:
    chance = random.Random(21)
    announce = relay.pack(relay.Announce(1, "0.1.0", "bank", b"i" * 16))
    kinds = (relay.Announce, relay.Refusal, relay.Entry, relay.Welcome, relay.Ping, relay.Pong)
    for _ in range(FRAMES // 5):
        data = mutated(chance, announce) if chance.randrange(2) else chance.randbytes(chance.randrange(80))
        kind = chance.choice(kinds)
        got = relay.unpack(data, kind)
        assert got is None or type(got) is kind
        version = relay.version_of(data)
        assert version is None or type(version) is int


def test_malformed_files_of_other_members_are_refused(tmp_path: Any) -> None:
    from fednb.policy import audit

    chance = random.Random(22)
    line = msgspec.json.encode(m.Head("bank", 1, "0" * 64, "00")) + b"\n"
    path = tmp_path / "witnessed.jsonl"
    for _ in range(1000):
        path.write_bytes(mutated(chance, line * 3))
        try:
            heads = audit.witnessed(path)
        except FednbError:
            continue
        assert all(type(head) is audit.Head for head in heads)


def test_the_fuzzer_would_notice_an_unsound_message_and_kept_memory() -> None:
    assert not is_sound(m.Go(1), m.Joined)
    kept: list[bytes] = []
    assert flat(lambda: kept.extend(bytes(1 << 20) for _ in range(9))) > FLAT
