"""How a vertical model moves: each party's accelerated steps, and the coordinator's schedule of iterations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

Floats = npt.NDArray[np.float64]
Stage = Literal["coarse", "fine", "stop"]

FINE_ITERATIONS = 5  # kept for the fine stage when the coarse one does not end by itself
FEWEST_FINE = 3  # the first gradients after the change are small already, its steps not yet
GROWTH = 10.0  # times the largest of the first gradients: by then the run diverges


class Block:
    """One party's features X [n, d], weights w [d], and Nesterov's look-ahead point v, where gradients are taken.

    Minimises loss + |w|² / 2C over its own block. The curvature of the loss is at most parties/4 · XᵀX in each block
    (Böhning 1992: σ' <= 1/4; and P blocks move at once), so a step solves with that and needs no line search.
    """

    def __init__(self, X: Floats, C: float, parties: int, *, intercept: bool = False) -> None:
        self.X = X
        self.penalty = np.full(X.shape[1], 1.0 / C)
        if intercept:
            self.penalty[-1] = 0.0  # as in scikit-learn
        bound = 0.25 * parties * X.T @ X + np.diag(self.penalty)
        self._inverse = np.linalg.inv(bound)
        self.w: Floats = np.zeros(X.shape[1])
        self.v: Floats = self.w.copy()
        self._t = 1.0

    def scores(self) -> Floats:
        """[n] at the look-ahead point."""
        return self.X @ self.v

    def step(self, loss_gradient: Floats) -> float:
        """Move by the gradient of the loss at v; returns the largest entry of the objective's, per row."""
        gradient = loss_gradient + self.penalty * self.v
        w = self.v - self._inverse @ gradient
        t = (1.0 + math.sqrt(1.0 + 4.0 * self._t**2)) / 2.0
        self.v = w + (self._t - 1.0) / t * (w - self.w)
        self.w, self._t = w, t
        return float(np.abs(gradient).max() / len(self.X))

    def restart(self) -> None:
        """Forget the momentum."""
        self.v, self._t = self.w.copy(), 1.0

    def state(self) -> dict[str, Any]:
        """For the journal."""
        return {"w": self.w.copy(), "v": self.v.copy(), "t": self._t}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.w, self.v, self._t = np.array(state["w"]), np.array(state["v"]), float(state["t"])


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
        start = max(self.norms[:3])
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
