"""Which rows and columns a round of boosting looks at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


def uniform(rows: int, share: float, rng: np.random.Generator) -> tuple[Truths, Floats]:
    """Each row by itself with probability `share`; [rows] who is in, [rows] by what its gradient counts."""
    chosen = rng.random(rows) < share if share < 1 else np.ones(rows, dtype=np.bool_)
    return chosen, np.ones(rows)


def one_sided(g: Floats, h: Floats, top: float, other: float, rng: np.random.Generator) -> tuple[Truths, Floats]:
    """The share `top` of rows with the largest gradients, and a random share `other` of all rows from the rest.

    The latter count more, so that sums stay right on average (gradient-based one-side sampling, Ke et al. 2017).
    """
    n = len(g)
    size = np.abs(g * h).sum(axis=1)
    most = max(1, round(top * n))
    order = np.argsort(-size, kind="stable")
    drawn = rng.permutation(order[most:])[: round(other * n)]
    chosen = np.zeros(n, dtype=np.bool_)
    chosen[order[:most]] = chosen[drawn] = True
    factors = np.ones(n)
    if len(drawn):
        factors[drawn] = (n - most) / len(drawn)
    return chosen, factors


def columns(count: int, share: float, rng: np.random.Generator) -> Truths:
    """[count] which columns are looked at: their share, rounded down, one at least."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[rng.permutation(count)[: max(1, int(share * count))] if share < 1 else slice(None)] = True
    return chosen
