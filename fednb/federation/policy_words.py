"""A party's policy in words, for its owner: what analysts may ask of each table, and what the rules hold back.

It reads the tables, so it is for the owner's own machine; levels and cut points in it are what analysts will see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fednb.config import FederationConfig, GuardConfig, PartyConfig, PermitConfig, TableConfig
from fednb.errors import DataError
from fednb.federation.tables import TableStore
from fednb.policy import plan as p
from fednb.policy import rule_words
from fednb.policy.columns import BaseTable
from fednb.policy.ledger import Ledger
from fednb.policy.rows import build, labels

MODES = {
    "open": "open: analysts' cells run on the data itself and can read every row. For one machine only.",
    "guarded": "guarded: analysts' cells run here without the data; they get checked figures, and rows stay.",
    "protocol-only": "protocol-only: no cells of analysts; alignments and models only.",
}


def explain(federation: FederationConfig) -> Iterator[str]:
    """Lines of text, for every party whose tables are in the file."""
    for party in federation.parties.values():
        yield f"{party.name} is {MODES[party.mode]}"
        yield from _kernels(party)
        yield from _analysts(party.analysts)
        yield from (f"  {line}" for line in rule_words.rules(party.rules))
        yield from (f"  {line}" for line in rule_words.online(party.online))
        if party.mode == "guarded":
            yield from _rules(party.guard)
        for table in party.tables.values():
            yield ""
            yield from _table(party, table)
        yield ""


def _kernels(party: PartyConfig) -> Iterator[str]:
    if party.approval:
        yield "  Cells asked of the owner with --ask run on a copy of the tables once she has approved them,"
        yield "  in a kernel of their own; what they say stays here until she releases it (fednb inbox)."
    if party.mode == "guarded" or party.approval:
        names = {"auto": "bubblewrap, else Landlock with seccomp"}
        yield f"  Kernels run in a sandbox ({names.get(party.sandbox, party.sandbox)}), or not at all."
    elif party.mode == "open" and party.sandbox == "none":
        yield "  Kernels run without a sandbox: a cell can read whatever this party's process can."


def _analysts(permits: Mapping[str, PermitConfig] | None) -> Iterator[str]:
    if permits is None:
        yield "  Every analyst on the roster may use all tables and protocols: the hub is on loopback."
        return
    if not permits:
        yield "  No analyst may do anything here: none is named under [party.….analysts]."
    for name, permit in permits.items():
        cells = "may run cells" if permit.cells else "may run no cells"
        own = rule_words.budgets(permit)
        yield (
            f"  {name} {cells}; tables: {_listed(permit.tables)}; protocols: {_listed(permit.protocols)}. Together "
            f"with: {_listed(permit.partners)}{f'; at most {own}' if own else ''}."
        )


def _rules(guard: GuardConfig) -> Iterator[str]:
    yield f"  A figure leaves when at least {guard.k} ids stand behind it, and none or at least {guard.k} outside it;"
    yield f"  when at least {guard.k} of them differ from the most common value;"
    yield (
        f"  when no one could tell the largest part of a sum to {guard.p_percent:g}% from the second largest, and the "
        f"two largest have at most {guard.largest_two:g}%;"
    )
    yield (
        f"  and when, with everything released before to all analysts, at most {guard.leverage:g} of any row's "
        "variance is explained."
    )
    yield (
        f"  Figures have {guard.digits} digits. In 24 hours there are at most {guard.releases:,} answers and "
        f"{guard.refusals:,} refusals that depend on values."
    )


def _table(party: PartyConfig, table: TableConfig) -> Iterator[str]:
    store = TableStore(party.name, {table.name: table})
    try:
        frame = store.read(table.name)
    except DataError as error:
        yield f"  {table.name}: {error}"
        return
    if party.mode != "guarded":
        yield f"  {table.name}: {len(frame):,} rows"
        return
    base = BaseTable(table.name, frame, table, table.name, Ledger(), party.guard.k)
    yield f"  {table.name}: {len(frame):,} rows of {base.ids_count:,} ids"
    width = max((len(str(column)) for column in frame.columns), default=0)
    for column in map(str, frame.columns):
        yield f"    {column:{width}}  {_column(base, column)}"
    for column, role in table.roles.items():
        if role.role == "hidden":
            yield f"    {column:{width}}  hidden: not there for analysts, nor for protocols"
    yield from _advice(base, party.guard)


def _column(base: BaseTable, column: str) -> str:
    spec = base.specs.get(column)
    if spec is None:
        return "not offered: text or a date without a role. In a model only after it was made a number"
    if spec.role == "id":
        return "id: joins tables, stays in saved ones; in no figure and no filter"
    where = (
        f"levels {_listed(spec.levels)}"
        if spec.levels
        else f"cut points {_listed(spec.cuts)}"
        if spec.cuts
        else "as one"
    )
    if spec.role == "key":
        return f"key: filters and groups by {where}"
    return f"measure: figures only; {where}" + (" for clips and histograms" if spec.cuts else "")


def _advice(base: BaseTable, guard: GuardConfig) -> Iterator[str]:
    keys = [spec.name for spec in base.specs.values() if spec.role == "key"]
    if not keys:
        yield "    No column is a key: analysts can ask about all rows together only."
        return
    relation = build(p.Table(base.name), lambda name: base, "this party")
    codes = np.zeros(relation.n, dtype=np.int64)
    for key in keys:
        code, meanings = labels(relation, key)
        _, codes = np.unique(codes * len(meanings) + code, return_inverse=True)
    sizes = np.bincount(codes)
    small = int((sizes < guard.k).sum())
    yield (
        f"    The keys together make {len(sizes):,} groups, {small:,} of them with fewer than {guard.k} rows "
        f"({int(sizes[sizes < guard.k].sum()):,} rows in all): these are told only pooled with others."
    )


def _listed(values: Iterable[object]) -> str:
    words = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if words == ["*"]:
        return "all"
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "") or "none"
