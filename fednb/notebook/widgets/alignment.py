"""How tables overlap: a picture of the sets, and a table of what each party found in its own ids."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from fednb.federation.progress import format_bytes, format_seconds
from fednb.federation.views import AlignmentView, PartyAlignment
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import BAD, INK, MUTED, Card, clip, write

HEAD = (
    "party",
    "table",
    "rows",
    "distinct ids",
    "in common",
    "duplicates",
    "without id",
    "id formats",
    "sent",
    "received",
)


def picture(view: AlignmentView, looks: Mapping[str, Look]) -> Card:
    """The sets: circles to scale for two parties, a sketch for three, bars for more."""
    count = len(view.parties)
    body = 2.6 if count <= 3 else 1.0 + 0.42 * count
    height = body + 0.18 * len(view.notes)
    subtitle = f"private set intersection of {' and '.join(p.table or p.member for p in view.parties)}"
    if view.seconds is not None:
        moved = sum(p.bytes_out for p in view.parties)
        subtitle += f" · {format_seconds(view.seconds)} · {format_bytes(moved)} sent by the parties"
    card = Card(f"{view.matched:,} rows in common", subtitle, height=height, alt=describe(view))
    if count in (2, 3):
        sets = card.panel(8, 56, 400, body * 100 - 66)
        sets.axis("off")
        _two(sets, view, looks) if count == 2 else _three(sets, view, looks)
        _bars(card, view, looks, x=520, top=78)
    else:
        _bars(card, view, looks, x=150, top=70, width=520)
    for line, note in enumerate(view.notes):
        write(card, card.left(16), card.down(100 * body + 18 * line), "Note: " + clip(note, 150), color=BAD, size=8.5)
    return card


def describe(view: AlignmentView) -> str:
    """The picture in words."""
    parts = [f"{p.member} has {p.ids:,} distinct ids, {_share(view, p)} of them in common" for p in view.parties]
    return f"{view.matched:,} rows in common: {'; '.join(parts)}."


def rows(view: AlignmentView) -> list[list[str]]:
    """Cells under `HEAD`, one line a party."""
    return [
        [
            p.member,
            p.table,
            f"{p.rows:,}",
            f"{p.ids:,}",
            _share(view, p),
            f"{p.duplicates:,}",
            f"{p.missing:,}",
            formats(p.formats),
            format_bytes(p.bytes_out),
            format_bytes(p.bytes_in),
        ]
        for p in view.parties
    ]


def formats(found: Mapping[str, int], most: int = 4) -> str:
    """`AA-999999 (1,200), AA999999 (34), 2 more`"""
    ordered = sorted(found.items(), key=lambda item: -item[1])
    shown = [f"{clip(shape, 40)} ({count:,})" for shape, count in ordered[:most]]
    return ", ".join(shown + ([f"{len(ordered) - most} more"] if len(ordered) > most else []))


def _share(view: AlignmentView, party: PartyAlignment) -> str:
    return f"{100 * view.matched / party.ids:.1f} %" if party.ids else "0 %"


def _look(looks: Mapping[str, Look], member: str) -> Look:
    return looks.get(member) or looks["coordinator"]


def _two(axes: Axes, view: AlignmentView, looks: Mapping[str, Look]) -> None:
    """Two circles whose areas and overlap are to scale."""
    left, right = view.parties
    r, s = math.sqrt(max(left.ids, 1) / math.pi), math.sqrt(max(right.ids, 1) / math.pi)
    distance = lens_distance(r, s, min(view.matched, left.ids, right.ids))
    scale = 1 / max(r, s)
    r, s, distance = r * scale, s * scale, distance * scale
    start, end = min(-r, distance - s), max(r, distance + s)
    axes.set_xlim(start - 0.75, end + 0.75)
    axes.set_ylim(-1.08, 1.32)
    axes.set_aspect("equal")
    for party, x, radius in ((left, 0.0, r), (right, distance, s)):
        look = _look(looks, party.member)
        axes.add_patch(Circle((x, 0), radius, facecolor=look.fill, alpha=0.25, edgecolor="none"))
        axes.add_patch(Circle((x, 0), radius, fill=False, edgecolor=look.fill, linewidth=2, linestyle=look.dash))
    middle = (max(-r, distance - s) + min(r, distance + s)) / 2
    write(axes, middle, 0, f"{view.matched:,}", size=12, weight="bold", ha="center")
    for party, x, side in ((left, start, "right"), (right, end, "left")):
        shift = -0.08 if side == "right" else 0.08
        look = _look(looks, party.member)
        write(axes, x + shift, 0.12, f"{look.mark} {clip(party.member, 16)}", color=look.ink, ha=side, weight="bold")
        write(axes, x + shift, -0.14, f"only here: {party.ids - view.matched:,}", size=8, color=MUTED, ha=side)


def lens_distance(r: float, s: float, overlap: float) -> float:
    """Distance of two circles' centres at which they share the area `overlap` (by bisection)."""
    low, high = abs(r - s), r + s
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _lens(r, s, middle) > overlap else (low, middle)
    return (low + high) / 2


