"""Two streams over a way that loses records: everything arrives, in order, exactly once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fednb.errors import SealBroken
from fednb.wire import stream
from fednb.wire.codec import Frame
from fednb.wire.keys import Identity
from fednb.wire.seal import Handshake, read_header, read_hello
from fednb.wire.stream import Closed, Stream


def ends() -> tuple[Stream, Stream]:
    bank, agency = Identity.generate("bank"), Identity.generate("agency")
    a = Handshake(bank, "bank", "agency", "c", b"b" * 16)
    b = Handshake(agency, "agency", "bank", "c", b"a" * 16)
    at_a = read_hello(b.hello(a.public), agency.public("party"), "bank")
    at_b = read_hello(a.hello(b.public), bank.public("party"), "agency")
    return Stream(a.agree(at_a), lambda: None, 0.0), Stream(b.agree(at_b), lambda: None, 0.0)


class Way:
    """Carries records both ways, in order, and loses some."""

    def __init__(self, left: Stream, right: Stream, *, loss: float = 0.0, seed: int = 0) -> None:
        self.left, self.right = left, right
        self.loss = loss
        self.rng = random.Random(seed)
        self.now = 0.0
        self.got: dict[Stream, list[list[bytes] | Closed]] = {left: [], right: []}
        self.records = 0

    def step(self) -> bool:
        """Everything that is ready now, in turns, up to a burst each; then time passes to the next deadline."""
        moved = False
        for source, target in ((self.left, self.right), (self.right, self.left)):
            for _ in range(50):
                record = source.next_record(self.now)
                if record is None:
                    break
                moved = True
                self.records += 1
                if self.rng.random() < self.loss:
                    continue
                view = memoryview(record)
                done = target.take(read_header(view), view, self.now)
                if done is not None:
                    self.got[target].append(done if isinstance(done, Closed) else [bytes(frame) for frame in done])
        if not moved:
            times = [t for t in (self.left.deadline(), self.right.deadline()) if t is not None]
            if not times:
                return False
            self.now = max(self.now, min(times))
        return True

    def settle(self, steps: int = 20_000) -> None:
        for _ in range(steps):
            if not self.step():
                return
        raise RuntimeError("the streams never came to rest")


def message(rng: random.Random, size: int) -> list[Frame]:
    return [rng.randbytes(rng.randint(1, 40)), rng.randbytes(size), b"", rng.randbytes(rng.randint(0, 5))]


def plain(frames: list[Frame]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.4])
def test_messages_both_ways_arrive_whole_in_order_and_once(loss: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK", 1000)
    rng = random.Random(3)
    left, right = ends()
    way = Way(left, right, loss=loss, seed=5)
    sent_left = [message(rng, rng.choice([0, 1, 15, 16, 950, 984, 985, 1000, 5000])) for _ in range(60)]
    sent_right = [message(rng, rng.randint(0, 3000)) for _ in range(40)]
    for frames in sent_left[:30]:
        left.put(frames)
    for frames in sent_right:
        right.put(frames)
    for _ in range(3):
        way.step()
    for frames in sent_left[30:]:
        left.put(frames)
    left.put_close("done")
    way.settle()
    assert way.got[right] == [*(plain(frames) for frames in sent_left), Closed("done")]
    assert way.got[left] == [plain(frames) for frames in sent_right]
    assert left.idle() and right.idle() and left.outstanding == right.outstanding == 0


def test_without_loss_nothing_is_sent_twice() -> None:
    left, right = ends()
    way = Way(left, right)
    for _ in range(100):
        left.put([b"x" * 100])
        way.step()
    way.settle()
    assert len(way.got[right]) == 100
    assert way.records < 130  # a hundred records and some acknowledgements


def test_a_long_message_lands_in_one_buffer_aligned_for_its_arrays() -> None:
    left, right = ends()
    array = np.arange(1_000_000, dtype=np.float64)
    left.put([b"head", array.view(np.uint8).data])
    done = None
    while (record := left.next_record(0.0)) is not None:
        done = right.take(read_header(memoryview(record)), memoryview(record), 0.0) or done
        if right.deadline() == 0.0 and (ack := right.next_record(0.0)) is not None:
            left.take(read_header(memoryview(ack)), memoryview(ack), 0.0)
    assert isinstance(done, list)
    back = np.frombuffer(done[1], np.float64)
    assert np.array_equal(back, array) and back.flags.aligned


def test_a_sender_pauses_while_the_receiver_holds_and_keeps_what_is_in_flight_bounded() -> None:
    left, right = ends()
    for _ in range(20):
        left.put([b"x" * stream.CHUNK])
    flying = 0
    while (record := left.next_record(0.0)) is not None:
        flying += len(record)
    assert stream.IN_FLIGHT <= flying <= stream.IN_FLIGHT + 2 * stream.CHUNK
    way = Way(left, right)
    right.hold = True
    left.probe()
    for _ in range(10):
        way.step()
    assert way.got[right] == [] and not left.idle()
    right.hold = False
    right.ack_now(way.now)
    way.settle()
    assert len(way.got[right]) == 20


def test_a_replayed_record_is_taken_once() -> None:
    left, right = ends()
    left.put([b"once"])
    record = left.next_record(0.0)
    assert record is not None
    view = memoryview(record)
    assert right.take(read_header(view), view, 0.0) == [b"once"]
    assert right.take(read_header(view), view, 0.0) is None


def test_a_replayed_request_to_pause_is_ignored() -> None:
    left, right = ends()
    right.hold = True
    right.ack_now(0.0)
    pause = right.next_record(0.0)
    right.hold = False
    right.ack_now(0.0)
    resume = right.next_record(0.0)
    assert pause is not None and resume is not None
    left.put([b"x"])
    for record in (pause, resume, pause):
        left.take(read_header(memoryview(record)), memoryview(record), 0.0)
    assert left.next_record(0.0) is not None


def test_altered_records_are_dropped_and_sent_again_but_not_for_ever() -> None:
    left, right = ends()
    left.put([b"payload"])
    record = left.next_record(0.0)
    assert record is not None
    altered = bytearray(record)
    altered[-1] ^= 1
    view = memoryview(altered)
    assert right.take(read_header(view), view, 0.0) is None
    way = Way(left, right)
    way.settle()
    assert way.got[right] == [[b"payload"]]
    left.put([b"more"])
    record = left.next_record(way.now)
    assert record is not None
    altered = bytearray(record)
    altered[-1] ^= 1
    view = memoryview(altered)
    with pytest.raises(SealBroken, match="altered on the way"):
        for _ in range(stream.MAX_BROKEN):
            right.take(read_header(view), view, 0.0)


@pytest.mark.parametrize(
    ("flags", "plaintext", "complaint"),
    [
        (3, b"", "layout"),
        (3, b"\xff\xff\xff\xff" + b"x" * 40, "layout"),
        (3, (1).to_bytes(4, "big") + b"\x90" + bytes(11), "0 frames"),
        (3, (2).to_bytes(4, "big") + b"\x91\xff" + bytes(10), "negative"),
        (3, (10).to_bytes(4, "big") + b"\x91\xcf" + b"\x7f" + bytes(7) + bytes(2), "announced"),
        (3, (2).to_bytes(4, "big") + b"\x91\x05" + bytes(10) + b"1234", "less than"),
        (3, (2).to_bytes(4, "big") + b"\x91\x05" + bytes(10) + b"123456", "more than"),
        (2, b"x", "did not begin"),
    ],
)
def test_nonsense_under_a_valid_seal_ends_the_stream(flags: int, plaintext: bytes, complaint: str) -> None:
    left, right = ends()
    record = memoryview(left.seal.seal(stream.DATA, flags, 1, 0, plaintext))
    with pytest.raises(SealBroken, match=complaint):
        right.take(read_header(record), record, 0.0)
