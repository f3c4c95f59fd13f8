"""Messages survive the trip unchanged, and nothing malformed comes out of it as anything but UnexpectedMessage."""

from __future__ import annotations

import random
from typing import Any, Literal

import hypothesis.extra.numpy as hnp
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednb.errors import UnexpectedMessage
from fednb.wire import codec
from fednb.wire.message import Message

DTYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"]


class Pair:
    """A type that travels as a list of parts."""

    def __init__(self, left: np.ndarray, scale: int) -> None:
        self.left, self.scale = left, scale

    def to_wire(self) -> list[Any]:
        return [self.left, self.scale]

    @classmethod
    def from_wire(cls, parts: list[Any]) -> Pair:
        left, scale = parts
        if scale < 0:
            raise ValueError("a negative scale")
        return cls(left, scale)


class Unsendable:
    """Has no to_wire: like a ciphertext that was not refreshed."""


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: np.ndarray | None = None
    label: str = ""


class Everything(Message):
    x: np.ndarray
    numbers: list[float] = []
    inner: Inner = Inner()
    free: Any = None
    pair: Pair | None = None
    mode: Literal["a", "b"] = "a"


class Typed(Message):
    x: npt.NDArray[np.float64]


class Other(Message):
    n: int


class Struct(msgspec.Struct):
    n: int

    def to_wire(self) -> list[Any]:
        return []


class Treacherous(Message):
    field: Struct


def there_and_back(message: Message) -> Any:
    return codec.decode([bytes(frame) for frame in codec.encode(message)], type(message))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_every_allowed_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    back = there_and_back(Everything(array)).x
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_strided_fortran_and_big_endian_arrays_come_back_with_equal_values() -> None:
    base = np.arange(24, dtype=np.float64).reshape(4, 6)
    for array in (base[:, ::2], np.asfortranarray(base), base.astype(">f8"), base.T):
        back = there_and_back(Everything(array)).x
        assert np.array_equal(back, array) and back.dtype == np.dtype("<f8")


def test_arrays_stand_wherever_a_message_has_room_for_them() -> None:
    message = Everything(
        np.zeros(2),
        [1.5],
        Inner(np.ones(3), "é"),
        {"deep": [np.arange(4), {"f": np.float64(2.5)}]},
        Pair(np.ones(1), 7),
    )
    back = there_and_back(message)
    assert np.array_equal(back.inner.rows, np.ones(3)) and back.inner.label == "é"
    assert np.array_equal(back.free["deep"][0], np.arange(4)) and back.free["deep"][1]["f"] == 2.5
    assert back.pair.scale == 7 and np.array_equal(back.pair.left, np.ones(1))


def test_encoding_and_decoding_copy_no_array_and_decoded_ones_are_read_only() -> None:
    array = np.arange(1000)
    frames = codec.encode(Everything(array))
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), array)
    buffer = bytearray(frames[1])
    back = codec.decode([frames[0], buffer], Everything).x
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), back)
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


@pytest.mark.parametrize("array", [np.array([object()]), np.array(["text"]), np.zeros(2, complex), np.zeros((1,) * 5)])
def test_what_may_not_travel_is_refused_before_it_leaves(array: np.ndarray) -> None:
    with pytest.raises((TypeError, ValueError), match="cannot be sent"):
        codec.encode(Everything(array))


def test_a_value_without_to_wire_is_refused_and_a_struct_with_it_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="Unsendable cannot be sent"):
        codec.encode(Everything(np.zeros(1), free=Unsendable()))
    with pytest.raises(TypeError, match="field by field"):
        codec.encode(Treacherous(Struct(1)))


def test_one_of_several_kinds_is_decoded_by_its_tag() -> None:
    frames = codec.encode(Other(3))
    assert codec.decode(frames, Everything, Other) == Other(3)
    with pytest.raises(UnexpectedMessage, match="Other came where Everything or Typed was expected"):
        codec.decode(frames, Everything, Typed)


def test_an_annotated_dtype_is_enforced() -> None:
    class TypedToo(Message, tag="Typed"):
        x: np.ndarray

    frames = codec.encode(TypedToo(np.zeros(2, np.float32)))
    with pytest.raises(UnexpectedMessage, match="float32 where float64"):
        codec.decode(frames, Typed)


