"""Cross-validation and grid search on an aligned frame: folds are positions, so nothing is aligned again.

Of each fold come aggregates only. Transformers before the model (in a `VerticalPipeline`) are fitted on the training
rows of each fold, once for all candidates that leave their parameters alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.progress import Steps
from fednb.models.evaluation import Evaluation, evaluate, evaluate_folds
from fednb.models.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("auc", "ks", "gini", "log_loss")
HELD = 0.2  # share of a fold's training rows that a model stops by


def cross_validate(
    estimator: Any, frame: VerticalFrame, y: str, *, cv: int = 5, random_state: int | None = 0
) -> pd.DataFrame:
    """Figures of an estimator of probabilities, or of a Pipeline that ends in one, on rows that it was not fitted on.

    One line a fold, and one, "out of fold", for the scores of all folds taken together: columns auc, ks, gini,
    log_loss, rows, positives and seconds. A model with `early_stopping_rounds` keeps a fifth of a fold's training rows
    to stop by. Folds are scikit-learn's `KFold(cv, shuffle=True, random_state=...)`.
    """
    import pandas as pd

    folds = _Folds(frame, y, cv, random_state)
    lines, scored = [], []
    with Steps("Cross-validation", cv) as steps:
        for k in range(cv):
            steps.begin(f"fold {k + 1} of {cv}")
            scores, found, seconds = folds.run(k, clone(estimator))
            scored.append(scores)
            lines.append(_line(found) | {"seconds": seconds})
            steps.done()
    together = evaluate_folds(frame.joined(folds.tests, "out of fold"), scored, y)
    lines.append(_line(together) | {"seconds": sum(line["seconds"] for line in lines)})
    return pd.DataFrame(lines, index=pd.Index([*range(1, cv + 1), "out of fold"], name="fold"))


class VerticalGridSearch(BaseEstimator):  # type: ignore[misc]
    """The best of a grid of parameters by cross-validation, as scikit-learn's `GridSearchCV`.

    Parameters
    ----------
    estimator : a regression, or a Pipeline that ends in one.
    param_grid : {"C": [0.1, 1]} or {"verticallogisticregression__C": [0.1, 1]} and so on, as there; or a list of these.
    scoring : "auc", "ks", "gini" or "log_loss" (least is best).
    cv, random_state : as in `cross_validate`.
    stop_early : give a candidate up once it is behind the best one by more than two standard errors of the folds that
        both have; from the third fold on.
    refit : fit the best candidate on all rows of the frame.

    Each row is scored once by each candidate, and every model that scores a row tells the label's party one more sum
    over its features: keep grids smaller than the number of features of each passive party.

    Attributes
    ----------
    cv_results_ : DataFrame, a line a candidate, best first: its parameters, mean, sd, folds and rank.
    best_params_ : dict; best_score_ : float; best_estimator_ : fitted on all rows, if `refit`.
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
        *,
        scoring: str = "auc",
        cv: int = 5,
        random_state: int | None = 0,
        stop_early: bool = True,
        refit: bool = True,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv
        self.random_state = random_state
        self.stop_early = stop_early
        self.refit = refit

    def fit(self, frame: VerticalFrame, y: str) -> Self:
        """Try every candidate on every fold. Raises DataError for a grid that the estimator does not know."""
        import pandas as pd

        if self.scoring not in METRICS:
            raise DataError(f"scoring is one of {', '.join(METRICS)}, not {self.scoring!r}.")
        candidates = list(ParameterGrid(self.param_grid))
        made = [_with(self.estimator, params) for params in candidates]
        sign = -1.0 if self.scoring == "log_loss" else 1.0
        folds = _Folds(frame, y, self.cv, self.random_state)
        found: list[list[float]] = [[] for _ in candidates]
        left = set(range(len(candidates)))
        with Steps("Grid search", self.cv * len(candidates)) as steps:
            for k in range(self.cv):
                for place, i in enumerate(sorted(left), 1):
                    steps.begin(f"fold {k + 1} of {self.cv}, candidate {place} of {len(left)}")
                    _, evaluation, _ = folds.run(k, clone(made[i]))
                    found[i].append(sign * float(getattr(evaluation, self.scoring)))
                    steps.done()
                if self.stop_early and k >= 2:
                    before, left = left, _worth_another_fold(found, left)
                    steps.skip((len(before) - len(left)) * (self.cv - 1 - k))
                folds.forget(k)
        lines = [
            {**params, "mean": sign * np.mean(values), "sd": np.std(values), "folds": len(values)}
            for params, values in zip(candidates, found, strict=True)
        ]
        order = sorted(range(len(lines)), key=lambda i: (-len(found[i]), -float(np.mean(found[i]))))
        ranked = [lines[i] | {"rank": place} for place, i in enumerate(order, 1)]
        self.cv_results_ = pd.DataFrame(ranked)
        self.best_params_: dict[str, Any] = candidates[order[0]]
        self.best_score_ = float(ranked[0]["mean"])
        if self.refit:
            self.best_estimator_ = clone(made[order[0]]).fit(frame, y)
        return self


