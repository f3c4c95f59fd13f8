"""How many iterations a fit will take: the same steps and schedule in plain, on numbers that are made up.

It depends on the tolerance, the penalty and the number of parties, which are known before a fit, and on how the
features of different parties go together and how well they explain the label, which is not. So it is played with a few
kinds of data, and what comes out is the harmonic mean, which errs by as many percent above as below: features that
have nothing to do with each other, with a label that they explain well or less well (fewest iterations), and features
with common causes, as in credit files (most).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fednb.protocols.layout import SIGMOID
from fednb.protocols.separable import Floats, averaged, spread_of
from fednb.protocols.separable import sigmoid as expit
from fednb.protocols.steps import Block, Schedule, Stage

ROWS = 1000  # enough for the number of iterations
CAUSES = 3


class Kind(NamedTuple):
    """What the made-up data is like."""

    common: float  # share of a feature's variance that common causes explain
    strength: float  # standard deviation of the true score
    level: float  # its mean


KINDS = (Kind(0.0, 1.8, 0.0), Kind(0.0, 1.2, 0.0), Kind(0.2, 0.8, -1.3), Kind(0.2, 1.2, -1.3))


def rehearse(
    rows: int,
    widths: Sequence[int],
    *,
    C: float = 1.0,
    tol: float = 5e-4,
    max_iter: int = 20,
    sigmoid: str = "staged",
    l1_ratio: float = 0.0,
) -> tuple[int, int]:
    """Iterations, and how many of them are fine, for parties with `widths` features, the active one first."""
    n = max(min(rows, ROWS), 2 * sum(widths))
    # the penalty counts once, and the loss for each row: with fewer rows it would weigh more
    played = [_play(*made_up(n, widths, kind), C * rows / n, tol, max_iter, sigmoid, l1_ratio) for kind in KINDS]
    iterations = round(statistics.harmonic_mean([iterations for iterations, _ in played]))
    return iterations, min(iterations, round(statistics.median_low([fine for _, fine in played])))


def _play(
    parts: list[Floats], y: Floats, C: float, tol: float, max_iter: int, sigmoid: str, l1_ratio: float
) -> tuple[int, int]:
    parts = [np.column_stack([parts[0], np.ones(len(y))]), *parts[1:]]
    blocks = [Block(X, C, len(parts), intercept=not j, l1_ratio=l1_ratio) for j, X in enumerate(parts)]
    schedule, fine = Schedule(max_iter, tol, sigmoid), 0
    while (stage := schedule.stage) != "stop":
        fine += stage == "fine"
        residuals = _mean(stage, [block.X[:] @ block.at() for block in blocks]) - y
        norm = max(block.step(block.X[:].T @ residuals)[0] for block in blocks)
        following = schedule.after(norm)
        for block in blocks:
            block.heed(norm)
            if following != stage:
                block.restart()
    return schedule.iteration, fine


def made_up(n: int, widths: Sequence[int], kind: Kind) -> tuple[list[Floats], Floats]:
    """Standardised features of each party, [n, width], and labels [n]."""
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(n, CAUSES))
    loads = rng.normal(size=(CAUSES, sum(widths)))
    X = np.sqrt(kind.common) * causes @ (loads / np.linalg.norm(loads, axis=0))
    X += np.sqrt(1 - kind.common) * rng.normal(size=X.shape)
    score = X @ rng.normal(size=X.shape[1])
    y = (rng.random(n) < expit(kind.strength * score / score.std() + kind.level)).astype(np.float64)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    return np.split(X, np.cumsum(widths)[:-1], axis=1), y


def _mean(stage: Stage, scores: Sequence[Floats]) -> Floats:
    """What the parties take for the mean of each label together."""
    a, *rest = scores
    spread, others = spread_of(a), len(rest) - 1
    expansion = SIGMOID.expansion(stage)
    f = expansion.factors(a, spread, others)
    total: Floats = -others * averaged(a, others + 1, spread)
    for b in rest:
        total += f[:, 0] + (f[:, 1:] * expansion.basis(b)).sum(axis=1)
    return total
