"""What transformers of raw columns have in common: one run fits several of them, and owners keep what was fitted.

See `fednb.protocols.preparation`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.federation.result import RunResult
from fednb.models import saved
from fednb.models.bins import Count

if TYPE_CHECKING:
    from fednb.federation.client import Federation

Names = dict[str, tuple[str, ...]]  # by party


class _Prepared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: list[list[str]]  # after each step
    notes: list[str]
    rows: Count


class Preparation(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Base of transformers of raw columns; a subclass says its rule.

    Attributes
    ----------
    feature_names_in_, feature_names_out_ : dict of party to names; n_rows_ : int, what was fitted on;
    notes_ : list of str, what was noticed in the last fit and transform; run_ : the run's id.
    """

    def fit(self, frame: VerticalFrame, y: str | None = None) -> Self:
        """Fit on the frame's rows. The label `y`, written "party.column", is left as it is.

        Raises DataError (the message names party and column), QuotaExceeded, Refused, RunFailed.
        """
        fit_together([self], frame, y)
        return self

    def fit_transform(self, frame: VerticalFrame, y: str | None = None, name: str | None = None) -> VerticalFrame:
        """Fit, and transform the same rows, in one run."""
        return fit_together([self], frame, y, name=name or a_name())

    def transform(self, frame: VerticalFrame, name: str | None = None) -> VerticalFrame:
        """A frame of the same rows with the new columns. Each party keeps its own as a table `name` (None: a name of
        its own)."""
        return transform_together([self], frame, name)

    def save(self, path: str | Path, federation: Federation) -> Self:
        """Write rule and names to a file; each party puts its own part (means, quantiles, categories) aside."""
        saved.write(Path(path), self._saved(federation, {}))
        return self

    @classmethod
    def load(cls, path: str | Path, federation: Federation) -> Self:
        """The transformer that `save` wrote. DataError when the file or a party's part has changed."""
        kept = saved.read(Path(path), saved.SavedPreparation)
        saved.check(federation, kept)
        return cls._loaded(kept, path)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {"text/plain": repr(self)}

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        """As the protocol takes it."""
        raise NotImplementedError

    def _saved(self, federation: Federation, runs: dict[str, tuple[str, dict[str, str]]]) -> saved.SavedPreparation:
        """`runs` are those whose parts were put aside before: several steps may share one."""
        check_is_fitted(self, "run_")
        if self.run_ not in runs:
            runs[self.run_] = saved.keep(federation, dict.fromkeys(self.feature_names_in_, self.run_))
        run, seals = runs[self.run_]
        return saved.SavedPreparation(
            estimator=type(self).__name__,
            params=saved.plain_params(self.get_params()),
            run=run,
            label="",
            features={party: list(names) for party, names in self.feature_names_in_.items()},
            made={party: list(names) for party, names in self.feature_names_out_.items()},
            carried={party: list(names) for party, names in self._carried.items()},
            place=self._place,
            seals=seals,
            rows=self.n_rows_,
            notes=self.notes_,
        )

    @classmethod
    def _loaded(cls, kept: saved.SavedPreparation, path: str | Path) -> Self:
        if kept.estimator != cls.__name__:
            raise DataError(f"{path} holds a {kept.estimator}, not a {cls.__name__}; load it as what it is.")
        made = saved.made(cls, kept, path)
        made._known(kept.run, kept.place, _tuples(kept.features), _tuples(kept.made), _tuples(kept.carried))
        made.n_rows_, made.notes_ = kept.rows, [*kept.notes]
        return made

    def _known(self, run: str, place: int, found: Names, made: Names, carried: Names) -> None:
        self.run_ = run
        self._place = place
        self.feature_names_in_ = found
        self.feature_names_out_ = made
        self.n_features_in_ = sum(len(names) for names in found.values())
        self._carried = carried


def a_name() -> str:
    """Of a table that nobody named."""
    return f"prepared-{secrets.token_hex(6)}"


def by_party(columns: Sequence[str] | None, frame: VerticalFrame) -> dict[str, list[str]] | None:
    """Columns written "party.column", as the protocol takes them. DataError for a party that the frame lacks."""
    if columns is None:
        return None
    if isinstance(columns, str):
        raise DataError(f"columns are a list of 'party.column', not one text: columns=[{columns!r}].")
    found: dict[str, list[str]] = {}
    for name in columns:
        party, column = one(name, frame)
        found.setdefault(party, []).append(column)
    return found


def one(name: str, frame: VerticalFrame) -> tuple[str, str]:
    """Party and column of "party.column"."""
    party, _, column = str(name).partition(".")
    if party not in frame.columns or not column:
        raise DataError(f"{name!r} is no party.column of this frame; its parties are {', '.join(frame.parties)}.")
    return party, column


