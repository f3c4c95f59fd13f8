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
