"""The gate: holds a guarded party's data and answers plans with checked aggregates, or with a refusal.

It is part of the agent. What comes from a kernel is a plan, never code; what goes back is an `Answer`, after the ledger
has it on disk, or a refusal that names the rule, on which column or group, and what would be allowed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec
import numpy as np

from fednb.config import GuardConfig, TableConfig
from fednb.errors import DataError, FednbError, Refused
from fednb.policy import fits, rules
from fednb.policy import plan as p
from fednb.policy.answer import Answer, ColumnSpec, Schema
from fednb.policy.columns import BaseTable
from fednb.policy.ledger import DAY, Ledger
from fednb.policy.release import Releaser
from fednb.policy.rows import Relation, build
from fednb.policy.rules import Wanted
from fednb.policy.shapes import Bare

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("fednb.gate")


@dataclass(frozen=True)
class Held:
    """A table of the party, as the gate asks for it."""

    frame: pd.DataFrame
    table: TableConfig
    digest: str  # changes when the rows change
    origin: str  # where the rows come from


class Gate:
    """Answers questions about one party's tables. Safe from any thread; one question at a time."""

    def __init__(
        self,
        member: str,
        guard: GuardConfig,
        ledger: Ledger,
        find: Callable[[str], Held | p.Rows],
    ) -> None:
        """find : gives a table, or the plan of one that an analyst saved. Raises DataError for an unknown name."""
        self.member = member
        self.guard = guard
        self._ledger = ledger
        self._find = find
        self._tables: dict[str, tuple[str, BaseTable]] = {}

    def schema(self, name: str) -> Schema:
        """Columns with their roles, levels and cut points. Raises DataError for an unknown table."""
        with self._ledger.lock:
            relation = build(p.Table(name), self._table, self.member)
            listed, ids = [], []
            for column, cell in relation.columns.items():
                shape = cell.shape()
                if isinstance(shape, Bare):
                    listed.append(msgspec.structs.replace(shape.spec, name=column))
                    ids += [column] if shape.spec.role == "id" else []
                else:
                    listed.append(ColumnSpec(column, "measure", "number"))
            label = relation.sources[0].table.label
            return Schema(name, relation.n, listed, ids, label if label in relation.columns else None)

    def ask(self, question: p.Aggregate | p.Count | p.Histogram | p.Correlate | p.Regress, analyst: str) -> Answer:
        """The released figures. Raises Refused, or DataError for a plan that does not fit the tables."""
        with self._ledger.lock:
            release = self._release(question, analyst)
            try:
                answer = self._work(release, question)
            except Refused as refused:
                if refused.rule in rules.DEPEND_ON_VALUES:
                    self._ledger.refused(analyst=analyst, rule=refused.rule)
                raise
            if release.trial is None:
                raise FednbError(f"{self.member}: an answer was not charged to the ledger, and is kept.")
            for _ in range(release.depended):
                self._ledger.refused(analyst=analyst, rule="withheld")
            self._ledger.commit(release.trial, analyst=analyst, question=type(question).__name__)
            return answer

    def keep(self, question: p.Keep, analyst: str) -> tuple[pd.DataFrame, TableConfig]:
        """The rows of a table that stays at the party; how many there are will show, so they are charged as a count."""
        with self._ledger.lock:
            release = self._release(question, analyst)
            relation = release.relation
            for name in question.id:
                shape = relation.shape(name)
                if not (isinstance(shape, Bare) and shape.spec.role == "id"):
                    raise Refused(
                        f"{self.member} declined to save {question.name!r}: {name!r} is no id column as it stands.",
                        member=self.member,
                        rule="id",
                    )
            if question.label is not None:
                relation.cell(question.label)
            self._count(release, f"to save {question.name!r}")
            frame = _frame(relation)
            if release.trial is not None:
                self._ledger.commit(release.trial, analyst=analyst, question="Keep")
            return frame, TableConfig(question.name, id=tuple(question.id), label=question.label)

    def _count(self, release: Releaser, what: str) -> None:
        everything = [np.arange(release.relation.n)]
        wanted = [Wanted((), np.ones(release.relation.n), checked=False)]
        rule = release.rule(everything, wanted)
        if rule:
            release.refuse(rule, what)
        release.settle_or_refuse(everything, wanted, what)

    def _release(self, question: p.Question, analyst: str) -> Releaser:
        p.check(question)
        since = time.time() - DAY
        if self._ledger.used("release", since) >= self.guard.releases:
            self._spent(f"{self.guard.releases:,} answers", "releases")
        if self._ledger.used("refusal", since) >= self.guard.refusals:
            self._spent(f"{self.guard.refusals:,} refusals that depend on values", "refusals")
        try:
            relation = build(question.rows, self._table, self.member)
        except RecursionError:
            raise DataError("the question is nested too deeply; save a table half-way.") from None
        return Releaser(relation, self.guard, self._ledger)

    def _work(self, release: Releaser, question: p.Question) -> Answer:
        if isinstance(question, p.Aggregate):
            return release.aggregate(question)
        if isinstance(question, p.Count):
            return release.count(question)
        if isinstance(question, p.Histogram):
            return release.histogram(question)
        if isinstance(question, p.Correlate):
            return fits.correlate(release, question)
        if isinstance(question, p.Regress):
            return fits.regress(release, question)
        raise DataError("this question has no answer.")

    def _table(self, name: str) -> BaseTable | p.Rows:
        found = self._find(name)
        if not isinstance(found, Held):
            return found
        known = self._tables.get(name)
        if known is None or known[0] != found.digest:
            base = BaseTable(name, found.frame, found.table, found.origin, self._ledger, self.guard.k)
            known = self._tables[name] = (found.digest, base)
        return known[1]

    def _spent(self, what: str, rule: str) -> NoReturn:
        raise Refused(
            f"{self.member} has given {what} in the last 24 hours, which is its budget for all analysts. "
            "Ask again later.",
            member=self.member,
            rule=rule,
        )


def _frame(relation: Relation) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({n: _total(c.values()) if c.derived else c.values() for n, c in relation.columns.items()})


def _total(series: pd.Series) -> pd.Series:
    """A derived column without gaps: 0, False or "" where a row has no value.

    A run that stops at a missing or infinite value would tell that some row has one; a derived column could put it
    there for whichever rows its maker wanted to know of.
    """
    if series.dtype.kind == "f":
        return series.where(np.isfinite(series), 0.0)
    return series.fillna(False if series.dtype.kind == "b" else "")
