"""Raw columns made ready for a model: every owner prepares its own, by rules that all know, fitted on training rows.

    coordinator                                     party, each by itself (raw columns)
        ── run "preparation_fit" rules, name ────────> fits rule after rule; keeps the figures; a table `name`
        ── run "preparation_table" name ─────────────> the same figures on other rows; a table `name`
      | <───────────────────── Prepared rows ──────── |
      |   all the same?                               |

Nothing passes between the parties. The rows stand in the order of the frame, so a run's id serves as the id of an
aligned frame on the new tables. What goes along untouched (the label, an exposure) is `carry`; the label that an owner
declared goes along whatever the rules say.

| role | learns |
|---|---|
| party | the rules, with the columns that they name |
| coordinator, analyst | names of the new columns; in which columns ten rows or more (or some) had a problem |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.amounts import Log, Logged, Ratio, Ratios, Standardise, Standardised, Winsorise, Winsorised
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.categories import Encoded, OneHot
from fednb.protocols.dates import DateParts, DatesTaken
from fednb.protocols.imputing import Impute, Imputed
from fednb.protocols.records import Kind, Table
from fednb.protocols.transforms import Names
from fednb.typed import known
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

TableName = Annotated[str, Meta(min_length=1, max_length=64)]
Rule = Impute | Winsorise | Standardise | Log | Ratio | OneHot | DateParts
Figures = Imputed | Winsorised | Standardised | Logged | Ratios | Encoded | DatesTaken


class FitParams(Params):
    steps: Annotated[list[Rule], Meta(min_length=1, max_length=100)]
    carry: dict[str, Names] = {}  # by party: columns that go along as they are
    name: TableName | None = None  # of the table that each party gets; None: none is made


class TableParams(Params):
    name: TableName
    first: Annotated[int, Meta(ge=0)] = 0  # of the steps that were fitted
    last: Annotated[int, Meta(ge=0)] = 0
    carry: dict[str, Names] = {}


class Prepared(Message):
    discloses = Disclosure("number of rows")

    rows: int


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party's part."""

    steps: list[Figures]
    schemas: list[dict[str, Kind]]  # the columns that each step found

    def __repr__(self) -> str:
        return f"<Kept of {len(self.steps)} steps>"


def fit(link: Link, data: Dataset, params: FitParams, run: RunContext) -> Outcome:
    table = _table(link.me, data, params.carry)
    if not table.rows:
        raise DataError(f"{link.me} has no rows to fit on.")
    figures, schemas, columns = [], [], []
    for number, step in enumerate(params.steps, 1):
        schemas.append({name: table.kind(name) for name in table.names})
        fitted = step.fit(table)
        _apply(fitted, table, run)
        figures.append(fitted)
        columns.append(table.names)
        run.progress("prepare", number, len(params.steps))
    _tell(link, table)
    private = msgspec.to_builtins({"prepared": figures, "schemas": schemas})
    public = {"columns": columns, "notes": _each_once(table.notes), "rows": table.rows}
    if params.name is None:
        return Outcome(private=private, public=public)
    return Outcome(private=private, public=public, table=(params.name, _values(table)), by_rules=True)


def apply(link: Link, data: Dataset, params: TableParams, run: RunContext) -> Outcome:
    if "prepared" not in data.part:
        raise DataError(f"{link.me} holds no preparation of this run; fit one first.")
    kept = msgspec.convert({"steps": data.part["prepared"], "schemas": data.part["schemas"]}, known(Kept))
    if not params.first <= params.last < len(kept.steps):
        raise DataError(f"{link.me} has {len(kept.steps)} steps of this preparation, and no {params.last + 1}.")
    table = _table(link.me, data, params.carry)
    table.check_schema(kept.schemas[params.first])
    for number, fitted in enumerate(kept.steps[params.first : params.last + 1], 1):
        _apply(fitted, table, run)
        run.progress("prepare", number, params.last + 1 - params.first)
    _tell(link, table)
    chosen = slice(params.first, params.last + 1)
    return Outcome(
        private=msgspec.to_builtins({"prepared": kept.steps[chosen], "schemas": kept.schemas[chosen]}),
        public={"columns": [table.names], "notes": _each_once(table.notes), "rows": table.rows},
        table=(params.name, _values(table)),
        by_rules=True,
    )


def coordinator(link: Link, data: Dataset, params: FitParams | TableParams, run: RunContext) -> Outcome:
    rows = {member: link.recv(member, Prepared).rows for member in link.cast["party"]}
    if len(set(rows.values())) != 1:
        said = ", ".join(f"{member} {count}" for member, count in rows.items())
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    return Outcome(private={"rows": next(iter(rows.values()))})


def _apply(fitted: Figures, table: Table, run: RunContext) -> None:
    for column, sets in fitted.chosen_sets(table):
        run.apart(column, sets)
    fitted.apply(table)


def _tell(link: Link, table: Table) -> None:
    (member,) = link.cast["coordinator"]
    link.send(member, Prepared(rows=table.rows))


def _table(party: str, data: Dataset, carry: dict[str, list[str]]) -> Table:
    if data.records is None:
        raise DataError(f"{party} brought no table of columns.")
    return Table(party, data.records, [*carry.get(party, []), *([data.label] if data.label else [])])


def _values(table: Table) -> dict[str, Any]:
    return {name: column.values for name, column in table.all()}


def _each_once(notes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(notes))


FIT = Protocol(
    name="preparation_fit",
    version=1,
    params=FitParams,
    roles={
        "party": Role(fit, many=True, needs=("records",), figures=True),
        "coordinator": Role(coordinator),
    },
    sends={("party", "coordinator"): (Prepared,)},
    learns={
        "party": "the rules, with the columns that they name",
        "coordinator": "rows, names of the columns that were made, and in which of the others rows had a problem",
    },
    learns_with_key={"party": "nothing more"},
)
PROTOCOL = Protocol(
    name="preparation_table",
    version=1,
    params=TableParams,
    roles={
        "party": Role(apply, many=True, needs=("records", "part"), figures=True),
        "coordinator": Role(coordinator),
    },
    sends={("party", "coordinator"): (Prepared,)},
    learns={
        "party": "nothing new",
        "coordinator": "rows, names of the columns that were made, and in which of them rows had a problem",
    },
    learns_with_key={"party": "nothing more"},
)
