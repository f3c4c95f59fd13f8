"""Categories as columns of 0 and 1, none of which stands for fewer than ten training rows.

A column that stands for two or three rows would have a gradient that is the sum of their labels, and its name would
tell that somebody has that value. So rare categories share one column, and columns are numbered: which number is which
category only the owner knows, unless the analyst named the categories.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.protocols.features import MIN_ROWS, rows_said
from fednb.protocols.records import Table, Texts
from fednb.protocols.transforms import Fitted, Step

OTHER, MISSING = "other", "missing"


class OneHot(Step, frozen=True, kw_only=True, tag="onehot"):
    """New columns "region_1", "region_2" and, where there are such rows, "region_missing" and "region_other"."""

    unseen: Literal["error", "other"] = "error"  # what happens to a category that no training row has
    min_rows: Annotated[int, Meta(ge=MIN_ROWS)] = MIN_ROWS  # training rows of a category that gets a column of its own
    most: Annotated[int, Meta(ge=2, le=1000)] = 50  # columns of one column
    drop_first: bool = False
    named: dict[str, dict[str, list[str]]] = {}  # by party and column: categories that the analyst knows

    def fit(self, table: Table) -> Encoded:
        columns, own = {}, self.named.get(table.party, {})
        for name in table.chosen(self.own(table), "text"):
            columns[name] = self._categories(table, name, own.get(name))
        return Encoded(columns=columns, strict=self.unseen == "error")

    def _categories(self, table: Table, name: str, named: list[str] | None) -> Categories:
        texts = table.texts(name)
        present = np.array([text for text in texts if text is not None], dtype=str)
        missing = len(texts) - len(present)
        found, counts = np.unique(present, return_counts=True)
        sizes = {str(value): int(count) for value, count in zip(found, counts, strict=True)}
        if not sizes:
            raise table.wrong(name, "has no value in any training row. Leave the column out")
        wanted = list(sizes) if named is None else list(dict.fromkeys(named))
        kept = [value for value in wanted if sizes.get(value, 0) >= self.min_rows]
        pooled = sum(sizes.values()) - sum(sizes[value] for value in kept)
        lone_missing = missing >= self.min_rows
        if not lone_missing:
            pooled += missing
        for value in sorted(kept, key=lambda value: (sizes[value], value)):
            # a pool has ten rows too, and where it is to take what comes later, there is one
            if pooled >= MIN_ROWS or (not pooled and self.unseen == "error"):
                break
            kept.remove(value)
            pooled += sizes[value]
        made = [f"{name}_{value}" if named is not None else f"{name}_{k}" for k, value in enumerate(kept, 1)]
        ends = [f"{name}_{MISSING}"] * lone_missing + [f"{name}_{OTHER}"] * (pooled > 0)
        if len(made) + len(ends) < 2:
            alike = (
                "every training row has the same category"
                if len(sizes) == 1 and not missing
                else (f"too few of its {len(sizes)} categories have {self.min_rows} training rows or more")
            )
            raise table.wrong(name, f"cannot be encoded: {alike}. Leave the column out")
        if len(made) + len(ends) > self.most:
            raise table.wrong(
                name,
                f"has {len(kept)} categories of {self.min_rows} training rows or more, and at most {self.most} columns "
                "are made of one. Raise min_rows, give the categories that matter, or leave the column out",
            )
        rare = [value for value in named or () if value not in kept]
        if rare:
            table.notes.append(
                f"{table.party}'s {name!r}: {', '.join(map(repr, rare))} {'has' if len(rare) == 1 else 'have'} too few "
                "training rows for a column."
            )
        if pooled:
            table.notes.append(f"{table.party}'s {name!r}: rare categories share {ends[-1]!r}.")
        return Categories(
            values=kept,
            names=made,
            seen=sorted(sizes),
            lacked=missing > 0,
            missing=ends[0] if lone_missing else "",
            other=ends[-1] if pooled > 0 else "",
            dropped=(made or ends)[0] if self.drop_first else "",
        )


class Categories(Fitted, frozen=True, kw_only=True):
    """Of one column."""

    values: list[str]  # that have a column of their own ...
    names: list[str]  # ... called so
    seen: list[str]  # all of the training rows
    lacked: bool  # some training row had none
    missing: str  # the column for no value; "": the other one
    other: str  # the column for rare ones; "": there is none
    dropped: str  # the column that is left out


class Encoded(Fitted, frozen=True, kw_only=True, tag="onehot"):
    """Which categories have a column."""

    columns: dict[str, Categories]
    strict: bool  # a category that no training row has is an error

    def apply(self, table: Table) -> None:
        for name, known in self.columns.items():
            texts = table.texts(name)
            codes = self._codes(table, name, texts, known)
            table.drop(name)
            every = [*known.names, *([known.missing] if known.missing else []), *([known.other] if known.other else [])]
            for k, new in enumerate(every):
                if new != known.dropped:
                    table.add(new, (codes == k).astype(np.float64))

    def _codes(self, table: Table, name: str, texts: Texts, known: Categories) -> npt.NDArray[np.int64]:
        """[n] the number of each row's column. DataError for rows that have none."""
        place = {value: k for k, value in enumerate(known.values)}
        other = len(place) + bool(known.missing)  # used where there is one
        missing = len(place) if known.missing else other
        seen = frozenset(known.seen)
        strange = sum(text not in seen if text is not None else not known.lacked for text in texts)
        if strange:
            what = f"has a category that no training row has in {rows_said(strange)} of {len(texts):,}"
            if self.strict:
                raise table.wrong(name, f"{what}. Fit with unseen='other', or leave these rows out")
            table.notes.append(f"{table.party}'s {name!r} {what}; they count as {known.other!r}.")
        return np.array([missing if text is None else place.get(text, other) for text in texts], dtype=np.int64)