def test_a_refusal_by_from_wire_is_an_unexpected_message() -> None:
    for pair in (Pair(np.ones(1), -1), Pair(np.ones(1), "text")):  # type: ignore[arg-type]
        with pytest.raises(UnexpectedMessage, match="Everything came malformed"):
            there_and_back(Everything(np.zeros(1), pair=pair))


def test_errors_do_not_quote_the_peers_data() -> None:
    raw = msgspec.msgpack.encode({"kind": "Other", "n": "canary-4711"})
    with pytest.raises(UnexpectedMessage) as caught:
        codec.decode([raw], Other)
    raw = msgspec.msgpack.encode({"kind": "Other", "n": 1, "canary-4711": 2})
    with pytest.raises(UnexpectedMessage) as caught_too:
        codec.decode([raw], Other)
    assert "canary" not in str(caught.value) + str(caught_too.value)


def crafted(index: int, dtype: str, shape: list[int], *frames: bytes) -> list[bytes]:
    place = msgspec.msgpack.encode([index, dtype, shape])
    return [msgspec.msgpack.encode({"kind": "Everything", "x": msgspec.msgpack.Ext(1, place)}), *frames]


@pytest.mark.parametrize(
    "frames",
    [
        crafted(1, "<f8", [2], b"\0" * 15),
        crafted(1, "<f8", [1 << 62, 4], b"\0" * 8),
        crafted(1, "<f8", [-1], b"\0" * 8),
        crafted(0, "<f8", [1], b"\0" * 8),
        crafted(2, "<f8", [1], b"\0" * 8),
        crafted(1, "|O", [1], b"\0" * 8),
        crafted(1, "<c16", [1], b"\0" * 16),
        crafted(1, "|b1", [2], b"\x01\x02"),
        crafted(1, "|u1", [1, 1, 1, 1, 1], b"\0"),
        crafted(1, "|u1", [1], b"\0", b"unused"),
        [msgspec.msgpack.encode({"kind": "Everything", "x": msgspec.msgpack.Ext(2, b"")})],
        [msgspec.msgpack.encode({"kind": "Everything", "x": [1.0]})],
        [codec.encode(Other(1))[0], b"unused"],
        [b"\x91" * 100_000],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\xa4\xff\xff\xff\xff"],
        [b""],
        [],
    ],
)
def test_forged_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(UnexpectedMessage):
        codec.decode(frames, Everything, Other)


def test_two_arrays_may_not_share_a_frame() -> None:
    place = msgspec.msgpack.Ext(1, msgspec.msgpack.encode([1, "|u1", [1]]))
    raw = msgspec.msgpack.encode({"kind": "Everything", "x": place, "free": place})
    with pytest.raises(UnexpectedMessage, match="frame of its own"):
        codec.decode([raw, b"\0"], Everything)


def test_untyped_fields_nest_only_so_deep() -> None:
    deep: Any = 1
    for _ in range(codec.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(UnexpectedMessage, match="nested deeper"):
        there_and_back(Everything(np.zeros(1), free=deep))
    assert there_and_back(Everything(np.zeros(1), free=deep[0][0])).free


def test_oversize_is_refused_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Everything(np.zeros(100))
    frames = codec.encode(message)
    monkeypatch.setattr(codec, "MAX_BYTES", 500)
    with pytest.raises(ValueError, match="too big to send"):
        codec.encode(message)
    with pytest.raises(UnexpectedMessage):
        codec.decode(frames, Everything)


def test_thousands_of_mutated_messages_raise_nothing_but_unexpected_message() -> None:
    rng = random.Random(7)
    message = Everything(
        np.arange(6.0).reshape(2, 3), [1.0, 2.0], Inner(np.ones(2)), {"k": [1, "two"]}, Pair(np.ones(1), 1)
    )
    original = [bytes(frame) for frame in codec.encode(message)]
    refused = 0
    for _ in range(4000):
        frames = [bytearray(frame) for frame in original]
        for _ in range(rng.randint(1, 6)):
            frame = frames[0] if rng.random() < 0.8 else rng.choice(frames)
            action = rng.randrange(4)
            if action == 0 and frame:
                frame[rng.randrange(len(frame))] = rng.randrange(256)
            elif action == 1 and frame:
                del frame[rng.randrange(len(frame)) :]
            elif action == 2:
                frame += rng.randbytes(rng.randint(1, 9))
            else:
                rng.shuffle(frames)
        try:
            codec.decode(frames, Everything, Other)
        except UnexpectedMessage:
            refused += 1
    assert refused > 3000  # the rest changed a value within its type
