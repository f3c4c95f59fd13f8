"""Features of all parties at a glance: distributions, and what each has to do with the label and with the others."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from fednb.federation.views import FeatureLine, Number, ProfileView, format_number
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import BAD, EDGE, INK, MUTED, Card, clip, write

HEAD = (
    "feature", "party", "kind", "missing", "mean", "sd", "IV", "r with label", "PSI", "VIF", "goes with", "r", "note",
)  # fmt: skip
MOST = 18  # lines; the table has all
ROW = 25  # pixels of a line
TOP = 64
LEFT, BARS = 210, 92  # pixels: where histograms begin, and how wide they are
FIRST, STEP = 356, 56  # the right edge of the first figure, and of each next one
MARKED = {"missing": 0.5, "PSI": 0.25, "VIF": 10.0}  # figures above these are marked
MUCH = 0.8  # of |r|


def picture(view: ProfileView, looks: Mapping[str, Look]) -> Card:
    """A line a feature, best first. What is out of the ordinary is bold and has an exclamation mark."""
    shown = view.features[:MOST]
    noted = 18 * min(3, len(view.notes))
    more = 18 if len(view.features) > len(shown) else 0
    height = TOP + 24 + ROW * max(1, len(shown)) + more + noted + 16
    card = Card(f"Profile of {len(view.features)} features", subtitle(view), height=height / 100, alt=describe(view))
    places = _places(shown)
    for name, right in places.items():
        write(card, card.left(right), card.down(TOP + 8), name, size=8, color=MUTED, ha="right")
    if "r" in places:
        write(card, card.left(places["r"] + 6), card.down(TOP + 8), "goes with", size=8, color=MUTED)
    if shown:
        _histograms(card, shown, looks)
    for position, line in enumerate(shown):
        look = looks.get(line.party) or looks["coordinator"]
        _line(card, line, look, places, TOP + 24 + ROW * (position + 0.5))
    top = TOP + 24.0 + ROW * max(1, len(shown))
    if more:
        rest = f"and {len(view.features) - len(shown)} more in the table below"
        write(card, card.left(16), card.down(top + 8), rest, color=MUTED, size=8.5)
        top += 18
    for note in view.notes[:3]:
        write(card, card.left(16), card.down(top + 8), "Note: " + clip(note, 120), color=BAD, size=8.5)
        top += 18
    return card


def subtitle(view: ProfileView) -> str:
    """Rows, label, what is compared, and the order."""
    parts = [f"{view.rows:,} rows{f' ({view.part})' if view.part else ''}"]
    if view.label:
        rate = "" if view.rate is None else f", {100 * view.rate:.1f} % positive"
        parts.append(f"label {view.label}{rate}")
    parts += [f"PSI against {view.newer:,} other rows"] if view.newer else []
    parts += [f"ranked by {view.ranked}"] if view.ranked else []
    return " · ".join(parts)


def describe(view: ProfileView) -> str:
    """The picture in words."""
    return view.plain()


def rows(view: ProfileView) -> list[list[str]]:
    """Cells under `HEAD`, one line a feature, in the view's order."""
    return [
        [
            line.feature,
            line.party,
            line.kind,
            "" if line.missing is None else f"{line.missing:.1%}",
            *(_cell(value) for value in (line.mean, line.sd, line.iv, line.label, line.psi, line.vif)),
            line.nearest,
            _cell(line.near),
            line.note,
        ]
        for line in view.features
    ]


def _cell(value: Number) -> str:
    return "" if value is None else format_number(value)


def _figures(line: FeatureLine) -> dict[str, Number]:
    return {
        "missing": line.missing,
        "mean": line.mean,
        "sd": line.sd,
        "IV": line.iv,
        "r label": line.label,
        "PSI": line.psi,
        "VIF": line.vif,
        "r": line.near,
    }


def _places(shown: list[FeatureLine]) -> dict[str, int]:
    """Right edges of the figures that any line has, in pixels."""
    known = {name for line in shown for name, value in _figures(line).items() if value is not None}
    order = [name for name in _figures(FeatureLine(party="", feature="")) if name in known]
    return {name: FIRST + STEP * position for position, name in enumerate(order)}


def _line(card: Card, line: FeatureLine, look: Look, places: Mapping[str, int], middle: float) -> None:
    y = card.down(middle)
    write(card, card.left(16), y, look.mark, size=8.5, color=look.ink)
    write(card, card.left(28), y, clip(line.feature, 17), size=8.5, weight="bold")
    write(card, card.left(LEFT - 8), y, clip(line.party, 9), size=7.5, color=look.ink, ha="right")
    if line.note:
        write(card, card.left(LEFT), y, clip(f"{line.kind}: {line.note}", 96), size=8, color=BAD)
        return
    for name, value in _figures(line).items():
        if value is None:
            continue
        marked = abs(value) > MUCH if name == "r" else value > MARKED.get(name, math.inf)
        style = {"color": BAD, "weight": "bold"} if marked else {"color": INK}
        text = f"{_short(name, value)} !" if marked else _short(name, value)
        write(card, card.left(places[name]), y, text, size=8, ha="right", **style)
    if line.nearest and "r" in places:
        write(card, card.left(places["r"] + 6), y, clip(line.nearest, 18), size=8, color=MUTED)


def _short(name: str, value: float) -> str:
    """In about six characters."""
    if name == "missing":
        return f"{100 * value:.0f} %"
    if name in ("IV", "r label", "PSI", "r"):
        return f"{value + 0.0:.2f}"
    if value == 0 or 0.001 <= abs(value) < 1e5:
        return f"{value + 0.0:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")


def _histograms(card: Card, shown: list[FeatureLine], looks: Mapping[str, Look]) -> None:
    """All of them in one panel, each as high as its line: the area of a bar tells its rows."""
    axes: Axes = card.panel(LEFT, TOP + 24, BARS, ROW * len(shown))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shown), 0)
    axes.set_axis_off()
    for position, line in enumerate(shown):
        edges = [edge for edge in line.edges if edge is not None]
        if line.note or len(edges) != len(line.counts) + 1 or not line.counts or edges != sorted(set(edges)):
            continue
        look = looks.get(line.party) or looks["coordinator"]
        reach = edges[-1] - edges[0]
        widths = [(b - a) / reach for a, b in zip(edges, edges[1:], strict=False)]
        heights = [count / width for count, width in zip(line.counts, widths, strict=True)]
        tallest = max(heights)
        if not (math.isfinite(tallest) and tallest > 0):
            continue
        left = [(edge - edges[0]) / reach for edge in edges[:-1]]
        tall = [-0.8 * height / tallest for height in heights]
        axes.bar(left, tall, width=widths, bottom=position + 0.92, align="edge", color=look.fill, linewidth=0)
        axes.plot([0, 1], [position + 0.92] * 2, color=EDGE, linewidth=0.8)
