"""Answers: each question's figures, worked out over sets of rows that the rules let pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from fednb.config import GuardConfig
from fednb.errors import Refused
from fednb.policy import plan as p
from fednb.policy import rules
from fednb.policy.answer import Answer
from fednb.policy.ledger import Ledger, Trial
from fednb.policy.rows import Relation, labels
from fednb.policy.rules import Wanted
from fednb.policy.shapes import Array, Bare, Linear, Private, Term, linear, single, times

POOLED = "(pooled)"
MOST_GROUPS = 2_000
QUANTILE_SHARE = 0.02  # of the rows, averaged around a quantile
TRIES = 200


@dataclass
class Part:
    """One column of an answer: the sums it needs, and how it is made of a group's rows."""

    name: str
    wanted: list[Wanted] = field(default_factory=list)
    figure: p.Figure | None = None
    shape: Linear | None = None
    numbers: Array | None = None  # [n] values of the column
    withheld: str = ""  # the rule


class Releaser:
    """Answers one question; the ledger's lock is held meanwhile."""

    def __init__(self, relation: Relation, guard: GuardConfig, ledger: Ledger) -> None:
        self.relation = relation
        self.guard = guard
        self.ledger = ledger
        self.notes: list[str] = []
        self.depended = 0  # refusals that depended on values
        self.trial: Trial | None = None  # to be committed
        self._values: dict[Term, Array] = {}
        self._order: dict[tuple[str, int], tuple[Array, Array]] = {}

    # ------------------------------------------------------------ aggregates

    def aggregate(self, question: p.Aggregate) -> Answer:
        groups, meanings = self._groups(question.by)
        parts = [self._part(figure) for figure in question.figures]
        try:
            groups, meanings = self._pool(groups, meanings, parts)
        except Refused:
            kept = self._feasible(parts)
            if len(kept) in (0, len(parts)):
                raise
            groups, meanings = self._pool(groups, meanings, kept)
        values: list[list[int | float | str | None]] = []
        for rows in groups:
            values.append([None if part.withheld else self._value(part, rows) for part in parts])
        return self.answer(question.by, meanings, [part.name for part in parts], values)

    def _feasible(self, parts: Sequence[Part]) -> list[Part]:
        """Those that may be told of all rows together; the others are withheld."""
        everything = [np.arange(self.relation.n)]
        for part in parts:
            if _windowed(part) and self._window(part, everything[0]) is None:
                part.withheld = "size"
            part.withheld = part.withheld or self.rule(everything, part.wanted + self._windows(part, everything))
        kept = [part for part in parts if not part.withheld]
        if kept:
            for part in parts:
                if part.withheld:
                    self.withhold(part)
        return kept

    def _part(self, figure: p.Figure) -> Part:
        name = figure.column or "size"
        n = self.relation.n
        if figure.statistic == "size":
            return Part("size", [Wanted((), np.ones(n), checked=False)], figure)
        shape = self.relation.shape(figure.column)
        if figure.statistic in ("count", "missing"):
            return self._presence(figure, shape)
        made = linear(shape)
        if isinstance(made, Private):
            self.refuse("column", f"{figure.statistic} of {figure.column!r}", made.why)
        numbers = self.relation.numbers(made)
        part = Part(name, figure=figure, shape=made, numbers=numbers)
        inside = ~np.isnan(numbers)
        if figure.statistic == "quantile":
            self._check_quantile(figure, made)
            return part
        part.wanted = rules.sums_of(made, n, inside)
        if figure.statistic in ("var", "std"):
            square = times(made, made, most=4)
            if not isinstance(square, Linear):
                self.refuse("column", f"{figure.statistic} of {figure.column!r}", "it multiplies too many columns")
            part.wanted += [w for w in rules.sums_of(square, n, inside) if w.term not in made.weights]
        if not part.wanted:
            part.wanted = [Wanted((), np.where(inside, 1.0, 0.0), checked=False)]
        return part

    def _presence(self, figure: p.Figure, shape: Any) -> Part:
        """How many values are there, or what share is missing."""
        n = self.relation.n
        part = Part(figure.column, figure=figure)
        if isinstance(shape, Bare):
            if shape.spec.role == "id":
                self.refuse("column", f"{figure.statistic} of {figure.column!r}", "it is an id")
            missing: Linear = single("isna", shape)
            part.numbers = self.relation.numbers(missing)
            part.wanted = rules.sums_of(missing, n, np.ones(n, dtype=bool)) if shape.missing else []
        else:
            made = linear(shape)
            if isinstance(made, Private) or any(self.relation.numbers(made) != self.relation.numbers(made)):
                why = made.why if isinstance(made, Private) else "it is derived, and missing in some rows"
                self.refuse("column", f"{figure.statistic} of {figure.column!r}", why)
            part.numbers = np.zeros(n)
        part.wanted.append(Wanted((), np.ones(n), checked=False))
        return part

    def _check_quantile(self, figure: p.Figure, shape: Linear) -> None:
        what = f"a quantile of {figure.column!r}"
        if figure.q is None or not 0 < figure.q < 1:
            self.refuse(
                "quantile", what, "q must lie between 0 and 1; the least and the largest value are single rows'"
            )
        if len(shape.weights) != 1 or any(np.ndim(w) for w in (*shape.weights.values(), shape.constant)):
            self.refuse("column", what, "quantiles are of one column, or of one function of it")

    def _windows(self, part: Part, groups: Sequence[Array]) -> list[Wanted]:
        """Of a quantile: the rows around it, in each group, whose average is given."""
        if part.figure is None or part.figure.statistic != "quantile" or part.shape is None:
            return []
        weights = np.zeros(self.relation.n)
        for rows in groups:
            window = self._window(part, rows)
            if window is not None:
                weights[window] = 1.0
        return [Wanted(next(iter(part.shape.weights)), weights, checked=False)]

    def _window(self, part: Part, rows: Array) -> Array | None:
        """The rows of a group around its quantile; None where the tail is too short."""
        q = part.figure.q if part.figure is not None and part.figure.q is not None else 0.5
        used = self._ranked(part, rows)
        if len(used) * min(q, 1 - q) < self.guard.k or not rules.enough(self.relation, used, self.guard.k):
            return None
        width = max(self.guard.k, math.ceil(QUANTILE_SHARE * len(used)))
        start = min(max(0, round(q * (len(used) - 1) - (width - 1) / 2)), len(used) - width)
        window: Array = used[start : start + width]
        return window if rules.enough(self.relation, window, self.guard.k) else None

    def _ranked(self, part: Part, rows: Array) -> Array:
        """Rows that have a value, from the least to the largest; worked out once for all quantiles of a column."""
        key = (part.name, id(rows))
        if key not in self._order:
            numbers = part.numbers if part.numbers is not None else np.zeros(self.relation.n)
            used = rows[~np.isnan(numbers[rows])]
            self._order[key] = rows, used[np.argsort(numbers[used], kind="stable")]  # the rows too: ids are reused
        return self._order[key][1]

    def _value(self, part: Part, rows: Array) -> int | float | None:
        figure = part.figure
        if figure is None or figure.statistic == "size":
            return len(rows)
        numbers = part.numbers[rows] if part.numbers is not None else np.zeros(len(rows))
        if figure.statistic == "count":
            return int((numbers == 0).sum())
        if figure.statistic == "missing":
            return self.rounded(float(numbers.mean()))
        if figure.statistic == "quantile":
            window = self._window(part, rows)
            return None if window is None or part.numbers is None else self.rounded(float(part.numbers[window].mean()))
        numbers = numbers[~np.isnan(numbers)]
        if figure.statistic == "sum":
            return self.rounded(float(numbers.sum()))
        if figure.statistic == "mean":
            return self.rounded(float(numbers.mean()))
        variance = float(numbers.var(ddof=1))
        return self.rounded(variance if figure.statistic == "var" else math.sqrt(variance))

    # ------------------------------------------------------------ counts

    def count(self, question: p.Count) -> Answer:
        categories = [name for name in question.columns if self._is_category(name)]
        keys = [name for name in question.columns if name not in categories]
        groups, meanings = self._groups(keys)
        size = Part("count", [Wanted((), np.ones(self.relation.n), checked=False)], p.Figure("size"))
        if not categories:
            groups, meanings = self._pool(groups, meanings, [size])
            return self.answer(keys, meanings, ["count"], [[len(rows)] for rows in groups])
        cells, names = self._cells(categories)
        for category in categories:
            shape = self.relation.shape(category)
            if isinstance(shape, Bare):
                size.wanted.append(Wanted(self._levels_term(shape), np.ones(self.relation.n), checked=False))

        def thin(rows: Array) -> bool:
            parts = (rows[cells[rows] == cell] for cell in range(len(names)))
            return not all(rules.enough(self.relation, part, self.guard.k) for part in parts)

        groups, meanings = self._pool(groups, meanings, [size], thin)
        if len(groups) == 1 and thin(groups[0]):
            cells, names = self._merged(groups[0], cells, names)
        values = [len(rows[cells[rows] == cell]) for rows in groups for cell in range(len(names))]
        index = [[*meaning, *name] for meaning in meanings for name in names]
        return self.answer([*keys, *categories], index, ["count"], [[value] for value in values])

    def _is_category(self, name: str) -> bool:
        shape = self.relation.shape(name)
        return isinstance(shape, Bare) and shape.spec.role == "measure" and bool(shape.spec.levels)

    @staticmethod
    def _levels_term(shape: Bare) -> Term:
        return tuple(next(iter(single("levels", shape).weights)))

    def _cells(self, categories: Sequence[str]) -> tuple[Array, list[list[Any]]]:
        """[n] the combination of levels that each row has, and the combinations."""
        codes = np.zeros(self.relation.n, dtype=np.int64)
        names: list[list[Any]] = [[]]
        for category in categories:
            shape = self.relation.shape(category)
            levels: list[Any] = list(shape.spec.levels) if isinstance(shape, Bare) else []
            series = self.relation.cell(category).values().to_numpy(dtype=object)
            code = np.full(self.relation.n, len(levels))
            for number, level in enumerate(levels):
                code[series == level] = number
            levels += ["(other)"] if (code == len(levels)).any() else []
            codes = codes * len(levels) + code
            names = [[*name, level] for name in names for level in levels]
        return codes, names

    def _merged(self, rows: Array, cells: Array, names: list[list[Any]]) -> tuple[Array, list[list[Any]]]:
        """Small cells of the only group become one, with the next larger ones as long as that is small itself."""
        counts = {cell: rules.ids(self.relation.sources[0], rows[cells[rows] == cell]) for cell in range(len(names))}
        order = sorted(counts, key=lambda cell: counts[cell])
        taken = [cell for cell in order if counts[cell] < self.guard.k]
        rest = [cell for cell in order if cell not in taken]
        while rest and sum(counts[cell] for cell in taken) < self.guard.k:
            taken.append(rest.pop(0))
        if not rest:
            self.refuse("levels", "these counts")
        place = {cell: number for number, cell in enumerate(sorted(rest))} | dict.fromkeys(taken, len(rest))
        self.notes.append(f"levels with fewer than {self.guard.k} ids are pooled")
        merged = np.array([place[cell] for cell in range(len(names))])[cells]
        return merged, [names[cell] for cell in sorted(rest)] + [["(other)"] * len(names[0])]

    def histogram(self, question: p.Histogram) -> Answer:
        shape = self.relation.shape(question.column)
        what = f"a histogram of {question.column!r}"
        if not isinstance(shape, Bare) or shape.spec.kind != "number" or not shape.spec.edges:
            self.refuse("column", what, "histograms are of a column of numbers, as it stands")
        values = self.relation.cell(question.column).values().to_numpy(dtype=np.float64, na_value=np.nan)
        rows = np.flatnonzero(~np.isnan(values))
        everything = [np.arange(self.relation.n)]
        edges = shape.spec.edges
        step = max(1, math.ceil((len(edges) + 1) / question.bins))
        edges = edges[step - 1 :: step] or edges
        size = Part("count", [Wanted(self._levels_term(shape), np.ones(self.relation.n), checked=False)])
        rule = self.rule(everything, size.wanted)
        if rule:
            self.refuse(rule, what)
        kept: list[float] = []
        code = np.digitize(values[rows], edges)
        low = 0
        for cut in range(1, len(edges) + 1):  # neighbours join until both sides of an edge have enough
            inside, above = rows[(code >= low) & (code < cut)], rows[code >= cut]
            if rules.enough(self.relation, inside, self.guard.k) and rules.enough(self.relation, above, self.guard.k):
                kept.append(edges[cut - 1])
                low = cut
        if not kept:
            self.refuse("levels", what)
        self.settle(everything, size.wanted)
        counts = np.bincount(np.digitize(values[rows], kept), minlength=len(kept) + 1)
        bounds = [None, *kept, None]
        table: list[list[int | float | str | None]] = [
            [bounds[i], bounds[i + 1], int(count)] for i, count in enumerate(counts)
        ]
        index: list[list[bool | int | float | str]] = [[i] for i in range(len(table))]
        return self.answer(["bin"], index, ["low", "high", "count"], table)

    # ------------------------------------------------------------ groups and rules

    def _groups(self, by: Sequence[str]) -> tuple[list[Array], list[list[Any]]]:
        if not by:
            return [np.arange(self.relation.n)], [[]]
        codes = np.zeros(self.relation.n, dtype=np.int64)
        names: list[list[Any]] = [[]]
        for name in by:
            code, meanings = labels(self.relation, name)
            if len(names) * len(meanings) > 1_000_000:
                self.refuse("group", f"groups by {', '.join(by)}", "there would be far too many")
            codes = codes * len(meanings) + code
            names = [[*each, meaning] for each in names for meaning in meanings]
        order = np.argsort(codes, kind="stable")
        found, start = np.unique(codes[order], return_index=True)
        if len(found) > MOST_GROUPS:
            self.refuse("group", f"groups by {', '.join(by)}", f"there would be more than {MOST_GROUPS:,}")
        return list(np.split(order, start[1:])), [names[code] for code in found.tolist()]

    def _pool(
        self,
        groups: list[Array],
        meanings: list[list[Any]],
        parts: Sequence[Part],
        thin: Callable[[Array], bool] | None = None,
    ) -> tuple[list[Array], list[list[Any]]]:
        """Pool groups until all that are left may be released, and settle that."""
        pooled = False
        more = 1  # groups that a pool takes in, so that it ends soon
        for _ in range(TRIES):
            wanted = [each for part in parts for each in part.wanted + self._windows(part, groups)]
            bad, rule = rules.broken(self.relation, groups, wanted, self.guard, self._values)
            if not bad and any(
                self._window(part, rows) is None for part in parts for rows in groups if _windowed(part)
            ):
                bad = {
                    g
                    for g, rows in enumerate(groups)
                    for part in parts
                    if _windowed(part) and self._window(part, rows) is None
                }
                rule = "size"
            if not bad and thin is not None and len(groups) > 1:
                bad, rule = {g for g, rows in enumerate(groups) if thin(rows)}, "levels"
            if not bad:
                bad, rule = self.settle(groups, wanted), "leverage"
            if not bad:
                break
            if len(groups) == 1:
                self.refuse(rule, self._named(parts))
            if len(bad) < 2 or rule == "leverage":
                rest = sorted((g for g in range(len(groups)) if g not in bad), key=lambda g: len(groups[g]))
                bad = bad | set(rest[:more])
                more *= 2
            rows = np.sort(np.concatenate([groups[g] for g in sorted(bad)]))
            meaning = [POOLED] * len(meanings[0])
            groups = [each for g, each in enumerate(groups) if g not in bad] + [rows]
            meanings = [each for g, each in enumerate(meanings) if g not in bad] + [meaning]
            pooled = True
        else:
            self.refuse("leverage", self._named(parts))
        if pooled:
            self.notes.append("groups too small, too uniform or too close to earlier ones are pooled")
        return groups, meanings

    def rule(self, groups: list[Array], wanted: list[Wanted]) -> str:
        """Which rule the sums would break; "" when none."""
        bad, rule = rules.broken(self.relation, groups, wanted, self.guard, self._values)
        if bad:
            return rule
        trial, _ = rules.charge(self.relation, groups, wanted, self.ledger, self._values)
        return "" if trial.fits else "leverage"

    def settle(self, groups: list[Array], wanted: list[Wanted]) -> set[int]:
        """Groups whose rows would be exposed; none: the release may be committed."""
        trial, owners = rules.charge(self.relation, groups, wanted, self.ledger, self._values)
        self.trial = trial if trial.fits else None
        if trial.fits:
            return set()
        found = {owners[i][g] for i in range(len(owners)) if trial.over[i].any() for g in trial.exposed(i)}
        return found or set(range(len(groups)))  # the row that would be exposed is the one that no group has

    def settle_or_refuse(self, groups: list[Array], wanted: list[Wanted], what: str) -> None:
        if self.settle(groups, wanted):
            self.refuse("leverage", what)

    def withhold(self, part: Part) -> None:
        if part.withheld in rules.DEPEND_ON_VALUES:
            self.depended += 1
        statistic = part.figure.statistic if part.figure else "count"
        why = rules.EXPLAINED[part.withheld].format(k=self.guard.k)
        self.notes.append(f"{statistic} of {part.name!r} is withheld (rule {part.withheld}): {why}")

    def _named(self, parts: Sequence[Part]) -> str:
        named = [f"{part.figure.statistic} of {part.name!r}" for part in parts if part.figure and part.figure.column]
        return ", ".join(dict.fromkeys(named)) or "these counts"

    def refuse(self, rule: str, what: str, why: str = "") -> NoReturn:
        """Raise Refused: which rule, on what, and what would be allowed."""
        member = self.relation.member
        because = why or rules.EXPLAINED[rule].format(k=self.guard.k)
        advice = rules.ADVICE.get(rule, "")
        raise Refused(f"{member} declined {what} (rule {rule}): {because}. {advice}".strip(), member=member, rule=rule)

    def rounded(self, value: float) -> float | None:
        return rounded(value, self.guard.digits)

    def answer(
        self, names: Sequence[str], index: list[list[Any]], columns: list[str], values: list[list[Any]]
    ) -> Answer:
        return Answer(list(names), index, columns, values, list(dict.fromkeys(self.notes)), rules.in_words(self.guard))


def _windowed(part: Part) -> bool:
    return part.figure is not None and part.figure.statistic == "quantile"


def rounded(value: float, digits: int) -> float | None:
    """To significant digits; None for what is no number."""
    return float(f"{value:.{digits - 1}e}") if math.isfinite(value) else None
