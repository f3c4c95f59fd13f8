"""DataFrames as Arrow streams, between a kernel, its agent and the analyst."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def to_arrow(frame: pd.DataFrame, what: str, *, keep_index: bool = False) -> npt.NDArray[np.uint8]:
    """The frame as an Arrow IPC stream. Raises DataError, which calls it `what`, for columns of mixed types."""
    import pandas as pd
    import pyarrow as pa

    frame = frame.copy(deep=False)
    frame.attrs = {}  # would travel as metadata, and is none of the receiver's business
    plain = isinstance(frame.index, pd.RangeIndex)
    try:
        table = pa.Table.from_pandas(frame, preserve_index=None if keep_index and not plain else False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(
            f"{what} has a column of mixed or unknown types ({type(error).__name__}). Give every column one type."
        ) from None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), dtype=np.uint8)


def from_arrow(stream: npt.NDArray[np.uint8], what: str) -> pd.DataFrame:
    """The frame in an Arrow IPC stream that somebody else made. Raises DataError when it is not sound."""
    import pyarrow as pa

    try:
        if any(_is_compressed(part) for part in pa.ipc.MessageReader.open_stream(pa.py_buffer(stream))):
            raise ValueError("a compressed stream")  # ours are not; a few bytes could become terabytes
        with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
            table = reader.read_all()
        table.validate(full=True)  # offsets and sizes are a stranger's: unchecked, they could read beyond the buffer
        if table.num_rows > 8 * len(stream):  # no column takes less than a bit a row, but one of nulls takes nothing
            raise ValueError("more rows than bits")
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # pandas follows a stranger's metadata, which makes it fail in any way there is
        raise DataError(f"{what} is not a sound table ({type(error).__name__}).") from None
    return frame


def _is_compressed(message: pa.Message) -> bool:
    """Whether a record batch says so in its metadata, a FlatBuffer that pyarrow does not show (Message.fbs)."""
    if message.type not in ("record batch", "dictionary"):
        return False
    raw = message.metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Where a table's field is; 0 when it is absent."""
        (back,) = struct.unpack_from("<i", raw, table)
        (size,) = struct.unpack_from("<H", raw, table - back)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", raw, table - back + 4 + 2 * number)
        return table + int(offset) if offset else 0

    def follow(at: int) -> int:
        return at + int(struct.unpack_from("<I", raw, at)[0])

    batch = follow(field(follow(0), 2))  # Message.header
    if message.type == "dictionary":
        batch = follow(field(batch, 1))  # DictionaryBatch.data
    return field(batch, 3) != 0  # RecordBatch.compression