def _lens(r: float, s: float, d: float) -> float:
    """Area that two circles share."""
    if d >= r + s:
        return 0.0
    if d <= abs(r - s):
        return math.pi * min(r, s) ** 2
    a = math.acos(max(-1.0, min(1.0, (d * d + r * r - s * s) / (2 * d * r))))
    b = math.acos(max(-1.0, min(1.0, (d * d + s * s - r * r) / (2 * d * s))))
    return r * r * (a - math.sin(2 * a) / 2) + s * s * (b - math.sin(2 * b) / 2)


def _three(axes: Axes, view: AlignmentView, looks: Mapping[str, Look]) -> None:
    """Three circles as a sketch: only what all three share is known to anybody."""
    axes.set_xlim(-2.6, 2.6)
    axes.set_ylim(-1.55, 1.55)
    axes.set_aspect("equal")
    places = ((-0.45, 0.36, -1.45, "right"), (0.45, 0.36, 1.45, "left"), (0.0, -0.42, 1.05, "left"))
    for party, (x, y, label, side) in zip(view.parties, places, strict=True):
        look = _look(looks, party.member)
        axes.add_patch(Circle((x, y), 0.92, facecolor=look.fill, alpha=0.2, edgecolor="none"))
        axes.add_patch(Circle((x, y), 0.92, fill=False, edgecolor=look.fill, linewidth=2, linestyle=look.dash))
        height = y + 0.35 if y > 0 else y - 0.6
        write(axes, label, height, f"{look.mark} {clip(party.member, 16)}", color=look.ink, ha=side, weight="bold")
    write(axes, 0, 0.1, f"{view.matched:,}", size=12, weight="bold", ha="center")
    write(axes, -2.5, -1.42, "not to scale", size=7.5, color=MUTED)


def _bars(
    card: Card, view: AlignmentView, looks: Mapping[str, Look], *, x: float, top: float, width: float = 200
) -> None:
    """One bar a party: all its distinct ids, the common ones solid."""
    step, thick = 42, 16
    axes = card.panel(x, top, width, step * len(view.parties))
    axes.axis("off")
    axes.set_xlim(0, max([1, *(p.ids for p in view.parties)]))
    axes.set_ylim(step * len(view.parties), 0)
    for position, party in enumerate(view.parties):
        look, y = _look(looks, party.member), position * step + 8
        axes.add_patch(Rectangle((0, y), party.ids, thick, facecolor=look.fill, alpha=0.22))
        axes.add_patch(Rectangle((0, y), min(view.matched, party.ids), thick, facecolor=look.fill))
        write(
            card,
            card.left(x - 8),
            card.down(top + y + thick / 2),
            f"{look.mark} {clip(party.member, 14)}",
            color=look.ink,
            ha="right",
            weight="bold",
        )
        write(
            card,
            card.left(x + width + 10),
            card.down(top + y + thick / 2),
            f"{_share(view, party)} of {party.ids:,}",
            color=INK,
        )
        extras = [f"{party.duplicates:,} duplicates"] if party.duplicates else []
        extras += [f"{party.missing:,} without id"] if party.missing else []
        if extras:
            write(card, card.left(x), card.down(top + y + thick + 10), ", ".join(extras), size=8, color=MUTED)
