"""Released figures as the pandas objects that a data scientist expects, with what was withheld said beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fednb.policy import plan as p
from fednb.policy.answer import Answer

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Counter(Protocol):
    """Where questions are asked: the agent of a guarded party, over the kernel's pipe."""

    member: str

    def ask(self, question: p.Aggregate | p.Count | p.Histogram | p.Correlate | p.Regress) -> Answer: ...


def frame(counter: Counter, answer: Answer) -> pd.DataFrame:
    """The answer's table, with its notes in `attrs["notes"]` and on standard error."""
    import pandas as pd

    made = pd.DataFrame(answer.values, columns=answer.columns)
    for column in range(made.shape[1]):  # by place, since several may have one name; a withheld figure becomes NaN
        made.isetitem(column, pd.to_numeric(made.iloc[:, column]).to_numpy())
    if len(answer.index_names) > 1:
        made.index = pd.MultiIndex.from_tuples([tuple(each) for each in answer.index], names=answer.index_names)
    elif answer.index_names:
        made.index = pd.Index([each[0] for each in answer.index], name=answer.index_names[0] or None)
    made.attrs = {"notes": list(answer.notes), "rules": list(answer.rules)}
    for note in answer.notes:
        print(f"[{counter.member}] {note}", file=sys.stderr)
    return made


def aggregate(
    counter: Counter, rows: p.Rows, figures: Sequence[p.Figure], by: Sequence[str] = (), names: Sequence[Any] = ()
) -> pd.DataFrame:
    """One column for each figure, one row for each group."""
    import pandas as pd

    made = frame(counter, counter.ask(p.Aggregate(rows, list(figures), list(by))))
    if names:
        made.columns = pd.MultiIndex.from_tuples(names) if isinstance(names[0], tuple) else pd.Index(names)
    return made


def one(counter: Counter, rows: p.Rows, figure: p.Figure) -> Any:
    """A single figure."""
    value: Any = aggregate(counter, rows, [figure]).iloc[0, 0]
    return value.item() if hasattr(value, "item") else value


def describe(counter: Counter, rows: p.Rows, columns: Sequence[str]) -> pd.DataFrame:
    """Like pandas' `describe`, with 5% and 95% in place of the least and the largest value, which are single rows'."""
    figures = [
        figure
        for column in columns
        for figure in (
            p.Figure("count", column),
            p.Figure("mean", column),
            p.Figure("std", column),
            *(p.Figure("quantile", column, q) for q in QUANTILES),
        )
    ]
    flat = aggregate(counter, rows, figures)
    stats = ["count", "mean", "std", *(f"{q:.0%}" for q in QUANTILES)]
    import pandas as pd

    values = flat.to_numpy(dtype=float).reshape(len(columns), len(stats))
    made = pd.DataFrame(values.T, index=stats, columns=list(columns))
    made.attrs = flat.attrs
    return made


def histogram(counter: Counter, rows: p.Rows, column: str, bins: int) -> pd.DataFrame:
    """low, high (NaN at the open ends) and count of each bin; bins lie on the column's cut points."""
    made = frame(counter, counter.ask(p.Histogram(rows, column, bins)))
    return made.astype({"low": float, "high": float, "count": int})


def bars(table: pd.DataFrame, column: str) -> Any:
    """A histogram drawn from its released counts."""
    import pandas as pd

    names = [
        f"< {high:g}" if pd.isna(low) else f">= {low:g}" if pd.isna(high) else f"{low:g}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    drawn = pd.Series(table["count"].to_numpy(), index=names, name=column)
    return drawn.plot.bar(width=1.0, edgecolor="white", xlabel=column, ylabel="rows")


def counts(counter: Counter, rows: p.Rows, columns: Sequence[str], normalize: bool = False) -> pd.Series:
    """How many rows each combination has, the most frequent first."""
    table = frame(counter, counter.ask(p.Count(rows, list(columns))))
    made = table["count"]
    if normalize:
        made = (made / made.sum()).rename("proportion")
    made = made.sort_values(ascending=False, kind="stable")
    made.attrs = table.attrs
    return made
