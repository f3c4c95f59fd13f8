"""Figures by segment of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fednb.errors import DataError
from fednb.models.scores import Scores
from fednb.protocols.segments import Segment

if TYPE_CHECKING:
    import pandas as pd


class _Segments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    segments: list[Segment]


def evaluate_by(scores: Scores, y: str, by: str) -> pd.DataFrame:
    """How well scores separate in each segment: a line a value of `by` ("bank.region"), a column of the label's party.

    Columns: segment, rows, positives, rate, auc and ks, each with low and high (DeLong's interval, a bootstrap's), and
    mean_score (beside rate: calibration). Values with fewer than ten
    rows of a class are pooled in the last line. The column may be no feature of the model, but must be one of the
    frame.
    """
    import pandas as pd

    frame = scores.frame
    party, label = frame.find_label(y)
    owner, _, column = by.partition(".")
    if owner != party or column not in frame.columns[party]:
        raise DataError(f"{by!r} is no column of {party}, who holds the label, in this frame.")
    ref = msgspec.structs.replace(scores.ref(label=label), columns=[column])
    result = frame.federation.run(
        "segments", cast={"active": [party]}, data={party: ref}, title=f"Evaluation on {len(scores)} rows by {by}"
    )
    lines = [
        {
            "segment": ", ".join(
                [*("missing" if value is None else f"{value:g}" for value in said.values), *["others"][: said.others]]
            ),
            "rows": said.rows,
            "positives": said.positives,
            "rate": said.positives / max(said.rows, 1),
            **{
                f"{name}{end}": value
                for name, figure in (("auc", said.auc), ("ks", said.ks))
                for end, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
            },
            "mean_score": said.mean_score,
        }
        for said in result.read(party, _Segments).segments
    ]
    return pd.DataFrame(lines)
