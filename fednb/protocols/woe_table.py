"""Weights of evidence instead of values: each party codes its own rows, and keeps them as a table to train on.

    coordinator                                party, each by itself (values; its part of a binning)
        ── run "woe_table" name ────────────────> a table `name`: the rows' ids and weights
      | <────────────────────── Coded rows ───── |
      |   all the same?                          |

Nothing passes between the parties. The rows stand in the order of the frame, so the run's id serves as the id of an
aligned frame on the new tables. Columns with a single bin, and those not asked for, are left out. The party that holds
the label takes it along.

| role | learns |
|---|---|
| party | nothing: the weights are its own |
| coordinator, analyst | names of the columns; in which of them ten rows or more (or some) met no evidence |
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.evidence import NEUTRAL
from fednb.protocols.features import rows_said
from fednb.protocols.vertical_binning import cuts_of
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message


class TableParams(Params):
    name: Annotated[str, Meta(min_length=1, max_length=64)]  # of the table that each party gets


class Coded(Message):
    discloses = Disclosure("number of rows")

    rows: int


def party(link: Link, data: Dataset, params: TableParams, run: RunContext) -> Outcome:
    if "woe" not in data.part or "points" not in data.part:
        raise DataError(f"{link.me} holds no binning of this run; fit one first.")
    if data.X is None:
        raise DataError(f"{link.me} brought no table of features.")
    place = {name: j for j, name in enumerate(data.columns)}
    table, notes = {}, []
    fitted, label = cuts_of(data.part), data.part.get("label")
    strange = [repr(name) for name in data.columns if name not in fitted and name != label]
    if strange:
        raise DataError(f"{link.me}'s binning was not fitted on {', '.join(strange)}; fit one on this frame.")
    for name, (cuts, weights, bins) in fitted.items():
        if name not in place or len(np.unique(weights[bins != NEUTRAL])) < 2:
            continue
        cells = cuts.cells(data.X[:, place[name]])
        table[name] = weights[cells]
        without = int((bins[cells] == NEUTRAL).sum())
        if without:
            notes.append(
                f"{link.me}'s {name!r}: {rows_said(without)} are missing or special in a way that too few training "
                "rows were; they weigh 0."
            )
    features = list(table)
    if label in place:
        table[str(label)] = data.X[:, place[str(label)]]
    (coordinator,) = link.cast["coordinator"]
    link.send(coordinator, Coded(rows=len(data.X)))
    run.progress("code", 1, 1)
    coding = {
        name: [kept for column, kept in zip(data.part["columns"], data.part[name], strict=True) if column in features]
        for name in ("columns", "points", "woe", "bin")
    }
    before = {name: data.part[name] for name in ("trained_on",) if name in data.part}  # the bins' rows were prepared
    return Outcome(
        private={**coding, **before, "special": data.part["special"]},  # a scorecard is made of it
        public={"columns": features, "notes": notes},
        table=(params.name, table),
    )


def coordinator(link: Link, data: Dataset, params: TableParams, run: RunContext) -> Outcome:
    rows = {member: link.recv(member, Coded).rows for member in link.cast["party"]}
    if len(set(rows.values())) != 1:
        said = ", ".join(f"{member} {count}" for member, count in rows.items())
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    return Outcome(private={"rows": next(iter(rows.values()))})


PROTOCOL = Protocol(
    name="woe_table",
    version=1,
    params=TableParams,
    roles={
        "party": Role(party, many=True, needs=("X", "missing", "part"), figures=True),
        "coordinator": Role(coordinator),
    },
    sends={("party", "coordinator"): (Coded,)},
    learns={
        "party": "nothing new",
        "coordinator": "that the tables exist, and in which columns rows met no evidence",
    },
    learns_with_key={"party": "nothing more"},
)
