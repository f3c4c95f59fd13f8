"""A fitted ensemble of trees: what each party's features count, how the loss fell, and the first tree."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from matplotlib.axes import Axes

from fednb.federation.progress import format_bytes, format_seconds
from fednb.federation.views import EnsembleView, Importance, TreeNode, format_number
from fednb.notebook.palette import Look
from fednb.notebook.widgets import evaluation
from fednb.notebook.widgets.card import BAD, EDGE, INK, MUTED, Card, clip, names, write
from fednb.notebook.widgets.model import log_scale

HEAD = ("party", "feature", "gain", "cover", "splits")
MOST = 16  # bars; the table has all
ROW = 17  # pixels of a bar
DEEPEST = 4  # levels of the tree that are drawn
LEVEL = 58  # pixels of one of them
LINE = "#00639c"


def picture(view: EnsembleView, looks: Mapping[str, Look]) -> Card:
    """Importance on the left, loss by round on the right, the first tree below, and curves once evaluated."""
    bars = ROW * max(1, min(MOST, len(view.importance)))
    body = max(190, bars + 30 + 16 * len(view.members))
    tree = 30 + LEVEL * min(DEEPEST, _depth(view.tree)) if view.tree else 0
    noted = 18 * min(3, len(view.notes))
    quoted = 76 if view.evaluation else 0
    below = 214 if view.evaluation and (view.evaluation.roc or view.evaluation.calibration) else 0
    card = Card(
        view.title + (f" for {view.label}" if view.label else ""),
        subtitle(view),
        height=(64 + body + tree + noted + quoted + below + 26) / 100,
        alt=describe(view),
    )
    _importance(card, view, looks, top=64)
    _fit(card, view, top=64, height=min(150, body - 60))
    top = 64.0 + body
    if tree:
        _tree(card, view, looks, top=top + 8, height=tree - 30)
        top += tree
    for note in view.notes[:3]:
        write(card, card.left(16), card.down(top + 8), "Note: " + clip(note, 120), color=BAD, size=8.5)
        top += 18
    if view.evaluation:
        name = f"Evaluation on {view.evaluation.name or 'held-out rows'} · {evaluation.subtitle(view.evaluation)}"
        write(card, card.left(16), card.down(top + 18), clip(name, 130), size=9, color=MUTED)
        evaluation.figures(card, view.evaluation, top=top + 38)
        if below:
            evaluation.panels(card, view.evaluation, top=top + 106)
    return card


def subtitle(view: EnsembleView) -> str:
    """Rows, rounds, seconds, bytes and operations."""
    parts = [f"{view.rows:,} rows", f"{view.rounds} rounds"]
    parts += [format_seconds(view.seconds)] if view.seconds is not None else []
    parts += [f"{format_bytes(view.bytes)} between members"] if view.bytes else []
    count = sum(view.operations.values())
    parts += [f"{count:,} operations on ciphertexts"] if count else []
    return " · ".join(parts)


def describe(view: EnsembleView) -> str:
    """The picture in words."""
    shares = ", ".join(f"{member} {share:.0%}" for member, share in view.shares().items())
    parts = [f"{view.title}{' for ' + view.label if view.label else ''}: {view.rounds} rounds; gain by party: {shares}"]
    parts += [evaluation.describe(view.evaluation)] if view.evaluation else []
    return "; ".join(parts)


def rows(view: EnsembleView) -> list[list[str]]:
    """Cells under `HEAD`, one line a feature, best first."""
    return [
        [row.party, row.feature, format_number(row.gain), format_number(row.cover), f"{row.frequency:,}"]
        for row in _best(view)
    ]


def _best(view: EnsembleView) -> list[Importance]:
    return sorted(view.importance, key=lambda row: -row.gain)


def _importance(card: Card, view: EnsembleView, looks: Mapping[str, Look], top: float) -> None:
    """Each party's share of the gain in words, then one bar a feature."""
    for member, share in view.shares().items():
        look = looks.get(member) or looks["coordinator"]
        text = f"{look.mark} {clip(member, 26)} · {share:.0%} of the gain"
        write(card, card.left(16), card.down(top + 9), text, color=look.ink, weight="bold")
        top += 16
    best = _best(view)[:MOST]
    if not best:
        write(card, card.left(30), card.down(top + 18), "no split was worth it", color=MUTED)
        return
    axes = card.panel(150, top + 14, 270, ROW * len(best))
    reach = 1.25 * max(row.gain for row in best) or 1.0
    axes.set_xlim(0, reach)
    axes.set_ylim(len(best) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for position, row in enumerate(best):
        look = looks.get(row.party) or looks["coordinator"]
        axes.barh(position, row.gain, height=0.62, color=look.fill, hatch=look.hatch, edgecolor="white", linewidth=0)
        write(axes, row.gain + 0.015 * reach, position, format_number(row.gain), size=7.5, color=MUTED)
    names(axes, range(len(best)), [clip(_called(row.party, row.feature), 24) for row in best], size=8)


def _called(party: str, feature: str) -> str:
    """A passive party's feature is a number, which says nothing without its party."""
    return f"{party} {feature}" if feature.startswith("#") else feature


def _fit(card: Card, view: EnsembleView, top: float, height: float) -> None:
    """The loss by round on the rows trained on and, dashed, on others; and what was asked for."""
    if view.history.get("loss"):
        axes = card.panel(500, top + 20, 300, height, f"{view.metric.replace('_', ' ')} by round")
        everything: list[float] = []
        for name, style in (("loss", "-"), ("validation_loss", "--")):
            points = [(step, v) for step, v in enumerate(view.history.get(name, []), 1) if v is not None]
            everything += [y for _, y in points]
            axes.plot([x for x, _ in points], [y for _, y in points], color=LINE, linewidth=1.6, linestyle=style)
            if points and style == "--":
                write(axes, points[-1][0], points[-1][1], " validation", size=7.5, color=MUTED, ha="right", va="bottom")
        log_scale(axes, everything)
    given = ", ".join(f"{clip(name, 20)}={clip(str(v), 20)}" for name, v in view.params.items() if v is not None)
    for i, line in enumerate(textwrap.wrap(given, 58, max_lines=2, placeholder=" …")):
        write(card, card.left(500), card.down(top + 46 + height + 14 * i), line, size=7.5, color=MUTED)


def _tree(card: Card, view: EnsembleView, looks: Mapping[str, Look], top: float, height: float) -> None:
    """The first tree: whose feature splits each node, and how many rows' worth of hessians are there."""
    axes = card.panel(
        16, top + 24, 784, height, "the first tree: whose feature splits, gain and cover; cuts stay with their owners"
    )
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    depth = min(DEEPEST, _depth(view.tree))
    axes.set_ylim(depth - 0.4, -0.5)
    _branch(axes, view.tree, looks, node=0, level=0, low=0.0, high=1.0, last=depth - 1)


def _branch(
    axes: Axes,
    tree: list[TreeNode],
    looks: Mapping[str, Look],
    *,
    node: int,
    level: int,
    low: float,
    high: float,
    last: int,
) -> None:
    here, x = tree[node], (low + high) / 2
    look = looks.get(here.party) or looks["coordinator"]
    if here.party and level < last:
        for side, (a, b) in enumerate(((low, x), (x, high))):
            axes.plot([x, (a + b) / 2], [level, level + 1], color=EDGE, linewidth=1.2, zorder=1)
            _branch(axes, tree, looks, node=here.left + side, level=level + 1, low=a, high=b, last=last)
    text = f"{look.mark} {clip(_called(here.party, here.feature), 20)}" if here.party else "leaf"
    more = f"gain {format_number(here.gain)}, cover {format_number(here.cover)}" if here.party else ""
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    size = 8 if level < 3 else 6.5
    ink = look.ink if here.party else MUTED
    write(axes, x, level - 0.1, text, size=size, color=ink, ha="center", weight="bold", bbox=behind)
    if level < 3:
        line = more or f"cover {format_number(here.cover)}"
        write(axes, x, level + 0.17, line, size=7, color=INK if here.party else MUTED, ha="center", bbox=behind)


def _depth(tree: list[TreeNode]) -> int:
    """Levels of nodes. Children come after their parents."""
    levels = [0] * len(tree)
    for i, node in enumerate(tree):
        if node.party:
            levels[node.left] = levels[node.left + 1] = levels[i] + 1
    return 1 + max(levels, default=0)
