"""What can be done with the bins of a fitted binning: join, part or cut them elsewhere, and have them counted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import numpy as np
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.result import RunResult
from fednb.models.bins import Bins, Count


class _Recounted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    features: list[Bins]
    rows: Count
    notes: list[str]


@dataclass(frozen=True)
class State:
    """What a recount changes, so that it can be undone: nothing of it is lost at the parties."""

    runs: dict[str, str]
    bins: dict[str, Bins]
    dropped: dict[str, str]
    notes: list[str]


class Recutting:
    """Methods of a fitted binning that change its bins."""

    key_bits: int
    label_: str
    dropped_: dict[str, str]
    notes_: list[str]
    feature_names_in_: dict[str, tuple[str, ...]]
    _bins: dict[str, Bins]
    _runs: dict[str, str]  # by party, where its part lies
    _fit_notes: list[str]
    _frame: VerticalFrame | None  # the rows of the fit; None after `load`
    _before: list[State]

    def recut(
        self,
        edges: Mapping[str, Sequence[float]] | None = None,
        *,
        cells: Mapping[str, Sequence[int]] | None = None,
        frame: VerticalFrame | None = None,
    ) -> Self:
        """Give features other bins and have their rows and positives counted anew, a passive party's under encryption.

        Weights, information values and `dropped_` follow; `undo` goes back. Frames that `transform` gave stay as they
        were: transform again.

        Parameters
        ----------
        edges : {"bank.age": [25, 40]}, values at which a new bin begins; features of the label's party. Each bin needs
            ten rows, and edges nearer to earlier ones than ten rows are refused.
        cells : {"agency.delay": [2, 5]}, cells at which a new bin begins, of any party's features. Cells are what the
            fit cut the column into, numbered from 0 by value; `bin_table` says how many each bin has.
        frame : the rows of the fit; needed after `load` only.

        Bins with one class only are joined with a neighbour; `notes_` says so. Raises DataError, Refused,
        QuotaExceeded (each new bin of a passive party is one decrypted number).
        """
        check_is_fitted(self, "run_")
        edges, cells = dict(edges or {}), dict(cells or {})
        frame = self._frame if frame is None else frame
        if frame is None:
            raise DataError("a loaded binning does not know its rows: give the frame that it was fitted on, frame=...")
        active, label = self.label_.split(".", 1)
        self._check_changes(edges, cells, active)
        state = State(dict(self._runs), dict(self._bins), dict(self.dropped_), [*self._fit_notes])
        own = [name for name in self._bins if name in edges or (name in cells and _party(name) == active)]
        others = [name for name in cells if _party(name) != active]
        found: dict[str, Bins] = {}
        runs = dict(self._runs)
        notes: list[str] = []
        for party, result, names in [
            *([self._own(frame, active, label, own, edges, cells)] if own else []),
            *(self._others(frame, active, label, others, cells) if others else []),
        ]:
            said = result.read(party, _Recounted)
            if [f"{party}.{bins.column}" for bins in said.features] != names:
                raise UnexpectedMessage(f"{party} released bins of other features than were asked", member=party)
            found |= {f"{party}.{bins.column}": bins for bins in said.features}
            runs[party] = result.run
            notes += said.notes
        self._before.append(state)
        self._runs = runs
        self._set_bins(self._bins | found, changed=found)
        self._fit_notes = [*self._fit_notes, *notes]
        self.notes_ = [*self._fit_notes]
        return self

    def join(self, feature: str, first: int, last: int | None = None, *, frame: VerticalFrame | None = None) -> Self:
        """Join neighbouring bins `first` to `last` (None: the next one), as `bin_table` numbers them, and recount."""
        last = first + 1 if last is None else last
        starts, begins = self._starts(feature)
        if not 0 <= first < last < len(begins):
            raise DataError(
                f"{feature} has bins 0 to {len(begins) - 1} of ordinary values; {first} to {last} cannot be joined."
            )
        kept = [at for at in starts if not begins[first] < at <= begins[last]]
        return self.recut(cells={feature: kept}, frame=frame)

    def split(self, feature: str, bin: int, at: int | None = None, *, frame: VerticalFrame | None = None) -> Self:
        """Part a bin in two before its cell `at` (from 1; None: in the middle), and recount."""
        starts, begins = self._starts(feature)
        if not 0 <= bin < len(begins):
            raise DataError(f"{feature} has bins 0 to {len(begins) - 1} of ordinary values, and no {bin}.")
        size = self._bins[feature].cells[bin]
        if size < 2:
            raise DataError(f"bin {bin} of {feature} is a single cell and cannot be parted. Fit with more bins.")
        place = size // 2 if at is None else at
        if not 0 < place < size:
            raise DataError(f"bin {bin} of {feature} has {size} cells; it is parted before cell 1 to {size - 1}.")
        return self.recut(cells={feature: sorted([*starts, begins[bin] + place])}, frame=frame)

    def undo(self) -> Self:
        """Take the last recount back. Nothing is counted for that. DataError where there was none."""
        check_is_fitted(self, "run_")
        if not self._before:
            raise DataError("there is no recount to take back.")
        state = self._before.pop()
        self._runs = state.runs
        self._set_bins(state.bins, changed={})
        self.dropped_, self._fit_notes, self.notes_ = state.dropped, state.notes, [*state.notes]
        return self

    def _set_bins(self, bins: dict[str, Bins], changed: Mapping[str, Bins]) -> None:
        """Take bins over; `dropped_` is thought over for those that changed."""
        raise NotImplementedError

    def _starts(self, feature: str) -> tuple[list[int], list[int]]:
        """The cells at which a bin of ordinary values begins, without and with the first."""
        check_is_fitted(self, "run_")
        self._known_feature(feature)
        bins = self._bins[feature]
        sizes = [size for size, holds in zip(bins.cells, bins.holds, strict=False) if holds == "values"]
        if not bins.cells:
            raise DataError("this binning was saved by an older fednb and does not know its cells. Fit it again.")
        begins = [0, *np.cumsum(sizes)[:-1].tolist()] if sizes else []
        return begins[1:], begins

    def _known_feature(self, feature: str) -> None:
        if feature not in self._bins:
            raise DataError(f"there are no bins of {feature!r}; there are bins of {', '.join(self._bins)}.")

    def _check_changes(
        self, edges: Mapping[str, Sequence[float]], cells: Mapping[str, Sequence[int]], active: str
    ) -> None:
        if not edges and not cells:
            raise DataError("name a feature and its new bins, as in recut(cells={'agency.delay': [2, 5]}).")
        for name in (*edges, *cells):
            self._known_feature(name)
        both = sorted(set(edges) & set(cells))
        if both:
            raise DataError(f"{', '.join(both)} cannot be cut by values and by cells at once.")
        strange = [name for name in edges if _party(name) != active]
        if strange:
            raise DataError(
                f"{', '.join(strange)} cannot be cut at values: they stay with their party. Name cells instead, as in "
                f"recut(cells={{{strange[0]!r}: [2, 5]}})."
            )

    def _own(
        self,
        frame: VerticalFrame,
        active: str,
        label: str,
        names: list[str],
        edges: Mapping[str, Sequence[float]],
        cells: Mapping[str, Sequence[int]],
    ) -> tuple[str, RunResult, list[str]]:
        ref = msgspec.structs.replace(
            frame.refs(label=(active, label), part=self._runs[active])[active], columns=[_column(n) for n in names]
        )
        result = frame.federation.run(
            "own_recount",
            cast={"active": [active]},
            data={active: ref},
            params={
                "starts": [_whole(cells[name]) if name in cells else None for name in names],
                "edges": [[float(x) for x in edges[name]] if name in edges else None for name in names],
            },
            title=f"New bins of {', '.join(names)}",
        )
        return active, result, names

    def _others(
        self, frame: VerticalFrame, active: str, label: str, names: list[str], cells: Mapping[str, Sequence[int]]
    ) -> list[tuple[str, RunResult, list[str]]]:
        of_party: dict[str, list[str]] = {}
        for name in names:
            of_party.setdefault(_party(name), []).append(name)
        refs = frame.refs(label=(active, label))
        data = {active: msgspec.structs.replace(refs[active], columns=[])}
        for party, own in of_party.items():
            columns = [_column(name) for name in own]
            data[party] = msgspec.structs.replace(refs[party], columns=columns, part=self._runs[party])
        result = frame.federation.run(
            "recount",
            cast={"active": [active], "passive": [*of_party], "coordinator": [frame.federation.coordinator]},
            data=data,
            params={
                "starts": {party: [_whole(cells[name]) for name in own] for party, own in of_party.items()},
                "key_bits": int(self.key_bits),
            },
            title=f"New bins of {', '.join(names)}",
        )
        return [(party, result, own) for party, own in of_party.items()]


def find(names: Mapping[str, Any], handle: str) -> Any:
    """The binning with this `handle_` among a notebook's variables, or in a pipeline there. DataError where none is."""
    for value in list(names.values()):
        for each in (value, *(step for _, step in getattr(value, "steps", None) or ())):
            if isinstance(each, Recutting) and getattr(each, "handle_", "") == handle:
                return each
    raise DataError("the binning is in no variable of this notebook any more. Fit it again, or load it, and show it.")


def _party(name: str) -> str:
    return name.partition(".")[0]


def _column(name: str) -> str:
    return name.partition(".")[2]


def _whole(cells: Sequence[int]) -> list[int]:
    return sorted({int(cell) for cell in cells})
