"""Correlations and small regressions, released as coefficients.

The normal equations are sums of products, so a fit is charged to the ledger like them: X'y is one linear functional
of y for each column of X, with that column as weights, and the same the other way round. A fit with nearly as many
coefficients as rows would give the rows away; a row that decides its own fitted value gives itself away.
"""

from __future__ import annotations

import itertools

import numpy as np

from fednb.policy import plan as p
from fednb.policy import rules
from fednb.policy.answer import Answer
from fednb.policy.release import Part, Releaser
from fednb.policy.rules import Wanted
from fednb.policy.shapes import Array, Bare, Linear, Private, linear, single, times

MOST_SHARE = 0.05  # coefficients for each row
MOST_COEFFICIENTS = 40
MOST_HAT = 0.5  # of one row's own part in its fitted value
NEWTON = 50


def correlate(release: Releaser, question: p.Correlate) -> Answer:
    """Pearson correlations, or covariances, over the rows where every column has a value."""
    relation, names = release.relation, question.columns
    shapes = [_numbers(release, name) for name in names]
    values = np.column_stack([relation.numbers(shape) for shape in shapes])
    inside = ~np.isnan(values).any(axis=1)
    everything = [np.arange(relation.n)]

    def sums(i: int, j: int) -> list[Wanted]:
        product = times(shapes[i], shapes[j], most=4)
        if not isinstance(product, Linear):
            release.refuse(
                "column", f"a correlation of {names[i]!r} and {names[j]!r}", "it multiplies too many columns"
            )
        return rules.sums_of(product, relation.n, inside)

    parts = []
    held: dict[tuple[int, int], str] = {}
    for i, j in itertools.combinations_with_replacement(range(len(names)), 2):
        part = Part(
            f"{names[i]}, {names[j]}", sums(i, j) + (rules.sums_of(shapes[i], relation.n, inside) if i == j else [])
        )
        rule = release.rule(everything, part.wanted)
        if rule:
            held[i, j] = rule
        else:
            parts.append(part)
    alone = {i for i, j in held if i == j}
    for i, j in itertools.combinations(range(len(names)), 2):
        if alone & {i, j}:
            held.setdefault((i, j), held.get((i, i), "") or held.get((j, j), ""))
    if not any(i != j and (i, j) not in held for i, j in itertools.combinations(range(len(names)), 2)):
        release.refuse(next(iter(held.values()), "size"), f"correlations of {', '.join(names)}")
    for (i, j), rule in held.items():
        release.withhold(Part(f"{names[i]}, {names[j]}", withheld=rule))
    release.settle_or_refuse(
        everything, [w for part in parts for w in part.wanted], f"correlations of {', '.join(names)}"
    )
    used = values[inside]
    with np.errstate(all="ignore"):
        matrix = np.atleast_2d(np.cov(used, rowvar=False) if question.covariance else np.corrcoef(used, rowvar=False))
    table: list[list[int | float | str | None]] = [
        [None if (min(i, j), max(i, j)) in held else release.rounded(float(matrix[i, j])) for j in range(len(names))]
        for i in range(len(names))
    ]
    return release.answer([""], [[name] for name in names], list(names), table)


