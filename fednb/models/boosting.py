"""Gradient-boosted trees on a vertical frame, with the names of XGBoost's scikit-learn interface.

Trained as XGBoost's `hist` would be on the joined table: see `fednb.protocols.vertical_boosting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.result import RunResult
from fednb.federation.views import EnsembleView, Importance, TreeNode, bundle
from fednb.models import saved
from fednb.models.evaluation import Evaluation, evaluate
from fednb.models.fit_quality import FitQuality, fit_quality
from fednb.models.one_vs_rest import ClassEvaluation, evaluate_classes
from fednb.models.scores import Scores
from fednb.typed import known

if TYPE_CHECKING:
    import pandas as pd

    from fednb.federation.client import Federation

Count = Annotated[int, Meta(ge=0)]


class _Noticed(msgspec.Struct, frozen=True):
    notes: list[str] = []


class _Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the active party shows of an ensemble."""

    rounds: Count
    stopped: bool
    metric: str
    history: dict[str, list[float]]
    classes: list[float]
    importance: list[Importance]
    tree: list[TreeNode]
    rows: Count
    features: Count
    notes: list[str]


class _SecureBoost(BaseEstimator):  # type: ignore[misc]
    """What classifier and regressor do alike."""

    _objective: str
    _objectives: tuple[str, ...]

    def __init__(
        self,
        n_estimators: int = 30,
        *,
        objective: str | None = None,
        max_depth: int = 3,
        learning_rate: float = 0.3,
        reg_lambda: float = 1.0,
        reg_alpha: float = 0.0,
        gamma: float = 0.0,
        min_child_weight: float = 1.0,
        max_delta_step: float = 0.0,
        subsample: float = 1.0,
        colsample_bytree: float = 1.0,
        sampling_method: Literal["uniform", "goss"] = "uniform",
        top_rate: float = 0.2,
        other_rate: float = 0.1,
        max_bin: int = 32,
        scale_pos_weight: float = 1.0,
        base_score: float | None = None,
        monotone_constraints: Mapping[str, int] | None = None,
        categorical: Mapping[str, Literal["onehot", "partition", "ordered"]] | None = None,
        max_cat_to_onehot: int = 4,
        early_stopping_rounds: int | None = None,
        min_leaf: int = 10,
        min_shown: int = 0,
        purity: float = 1.0,
        active_trees: int = 0,
        anonymous_splits: bool = False,
        random_state: int = 0,
        warm_start: bool = False,
        key_bits: int = 2048,
    ) -> None:
        self.n_estimators = n_estimators
        self.objective = objective
        self.max_depth = max_depth
        self.learning_rate = learning_rate
        self.reg_lambda = reg_lambda
        self.reg_alpha = reg_alpha
        self.gamma = gamma
        self.min_child_weight = min_child_weight
        self.max_delta_step = max_delta_step
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.sampling_method = sampling_method
        self.top_rate = top_rate
        self.other_rate = other_rate
        self.max_bin = max_bin
        self.scale_pos_weight = scale_pos_weight
        self.base_score = base_score
        self.monotone_constraints = monotone_constraints
        self.categorical = categorical
        self.max_cat_to_onehot = max_cat_to_onehot
        self.early_stopping_rounds = early_stopping_rounds
        self.min_leaf = min_leaf
        self.min_shown = min_shown
        self.purity = purity
        self.active_trees = active_trees
        self.anonymous_splits = anonymous_splits
        self.random_state = random_state
        self.warm_start = warm_start
        self.key_bits = key_bits

    def fit(
        self, frame: VerticalFrame, y: str, *, eval_frame: VerticalFrame | None = None, resume: str | None = None
    ) -> Self:
        """Train on the frame's rows; `y` is the label, written "party.column".

        `eval_frame`: other rows of the same alignment, whose loss is reported and, with `early_stopping_rounds`, says
        when to stop. `resume` is the id of a fit of the same frames that was cut off (`fed.runs()` lists it): it goes
        on from its last whole round, to the same model.
        Raises DataError (the message names party and column), Refused, RunFailed.
        """
        active, label = frame.find_label(y)
        passive = [party for party in frame.parties if party != active]
        if self.early_stopping_rounds is not None and eval_frame is None:
            raise DataError("early_stopping_rounds needs rows to validate with: fit(..., eval_frame=...).")
        rows = frame if eval_frame is None else frame.joined([frame, eval_frame], frame.part)
        earlier = self._earlier(frame, y) if self.warm_start else None
        federation = frame.federation
        result = federation.resume(resume) if resume else federation.run(
            "vertical_boosting",
            cast={"active": [active], "passive": passive},
            data=rows.refs(label=(active, label), part=earlier, drop={active: [label]}),
            params=self._params(frame, 0 if eval_frame is None else len(eval_frame), warm=earlier is not None),
            title=f"{type(self).__name__} on {', '.join(frame.parties)}",
        )  # fmt: skip
        self._learned(frame, result, active, label)
        return self

    def evaluate(self, frame: VerticalFrame) -> Evaluation | ClassEvaluation | FitQuality:
        """How good predictions of the frame's rows are, released as aggregates by the active party.

        For two classes an `Evaluation` (AUC, KS and the rest), for more a `ClassEvaluation`, for numbers `FitQuality`.
        """
        scores = self._predict(frame)
        if self.objective_ == "binary:logistic":
            self.evaluation_ = evaluate(scores, self.label_)
            return self.evaluation_
        if self.objective_ == "multi:softprob":
            return evaluate_classes(frame, self.label_, [scores], self.classes_.tolist())
        return fit_quality(scores, self.label_)

    def explain(self, frame: VerticalFrame, name: str) -> str:
        """Have the active party keep, as its table `name`, what each party contributes to each row's margin.

        Columns: `mean`, the margin of an average row, and one for each party: Shapley values with the parties as
        players. They add up to the margin. Nothing of it comes here; the name of the table does.
        """
        self._predict(frame, explain=name)
        return f"{self.label_.partition('.')[0]}.{name}"

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of the fitted model to a file; each party puts its own part aside.

        `load` puts them together again: in another session, and on new rows after a fresh alignment.
        """
        saved.write(Path(path), self._saved(federation))
        return self

    def _saved(self, federation: Federation) -> saved.SavedBoosting:
        check_is_fitted(self, "run_")
        run, seals = saved.keep(federation, dict.fromkeys(self.feature_names_in_, self.run_))
        return saved.SavedBoosting(
            estimator=type(self).__name__,  # type: ignore[arg-type]
            params=saved.plain_params(self.get_params()),
            run=run,
            label=self.label_,
            objective=self.objective_,
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            seals=seals,
            classes=self.classes_.tolist() if hasattr(self, "classes_") else [],
            rounds=self.n_rounds_,
            metric=self.metric_,
            history={str(name): self.history_[name].astype(float).tolist() for name in self.history_},
            importance=self._importances(),
            rows=self.n_rows_,
            notes=self._fit_notes,
            seconds=self.seconds_,
            bytes=self.bytes_,
            operations=self.operations_,
        )

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The model that `save` wrote. DataError when the file or a party's part is not as it was saved."""
        kept = saved.read(Path(path), saved.SavedBoosting)
        if kept.estimator != cls.__name__:
            raise DataError(f"{path} holds a {kept.estimator}: use {kept.estimator}.load.")
        saved.check(federation, kept)
        return cls._loaded(kept, path)

    @classmethod
    def _loaded(cls, kept: saved.SavedBoosting, path: str | Path) -> Self:
        """The estimator of what was saved."""
        import pandas as pd

        model = saved.made(cls, kept, path)
        model.run_, model.label_, model.objective_ = kept.run, kept.label, kept.objective
        if kept.classes:
            model.classes_ = np.array(kept.classes)
        model.feature_names_in_ = {party: tuple(names) for party, names in kept.features.items()}
        model.n_features_in_ = sum(len(names) for names in kept.features.values())
        model.n_rounds_, model.metric_ = kept.rounds, kept.metric
        model.history_ = pd.DataFrame(kept.history).astype({"round": int})
        model.feature_importances_ = _importance_table(kept.importance)
        model.tree_ = []
        model._fit_notes, model.notes_ = [*kept.notes], [*kept.notes]
        model.seconds_, model.bytes_, model.operations_ = kept.seconds, kept.bytes, dict(kept.operations)
        model.n_rows_ = kept.rows
        return model

    def _predict(self, frame: VerticalFrame, *, explain: str = "") -> Scores:
        check_is_fitted(self, "run_")
        for party, names in self.feature_names_in_.items():
            missing = [name for name in names if name not in frame.columns.get(party, ())]
            if missing:
                raise DataError(f"the model was trained on {party}'s {', '.join(missing)}, which this frame lacks.")
        active = self.label_.partition(".")[0]  # the label itself is not needed: new rows may have none yet
        drop = {
            party: [name for name in names if name not in self.feature_names_in_[party]]
            for party, names in frame.columns.items()
        }
        result = frame.federation.run(
            "boosting_score",
            # in the order of the fit, which the trees refer to
            cast={"active": [active], "passive": [party for party in self.feature_names_in_ if party != active]},
            data=frame.refs(part=self.run_, drop=drop),
            params={"explain": explain},
            title=f"{'Explaining' if explain else 'Scoring'} {len(frame)} rows",
        )
        self.notes_ = [*self._fit_notes, *_notes(result, self.feature_names_in_)]
        return Scores(frame, result.run, active)

    def _params(self, frame: VerticalFrame, validation: int, *, warm: bool) -> dict[str, Any]:
        """As the protocol takes them."""
        objective = self.objective or self._objective
        if objective not in self._objectives:
            raise DataError(f"{type(self).__name__} knows {', '.join(self._objectives)}, not {objective!r}.")
        signs = {feature: int(sign) for feature, sign in (self.monotone_constraints or {}).items()}
        own = {name: value for name, value in self.get_params().items() if name != "warm_start"}
        return {
            **{name: _plain(value) for name, value in own.items()},
            "objective": objective,
            "monotone_constraints": _by_party(frame, "a monotone constraint", signs),
            "categorical": _by_party(frame, "categorical", self.categorical or {}),
            "validation": validation,
            "warm_start": warm,
        }

    def _earlier(self, frame: VerticalFrame, y: str) -> str | None:
        """The run to go on from: this object's last fit."""
        if not hasattr(self, "run_"):
            return None
        active, label = frame.find_label(y)
        if y.partition(".")[0] != self.label_.partition(".")[0] or _features(frame, active, label) != (
            self.feature_names_in_
        ):
            raise DataError("a warm start needs the features of the last fit, and the label at the same party.")
        return self.run_

    def _learned(self, frame: VerticalFrame, result: RunResult, active: str, label: str) -> None:
        import pandas as pd

        said = result.read(active, _Released)
        columns = _features(frame, active, label)
        if {row.party for row in said.importance} - set(columns):
            raise UnexpectedMessage(f"{active} released importances of parties that took no part", member=active)
        self.run_ = result.run
        self.label_ = f"{active}.{label}"
        self.objective_ = self.objective or self._objective
        if said.classes:
            self.classes_ = np.array(said.classes)
        self.feature_names_in_ = columns
        self.n_features_in_ = sum(len(names) for names in columns.values())
        self.n_rounds_ = said.rounds
        self.metric_ = said.metric
        self.history_: pd.DataFrame = pd.DataFrame(said.history).astype({"round": int})
        self.feature_importances_ = _importance_table(said.importance)
        self.tree_ = said.tree
        self._fit_notes = [*result.notices, *_notes(result, columns)]
        self.notes_ = [*self._fit_notes]
        self.seconds_, self.bytes_, self.operations_ = result.seconds, result.bytes, result.operations
        self.n_rows_ = len(frame)
        self.__dict__.pop("evaluation_", None)

    def _chosen(self) -> dict[str, Any]:
        """The parameters that are worth telling: those that most people look for, and what is not as usual."""
        usual, always = type(self)().get_params(), ("n_estimators", "max_depth", "learning_rate", "max_bin", "min_leaf")
        own = {name: _plain(value) for name, value in self.get_params().items() if not isinstance(value, Mapping)}
        return {name: own[name] for name in (*always, *own) if name in always or own[name] != usual[name]}

    def _importances(self) -> list[Importance]:
        return msgspec.convert(self.feature_importances_.to_dict("records"), known(list[Importance]))

    def view(self) -> EnsembleView:
        """This model for a front end."""
        evaluation = getattr(self, "evaluation_", None)
        return EnsembleView(
            title=type(self).__name__,
            members=list(self.feature_names_in_),
            importance=self._importances(),
            tree=self.tree_,
            run=self.run_,
            label=self.label_,
            rows=self.n_rows_,
            rounds=self.n_rounds_,
            metric=self.metric_,
            seconds=self.seconds_,
            params=self._chosen(),
            history={str(name): self.history_[name].tolist() for name in self.history_ if name != "round"},
            operations=self.operations_,
            bytes=self.bytes_,
            notes=self.notes_,
            evaluation=evaluation.view() if evaluation else None,
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        if not hasattr(self, "run_"):
            return {"text/plain": repr(self)}
        return bundle(self.view())


def _notes(result: RunResult, parties: Iterable[str]) -> list[str]:
    """What each party noticed in a run."""
    return [note for party in parties for note in result.read(party, _Noticed).notes]


_DOC = """{what}, whose features and label lie at different parties.

    Parameters
    ----------
    n_estimators, max_depth, learning_rate, reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step, subsample,
    colsample_bytree, scale_pos_weight, base_score : as in XGBoost.
    objective : {objectives}.
    max_bin : bins of each feature, by its quantiles; its values where they are as few. Missing values need none.
    monotone_constraints : {{"party.column": 1 or -1}}. All members of the run see them.
    categorical : {{"party.column": how}}, for columns of categories, in text or in numbers. "onehot": a split is one
        category against the others; "partition": it is any set of them against the others, as in XGBoost; "ordered":
        each becomes the mean of the label over earlier rows in a random order (CatBoost), at the party of the label
        only, because another one would learn its labels. Text that is not named is "onehot" below `max_cat_to_onehot`
        categories, and otherwise "partition". A category that no training row had goes where missing values go.
    early_stopping_rounds : stop when the loss of `eval_frame` has not fallen for so many rounds; the best one counts.
    sampling_method : "uniform", by `subsample`, or "goss": the share `top_rate` of rows with the largest gradients and
        a random share `other_rate` of all. Passive parties then see which rows have large gradients.
    min_leaf : rows on either side of any split; every passive party sees to it. 1 gives XGBoost's own trees.
    min_shown : passive parties see which rows are in a node only where these are as many; smaller ones are split by the
        active party's features alone.
    purity : undo splits with a child that has more than this share of one class, 0.5 to 1.
    active_trees : first rounds that the active party makes alone, and shows nobody.
    anonymous_splits : passive parties show all their splits mixed, so that nobody sees which are of one feature.
    random_state : of sampling, the same at all members.
    warm_start : go on from the trees of this object's last fit, up to `n_estimators` rounds in all.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    feature_importances_ : DataFrame of party, feature, gain and cover (sums) and frequency (number of splits), best
        first; a passive party's features as "#3", numbers that it alone can resolve.
    history_ : DataFrame of round, loss and, with `eval_frame`, validation_loss; n_rounds_ : int, rounds that count;
    tree_ : nodes of the first tree, without cut points; run_ : the run's id; label_ : "bank.default";
    feature_names_in_ : dict of party to names; notes_ : list of str, of the fit and the last scoring;
        classes_ : ndarray, the label's, for classes.
    """


class SecureBoostClassifier(_SecureBoost):
    __doc__ = _DOC.format(
        what="Boosted trees for classes", objectives='"binary:logistic", for a label of 0 and 1, or "multi:softprob"'
    )

    _objective = "binary:logistic"
    _objectives = ("binary:logistic", "multi:softprob")

    def predict_proba(self, frame: VerticalFrame) -> Scores:
        """Score the frame's rows. The probabilities stay at the active party; this is a handle on them."""
        return self._predict(frame)


class SecureBoostRegressor(_SecureBoost):
    __doc__ = _DOC.format(
        what="Boosted trees for amounts and counts", objectives='"reg:squarederror" or "count:poisson"'
    )

    _objective = "reg:squarederror"
    _objectives = ("reg:squarederror", "count:poisson")

    def predict(self, frame: VerticalFrame) -> Scores:
        """Predict the frame's rows. The values stay at the active party; this is a handle on them."""
        return self._predict(frame)


_IMPORTANCE = ["party", "feature", "gain", "cover", "frequency"]


def _features(frame: VerticalFrame, active: str, label: str) -> dict[str, tuple[str, ...]]:
    return {
        party: tuple(name for name in frame.columns[party] if (party, name) != (active, label))
        for party in frame.parties
    }


def _by_party(frame: VerticalFrame, what: str, by_feature: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of "party.column"; DataError where the frame has none."""
    found: dict[str, dict[str, Any]] = {}
    for feature, value in by_feature.items():
        party, _, column = feature.partition(".")
        if column not in frame.columns.get(party, ()):
            raise DataError(f"{what} names {feature!r}, which is no party.column of this frame.")
        found.setdefault(party, {})[column] = value
    return found


def _importance_table(rows: list[Importance]) -> pd.DataFrame:
    """Best first."""
    import pandas as pd

    table = pd.DataFrame([msgspec.structs.asdict(row) for row in rows], columns=_IMPORTANCE)
    return table.sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value
