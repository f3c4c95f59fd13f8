"""Selecting features by the model itself: stepwise by AIC or BIC, or by an L1 penalty, with a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from sklearn.base import clone

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.models.coefficients import CoefficientSummary
from fednb.models.regression import VerticalRegression

if TYPE_CHECKING:
    import pandas as pd


class _Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dropped: list[str]


class ModelSelection:
    """What a selection kept.

    Attributes
    ----------
    report : DataFrame, a line a feature: party, feature, kept, why.
    history : DataFrame, a line a model that was fitted: features, and of stepwise ones log_likelihood, aic and bic.
    model : fitted on the features that are left; of "l1" the model that selected them.
    frame : the rows, with the features that are left.
    """

    def __init__(
        self, report: pd.DataFrame, history: pd.DataFrame, model: VerticalRegression, frame: VerticalFrame
    ) -> None:
        self.report, self.history, self.model, self.frame = report, history, model, frame

    def transform(self, frame: VerticalFrame) -> VerticalFrame:
        """The frame without the features that were dropped."""
        gone = self.report[~self.report["kept"]]
        return frame.without([f"{party}.{name}" for party, name in zip(gone["party"], gone["feature"], strict=True)])

    def __repr__(self) -> str:
        kept = int(self.report["kept"].sum())
        return f"<ModelSelection: {kept} of {len(self.report)} features kept, {len(self.history)} models fitted>"


def select_by_model(
    estimator: VerticalRegression,
    frame: VerticalFrame,
    y: str,
    *,
    by: Literal["aic", "bic", "l1"] = "aic",
    direction: Literal["backward", "forward", "both"] = "backward",
) -> ModelSelection:
    """Fit `estimator` on the frame's features and leave out those that it does not need.

    "aic", "bic" : stepwise, one party after the other, the one with most features first. A party takes the steps in its
        own features by itself, from its coefficients and their covariance (`fednb.protocols.feature_choice`), says
        which to leave out, and the model is fitted anew. So there are at most as many models as parties, and one
        more. Each scores the training rows, and a passive party lets fewer models score a row than the model has
        features of its own: where too few would be left, select on a sample of the rows. Owners must agree to
        standard errors. The steps take the log-likelihood for a quadratic: `history` has what it came to.
    "l1" : those whose coefficients the estimator's L1 penalty made zero; fit what is left without it.

    direction : of the steps: "backward" from all of a party's features, "forward" from none of them, "both".

    Every party says names only. Raises DataError where there are no standard errors, or where no other party is left.
    """
    import pandas as pd

    if by not in ("aic", "bic", "l1"):
        raise DataError(f"by is 'aic', 'bic' or 'l1', not {by!r}.")
    if by == "l1" and getattr(estimator, "penalty", "l2") == "l2":
        raise DataError("by='l1' needs a VerticalLogisticRegression with penalty='l1' or 'elasticnet'.")
    model = clone(estimator).fit(frame, y)
    everything: Mapping[str, Sequence[str]] = model.feature_names_in_
    why: dict[tuple[str, str], str] = {}
    history: list[dict[str, Any]] = []
    left = frame
    if by == "l1":
        for party in everything:
            why |= {
                (party, name): "L1: its coefficient is zero" for name in _ask(model, left, party, model.run_, "zero")
            }
        history.append({"features": model.n_features_in_})
        left = frame.without([".".join(place) for place in why])
    else:
        summary = _with_errors(model, left)
        history.append(_line(model, summary))
        for party in sorted(everything, key=lambda party: -len(everything[party])):
            if not everything[party]:
                continue
            gone = _ask(model, left, party, model._errors.run if model._errors else "", by, direction)
            why |= {
                (party, name): f"{by.upper()}: without it, it is lower (step {step} at {party})"
                for step, name in enumerate(gone, 1)
            }
            if gone:
                left = left.without([f"{party}.{name}" for name in gone])
                model = clone(estimator).fit(left, y)
                history.append(_line(model, _with_errors(model, left)))
    lines = [
        {"party": party, "feature": name, "kept": (party, name) not in why, "why": why.get((party, name), "")}
        for party, names in everything.items()
        for name in names
    ]
    return ModelSelection(pd.DataFrame(lines), pd.DataFrame(history), model, left)


def _with_errors(model: VerticalRegression, frame: VerticalFrame) -> CoefficientSummary:
    summary = model.add_standard_errors(frame).summary()
    if summary.aic is None:
        raise DataError(f"stepwise selection needs standard errors, and there are none: {model.no_standard_errors_}")
    return summary


def _line(model: VerticalRegression, summary: CoefficientSummary) -> dict[str, Any]:
    figures = {"log_likelihood": summary.log_likelihood, "aic": summary.aic, "bic": summary.bic}
    return {"features": model.n_features_in_, **figures}


def _ask(
    model: VerticalRegression, frame: VerticalFrame, party: str, part: str, by: str, direction: str = "backward"
) -> list[str]:
    result = frame.federation.run(
        "feature_choice",
        cast={"party": [party]},
        data={party: DataRef(part=part)},
        params={"by": by, "direction": direction},
        title=f"Features that {party} would leave out",
    )
    names = result.read(party, _Choice).dropped
    if not set(names) <= set(model.feature_names_in_[party]) or len(set(names)) != len(names):
        raise UnexpectedMessage(f"{party} would leave out other features than it has in the model", member=party)
    return names