def fit_together(
    steps: Sequence[Preparation],
    frame: VerticalFrame,
    y: str | None = None,
    *,
    keep: Iterable[str] = (),
    name: str | None = None,
) -> VerticalFrame:
    """Fit steps one after the other, each on what the one before made, in one run.

    keep : columns ("party.column") that no step touches. name : of a table to make of these rows; None: none is made,
    and the frame comes back as it was.
    """
    carried = _carried(frame, [*([y] if y else []), *keep])
    result = frame.federation.run(
        "preparation_fit",
        cast={"party": list(frame.parties), "coordinator": [frame.federation.coordinator]},
        data=_refs(frame, frame.columns, carried),
        params={"steps": [step._rule(frame) for step in steps], "carry": _lists(carried), "name": name},
        title=f"{_listed(steps)} on {', '.join(frame.parties)}",
    )
    said = _said(frame, result, len(steps))
    found = _without(frame.columns, carried)
    for place, step in enumerate(steps):
        made = {party: tuple(each.columns[place]) for party, each in said.items()}
        step._known(result.run, place, found, made, carried)
        step.n_rows_ = len(frame)
        step.notes_ = [*result.notices, *(note for each in said.values() for note in each.notes)]
        step.seconds_, step.bytes_ = result.seconds, result.bytes
        found = made
    return frame if name is None else _frame(frame, result.run, name, found, carried)


def transform_together(steps: Sequence[Preparation], frame: VerticalFrame, name: str | None = None) -> VerticalFrame:
    """What steps that were fitted together make of the frame's rows, in one run."""
    for step in steps:
        check_is_fitted(step, "run_")
    first, last = steps[0], steps[-1]
    if any(step.run_ != first.run_ or step._place != first._place + k for k, step in enumerate(steps)):
        raise DataError("these steps were not fitted together; fit the pipeline again.")
    _check_frame(first, frame)
    carried = _carried(
        frame,
        [f"{party}.{c}" for party, names in first._carried.items() for c in names if c in frame.columns.get(party, ())],
    )
    name = name or a_name()
    refs = _refs(frame, first.feature_names_in_, carried, part=first.run_)
    result = frame.federation.run(
        "preparation_table",
        cast={"party": list(frame.parties), "coordinator": [frame.federation.coordinator]},
        data=refs,
        params={"name": name, "first": first._place, "last": last._place, "carry": _lists(carried)},
        title=f"{_listed(steps)} of {len(frame)} rows",
    )
    said = _said(frame, result, 1)
    for step in steps:
        step.notes_ = [note for each in said.values() for note in each.notes]
    return _frame(frame, result.run, name, {p: tuple(each.columns[0]) for p, each in said.items()}, carried)


def _listed(steps: Sequence[Preparation]) -> str:
    first, others = type(steps[0]).__name__, len(steps) - 1
    return f"{first} and {others} more steps" if others > 1 else ", ".join(type(step).__name__ for step in steps)


def _check_frame(step: Preparation, frame: VerticalFrame) -> None:
    others = [party for party in frame.parties if party not in step.feature_names_in_]
    if others:
        raise DataError(f"{type(step).__name__} was fitted without {', '.join(others)}; fit it on a frame with all.")
    for party, names in step.feature_names_in_.items():
        missing = [column for column in names if column not in frame.columns.get(party, ())]
        if missing:
            raise DataError(
                f"{type(step).__name__} was fitted on {party}'s {', '.join(missing)}, which this frame lacks. Align a "
                "table that has the same columns, or fit again."
            )


def _carried(frame: VerticalFrame, names: Sequence[str]) -> Names:
    found = {party: dict.fromkeys(frame.labels.get(party, ())) for party in frame.parties}
    for name in names:
        party, column = frame.find_label(name)
        found[party][column] = None
    return {party: tuple(columns) for party, columns in found.items()}


def _refs(
    frame: VerticalFrame, columns: Mapping[str, Sequence[str]], carried: Names, part: str | None = None
) -> dict[str, DataRef]:
    return {
        party: msgspec.structs.replace(ref, columns=list(dict.fromkeys((*columns[party], *carried[party]))))
        for party, ref in frame.refs(part=part).items()
    }


def _said(frame: VerticalFrame, result: RunResult, steps: int) -> dict[str, _Prepared]:
    said = {party: result.read(party, _Prepared) for party in frame.parties}
    for party, each in said.items():
        if each.rows != len(frame) or len(each.columns) != steps:
            raise UnexpectedMessage(f"{party} prepared other rows or steps than it was asked for", member=party)
    return said


def _frame(frame: VerticalFrame, run: str, name: str, columns: Names, carried: Names) -> VerticalFrame:
    features = {
        party: (*columns[party], *(c for c in carried[party] if c not in frame.labels.get(party, ())))
        for party in frame.parties
    }
    return VerticalFrame(
        frame.federation,
        run,
        tables=dict.fromkeys(frame.parties, name),
        columns=features,
        labels=frame.labels,
        rows=len(frame),
        part=frame.part,
    )


def _without(columns: Mapping[str, tuple[str, ...]], carried: Names) -> Names:
    return {party: tuple(c for c in names if c not in carried[party]) for party, names in columns.items()}


def _lists(names: Names) -> dict[str, list[str]]:
    return {party: list(columns) for party, columns in names.items() if columns}


def _tuples(names: Mapping[str, list[str]]) -> Names:
    return {party: tuple(columns) for party, columns in names.items()}
