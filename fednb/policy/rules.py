"""The rules under which a figure over a set of rows may leave. None of them says a value, or how far it was off.

    size          at least k ids in the set, and none or at least k outside it
    contributors  at least k ids differ from the most common value: of "nobody defaulted" everyone's value is known
    levels        the same for each level of a category
    dominance     p% rule and n-k rule: the second largest must not know the largest's part
    leverage      with everything released before, no row's value is pinned (`ledger`)

Groups that would break one are pooled with others and never blanked: what is blank can be had by subtraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fednb.config import GuardConfig
from fednb.policy.ledger import Account, Charge, Ledger, Trial, vectors
from fednb.policy.leverage import Vectors
from fednb.policy.rows import Relation, Source, applied
from fednb.policy.shapes import Array, Factor, Linear, Term

ROWS = "(rows)"  # the ledger's column for how many there are
DEPEND_ON_VALUES = ("contributors", "levels", "dominance", "valid", "regression")

EXPLAINED = {
    "size": "some set of rows, or all others without it, would have fewer than {k} ids",
    "valid": "fewer than {k} ids in the set have a value",
    "contributors": "fewer than {k} ids in the set differ from the most common value",
    "levels": "some level would have fewer than {k} ids in the set",
    "dominance": "one or two ids have most of the sum",
    "leverage": "together with what was released before, it would single out one row or a few",
}
ADVICE = {
    "size": "Use fewer or larger groups, or filter less.",
    "valid": "Use larger groups, or another column.",
    "contributors": "Use larger groups, or another column.",
    "levels": "Use larger groups, or compare fewer levels.",
    "dominance": "Take logarithms (log1p), clip the column at a cut point, or use larger groups.",
    "leverage": "Ask again for groups that were released before, or for ones that differ from them by more rows.",
}


def in_words(guard: GuardConfig) -> list[str]:
    """The rules that figures stand under, for receipts."""
    return [
        f"size >= {guard.k}",
        f"contributors >= {guard.k}",
        f"dominance p={guard.p_percent:g}% n-k={guard.largest_two:g}%",
        f"leverage <= {guard.leverage:g}",
        f"{guard.digits} digits",
    ]


def ids(source: Source, rows: Array) -> int:
    """How many different ids of a source stand in some rows."""
    found = source.entity[rows] if source.distinct else np.unique(source.entity[rows])
    return int((found >= 0).sum())


def sizes_hold(relation: Relation, rows: Array, k: int) -> bool:
    """Of every table that the rows come from."""
    for source in relation.sources:
        inside = ids(source, rows)
        outside = source.table.ids_count - inside
        if inside < k or 0 < outside < k:
            return False
    return True


def enough(relation: Relation, rows: Array, k: int) -> bool:
    """Whether rows stand for at least k ids of every table."""
    return all(ids(source, rows) >= k for source in relation.sources)


def contributors_hold(source: Source, rows: Array, values: Array, k: int) -> bool:
    """Whether at least k ids have another value than the most common one."""
    different, code, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(different) < 2:
        return False
    return ids(source, rows[code != int(count.argmax())]) >= k


def levels_hold(relation: Relation, rows: Array, factor: Factor, k: int) -> bool:
    source = relation.sources[factor.source]
    series = source.series(factor.column).take(rows).to_numpy(dtype=object)
    levels = source.table.specs[factor.column].levels
    return all(ids(source, rows[series == level]) >= k for level in levels)


def dominance_holds(source: Source, rows: Array, values: Array, guard: GuardConfig) -> bool:
    """The p% rule and the n-k rule on what each id adds to the sum, in absolute terms."""
    parts = np.abs(values)
    if not source.distinct:
        _, code = np.unique(source.entity[rows], return_inverse=True)
        parts = np.bincount(code, weights=parts)
    total = float(parts.sum())
    if total <= 0 or len(parts) < 3:
        return total <= 0
    second, largest = np.partition(parts, len(parts) - 2)[-2:]
    rest = total - float(largest) - float(second)
    return rest >= guard.p_percent / 100 * float(largest) and total - rest <= guard.largest_two / 100 * total


class Wanted:
    """A sum over each group that an answer is made of: one term with its weights, on the rows where it has a value."""

    def __init__(self, term: Term, weights: Array, checked: bool = True) -> None:
        self.term = term
        self.weights = weights  # [n] over the relation's rows; 0: not in it
        self.checked = checked  # False: only its leverage counts


def broken(
    relation: Relation, groups: Sequence[Array], wanted: Sequence[Wanted], guard: GuardConfig, values: dict[Term, Array]
) -> tuple[set[int], str]:
    """Groups that break a rule other than leverage, and which rule, the first in order. `values` is a cache."""
    bad = {g for g, rows in enumerate(groups) if not sizes_hold(relation, rows, guard.k)}
    if bad:
        return bad, "size"
    found: dict[str, set[int]] = {}
    for each in wanted:
        if not each.checked:
            continue
        value = values.setdefault(each.term, relation.term(each.term))
        for g, rows in enumerate(groups):
            used = rows[each.weights[rows] != 0]
            used = used[~np.isnan(value[used])]
            rule = _breaks(relation, used, each.term, each.weights[used] * value[used], guard)
            if rule:
                found.setdefault(rule, set()).add(g)
    for rule in ("valid", "levels", "contributors", "dominance"):
        if rule in found:
            return found[rule], rule
    return set(), ""


def _breaks(relation: Relation, used: Array, term: Term, values: Array, guard: GuardConfig) -> str:
    if not enough(relation, used, guard.k):
        return "valid"
    if not term:
        return ""  # a number of rows: which ones they are, keys say
    for factor in term:
        if factor.function == "level" and not levels_hold(relation, used, factor, guard.k):
            return "levels"
    for source in (relation.sources[number] for number in {factor.source for factor in term}):
        if not contributors_hold(source, used, values, guard.k):
            return "contributors"
        if not dominance_holds(source, used, values, guard):
            return "dominance"
    return ""


def accounts(relation: Relation, term: Term) -> list[tuple[Source, Account]]:
    """Which accounts a sum of this term is charged to: one for each column in it, by row and by id."""
    if not term:
        return [(source, Account(ROWS, "", unit)) for source in relation.sources for unit in source.table.units]
    named = [(relation.sources[f.source], relation.sources[f.source].table.account(f.column), f) for f in term]
    function = " * ".join(sorted(f"{factor.label} of {column}" for _, column, factor in named))
    found = []
    for source, column, _ in dict.fromkeys((s, c, "") for s, c, _ in named):
        found += [(source, Account(column, function, unit)) for unit in source.table.units]
    return list(dict.fromkeys(found))


def charge(
    relation: Relation,
    groups: Sequence[Array],
    wanted: Sequence[Wanted],
    ledger: Ledger,
    values: dict[Term, Array],
) -> tuple[Trial, list[list[int]]]:
    """What the sums would do to the ledger, and of each charge which group each of its vectors belongs to."""
    sums: dict[tuple[int, Account], list[tuple[int, Array, Array]]] = {}
    sources: dict[int, Source] = {}
    terms: dict[tuple[int, Account], Term] = {}
    for each in wanted:
        value = values.setdefault(each.term, relation.term(each.term))
        for source, account in accounts(relation, each.term):
            sources[id(source)] = source
            terms[id(source), account] = each.term
            positions = source.positions(account.unit)
            for g, rows in enumerate(groups):
                used = rows[(each.weights[rows] != 0) & ~np.isnan(value[rows])]
                sums.setdefault((id(source), account), []).append((g, positions[used], each.weights[used]))
    charges: list[Charge] = []
    owners: list[list[int]] = []
    merged: dict[Account, int] = {}
    for (source_id, account), parts in sums.items():
        source = sources[source_id]
        made = vectors([(positions, weights) for _, positions, weights in parts], ledger.size)
        if account in merged:  # a table joined with itself
            at = merged[account]
            charges[at] = charges[at]._replace(vectors=_stacked(charges[at].vectors, made))
            owners[at] += [g for g, _, _ in parts]
            continue
        merged[account] = len(charges)
        known = source.table.units[account.unit][has_value(relation, source, terms[source_id, account])]
        total = vectors([(known, np.ones(len(known)))], ledger.size)
        charges.append(Charge(account, made, total))
        owners.append([g for g, _, _ in parts])
    return ledger.trial(charges), owners


def has_value(relation: Relation, source: Source, term: Term) -> Array:
    """[rows of the source's table] where the factors of a term that lie in it have a value."""
    there = np.ones(len(source.table.frame), dtype=bool)
    for factor in term:
        if relation.sources[factor.source] is source:
            there &= ~np.isnan(applied(source.table.frame[factor.column], factor))
    return there


def _stacked(a: Vectors, b: Vectors) -> Vectors:
    from scipy import sparse

    return sparse.csr_array(sparse.vstack([a, b], format="csr"))


def sums_of(shape: Linear, n: int, inside: Array) -> list[Wanted]:
    """The sums behind a sum of `shape` over rows `inside` [n] (where it has a value)."""
    made = [Wanted(term, np.where(inside, weight, 0.0)) for term, weight in shape.weights.items()]
    if np.any(shape.constant != 0):
        made.append(Wanted((), np.where(inside, shape.constant, 0.0), checked=bool(np.ndim(shape.constant))))
    return made
