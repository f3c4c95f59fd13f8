"""What features of all parties have to do with each other: correlations across parties, and variance inflation.

See `fednb.protocols.correlation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.federation.result import RunResult
from fednb.protocols.collinearity import MOST_VIF, Drop
from fednb.protocols.correlation import MIN_ROWS

if TYPE_CHECKING:
    import pandas as pd

    from fednb.models.binning import WoeBinning

R = Annotated[float, Meta(ge=-1, le=1)]


class _Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: int
    columns: list[tuple[str, str]]
    r: list[list[R]]
    vif: list[Annotated[float, Meta(ge=1, le=MOST_VIF)] | None]
    dropped: list[Drop]


class _Left(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    left_out: dict[str, str]
    filled: list[str]


class FeatureCorrelation(BaseEstimator):  # type: ignore[misc]
    """Pearson's correlation of every two features, whoever holds them, and each one's variance inflation factor.

    No party learns anything of another's rows, and the coordinator learns the correlations; 100 rows or more are
    needed. They are of columns without extremes, as in `FeatureStatistics`; missing values count as the mean.

    Parameters
    ----------
    binning : a fitted `WoeBinning`: correlations of weights of evidence instead of values; None: of values.

    Attributes
    ----------
    matrix_ : DataFrame [k, k], r to two digits; rows and columns are "party.column". A label has its line, too.
    vif_ : Series [k], 1 / (1 - R²) of each feature on all others, to two digits, 1000 at most: above 5 or 10 is said
        to be much (Belsley, Kuh and Welsch 1980). The label is no part of it.
    notes_ : list of str: features that were left out and why, and those with missing values;
    run_ : the run's id; n_rows_ : int.
    """

    def __init__(self, *, binning: WoeBinning | None = None) -> None:
        self.binning = binning

    def fit(self, frame: VerticalFrame, y: str | None = None) -> Self:
        """On the frame's rows; with `y`, "party.column", also each feature's correlation with that label.

        Raises DataError (too few rows), Refused (an owner's rules), QuotaExceeded, RunFailed.
        """
        refs = references(frame, self.binning)
        target = None
        if y is not None:
            party, label = target = frame.find_label(y)
            own = frame.refs(label=target)[party]
            before = refs.get(party, msgspec.structs.replace(own, columns=[]))
            names = [name for name in before.columns or () if name != label]
            refs[party] = msgspec.structs.replace(before, columns=[*names, label], label=label)
            if self.binning is not None:
                raise DataError("weights of evidence are made of the label; ask for its correlation without binning.")
        said = matrix(frame, refs, target=target)
        self._learned(said.result, said.matrix, said.notes, len(frame))
        return self

    def pairs(self, above: float = 0.5) -> pd.DataFrame:
        """The pairs with |r| above a bound, strongest first: columns first, second and r."""
        import pandas as pd

        check_is_fitted(self, "run_")
        names, r = list(self.matrix_.index), self.matrix_.to_numpy()
        found = [
            (names[i], names[j], r[i, j])
            for i in range(len(names))
            for j in range(i + 1, len(names))
            if abs(r[i, j]) > above
        ]
        found.sort(key=lambda pair: -abs(pair[2]))
        return pd.DataFrame(found, columns=["first", "second", "r"])

    def _learned(self, result: RunResult, said: _Matrix, notes: list[str], rows: int) -> None:
        import pandas as pd

        names = [f"{party}.{column}" for party, column in said.columns]
        self.matrix_ = pd.DataFrame(np.array(said.r).reshape(len(names), len(names)), index=names, columns=names)
        inflated = {name: value for name, value in zip(names, said.vif, strict=True) if value is not None}
        self.vif_ = pd.Series(inflated, name="vif", dtype="float64").sort_values(ascending=False, kind="stable")
        self.notes_ = notes
        self.run_, self.n_rows_, self.seconds_, self.bytes_ = result.run, rows, result.seconds, result.bytes


@dataclass(frozen=True)
class Found:
    """A run's matrix, checked."""

    result: RunResult
    matrix: _Matrix
    notes: list[str]
    left_out: dict[str, str]  # "party.column" -> why


def references(frame: VerticalFrame, binning: WoeBinning | None) -> dict[str, DataRef]:
    """What each party uses: its features, or those of its part of a binning."""
    if binning is None:
        return {party: ref for party, ref in frame.refs().items() if ref.columns}
    check_is_fitted(binning, "run_")
    binning._check_frame(frame)
    return {
        party: msgspec.structs.replace(ref, columns=[*binning.feature_names_in_[party]])
        for party, ref in binning._refs(frame).items()
        if binning.feature_names_in_.get(party)
    }


def matrix(
    frame: VerticalFrame,
    refs: Mapping[str, DataRef],
    *,
    target: tuple[str, str] | None = None,
    best_first: Sequence[tuple[str, str]] = (),
    max_correlation: float | None = None,
    max_vif: float | None = None,
) -> Found:
    """Run the protocol on these columns. UnexpectedMessage when what comes back is of others."""
    if not refs:
        raise DataError("no party has features in this frame.")
    if len(frame) < MIN_ROWS:
        raise DataError(f"this frame has {len(frame)} rows; correlations need at least {MIN_ROWS}.")
    asked = [(party, column) for party, ref in refs.items() for column in ref.columns or ()]
    coordinator = frame.federation.coordinator
    result = frame.federation.run(
        "correlation",
        cast={"party": list(refs), "coordinator": [coordinator]},
        data=refs,
        params={
            "best_first": [list(column) for column in best_first],
            "max_correlation": max_correlation,
            "max_vif": max_vif,
            "target": target,
        },
        title=f"Correlations of {len(asked)} columns",
    )
    said = result.read(coordinator, _Matrix)
    left_out: dict[str, str] = {}
    notes: list[str] = []
    for party in refs:
        own = result.read(party, _Left)
        left_out |= {f"{party}.{column}": why for column, why in own.left_out.items()}
        notes += [f"{party}'s {column!r} is left out: {why}." for column, why in own.left_out.items()]
        notes += [f"{party}'s {column!r}: missing values count as the mean." for column in own.filled]
    k = len(said.columns)
    whole = len(said.r) == len(said.vif) == k and all(len(line) == k for line in said.r)
    used = {f"{party}.{column}" for party, column in said.columns}
    if not whole or len(used) != k or used | set(left_out) != {f"{party}.{column}" for party, column in asked}:
        raise UnexpectedMessage("correlations of other columns than were asked came back", member=coordinator)
    if any(not 0 <= drop.column < k or not -1 <= drop.near < k for drop in said.dropped):
        raise UnexpectedMessage("columns to leave out came back that there are not", member=coordinator)
    return Found(result, said, notes, left_out)
