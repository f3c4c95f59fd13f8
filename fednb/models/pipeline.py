"""A pipeline over a vertical frame: transformers, then an estimator, as one estimator.

Neighbouring transformers of raw columns are fitted in one run, at each owner, on the training rows only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models import saved, transformers
from fednb.models.binning import WoeBinning
from fednb.models.boosting import SecureBoostClassifier, SecureBoostRegressor
from fednb.models.linear import VerticalLinearRegression
from fednb.models.logistic import VerticalLogisticRegression
from fednb.models.poisson import VerticalPoissonRegression
from fednb.models.preparation import Preparation, a_name, fit_together, transform_together
from fednb.models.scores import Scores

if TYPE_CHECKING:
    from fednb.federation.client import Federation

_BY_NAME = {
    kind.__name__: kind
    for kind in (
        transformers.VerticalDateFeatures,
        transformers.VerticalImputer,
        transformers.VerticalLog,
        transformers.VerticalOneHotEncoder,
        transformers.VerticalRatio,
        transformers.VerticalScaler,
        transformers.VerticalWinsorizer,
        SecureBoostClassifier,
        SecureBoostRegressor,
    )
}
_BY_KIND = {
    saved.SavedBinning: WoeBinning,
    saved.SavedLinear: VerticalLinearRegression,
    saved.SavedLogistic: VerticalLogisticRegression,
    saved.SavedPoisson: VerticalPoissonRegression,
}


class VerticalPipeline(Pipeline):  # type: ignore[misc]
    """Named steps, the last of them a transformer or a model: scikit-learn's `Pipeline` on vertical frames.

    `VerticalPipeline([("impute", VerticalImputer()), ("scale", VerticalScaler()), ("model",
    VerticalLogisticRegression())])`. Parameters of steps are reached as there, `model__C`; a slice such as
    `pipeline[:-1]` is a pipeline of the same fitted steps. Everything is fitted on the rows that `fit` is given, so
    `cross_validate` and `VerticalGridSearch` fit every step on the training rows of each fold.
    """

    def fit(self, frame: VerticalFrame, y: str | None = None, **params: Any) -> Self:
        """Fit every step on what the steps before made of the frame's rows. `params` are for the last one's `fit`."""
        self._go(frame, y, params, result=False)
        return self

    def fit_transform(self, frame: VerticalFrame, y: str | None = None, **params: Any) -> VerticalFrame:
        """Fit, and give what came out at the end: of a pipeline whose last step is a transformer."""
        return self._go(frame, y, params, result=True)

    def transform(self, frame: VerticalFrame) -> VerticalFrame:
        """What all steps make of the frame's rows: of a pipeline whose last step is a transformer."""
        return self._through(frame, self._steps())

    def predict_proba(self, frame: VerticalFrame) -> Scores:
        """Prepare the frame's rows and score them. The scores stay at the active party; this is a handle on them."""
        prepared, model = self._before_model(frame)
        return model.predict_proba(prepared)  # type: ignore[no-any-return]

    def predict(self, frame: VerticalFrame) -> Scores:
        """As `predict_proba`, of a model of numbers."""
        prepared, model = self._before_model(frame)
        return model.predict(prepared)  # type: ignore[no-any-return]

    def evaluate(self, frame: VerticalFrame) -> Any:
        """What the model's own `evaluate` says of the frame's rows, prepared as the training rows were."""
        prepared, model = self._before_model(frame)
        return model.evaluate(prepared)

    @property
    def model_(self) -> Any:
        """The last step, fitted."""
        check_is_fitted(self)
        return self.steps[-1][1]

    @property
    def notes_(self) -> list[str]:
        """What every step noticed in its last fit and transform, once each."""
        return list(dict.fromkeys(note for _, step in self._steps() for note in getattr(step, "notes_", [])))

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of every step to a file; each party puts its own parts aside."""
        runs: dict[str, tuple[str, dict[str, str]]] = {}
        kept = []
        for name, step in self._steps():
            if not hasattr(step, "_saved"):
                raise DataError(f"{name!r}, a {type(step).__name__}, cannot be saved.")
            model = step._saved(federation, runs) if isinstance(step, Preparation) else step._saved(federation)
            kept.append(saved.SavedStep(name, model))
        last = kept[-1].model
        file = saved.SavedPipeline(
            params={}, run=last.run, label=last.label, features=kept[0].model.features, seals={}, steps=kept
        )
        saved.write(Path(path), file)
        return self

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The pipeline that `save` wrote. DataError when the file or a party's part is not as it was saved."""
        kept = saved.read(Path(path), saved.SavedPipeline)
        for part in {step.model.run: step.model for step in kept.steps}.values():
            saved.check(federation, part)
        return cls([(step.name, _kind(step.model, path)._loaded(step.model, path)) for step in kept.steps])

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Fitted, it is shown as its model is."""
        model: Any = self.steps[-1][1] if self.steps else None
        if hasattr(model, "run_") and hasattr(model, "view"):
            return model._repr_mimebundle_(**kwargs)  # type: ignore[no-any-return]
        return {"text/plain": repr(self)}

    def _steps(self) -> list[tuple[str, Any]]:
        """Those that do something."""
        if self.memory is not None:
            raise DataError("memory= has no meaning here: what a step makes stays with the parties.")
        self._validate_steps()
        return [(name, step) for name, step in self.steps if step not in (None, "passthrough")]

    def _go(self, frame: VerticalFrame, y: str | None, params: dict[str, Any], *, result: bool) -> VerticalFrame:
        """Fit, group by group; the frame that came out, as far as one was made."""
        groups = [*_groups(self._steps())]
        model = groups[-1][-1] if groups else None
        keep = [column for name in ("exposure", "offset") if isinstance(column := getattr(model, name, None), str)]
        for number, group in enumerate(groups, 1):
            last = number == len(groups)
            own = params if last else {}
            if isinstance(group[0], Preparation):
                if own:
                    raise DataError(f"{type(group[-1]).__name__} takes no {', '.join(own)} when it is fitted.")
                frame = fit_together(group, frame, y, keep=keep, name=a_name() if result or not last else None)
                continue
            group[0].fit(frame, y, **own)
            if result or not last:
                frame = group[0].transform(frame)
        return frame

    def _through(self, frame: VerticalFrame, steps: list[tuple[str, Any]]) -> VerticalFrame:
        for group in _groups(steps):
            frame = transform_together(group, frame) if isinstance(group[0], Preparation) else group[0].transform(frame)
        return frame

    def _before_model(self, frame: VerticalFrame) -> tuple[VerticalFrame, Any]:
        check_is_fitted(self)
        *before, (_, model) = self._steps()
        return self._through(frame, before), model


def _groups(steps: list[tuple[str, Any]]) -> Iterator[list[Any]]:
    """Transformers of raw columns that stand together; any other step by itself."""
    for together, some in itertools.groupby((step for _, step in steps), lambda step: isinstance(step, Preparation)):
        group = list(some)
        yield from [group] if together else ([step] for step in group)


def _kind(kept: saved.Single, path: str | Path) -> Any:
    name = getattr(kept, "estimator", "")
    kind: Any = _BY_NAME.get(name) if name else _BY_KIND.get(type(kept))
    if kind is None:
        raise DataError(f"{path} holds a step {name or type(kept).__name__}, which no pipeline has.")
    return kind
