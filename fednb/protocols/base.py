"""What a protocol is: a name, its roles as plain functions, and the parameters they agree on.

Every role has one shape, `role(link, data, params, run)`: `link` to talk, `data` its own rows, `params` the
agreed parameters, `run` for progress, budget, journal and randomness. It returns an `Outcome`: what stays with
the member, and what the coordinator may show.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, dataclass_transform

import msgspec
import numpy as np
import numpy.typing as npt

from fednb.errors import QuotaExceeded
from fednb.protocols.executor import Executor, Threads
from fednb.protocols.records import Records
from fednb.wire.link import Link
from fednb.wire.message import Message


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of a protocol's parameters: decoded strictly, the same at every role."""


@dataclass(frozen=True)
class Dataset:
    """A member's own rows, in the order that the run agreed on. Never sent as it is."""

    ids: Iterable[str] | None = None  # [n] ids as this member writes them; can be gone through more than once
    X: Any = None  # [n, d] floats: an array, or for a role that needs "parts" a `rows.Matrix`, which may lie in a file
    records: Records | None = None  # columns of any kind, each read when it is asked for
    y: npt.NDArray[np.float64] | None = None  # [n] label, where this member holds it
    columns: tuple[str, ...] = ()  # [d]
    label: str | None = None
    # by column of text, its different values; X has their places here. Only for a role that needs "levels"
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    part: Mapping[str, Any] = field(default_factory=dict)  # this member's part of an earlier run (a model's weights)
    parts: tuple[Mapping[str, Any], ...] = ()  # of several earlier runs
    origin: Mapping[str, Any] = field(default_factory=dict)  # of the run that made the rows `part` learnt from
    # of columns that are no numbers: "text", "date", "mixed" or "infinite", and [n] which value it is (-1: missing)
    unfit: Mapping[str, tuple[str, npt.NDArray[np.int64]]] = field(default_factory=dict)
    asks: Any = None  # `online_score.Asks`: applicants, as they come
    engine: Any = None  # `psi_spu.Engine`: where this member runs a library that is not ours


@dataclass(frozen=True)
class Outcome:
    """What a role leaves behind."""

    private: Mapping[str, Any] = field(default_factory=dict)  # stays in the member's store, under the run's id
    public: Mapping[str, Any] = field(default_factory=dict)  # msgpack-able; what the coordinator and analyst see
    # (name, columns [n]): becomes a table of the member's, with the ids of the rows that the run used
    table: tuple[str, Mapping[str, npt.NDArray[Any]]] | None = None
    by_rules: bool = False  # an analyst's rules say what is in that table


class Budget(typing.Protocol):
    """How many plaintext slots a coordinator may still decrypt for each member."""

    def expect(self, member: str, slots: int) -> None:
        """Raises QuotaExceeded if `slots` more would be too many. Counts nothing: for failing before the work."""
        ...

    def spend(self, member: str, slots: int) -> None:
        """Count `slots` before decrypting them. Raises QuotaExceeded."""
        ...


class Unlimited:
    """The budget of a run that nobody limits: in tests of a protocol's own."""

    def expect(self, member: str, slots: int) -> None:
        """Anything goes."""

    def spend(self, member: str, slots: int) -> None:
        """Anything goes."""


