"""How good scores are: figures with intervals, and curves of ten rows or more a point, as the active party releases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.federation.views import Calibration, Estimate, EvaluationView, Roc, bundle
from fednb.models.scores import Scores
from fednb.protocols.evaluation import Assessment, assess
from fednb.typed import known

if TYPE_CHECKING:
    import pandas as pd


class Evaluation:
    """AUC, KS, Gini and log loss with confidence intervals, and the curves behind them.

    Attributes
    ----------
    auc, ks, gini, log_loss : float; `auc_interval` and so on: (low, high) at `level`.
    rows, positives : int, what was evaluated.
    """

    def __init__(self, assessment: Assessment, *, name: str = "", party: str = "", label: str = "") -> None:
        self.assessment = assessment
        self.name = name
        self.party = party
        self.label = label

    @classmethod
    def of(cls, y: Any, scores: Any, *, name: str = "") -> Evaluation:
        """The same figures for labels [n] of 0 and 1 and probabilities [n] in one's own hands."""
        return cls(assess(y, scores), name=name)

    @property
    def auc(self) -> float:
        return self.assessment.auc.value

    @property
    def ks(self) -> float:
        return self.assessment.ks.value

    @property
    def gini(self) -> float:
        return self.assessment.gini.value

    @property
    def log_loss(self) -> float:
        return self.assessment.log_loss.value

    @property
    def auc_interval(self) -> tuple[float, float]:
        return self.assessment.auc.low, self.assessment.auc.high

    @property
    def ks_interval(self) -> tuple[float, float]:
        return self.assessment.ks.low, self.assessment.ks.high

    @property
    def gini_interval(self) -> tuple[float, float]:
        return self.assessment.gini.low, self.assessment.gini.high

    @property
    def log_loss_interval(self) -> tuple[float, float]:
        return self.assessment.log_loss.low, self.assessment.log_loss.high

    @property
    def level(self) -> float:
        return self.assessment.level

    @property
    def rows(self) -> int:
        return self.assessment.rows

    @property
    def positives(self) -> int:
        return self.assessment.positives

    def roc(self) -> pd.DataFrame:
        """Columns fpr and tpr, from (0, 0) to (1, 1)."""
        import pandas as pd

        return pd.DataFrame({"fpr": self.assessment.roc.fpr, "tpr": self.assessment.roc.tpr})

    def gains(self) -> pd.DataFrame:
        """Columns rows (share with the highest scores) and positives (share of all positives among them)."""
        import pandas as pd

        return pd.DataFrame({"rows": self.assessment.gains.rows, "positives": self.assessment.gains.positives})

    @property
    def brier(self) -> float:
        """Mean squared difference of probability and label."""
        said = self.assessment.brier
        return float("nan") if said is None else said.value

    @property
    def brier_interval(self) -> tuple[float, float]:
        said = self.assessment.brier
        return (float("nan"), float("nan")) if said is None else (said.low, said.high)

    def lift(self) -> pd.DataFrame:
        """Columns rows (share with the highest scores) and lift: how many times as many positives as in a random
        share."""
        found = self.gains().iloc[1:].reset_index(drop=True)
        return found.assign(lift=found["positives"] / found["rows"]).drop(columns="positives")

    def cutoffs(self) -> pd.DataFrame:
        """What follows from a cut-off, at each point of the curve: who scores below it is approved.

        Columns cutoff (mean of the ten scores there), approved (share of rows below), bad_rate (share of positives
        among them), precision (share of positives among those above), recall (share of all positives that is above).
        """
        import pandas as pd

        said = self.assessment
        above = np.asarray(said.gains.rows[1:])
        caught = np.asarray(said.gains.positives[1:])
        rate = said.positives / said.rows
        below = 1.0 - above
        bad = np.divide((1.0 - caught) * rate, below, out=np.full_like(below, np.nan), where=below > 0)
        cutoff = said.roc.threshold or [math.nan] * len(above)
        return pd.DataFrame(
            {
                "cutoff": cutoff,
                "approved": below,
                "bad_rate": bad,
                "precision": caught * rate / above,
                "recall": caught,
            }
        )

    def precision_at(self, cutoff: float) -> float:
        """Share of positives among the rows that score `cutoff` or more, at the nearest released point of the curve.

        Raises DataError for a cut-off outside the scores, or where no cut-offs were released.
        """
        table = self.cutoffs().dropna(subset="cutoff")
        if not len(table) or not table["cutoff"].min() <= cutoff <= table["cutoff"].max():
            ends = f"{table['cutoff'].min():.4f} to {table['cutoff'].max():.4f}" if len(table) else "none"
            raise DataError(f"no precision is known at {cutoff:g}; released cut-offs are {ends}.")
        return float(table["precision"].iloc[int((table["cutoff"] - cutoff).abs().argmin())])

    def at_bad_rate(self, limit: float) -> float:
        """The largest share of rows that can be approved with a share of positives among them of at most `limit`."""
        table = self.cutoffs().dropna(subset="bad_rate")
        allowed = table.loc[table["bad_rate"] <= limit, "approved"]
        if self.positives <= limit * self.rows:
            return 1.0
        return float(allowed.max()) if len(allowed) else 0.0

    def calibration(self) -> pd.DataFrame:
        """Columns predicted, observed and rows, one line a bin of score."""
        import pandas as pd

        bins = self.assessment.calibration
        return pd.DataFrame({"predicted": bins.predicted, "observed": bins.observed, "rows": bins.rows})

    def to_dict(self) -> dict[str, Any]:
        """Figures, intervals and curves as plain values, for `-o` and for files; `from_dict` reads them."""
        return {"name": self.name, "party": self.party, "label": self.label, **dataclasses.asdict(self.assessment)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """An evaluation from what `to_dict` gave. Raises DataError for anything else."""
        rest = dict(values)
        names = {name: str(rest.pop(name, "")) for name in ("name", "party", "label")}
        try:
            return cls(msgspec.convert(rest, known(Assessment)), **names)
        except msgspec.ValidationError as error:
            raise DataError(f"this is no evaluation: {error}") from None

    def view(self) -> EvaluationView:
        """This evaluation for a front end."""
        said = self.assessment
        figures = {
            name: Estimate(value=figure.value, low=figure.low, high=figure.high)
            for name, figure in (("auc", said.auc), ("ks", said.ks), ("gini", said.gini), ("log_loss", said.log_loss))
        }
        if said.brier is not None:
            figures["brier"] = Estimate(value=said.brier.value, low=said.brier.low, high=said.brier.high)
        bins = said.calibration
        return EvaluationView(
            **figures,
            name=self.name,
            member=self.party,
            label=self.label,
            rows=said.rows,
            positives=said.positives,
            level=said.level,
            roc=Roc(fpr=[*said.roc.fpr], tpr=[*said.roc.tpr]),
            calibration=Calibration(predicted=[*bins.predicted], observed=[*bins.observed], rows=bins.rows),
        )

    def __repr__(self) -> str:
        return self.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view())


