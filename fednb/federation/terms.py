"""On what terms a party takes part in a run: its owner's rules, and which of its rows they are counted for.

Rows are followed through frames, parts of earlier runs and derived tables to the table that they come from, by a number
made of each row's normalised id. So neither another name, nor another spelling, nor another alignment opens a new
account. Files of parts hold these numbers under `keys`, and that table's name under `account`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError
from fednb.federation import messages as m
from fednb.federation.cast import check_params
from fednb.policy.protocol_policy import Asked, Facts, ProtocolPolicy
from fednb.protocols.base import Dataset
from fednb.protocols.base import Protocol as RunProtocol
from fednb.wire.link import Link

ANY_LABEL = "*"  # in a table that a cell made from one without a declared label


class Origins(Protocol):
    """What is asked of a party's tables."""

    def origin(self, name: str) -> str:
        """The table whose rows a derived one has; a declared one is its own."""
        ...

    def own_keys(self, name: str, on: Sequence[str], rows: npt.NDArray[np.int64] | None) -> npt.NDArray[np.uint64]:
        """[n] keys (`row_keys`) of these rows' ids by the columns that the table declares, else by `on`."""
        ...

    def of_cells(self, name: str) -> bool:
        """Whether a cell made this table, or the one that it comes from."""
        ...

    def by_rules(self, name: str) -> bool:
        """Whether rules that an analyst wrote made columns of this table."""
        ...

    def has_column(self, name: str, column: str) -> bool: ...

    def declared_label(self, name: str) -> str | None: ...

    def declared_id(self, name: str) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Terms:
    """What came of asking the rules: how to guard the link, what to keep with the part, the label's account."""

    guard: Callable[[int], Callable[[Link], Link]] = lambda done: lambda link: link
    keep: Mapping[str, Any] = field(default_factory=dict)
    label_set: str = ""
    apart: Callable[[str, npt.NDArray[np.int64]], None] | None = None  # notes sets of rows, by column


@dataclass(frozen=True)
class Used:
    """Which rows of which table a run uses."""

    table: str
    on: Sequence[str] = ()
    rows: npt.NDArray[np.int64] | None = None  # positions; None: all


class Admission:
    """Asks one party's rules; without rules (simulation) everything goes."""

    def __init__(self, member: str, rules: ProtocolPolicy | None, tables: Origins) -> None:
        self._member = member
        self._rules = rules
        self._tables = tables

    def check(self, join: m.Join, protocol: RunProtocol, partners: Sequence[str]) -> None:
        """Before any table is opened. Raises Refused, DataError."""
        ask = asked(join, protocol, partners, self._member)
        if self._rules is not None:
            self._rules.check(ask)

    def agree(
        self, join: m.Join, protocol: RunProtocol, partners: Sequence[str], data: Dataset, used: Used | None
    ) -> Terms:
        """With the rows in hand; the run counts from here on. Raises Refused, DataError."""
        if self._rules is None:
            return Terms(label_set=self._label_set(join, used))
        ask = asked(join, protocol, partners, self._member)
        facts = self._facts(join, data, used)
        self._rules.begin(ask, facts)
        rules = self._rules
        keep = {} if facts.keys is None or facts.ids is not None else {"keys": facts.keys, "account": facts.account}
        return Terms(
            lambda done: rules.guard(ask, facts, done),
            keep,
            facts.label_set,
            lambda column, sets: rules.apart(ask, facts, column, sets),
        )

    def _facts(self, join: m.Join, data: Dataset, used: Used | None) -> Facts:
        if used is None:  # of an earlier run's part, or of nothing
            held = data.parts or (data.part,)
            found, accounts = [part["keys"] for part in held if "keys" in part], {part.get("account") for part in held}
            if len(accounts) > 1:
                raise DataError("the scores of these runs are of rows of different tables.")
            keys = np.unique(np.concatenate(found)) if len(found) > 1 else found[0] if found else None
            return Facts(rows=0 if keys is None else len(keys), account=str(*accounts) if found else "", keys=keys)
        keys = self._tables.own_keys(used.table, used.on, used.rows)
        scored = [part["keys"] for part in data.parts or (data.part,) if "scores" in part and "keys" in part]
        # of several runs either each has all these rows (of one class), or one after the other has some of them
        if scored and not (
            all(np.array_equal(each, keys) for each in scored) or np.array_equal(np.concatenate(scored), keys)
        ):
            raise DataError("the scores of that run are those of other rows. Predict on this frame first.")
        return Facts(
            rows=len(keys),
            features=0 if data.X is None else data.X.shape[1],
            ids=None if data.ids is None else len(np.unique(keys)),
            account=self._tables.origin(used.table),
            keys=keys,
            of_cells=self._tables.of_cells(used.table),
            by_rules=self._tables.by_rules(used.table),
            other_ids=self._other_ids(used),
            label_set=self._label_set(join, used),
        )

    def _other_ids(self, used: Used) -> bool:
        """Whether rows are known by other columns than the owner said, which a table of a cell's cannot say anew."""
        declared = self._tables.declared_id(self._tables.origin(used.table))
        return bool(declared) and bool(used.on) and tuple(used.on) != declared

    def _label_set(self, join: m.Join, used: Used | None) -> str:
        """What a cell or a rule made counts as its origin's label: how it is called there is somebody's choice."""
        label = join.data.label
        if used is None or not label:
            return ""
        origin = self._tables.origin(used.table)
        new = self._tables.by_rules(used.table) and not self._tables.has_column(origin, label)
        if new or self._tables.of_cells(used.table):
            label = self._tables.declared_label(origin) or ANY_LABEL
        return f"{origin}.{label}"[:200]


def asked(join: m.Join, protocol: RunProtocol, partners: Sequence[str], member: str) -> Asked:
    """What `member`'s policy looks at of an invitation. Raises DataError, Refused for parameters that cannot be."""
    params = check_params(join.params, protocol, member)
    limits = {what: getattr(params, name) for what, name in protocol.limits.items()}
    return Asked(
        run=join.run,
        protocol=protocol.name,
        analyst=join.by,
        partners=partners,
        aligns=any("ids" in role.needs for role in protocol.roles.values()),
        figures=protocol.roles[join.role].figures,
        columns=protocol.roles[join.role].columns,
        limits={what: float(value) for what, value in limits.items() if value is not None},
        sends=protocol.sends,
        resumed=join.resume,
        online="online" in protocol.roles[join.role].needs,
    )
