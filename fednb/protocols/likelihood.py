"""What a fitted regression says of each row beside its score: how much the row counts, and how likely it was.

With mean μ of a row: weight W of the Fisher information XᵀWX, and the logarithm of the likelihood (McCullagh and Nelder
1989, ch. 2). Logistic: W = μ(1 - μ); Poisson: W = μ; linear: W = 1, with the variance of the residuals as dispersion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import gammaln

from fednb.protocols.rows import Floats
from fednb.protocols.separable import sigmoid


@dataclass(frozen=True)
class Weighing:
    """How the weights of a family are kept as integers: `fraction` bits, all of them at most 2**whole."""

    fraction: int
    whole: int


WEIGHING: Mapping[str, Weighing] = {
    "logistic": Weighing(24, -2),
    "linear": Weighing(0, 0),
    "poisson": Weighing(20, 10),
}


@dataclass(frozen=True)
class Fitted:
    """Figures of the rows that a model was fitted on."""

    weights: Floats  # [n]
    residuals: Floats  # [n] label less mean, in units of the trained label
    dispersion: float  # by which the inverse information is multiplied, in units of the trained label
    log_likelihood: float  # of the label in its own unit


def fitted(family: str, y: Floats, linear: Floats, parameters: int, part: Mapping[str, Any]) -> Fitted:
    """Of a label y [n] and linear predictors [n], exposure included; `part` is the active party's of the model."""
    n = len(y)
    if family == "logistic":
        mean = sigmoid(linear)
        return Fitted(mean * (1.0 - mean), y - mean, 1.0, float(np.sum(y * linear - np.logaddexp(0.0, linear))))
    if family == "poisson":
        mean = np.exp(linear)
        return Fitted(mean, y - mean, 1.0, float(np.sum(y * linear - mean - gammaln(y + 1.0))))
    scale = float(part["label_scale"])
    residuals = (y - float(part["label_centre"])) / scale - linear
    squares = float(np.sum(residuals**2))
    log_likelihood = -0.5 * n * (np.log(2.0 * np.pi * squares / n) + 1.0) - n * np.log(scale)
    return Fitted(np.ones(n), residuals, squares / (n - parameters), float(log_likelihood))
