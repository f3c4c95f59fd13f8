"""Poisson regression on a vertical frame, with scikit-learn's conventions: see `fednb.protocols.vertical_poisson`."""

from __future__ import annotations

from typing import Any

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import saved
from fednb.models.fit_quality import FitQuality, fit_quality
from fednb.models.regression import VerticalRegression
from fednb.models.scores import Scores


class VerticalPoissonRegression(VerticalRegression):
    """Counts whose mean is exposure · exp(Xw + intercept); features at the label's party and up to three others.

    With two or three others an iteration takes ten times as long as with one, or more: see `fednb.protocols.chain`.

    Minimises scikit-learn's objective of `PoissonRegressor`, half the mean deviance + alpha/2·|w|², for y/exposure with
    sample_weight=exposure, except that the mean is over rows, not over the exposure. The intercept is not penalised.

    Parameters
    ----------
    alpha : strength of the penalty, >= 0. 1.0 as in scikit-learn; 0 is maximum likelihood.
    exposure : a column of the label's party, as "bank.years": how long each row was observed. It is no feature.
    max_iter : at most this many iterations; each counts against the quota of decryptions.
    tol : stop when the largest entry of the mean gradient is below this.
    standardize : scale each feature to mean 0 and standard deviation 1.
    clip : winsorise at this many standard deviations; None: leave tails.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    coef_, intercept_, n_iter_, converged_, history_, run_, feature_names_in_, label_ : as in
        `VerticalLogisticRegression`; of the log of the rate.
    """

    protocol = "vertical_poisson"
    family = "poisson"
    kept = saved.SavedPoisson

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        exposure: str | None = None,
        max_iter: int = 40,
        tol: float = 1e-5,
        standardize: bool = True,
        clip: float | None = 4.0,
        key_bits: int = 2048,
    ) -> None:
        self.alpha = alpha
        self.exposure = exposure
        self.max_iter = max_iter
        self.tol = tol
        self.standardize = standardize
        self.clip = clip
        self.key_bits = key_bits

    def _params(self) -> dict[str, Any]:
        return super()._params() | {"alpha": float(self.alpha), "exposure": self._exposure_column}

    @property
    def _exposure_column(self) -> str | None:
        return None if self.exposure is None else self.exposure.partition(".")[2]

    def _features(self, frame: VerticalFrame, active: str, label: str) -> dict[str, tuple[str, ...]]:
        found = super()._features(frame, active, label)
        if self.exposure is None:
            return found
        party, _, column = self.exposure.partition(".")
        if party != active or column not in found[active]:
            raise DataError(f"exposure={self.exposure!r} is no column of {active}, who has the label.")
        return found | {active: tuple(name for name in found[active] if name != column)}

    def _penalty(self, rows: int) -> float:
        return float(self.alpha) * rows

    def _error_params(self) -> dict[str, Any]:
        return {"exposure": self._exposure_column}

    def _beside(self, party: str) -> tuple[str, ...]:
        column = self._exposure_column
        return (column,) if column is not None and party == self.label_.partition(".")[0] else ()

    def predict(self, frame: VerticalFrame) -> Scores:
        """The rate, for an exposure of 1, of the frame's rows. It stays at the active party; this is a handle on it."""
        return self._predict(frame)

    def evaluate(self, frame: VerticalFrame) -> FitQuality:
        """D² (share of the deviance explained), errors and calibration on the frame's rows, released as aggregates."""
        return fit_quality(self.predict(frame), self.label_, exposure=self._exposure_column)
