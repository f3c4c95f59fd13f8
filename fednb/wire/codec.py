"""Messages to frames and back, with everything that came from a peer treated as hostile until it has decoded.

    frame 0        msgpack of the message; an array stands there as Ext(1): msgpack [index, dtype, shape]
    frame 1 .. n   the arrays' bytes, little-endian, C order, in the order in which they occur

Types of our own travel too: one that has `to_wire(self) -> list` is sent as that list (builtins and arrays), and a
field annotated with a type that has a classmethod `from_wire(parts)` is rebuilt with it. They must not be structs
or dataclasses, which would be sent field by field, past `to_wire`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
import threading
import typing
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from fednb.errors import UnexpectedMessage
from fednb.typed import known
from fednb.wire.message import Message

M = TypeVar("M", bound=Message)
Frame = bytes | bytearray | memoryview

MAX_BYTES = 2 << 30  # one message, all frames
MAX_HEADER = 64 << 20  # its frame 0
MAX_FRAMES = 4096
MAX_DEPTH = 32  # of lists and dicts in fields without a type
MAX_DIMENSIONS = 4

_ARRAY = 1  # the only extension type
_CODES = ("|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f4", "<f8")
_DTYPES = {np.dtype(code).str: np.dtype(code) for code in _CODES}


class _Place(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Where an array's bytes are, and what they are."""

    index: int
    dtype: str
    shape: list[int]


class _Tag(msgspec.Struct):
    kind: str = "something"


_encode_place = msgspec.msgpack.Encoder().encode
_decode_place = msgspec.msgpack.Decoder(_Place).decode
_decode_tag = msgspec.msgpack.Decoder(_Tag).decode


def encode(message: Message) -> list[Frame]:
    """Frames of `message`. Array frames are views of its arrays: copy them if the arrays may change before they leave.

    Raises TypeError or ValueError for what cannot travel (object arrays, too many dimensions, unknown types).
    """
    _check_sendable(type(message))
    frames: list[Frame] = [b""]

    def lower(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            array = _portable(value)
            place = _Place(len(frames), array.dtype.str, list(array.shape))
            frames.append(array.reshape(-1).view(np.uint8).data)
            return msgspec.msgpack.Ext(_ARRAY, _encode_place(place))
        if isinstance(value, np.generic):
            return value.item()
        to_wire = getattr(value, "to_wire", None)
        if to_wire is None:
            raise TypeError(f"{type(value).__name__} cannot be sent: it is neither a plain value nor has it to_wire()")
        return list(to_wire())

    frames[0] = msgspec.msgpack.Encoder(enc_hook=lower).encode(message)
    size = total_bytes(frames)
    if len(memoryview(frames[0])) > MAX_HEADER or len(frames) > MAX_FRAMES or size > MAX_BYTES:
        raise ValueError(
            f"{type(message).__name__} is too big to send: {size:,} bytes in {len(frames)} frames; at most "
            f"{MAX_BYTES:,} in {MAX_FRAMES}, of which {MAX_HEADER:,} outside arrays. Send it in parts."
        )
    return frames


def decode(frames: Sequence[Frame], kind: type[M], /, *more: type[Message]) -> M:
    """The message in `frames`, of one of the kinds given. Its arrays are read-only views of the frames.

    Raises UnexpectedMessage, and nothing else, for whatever is wrong with the frames.
    """
    kinds: tuple[type[Message], ...] = (kind, *more)
    try:
        views = [memoryview(frame).cast("B") for frame in frames]
        if not 1 <= len(views) <= MAX_FRAMES or len(views[0]) > MAX_HEADER or total_bytes(views) > MAX_BYTES:
            raise ValueError(f"{len(views)} frames, {total_bytes(views):,} bytes")
        _arrays.views, _arrays.used = views, set()
        try:
            message = _decoder(kinds).decode(views[0])
            if len(_arrays.used) != len(views) - 1:
                raise ValueError("frames that nothing refers to")
        finally:
            _arrays.views, _arrays.used = [], set()
        if any(_has_open_field(each) for each in kinds):
            _check_depth(message, MAX_DEPTH)
    except MemoryError:
        raise
    except Exception as error:  # garbage takes many forms (a from_wire may raise IndexError); all of them mean this
        raise UnexpectedMessage(_explain(frames, kinds, error)) from None
    return typing.cast(M, message)


def kind_of(frames: Sequence[Frame]) -> str:
    """The kind that frame 0 claims to be, cleaned for display; for records and error messages, never for decisions."""
    try:
        return re.sub(r"[^A-Za-z0-9_]", "?", _decode_tag(frames[0]).kind)[:64]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError):
        return "something unreadable"


def total_bytes(frames: Sequence[Frame]) -> int:
    """Payload size: the sum over all frames."""
    return sum(memoryview(frame).nbytes for frame in frames)


def _portable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values, little-endian and in C order: the array itself where it is that already."""
    wanted = array.dtype.newbyteorder("<")
    if wanted.str not in _DTYPES:
        raise TypeError(
            f"an array of dtype {array.dtype} cannot be sent; allowed: {', '.join(map(str, _DTYPES.values()))}"
        )
    if array.ndim > MAX_DIMENSIONS:
        raise ValueError(f"an array of {array.ndim} dimensions cannot be sent; at most {MAX_DIMENSIONS}")
    return np.asarray(array, dtype=wanted, order="C")


class _Arrays(threading.local):
    """The frames that the decoder's hooks refer to while this thread decodes one message."""

    views: Sequence[memoryview] = ()
    used: set[int] = set()