class FixedBudget:
    """A budget that lives as long as one object: `limit` slots for each member."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent: dict[str, int] = {}

    def expect(self, member: str, slots: int) -> None:
        if self.spent.get(member, 0) + slots > self.limit:
            raise QuotaExceeded(
                f"the coordinator has decrypted {self.spent.get(member, 0)} of at most {self.limit} slots for {member} "
                f"and was asked for {slots} more. Use fewer iterations or features, or more rows.",
                member=member,
                rule="decryption quota",
            )

    def spend(self, member: str, slots: int) -> None:
        self.expect(member, slots)
        self.spent[member] = self.spent.get(member, 0) + slots


class Journal:
    """A role's state at iteration boundaries; this one forgets."""

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Keep `state` (scalars, strings and arrays) as of the end of `step`."""

    def load(self) -> tuple[int, Mapping[str, Any]] | None:
        """The state to continue from, if the run is being resumed."""
        return None


class RunContext:
    """What a role may use besides link, data and parameters. Every member of it has a harmless default."""

    def __init__(
        self,
        *,
        name: str = "",
        emit: Callable[[str, int, int | None, Mapping[str, float]], None] | None = None,
        budget: Budget | None = None,
        journal: Journal | None = None,
        seed: int | None = None,
        check: Callable[[], None] | None = None,
        threads: int = 1,
        executor: Executor | None = None,
        apart: Callable[[str, npt.NDArray[np.int64]], None] | None = None,
    ) -> None:
        self.name = name  # the run's id: bind it into whatever must not be replayed in another run
        self.budget: Budget = budget or Unlimited()
        self.journal = journal or Journal()
        self.rng = np.random.default_rng(seed)  # for what is not secret; keys and masks come from `secrets`
        self.operations: dict[str, int] = {}  # encrypted-arithmetic operations so far, by kind
        self.threads = threads
        self.executor: Executor = executor or Threads(threads)  # where the heavy work on rows runs
        self._emit = emit
        self._check = check
        self._apart = apart

    def progress(self, phase: str, step: int, total: int | None = None, **metrics: float) -> None:
        """Report one step; raises RunCancelled when the run was cancelled."""
        self.check()
        if self._emit:
            self._emit(phase, step, total, metrics)

    def count(self, kind: str, n: int) -> None:
        """Count encrypted-arithmetic operations: "encrypt", "decrypt", "add", "multiply", "refresh", "exponentiate"."""
        self.operations[kind] = self.operations.get(kind, 0) + int(n)

    def apart(self, column: str, sets: npt.NDArray[np.int64]) -> None:
        """Before figures leave of sets of rows that somebody else chose: which set each row [n] is in; -1: in none.

        Raises Refused where they, beside earlier ones of that column, would tell of too few rows.
        """
        if self._apart:
            self._apart(column, sets)

    def check(self) -> None:
        """Raises RunCancelled when the run was cancelled; call it inside long loops."""
        if self._check:
            self._check()


RoleFunction = Callable[[Link, Dataset, Any, RunContext], Outcome]


@dataclass(frozen=True)
class Role:
    """One part in a protocol."""

    play: RoleFunction
    many: bool = False  # several members may play it
    # of "ids", "X", "records", "y", "part", "origin": what the member must load before it plays; with "records" `label`
    # is the one that the table's owner declared; "missing": X may have NaN; "parts": X is used some rows at a time, and
    # may be larger than memory; "levels": X may have columns of text; "unfit": X has the columns that are numbers, and
    # the others are described, where they would be refused; "asks": rows come one by one, from this member's own
    # service; "online": ids and X of the table in which its owner has applicants of others looked up; "engine"
    needs: tuple[str, ...] = ()
    figures: bool = False  # its result, or what it learns, tells sums and figures of the very rows that it used
    columns: bool = False  # figures of single columns come of it
    scores: bool = False  # somebody else learns a sum over this role's features for each row


@dataclass(frozen=True)
class Protocol:
    """A protocol as members install and look it up."""

    name: str  # "vertical_logistic"
    version: int  # members that differ refuse the run
    params: type[Params]
    roles: Mapping[str, Role]
    learns: Mapping[str, str]  # role -> what it learns, in words (the leakage table, shown in receipts)
    # role -> what its player could read besides, if the coordinator ran in the player's own organisation
    learns_with_key: Mapping[str, str] = field(default_factory=dict)
    # (from, to), both roles -> the kinds of messages that pass; what is not declared a guarded party does not send
    sends: Mapping[tuple[str, str], tuple[type[Message], ...]] = field(default_factory=dict)
    # of "iterations", "batch", and what `policy.protocol_policy` knows more: the parameter that says how many, for
    # owners' rules on them
    limits: Mapping[str, str] = field(default_factory=dict)
    begun_by: str = ""  # the role whose player, a party, begins such runs itself; "": analysts do
