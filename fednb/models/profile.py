"""Everything that is known of a frame's features before any model, in one card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.federation.views import FeatureLine, ProfileView, bundle
from fednb.models.binning import WoeBinning
from fednb.models.correlation import FeatureCorrelation
from fednb.models.statistics import FeatureStatistics

if TYPE_CHECKING:
    import pandas as pd

Line = dict[str, Any]


class FeatureProfile:
    """Statistics, correlations and stability of a frame's features beside each other; made by `profile_features`.

    Attributes
    ----------
    statistics : FeatureStatistics; correlation : FeatureCorrelation; psi : DataFrame or None;
    notes : list of str, what was left out and why.
    """

    def __init__(
        self,
        frame: VerticalFrame,
        statistics: FeatureStatistics,
        correlation: FeatureCorrelation,
        *,
        y: str | None = None,
        psi: pd.DataFrame | None = None,
        newer: int = 0,
        binning: WoeBinning | None = None,
    ) -> None:
        self.statistics, self.correlation, self.psi = statistics, correlation, psi
        self.notes = [*statistics.notes_, *(note for note in correlation.notes_ if " is left out: " not in note)]
        self._frame, self._label, self._newer = frame, y, newer
        self._iv = {} if binning is None else _by_name(binning.iv_, "iv")
        self._shift = {} if psi is None else _by_name(psi, "psi")
        self._vif: dict[str, float] = dict(zip(correlation.vif_.index, correlation.vif_.tolist(), strict=True))
        names = [*correlation.matrix_.index]
        self._related: dict[str, dict[str, float]] = {
            name: {other: r for other, r in zip(names, line, strict=True) if other != name}
            for name, line in zip(names, correlation.matrix_.to_numpy().tolist(), strict=True)
        }
        self._lines = self._ranked([self._line(name) for name in statistics.columns_])

    def table(self) -> pd.DataFrame:
        """A line a feature, best first (by information value, else by |r| with the label, else in their order).

        Columns: party, feature, kind, rows, missing, mean, sd, mean_0 and mean_1 (of rows with the label 0 and 1,
        missing values at the mean; from r, so that they are exact to about 0.5 % of an sd by the square root of the
        odds), iv, label (r with it), psi, vif, nearest (the feature that it goes with most), near (r), note. What was
        not asked for, or cannot be, is NaN.
        """
        import pandas as pd

        made = pd.DataFrame(self._lines).drop(columns=["edges", "counts"])
        return made.fillna({"nearest": "", "note": ""})

    def view(self) -> ProfileView:
        """This profile for a front end."""
        features = [
            FeatureLine(
                **{name: _defined(line[name]) for name in FeatureLine.__struct_fields__ if name != "missing"},
                missing=line["missing"] / max(1, line["rows"]),
            )
            for line in self._lines
        ]
        return ProfileView(
            features=features,
            members=[*self.statistics.feature_names_in_],
            rows=self.statistics.n_rows_,
            part=self._frame.part,
            label=self._label or "",
            rate=_defined(self.statistics.rate_),
            newer=self._newer,
            ranked="information value" if self._iv else "|r| with the label" if self._label else "",
        )

    def __repr__(self) -> str:
        return self.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view())

    def _line(self, name: str) -> Line:
        party, _, column = name.partition(".")
        said = self.statistics.columns_[name]
        line: Line = {
            "party": party,
            "feature": column,
            "kind": said.kind,
            "rows": said.rows,
            "missing": said.missing,
            "mean": math.nan if said.mean is None else said.mean,
            "sd": math.nan if said.sd is None else said.sd,
            "mean_0": math.nan,
            "mean_1": math.nan,
            "iv": self._iv.get(name, math.nan),
            "label": math.nan,
            "psi": self._shift.get(name, math.nan),
            "vif": self._vif.get(name, math.nan),
            "nearest": "",
            "near": math.nan,
            "note": said.note,
            "edges": said.edges,
            "counts": said.counts,
        }
        related = dict(self._related.get(name, {}))
        if self._label in related:
            line["label"] = related.pop(self._label)
            line["mean_0"], line["mean_1"] = self._by_label(line)
        if related:
            line["nearest"] = max(related, key=lambda other: abs(related[other]))
            line["near"] = related[line["nearest"]]
        return line

    def _by_label(self, line: Line) -> tuple[float, float]:
        """r is the difference of the two means in sd, times the sd of the label."""
        rate = self.statistics.rate_
        shift = line["label"] * line["sd"] * math.sqrt(1 - line["missing"] / line["rows"])
        if math.isnan(rate):
            return math.nan, math.nan
        return (
            line["mean"] - shift * math.sqrt(rate / (1 - rate)),
            line["mean"] + shift * math.sqrt((1 - rate) / rate),
        )

    def _ranked(self, lines: list[Line]) -> list[Line]:
        by = "iv" if self._iv else "label"
        return sorted(lines, key=lambda line: -np.nan_to_num(abs(line[by]), nan=-1.0))


def _by_name(table: pd.DataFrame, figure: str) -> dict[str, float]:
    names = zip(table["party"], table["feature"], table[figure].tolist(), strict=True)
    return {f"{party}.{feature}": value for party, feature, value in names}


def _defined(value: Any) -> Any:
    """None for NaN: a view has numbers that are."""
    return None if isinstance(value, float) and math.isnan(value) else value


def profile_features(
    frame: VerticalFrame,
    y: str | None = None,
    *,
    newer: VerticalFrame | None = None,
    binning: WoeBinning | None = None,
) -> FeatureProfile:
    """What is known of all parties' features on a frame's rows, as a card: a line a feature, best first.

    Parameters
    ----------
    frame : 100 rows or more.
    y : the label, "party.column": each feature's correlation with it, and means by label. Its owner's rules say how
        many such numbers are told.
    newer : rows of another time, 100 or more, to compare distributions with: a population stability index a feature.
    binning : a fitted `WoeBinning`, whose information values are shown, and rank.

    Nothing is encrypted for it; `binning` is where positives are counted by bin. Columns that are no numbers, do not
    vary or are missing altogether are named, with the reason. Raises DataError, Refused, QuotaExceeded, RunFailed.
    """
    if newer is not None and newer.federation is not frame.federation:
        raise DataError("both frames must be of one federation.")
    statistics = FeatureStatistics().fit(frame, y)
    psi = None if newer is None else statistics.stability(newer)
    correlation = FeatureCorrelation().fit(frame, y)
    return FeatureProfile(
        frame, statistics, correlation, y=y, psi=psi, newer=0 if newer is None else len(newer), binning=binning
    )
