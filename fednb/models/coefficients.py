"""Standard errors, tests and intervals of a fitted regression's coefficients, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from scipy import stats

from fednb.errors import Refused, UnexpectedMessage
from fednb.federation.frame import VerticalFrame

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.95
NOT_ASKED = "not asked for; model.add_standard_errors(train) has them computed, if every owner agrees"

Positive = Annotated[float, Meta(gt=0)]


class _Said(msgspec.Struct, frozen=True):
    coef: Any  # lists, or arrays where the party releases coefficients anyway
    intercept: float
    std_err: Any
    intercept_std_err: Positive
    log_likelihood: float
    parameters: Annotated[int, Meta(ge=1)]
    rows: Annotated[int, Meta(ge=1)]


class Errors(msgspec.Struct, frozen=True):
    """What came of a run of `standard_errors`, in units of the coefficients as the model shows them."""

    run: str
    coef: dict[str, list[float]]  # after a step, of the parties that show them
    at: float  # the intercept then, in the unit of the trained label
    by_party: dict[str, list[float] | None]  # None: withheld
    intercept: float
    log_likelihood: float
    parameters: int
    rows: int


def ask(
    frame: VerticalFrame,
    label: tuple[str, str],
    columns: Mapping[str, tuple[str, ...]],
    widths: Mapping[str, int],
    part: str,
    params: Mapping[str, Any],
    scale: float,
) -> Errors | str:
    """Standard errors of the model whose parts are those of run `part`, or why an owner does not take part.

    `columns` are the features and an exposure, `widths` numbers of features; `scale` is a unit of the trained label.
    """
    active, _ = label
    drop = {party: [name for name in names if name not in columns[party]] for party, names in frame.columns.items()}
    cast = {
        "active": [active],
        "passive": [party for party in frame.parties if party != active],
        "coordinator": [frame.federation.coordinator],
    }
    try:
        result = frame.federation.run(
            "standard_errors",
            cast=cast,
            data=frame.refs(label=label, part=part, drop=drop),
            params=dict(params),
            title=f"Standard errors of {params['family']} regression on {', '.join(frame.parties)}",
        )
    except Refused as refused:
        if not refused.rule.endswith("protocols.standard_errors"):
            raise
        return str(refused)
    said = result.read(active, _Said)
    found = {
        party: None
        if "std_err" not in result.public(party)
        else _checked(party, result.public(party)["std_err"], widths[party], scale, positive=True)
        for party in frame.parties
    }
    coef = {
        party: _checked(party, result.public(party)["coef"], widths[party], scale)
        for party in frame.parties
        if "coef" in result.public(party)
    }
    return Errors(
        result.run,
        coef,
        said.intercept,
        found,
        scale * said.intercept_std_err,
        said.log_likelihood,
        said.parameters,
        said.rows,
    )


def _checked(party: str, said: Any, width: int, scale: float, *, positive: bool = False) -> list[float]:
    try:
        values = np.asarray(said, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty((0, 0))
    if values.shape != (width,) or not np.isfinite(values).all() or (positive and (values <= 0).any()):
        raise UnexpectedMessage(f"{party} released coefficients or standard errors that are none", member=party)
    return [scale * float(x) for x in values]


class CoefficientSummary:
    """Coefficients with standard errors, tests and 95% intervals, a line a feature, as statsmodels shows them.

    Attributes
    ----------
    table : DataFrame by party and feature: coef, std_err, z (t of a linear regression), p, low, high, and withheld: why
        there is nothing to show, or "".
    log_likelihood, aic, bic : float; None without standard errors.
    """

    def __init__(self, title: str, label: str, table: pd.DataFrame, errors: Errors | None, notes: list[str]) -> None:
        self.title, self.label, self.table, self.notes = title, label, table, notes
        self.log_likelihood = errors.log_likelihood if errors else None
        self.aic = 2.0 * errors.parameters - 2.0 * errors.log_likelihood if errors else None
        self.bic = math.log(errors.rows) * errors.parameters - 2.0 * errors.log_likelihood if errors else None
        self._errors = errors

    def __repr__(self) -> str:
        heads = ["coef", "std err", self.table.columns[2], f"P>|{self.table.columns[2]}|", "[0.025", "0.975]"]
        lines = []
        for place, (*given, why) in zip(self.table.index.tolist(), self.table.to_numpy().tolist(), strict=True):
            cells = ["" if np.isnan(x) else f"{x:.3f}" if j == 3 else f"{x:.4f}" for j, x in enumerate(given)]
            lines.append((".".join(place), cells, why))
        wide = max(len(name) for name, _, _ in lines)
        out = [f"{self.title} of {self.label}"]
        if self._errors:
            out[0] += f": {self._errors.rows:,} rows, {self._errors.parameters} coefficients"
            out.append(f"log-likelihood {self.log_likelihood:.2f}, AIC {self.aic:.2f}, BIC {self.bic:.2f}")
        out.append(" " * wide + "".join(f"{head:>11}" for head in heads))
        out += [f"{name:<{wide}}" + "".join(f"{cell:>11}" for cell in cells) + ("  " + why if why else "")
                for name, cells, why in lines]  # fmt: skip
        return "\n".join([*out, *(f"note: {note}" for note in self.notes)])


def table(
    coef: Mapping[str, Any],
    intercept: tuple[str, float],
    errors: Errors | None,
    withheld: Mapping[str, str],
    features: Mapping[str, tuple[str, ...]],
    *,
    freedom: int | None,
) -> pd.DataFrame:
    """A line a feature, the intercept last. `freedom`: degrees of freedom of t; None: normal."""
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for party, names in features.items():
        own = errors.by_party.get(party) if errors else None
        for j, name in enumerate(names):
            known = party not in withheld
            line = _line(float(coef[party].iloc[j]) if known else math.nan, own[j] if own else math.nan, freedom)
            lines.append({"party": party, "feature": name, **line, "withheld": withheld.get(party, "")})
    party, value = intercept
    line = _line(value, errors.intercept if errors else math.nan, freedom)
    lines.append({"party": party, "feature": "(intercept)", **line, "withheld": ""})
    return pd.DataFrame(lines).set_index(["party", "feature"])


def _line(coef: float, error: float, freedom: int | None) -> dict[str, float]:
    spread: Any = stats.norm if freedom is None else stats.t(freedom)
    ratio = coef / error
    reach = float(spread.ppf(0.5 + LEVEL / 2.0)) * error
    return {
        "coef": coef,
        "std_err": error,
        "z" if freedom is None else "t": ratio,
        "p": float(2.0 * spread.sf(abs(ratio))),
        "low": coef - reach,
        "high": coef + reach,
    }
