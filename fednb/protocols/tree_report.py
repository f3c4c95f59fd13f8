"""What may be told of an ensemble: how much its features count, and the shape of its first tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fednb.protocols.trees import LEAF, Forest


def importance(forest: Forest, parties: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Of each feature that splits: sums of gain and cover, and number of splits; a passive party's by its alias."""
    found: dict[tuple[int, int], list[float]] = {}
    for node in range(len(forest)):
        if forest.left[node] != LEAF:
            sums = found.setdefault((forest.owner[node], forest.feature[node]), [0.0, 0.0, 0])
            for i, value in enumerate((forest.gain[node], forest.cover[node], 1)):
                sums[i] += value
    return [
        {"party": parties[p], "feature": _called(p, feature, columns), "gain": g, "cover": h, "frequency": int(k)}
        for (p, feature), (g, h, k) in sorted(found.items())
    ]


def drawn(forest: Forest, parties: Sequence[str], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The first tree: whose feature splits each node, with gain and cover; no cut points, no weights of leaves."""
    if not forest.roots:
        return []
    queue = [forest.roots[0][0]]
    out: list[dict[str, Any]] = []
    while queue:
        node = queue.pop(0)
        inner = forest.left[node] != LEAF
        p = forest.owner[node]
        out.append(
            {
                "party": parties[p] if inner else "",
                "feature": _called(p, forest.feature[node], columns) if inner else "",
                "gain": forest.gain[node],
                "cover": forest.cover[node],
                "left": len(out) + len(queue) + 1 if inner else LEAF,
            }
        )
        queue += [forest.left[node], forest.left[node] + 1] if inner else []
    return out


def _called(p: int, feature: int, columns: Sequence[str]) -> str:
    return columns[feature] if p == 0 else f"#{feature}"