_arrays = _Arrays()


def _raise_extension(code: int, data: memoryview) -> npt.NDArray[Any]:
    if code != _ARRAY:
        raise ValueError(f"extension type {code}")
    place = _decode_place(data)
    index, dtype, shape = place.index, _DTYPES.get(place.dtype), tuple(place.shape)
    if dtype is None or len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise ValueError("an array of an unknown type or shape")
    if not 1 <= index < len(_arrays.views) or index in _arrays.used:
        raise ValueError("an array without a frame of its own")
    _arrays.used.add(index)
    view = _arrays.views[index]
    if math.prod(shape) * dtype.itemsize != len(view):
        raise ValueError("an array whose bytes do not fit its shape")
    if not len(view):
        array: npt.NDArray[Any] = np.empty(shape, dtype)
    else:
        raw = np.frombuffer(view, np.uint8)
        if dtype == np.bool_ and raw.max() > 1:
            raise ValueError("a truth value that is neither 0 nor 1")  # numpy assumes it when it computes
        array = raw.view(dtype).reshape(shape)
    array.flags.writeable = False
    return array


def _rebuild(wanted: Any, value: Any) -> Any:
    """msgspec's hook for fields whose type it does not know."""
    if wanted is object:
        return value
    origin = typing.get_origin(wanted) or wanted
    if origin is np.ndarray:
        if not isinstance(value, np.ndarray):
            raise ValueError("not an array")
        dtype = _declared_dtype(wanted)
        if dtype is not None and value.dtype != dtype:
            raise ValueError(f"an array of {value.dtype} where {dtype} belongs")
        return value
    from_wire = getattr(origin, "from_wire", None)
    if from_wire is None:
        raise TypeError(f"{origin} cannot be received: it has no from_wire")
    if not isinstance(value, list):
        raise ValueError("not a list of parts")
    return from_wire(value)


@functools.lru_cache(maxsize=512)
def _declared_dtype(wanted: Hashable) -> np.dtype[Any] | None:
    """float64 of `NDArray[np.float64]`; None when the annotation leaves the type open."""
    for argument in typing.get_args(wanted):
        if typing.get_origin(argument) is np.dtype:
            (scalar,) = typing.get_args(argument)
            if isinstance(scalar, type) and scalar is not np.generic:
                return np.dtype(scalar)
    return None


@functools.lru_cache(maxsize=512)
def _decoder(kinds: tuple[type[Message], ...]) -> msgspec.msgpack.Decoder[Any]:
    for kind in kinds:
        _check_sendable(kind)
    wanted: Any = functools.reduce(operator.or_, kinds)
    return msgspec.msgpack.Decoder(known(wanted), dec_hook=_rebuild, ext_hook=_raise_extension)


@functools.lru_cache(maxsize=512)
def _check_sendable(kind: type[Message]) -> None:
    """A programmer's error, caught at the first use of a message: a type with to_wire that msgspec would not ask."""
    for part in _annotations(typing.get_type_hints(kind)):
        if hasattr(part, "to_wire") and (dataclasses.is_dataclass(part) or issubclass(part, msgspec.Struct)):
            raise TypeError(
                f"{kind.__name__} has a field of type {part.__name__}, a struct or dataclass with to_wire(): it would "
                "be sent field by field instead. Make it a plain class."
            )


def _annotations(part: Any) -> Iterator[type]:
    """Every class that occurs in a set of annotations."""
    if isinstance(part, dict):
        for each in part.values():
            yield from _annotations(each)
    elif arguments := typing.get_args(part):
        for each in arguments:
            yield from _annotations(each)
    elif isinstance(part, type):
        yield part


@functools.lru_cache(maxsize=512)
def _has_open_field(kind: type[Message]) -> bool:
    """Whether a field may hold anything. Types may refer to themselves, so each is looked at once."""
    stack: list[Any] = [msgspec.inspect.type_info(kind)]
    seen: set[int] = set()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.AnyType):
            return True
        if isinstance(part, tuple):
            stack += part
        elif isinstance(part, msgspec.Struct):
            stack += [getattr(part, name) for name in part.__struct_fields__]
    return False


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise ValueError(f"lists and dicts nested deeper than {MAX_DEPTH}")
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _check_depth(getattr(value, name), left - 1)
    elif isinstance(value, dict):
        for each in value.values():
            if isinstance(each, (dict, list, msgspec.Struct)):
                _check_depth(each, left - 1)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, (dict, list, msgspec.Struct)):
                _check_depth(each, left - 1)


def _explain(frames: Sequence[Frame], kinds: tuple[type[Message], ...], error: Exception) -> str:
    wanted = " or ".join(kind.__name__ for kind in kinds)
    got = kind_of(frames)
    if got not in {kind.__name__ for kind in kinds}:
        return f"{got} came where {wanted} was expected"
    detail = re.sub(r"(['`\"])[^'`\"]{0,200}\1", "…", str(error))[:200]  # quoted text may be a peer's data
    return f"{got} came malformed: {detail}"
