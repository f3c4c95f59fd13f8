"""What an alignment is asked for and what came of it: id columns by party, the tables' descriptions, the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from fednb.errors import DataError, PeerLost
from fednb.federation import messages as m
from fednb.federation.result import RunResult
from fednb.federation.views import AlignmentView, PartyAlignment
from fednb.text import plain

METHODS = {"ecdh": "psi", "spu": "psi_spu"}  # the protocol of each


def protocol_of(method: str, parties: int, prepared: bool) -> str:
    """The protocol that aligns so many parties. Raises DataError for what the method does not do."""
    if method not in METHODS:
        raise DataError(f"there is no method {method!r} to align by; there are {', '.join(map(repr, METHODS))}.")
    if method != "ecdh" and (parties != 2 or prepared):
        raise DataError(f"method={method!r} intersects two parties' sets, neither of them prepared; use method='ecdh'.")
    return METHODS[method]


def id_columns(tables: Mapping[str, str], on: object) -> dict[str, list[str]]:
    """The id columns of each party's table: `on` is a name, a list of names, or these by party."""
    if not isinstance(on, Mapping):
        return {party: _names(on, party) for party in tables}
    for party in tables:
        if party not in on:
            raise DataError(f"`on` names no id column for {party}.")
    return {party: _names(on[party], party) for party in tables}


def described(
    answer: m.Tables, parties: Sequence[str], tables: Mapping[str, str], on: Mapping[str, list[str]]
) -> dict[str, m.TableInfo]:
    """The description of each party's table, its ids marked. Raises DataError naming what there is instead."""
    found: dict[str, m.TableInfo] = {}
    for party, table in tables.items():
        if party not in parties:
            raise DataError(f"there is no party {party!r} in this federation; its parties are {', '.join(parties)}.")
        if party in answer.missing:
            raise PeerLost(f"{party} did not answer: {plain(answer.missing[party])}", member=party)
        own = {info.name: info for info in answer.tables if info.member == party}
        if table not in own:
            raise DataError(f"{party} holds no table {table!r}; it holds {plain(', '.join(own)) or 'none'}.")
        names = [column.name for column in own[table].columns]
        for column in on[party]:
            if column not in names:
                raise DataError(
                    f"{party}'s table {table!r} has no id column {column!r}; its columns are {plain(', '.join(names))}."
                )
        # an id that the file does not declare is still no feature of this alignment
        columns = [m.ColumnInfo(c.name, c.dtype, "id") if c.name in on[party] else c for c in own[table].columns]
        found[party] = m.TableInfo(party, table, own[table].rows, columns)
    return found


def of_role(known: Mapping[str, m.TableInfo], role: str) -> dict[str, tuple[str, ...]]:
    """Names of the columns of a role ("feature", "label"), by party."""
    return {party: tuple(c.name for c in info.columns if c.role == role) for party, info in known.items()}


class _Sets(msgspec.Struct):
    """What a party says in public of an alignment; further keys are ignored."""

    rows: Annotated[int, msgspec.Meta(ge=0)]
    ids: Annotated[int, msgspec.Meta(ge=0)]
    duplicates: Annotated[int, msgspec.Meta(ge=0)] = 0
    missing: Annotated[int, msgspec.Meta(ge=0)] = 0
    formats: dict[str, Annotated[int, msgspec.Meta(ge=0)]] = {}


class _Matched(msgspec.Struct):
    """What the coordinator says."""

    matched: Annotated[int, msgspec.Meta(ge=0)]


def figures(
    result: RunResult, tables: Mapping[str, str], on: Mapping[str, list[str]], coordinator: str
) -> AlignmentView:
    """What the members of an alignment said of it. Raises UnexpectedMessage for what cannot be read."""
    parties = []
    for party, table in tables.items():
        said = result.read(party, _Sets)
        member = result.results[party]
        parties.append(
            PartyAlignment(
                member=party,
                table=table,
                on=on[party],
                rows=said.rows,
                ids=said.ids,
                duplicates=said.duplicates,
                missing=said.missing,
                formats={plain(mask, 60): rows for mask, rows in said.formats.items()},
                bytes_out=sum(member.bytes_out.values()),
                bytes_in=sum(member.bytes_in.values()),
            )
        )
    matched = result.read(coordinator, _Matched).matched
    notes = list(result.notices)
    return AlignmentView(parties=parties, matched=matched, run=result.run, seconds=result.seconds, notes=notes)


def _names(on: object, party: str) -> list[str]:
    names = [on] if isinstance(on, str) else list(on) if isinstance(on, Sequence) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"`on` must be a column name, a list of names or these by party; for {party} it is {on!r}.")
    return names
