"""Reject inference by parcelling: labels for applicants that were turned away, drawn by score band, where labels lie.

    coordinator                         active (label; scores of earlier runs)
        ── run "score_bands" on accepted rows ──> bands of the scores, with ten rows of each class or more
        ── run "parcelling" on rejected rows ───> a table of its own: a label for each, drawn at its band's rate

A scorecard is fitted on those who were accepted, and used on all who apply. In a band of scores, those who were
rejected are taken to be bad as often as those who were accepted, times a factor of prudence: they were rejected for
something. Which of them are bad is drawn (Siddiqi 2006, ch. 6; Thomas, Edelman and Crook 2002, ch. 8).

| role | learns |
|---|---|
| active | nothing new: scores and labels are its own, and what it draws is no fact |
| coordinator, analyst | of each band rows and bad ones of those accepted; rejected rows, and the share drawn bad |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.evaluation import MIN_ROWS, Floats, scores_of
from fednb.protocols.features import check_label
from fednb.wire.link import Link

MOST = 50  # bands
DIGITS = 2


class BandParams(Params):
    bands: Annotated[int, Meta(ge=2, le=MOST)] = 10  # of as many accepted rows each, before small ones are merged


class ParcelParams(Params):
    name: str  # of the table that the active party gets
    column: str  # of its label
    factor: Annotated[float, Meta(ge=1, le=100)] = 1.0
    seed: Annotated[int, Meta(ge=0)] = 0


class Band(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Accepted rows whose scores lie next to one another."""

    rows: int
    bad: int


def bands_of(y: Floats, scores: Floats, bands: int) -> tuple[Floats, list[Band]]:
    """Upper ends of all bands but the last, and the bands; each with MIN_ROWS of either class. DataError for none."""
    edges = np.unique(np.quantile(scores, np.arange(1, bands) / bands))
    of_row = np.searchsorted(edges, scores, side="left")
    bad = np.bincount(of_row, weights=y, minlength=len(edges) + 1).astype(np.int64)
    rows = np.bincount(of_row, minlength=len(edges) + 1)
    kept: list[Band] = []
    ends: list[float] = []
    lot = Band(0, 0)
    for k in range(len(rows)):
        lot = Band(lot.rows + int(rows[k]), lot.bad + int(bad[k]))
        if min(lot.bad, lot.rows - lot.bad) >= MIN_ROWS:
            kept.append(lot)
            ends.append(float(edges[k]) if k < len(edges) else np.inf)
            lot = Band(0, 0)
    if not kept:
        raise DataError(f"there are no {MIN_ROWS} accepted rows of each class to take rates from.")
    kept[-1] = Band(kept[-1].rows + lot.rows, kept[-1].bad + lot.bad)
    return np.array(ends[:-1]), kept


def drawn(scores: Floats, ends: Floats, rates: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """[n] of 0 and 1: in each band its rate times `factor`, 1 at most, of the rows, chosen at random."""
    label = np.zeros(len(scores))
    of_row = np.searchsorted(ends, scores, side="left")
    for band, rate in enumerate(rates):
        rows = rng.permutation(np.flatnonzero(of_row == band))
        share = min(1.0, factor * float(rate)) * len(rows)
        bad = int(share) + int(rng.random() < share - int(share))  # right on average where a band is small
        label[rows[:bad]] = 1.0
    return label


def bands(link: Link, data: Dataset, params: BandParams, run: RunContext) -> Outcome:
    scores = scores_of(link.me, data)
    y = check_label(link.me, data.y, data.label, len(scores))
    ends, found = bands_of(y, scores, params.bands)
    run.progress("bands", 1, 1)
    rates = np.array([band.bad / band.rows for band in found])
    return Outcome(private={"ends": ends, "rates": rates}, public={"bands": msgspec.to_builtins(found)})


def parcel(link: Link, data: Dataset, params: ParcelParams, run: RunContext) -> Outcome:
    if len(data.parts) != 2 or "rates" not in data.parts[0] or "scores" not in data.parts[1]:
        raise DataError(f"{link.me} holds no bands and scores of these runs; make bands and predict first.")
    if data.parts[0].get("protocol", "score_bands") != "score_bands":
        raise DataError(f"{link.me} holds no bands of that run; make bands first.")
    scores = np.asarray(data.parts[1]["scores"], dtype=np.float64)
    if len(scores) < MIN_ROWS:
        raise DataError(f"{link.me} has {len(scores)} rejected rows; labels are drawn for {MIN_ROWS} or more.")
    ends, rates = (np.asarray(data.parts[0][name], dtype=np.float64) for name in ("ends", "rates"))
    label = drawn(scores, ends, rates, params.factor, np.random.default_rng(params.seed))
    run.progress("parcel", 1, 1)
    # exact, it would count those in small bands, once for each factor that somebody tries
    public = {"rows": len(label), "share": round(float(label.mean()), DIGITS), "table": params.name}
    return Outcome(public=public, table=(params.name, {params.column: label}))


_LEARNS = {"active": "nothing new", "coordinator": "rows and bad ones by band; the share drawn bad, to two digits"}
BANDS = Protocol(
    name="score_bands",
    version=1,
    params=BandParams,
    roles={"active": Role(bands, needs=("y", "part"), figures=True)},
    learns=_LEARNS,
)
PROTOCOL = Protocol(
    name="parcelling",
    version=1,
    params=ParcelParams,
    roles={"active": Role(parcel, needs=("part",), figures=True)},
    learns=_LEARNS,
)
