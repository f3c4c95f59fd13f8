"""Anderson's mixing (1965) over parties: each remembers its own points and steps, and hears how much to take of each.

    step        s_k = -D⁻¹·gradient at x_k          D: the party's own block of the curvature
    next        x_(k+1) = Σ_i c_i·(x_i + damping·s_i),   c: Σ c_i = 1, least |Σ c_i·s_i| in the metric of D

The minimum needs inner products of steps only: each party sends those of its own newest step with the ones that it
remembers, the coordinator adds them up over the parties and answers with c. On a quadratic that is as good as conjugate
gradients. When the gradient has grown, everybody goes back to the best point and takes half the step.

| role | learns of it, each iteration |
|---|---|
| coordinator | of each party, inner products of its newest step with at most MEMORY - 1 earlier ones |
| party | the weights c and the damping |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fednb.errors import UnexpectedMessage
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.steps import squares

MEMORY = 16  # points that are remembered
GROWTH = 2.0  # times the smallest gradient so far: such a step is taken back
RIDGE = 1e-10  # of the mean square of the steps


class Mixing:
    """The coordinator's side."""

    def __init__(self, parties: int) -> None:
        self._damping = 1.0 / parties  # blocks move at once
        self._products = np.empty((0, 0))
        self._norms: list[float] = []

    def after(self, norm: float, products: Mapping[str, Floats]) -> tuple[Floats, float]:
        """Weights c by remembered point, the newest last, and the damping. Parties forget what has no weight."""
        count = len(self._norms) + 1
        for member, said in products.items():
            if said.shape != (count,) or said.dtype != np.float64 or not np.isfinite(said).all():
                raise UnexpectedMessage(f"{member} sent products that are not {count} finite numbers", member=member)
        row = np.sum([said for _, said in sorted(products.items())], axis=0)
        grown = np.empty((count, count))
        grown[:-1, :-1], grown[-1], grown[:, -1] = self._products, row, row
        self._norms.append(norm)
        best = int(np.argmin(self._norms))
        if norm > GROWTH * self._norms[best]:
            self._damping /= 2.0
            c = np.eye(count)[best]
            keep = [best]
        else:
            c = _weights(grown)
            keep = [*range(max(0, count - MEMORY + 1), count)]
        c[[i for i in range(count) if i not in keep]] = 0.0
        c /= c.sum()
        self._products = grown[np.ix_(keep, keep)]
        self._norms = [self._norms[i] for i in keep]
        return c, self._damping

    def state(self) -> dict[str, Any]:
        """For the journal."""
        return {"products": self._products.copy(), "damping": self._damping, "remembered": list(self._norms)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._products = np.array(state["products"], dtype=np.float64)
        self._damping = float(state["damping"])
        self._norms = [float(norm) for norm in state["remembered"]]


def _weights(products: Floats) -> Floats:
    """c with Σ c = 1 and the least cᵀ·products·c."""
    n = len(products)
    scale = max(float(np.trace(products)) / n, 1e-300)
    solved = np.linalg.lstsq(products / scale + RIDGE * np.eye(n), np.ones(n), rcond=None)[0]
    return np.asarray(solved / solved.sum()) if abs(solved.sum()) > 1e-12 else np.eye(n)[-1]


class Remembering:
    """A party's side: a `family.Solver` whose steps are those of Newton in its own block."""

    def __init__(self, X: Matrix, penalty: Floats, start: Floats | None = None) -> None:
        """`penalty` [d], of the squares: the objective is loss + Σ penalty·w²/2."""
        self.X = X
        self.penalty = penalty
        self.w: Floats = np.zeros(X.shape[1]) if start is None else start
        self.level = 1.0
        self._square = squares(X)
        self._points: list[Floats] = []
        self._steps: list[Floats] = []

    def curvature(self, loss_gradient: Floats) -> Floats:
        """[d, d] of the loss in this block."""
        return self._square

    def start(self, w: Floats) -> None:
        self.w = np.array(w, dtype=np.float64)

    def at(self) -> Floats:
        return self.w

    def step(self, loss_gradient: Floats, rows: int | None = None) -> tuple[float, Floats]:
        gradient = loss_gradient + self.penalty * self.w
        block = self.curvature(loss_gradient) + np.diag(self.penalty)
        block += 1e-12 * np.trace(block) / len(block) * np.eye(len(block))  # columns may depend on one another
        self._points.append(self.w)
        self._steps.append(np.asarray(-np.linalg.solve(block, gradient), dtype=np.float64))
        metric = self.level * self._square + np.diag(self.penalty)  # the same all the time, so products stay a square
        products = np.array([step @ metric @ self._steps[-1] for step in self._steps])
        return float(np.abs(gradient).max() / self.X.shape[0]), products

    def heed(self, norm: float, mix: Floats, damping: float) -> None:
        if mix.shape != (len(self._points),) or not 0 < damping <= 1 or not np.isfinite(mix).all():
            raise ValueError(f"{mix.size} weights for {len(self._points)} points")
        moved = [c * (x + damping * s) for c, x, s in zip(mix, self._points, self._steps, strict=True)]
        self.w = np.sum(moved, axis=0)
        kept = [i for i, c in enumerate(mix) if c != 0.0]
        self._points, self._steps = [self._points[i] for i in kept], [self._steps[i] for i in kept]

    def restart(self) -> None:
        """There is one stage only."""

    def state(self) -> dict[str, Any]:
        d = len(self.w)
        return {
            "w": self.w.copy(),
            "points": np.array(self._points).reshape(-1, d),
            "steps": np.array(self._steps).reshape(-1, d),
            "level": self.level,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.w, self.level = np.array(state["w"], dtype=np.float64), float(state["level"])
        self._points = [*np.array(state["points"], dtype=np.float64)]
        self._steps = [*np.array(state["steps"], dtype=np.float64)]
