"""A scorecard: points for each bin, made by each party of its own weights and coefficients.

    points of a bin    -pdo/ln 2 · coefficient · (weight of evidence - centre) / scale           rounded
    base points        base_score - pdo/ln 2 · (intercept + ln base_odds)                        rounded
    score              base points + the points of all bins = base_score + pdo/ln 2 · ln(odds / base_odds)

Odds are those of a negative label, so a high score is a good one (Siddiqi 2006, ch. 6). A feature's points are 0 on
average over the training rows: what a row has more or less is what the feature did for it.

    coordinator                                party, each by itself (its part of a model, and of the coding below it)
        ── run "scorecard" ─────────────────────> points of its own bins, kept; base points at the active party
        ── run "scorecard_override" ────────────> other points for one bin of the active party's, with a reason

| role | learns |
|---|---|
| party | nothing: the points are its own |
| coordinator, analyst | base points, the active party's points; a passive party's only where it releases coefficients |

A passive party's points cannot be overridden: with points of somebody's choice, a score would tell which bins a row is
in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.errors import DataError, Refused
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Floats, Integers
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.features import Scaling
from fednb.protocols.vertical_binning import cuts_of
from fednb.protocols.vertical_score import measure
from fednb.wire.link import Link

Finite = Annotated[float, Meta(gt=-1e9, lt=1e9)]


class CardParams(Params):
    base_score: Finite = 600.0  # the score at base_odds
    base_odds: Annotated[float, Meta(gt=0, lt=1e9)] = 50.0  # negatives for each positive
    pdo: Annotated[float, Meta(gt=0, lt=1e9)] = 20.0  # points that double the odds
    digits: Annotated[int, Meta(ge=0, le=6)] = 0  # of a point, after the decimal point


class OverrideParams(Params):
    column: Annotated[str, Meta(min_length=1, max_length=300)]
    bin: Annotated[int, Meta(ge=0)]  # in the order of the binning's table
    points: Finite
    reason: Annotated[str, Meta(min_length=1, max_length=1_000)]


def party(link: Link, data: Dataset, params: CardParams, run: RunContext) -> Outcome:
    model, coding = data.part, data.origin
    if "coef" not in model or "centre" not in model:
        raise DataError(f"{link.me} holds no model of this run; fit one first.")
    if "woe" not in coding or "points" not in coding:
        raise DataError(
            f"{link.me}'s model was not trained on weights of evidence. Fit it on a frame that WoeBinning.transform "
            "gave."
        )
    fitted = cuts_of(coding)
    columns = [str(name) for name in model["columns"]]
    absent = [repr(name) for name in columns if name not in fitted]
    if absent:
        raise DataError(f"{link.me}'s model uses {', '.join(absent)}, which its binning does not have.")
    factor, scaling = params.pdo / math.log(2.0), Scaling.from_part(model)
    card, neutral, woe = [], [], []
    for j, name in enumerate(columns):
        _, weights, bins = fitted[name]
        used = [float(weights[bins == b][0]) for b in range(int(bins.max(initial=NEUTRAL)) + 1)]
        z = (np.clip([*used, 0.0], scaling.low[j], scaling.high[j]) - scaling.centre[j]) / scaling.scale[j]
        *points, apart = np.round(-factor * float(model["coef"][j]) * z, params.digits).tolist()
        card.append(points)
        woe.append(used)
        neutral.append(apart)
    kept = {name: [value[j] for j in _places(coding, columns)] for name, value in _by_column(coding).items()}
    private: dict[str, Any] = {
        **kept,
        "columns": columns,
        "special": coding["special"],
        "card": card,
        "neutral": neutral,  # of values without evidence
        "factor": factor,
        "offset": params.base_score - factor * math.log(params.base_odds),
        "digits": params.digits,
        "overrides": [],
        "measure": measure(model),
    }
    if "trained_on" in coding:  # its bins are those of prepared rows
        private["trained_on"] = coding["trained_on"]
    public: dict[str, Any] = {"columns": columns, "woe": woe}  # as the binning released them
    if "intercept" in model:  # the active party
        base = private["offset"] - factor * float(model["intercept"])
        private["base"] = round(base, params.digits)
        public |= {"base": private["base"], "card": card}
    run.progress("points", 1, 1)
    return Outcome(private=private, public=public)


def override(link: Link, data: Dataset, params: OverrideParams, run: RunContext) -> Outcome:
    """Other points for one bin; the earlier card stays as it was."""
    part = _card_of(link.me, data)
    if "base" not in part:
        raise Refused(
            f"{link.me} is not the active party of this scorecard. With points of somebody's choice a score would tell "
            "which of its bins a row is in, so only the active party's can be overridden.",
            member=link.me,
            rule="own points",
        )
    columns = list(part["columns"])
    if params.column not in columns:
        raise DataError(f"{link.me}'s scorecard has no {params.column!r}; it has {', '.join(columns)}.")
    card = [list(points) for points in part["card"]]
    points = card[columns.index(params.column)]
    if params.bin >= len(points):
        raise DataError(f"{link.me}'s {params.column!r} has bins 0 to {len(points) - 1}, and no bin {params.bin}.")
    entry = {
        "column": params.column,
        "bin": params.bin,
        "before": points[params.bin],
        "points": round(params.points, int(part["digits"])),
        "reason": params.reason,
    }
    points[params.bin] = entry["points"]
    log = [*part["overrides"], entry]
    private = {name: value for name, value in part.items() if name not in ("protocol", "role")}
    return Outcome(
        private={**private, "card": card, "overrides": log},
        public={"columns": columns, "base": part["base"], "card": card, "overrides": log},
    )


def points_of(party: str, part: Mapping[str, Any], data: Dataset) -> tuple[Floats, Integers]:
    """Points [n, d] of this party's rows on its own card, and how many rows of each column [d] had no evidence."""
    found, without = row_points(party, part, data)
    return found, without.sum(axis=0, dtype=np.int64)


