"""Logistic regression on a vertical frame, with scikit-learn's conventions.

Trained by the four steps of FedRiskCtrl (Cheng et al., CACM 2020): see `fednb.protocols.vertical_logistic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.result import RunResult
from fednb.federation.views import Coefficients, ModelView, bundle
from fednb.models import saved
from fednb.models.cost import Cost, estimate
from fednb.models.evaluation import Evaluation, evaluate
from fednb.models.scores import Scores
from fednb.protocols.vertical_logistic import LogisticParams
from fednb.typed import known

if TYPE_CHECKING:
    import pandas as pd

    from fednb.federation.client import Federation


class Withheld:
    """Stands where a party's coefficients would: only that party sees them."""

    def __init__(self, party: str, columns: tuple[str, ...]) -> None:
        self.party = party
        self.columns = columns

    reason = "only this party sees them"

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<{len(self)} coefficients of {self.party}: {self.reason}>"


class VerticalLogisticRegression(BaseEstimator):  # type: ignore[misc]
    """Binary logistic regression whose features and label lie at different parties.

    Minimises scikit-learn's objective, penalty(w) + C * sum(log loss), without penalising the intercept. Each party
    standardises and winsorises its own features with figures of its training rows.

    Parameters
    ----------
    C : inverse strength of the penalty, > 0.
    penalty : "l2", 0.5 * w'w; "l1", sum(abs(w)), which makes coefficients exactly zero; or "elasticnet".
    l1_ratio : for "elasticnet" only: l1_ratio * L1 + (1 - l1_ratio) * L2.
    max_iter : at most this many iterations.
    batch_size : rows of an iteration, nearly; None: all. Batches are spread over the frame and taken in turn, steps are
        not accelerated, and (without L1) coefficients are the mean of those after each of the later iterations. For
        many rows: what the rows of one batch cannot tell apart stays in the coefficients. Training ends with max_iter
        more often than by tol.
    tol : stop when the largest entry of the mean gradient is below this.
    standardize : scale each feature to mean 0 and standard deviation 1.
    clip : winsorise at this many standard deviations; None: leave tails (may diverge, which is detected).
    class_weight : None, "balanced" or {0: a, 1: b}, with scikit-learn's meaning. Which row counts how much stays with
        the party that has the label; "balanced" does not tell the others how many rows a class has.
    warm_start : start from each party's own coefficients of this object's last fit, instead of from zero. Features
        must be the same; rows may be others, and figures for standardising are always those of the rows in this fit.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    coef_ : dict of party to pandas.Series (per standardised feature if `standardize`) or `Withheld`. A passive
        party's coefficients are visible to itself only, unless its policy releases them.
    intercept_ : float; n_iter_ : int; converged_ : bool; history_ : DataFrame, one row an iteration;
    run_ : the run's id; feature_names_in_ : dict of party to names; label_ : "bank.default";
    cost_ : the last estimate by `cost`, where it was asked.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        penalty: Literal["l2", "l1", "elasticnet"] = "l2",
        l1_ratio: float | None = None,
        max_iter: int = 20,
        batch_size: int | None = None,
        tol: float = 5e-4,
        standardize: bool = True,
        clip: float | None = 4.0,
        class_weight: Literal["balanced"] | Mapping[int, float] | None = None,
        warm_start: bool = False,
        key_bits: int = 2048,
    ) -> None:
        self.C = C
        self.penalty = penalty
        self.l1_ratio = l1_ratio
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.tol = tol
        self.standardize = standardize
        self.clip = clip
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.key_bits = key_bits

    def fit(self, frame: VerticalFrame, y: str, *, resume: str | None = None) -> Self:
        """Train on the frame's rows; `y` is the label, written "party.column".

        Features are all columns of the frame except ids, declared labels and y. `resume` is the id of a fit of the
        same frame that was cut off (`fed.runs()` lists it): it goes on from its last step, to the same model.
        Raises DataError (the message names party and column), QuotaExceeded, Refused, RunFailed.
        """
        active, label = frame.find_label(y)
        passive = [party for party in frame.parties if party != active]
        federation = frame.federation
        drop = {active: [label]}
        earlier = self._earlier(frame, y) if self.warm_start else None
        cost = getattr(self, "cost_", None)
        expected = cost if cost and cost.rows == len(frame) and not resume else None
        result = (
            federation.resume(resume)
            if resume
            else federation.run(
                "vertical_logistic",
                cast={"active": [active], "passive": passive, "coordinator": [federation.coordinator]},
                data=frame.refs(label=(active, label), part=earlier, drop=drop),
                params=self._params(warm_start=earlier is not None),
                title=f"{type(self).__name__} on {', '.join(frame.parties)}",
                estimate=expected.to_message() if expected else None,
            )
        )
        self._learned(frame, result, active, label)
        if expected:
            self.notes_.append(expected.beside(self.seconds_, self.bytes_, self.n_iter_))
        return self

    def cost(self, frame: VerticalFrame, y: str) -> Cost:
        """What `fit(frame, y)` would take: minutes, bytes and who spends them, before anything is trained.

        Every member that would take part measures its own machine for about a second; it also shows how fast its
        machine is, and nothing of its data. Kept as `cost_`: the next fit of as many rows notes what it came to.
        """
        active, label = frame.find_label(y)
        params = msgspec.convert(self._params(), known(LogisticParams))
        self.cost_ = estimate(frame, self._features(frame, active, label), active, params)
        return self.cost_

    def _params(self, *, warm_start: bool = False) -> dict[str, Any]:
        """As the protocol takes them."""
        return {
            "C": float(self.C),
            "l1_ratio": _l1_ratio(self.penalty, self.l1_ratio),
            "max_iter": int(self.max_iter),
            "batch_size": None if self.batch_size is None else int(self.batch_size),
            "tol": float(self.tol),
            "standardize": bool(self.standardize),
            "clip": None if self.clip is None else float(self.clip),
            "class_weight": _class_weight(self.class_weight),
            "warm_start": warm_start,
            "key_bits": int(self.key_bits),
        }

    def predict_proba(self, frame: VerticalFrame) -> Scores:
        """Score the frame's rows. The scores stay at the active party; this is a handle on them."""
        check_is_fitted(self, "run_")
        self._check_frame(frame)
        active, _ = frame.find_label(self.label_)
        passive = [party for party in frame.parties if party != active]
        result = frame.federation.run(
            "vertical_score",
            cast={"active": [active], "passive": passive},
            data=self._refs(frame),
            title=f"Scoring {len(frame)} rows",
        )
        return Scores(frame, result.run, active)

    def evaluate(self, frame: VerticalFrame) -> Evaluation:
        """AUC, KS and the rest on the frame's rows, released as aggregates by the active party."""
        scores = self.predict_proba(frame)
        evaluation = evaluate(scores, self.label_)
        self.evaluation_ = evaluation
        return evaluation

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of the fitted model to a file; each party puts its own part aside.

        `load` puts them together again: in another session, and on new rows after a fresh alignment.
        """
        check_is_fitted(self, "run_")
        run, seals = saved.keep(federation, self.run_, list(self.feature_names_in_))
        model = saved.SavedLogistic(
            params=saved.plain_params(self.get_params()),
            run=run,
            label=self.label_,
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            seals=seals,
            coef={party: c.tolist() for party, c in self.coef_.items() if not isinstance(c, Withheld)},
            intercept=self.intercept_,
            iterations=self.n_iter_,
            converged=self.converged_,
            history={str(name): self.history_[name].astype(float).tolist() for name in self.history_},
            rows=self.n_rows_,
            notes=self.notes_,
            seconds=self.seconds_,
            bytes=self.bytes_,
            operations=self.operations_,
        )
        saved.write(Path(path), model)
        return self

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The model that `save` wrote. DataError when the file or a party's part is not as it was saved."""
        import pandas as pd

        kept = saved.read(Path(path))
        try:
            model = cls(**saved.real_params(kept.params))
        except (TypeError, ValueError):
            raise DataError(f"{path} has parameters that {cls.__name__} does not know.") from None
        saved.check(federation, kept)
        model.run_ = kept.run
        model.label_ = kept.label
        model.classes_ = np.array([0, 1])
        model.feature_names_in_ = {party: tuple(names) for party, names in kept.features.items()}
        model.n_features_in_ = sum(len(names) for names in kept.features.values())
        model.intercept_ = kept.intercept
        model.n_iter_, model.converged_ = kept.iterations, kept.converged
        model.history_ = pd.DataFrame(kept.history).astype({"iteration": int})
        model.coef_ = {
            party: pd.Series(kept.coef[party], index=names, name=party)
            if party in kept.coef
            else Withheld(party, tuple(names))
            for party, names in kept.features.items()
        }
        model.notes_ = [*kept.notes]
        model.seconds_, model.bytes_, model.operations_ = kept.seconds, kept.bytes, dict(kept.operations)
        model.n_rows_ = kept.rows
        return model

    def _earlier(self, frame: VerticalFrame, y: str) -> str | None:
        """The run to start from: this object's last fit."""
        if not hasattr(self, "run_"):
            return None
        active, label = frame.find_label(y)
        if y.partition(".")[0] != self.label_.partition(".")[0]:
            raise DataError(f"a warm start needs the label at the same party: {self.label_} before, {y} now.")
        if self._features(frame, active, label) != self.feature_names_in_:
            raise DataError("a warm start needs the features of the last fit; this frame has others. Fit a new model.")
        return self.run_

    @staticmethod
    def _features(frame: VerticalFrame, active: str, label: str) -> dict[str, tuple[str, ...]]:
        return {
            party: tuple(name for name in names if (party, name) != (active, label))
            for party, names in frame.columns.items()
        }

    def _learned(self, frame: VerticalFrame, result: RunResult, active: str, label: str) -> None:
        import pandas as pd

        columns = self._features(frame, active, label)
        own = result.public(active)
        self.run_ = result.run
        self.label_ = f"{active}.{label}"
        self.classes_ = np.array([0, 1])
        self.feature_names_in_ = columns
        self.n_features_in_ = sum(len(names) for names in columns.values())
        self.intercept_ = float(own["intercept"])
        self.n_iter_ = int(own["n_iter"])
        self.converged_ = bool(own["converged"])
        self.history_: pd.DataFrame = pd.DataFrame(own["history"])
        self.coef_: dict[str, pd.Series | Withheld] = {}
        for party, names in columns.items():
            public = result.public(party)
            if "coef" in public:
                values = np.asarray(public["coef"], dtype=np.float64)
                if values.shape != (len(names),):
                    raise DataError(f"{party} released {values.size} coefficients for {len(names)} features.")
                self.coef_[party] = pd.Series(values, index=list(names), name=party)
            else:
                self.coef_[party] = Withheld(party, names)
        self.notes_ = [*result.notices, *(str(note) for note in own.get("notes", []))]
        self.seconds_ = result.seconds
        self.bytes_ = result.bytes
        self.operations_ = result.operations
        self.n_rows_ = len(frame)
        self.__dict__.pop("evaluation_", None)

    def _refs(self, frame: VerticalFrame) -> Mapping[str, Any]:
        drop = {
            party: [name for name in names if name not in self.feature_names_in_[party]]
            for party, names in frame.columns.items()
        }
        return frame.refs(part=self.run_, drop=drop)

    def _check_frame(self, frame: VerticalFrame) -> None:
        for party, names in self.feature_names_in_.items():
            missing = [name for name in names if name not in frame.columns.get(party, ())]
            if missing:
                raise DataError(f"the model was trained on {party}'s {', '.join(missing)}, which this frame lacks.")

    def view(self) -> ModelView:
        """This model for a front end."""
        evaluation = getattr(self, "evaluation_", None)
        return ModelView(
            title=type(self).__name__,
            parts=[
                Coefficients(member=party, columns=list(coef.columns), withheld=coef.reason)
                if isinstance(coef, Withheld)
                else Coefficients(member=party, columns=list(coef.index), values=coef.tolist())
                for party, coef in self.coef_.items()
            ],
            run=self.run_,
            label=self.label_,
            intercept=self.intercept_,
            rows=self.n_rows_,
            iterations=self.n_iter_,
            converged=self.converged_,
            seconds=self.seconds_,
            params=self.get_params(),
            history={str(name): self.history_[name].tolist() for name in self.history_ if name != "iteration"},
            operations=self.operations_,
            bytes=self.bytes_,
            notes=self.notes_,
            evaluation=evaluation.view() if evaluation else None,
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        if not hasattr(self, "run_"):
            return {"text/plain": repr(self)}
        return bundle(self.view())


def _class_weight(given: object) -> str | list[float] | None:
    """As the protocol takes it: weights of class 0 and class 1, 1 where none is given, as in scikit-learn."""
    if given is None or given == "balanced":
        return given
    if not isinstance(given, Mapping) or not set(given) <= {0, 1}:
        raise DataError(f"class_weight is None, 'balanced' or {{0: ..., 1: ...}}, not {given!r}.")
    return [float(given.get(label, 1.0)) for label in (0, 1)]


def _l1_ratio(penalty: str, given: float | None) -> float:
    """The share of L1 that `penalty` and `l1_ratio` mean together."""
    if penalty not in ("l2", "l1", "elasticnet"):
        raise DataError(f"penalty is 'l2', 'l1' or 'elasticnet', not {penalty!r}.")
    if penalty == "elasticnet":
        if given is None or not 0 <= given <= 1:
            raise DataError(f"penalty='elasticnet' needs an l1_ratio between 0 and 1, not {given!r}.")
        return float(given)
    if given is not None and given != float(penalty == "l1"):
        raise DataError(f"l1_ratio={given!r} has a meaning with penalty='elasticnet' only, not with {penalty!r}.")
    return float(penalty == "l1")