class _Folds:
    """The parts of a frame, and what transformers made of them."""

    def __init__(self, frame: VerticalFrame, y: str, number: int, random_state: int | None) -> None:
        self._parts = frame.folds(number, random_state)
        self.tests = [test for _, test in self._parts]
        self._y = y
        self._random_state = random_state
        self._made: dict[tuple[int, str], tuple[VerticalFrame, VerticalFrame]] = {}

    def run(self, fold: int, estimator: Any) -> tuple[Scores, Evaluation, float]:
        """Fit on the fold's training rows, score its test rows; seconds of the fit. DataError names the fold."""
        try:
            return self._run(fold, estimator)
        except DataError as error:
            raise DataError(f"in fold {fold + 1} of {len(self._parts)}: {error}") from error

    def _run(self, fold: int, estimator: Any) -> tuple[Scores, Evaluation, float]:
        train, test = self._parts[fold]
        if isinstance(estimator, Pipeline):
            train, test = self._transformed(fold, estimator[:-1] if len(estimator.steps) > 1 else None)
            estimator = estimator.steps[-1][1]
        if getattr(estimator, "early_stopping_rounds", None) is not None:
            train, held = train.split(HELD, self._random_state)
            estimator.fit(train, self._y, eval_frame=held)
        else:
            estimator.fit(train, self._y)
        scores = estimator.predict_proba(test)
        return scores, evaluate(scores, self._y), float(getattr(estimator, "seconds_", math.nan))

    def forget(self, fold: int) -> None:
        self._made = {key: made for key, made in self._made.items() if key[0] != fold}

    def _transformed(self, fold: int, head: Pipeline | None) -> tuple[VerticalFrame, VerticalFrame]:
        train, test = self._parts[fold]
        if head is None:
            return train, test
        key = (fold, repr(sorted((name, repr(value)) for name, value in head.get_params().items())))
        if key not in self._made:
            self._made[key] = head.fit_transform(train, self._y), head.transform(test)
        return self._made[key]


def _with(estimator: Any, params: Mapping[str, Any]) -> Any:
    try:
        return clone(estimator).set_params(**params)
    except ValueError as error:
        raise DataError(f"the grid does not fit the estimator: {error}") from None


def _worth_another_fold(found: Sequence[Sequence[float]], left: set[int]) -> set[int]:
    """Those of `left` that are not behind the best of them by more than two standard errors."""
    best = max(left, key=lambda i: float(np.mean(found[i])))

    def close(i: int) -> bool:
        behind = np.array(found[best]) - np.array(found[i])
        return bool(behind.mean() <= 2.0 * behind.std(ddof=1) / math.sqrt(len(behind)))

    return {i for i in left if i == best or close(i)}


def _line(found: Evaluation) -> dict[str, Any]:
    return {name: getattr(found, name) for name in (*METRICS, "rows", "positives")}
