"""Logistic regression on a vertical frame, with scikit-learn's conventions: see `fednb.protocols.vertical_logistic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import msgspec
import numpy as np

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.result import RunResult
from fednb.models import saved
from fednb.models.cost import Cost, estimate
from fednb.models.evaluation import Evaluation, evaluate
from fednb.models.regression import VerticalRegression
from fednb.models.scores import Scores
from fednb.protocols.vertical_logistic import LogisticParams
from fednb.typed import known

Interval = tuple[float | None, float | None]


class VerticalLogisticRegression(VerticalRegression):
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
    bounds : of coefficients: {"bank.income": (least, most), ...}, None for no bound; or one pair for all features.
        (None, 0) suits weights of evidence, whose coefficients have one sign. A passive party accepts 0 and None only:
        with coefficients of your choice, scores would be a code for its features.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    coef_ : dict of party to pandas.Series (per standardised feature if `standardize`) or `Withheld`. A passive
        party's coefficients are visible to itself only, unless its policy releases them.
    intercept_ : float; n_iter_ : int; converged_ : bool; history_ : DataFrame, one row an iteration;
    run_ : the run's id; feature_names_in_ : dict of party to names; label_ : "bank.default";
    cost_ : the last estimate by `cost`, where it was asked.
    standard_errors_ : dict as `coef_`, after `add_standard_errors(train)`; None before, and where an owner does not
        agree: `no_standard_errors_` says why. `summary()` shows them with tests and intervals.
    """

    protocol = "vertical_logistic"
    family = "logistic"
    kept = saved.SavedLogistic

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
        bounds: Mapping[str, Interval] | Interval | None = None,
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
        self.bounds = bounds
        self.key_bits = key_bits

    def fit(self, frame: VerticalFrame, y: str, *, resume: str | None = None, positive: float | None = None) -> Self:
        """Train on the frame's rows; `y` is the label, written "party.column".

        Features are all columns of the frame except ids, declared labels and y. `resume` is the id of a fit of the
        same frame that was cut off (`fed.runs()` lists it): it goes on from its last step, to the same model.
        `positive` is the value of the label to learn against all others, where it is not 0 and 1. Raises DataError (the
        message names party and column), QuotaExceeded, Refused, RunFailed.
        """
        self._bounds: dict[str, dict[str, Interval]] = self._bounds_of(frame, y)
        self._positive = None if positive is None else float(positive)
        super().fit(frame, y, resume=resume)
        frame.federation.iterations[self._alike(frame, y)] = self.n_iter_
        return self

    def cost(self, frame: VerticalFrame, y: str) -> Cost:
        """What `fit(frame, y)` would take: minutes, bytes and who spends them, before anything is trained.

        Every member that would take part measures its own machine for about a second; it also shows how fast its
        machine is, and nothing of its data. Kept as `cost_`: the next fit of as many rows notes what it came to.
        The number of iterations is what a fit with the same features took before, in this session, or else a guess.
        """
        active, label = frame.find_label(y)
        self._bounds, self._positive = self._bounds_of(frame, y), None
        params = msgspec.convert(self._params(), known(LogisticParams))
        taken = frame.federation.iterations.get(self._alike(frame, y))
        self.cost_ = estimate(frame, self._features(frame, active, label), active, params, taken=taken)
        return self.cost_

    def _alike(self, frame: VerticalFrame, y: str) -> str:
        """The same for fits that take about as many iterations: all but the rows and the penalty's strength."""
        features = self._features(frame, *frame.find_label(y))
        return msgspec.json.encode([y, features, {**self._params(), "C": None}], order="deterministic").decode()

    def _params(self) -> dict[str, Any]:
        """As the protocol takes them."""
        return super()._params() | {
            "C": float(self.C),
            "l1_ratio": _l1_ratio(self.penalty, self.l1_ratio),
            "batch_size": None if self.batch_size is None else int(self.batch_size),
            "class_weight": class_weight_of(self.class_weight),
            "bounds": self._bounds,
            "positive": self._positive,
        }

    def _penalty(self, rows: int) -> float:
        return 1.0 / float(self.C)

    def _no_errors(self) -> str:
        if _l1_ratio(self.penalty, self.l1_ratio):
            return "what L1 sets to zero has no standard error; fit what is left with penalty='l2'"
        if self.bounds is not None:
            return "coefficients that may end at a bound have no standard errors; fit without bounds"
        if self.class_weight is not None:
            return "with class weights a fit is no maximum of a likelihood; fit without class_weight"
        return ""

    def _error_params(self) -> dict[str, Any]:
        return {"positive": getattr(self, "_positive", None)}

    def predict_proba(self, frame: VerticalFrame) -> Scores:
        """Score the frame's rows. The scores stay at the active party; this is a handle on them."""
        return self._predict(frame)

    def evaluate(self, frame: VerticalFrame) -> Evaluation:
        """AUC, KS and the rest on the frame's rows, released as aggregates by the active party."""
        scores = self.predict_proba(frame)
        evaluation = evaluate(scores, self.label_)
        self.evaluation_ = evaluation
        return evaluation

    def _learned(self, frame: VerticalFrame, result: RunResult, active: str, label: str) -> None:
        super()._learned(frame, result, active, label)
        self.classes_ = np.array([0, 1])

    @classmethod
    def _loaded(cls, kept: Any, path: str | Path) -> Self:
        model = super()._loaded(kept, path)
        model.classes_ = np.array([0, 1])
        return model

    def _bounds_of(self, frame: VerticalFrame, y: str) -> dict[str, dict[str, Interval]]:
        """As the protocol takes them."""
        if self.bounds is None:
            return {}
        features = self._features(frame, *frame.find_label(y))
        if not isinstance(self.bounds, Mapping):
            return {party: dict.fromkeys(names, _interval(self.bounds)) for party, names in features.items() if names}
        given: dict[str, dict[str, Interval]] = {}
        for feature, pair in self.bounds.items():
            party, _, column = feature.partition(".")
            if column not in features.get(party, ()):
                raise DataError(f"bounds were given for {feature!r}, which is no party.column of the features.")
            given.setdefault(party, {})[column] = _interval(pair)
        return given


def _interval(pair: Sequence[float | None]) -> Interval:
    if len(pair) != 2:
        raise DataError(f"bounds are a pair (least, most), with None for no bound, not {pair!r}.")
    least, most = (None if x is None or np.isinf(x) else float(x) for x in pair)
    return least, most


def class_weight_of(given: object) -> str | list[float] | None:
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