def row_points(party: str, part: Mapping[str, Any], data: Dataset) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Points [n, d] of this party's rows on its own card, and which of them are those of no evidence."""
    if data.X is None:
        raise DataError(f"{party} brought no table of features.")
    place = {name: j for j, name in enumerate(data.columns)}
    absent = [repr(name) for name in part["columns"] if name not in place]
    if absent:
        raise DataError(f"{party}'s scorecard uses {', '.join(absent)}, which these rows lack.")
    found = np.empty((len(data.X), len(part["columns"])))
    without = np.zeros(found.shape, dtype=np.bool_)
    for j, (name, (cuts, _, bins)) in enumerate(cuts_of(part).items()):
        values = np.array([*part["card"][j], part["neutral"][j]])  # NEUTRAL is -1, the last
        own = bins[cuts.cells(data.X[:, place[name]])]
        found[:, j], without[:, j] = values[own], own == NEUTRAL
    return found, without


def _card_of(party: str, data: Dataset) -> Mapping[str, Any]:
    if "card" not in data.part:
        raise DataError(f"{party} holds no scorecard of this run; build one first.")
    return data.part


def _by_column(coding: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: list(coding[name]) for name in ("points", "woe", "bin")}


def _places(coding: Mapping[str, Any], columns: list[str]) -> list[int]:
    return [list(coding["columns"]).index(name) for name in columns]


_LEARNS = {
    "party": "nothing new",
    "coordinator": "the active party's points; a passive party's only where it releases coefficients",
}
PROTOCOL = Protocol(
    name="scorecard",
    version=2,
    params=CardParams,
    roles={"party": Role(party, many=True, needs=("part", "origin"))},
    learns=_LEARNS,
)
OVERRIDE = Protocol(
    name="scorecard_override",
    version=1,
    params=OverrideParams,
    roles={"party": Role(override, needs=("part",))},
    learns=_LEARNS,
)
