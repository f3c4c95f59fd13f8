"""Linear regression on a vertical frame, with scikit-learn's conventions: see `fednb.protocols.vertical_linear`."""

from __future__ import annotations

from typing import Any

from fednb.federation.frame import VerticalFrame
from fednb.models import saved
from fednb.models.fit_quality import FitQuality, fit_quality
from fednb.models.regression import VerticalRegression
from fednb.models.scores import Scores


class VerticalLinearRegression(VerticalRegression):
    """Least squares whose features and label lie at different parties, as scikit-learn's `Ridge`.

    Minimises |y - Xw|² + alpha·|w|², without penalising the intercept. Each party standardises its own features with
    figures of its training rows.

    Parameters
    ----------
    alpha : strength of the penalty, >= 0; 0 is least squares.
    max_iter : at most this many iterations; each counts against the quota of decryptions.
    tol : stop when the largest entry of the mean gradient is below this, in standard deviations of the label.
    standardize : scale each feature to mean 0 and standard deviation 1.
    clip : winsorise at this many standard deviations; None: leave tails.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    coef_ : dict of party to pandas.Series, in units of the label (per standardised feature if `standardize`), or
        `Withheld`. intercept_, n_iter_, converged_, history_, run_, feature_names_in_, label_ : as in
        `VerticalLogisticRegression`.
    """

    protocol = "vertical_linear"
    family = "linear"
    kept = saved.SavedLinear

    def __init__(
        self,
        alpha: float = 0.0,
        *,
        max_iter: int = 30,
        tol: float = 1e-5,
        standardize: bool = True,
        clip: float | None = 4.0,
        key_bits: int = 2048,
    ) -> None:
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize
        self.clip = clip
        self.key_bits = key_bits

    def _params(self) -> dict[str, Any]:
        return super()._params() | {"alpha": float(self.alpha)}

    def _penalty(self, rows: int) -> float:
        return float(self.alpha)

    def predict(self, frame: VerticalFrame) -> Scores:
        """What the model expects of the frame's rows. The values stay at the active party; this is a handle on them."""
        return self._predict(frame)

    def evaluate(self, frame: VerticalFrame) -> FitQuality:
        """R², errors and calibration on the frame's rows, released as aggregates by the active party."""
        return fit_quality(self.predict(frame), self.label_)
