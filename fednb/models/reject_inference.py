"""Reject inference: labels for applicants that were turned away, so that a scorecard is fitted on all who apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from fednb.errors import DataError
from fednb.federation.messages import DataRef
from fednb.models.scores import Scores
from fednb.protocols.parcelling import MOST, Band

if TYPE_CHECKING:
    import pandas as pd


class _Bands(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bands: Annotated[list[Band], Meta(min_length=1, max_length=MOST)]


class _Parcelled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: Annotated[int, Meta(ge=1)]
    share: Annotated[float, Meta(ge=0, le=1)]
    table: str


class Parcelling:
    """What parcelling came to.

    Attributes
    ----------
    bands : DataFrame, a line a score band of the accepted rows, lowest scores first: rows, bad, rate, and the rate
        assumed of rejected ones.
    rows : int, rejected rows; share : float, of them drawn bad, to two digits; table : "bank.parcelled".
    """

    def __init__(self, bands: pd.DataFrame, rows: int, share: float, table: str) -> None:
        self.bands, self.rows, self.share, self.table = bands, rows, share, table

    def __repr__(self) -> str:
        return f"<Parcelling: {self.rows:,} rejected rows, {self.share:.0%} drawn bad; saved as {self.table}>"


def parcelling(
    accepted: Scores, rejected: Scores, y: str, name: str, *, factor: float = 1.5, bands: int = 10, seed: int = 0
) -> Parcelling:
    """Draw labels of rejected applicants by score band, and keep them as a table `name` at the label's party.

    accepted, rejected : `predict_proba` of one model, fitted on the accepted, on the rows of both.
    y : the label of the accepted, "bank.default", 1 for bad. The table has a column of that name, and the ids.
    factor : of prudence, 1 or more: so many times as often as accepted ones of the same band are rejected ones bad.
    bands : of as many accepted rows each; neighbours are merged until all have ten rows of both classes.
    seed : of the draw, which takes place at the label's party.

    Labels that were drawn are an assumption and no observation: figures on them say nothing of how good a model is.
    Evaluate on accepted rows.
    """
    import pandas as pd

    party, label = accepted.frame.find_label(y)
    if rejected.party != party or accepted.party != party:
        raise DataError(f"scores of accepted and of rejected rows lie at the party of the label, {party}.")
    federation = accepted.frame.federation
    found = federation.run(
        "score_bands",
        cast={"active": [party]},
        data={party: accepted.ref(label=label)},
        params={"bands": int(bands)},
        title=f"Score bands of {len(accepted)} accepted rows",
    )
    own = rejected.ref()
    result = federation.run(
        "parcelling",
        cast={"active": [party]},
        data={party: DataRef(frame=own.frame, rows=own.rows, columns=[], parts=[found.run, rejected.run])},
        params={"name": name, "column": label, "factor": float(factor), "seed": int(seed)},
        title=f"Parcelling {len(rejected)} rejected rows",
    )
    said = result.read(party, _Parcelled)
    lines = [
        {"rows": band.rows, "bad": band.bad, "rate": (rate := band.bad / band.rows), "assumed": min(1.0, factor * rate)}
        for band in found.read(party, _Bands).bands
    ]
    return Parcelling(pd.DataFrame(lines), said.rows, said.share, f"{party}.{name}")
