"""How a vertical model moves: each party's accelerated steps, and the coordinator's schedule of iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from fednb.errors import DataError
from fednb.protocols.rows import Floats, Matrix, by_part, parts

Stage = Literal["coarse", "fine", "stop"]

_NO_MIX = np.empty(0)

FINE_ITERATIONS = 5  # kept for the fine stage when the coarse one does not end by itself
FEWEST_FINE = 3  # the first gradients after the change are small already, its steps not yet
SWEEPS = 300  # of coordinate descent, at most
GROWTH = 10.0  # times the largest of the first gradients: by then the run diverges


class Block:
    """One party's features X [n, d], weights w [d], and Nesterov's look-ahead point v, where gradients are taken.

    Minimises loss + (1 - l1_ratio)/2C · |w|² + l1_ratio/C · Σ|w_j| over its own block, as scikit-learn does. The
    curvature of the loss is at most parties/4 · XᵀX in each block (Böhning 1992: σ' <= 1/4; and P blocks move at once),
    so a step solves with that and needs no line search.

    With an L1 part, or with bounds on w, a step minimises that quadratic bound plus Σ|w_j| within the bounds, by
    coordinate descent (FISTA of Beck and Teboulle 2009, in the metric of the bound): zeros are exact, and it is the
    party's own arithmetic.

    Rows that count `weights` times as much belong into that bound. A party that does not know them starts with their
    mean, 1, and doubles its bound, up to `most`, whenever the gradient that all parties hear of has doubled.
    """

    def __init__(
        self,
        X: Matrix,
        C: float,
        parties: int,
        *,
        intercept: bool = False,
        l1_ratio: float = 0.0,
        weights: Floats | None = None,
        most: float = 1.0,
        bounds: tuple[Floats, Floats] | None = None,
    ) -> None:
        self.X = X
        self.level = 1.0
        open_ended: Floats = np.full(X.shape[1], np.inf)
        self._low, self._high = bounds if bounds is not None else (-open_ended, open_ended)
        self._bounded = bool(np.isfinite(self._low).any() or np.isfinite(self._high).any())
        self.penalty = np.full(X.shape[1], (1.0 - l1_ratio) / C)
        self.threshold = np.full(X.shape[1], l1_ratio / C)
        if intercept:
            self.penalty[-1] = self.threshold[-1] = 0.0  # as in scikit-learn
        self._curvature = 0.25 * parties * squares(X, weights)
        self._most = most
        self.w: Floats = np.zeros(X.shape[1])
        self.v: Floats = self.w.copy()
        self._t = 1.0
        self._least = math.inf
        self._bound(1.0)

    def _bound(self, caution: float) -> None:
        self._caution = caution
        self._quadratic = caution * self._curvature + np.diag(self.penalty)
        # with L1 alone the bound may be singular; coordinate descent does not mind
        free = not (self.threshold.any() or self._bounded)
        self._inverse = np.linalg.inv(self._quadratic) if free else None

    def start(self, w: Floats) -> None:
        """Begin at w instead of zero."""
        self.w = np.array(w, dtype=np.float64)
        self.restart()

    @property
    def rows(self) -> int:
        return self.X.shape[0]

    def at(self) -> Floats:
        """[d] the look-ahead point."""
        return self.v

    def step(self, loss_gradient: Floats, rows: int | None = None) -> tuple[float, Floats]:
        """Move by the gradient of the loss at v; returns the largest entry of the objective's, per row.

        With a gradient of some `rows` only, the step is not accelerated: momentum would add up their noise.
        """
        share = 1.0 if rows is None else rows / self.rows
        gradient = loss_gradient / share + self.penalty * self.v
        if self._inverse is not None:
            w = self.v - self._inverse @ gradient
        else:
            w = lasso(self._quadratic, self.v, gradient, self.threshold, self.w, (self._low, self._high))
            gradient = _least_subgradient(gradient, self.v, self.threshold)
            # at or beyond a bound, what pushes outwards counts for nothing
            held = ((self.v <= self._low) & (gradient > 0)) | ((self.v >= self._high) & (gradient < 0))
            gradient = np.where(held, 0.0, gradient)
        if share < 1.0:
            self._t = 1.0
        t = (1.0 + math.sqrt(1.0 + 4.0 * self._t**2)) / 2.0
        self.v = w + (self._t - 1.0) / t * (w - self.w)
        self.w, self._t = w, t
        return float(np.abs(gradient).max() / self.rows), np.empty(0)

    def heed(self, norm: float, mix: Floats = _NO_MIX, damping: float = 1.0) -> None:
        """Hear the largest gradient entry of all parties: growth tells that somebody's bound is too low."""
        if norm > 2.0 * self._least and self._caution < self._most:
            self._bound(min(2.0 * self._caution, self._most))
            self.restart()
            self._least = norm
        self._least = min(self._least, norm)

    def restart(self) -> None:
        """Forget the momentum."""
        self.v, self._t, self._least = self.w.copy(), 1.0, math.inf

    def state(self) -> dict[str, Any]:
        """For the journal."""
        return {"w": self.w.copy(), "v": self.v.copy(), "t": self._t, "caution": self._caution, "least": self._least}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.w, self.v, self._t = np.array(state["w"]), np.array(state["v"]), float(state["t"])
        self._least = float(state["least"])
        self._bound(float(state["caution"]))


def scores(X: Matrix, w: Floats) -> Floats:
    """[n] X·w"""
    return by_part(lambda rows: X[rows] @ w, X.shape[0])


def squares(X: Matrix, weights: Floats | None = None) -> Floats:
    """XᵀX [d, d], each row as often as its weight says."""
    total = np.zeros((X.shape[1], X.shape[1]))
    for rows in parts(X.shape[0]):
        part = X[rows]
        total += (part.T if weights is None else part.T * weights[rows]) @ part
    return total


def lasso(
    quadratic: Floats,
    v: Floats,
    gradient: Floats,
    threshold: Floats,
    start: Floats,
    bounds: tuple[Floats, Floats] | None = None,
) -> Floats:
    """The w with the least gradientᵀ(w - v) + (w - v)ᵀ·quadratic·(w - v)/2 + Σ threshold_j·|w_j|, within bounds."""
    low, high = bounds or (np.full(len(v), -np.inf), np.full(len(v), np.inf))
    w = np.clip(start, low, high)
    slope = quadratic @ (w - v) + gradient
    diagonal = np.diag(quadratic)
    for _ in range(SWEEPS):
        largest = 0.0
        for j in range(len(w)):
            free = diagonal[j] * w[j] - slope[j]
            new = math.copysign(max(abs(free) - threshold[j], 0.0), free) / diagonal[j]
            new = min(max(new, low[j]), high[j])
            if new != w[j]:
                slope += quadratic[:, j] * (new - w[j])
                largest = max(largest, abs(new - w[j]))
                w[j] = new
        if largest <= 1e-10 * max(1.0, float(np.abs(w).max())):
            break
    return w


def _least_subgradient(gradient: Floats, w: Floats, threshold: Floats) -> Floats:
    """Of the smooth part's gradient plus Σ threshold_j·|w_j| at w: zero where w is optimal."""
    return np.where(
        w != 0,
        gradient + threshold * np.sign(w),
        np.sign(gradient) * np.maximum(np.abs(gradient) - threshold, 0.0),
    )


class Schedule:
    """Which stage the next iteration is in, from the largest gradient norm of each."""

    def __init__(self, max_iter: int, tol: float, sigmoid: str) -> None:
        self.max_iter, self.tol, self.sigmoid = max_iter, tol, sigmoid
        self.stage: Stage = self.first(sigmoid)
        self.norms: list[float] = []
        self._fine = 0  # iterations done in that stage

    @staticmethod
    def first(sigmoid: str) -> Stage:
        return "fine" if sigmoid == "fine" else "coarse"

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.norms)

    @property
    def converged(self) -> bool:
        return bool(self.norms) and self.norms[-1] <= self.tol

    def after(self, norm: float) -> Stage:
        """The stage of the next iteration. Raises DataError when the run diverges."""
        self.norms.append(norm)
        start = max(*self.norms[:3], self.tol)  # a model that is continued begins with small gradients
        if not math.isfinite(norm) or norm > GROWTH * start:
            raise DataError(
                f"training diverges: at iteration {self.iteration} the gradient is {norm:.2g}, {start:.2g} at the "
                "start. Features with long tails or on wild scales do this: keep standardize=True, winsorise "
                "(clip=4.0), or use a smaller C."
            )
        staged = self.sigmoid == "staged" and self.stage == "coarse"
        self._fine += self.stage == "fine"
        settled = norm <= self.tol and (self.sigmoid != "staged" or self._fine >= FEWEST_FINE)
        if self.iteration >= self.max_iter or settled:
            self.stage = "stop"
        elif staged:
            left = self.max_iter - self.iteration
            if norm <= 2.0 * self.tol or left <= min(FINE_ITERATIONS, (self.max_iter + 1) // 2):
                self.stage = "fine"
        return self.stage

    def state(self) -> dict[str, Any]:
        """For the journal."""
        return {"norms": list(self.norms), "stage": self.stage, "fine": self._fine}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.norms, self.stage = [float(norm) for norm in state["norms"]], state["stage"]
        self._fine = int(state["fine"])
