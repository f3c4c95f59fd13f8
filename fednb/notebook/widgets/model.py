"""A fitted model: its coefficients by party, how it was fitted, and how well it does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fednb.federation.progress import format_bytes, format_seconds
from fednb.federation.views import Coefficients, ModelView, Number, format_number
from fednb.notebook.palette import Look
from fednb.notebook.widgets import evaluation
from fednb.notebook.widgets.card import BAD, EDGE, INK, MUTED, Card, clip, names, write

HEAD = ("party", "feature", "coefficient")
MOST = 20  # bars of one party; the table has all
ROW, CLOSED = 17, 44  # pixels: a coefficient; a party that withholds its own
WITHHELD = "private to this party"


def picture(view: ModelView, looks: Mapping[str, Look]) -> Card:
    """Coefficients on the left, the way to the optimum on the right, curves below once evaluated."""
    heights = [_height(part) for part in view.parts]
    body = max(120, sum(heights) + 24)
    below = 214 if view.evaluation and (view.evaluation.roc or view.evaluation.calibration) else 0
    quoted = 76 if view.evaluation else 0
    noted = 18 * min(3, len(view.notes))
    height = 64 + body + noted + quoted + below + 26
    card = Card(
        view.title + (f" for {view.label}" if view.label else ""),
        subtitle(view),
        height=height / 100,
        alt=describe(view),
    )
    _coefficients(card, view, looks, heights, top=64)
    _fit(card, view, top=64, height=body - 52)
    top = 64.0 + body + 10
    for note in view.notes[:3]:
        write(card, card.left(16), card.down(top), "Note: " + clip(note, 120), color=BAD, size=8.5)
        top += 18
    if view.evaluation:
        name = f"Evaluation on {view.evaluation.name or 'held-out rows'} · {evaluation.subtitle(view.evaluation)}"
        write(card, card.left(16), card.down(top + 8), clip(name, 130), size=9, color=MUTED)
        evaluation.figures(card, view.evaluation, top=top + 28)
        if below:
            evaluation.panels(card, view.evaluation, top=top + 96)
    return card


def subtitle(view: ModelView) -> str:
    """Rows, iterations, seconds, bytes and operations."""
    parts = [f"{view.rows:,} rows"] if view.rows else []
    if view.iterations:
        ended = {True: ", converged", False: ", not converged", None: ""}[view.converged]
        parts.append(f"{view.iterations} iterations{ended}")
    parts += [format_seconds(view.seconds)] if view.seconds is not None else []
    parts += [f"{format_bytes(view.bytes)} between members"] if view.bytes else []
    count = sum(view.operations.values())
    parts += [f"{count:,} operations on ciphertexts"] if count else []
    return " · ".join(parts)


def describe(view: ModelView) -> str:
    """The picture in words."""
    parts = [f"{view.title}{' for ' + view.label if view.label else ''}"]
    for part in view.parts:
        known = "withheld" if part.values is None else "shown"
        parts.append(f"{part.member}: {len(part.columns)} coefficients {known}")
    parts += [evaluation.describe(view.evaluation)] if view.evaluation else []
    return "; ".join(parts)


def rows(view: ModelView) -> list[list[str]]:
    """Cells under `HEAD`, one line a feature."""
    lines = [["", "intercept", format_number(view.intercept)]] if view.intercept is not None else []
    for part in view.parts:
        if part.values is None:
            reason = f"withheld: {part.withheld or WITHHELD}"
            lines += [[part.member, column, reason] for column in part.columns]
        else:
            lines += [[part.member, c, format_number(v)] for c, v in zip(part.columns, part.values, strict=True)]
    return lines


def _height(part: Coefficients) -> float:
    if part.values is None:
        return 26 + CLOSED
    return 26 + ROW * max(1, min(MOST, len(part.columns))) + (14 if len(part.columns) > MOST else 0)


def _coefficients(card: Card, view: ModelView, looks: Mapping[str, Look], heights: list[float], top: float) -> None:
    """One block a party, all on one scale."""
    shown = [abs(v) for part in view.parts for v in part.values or [] if v is not None]
    reach = 1.12 * max([1e-9, *shown])
    for part, height in zip(view.parts, heights, strict=True):
        look = looks.get(part.member) or looks["coordinator"]
        heading = f"{look.mark} {clip(part.member, 30)} · {len(part.columns)} coefficients"
        write(card, card.left(16), card.down(top + 9), heading, color=look.ink, weight="bold")
        if part.values is None:
            _withheld(card, part, look, top + 22)
        else:
            largest = sorted(zip(part.columns, part.values, strict=True), key=lambda cv: -abs(cv[1] or 0.0))
            axes = card.panel(150, top + 20, 270, ROW * max(1, min(MOST, len(largest))))
            _bars(axes, largest[:MOST], look, reach)
            if len(largest) > MOST:
                more = f"{len(largest) - MOST} smaller ones in the table below"
                write(card, card.left(150), card.down(top + height - 10), more, size=7.5, color=MUTED)
        top += height


def _bars(axes: Axes, pairs: list[tuple[str, Number]], look: Look, reach: float) -> None:
    axes.set_xlim(-reach, reach)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=EDGE, linewidth=1)
    values = [value or 0.0 for _, value in pairs]
    axes.barh(range(len(pairs)), values, height=0.62, color=look.fill, hatch=look.hatch, edgecolor="white", linewidth=0)
    names(axes, range(len(pairs)), [clip(column, 22) for column, _ in pairs], size=8)
    for position, (_, value) in enumerate(pairs):
        at, side = (0.02 * reach, "left") if (value or 0.0) < 0 else (-0.02 * reach, "right")
        write(axes, at, position, format_number(value), size=7.5, color=MUTED, ha=side)


def _withheld(card: Card, part: Coefficients, look: Look, top: float) -> None:
    """A closed box with the reason: an empty space would read as zero."""
    box = (card.left(30), card.down(top + CLOSED - 8))
    size = (card.left(390), card.left(1) * card.get_figwidth() / card.get_figheight() * (CLOSED - 8))
    card.add_artist(
        Rectangle(box, *size, facecolor="#f4f6f8", edgecolor=look.fill, hatch="//", linewidth=0.0, alpha=0.5)
    )
    card.add_artist(Rectangle(box, *size, fill=False, edgecolor=look.fill, linewidth=1.0, linestyle="--"))
    columns = clip(", ".join(part.columns), 62)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    write(
        card,
        card.left(40),
        card.down(top + 11),
        f"withheld: {clip(part.withheld or WITHHELD, 58)}",
        size=8.5,
        color=INK,
        bbox=behind,
    )
    write(card, card.left(40), card.down(top + 26), columns, size=7.5, color=MUTED, bbox=behind)


def _fit(card: Card, view: ModelView, top: float, height: float) -> None:
    """The metric that fell while training, and what it was asked to do."""
    metric = next((name for name in ("loss", "gradient_norm", *view.history) if view.history.get(name)), None)
    height = min(height, 150)
    if metric:
        points = [(step, v) for step, v in enumerate(view.history[metric], 1) if v is not None]
        axes = card.panel(500, top + 20, 300, height, metric.replace("_", " ") + " by iteration")
        axes.plot(
            [x for x, _ in points], [y for _, y in points], color="#00639c", linewidth=1.8, marker="o", markersize=2.5
        )
        log_scale(axes, [y for _, y in points])
    at = top + 46 + height if metric else top + 10
    if view.intercept is not None:
        write(card, card.left(500), card.down(at), f"intercept {format_number(view.intercept)}", size=8, color=INK)
        at += 15
    given = ", ".join(f"{clip(name, 20)}={clip(str(value), 20)}" for name, value in view.params.items())
    if given:
        for line in textwrap.wrap(given, 58, max_lines=3, placeholder=" …"):
            write(card, card.left(500), card.down(at), line, size=7.5, color=MUTED)
            at += 14


def log_scale(axes: Axes, values: list[float]) -> None:
    """A logarithmic scale where a linear one would hide the end of the way."""
    if values and min(values) > 0 and max(values) > 50 * min(values):
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # not TeX, unlike the default
    else:
        axes.locator_params(axis="y", nbins=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
