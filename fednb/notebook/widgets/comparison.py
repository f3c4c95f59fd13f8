"""What the federation was for: one party alone, together without sharing, and on one joined table, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator

from fednb.federation.views import ComparisonView, Estimate, EvaluationView, Roc
from fednb.notebook.widgets.card import EDGE, INK, MUTED, Card, clip, names, write
from fednb.notebook.widgets.evaluation import curves, draw_roc
from fednb.notebook.widgets.model import log_scale

if TYPE_CHECKING:
    import pandas as pd

# One line a result; the middle of the story stands out, the joined table is what nobody could have.
STYLES = (
    ("#6b7280", "s", "--"),
    ("#0072b2", "o", "-"),
    ("#c27a00", "D", ":"),
    ("#009e73", "^", "-."),
    ("#b8578f", "v", "-"),
)
MARKS = {"s": "■", "o": "●", "D": "◆", "^": "▲", "v": "▼"}
ROW = 46  # pixels, where there is no curve beside that is taller
HEAD = ("result", "AUC", "low", "high", "KS", "low", "high")


def picture(view: ComparisonView) -> Card:
    """What a view of several models holds, in one figure."""
    return comparison(view.results, title=view.title, progress=view.curves, metric=view.curve)


def rows(view: ComparisonView) -> list[list[str]]:
    """Cells under `HEAD`."""
    return [
        [name, *(_cell(value) for e in (found.auc, found.ks) for value in (e.value, e.low, e.high))]
        for name, found in view.results.items()
    ]


def comparison(
    results: Mapping[str, Any],
    *,
    title: str = "",
    progress: Mapping[str, Sequence[float | None]] | None = None,
    metric: str = "",
) -> Card:
    """AUC and KS with their confidence intervals in one figure, with the ROC curves where they are known.

    Parameters
    ----------
    results : name to evaluation, in the order to show, such as {"bank only": ..., "federated": ..., "joined": ...}.
        An evaluation is an `EvaluationView`, an object whose `view()` gives one, or a mapping such as
        {"auc": 0.72, "ks": (0.35, 0.33, 0.37), "roc": {"fpr": [...], "tpr": [...]}}: a figure is a number or
        (value, low, high).
    progress : name to the values of `metric` by iteration, drawn where no ROC curve is known.

    Raises ValueError when there is nothing to compare.
    """
    views = _views(results)
    drawn = [(name, found) for name, view in views.items() if (found := curves(view))]
    steps = {} if drawn else {name: points for name, points in (progress or {}).items() if any(points)}
    body = max(ROW * len(views), 200 if drawn or steps else 0)
    height = 92 + body + 44
    card = Card(title or _headline(views), _subtitle(views), height=height / 100, alt=_words(views))
    width, start = (190, 106) if drawn or steps else (280, 120)
    _forest(card, {n: v.auc for n, v in views.items()}, "AUC", x=start, size=(width, body), labelled=True)
    ks = {n: v.ks for n, v in views.items()}
    _forest(card, ks, "KS", x=start + width + 40, size=(width, body), labelled=False)
    if drawn:
        axes = card.panel(start + 2 * width + 118, 92, 200, 200, "ROC")
        order = list(views)
        draw_roc(axes, [(n, c, _style(order.index(n))[0], _style(order.index(n))[2]) for n, c in drawn])
        for position, (name, _) in enumerate(drawn):
            colour, marker, _ = _style(order.index(name))
            y = 0.06 + 0.09 * (len(drawn) - 1 - position)
            write(axes, 0.97, y, f"{clip(name, 22)} {MARKS[marker]}", size=8, color=colour, ha="right")
    if steps:
        axes = card.panel(start + 2 * width + 118, 92, 200, 200, f"{clip(metric, 24)} by iteration")
        for name, points in steps.items():
            colour, _, dash = _style(list(views).index(name)) if name in views else _style(0)
            known = [(step, value) for step, value in enumerate(points, 1) if value is not None]
            axes.plot([x for x, _ in known], [y for _, y in known], color=colour, linestyle=dash, linewidth=1.6)
        log_scale(axes, [value for points in steps.values() for value in points if value is not None])
    return card


def comparison_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """The same figures as a DataFrame: one row a result; columns auc, auc_low, auc_high, ks, ks_low, ks_high."""
    import pandas as pd

    rows = {
        name: {
            f"{metric}{suffix}": value
            for metric, e in (("auc", view.auc), ("ks", view.ks))
            for suffix, value in (("", e.value), ("_low", e.low), ("_high", e.high))
        }
        for name, view in _views(results).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", dtype="float64")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _views(results: Mapping[str, Any]) -> dict[str, EvaluationView]:
    if not results:
        raise ValueError("there is nothing to compare: give a mapping of name to evaluation.")
    return {str(name).replace("_", " "): _view(name, result) for name, result in results.items()}


def _view(name: str, result: Any) -> EvaluationView:
    view = result.view() if callable(getattr(result, "view", None)) else result
    if isinstance(view, EvaluationView):
        return view
    if not isinstance(view, Mapping) or "auc" not in view or "ks" not in view:
        raise ValueError(f"{name!r} is {type(result).__name__}, not an evaluation or a mapping with 'auc' and 'ks'.")
    roc = view.get("roc")
    return EvaluationView(
        auc=_estimate(view["auc"]),
        ks=_estimate(view["ks"]),
        roc=None if roc is None else Roc(fpr=[float(x) for x in roc["fpr"]], tpr=[float(y) for y in roc["tpr"]]),
        rows=int(view.get("rows", 0)),
        positives=int(view.get("positives", 0)),
    )


def _estimate(figure: Any) -> Estimate:
    if isinstance(figure, Estimate):
        return figure
    if isinstance(figure, Mapping):
        return Estimate(**{key: float(figure[key]) for key in ("value", "low", "high") if figure.get(key) is not None})
    if isinstance(figure, tuple | list):
        value, low, high = figure
        return Estimate(value=float(value), low=float(low), high=float(high))
    return Estimate(value=float(figure))


def _style(position: int) -> tuple[str, str, str]:
    return STYLES[position % len(STYLES)]


def _headline(views: Mapping[str, EvaluationView]) -> str:
    return "AUC: " + " · ".join(
        f"{name} {view.auc.value:.3f}" for name, view in views.items() if view.auc.value is not None
    )


def _subtitle(views: Mapping[str, EvaluationView]) -> str:
    counts = {view.rows for view in views.values() if view.rows}
    some = any(e.low is not None for view in views.values() for e in (view.auc, view.ks))
    parts = [f"on {counts.pop():,} rows that no model was fitted on"] if len(counts) == 1 else []
    level = next(iter(views.values())).level
    return " · ".join(["AUC and KS", *parts, *([f"bars: {100 * level:g} % confidence intervals"] if some else [])])


def _words(views: Mapping[str, EvaluationView]) -> str:
    return "; ".join(f"{name}: AUC {view.auc.text()}, KS {view.ks.text()}" for name, view in views.items())


def _forest(
    card: Card, estimates: Mapping[str, Estimate], title: str, *, x: float, size: tuple[float, float], labelled: bool
) -> None:
    """A dot and its interval for each result; the figure itself beside it, so nobody has to read it off an axis."""
    axes = card.panel(x, 92, *size, title)
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.xaxis.grid(visible=True)
    for position, estimate in enumerate(estimates.values()):
        colour, marker, _ = _style(position)
        if estimate.value is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            axes.plot(
                [estimate.low, estimate.high], [position, position], color=colour, linewidth=2, solid_capstyle="butt"
            )
        axes.plot([estimate.value], [position], marker=marker, markersize=7, color=colour, markeredgecolor="white")
        write(
            axes,
            estimate.value,
            position - 14 * len(estimates) / size[1],
            f"{estimate.value:.4f}",
            size=8.5,
            ha="center",
            weight="bold",
        )
        if estimate.low is not None and estimate.high is not None:
            interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
            write(
                axes,
                estimate.value,
                position + 14 * len(estimates) / size[1],
                interval,
                size=7,
                color=MUTED,
                ha="center",
            )
    low, high = axes.get_xlim()
    room = 0.22 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    names(axes, range(len(estimates)), [clip(name, 16) for name in estimates] if labelled else [""] * len(estimates))
    axes.spines["bottom"].set_color(EDGE)
    axes.tick_params(axis="y", labelcolor=INK)
