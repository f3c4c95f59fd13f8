"""Scores that stay where they were made: a histogram and a summary, as far as these were released."""

from __future__ import annotations

from collections.abc import Mapping

from fednb.federation.views import ScoresView, format_number
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import MUTED, Card

HEAD = ("figure", "value")


def picture(view: ScoresView, looks: Mapping[str, Look]) -> Card | None:
    """The released histogram; None where there is none."""
    edges = [edge for edge in view.edges if edge is not None]
    if not view.counts or len(edges) != len(view.counts) + 1 or edges != sorted(set(edges)):
        return None
    look = looks.get(view.member) or looks["coordinator"]
    title = f"{view.rows:,} scores at {view.member}"
    card = Card(
        title,
        "only this summary left it" + (f" · saved as {view.saved}" if view.saved else ""),
        height=2.3,
        alt=f"Histogram of {view.plain()}",
    )
    axes = card.panel(60, 62, 740, 126)
    widths = [right - left for left, right in zip(edges, edges[1:], strict=False)]
    # Bins are as wide as their rows demand, so the area tells how many there are.
    density = [count / width / max(1, view.rows) for count, width in zip(view.counts, widths, strict=True)]
    axes.bar(edges[:-1], density, width=widths, align="edge", color=look.fill, edgecolor="white", linewidth=0.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("score", fontsize=8, color=MUTED, labelpad=3)
    axes.set_ylabel("density", fontsize=8, color=MUTED, labelpad=3)
    axes.locator_params(axis="y", nbins=3)
    return card


def rows(view: ScoresView) -> list[list[str]]:
    """Cells under `HEAD`."""
    return [[name, format_number(value)] for name, value in view.summary.items()]
