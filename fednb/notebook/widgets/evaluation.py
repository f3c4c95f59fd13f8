"""How well scores separate: ROC, KS, gains and calibration, with the figures that people quote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from fednb.federation.views import Calibration, Estimate, EvaluationView, Numbers
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import GRID, INK, MUTED, Card, write

HEAD = ("figure", "value", "low", "high")
PANEL, GAP, LEFT = 160, 38, 46  # pixels
SECOND = 218  # pixels to the second row of panels
LINE, OTHER = "#00639c", "#8f5a00"  # positives and the rest, also solid and dashed


class Curves(NamedTuple):
    """An ROC curve by share of all rows, highest scores first."""

    fpr: list[float]
    tpr: list[float]
    share: list[float]  # of rows; empty where the counts are not known

    @property
    def gap(self) -> int:
        """Where the two curves are furthest apart."""
        return max(range(len(self.fpr)), key=lambda i: abs(self.tpr[i] - self.fpr[i]))


def picture(view: EvaluationView, looks: Mapping[str, Look]) -> Card:
    """Headline figures, and a panel for each curve that was released."""
    title = f"Evaluation{' on ' + view.name if view.name else ''}"
    drawn = bool(view.roc) or bool(view.calibration)
    found = curves(view)
    more = found is not None and bool(found.share)
    card = Card(title, subtitle(view), height=(342 + SECOND * more if drawn else 115) / 100, alt=describe(view))
    figures(card, view, top=64)
    if drawn:
        panels(card, view, top=132)
    if found is not None and more:
        decisions(card, view, found, top=132 + SECOND)
    return card


def subtitle(view: EvaluationView) -> str:
    """Rows, base rate, and where the label is."""
    parts = [f"{view.rows:,} rows"] if view.rows else []
    if view.rows and view.positives:
        parts.append(f"{view.positives:,} positive ({100 * view.positives / view.rows:.1f} %)")
    parts += [f"label {view.label}"] if view.label else []
    parts += [f"computed at {view.member}; only these aggregates left it"] if view.member else []
    return " · ".join(parts)


def describe(view: EvaluationView) -> str:
    """The picture in words."""
    return f"{view.plain()}. Intervals are at {100 * view.level:g} %."


def rows(view: EvaluationView) -> list[list[str]]:
    """Cells under `HEAD`."""
    return [[name, *(_cell(v) for v in (e.value, e.low, e.high))] for name, e in _quoted(view)]


def figures(card: Card, view: EvaluationView, top: float) -> None:
    """AUC, KS, Gini, log loss and Brier score in large type, their intervals below."""
    for position, (name, estimate) in enumerate(_quoted(view)):
        x, beside = 16 + 164 * position, 16 + 164 * position + 52
        write(card, card.left(x), card.down(top + 8), name, size=8.5, color=MUTED)
        value = "not defined" if estimate.value is None else f"{estimate.value:.4f}"
        write(card, card.left(beside), card.down(top + 7), value, size=13, weight="bold")
        if estimate.low is not None and estimate.high is not None:
            interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
            write(card, card.left(beside), card.down(top + 26), interval, size=8, color=MUTED)


def panels(card: Card, view: EvaluationView, top: float) -> None:
    """ROC, KS, gains and calibration side by side, as far as they can be drawn."""
    found = curves(view)
    drawers: list[tuple[str, Callable[[Axes], None]]] = []
    if found:
        drawers.append(("ROC", lambda axes: draw_roc(axes, [("", found, LINE, "-")])))
        if found.share:
            drawers.append(("KS", lambda axes: draw_ks(axes, found, view.ks.value)))
            drawers.append(("Gains", lambda axes: draw_gains(axes, found)))
    if view.calibration:
        calibration = view.calibration
        drawers.append(("Calibration", lambda axes: draw_calibration(axes, calibration)))
    for position, (title, draw) in enumerate(drawers):
        draw(card.panel(LEFT + position * (PANEL + GAP), top, PANEL, PANEL, title))


def decisions(card: Card, view: EvaluationView, found: Curves, top: float) -> None:
    """What follows from a cut-off: lift, the bad rate of those approved, and precision with recall."""
    rate = view.positives / view.rows
    points = [(s, t) for s, t in zip(found.share, found.tpr, strict=True) if s > 0]
    above = [s for s, _ in points]
    drawers: list[tuple[str, Callable[[Axes], None]]] = [
        ("Lift", lambda axes: draw_lift(axes, above, [t / s for s, t in points])),
        ("Approved and bad rate", lambda axes: draw_approvals(axes, found, rate)),
        ("Precision and recall", lambda axes: draw_precision(axes, [t for _, t in points], above, rate)),
    ]
    for position, (title, draw) in enumerate(drawers):
        draw(card.panel(LEFT + position * (PANEL + GAP), top, PANEL, PANEL, title))


def curves(view: EvaluationView) -> Curves | None:
    """The released ROC points as plain numbers, in order; None where there are not even two."""
    if view.roc is None:
        return None
    points = sorted(pairs(view.roc.fpr, view.roc.tpr))
    if len(points) < 2:
        return None
    fpr, tpr = [x for x, _ in points], [y for _, y in points]
    negatives = view.rows - view.positives
    if view.positives <= 0 or negatives <= 0:
        return Curves(fpr, tpr, [])
    return Curves(fpr, tpr, [(view.positives * t + negatives * f) / view.rows for f, t in points])


def pairs(x: Numbers, y: Numbers) -> list[tuple[float, float]]:
    """The points of which both numbers are defined."""
    return [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]


def draw_roc(axes: Axes, lines: Sequence[tuple[str, Curves, str, str]]) -> None:
    """One ROC curve or several: name, curve, colour, line style."""
    _square(axes, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    for name, curve, colour, dash in lines:
        axes.plot(curve.fpr, curve.tpr, color=colour, linewidth=1.8, linestyle=dash, label=name)


def draw_ks(axes: Axes, curve: Curves, ks: float | None) -> None:
    """Share of positives and of the rest found, by share of rows; the largest gap is KS.

    ks : as computed on the rows; the released points of the curve alone give a little less.
    """
    _square(axes, "rows, highest scores first", "")
    axes.plot(curve.share, curve.tpr, color=LINE, linewidth=1.8)
    axes.plot(curve.share, curve.fpr, color=OTHER, linewidth=1.8, linestyle="--")
    at = curve.gap
    x, low, high = curve.share[at], curve.fpr[at], curve.tpr[at]
    axes.plot([x, x], [low, high], color=INK, linewidth=1.2)
    write(axes, x + 0.03, (low + high) / 2, f"{abs(high - low) if ks is None else ks:.3f}", size=8)
    write(axes, 0.97, 0.17, "— positive", size=7.5, color=LINE, ha="right")
    write(axes, 0.97, 0.07, "- - other", size=7.5, color=OTHER, ha="right")


def draw_gains(axes: Axes, curve: Curves) -> None:
    """Share of positives among the highest scores, with the share at 10, 20 and 30 % of rows."""
    _square(axes, "rows, highest scores first", "positives found")
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    axes.plot(curve.share, curve.tpr, color=LINE, linewidth=1.8)
    for share in (0.1, 0.2, 0.3):
        found = _interpolate(curve.share, curve.tpr, share)
        axes.plot([share], [found], marker="o", markersize=3.5, color=INK)
        write(axes, share + 0.05, found - 0.05, f"{100 * share:.0f} % → {100 * found:.0f} %", size=7.5)


def draw_lift(axes: Axes, share: Sequence[float], lift: Sequence[float]) -> None:
    """How many times as many positives as in a random share of rows."""
    _square(axes, "rows, highest scores first", "lift")
    axes.set_ylim(0, 1.1 * max([1.0, *lift]))
    axes.plot([0, 1], [1, 1], color=GRID, linewidth=1.2, zorder=1)
    axes.plot(share, lift, color=LINE, linewidth=1.8)


def draw_approvals(axes: Axes, curve: Curves, rate: float) -> None:
    """Share of positives among those approved, by how many are: who scores below a cut-off."""
    pairs = [(1 - s, (1 - t) * rate / (1 - s)) for s, t in zip(curve.share, curve.tpr, strict=True) if s < 1]
    _square(axes, "rows approved", "bad rate")
    axes.set_ylim(0, 1.15 * max([rate, *(bad for _, bad in pairs)]))
    axes.plot([0, 1], [rate, rate], color=GRID, linewidth=1.2, zorder=1)
    axes.plot([a for a, _ in pairs], [bad for _, bad in pairs], color=LINE, linewidth=1.8)


def draw_precision(axes: Axes, recall: Sequence[float], above: Sequence[float], rate: float) -> None:
    """Share of positives among those above a cut-off, by the share of all positives that is above."""
    _square(axes, "recall", "precision")
    axes.plot([0, 1], [rate, rate], color=GRID, linewidth=1.2, zorder=1)
    axes.plot(recall, [r * rate / s for r, s in zip(recall, above, strict=True)], color=LINE, linewidth=1.8)


def draw_calibration(axes: Axes, calibration: Calibration) -> None:
    """Observed against predicted rate; bubbles grow with the rows behind them."""
    points = pairs(calibration.predicted, calibration.observed)
    top = 1.08 * max([0.05, *(value for point in points for value in point)])
    _square(axes, "predicted", "observed", top=top)
    axes.plot([0, top], [0, top], color=GRID, linewidth=1.2, zorder=1)
    sizes: float | list[float] = 18
    if len(calibration.rows) == len(points) and max(calibration.rows, default=0) > 0:
        sizes = [8 + 40 * count / max(calibration.rows) for count in calibration.rows]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=sizes, color=LINE, alpha=0.85, linewidths=0)


def _quoted(view: EvaluationView) -> list[tuple[str, Estimate]]:
    known = [("AUC", view.auc), ("KS", view.ks), ("Gini", view.gini), ("log loss", view.log_loss)]
    known += [("Brier", view.brier)]
    return [(name, estimate) for name, estimate in known if estimate is not None]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _square(axes: Axes, x: str, y: str, top: float = 1.0) -> None:
    axes.set_xlim(0, top)
    axes.set_ylim(0, top * 1.01)
    axes.set_xlabel(x, fontsize=8, color=MUTED, labelpad=3)
    axes.set_ylabel(y, fontsize=8, color=MUTED, labelpad=3)
    axes.locator_params(nbins=3)


def _interpolate(xs: Sequence[float], ys: Sequence[float], at: float) -> float:
    for (x0, y0), (x1, y1) in zip(zip(xs, ys, strict=True), zip(xs[1:], ys[1:], strict=False), strict=False):
        if x0 <= at <= x1:
            return y0 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return ys[-1]
