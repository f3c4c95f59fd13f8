"""A scorecard of a binning and a regression: points by bin at each party, and what may be asked of it.

Points are made and kept where the bins are: see `fednb.protocols.scorecard`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.models import saved
from fednb.models.binning import WoeBinning
from fednb.models.evaluation import Evaluation, evaluate
from fednb.models.logistic import VerticalLogisticRegression
from fednb.models.own import OwnLogisticRegression
from fednb.models.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from fednb.federation.client import Federation


class _Override(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    column: str
    bin: int
    before: float
    points: float
    reason: str


class _Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a party says of its part: points only where it may."""

    columns: list[str]
    woe: list[list[float]] | None = None
    card: list[list[float]] | None = None
    base: float | None = None
    overrides: list[_Override] = []


class _Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rows: int
    notes: list[str] = []


class Scorecard(BaseEstimator):  # type: ignore[misc]
    """Points for each bin of every party's features, scaled so that a score says the odds.

        score = base_score + pdo / ln 2 · ln(odds / base_odds)      odds: negatives a positive (Siddiqi 2006, ch. 6)

    A feature's points are 0 on average over the training rows, and the base points are those of the average row.

    Parameters
    ----------
    base_score : the score at `base_odds`.
    base_odds : negatives for each positive at `base_score`, > 0.
    pdo : points that double the odds, > 0.
    digits : of a point after the decimal point, 0 to 6. Points are rounded, so a score differs from the model's by at
        most half a unit of the last digit for each feature, and one for the base.

    Attributes
    ----------
    base_points_ : float, of the active party. points_ : dict of party to its points, a list by bin for each feature,
        or None where they are the party's own: points are coefficients. feature_names_in_ : dict of party to names;
    reason_codes_ : DataFrame of party, code and feature. overrides_ : DataFrame of what was overridden, and why;
    label_ : "bank.default"; notes_ : list of str, of the last scoring; runs_ : dict of party to the run of its part.
    """

    def __init__(
        self, base_score: float = 600.0, base_odds: float = 50.0, pdo: float = 20.0, *, digits: int = 0
    ) -> None:
        self.base_score = base_score
        self.base_odds = base_odds
        self.pdo = pdo
        self.digits = digits

    def fit(
        self, binning: WoeBinning, model: VerticalLogisticRegression | OwnLogisticRegression, federation: Federation
    ) -> Self:
        """Make the card of a `model` that was fitted on a frame of weights that `binning` gave.

        The card of an `OwnLogisticRegression` has the active party's features alone: what `fednb serve` falls back to.

        Raises DataError when the model was fitted on anything else.
        """
        check_is_fitted(binning, "run_")
        check_is_fitted(model, "run_")
        features = {
            party: names for party, names in model.feature_names_in_.items() if names or party == _active(model)
        }
        strange = [
            f"{party}.{name}"
            for party, names in features.items()
            for name in names
            if name not in binning.feature_names_in_.get(party, ())
        ]
        if strange or binning.label_ != model.label_:
            raise DataError(
                f"the model was not fitted on weights of this binning: {', '.join(strange) or binning.label_}. "
                "Fit it on what binning.transform gives."
            )
        result = federation.run(
            "scorecard",
            cast={"party": list(features)},
            data={party: DataRef(part=model.run_) for party in features},
            params={
                "base_score": float(self.base_score),
                "base_odds": float(self.base_odds),
                "pdo": float(self.pdo),
                "digits": int(self.digits),
            },
            title=f"Scorecard of {', '.join(features)}",
        )
        self.label_ = model.label_
        self.feature_names_in_ = {party: tuple(names) for party, names in features.items()}
        self.runs_ = dict.fromkeys(features, result.run)
        self._bins = {
            f"{party}.{name}": binning._bins[f"{party}.{name}"] for party in features for name in features[party]
        }
        self._overrides: list[dict[str, Any]] = []
        self.points_: dict[str, list[list[float]] | None] = {}
        for party in features:
            self._learned(party, result.read(party, _Card))
        self.notes_: list[str] = [*result.notices]
        return self

    def table(self) -> pd.DataFrame:
        """party, feature, bin, holds, rows, positives, rate, woe, points; a party that keeps its points has none here.

        The first line has the base points. Where the bins are cut, each party knows: `fed.scorecard(run)` in its cells.
        """
        import pandas as pd

        check_is_fitted(self, "runs_")
        parts = [
            pd.DataFrame({"party": [self._active], "feature": [""], "holds": ["base"], "points": [self.base_points_]})
        ]
        for name, bins in self._bins.items():
            party, _, column = name.partition(".")
            own = self.points_[party]
            points = [math.nan] * len(bins.rows) if own is None else own[self.feature_names_in_[party].index(column)]
            part = bins.table().drop(columns="iv").assign(party=party, feature=column, points=points)
            parts.append(part.assign(bin=range(len(part))))
        columns = ["party", "feature", "bin", "holds", "rows", "positives", "rate", "woe", "points"]
        return pd.concat(parts, ignore_index=True)[columns].astype(
            {"bin": "Int64", "rows": "Int64", "positives": "Int64"}
        )

    def to_json(self) -> str:
        """The table as text, with the scaling and the overrides; null where points are a party's own."""
        lines = json.loads(self.table().to_json(orient="records", double_precision=15))
        return json.dumps(
            {"scaling": self.get_params(), "label": self.label_, "bins": lines, "overrides": self._overrides},
            indent=2,
            ensure_ascii=False,
        )

    def score(self, frame: VerticalFrame) -> Scores:
        """Points of the frame's rows, which are values as `binning` was fitted on. They stay at the active party.

        `save` keeps them there as a table with the columns score (the probability that the points mean) and points.
        """
        result = frame.federation.run(
            "scorecard_score",
            cast={"active": [self._active], "passive": self._passive},
            data=self._refs(frame),
            title=f"Scoring {len(frame)} rows",
        )
        said = [result.read(party, _Rows) for party in self.runs_]
        self.notes_ = [*result.notices, *(note for each in said for note in each.notes)]
        return Scores(frame, result.run, self._active)

    def evaluate(self, frame: VerticalFrame) -> Evaluation:
        """AUC, KS and the rest of the rounded points on the frame's rows, released as aggregates."""
        return evaluate(self.score(frame), self.label_)

    def reasons(self, frame: VerticalFrame, name: str, *, most: int = 2) -> Self:
        """Keep a table `name` at the active party: for each row, the features that cost it most points, by party.

        Columns are "bank_1", "bank_2", "agency_1" ...; numbers as in `reason_codes_`, 0 where there is no further one.
        What a feature cost, its value and its bin stay with its party. `most` : reasons of each party, 1 to 4.
        """
        frame.federation.run(
            "reason_codes",
            cast={"active": [self._active], "passive": self._passive},
            data=self._refs(frame),
            params={"name": name, "most": int(most)},
            title=f"Reasons for {len(frame)} rows",
        )
        return self

    @property
    def reason_codes_(self) -> pd.DataFrame:
        import pandas as pd

        check_is_fitted(self, "runs_")
        lines = [
            {"party": party, "code": code, "feature": name}
            for party, names in self.feature_names_in_.items()
            for code, name in enumerate(names, 1)
        ]
        return pd.DataFrame(lines, columns=["party", "code", "feature"])

    def override(self, feature: str, bin: int, points: float, reason: str, federation: Federation) -> Self:
        """Give a bin of the active party's other points, with a reason; `overrides_` keeps count.

        Refused for a passive party's feature: with points of your choice, scores would tell which bins its rows are in.
        """
        check_is_fitted(self, "runs_")
        party, _, column = feature.partition(".")
        if party not in self.runs_:
            raise DataError(f"{feature!r} is no party.column of this scorecard.")
        result = federation.run(
            "scorecard_override",
            cast={"party": [party]},
            data={party: DataRef(part=self.runs_[party])},
            params={"column": column, "bin": int(bin), "points": float(points), "reason": str(reason)},
            title=f"Other points for bin {bin} of {feature}",
        )
        self._learned(party, result.read(party, _Card))
        self.runs_ = {**self.runs_, party: result.run}
        return self

    @property
    def overrides_(self) -> pd.DataFrame:
        import pandas as pd

        check_is_fitted(self, "runs_")
        return pd.DataFrame(self._overrides, columns=["column", "bin", "before", "points", "reason"])

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of the card to a file; each party puts its own part aside."""
        check_is_fitted(self, "runs_")
        run, seals = saved.keep(federation, self.runs_)
        kept = saved.SavedCard(
            params=self.get_params(),
            run=run,
            label=self.label_,
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            seals=seals,
            base=self.base_points_,
            points={party: points for party, points in self.points_.items() if points is not None},
            bins=self._bins,
            overrides=self._overrides,
        )
        saved.write(Path(path), kept)
        return self

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The card that `save` wrote. DataError when the file or a party's part is not as it was saved."""
        kept = saved.read(Path(path), saved.SavedCard)
        card = saved.made(cls, kept, path)
        saved.check(federation, kept)
        card.label_ = kept.label
        card.feature_names_in_ = {party: tuple(names) for party, names in kept.features.items()}
        card.runs_ = dict.fromkeys(kept.features, kept.run)
        card.base_points_ = kept.base
        card.points_ = {party: kept.points.get(party) for party in kept.features}
        card._bins, card._overrides, card.notes_ = kept.bins, kept.overrides, []
        return card

    @property
    def _active(self) -> str:
        return self.label_.partition(".")[0]

    @property
    def _passive(self) -> list[str]:
        return [party for party in self.runs_ if party != self._active]

    def _refs(self, frame: VerticalFrame) -> Mapping[str, DataRef]:
        check_is_fitted(self, "runs_")
        for party, names in self.feature_names_in_.items():
            missing = [name for name in names if name not in frame.columns.get(party, ())]
            if missing:
                raise DataError(f"the scorecard uses {party}'s {', '.join(missing)}, which this frame lacks.")
        refs = frame.refs()
        return {
            party: msgspec.structs.replace(refs[party], columns=list(names), part=self.runs_[party])
            for party, names in self.feature_names_in_.items()
        }

    def _learned(self, party: str, said: _Card) -> None:
        names = self.feature_names_in_[party]
        if said.woe is not None and said.woe != [self._bins[f"{party}.{name}"].woe for name in names]:
            raise DataError(
                f"{party}'s bins have changed since the model's frame was made. Have binning.transform make it again, "
                "and fit the model on that."
            )
        shapes = [len(self._bins[f"{party}.{name}"].rows) for name in names]
        if tuple(said.columns) != names or (said.card is not None and [len(p) for p in said.card] != shapes):
            raise UnexpectedMessage(f"{party} released points of other bins than the binning's", member=party)
        self.points_[party] = said.card
        if party == self._active:
            if said.base is None or said.card is None:
                raise UnexpectedMessage(f"{party} released no base points", member=party)
            self.base_points_ = said.base
            self._overrides = [msgspec.structs.asdict(entry) for entry in said.overrides]


def _active(model: VerticalLogisticRegression | OwnLogisticRegression) -> str:
    return str(model.label_).partition(".")[0]