def evaluate(scores: Scores, y: str) -> Evaluation:
    """Have the holder of `scores` compare them with its label `y` ("bank.default") and release the figures."""
    _, label = scores.frame.find_label(y)
    return _evaluated(scores.frame, scores.ref(label=label), y)


def evaluate_folds(frame: VerticalFrame, scores: Sequence[Scores], y: str) -> Evaluation:
    """The same for scores of several models, whose rows one after the other are those of `frame`: out of fold."""
    party, label = frame.find_label(y)
    own = frame.refs()[party]
    ref = DataRef(frame=own.frame, rows=own.rows, columns=[], label=label, parts=[each.run for each in scores])
    return _evaluated(frame, ref, y)


def _evaluated(frame: VerticalFrame, ref: DataRef, y: str) -> Evaluation:
    party, _ = frame.find_label(y)
    result = frame.federation.run(
        "evaluation", cast={"active": [party]}, data={party: ref}, title=f"Evaluation on {len(frame)} rows"
    )
    try:
        said = msgspec.convert(result.public(party), known(Assessment))
    except msgspec.ValidationError as error:
        raise UnexpectedMessage(f"{party} released an evaluation that cannot be read: {error}", member=party) from None
    return Evaluation(said, name=frame.part or "all rows", party=party, label=y)
