"""A run: what it says while it goes on, and the picture that it leaves when it has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fednb.federation.progress import MemberProgress, RunProgress, format_bytes, format_seconds
from fednb.federation.views import format_number
from fednb.notebook.palette import Look
from fednb.notebook.widgets.card import BAD, INK, MUTED, Card, clip, write

HEAD = ("party", "role", "sent", "received", "operations on ciphertexts")
ENDED = {"ok": "done", "failed": "failed", "cancelled": "cancelled", "waiting": "no news", "running": "no news"}
CURVE = "#00639c"
POINTS = 300  # of a live curve: more than a screen shows
ROW = 40  # pixels of the picture that a member takes


def picture(progress: RunProgress, looks: Mapping[str, Look]) -> Card:
    """How it went: the curve on the left, what each member sent and computed on the right."""
    metric = progress.curve()
    members = ordered(progress)
    noted = 18 if progress.reason else 0
    body = max(150 if metric else 0, 26 + ROW * len(members))
    height = (64 + noted + body + 20) / 100
    card = Card(progress.title or progress.run, summary(progress), height=height, alt=describe(progress))
    if progress.state != "ok":
        write(card, card.left(824), card.down(24), ENDED[progress.state], weight="bold", ha="right", color=BAD)
    if noted:
        write(card, card.left(16), card.down(63), clip(progress.reason.partition("\n")[0], 130), color=BAD, size=8.5)
    top = 66.0 + noted
    if metric:
        axes = card.panel(58, top + 14, 330, body - 26, name(metric) + " by iteration")
        _curves(axes, progress, metric, looks)
    _members(card, members, looks, x=430 if metric else 16, top=top)
    return card


def summary(progress: RunProgress) -> str:
    """`done in 42 s · 18 iterations · 24 MB between members · 1,204,331 operations on ciphertexts`"""
    parts = [
        f"{ENDED[progress.state]} {'in' if progress.state == 'ok' else 'after'} {format_seconds(progress.seconds)}"
    ]
    parts += [f"{progress.step:,} iterations"] if progress.curve() and progress.step else []
    parts += [f"{format_bytes(progress.bytes)} between members"] if progress.bytes else []
    count = sum(progress.operations.values())
    parts += [f"{count:,} operations on ciphertexts"] if count else []
    return " · ".join(parts)


def describe(progress: RunProgress) -> str:
    """The picture in words."""
    lines = [f"{progress.title or 'run'} [{progress.run}]: {summary(progress)}"]
    metric = progress.curve()
    if metric:
        points = next(iter(progress.curves[metric].values()))
        lines.append(f"{name(metric)} {format_number(points[0][1])} at first, {format_number(points[-1][1])} at last")
    lines += [f"{m.name} sent {format_bytes(m.sent)}; {operations(m.operations)}" for m in ordered(progress)]
    lines += [progress.reason] if progress.reason else []
    return "\n".join(lines)


def rows(progress: RunProgress) -> list[list[str]]:
    """Cells under `HEAD`, one line a member."""
    return [
        [m.name, m.role, format_bytes(m.sent), format_bytes(m.received), operations(m.operations)]
        for m in ordered(progress)
    ]


def snapshot(progress: RunProgress, looks: Mapping[str, Look], *, silent: float = 0.0) -> dict[str, Any]:
    """What the live widget shows: text and numbers only, ready to be drawn.

    silent : seconds since the last news of any member.
    """
    metric = progress.curve()
    values = [y for series in progress.curves.get(metric or "", {}).values() for _, y in series]
    figures = [f"{name(progress.phase)} {progress.step:,}" + (f" of {progress.total:,}" if progress.total else "")]
    figures += [format_seconds(progress.seconds) + " so far"]
    figures += [f"about {format_seconds(progress.eta)} left"] if progress.eta is not None else []
    figures += [f"{format_bytes(progress.bytes)} sent"] if progress.bytes else []
    count = sum(progress.operations.values())
    figures += [f"{count:,} operations on ciphertexts"] if count else []
    figures += losses(progress)
    return {
        "title": clip(progress.title or progress.run, 120),
        "state": "waiting for its members" if progress.state == "waiting" else progress.state,
        "silent": f"no news for {format_seconds(silent)}" if silent >= 5 else "",
        "done": min(1.0, progress.step / progress.total) if progress.total else None,
        "figures": [figure for figure in figures if figure.strip()],
        "metric": name(metric) if metric else "",
        "log": logarithmic(metric or "", values),
        "last": progress.total if metric and progress.total else 0,  # where the axis ends
        "curves": [thinned(series) for series in progress.curves.get(metric or "", {}).values()],
        "dashed": [thinned(series) for series in progress.curves.get(f"validation_{metric}", {}).values()],
        "members": [
            {
                "name": m.name,
                "mark": _look(looks, m.name).mark,
                "colour": _look(looks, m.name).fill,
                "role": m.role if m.role != m.name else "",
                "doing": f"waits for {m.waiting_for}" if m.waiting_for else name(m.phase),
                "waits": bool(m.waiting_for),
                "traffic": f"↑ {format_bytes(m.sent)}  ↓ {format_bytes(m.received)}",
                "operations": operations(m.operations),
            }
            for m in ordered(progress)
        ],
    }


def losses(progress: RunProgress) -> list[str]:
    """The metric on rows that are trained on and on others, and what each level of the tree being made has taken."""
    metric = progress.curve() or ""
    both = (metric, f"validation_{metric}")
    values = [(word, progress.latest(word)) for word in (both if both[1] in progress.curves else ())]
    said = [f"{name(word)} {value:.4g}" for word, value in values if value is not None]
    levels = [value for word, value in sorted(progress.timings.items()) if word.startswith("level_")]
    tree = progress.step + ("round_seconds" not in progress.timings)  # else it is made, and the next one not begun
    return said + ([f"tree {tree}, levels " + " · ".join(f"{value:.2g} s" for value in levels[:12])] if levels else [])


def ordered(progress: RunProgress) -> list[MemberProgress]:
    """Who has the label first, who holds no data last: not in the order in which they happened to speak."""
    rank = {"active": 0, "coordinator": 2}
    return sorted(progress.members.values(), key=lambda member: (rank.get(member.role, 1), member.name))


def thinned(series: list[tuple[int, float]], most: int = POINTS) -> list[list[float]]:
    """At most so many points, the first and the last among them; what is not finite cannot be drawn."""
    points = [[float(x), y] for x, y in series if math.isfinite(y)]
    stride = -(-len(points) // most)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


def logarithmic(metric: str, values: list[float]) -> bool:
    """Whether a logarithmic scale says more: always for a norm, which falls by orders of magnitude."""
    if not values or min(values) <= 0:
        return False
    return metric.endswith("norm") or max(values) > 50 * min(values)


def operations(counts: Mapping[str, int]) -> str:
    """`12,040 encrypt · 990,120 multiply`, most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return " · ".join(f"{count:,} {name(kind)}" for kind, count in ordered[:5])


