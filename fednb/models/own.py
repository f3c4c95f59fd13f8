"""The model that the label's party has without a partner, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.models import saved
from fednb.models.evaluation import Evaluation, evaluate
from fednb.models.logistic import class_weight_of
from fednb.models.scores import Scores

if TYPE_CHECKING:
    from fednb.federation.client import Federation


class _Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    coef: Any  # a list, or an array where the party releases coefficients anyway
    intercept: float
    rows: int


class OwnLogisticRegression(BaseEstimator):  # type: ignore[misc]
    """Logistic regression on the features of the party that holds the label, fitted and kept there.

    What a partner's features are worth is the difference to this: `compare_scores(own.predict_proba(test),
    model.predict_proba(test), y)`. Rows are those of the frame, so both models see the same.

    Parameters
    ----------
    C, standardize, clip, class_weight : as in `VerticalLogisticRegression`.

    Attributes
    ----------
    coef_ : pandas.Series; intercept_ : float; feature_names_in_ : dict of the party to names; label_ : "bank.default";
    n_rows_ : int; run_ : the run's id.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        standardize: bool = True,
        clip: float | None = 4.0,
        class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
    ) -> None:
        self.C = C
        self.standardize = standardize
        self.clip = clip
        self.class_weight = class_weight

    def fit(self, frame: VerticalFrame, y: str) -> Self:
        """Train on the frame's rows, at the party of the label `y` ("bank.default")."""
        import pandas as pd

        party, label = frame.find_label(y)
        names = tuple(name for name in frame.columns[party] if name != label)
        ref = frame.refs(label=(party, label), drop={party: [label]})[party]
        result = frame.federation.run(
            "own_logistic",
            cast={"active": [party]},
            data={party: ref},
            params={
                "C": float(self.C),
                "standardize": bool(self.standardize),
                "clip": None if self.clip is None else float(self.clip),
                "class_weight": class_weight_of(self.class_weight),
            },
            title=f"{type(self).__name__} at {party}",
        )
        said = result.read(party, _Fitted)
        try:
            coef = np.asarray(said.coef, dtype=np.float64)
        except (TypeError, ValueError):
            coef = np.empty(0)
        if coef.shape != (len(names),):
            raise UnexpectedMessage(f"{party} released no {len(names)} coefficients", member=party)
        self.run_ = result.run
        self.label_ = y
        self.classes_ = np.array([0, 1])
        self.feature_names_in_ = {party: names}
        self.coef_ = pd.Series(coef, index=list(names), name=party)
        self.intercept_, self.n_rows_, self.seconds_ = said.intercept, said.rows, result.seconds
        return self

    def predict_proba(self, frame: VerticalFrame) -> Scores:
        """Score the frame's rows. The scores stay at the party; this is a handle on them."""
        check_is_fitted(self, "run_")
        ((party, names),) = self.feature_names_in_.items()
        missing = [name for name in names if name not in frame.columns.get(party, ())]
        if missing:
            raise DataError(f"the model was trained on {party}'s {', '.join(missing)}, which this frame lacks.")
        ref = msgspec.structs.replace(frame.refs(part=self.run_)[party], columns=list(names))
        result = frame.federation.run(
            "own_score", cast={"active": [party]}, data={party: ref}, title=f"Scoring {len(frame)} rows"
        )
        return Scores(frame, result.run, party)

    def evaluate(self, frame: VerticalFrame) -> Evaluation:
        """AUC, KS and the rest on the frame's rows, released as aggregates."""
        return evaluate(self.predict_proba(frame), self.label_)

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write the model to a file; its party puts its part aside. `fednb serve` can fall back to it."""
        check_is_fitted(self, "run_")
        ((party, names),) = self.feature_names_in_.items()
        run, seals = saved.keep(federation, {party: self.run_})
        kept = saved.SavedOwn(
            params=saved.plain_params(self.get_params()),
            run=run,
            label=self.label_,
            features={party: list(names)},
            seals=seals,
            coef=self.coef_.tolist(),
            intercept=self.intercept_,
            rows=self.n_rows_,
        )
        saved.write(Path(path), kept)
        return self

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The model that `save` wrote. DataError when the file or the party's part is not as it was saved."""
        import pandas as pd

        kept = saved.read(Path(path), saved.SavedOwn)
        model = saved.made(cls, kept, path)
        saved.check(federation, kept)
        ((party, names),) = kept.features.items()
        model.run_, model.label_, model.classes_ = kept.run, kept.label, np.array([0, 1])
        model.feature_names_in_ = {party: tuple(names)}
        model.coef_ = pd.Series(kept.coef, index=names, name=party)
        model.intercept_, model.n_rows_ = kept.intercept, kept.rows
        return model
