"""Static pictures with one look: what a widget leaves in the notebook, to be read without any kernel.

A card is a Matplotlib figure made without pyplot, so drawing one changes nothing of the user's own plots. It stands
on its own white ground, which reads on light and dark pages alike. Text of other members is never parsed as TeX.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from fednb.federation.progress import printable

INK, MUTED, GRID, EDGE, GROUND = "#1d2430", "#5f6b7a", "#e6e9ee", "#d3d9e1", "#ffffff"
GOOD, BAD, NEUTRAL = "#007353", "#b3261e", "#5f6b7a"
DPI = 100  # of the page; pixels are twice as dense
WIDTH = 8.4  # inches


class Card(Figure):
    """A figure with a title, a second line in grey, and words for those who cannot see it."""

    def __init__(self, title: str, subtitle: str = "", *, height: float, alt: str = "", width: float = WIDTH) -> None:
        super().__init__((width, height), DPI, facecolor=GROUND, edgecolor=EDGE, linewidth=1.0)
        self.set_layout_engine("none")  # a user's own engine would move what is placed by pixels
        self.alt = alt or f"{title}. {subtitle}"
        write(self, self.left(16), self.down(24), clip(title, 90), size=12, weight="bold")
        write(self, self.left(16), self.down(43), clip(subtitle, 130), size=9, color=MUTED)

    def left(self, pixels: float) -> float:
        """Figure coordinate of so many pixels from the left edge."""
        return float(pixels / (self.get_figwidth() * DPI))

    def down(self, pixels: float) -> float:
        """Figure coordinate of so many pixels from the top edge."""
        return float(1 - pixels / (self.get_figheight() * DPI))

    def panel(self, x: float, y: float, width: float, height: float, title: str = "") -> Axes:
        """Axes by pixels of the page: left edge, upper edge, size."""
        box = (self.left(x), self.down(y + height), self.left(width), 1 - self.down(height))
        axes = self.add_axes(box)
        axes.set_facecolor(GROUND)
        axes.tick_params(colors=MUTED, labelsize=8, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(EDGE)
        axes.grid(visible=True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        if title:
            axes.set_title(printable(title), loc="left", fontsize=9.5, color=INK, pad=7, parse_math=False)
        return axes

    def png(self) -> bytes:
        """The picture at twice the page's density; 192 colours make a third of the bytes and no visible difference."""
        raw = io.BytesIO()
        # Everything explicit: a user's own savefig settings must not crop or bleach the card.
        with warnings.catch_warnings():
            # A name in a script that the font lacks: boxes in the picture, and whole in the table below it.
            warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
            self.savefig(
                raw,
                format="png",
                dpi=2 * DPI,
                facecolor=GROUND,
                edgecolor=EDGE,
                bbox_inches=self.bbox_inches,
                transparent=False,
            )
        small = io.BytesIO()
        with Image.open(raw) as image:
            image.convert("RGB").quantize(192, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
        return small.getvalue()

    def bundle(self, text: str) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """MIME bundle and metadata: the picture, its size on the page, and its words."""
        width, height = (round(side * DPI) for side in self.get_size_inches())
        data = {"image/png": base64.b64encode(self.png()).decode("ascii"), "text/plain": text}
        return data, {"image/png": {"width": width, "height": height, "alt": self.alt}}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        # Without this a figure that pyplot does not know shows as "<Figure size ...>".
        return self.bundle(self.alt)


def write(where: Figure | Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text that is shown as it is: no TeX, no control characters."""
    style = {"size": 9, "color": INK, "va": "center", **style}
    if isinstance(where, Axes):
        where.text(x, y, printable(text), parse_math=False, **style)
    else:
        where.text(x, y, printable(text), parse_math=False, **style)


def names(axes: Axes, ticks: Sequence[float], labels: Sequence[str], *, size: float = 8.5, axis: str = "y") -> None:
    """Tick labels that are shown as they are."""
    shown = [printable(label) for label in labels]
    made = axes.set_yticks(ticks, shown) if axis == "y" else axes.set_xticks(ticks, shown)
    for tick in made:
        for label in (tick.label1, tick.label2):
            label.set_parse_math(False)
            label.set_fontsize(size)
            label.set_color(INK)


def clip(text: str, length: int) -> str:
    """Text cut to a length, with an ellipsis to say so."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], *, folded: bool = False) -> str:
    """A plain HTML table; every cell is escaped. Numbers stand right. `folded`: opens on a click."""
    parts = ["<thead><tr>"]
    parts += [f'<th scope="col">{_escape(name)}</th>' for name in head]
    parts.append("</tr></thead><tbody>")
    for row in rows:
        cells = [f'<th scope="row" style="text-align:left">{_escape(row[0])}</th>']
        cells += [f'<td style="text-align:{_side(cell)}">{_escape(cell)}</td>' for cell in row[1:]]
        parts += ["<tr>", *cells, "</tr>"]
    parts.append("</tbody>")
    if folded:
        inner = f"<table>{''.join(parts)}</table>"
        return f"<details><summary>{_escape(caption)}</summary>{inner}</details>"
    return f'<table><caption style="text-align:left">{_escape(caption)}</caption>{"".join(parts)}</table>'


def text_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same table as plain text."""
    lines = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _escape(cell: object) -> str:
    return html.escape(printable(str(cell)))


def _side(cell: object) -> str:
    return "right" if str(cell)[:1].isdigit() or str(cell)[:1] == "-" else "left"
