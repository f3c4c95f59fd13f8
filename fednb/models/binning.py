"""Weight-of-evidence binning of a vertical frame, as a transformer with scikit-learn's conventions.

Features are cut where they lie, and positives are counted under encryption: see `fednb.protocols.vertical_binning`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.federation.result import RunResult
from fednb.federation.views import BinningView, bundle
from fednb.models import saved
from fednb.models.bins import Bins, Count
from fednb.models.recut import Recutting
from fednb.models.stability import check_has, compared
from fednb.models.workbench import Workbench, view_of

if TYPE_CHECKING:
    import pandas as pd

    from fednb.federation.client import Federation


class _Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    features: list[Bins]
    rows: Count
    notes: list[str]


class _Coded(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: list[str]
    notes: list[str]


class WoeBinning(Recutting, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Bins of every party's features, their weight of evidence and information value; fitted on the frame's rows only.

    `transform` codes values as weights. Each party keeps the coded table and its cut points; what comes back is a frame
    on these tables, to train a scorecard's regression on. Works as a step of scikit-learn's `Pipeline`. `recut`, `join`
    and `split` change bins afterwards, and `workbench()` does so by hand in a notebook.

    Parameters
    ----------
    bins : cells a feature to begin with, 2 to 100, each of ten rows or more.
    method : "quantile" or "width" (equal widths).
    merge : "monotone", neighbours are joined so that the rate of positives only rises or only falls, with the largest
        information value that this allows; "optimal", the largest information value whatever the trend; "tree", the
        leaves of a decision tree; "optbinning", that library's optimum, where the label's party has it installed
        (fednb[optbinning]); "none", only until each bin has ten rows and both classes.
    max_bins : at most so many merged bins of ordinary values.
    min_share : share of the rows behind each merged bin, 0 to 0.5. Not used with merge="none".
    min_iv : `transform` leaves features out whose information value is below this (0.02 is a usual bound).
    special_values : values that are codes, at every party; each gets a bin of its own, as missing values do.
    cuts : {"party.column": [cut points]} to use instead of `method`. All members of the run see them.
    key_bits : size of the Paillier key, 2048 at least.

    Attributes
    ----------
    iv_ : DataFrame of party, feature, iv (information value in nats; Siddiqi 2006, ch. 6) and bins, best first.
    dropped_ : dict of "party.column" to why `transform` leaves it out: one bin only, or `min_iv`.
    notes_ : list of str, what was noticed in the last fit and transform; run_ : the run's id;
    label_ : "bank.default"; feature_names_in_ : dict of party to names; n_rows_ : int.
    """

    def __init__(
        self,
        *,
        bins: int = 20,
        method: Literal["quantile", "width"] = "quantile",
        merge: Literal["monotone", "optimal", "tree", "optbinning", "none"] = "monotone",
        max_bins: int = 10,
        min_share: float = 0.05,
        min_iv: float = 0.0,
        special_values: Sequence[float] = (),
        cuts: Mapping[str, Sequence[float]] | None = None,
        key_bits: int = 2048,
    ) -> None:
        self.bins = bins
        self.method = method
        self.merge = merge
        self.max_bins = max_bins
        self.min_share = min_share
        self.min_iv = min_iv
        self.special_values = special_values
        self.cuts = cuts
        self.key_bits = key_bits

    def fit(self, frame: VerticalFrame, y: str) -> Self:
        """Bin the features of the frame's rows; `y` is the label, written "party.column".

        Raises DataError (the message names party and column), QuotaExceeded, Refused, RunFailed.
        """
        active, label = frame.find_label(y)
        passive = [party for party in frame.parties if party != active]
        result = frame.federation.run(
            "vertical_binning",
            cast={"active": [active], "passive": passive, "coordinator": [frame.federation.coordinator]},
            data=frame.refs(label=(active, label), drop={active: [label]}),
            params=self._params(frame),
            title=f"{type(self).__name__} on {', '.join(frame.parties)}",
        )
        self._learned(frame, result, active, label)
        self._frame, self._before = frame, []
        return self

    def transform(self, frame: VerticalFrame, name: str | None = None) -> VerticalFrame:
        """A frame of weights on the same rows. Each party keeps its own as a table `name` (None: a name of its own).

        Values that no training row, or too few, had a bin for weigh 0; `notes_` says in which columns that happened.
        """
        self._check_frame(frame)
        active, label = self._label
        if not any(self._kept(party) for party in self.feature_names_in_):
            raise DataError(
                f"no feature is left to code: {len(self.dropped_)} were left out (dropped_ says why). "
                "Use a lower min_iv, or align other tables."
            )
        name = name or f"woe-{secrets.token_hex(6)}"
        with_label = label in (*frame.labels.get(active, ()), *frame.columns[active])
        refs = {
            party: msgspec.structs.replace(
                ref,
                columns=[*self._kept(party), *([label] if party == active and with_label else [])],
            )
            for party, ref in self._refs(frame).items()
            if self._kept(party) or party == active
        }
        result = frame.federation.run(
            "woe_table",
            cast={"party": list(refs), "coordinator": [frame.federation.coordinator]},
            data=refs,
            params={"name": name},
            title=f"Weights of evidence of {len(frame)} rows",
        )
        coded = {party: result.read(party, _Coded) for party in refs}
        self.notes_ = [*self._fit_notes, *(note for said in coded.values() for note in said.notes)]
        return VerticalFrame(
            frame.federation,
            result.run,
            tables=dict.fromkeys(refs, name),
            columns={party: tuple(said.columns) for party, said in coded.items()},
            labels={active: (label,)} if with_label else {},
            rows=len(frame),
            part=frame.part,
        )

    def bin_table(self, feature: str) -> pd.DataFrame:
        """The bins of "party.column": holds, cells, rows, positives, rate, woe and iv, in the order of the values.

        Where the bins are cut, only the feature's owner knows, unless somebody else gave the cut points.
        """
        check_is_fitted(self, "run_")
        self._known_feature(feature)
        return self._bins[feature].table()

    def stability(self, frame: VerticalFrame) -> pd.DataFrame:
        """How much each feature's distribution differs from the rows of the fit: party, feature and psi, worst first.

        The population stability index over the bins, Σ (share now - share then) · ln(share now / share then). By custom
        below 0.1 is stable, above 0.25 is not. Each party computes its own; labels are not needed.
        """
        self._check_frame(frame)
        return compared(frame, self._refs(frame), self.feature_names_in_)

    def workbench(self) -> Workbench:
        """The bins in a notebook, to look at and to change: what is changed there is changed here."""
        check_is_fitted(self, "run_")
        return Workbench(self)

    @property
    def federation(self) -> Federation | None:
        """Where it was fitted; None before, and after `load`."""
        frame = getattr(self, "_frame", None)
        return None if frame is None else frame.federation

    def view(self, *, edit: bool = False) -> BinningView:
        """The bins for a front end."""
        check_is_fitted(self, "run_")
        return view_of(self, edit=edit)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if not hasattr(self, "run_"):
            return super()._repr_mimebundle_(**kwargs)
        return bundle(self.view())

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write what you may know of the binning to a file; each party puts its own part (cut points, weights)
        aside."""
        saved.write(Path(path), self._saved(federation))
        return self

    def _saved(self, federation: Federation) -> saved.SavedBinning:
        check_is_fitted(self, "run_")
        run, seals = saved.keep(federation, {p: self._runs[p] for p, names in self.feature_names_in_.items() if names})
        return saved.SavedBinning(
            params=self.get_params() | {"special_values": list(self.special_values), "cuts": self._plain_cuts()},
            run=run,
            label=self.label_,
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            seals=seals,
            bins=self._bins,
            dropped=self.dropped_,
            rows=self.n_rows_,
            notes=self._fit_notes,
        )

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The binning that `save` wrote, to code new rows. DataError when the file or a party's part has changed."""
        kept = saved.read(Path(path), saved.SavedBinning)
        saved.check(federation, kept)
        return cls._loaded(kept, path)

    @classmethod
    def _loaded(cls, kept: saved.SavedBinning, path: str | Path) -> Self:
        """The binning of what was saved."""
        binning = saved.made(cls, kept, path)
        binning._frame, binning._before = None, []
        binning._known(kept.run, kept.label, {p: tuple(names) for p, names in kept.features.items()}, kept.bins)
        binning.n_rows_, binning.dropped_ = kept.rows, dict(kept.dropped)
        binning._fit_notes, binning.notes_ = [*kept.notes], [*kept.notes]
        return binning

    def _plain_cuts(self) -> dict[str, list[float]] | None:
        return None if self.cuts is None else {name: [float(x) for x in points] for name, points in self.cuts.items()}

    def _check_frame(self, frame: VerticalFrame) -> None:
        check_is_fitted(self, "run_")
        check_has(frame, self.feature_names_in_, "the binning was fitted on")

    def _kept(self, party: str) -> list[str]:
        return [column for column in self.feature_names_in_[party] if f"{party}.{column}" not in self.dropped_]

    @property
    def _label(self) -> tuple[str, str]:
        party, _, column = self.label_.partition(".")
        return party, column

    def _params(self, frame: VerticalFrame) -> dict[str, Any]:
        """As the protocol takes them."""
        cuts: dict[str, dict[str, list[float]]] = {}
        for feature, points in (self.cuts or {}).items():
            party, _, column = feature.partition(".")
            if column not in frame.columns.get(party, ()):
                raise DataError(f"cut points were given for {feature!r}, which is no party.column of this frame.")
            cuts.setdefault(party, {})[column] = [float(x) for x in points]
        return {
            "bins": int(self.bins),
            "method": self.method,
            "merge": self.merge,
            "max_bins": int(self.max_bins),
            "min_share": float(self.min_share),
            "special": [float(x) for x in self.special_values],
            "cuts": cuts,
            "key_bits": int(self.key_bits),
        }

    def _learned(self, frame: VerticalFrame, result: RunResult, active: str, label: str) -> None:
        names = {
            party: tuple(column for column in columns if (party, column) != (active, label))
            for party, columns in frame.columns.items()
        }
        bins: dict[str, Bins] = {}
        notes = [*result.notices]
        for party, columns in names.items():
            said = result.read(party, _Released)
            if tuple(feature.column for feature in said.features) != columns:
                raise UnexpectedMessage(f"{party} released bins of other features than the frame's", member=party)
            bins |= {f"{party}.{feature.column}": feature for feature in said.features}
            notes += said.notes
        self._known(result.run, f"{active}.{label}", names, bins)
        self.n_rows_ = len(frame)
        self.dropped_ = {}
        self._set_bins(bins, changed=bins)
        self._fit_notes = notes
        self.notes_ = [*notes]
        self.seconds_ = result.seconds
        self.bytes_ = result.bytes
        self.operations_ = result.operations

    def _known(self, run: str, label: str, names: dict[str, tuple[str, ...]], bins: dict[str, Bins]) -> None:
        self.run_ = run
        self.handle_ = secrets.token_hex(8)  # by which a front end finds it
        self._runs = dict.fromkeys(names, run)
        self.label_ = label
        self.feature_names_in_ = names
        self.n_features_in_ = sum(len(columns) for columns in names.values())
        self._set_bins(bins, changed={})

    def _refs(self, frame: VerticalFrame) -> dict[str, DataRef]:
        """The frame's rows, with each party's part of the binning as it is now."""
        return {party: msgspec.structs.replace(ref, part=self._runs[party]) for party, ref in frame.refs().items()}

    def _set_bins(self, bins: dict[str, Bins], changed: Mapping[str, Bins]) -> None:
        import pandas as pd

        self._bins = bins
        for name, feature in changed.items():
            self.dropped_.pop(name, None)
            iv = float(np.sum(feature.iv))
            if len(set(feature.woe)) < 2:
                self.dropped_[name] = "one bin only"
            elif iv < self.min_iv:
                self.dropped_[name] = f"information value {iv:.4f}, below min_iv={self.min_iv:g}"
        names = self.feature_names_in_
        self.iv_ = (
            pd.DataFrame(
                {
                    "party": [party for party, columns in names.items() for _ in columns],
                    "feature": [column for columns in names.values() for column in columns],
                    "iv": [float(np.sum(feature.iv)) for feature in bins.values()],
                    "bins": [len(feature.rows) for feature in bins.values()],
                }
            )
            .sort_values("iv", ascending=False, kind="stable")
            .reset_index(drop=True)
        )