def name(word: str) -> str:
    """`gradient_norm` as people read it."""
    return clip(word.replace("_", " "), 40)


def _look(looks: Mapping[str, Look], member: str) -> Look:
    return looks.get(member) or looks["coordinator"]


def _curves(axes: Axes, progress: RunProgress, metric: str, looks: Mapping[str, Look]) -> None:
    everything: list[float] = []
    several = len(progress.curves[metric]) > 1
    for member, series in progress.curves[metric].items():
        points = thinned(series, 1_000)
        everything += [y for _, y in points]
        colour = _look(looks, member).ink if several else CURVE
        dots = 2.5 if len(points) <= 60 else 0
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, lw=1.8, marker="o", markersize=dots)
    for series in progress.curves.get(f"validation_{metric}", {}).values():
        points = thinned(series, 1_000)
        everything += [y for _, y in points]
        axes.plot([x for x, _ in points], [y for _, y in points], color=CURVE, lw=1.4, linestyle="--")
        if points:
            write(axes, points[-1][0], points[-1][1], " validation", size=7.5, color=MUTED, ha="right", va="bottom")
    if logarithmic(metric, everything):
        axes.set_yscale("log")
        axes.minorticks_off()
        if max(everything) < 30 * min(everything):  # hardly a power of ten in sight
            axes.set_yticks([min(everything), max(everything)])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}")  # not TeX, unlike the default
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _members(card: Card, members: list[MemberProgress], looks: Mapping[str, Look], *, x: float, top: float) -> None:
    """One block a member: name and role, bytes out and in, and below what it computed."""
    sent, received = x + 270, x + 360
    for at, text in ((sent, "sent"), (received, "received")):
        write(card, card.left(at), card.down(top + 6), text, size=8, color=MUTED, ha="right")
    for position, member in enumerate(members):
        y, look = top + 26 + ROW * position, _look(looks, member.name)
        write(card, card.left(x), card.down(y), f"{look.mark} {clip(member.name, 18)}", color=look.ink, weight="bold")
        role = member.role if member.role != member.name else ""
        write(card, card.left(x + 118), card.down(y), clip(role, 14), size=8, color=MUTED)
        for at, count in ((sent, member.sent), (received, member.received)):
            write(card, card.left(at), card.down(y), format_bytes(count), color=INK, ha="right")
        computed = operations(member.operations) or "nothing on ciphertexts"
        write(card, card.left(x + 12), card.down(y + 15), clip(computed, 66), size=7.5, color=MUTED)
