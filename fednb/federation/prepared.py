"""A large set of ids, prepared once so that many alignments with one other party cost what the small sets do."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from fednb.errors import DataError
from fednb.federation.messages import DataRef


class PreparedFigures(msgspec.Struct):
    """What a party says in public of a set that it prepared; further keys are ignored."""

    ids: Annotated[int, msgspec.Meta(ge=0)]
    ends: Annotated[float, msgspec.Meta(ge=0, le=1e11)]  # unix seconds

    @property
    def until(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.ends, datetime.UTC)


@dataclass(frozen=True)
class PreparedSet:
    """What `Federation.prepare` made, by reference: points lie at the coordinator, ids and secrets at their owners."""

    run: str  # which prepared it: the name of the epoch
    party: str
    table: str
    on: tuple[str, ...]
    for_party: str
    ids: int
    ends: datetime.datetime  # of the epoch

    def request(self, tables: Mapping[str, str], on: Mapping[str, list[str]], coordinator: str) -> dict[str, Any]:
        """The run that aligns `tables` with this set. Raises DataError when it was prepared for others."""
        others = [party for party in tables if party != self.party]
        if others != [self.for_party] or tables.get(self.party) != self.table or tuple(on[self.party]) != self.on:
            raise DataError(
                f"prepared is {self.party}.{self.table} on {', '.join(self.on)} for {self.for_party}. Align these two "
                "parties, that table and those columns, or prepare another set."
            )
        small = DataRef(table=tables[self.for_party], on=on[self.for_party], part=self.run)
        return {
            "protocol": "psi_prepared",
            "cast": {"large": [self.party], "small": [self.for_party], "coordinator": [coordinator]},
            "data": {
                self.party: DataRef(table=self.table, on=list(self.on), part=self.run),
                self.for_party: small,
                coordinator: DataRef(part=self.run),
            },
            "params": {"epoch": self.run},
        }

    def __str__(self) -> str:
        what = f"{self.ids:,} ids of {self.party}.{self.table}"
        return f"{what}, prepared for {self.for_party} until {self.ends:%Y-%m-%d %H:%M} UTC"
