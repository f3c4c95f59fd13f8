"""How good predictions of numbers are: figures over many rows, as the active party releases them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fednb.federation.messages import DataRef
from fednb.models.scores import Scores
from fednb.protocols.fit_quality import Quality

if TYPE_CHECKING:
    import pandas as pd


class FitQuality:
    """R², root mean squared and mean absolute error, D² of the Poisson deviance, and how predictions are calibrated.

    Attributes
    ----------
    rows : int; r2, rmse, mae : float, per unit of exposure where there is one; d2 : float, of a regression on counts,
        else None (scikit-learn's `d2_tweedie_score` with power 1).
    """

    def __init__(self, quality: Quality, *, name: str = "", party: str = "", label: str = "") -> None:
        self.quality = quality
        self.name, self.party, self.label = name, party, label
        self.rows, self.r2, self.rmse, self.mae, self.d2 = (
            quality.rows,
            quality.r2,
            quality.rmse,
            quality.mae,
            quality.d2,
        )

    def calibration(self) -> pd.DataFrame:
        """Columns predicted, observed and rows, a line a tenth of the rows by what was predicted."""
        import pandas as pd

        said = self.quality
        return pd.DataFrame({"predicted": said.predicted, "observed": said.observed, "rows": said.in_bin})

    def __repr__(self) -> str:
        d2 = "" if self.d2 is None else f", D² {self.d2:.4f}"
        where = f" on {self.name}" if self.name else ""
        return (
            f"<FitQuality{where}: R² {self.r2:.4f}, RMSE {self.rmse:.4g}, MAE {self.mae:.4g}{d2}; {self.rows:,} rows>"
        )


def fit_quality(scores: Scores, y: str, *, exposure: str | None = None) -> FitQuality:
    """Have the holder of predictions compare them with its label `y` ("bank.visits") and release the figures."""
    frame = scores.frame
    party, label = frame.find_label(y)
    own = scores.ref(label=label)
    ref = DataRef(
        frame=own.frame,
        rows=own.rows,
        columns=[] if exposure is None else [exposure],
        label=own.label,
        part=own.part,
    )
    result = frame.federation.run(
        "fit_quality", cast={"active": [party]}, data={party: ref}, title=f"Evaluation on {len(scores)} rows"
    )
    return FitQuality(result.read(party, Quality), name=frame.part or "all rows", party=party, label=y)
