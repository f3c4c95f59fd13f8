"""What regressions on a vertical frame have in common: fitting, keeping, and being shown.

Trained by the four steps of FedRiskCtrl (Cheng et al., CACM 2020): see `fednb.protocols.four_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.result import RunResult
from fednb.federation.views import Coefficients, ModelView, bundle
from fednb.models import coefficients, saved
from fednb.models.coefficients import CoefficientSummary, Errors
from fednb.models.cost import Cost
from fednb.models.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from fednb.federation.client import Federation


class Withheld:
    """Stands where a party's coefficients would, or their standard errors: only that party sees them."""

    def __init__(self, party: str, columns: tuple[str, ...], what: str = "coefficients") -> None:
        self.party = party
        self.columns = columns
        self._what = what

    reason = "only this party sees them"

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        return f"<{len(self)} {self._what} of {self.party}: {self.reason}>"


class VerticalRegression(BaseEstimator):  # type: ignore[misc]
    """Base of the regressions; a subclass says its protocol and parameters."""

    protocol: ClassVar[str]
    family: ClassVar[str]
    kept: ClassVar[type[saved.SavedRegression]]
    _errors: Errors | None

    def fit(self, frame: VerticalFrame, y: str, *, resume: str | None = None) -> Self:
        """Train on the frame's rows; `y` is the label, written "party.column".

        Features are all columns of the frame except ids, declared labels and y. `resume` is the id of a fit of the
        same frame that was cut off (`fed.runs()` lists it): it goes on from its last step, to the same model.
        Raises DataError (the message names party and column), QuotaExceeded, Refused, RunFailed.
        """
        active, label = frame.find_label(y)
        self._features(frame, active, label)  # raises for what cannot be, before anybody is asked
        passive = [party for party in frame.parties if party != active]
        federation = frame.federation
        drop = {active: [label]}
        earlier = self._earlier(frame, y) if getattr(self, "warm_start", False) else None
        cost: Cost | None = getattr(self, "cost_", None)
        expected = cost if cost and cost.rows == len(frame) and not resume else None
        result = (
            federation.resume(resume)
            if resume
            else federation.run(
                self.protocol,
                cast={"active": [active], "passive": passive, "coordinator": [federation.coordinator]},
                data=frame.refs(label=(active, label), part=earlier, drop=drop),
                params=self._params() | {"warm_start": earlier is not None},
                title=f"{type(self).__name__} on {', '.join(frame.parties)}",
                estimate=expected.to_message() if expected else None,
            )
        )
        self._learned(frame, result, active, label)
        if expected:
            self.notes_.append(expected.beside(self.seconds_, self.bytes_, self.n_iter_))
        return self

    def _params(self) -> dict[str, Any]:
        """As the protocol takes them: what all regressions have."""
        return {
            "max_iter": int(self.max_iter),
            "tol": float(self.tol),
            "standardize": bool(self.standardize),
            "clip": None if self.clip is None else float(self.clip),
            "key_bits": int(self.key_bits),
        }

    def add_standard_errors(self, frame: VerticalFrame) -> Self:
        """Have the members compute standard errors of all coefficients together; `frame` has the rows of the fit.

        They invert the information of all parties' features, encrypted: see `fednb.protocols.standard_errors`. Every
        owner must have agreed (`standard_errors = true` in its rules on runs); else `standard_errors_` stays None and
        `no_standard_errors_` says why. The label's party learns each row's score, as by `predict_proba`. With a penalty
        they are those of the penalised fit, (X'WX + P)^-1. Raises DataError, QuotaExceeded, Refused, RunFailed.
        """
        why = self._no_errors()
        found = why or self._information(frame)
        self._without_errors()
        if isinstance(found, str):
            self.no_standard_errors_ = found
            return self
        self._errors, self.no_standard_errors_ = found, ""
        if not self.converged_:
            self.no_standard_errors_ = "the fit ended before the optimum, so they are those of a point near it"
        return self

    def refine(self, frame: VerticalFrame) -> Self:
        """Take one Newton step with exact residuals, on the rows of the fit: from near the optimum to it.

        For a logistic regression, whose fit ends a little beside it. It takes the same consent as
        `add_standard_errors`, and what comes is another model: its scores count as such. Raises DataError where there
        is no such step, QuotaExceeded, Refused, RunFailed.
        """
        import pandas as pd

        why = self._no_errors()
        found = why or self._information(frame, step=True)
        if isinstance(found, str):
            raise DataError(f"no step can be taken: {found}")
        scale, centre = self._figures.get("label_scale", 1.0), self._figures.get("label_centre", 0.0)
        self.run_, self.intercept_ = found.run, found.at * scale + centre
        for party, names in self.feature_names_in_.items():
            if party in found.coef:
                self.coef_[party] = pd.Series(found.coef[party], index=list(names), name=party)
        self._without_errors()
        self.__dict__.pop("evaluation_", None)
        return self

    def _information(self, frame: VerticalFrame, *, step: bool = False) -> Errors | str:
        """Of all parties' features on the rows of the fit, or why an owner does not take part."""
        check_is_fitted(self, "run_")
        self._check_frame(frame)
        active, label = frame.find_label(self.label_)
        columns = {party: (*names, *self._beside(party)) for party, names in self.feature_names_in_.items()}
        params = {"family": self.family, "penalty": self._penalty(len(frame)), "key_bits": int(self.key_bits)}
        params |= {"step": step, **self._error_params()}
        scale = self._figures.get("label_scale", 1.0)
        widths = {party: len(names) for party, names in self.feature_names_in_.items()}
        return coefficients.ask(frame, (active, label), columns, widths, self.run_, params, scale)

    @property
    def standard_errors_(self) -> dict[str, pd.Series | Withheld] | None:
        """By party, in units of `coef_`; None, for the reason that `no_standard_errors_` says, where there are none."""
        import pandas as pd

        if self._errors is None:
            return None
        return {
            party: Withheld(party, names, "standard errors")
            if (own := self._errors.by_party.get(party)) is None
            else pd.Series(own, index=list(names), name=party)
            for party, names in self.feature_names_in_.items()
        }

    def summary(self) -> CoefficientSummary:
        """Coefficients with standard errors, tests and intervals, where `add_standard_errors` had them computed."""
        check_is_fitted(self, "run_")
        withheld = {
            party: f"withheld: {coef.reason}" for party, coef in self.coef_.items() if isinstance(coef, Withheld)
        }
        freedom = None
        if self.family == "linear" and self._errors:
            freedom = self._errors.rows - self._errors.parameters
        active, _, _ = self.label_.partition(".")
        found = coefficients.table(
            self.coef_, (active, self.intercept_), self._errors, withheld, self.feature_names_in_, freedom=freedom
        )
        notes = [f"standard errors: {self.no_standard_errors_}"] if self.no_standard_errors_ else []
        return CoefficientSummary(type(self).__name__, self.label_, found, self._errors, notes)

    def _penalty(self, rows: int) -> float:
        """Of squared coefficients, beside the sum of the rows' losses: loss + penalty/2·|w|²."""
        raise NotImplementedError

    def _no_errors(self) -> str:
        """Why a model with these parameters has no standard errors; "" where it has."""
        return ""

    def _error_params(self) -> dict[str, Any]:
        """What the protocol needs to know of the fit besides."""
        return {}

    def _beside(self, party: str) -> tuple[str, ...]:
        """Columns of a party that the fit used and that are no features."""
        return ()

    def _predict(self, frame: VerticalFrame) -> Scores:
        check_is_fitted(self, "run_")
        self._check_frame(frame)
        active = self.label_.partition(".")[0]  # the label itself is not needed: new rows may have none yet
        passive = [party for party in frame.parties if party != active]
        result = frame.federation.run(
            "vertical_score",
            cast={"active": [active], "passive": passive},
            data=self._refs(frame),
            title=f"Scoring {len(frame)} rows",
        )
        return Scores(frame, result.run, active)

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of the fitted model to a file; each party puts its own part aside.

        `load` puts them together again: in another session, and on new rows after a fresh alignment.
        """
        saved.write(Path(path), self._saved(federation))
        return self

    def _saved(self, federation: Federation) -> saved.SavedRegression:
        check_is_fitted(self, "run_")
        run, seals = saved.keep(federation, dict.fromkeys(self.feature_names_in_, self.run_))
        return self.kept(
            params=saved.plain_params(self.get_params()),
            run=run,
            label=self.label_,
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            seals=seals,
            coef={party: c.tolist() for party, c in self.coef_.items() if not isinstance(c, Withheld)},
            intercept=self.intercept_,
            figures=self._figures,
            iterations=self.n_iter_,
            converged=self.converged_,
            history={str(name): self.history_[name].astype(float).tolist() for name in self.history_},
            rows=self.n_rows_,
            notes=self.notes_,
            seconds=self.seconds_,
            bytes=self.bytes_,
            operations=self.operations_,
        )

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The model that `save` wrote. DataError when the file or a party's part is not as it was saved."""
        kept = saved.read(Path(path), cls.kept)
        saved.check(federation, kept)
        return cls._loaded(kept, path)

    @classmethod
    def _loaded(cls, kept: Any, path: str | Path) -> Self:
        """The estimator of what was saved."""
        import pandas as pd

        model = saved.made(cls, kept, path)
        model.run_ = kept.run
        model.label_ = kept.label
        model.feature_names_in_ = {party: tuple(names) for party, names in kept.features.items()}
        model.n_features_in_ = sum(len(names) for names in kept.features.values())
        model.intercept_ = kept.intercept
        model._figures = kept.figures
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
        model._without_errors()
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

    def _features(self, frame: VerticalFrame, active: str, label: str) -> dict[str, tuple[str, ...]]:
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
        self.feature_names_in_ = columns
        self.n_features_in_ = sum(len(names) for names in columns.values())
        self._figures: dict[str, float] = {
            name: float(own[name]) for name in ("label_centre", "label_scale") if name in own
        }
        scale = self._figures.get("label_scale", 1.0)  # what a unit of the trained label is
        self.intercept_ = float(own["intercept"]) * scale + self._figures.get("label_centre", 0.0)
        self.n_iter_ = int(own["n_iter"])
        self.converged_ = bool(own["converged"])
        self.history_: pd.DataFrame = pd.DataFrame(own["history"])
        self.coef_: dict[str, pd.Series | Withheld] = {}
        for party, names in columns.items():
            public = result.public(party)
            if "coef" in public:
                values = scale * np.asarray(public["coef"], dtype=np.float64)
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
        self._without_errors()
        self.__dict__.pop("evaluation_", None)

    def _without_errors(self) -> None:
        self._errors = None
        self.no_standard_errors_ = self._no_errors() or coefficients.NOT_ASKED

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
