"""Plans in words, for the audit log and receipts: what was asked, without its answer."""

from __future__ import annotations

from collections.abc import Iterator

from fednb.policy import plan as p

MOST = 400  # characters


def question(asked: p.Question) -> str:
    """One line: "mean of income by sex, from loans where age >= 30"."""
    if isinstance(asked, p.Aggregate):
        figures = [
            f"{f.statistic}{f' {f.q:g}' if f.q is not None else ''} of {f.column or 'rows'}" for f in asked.figures
        ]
        by = f" by {', '.join(asked.by)}" if asked.by else ""
        what = _short(figures) + by
    elif isinstance(asked, p.Count):
        what = f"counts of {' x '.join(asked.columns)}"
    elif isinstance(asked, p.Histogram):
        what = f"histogram of {asked.column}"
    elif isinstance(asked, p.Correlate):
        what = f"{'covariances' if asked.covariance else 'correlations'} of {_short(asked.columns)}"
    elif isinstance(asked, p.Regress):
        what = f"{asked.family} of {asked.y} on {_short(asked.x)}"
    else:
        what = f"table {asked.name} kept"
    return f"{what}, from {rows(asked.rows)}"[:MOST]


def rows(plan: p.Rows) -> str:
    if isinstance(plan, p.Table):
        return plan.name
    if isinstance(plan, p.Where):
        return f"{rows(plan.rows)} where {expression(plan.condition)}"
    if isinstance(plan, p.Columns):
        return rows(plan.rows)
    return f"{rows(plan.left)} joined with {rows(plan.right)} on {', '.join(plan.on)}"


def expression(x: p.Expr) -> str:
    if isinstance(x, p.Column):
        return x.name
    if isinstance(x, p.Literal_):
        return repr(x.value)
    if isinstance(x, p.Unary):
        return f"{x.op} {expression(x.x)}"
    if isinstance(x, p.Binary):
        return f"({expression(x.left)} {x.op} {expression(x.right)})"
    if isinstance(x, p.OneOf):
        return f"{expression(x.x)} in {_short([repr(value) for value in x.values])}"
    return f"{type(x).__name__.lower()}({expression(x.condition if isinstance(x, p.Choose) else x.x)}, ...)"


def tables(plan: p.Rows) -> Iterator[str]:
    """Names of the tables that rows come from."""
    if isinstance(plan, p.Table):
        yield plan.name
    elif isinstance(plan, p.Join):
        yield from tables(plan.left)
        yield from tables(plan.right)
    else:
        yield from tables(plan.rows)


def _short(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