def regress(release: Releaser, question: p.Regress) -> Answer:
    """Coefficients with standard errors. `logit` maximises the likelihood by Newton's method."""
    relation = release.relation
    what = f"a regression of {question.y!r} on {', '.join(question.x)}"
    columns = [("const", Linear({}, np.float64(1.0)))]  # type: ignore[arg-type]
    for name in dict.fromkeys(question.x):
        columns += _design(release, name)
    target = _numbers(release, question.y)
    shapes = [target, *(shape for _, shape in columns)]
    values = np.column_stack([relation.numbers(shape) for shape in shapes])
    inside = ~np.isnan(values).any(axis=1)
    y, X = values[inside, 0], values[inside, 1:]
    n, count = X.shape
    if count > MOST_COEFFICIENTS or count > MOST_SHARE * n or n - count < release.guard.k:
        release.refuse(
            "regression", what, f"{count} coefficients are too many; one needs at least {1 / MOST_SHARE:.0f} rows"
        )
    wanted = []
    for shape in shapes:  # every column of the fit by itself
        wanted += [w for w in rules.sums_of(shape, relation.n, inside) if w.term]
    square = times(target, target, most=4)
    if isinstance(square, Linear):
        wanted += [
            Wanted(w.term, w.weights, checked=False) for w in rules.sums_of(square, relation.n, inside) if w.term
        ]
    everything = [np.arange(relation.n)]
    rule = release.rule(everything, wanted)
    if rule:
        release.refuse(rule, what)
    _check_fit(release, X, what)
    for (j, shape), other in itertools.product(enumerate(shapes), range(len(shapes))):
        if other not in (j, 1):  # 1: the constant, whose products are the sums above
            weights = np.where(inside, np.nan_to_num(values[:, other]), 0.0)
            wanted += [
                Wanted(term, np.where(inside, weight, 0.0) * weights, checked=False)
                for term, weight in shape.weights.items()
            ]
    release.settle_or_refuse(everything, wanted, what)
    if question.family == "ols":
        beta, error, more = _ols(X, y)
    else:
        beta, error, more = _logit(release, X, y, what)
    if more:
        release.notes.append(
            f"R² {release.rounded(more):g}, {n} rows" if release.rounded(more) is not None else f"{n} rows"
        )
    else:
        release.notes.append(f"{n} rows")
    table: list[list[int | float | str | None]] = [
        [release.rounded(float(b)), release.rounded(float(e)), release.rounded(float(b / e))]
        for b, e in zip(beta, error, strict=True)
    ]
    kind = "t" if question.family == "ols" else "z"
    return release.answer([""], [[name] for name, _ in columns], ["coef", "std err", kind], table)


def _numbers(release: Releaser, name: str) -> Linear:
    made = linear(release.relation.shape(name))
    if isinstance(made, Private):
        release.refuse("column", f"{name!r} in a fit", made.why)
    return made


def _design(release: Releaser, name: str) -> list[tuple[str, Linear]]:
    """A number as it is; a category as one dummy for each level but the first."""
    shape = release.relation.shape(name)
    if not (isinstance(shape, Bare) and shape.spec.kind == "category" and shape.spec.role != "id"):
        return [(name, _numbers(release, name))]
    made = []
    for level in shape.spec.levels[1:]:
        made.append((f"{name}[{level}]", single("level", shape, level)))
    if not made:
        release.refuse("column", f"{name!r} in a fit", "it has no two levels with enough rows")
    return made


def _check_fit(release: Releaser, X: Array, what: str) -> None:
    scale = np.linalg.norm(X, axis=0)
    q, r = np.linalg.qr(X / np.where(scale > 0, scale, 1.0))
    diagonal = np.abs(np.diag(r))
    if diagonal.min() < 1e-8 * diagonal.max():
        release.refuse("regression", what, "its columns depend on each other; leave one out")
    if (q**2).sum(axis=1).max() > MOST_HAT:
        release.refuse(
            "regression", what, "some row would decide its own fitted value; take logarithms, or fewer columns"
        )


def _ols(X: Array, y: Array) -> tuple[Array, Array, float]:
    q, r = np.linalg.qr(X)
    beta = np.linalg.solve(r, q.T @ y)
    residual = y - X @ beta
    variance = residual @ residual / (len(y) - X.shape[1])
    inverse = np.linalg.inv(r)
    error = np.sqrt(variance * (inverse**2).sum(axis=1))
    return beta, error, float(1 - residual @ residual / ((y - y.mean()) ** 2).sum())


def _logit(release: Releaser, X: Array, y: Array, what: str) -> tuple[Array, Array, float]:
    if not np.isin(y, (0.0, 1.0)).all():
        release.refuse("regression", what, "a logistic regression needs a target of 0 and 1")
    scale = np.linalg.norm(X, axis=0) / np.sqrt(len(y))
    Z = X / scale
    beta = np.zeros(X.shape[1])
    hessian = np.eye(X.shape[1])
    for _ in range(NEWTON):
        fitted = 1 / (1 + np.exp(-np.clip(Z @ beta, -35, 35)))
        hessian = (Z * (fitted * (1 - fitted))[:, None]).T @ Z
        if np.linalg.cond(hessian) > 1e10 or np.abs(beta).max() > 50:
            release.refuse("regression", what, "the target can be told from the columns without error, or nearly so")
        step = np.linalg.solve(hessian, Z.T @ (y - fitted))
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        release.refuse("regression", what, "it does not converge")
    return beta / scale, np.sqrt(np.diag(np.linalg.inv(hessian))) / scale, 0.0
