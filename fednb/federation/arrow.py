"""DataFrames as Arrow streams, between a kernel, its agent and the analyst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


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
        with pa.ipc.open_stream(pa.py_buffer(stream)) as reader:
            table = reader.read_all()
        table.validate(full=True)  # offsets and sizes are a stranger's: unchecked, they could read beyond the buffer
        if table.num_rows > 8 * len(stream):  # no column takes less than a bit a row, but one of nulls takes nothing
            raise ValueError("more rows than bits")
        frame: pd.DataFrame = table.to_pandas()
    except Exception as error:  # pandas follows a stranger's metadata, which makes it fail in any way there is
        raise DataError(f"{what} is not a sound table ({type(error).__name__}).") from None
    return frame
