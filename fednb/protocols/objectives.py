"""What boosting minimises: gradient and hessian of a loss at each row's margin, as XGBoost defines them.

    objective           outputs   prediction       loss that is reported
    binary:logistic     1         probability      log loss
    multi:softprob      classes   probabilities    log loss
    reg:squarederror    1         mean             root mean squared error
    count:poisson       1         mean             negative log-likelihood

(Chen and Guestrin 2016; hessians of the softmax twice the diagonal, and of Poisson enlarged by max_delta_step, as in
XGBoost's own code.) Everything here happens at the party that has the label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError

Floats = npt.NDArray[np.float64]
Name = Literal["binary:logistic", "multi:softprob", "reg:squarederror", "count:poisson"]

LEAST_HESSIAN = 1e-16
MOST_CLASSES = 50
POISSON_STEP = 0.7  # XGBoost's max_delta_step for counts, where none is given


@dataclass(frozen=True)
class Objective:
    """A loss for labels y [n]; for classes these are 0, 1, ..., outputs - 1."""

    name: Name
    outputs: int = 1
    scale_pos_weight: float = 1.0
    max_delta_step: float = 0.0

    @property
    def metric(self) -> str:
        """Name of the loss that `loss` gives."""
        return {"reg:squarederror": "rmse", "count:poisson": "poisson_nloglik"}.get(self.name, "log_loss")

    def base(self, y: Floats, base_score: float | None) -> Floats:
        """[outputs] margins to start from: of the mean of y, or of `base_score`, which is on the scale of predictions.

        DataError when `base_score` is outside that scale.
        """
        if self.name == "multi:softprob":
            if base_score is not None:
                return np.full(self.outputs, base_score)
            logs = np.log(np.bincount(y.astype(np.int64), minlength=self.outputs) / len(y))
            return np.asarray(logs - logs.mean(), dtype=np.float64)
        mean = float(np.average(y, weights=self._weights(y))) if base_score is None else base_score
        if self.name == "binary:logistic":
            if base_score is None and self.scale_pos_weight != 1:
                return np.array([4 * mean - 2])  # XGBoost's: one Newton step from 1/2
            if not 0 < mean < 1:
                raise DataError(f"base_score is a probability between 0 and 1, not {mean:g}.")
            return np.array([math.log(mean / (1 - mean))])
        if self.name == "count:poisson":
            if not mean > 0:
                raise DataError(f"base_score is a positive mean, not {mean:g}.")
            return np.array([math.log(mean)])
        return np.array([mean])

    def gradients(self, margins: Floats, y: Floats) -> tuple[Floats, Floats]:
        """First and second derivative of each row's loss, [n, outputs]. DataError when they are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            p = self.predict(margins)
            if self.name == "binary:logistic":
                w = self._weights(y)[:, None]
                g, h = (p - y[:, None]) * w, np.maximum(p * (1 - p), LEAST_HESSIAN) * w
            elif self.name == "multi:softprob":
                g = p - (np.arange(self.outputs) == y[:, None])
                h = np.maximum(2 * p * (1 - p), LEAST_HESSIAN)
            elif self.name == "count:poisson":
                g, h = p - y[:, None], np.exp(margins + self.max_delta_step)
            else:
                g, h = p - y[:, None], np.ones_like(p)
        bad = int(np.count_nonzero(~(np.isfinite(g) & np.isfinite(h)).all(axis=1)))
        if bad:
            raise DataError(
                f"gradients of {bad} of {len(y)} rows are not finite: predictions have grown beyond any label. "
                "Use a smaller learning_rate, a larger reg_lambda, or labels on a smaller scale."
            )
        return g, h

    def predict(self, margins: Floats) -> Floats:
        """[n, outputs] probabilities or means."""
        if self.name == "binary:logistic":
            return np.asarray(1 / (1 + np.exp(-np.clip(margins, -700, 700))), dtype=np.float64)
        if self.name == "multi:softprob":
            powers = np.exp(margins - margins.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)
        return np.exp(margins) if self.name == "count:poisson" else margins

    def loss(self, margins: Floats, y: Floats) -> float:
        """Mean over the rows (its root, for squared error)."""
        p = self.predict(margins)
        if self.name == "binary:logistic":
            safe = np.clip(p[:, 0], 1e-16, 1 - 1e-16)
            return float(-np.mean(np.where(y == 1, np.log(safe), np.log1p(-safe))))
        if self.name == "multi:softprob":
            return float(-np.mean(np.log(np.clip(p[np.arange(len(y)), y.astype(np.int64)], 1e-16, None))))
        if self.name == "count:poisson":
            log_factorials = np.array([math.lgamma(count + 1) for count in y.tolist()])
            return float(np.mean(p[:, 0] - y * margins[:, 0] + log_factorials))
        return float(np.sqrt(np.mean((p[:, 0] - y) ** 2)))

    def _weights(self, y: Floats) -> Floats:
        return np.where(y == 1, self.scale_pos_weight, 1.0) if self.name == "binary:logistic" else np.ones_like(y)


def check_target(
    party: str, label: npt.NDArray[np.float64] | None, column: str | None, name: Name
) -> tuple[list[float], Floats]:
    """The classes, ascending, and each row's number among them; for a regression no classes, and the label itself.

    DataError, naming party and column, for what the objective cannot be trained on.
    """
    what = f"{party}'s label {column or 'label'!r}"
    if label is None or label.ndim != 1:
        raise DataError(f"{party} brought no label.")
    y = np.asarray(label, dtype=np.float64)
    absent = int(np.isnan(y).sum())
    if absent:
        raise DataError(f"{what} is missing in {absent} rows. Leave these rows out, then align again.")
    if not np.isfinite(y).all():
        raise DataError(f"{what} has infinite values.")
    values = np.unique(y)
    for_classes = name in ("binary:logistic", "multi:softprob")
    if len(values) < 2:
        what_one = "class" if for_classes else "value"
        raise DataError(f"{what} has one {what_one} only in these rows; there is nothing to learn.")
    if name == "count:poisson" and (y < 0).any():
        raise DataError(f"{what} has {int((y < 0).sum())} negative values; counts are not negative.")
    if not for_classes:
        return [], y
    if name == "binary:logistic" and values.tolist() != [0, 1]:
        raise DataError(f"{what} is not binary: it has other values than 0 and 1. Use objective='multi:softprob'.")
    if len(values) > MOST_CLASSES:
        raise DataError(f"{what} has {len(values)} values, too many for classes: at most {MOST_CLASSES}.")
    return values.tolist(), np.searchsorted(values, y).astype(np.float64)
