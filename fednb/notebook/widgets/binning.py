"""Binned features: how much each tells, and the bins of those that tell most."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes

from fednb.federation.views import BinnedFeature, BinningView
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import BAD, EDGE, MUTED, Card, clip, names, write

HEAD = ("feature", "bin", "holds", "cells", "rows", "positives", "rate", "WOE", "IV")
MOST = 16  # bars; the table has all
ROW = 19  # pixels of a bar
BEST = 4  # features whose bins are drawn
RATE = "#8f5a00"  # the line; bars have the colour of their party


def picture(view: BinningView, looks: Mapping[str, Look]) -> Card:
    """Information by feature on the left, the bins of the best on the right."""
    body = max(310 if len(view.features) > 2 else 160, ROW * min(MOST, max(1, len(view.features))) + 16)
    noted = 18 * min(2, len(view.notes))
    card = Card("Weight of evidence", subtitle(view), height=(72 + body + noted + 26) / 100, alt=describe(view))
    _ranking(card, view, looks, top=72)
    for k, feature in enumerate([f for f in view.features if f.rows][:BEST]):
        x, y = 452 + 190 * (k % 2), 92 + 160 * (k // 2)
        title = f"{clip(feature.name, 18)} {feature.information:.2f}"
        _bins(card.panel(x, y, 150, 96, title), feature, looks)
    if view.features:
        what = "line: rate of positives; bars: share of rows"
        write(card, card.left(452), card.down(54), what, size=8, color=MUTED)
    for k, note in enumerate(view.notes[:2]):
        write(card, card.left(16), card.down(80 + body + 18 * k), "Note: " + clip(note, 120), color=BAD, size=8.5)
    return card


def subtitle(view: BinningView) -> str:
    """Rows, features, and how many are left out."""
    out = sum(bool(feature.dropped) for feature in view.features)
    parts = [f"{view.rows:,} rows", f"{len(view.features)} features", f"label {view.label}"]
    return " · ".join([*parts, *([f"{out} left out"] if out else [])])


def describe(view: BinningView) -> str:
    """The picture in words."""
    best = ", ".join(f"{f.name} {f.information:.4f}" for f in view.features[:5])
    return f"Weight of evidence for {view.label}, {view.rows:,} rows. Information values: {best or 'none'}."


def rows(view: BinningView) -> list[list[str]]:
    """Cells under `HEAD`, a line a bin."""
    return [
        [
            f.name,
            str(b),
            f.holds[b],
            f"{f.cells[b]:,}",
            f"{f.rows[b]:,}",
            f"{f.positives[b]:,}",
            f"{f.positives[b] / max(f.rows[b], 1):.4f}",
            f"{f.woe[b] or 0.0:.4f}",
            f"{f.iv[b] or 0.0:.4f}",
        ]
        for f in view.features
        for b in range(len(f.rows))
    ]


def _ranking(card: Card, view: BinningView, looks: Mapping[str, Look], top: float) -> None:
    """One bar a feature, as long as its information value; pale where it is left out."""
    best = view.features[:MOST]
    if not best:
        write(card, card.left(30), card.down(top + 18), "no feature was binned", color=MUTED)
        return
    axes = card.panel(150, top + 20, 240, ROW * len(best), "information value, nats")
    reach = 1.3 * max(f.information for f in best) or 1.0
    axes.set_xlim(0, reach)
    axes.set_ylim(len(best) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for k, feature in enumerate(best):
        look = looks.get(feature.party) or looks["coordinator"]
        pale = 0.35 if feature.dropped else 1.0
        axes.barh(
            k, feature.information, height=0.62, color=look.fill, alpha=pale, hatch=look.hatch, edgecolor="white", lw=0
        )
        left_out = " left out" if feature.dropped else ""
        text = f"{feature.information:.4f}{left_out}"
        write(axes, feature.information + 0.015 * reach, k, text, size=7.5, color=MUTED)
    names(axes, range(len(best)), [clip(f.name, 24) for f in best], size=8)


def _bins(axes: Axes, feature: BinnedFeature, looks: Mapping[str, Look]) -> None:
    """Share of the rows as bars, rate of positives as a line over them."""
    look = looks.get(feature.party) or looks["coordinator"]
    places = range(len(feature.rows))
    total = max(1, sum(feature.rows))
    axes.grid(visible=False)
    axes.bar(places, [n / total for n in feature.rows], color=look.fill, alpha=0.3, width=0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(EDGE)
    shown = [{"values": str(b), "missing": "none"}.get(held, clip(held, 9)) for b, held in enumerate(feature.holds)]
    names(axes, places, shown if len(shown) <= 6 else [""] * len(shown), size=6.5, axis="x")
    rates = [e / max(n, 1) for n, e in zip(feature.rows, feature.positives, strict=True)]
    over = axes.twinx()
    over.set_ylim(0, 1.25 * max([*rates, 1e-9]))
    over.tick_params(colors=RATE, labelsize=7, length=0)
    over.locator_params(nbins=3)
    for spine in over.spines.values():
        spine.set_visible(False)
    ordinary = [b for b in places if feature.holds[b] != "missing" and not feature.holds[b].startswith("special")]
    over.plot(ordinary, [rates[b] for b in ordinary], color=RATE, linewidth=1.4, marker="o", markersize=3)
    others = [b for b in places if b not in ordinary]
    over.plot(others, [rates[b] for b in others], color=RATE, linewidth=0, marker="D", markersize=3.5)
