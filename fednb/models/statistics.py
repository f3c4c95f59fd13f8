"""What the features of a vertical frame look like, as their owners release it: one party's columns at a time.

See `fednb.protocols.column_statistics`; what columns have to do with each other is `correlation`'s.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Self

import msgspec
from msgspec import Meta
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.models.stability import check_has, compared
from fednb.protocols.column_statistics import SHARES, Column

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = tuple(f"p{100 * share:g}" for share in SHARES)  # p1, p5, ... p99


class _Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: Annotated[int, Meta(ge=0)]
    columns: list[Column]


class FeatureStatistics(BaseEstimator):  # type: ignore[misc]
    """Missing values, mean, standard deviation, quantiles and levels of every party's features on a frame's rows.

    Each owner computes its own; no encryption is needed. Where one row has more than a tenth of a column's variance,
    the outermost values count as the mean of the 11th to 20th on their side. A quantile is the mean of the ten rows
    around it. Figures are rounded to about a thousandth of a column's range; 40 rows with a value are needed.

    Attributes
    ----------
    table_ : DataFrame, a line a feature in the frame's order: party, feature, kind ("number", "constant", "empty",
        "few", "text", "date", "mixed", "infinite"), rows, missing (fewer than ten count as none), levels (values that
        ten rows or more have), mean, sd, p1, p5, p25, p50, p75, p95, p99, and note, which says why figures are NaN.
    rate_ : share of positives of the label, if it is one of 0 and 1 and was given; else NaN.
    notes_ : list of str, the features without figures and why; run_ : the run's id; n_rows_ : int;
    feature_names_in_ : dict of party to names.
    """

    def fit(self, frame: VerticalFrame, y: str | None = None) -> Self:
        """Have every party describe its features. A label `y`, "party.column", is none; its rate is told.

        Raises DataError (too few rows), Refused (an owner's rules), RunFailed.
        """
        refs = frame.refs()
        if y is not None:
            party, label = frame.find_label(y)
            names = [name for name in refs[party].columns or () if name != label]
            refs[party] = msgspec.structs.replace(refs[party], columns=[*names, label])
        refs = {party: ref for party, ref in refs.items() if ref.columns}
        if not refs:
            raise DataError("no party has features in this frame.")
        result = frame.federation.run(
            "column_statistics",
            cast={"party": list(refs)},
            data=refs,
            title=f"Statistics of {sum(len(ref.columns or ()) for ref in refs.values())} features",
        )
        self.columns_: dict[str, Column] = {}
        for party, ref in refs.items():
            said, asked = result.read(party, _Released), list(ref.columns or ())
            found = {column.name: column for column in said.columns}
            if sorted(found) != sorted(asked) or len(said.columns) != len(asked) or said.rows != len(frame):
                raise UnexpectedMessage(f"{party} released statistics of other features than were asked", member=party)
            self.columns_ |= {f"{party}.{name}": found[name] for name in asked}
        self.rate_ = math.nan if y is None else _rate(self.columns_.pop(y))
        self.run_, self.n_rows_ = result.run, len(frame)
        self.feature_names_in_ = {
            party: tuple(name for name in ref.columns or () if f"{party}.{name}" in self.columns_)
            for party, ref in refs.items()
        }
        self.notes_ = [
            f"{name.partition('.')[0]}'s {column.name!r}: {column.note}."
            for name, column in self.columns_.items()
            if column.note
        ]
        self.table_ = self._table()
        return self

    def histogram(self, feature: str) -> pd.DataFrame:
        """Columns low, high and rows, a line a bar of ten rows or more; no lines for a feature without figures.

        Values beyond the ends are counted in the outermost bars. Raises DataError for an unknown feature.
        """
        import pandas as pd

        check_is_fitted(self, "run_")
        if feature not in self.columns_:
            raise DataError(f"there are no statistics of {feature!r}; there are some of {', '.join(self.columns_)}.")
        said = self.columns_[feature]
        return pd.DataFrame({"low": said.edges[:-1], "high": said.edges[1:], "rows": said.counts})

    def stability(self, frame: VerticalFrame) -> pd.DataFrame:
        """How much each feature's distribution on another frame's rows differs: party, feature and psi, worst first.

        The population stability index over tenths of the rows of the fit, missing values apart:
        Σ (share now - share then) · ln(share now / share then), of 100 rows or more, to two digits. By custom below 0.1
        is stable, above 0.25 is not. Features without figures are left out.
        """
        check_is_fitted(self, "run_")
        numbers = {
            party: [name for name in names if self.columns_[f"{party}.{name}"].kind == "number"]
            for party, names in self.feature_names_in_.items()
        }
        check_has(frame, numbers, "the statistics have")
        if not any(numbers.values()):
            raise DataError("no feature has figures to compare; notes_ says why.")
        return compared(frame, frame.refs(part=self.run_), numbers)

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        lines = [
            {
                "party": name.partition(".")[0],
                "feature": said.name,
                "kind": said.kind,
                "rows": said.rows,
                "missing": said.missing,
                "levels": said.levels,
                "mean": math.nan if said.mean is None else said.mean,
                "sd": math.nan if said.sd is None else said.sd,
                **dict(zip(QUANTILES, said.quantiles or [math.nan] * len(QUANTILES), strict=True)),
                "note": said.note,
            }
            for name, said in self.columns_.items()
        ]
        return pd.DataFrame(lines)


def _rate(label: Column) -> float:
    """The mean of a label of 0 and 1; NaN of another."""
    if label.mean is None or label.sd is None or not 0 < label.mean < 1:
        return math.nan
    return label.mean if abs(label.sd**2 - label.mean * (1 - label.mean)) < 0.01 else math.nan
