"""The sigmoid of a sum whose terms lie at different parties, as a short sum of products.

    σ(a + b)  ≈  f_0(a) + f_1(a)·g_1(b) + ... + f_R(a)·g_R(b)         g_r(b) = tanh((b - c_r) / 2)

Whoever knows a evaluates every f_r, whoever knows b every g_r, and neither needs the other's number: an encrypted
f_r(a_i) can be multiplied by g_r(b_i) in plain, and the other way round. A polynomial in a + b would do the same and
explode beyond its interval; here every factor is bounded, so scores of any size give gradients of a sensible size.

The f_r are least squares over b, weighted by a normal distribution plus a floor that keeps the tails. Nobody tells the
width of that distribution: whoever has a takes the spread of its own scores for the others' too, within bounds. For
|a|, |b| <= 3 the largest error is 0.10 (coarse) and 0.08 (fine), and a tenth of that on the scores of a real model.

With b_1 + b_2 + ... from several parties the unknown rest is averaged out, as normal with the same spread:

    E σ(z + ξ) ≈ σ(z / sqrt(1 + spread²·π/8))    (MacKay 1992), and what the rest changes is added back linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

REACH = 12.0  # scores beyond are still bounded, but no longer accurate
_NODES = np.linspace(-REACH, REACH, 97)
_LEAST, _MOST, _MOST_FITTED = 0.7, 4.0, 2.0  # bounds of a spread, and of the one that weights the fit
_FLOOR = 0.01
_AT_ONCE = 2048  # rows, whose values at the nodes stay in the processor's cache
_SAMPLE = 256  # rows of the party that fits `carry`


def sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def spread_of(a: Floats) -> float:
    """The standard deviation that scores of other parties are taken to have, from one's own."""
    return float(np.clip(a.std(), _LEAST, _MOST))


def averaged(z: Floats, others: int, spread: float) -> Floats:
    """E σ(z + b_1 + ... + b_others) with every b ~ N(0, spread²)."""
    return sigmoid(z / np.sqrt(1.0 + others * spread**2 * np.pi / 8.0))


@dataclass(frozen=True)
class Expansion:
    """The expansion with one g for each of `centres`."""

    centres: tuple[float, ...]

    @property
    def terms(self) -> int:
        """R, the number of products beside f_0."""
        return len(self.centres)

    def basis(self, b: Floats) -> Floats:
        """g_1(b) ... g_R(b), [n, R], each in (-1, 1)."""
        return np.asarray(np.tanh((b[:, None] - np.array(self.centres)) / 2.0))

    def factors(self, a: Floats, spread: float, others: int = 0) -> Floats:
        """f_0(a) ... f_R(a), [n, R + 1], with `others` more scores averaged out."""
        fit, out = self._fit(spread), np.empty((len(a), self.terms + 1))
        for start in range(0, len(a), _AT_ONCE):
            some = a[start : start + _AT_ONCE, None]
            out[start : start + _AT_ONCE] = averaged(some + _NODES, others, spread) @ fit
        return out

    def carry(self, a: Floats, spread: float, others: int) -> Floats:
        """V [R + 1, R + 1]: how f changes with the score b of one of `others` >= 1 further parties.

        f_r(a + b) ≈ f_r(a) + V[r, 0] + Σ_s V[r, s]·g_s(b), on average over the scores a of this party's rows.
        """
        some = a[:: max(1, len(a) // _SAMPLE)]
        moved = np.stack([self.factors(some + b, spread, others - 1).mean(axis=0) for b in _NODES])
        change = moved - self.factors(some, spread, others).mean(axis=0)
        return np.asarray(change.T @ self._fit(spread))

    def _fit(self, spread: float) -> Floats:
        """[nodes, R + 1]: values at the nodes to coefficients of 1, g_1 ... g_R."""
        weight = np.exp(-0.5 * (_NODES / min(spread, _MOST_FITTED)) ** 2)
        weight = weight / weight.sum() + _FLOOR / len(_NODES)
        design = np.column_stack([np.ones_like(_NODES), self.basis(_NODES)])
        solved = np.linalg.solve(design.T @ (weight[:, None] * design), design.T * weight)
        return np.asarray(solved.T)


COARSE = Expansion((-1.5, 1.5))
FINE = Expansion((-4.0, -1.3, 1.3, 4.0))
