"""An aligned table that nobody holds: names and shapes here, rows at their owners.

Rows stand in the order of their normalised ids' UTF-8 bytes, at every party. `split` takes the positions that
scikit-learn's `train_test_split(np.arange(n), ...)` gives, so anyone who holds the joined data can reproduce it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fednb.errors import DataError
from fednb.federation.messages import DataRef
from fednb.federation.views import AlignmentView, FrameView, bundle

if TYPE_CHECKING:
    from fednb.federation.client import Federation


class VerticalFrame:
    """The common rows of several parties' tables, by reference. Made by `Federation.align`."""

    def __init__(
        self,
        federation: Federation,
        id: str,
        *,
        tables: Mapping[str, str],
        columns: Mapping[str, tuple[str, ...]],
        labels: Mapping[str, tuple[str, ...]],
        rows: int,
        alignment: AlignmentView | None = None,
        positions: npt.NDArray[np.int64] | None = None,
        part: str = "",
    ) -> None:
        self.federation = federation
        self.id = id  # of the run that aligned it
        self.tables = dict(tables)
        self.columns = dict(columns)  # features by party
        self.labels = dict(labels)  # declared label columns by party
        self.alignment = alignment  # sizes, overlap, duplicates, formats
        self.part = part  # "train, 70 %"
        self._aligned_rows = rows
        self._positions = positions

    @property
    def shape(self) -> tuple[int, int]:
        """(common rows in this part, features of all parties)."""
        rows = self._aligned_rows if self._positions is None else len(self._positions)
        return rows, sum(len(columns) for columns in self.columns.values())

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def parties(self) -> tuple[str, ...]:
        return tuple(self.tables)

    def split(
        self, test_size: float | int | None = None, random_state: int | None = None
    ) -> tuple[VerticalFrame, VerticalFrame]:
        """Train and test part, at positions as `sklearn.model_selection.train_test_split(np.arange(n), ...)` gives.

        `test_size` is a share of the rows (float) or a number of rows (int), 0.25 by default. Without a
        `random_state` the split differs each time.
        """
        from sklearn.model_selection import train_test_split

        rows = len(self)
        train, test = train_test_split(np.arange(rows, dtype=np.int64), test_size=test_size, random_state=random_state)
        return self._take(train, f"train, {len(train) / rows:.0%}"), self._take(test, f"test, {len(test) / rows:.0%}")

    def folds(self, number: int, random_state: int | None = None) -> list[tuple[VerticalFrame, VerticalFrame]]:
        """`number` pairs of a training and a test part, at positions as `sklearn.model_selection.KFold` gives,
        shuffled.

        Each row is in one test part.
        """
        from sklearn.model_selection import KFold

        rows = np.arange(len(self), dtype=np.int64)
        if not 2 <= number <= len(rows):
            raise DataError(f"{len(rows)} rows make 2 to {len(rows)} folds, not {number}.")
        made = KFold(number, shuffle=True, random_state=random_state).split(rows)
        return [
            (self._take(rows[train], f"train {k}/{number}"), self._take(rows[test], f"fold {k}/{number}"))
            for k, (train, test) in enumerate(made, 1)
        ]

    def joined(self, parts: Sequence[VerticalFrame], name: str) -> VerticalFrame:
        """The rows of several parts of this alignment, one part after the other. DataError where they overlap."""
        positions = [
            np.arange(part._aligned_rows, dtype=np.int64) if part._positions is None else part._positions
            for part in parts
        ]
        together = np.concatenate(positions)
        if any(part.id != self.id for part in parts) or len(np.unique(together)) != len(together):
            raise DataError("these are not disjoint parts of one alignment.")
        made = self._take(np.empty(0, dtype=np.int64), name)
        made._positions = together
        return made

    def without(self, features: Sequence[str]) -> VerticalFrame:
        """The same rows without some features, written "party.column"; a party whose last one goes is left out.

        DataError for what is no feature here, or when features of fewer than two parties would be left.
        """
        gone: dict[str, set[str]] = {}
        for feature in features:
            party, _, column = feature.partition(".")
            if column not in self.columns.get(party, ()):
                raise DataError(f"{feature!r} is no feature of this frame.")
            gone.setdefault(party, set()).add(column)
        columns = {
            party: tuple(name for name in names if name not in gone.get(party, ()))
            for party, names in self.columns.items()
        }
        parties = [party for party, names in columns.items() if names or self.labels.get(party)]
        if len(parties) < 2:
            raise DataError(
                f"without {', '.join(features)} no two parties have anything left in this frame. A model of one "
                "party's own features needs no partner (OwnLogisticRegression)."
            )
        made = self._take(np.arange(len(self), dtype=np.int64), self.part)
        made._positions = self._positions
        made.tables = {party: self.tables[party] for party in parties}
        made.columns = {party: columns[party] for party in parties}
        made.labels = {party: names for party, names in self.labels.items() if party in parties}
        return made

    def refs(
        self,
        *,
        label: tuple[str, str] | None = None,
        part: str | None = None,
        drop: Mapping[str, list[str]] | None = None,
    ) -> dict[str, DataRef]:
        """What each party uses of its rows: all features, the label at its holder, its part of run `part`."""
        drop = drop or {}
        return {
            party: DataRef(
                frame=self.id,
                rows=self._positions,
                columns=[name for name in self.columns[party] if name not in drop.get(party, [])],
                label=label[1] if label and label[0] == party else None,
                part=part,
            )
            for party in self.parties
        }

    def find_label(self, y: str) -> tuple[str, str]:
        """The party and column that `y` ("bank.default") means. Raises DataError naming what there is."""
        declared = [f"{party}.{name}" for party, names in self.labels.items() for name in names]
        party, _, column = y.partition(".")
        if party not in self.columns:
            hint = f"Write it as party.column; declared labels are: {', '.join(declared) or 'none'}."
            raise DataError(f"y={y!r} names no party of this frame ({', '.join(self.parties)}). {hint}")
        if column not in self.labels.get(party, ()) and column not in self.columns[party]:
            raise DataError(
                f"{party} holds no column {column!r} in {self.tables[party]!r}; labels declared in this frame: "
                f"{', '.join(declared) or 'none'}."
            )
        return party, column

    def _take(self, positions: npt.NDArray[np.int64], part: str) -> VerticalFrame:
        own = positions if self._positions is None else self._positions[positions]
        return VerticalFrame(
            self.federation,
            self.id,
            tables=self.tables,
            columns=self.columns,
            labels=self.labels,
            rows=self._aligned_rows,
            alignment=self.alignment,
            positions=own,
            part=part,
        )

    def view(self) -> FrameView:
        """This frame for a front end."""
        return FrameView(
            frame=self.id,
            rows=len(self),
            columns={party: list(names) for party, names in self.columns.items()},
            labels=[f"{party}.{name}" for party, names in self.labels.items() for name in names],
            part=self.part,
            alignment=self.alignment if self._positions is None else None,
        )

    def __repr__(self) -> str:
        return self.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view())
