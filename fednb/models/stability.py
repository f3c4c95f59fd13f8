"""Whether features are still distributed as they were: population stability indices, of all parties' features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef

if TYPE_CHECKING:
    import pandas as pd


class _Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    psi: dict[str, float]


class _ByTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    psi: dict[str, float]
    numbered: dict[str, list[float]]
    now: int
    then: int


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    order: list[str]


def compared(
    frame: VerticalFrame, refs: Mapping[str, DataRef], names: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Have each party compare its rows of `refs` with those that its part there was made of: see `bin_stability`.

    Lines of party, feature and psi, worst first.
    """
    asked = {
        party: msgspec.structs.replace(ref, columns=[*names[party]])
        for party, ref in refs.items()
        if names.get(party)
    }
    result = frame.federation.run(
        "bin_stability",
        cast={"party": list(asked)},
        data=asked,
        title=f"Stability of {sum(map(len, names.values()))} features",
    )
    found = []
    for party in asked:
        said = result.read(party, _Released).psi
        if tuple(said) != tuple(names[party]) or not all(math.isfinite(value) for value in said.values()):
            raise UnexpectedMessage(f"{party} released indices of other features than were asked", member=party)
        found += [(party, column, value) for column, value in said.items()]
    return _worst_first(found)


def feature_stability(frame: VerticalFrame, by: str, since: float) -> pd.DataFrame:
    """How much the rows from `since` on differ from those before: party, feature and psi, worst first.

    `by`, "party.column", is a column of numbers without missing values, such as a year or a month as 202401: a feature
    or a declared label of the frame, with 100 rows or more on either side of `since`. The other parties do not learn
    which rows are of which time, nor does anybody learn their features (see `fednb.protocols.period_stability`). The
    population stability index over tenths of all rows, missing values apart, to two digits; by custom below 0.1 is
    stable, above 0.25 is not. Columns that are no numbers are left out.

    Two frames, of whichever alignments, are compared by `FeatureStatistics().fit(then).stability(now)`.
    """
    party, column = frame.find_label(by)
    passive = [other for other in frame.parties if other != party and frame.columns[other]]
    if not passive:
        raise DataError(f"only {party} has features in this frame; compare two frames with FeatureStatistics.")
    refs = frame.refs(label=(party, column), drop={party: [column]})
    result = frame.federation.run(
        "period_stability",
        cast={"active": [party], "passive": passive, "coordinator": [frame.federation.coordinator]},
        data={member: refs[member] for member in (party, *passive)},
        params={"since": float(since)},
        title=f"Stability by {by} from {since:g} on",
    )
    said = result.read(party, _ByTime)
    found = [(party, name, value) for name, value in said.psi.items()]
    for member in passive:
        names, values = result.read(member, _Order).order, said.numbered.get(member, [])
        if len(names) != len(values):
            raise UnexpectedMessage(f"{party} released indices of other features than {member}'s", member=party)
        found += [(member, name, value) for name, value in zip(names, values, strict=True)]
    asked = {(member, name) for member in (party, *passive) for name in refs[member].columns or ()}
    if not {(member, name) for member, name, _ in found} <= asked or not all(math.isfinite(x) for _, _, x in found):
        raise UnexpectedMessage("indices of other features than were asked came back", member=party)
    return _worst_first(found)


def check_has(frame: VerticalFrame, names: Mapping[str, Iterable[str]], what: str) -> None:
    """DataError, naming party and columns, where the frame lacks some."""
    for party, wanted in names.items():
        missing = [column for column in wanted if column not in frame.columns.get(party, ())]
        if missing:
            raise DataError(f"{what} {party}'s {', '.join(missing)}, which this frame lacks.")


def _worst_first(found: Sequence[tuple[str, str, float]]) -> pd.DataFrame:
    import pandas as pd

    made = pd.DataFrame(found, columns=["party", "feature", "psi"])
    return made.sort_values("psi", ascending=False, kind="stable").reset_index(drop=True)
