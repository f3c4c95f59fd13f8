"""A handle on scores that stay at the active party."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fednb.federation.frame import VerticalFrame
from fednb.federation.messages import DataRef
from fednb.federation.views import ScoresView, bundle

if TYPE_CHECKING:
    import pandas as pd


class Scores:
    """Predicted probabilities of a frame's rows, held by one party. The values are never here."""

    def __init__(self, frame: VerticalFrame, run: str, party: str) -> None:
        self.frame = frame
        self.run = run  # the run that made them
        self.party = party  # who holds them
        self.saved = ""

    def __len__(self) -> int:
        return len(self.frame)

    def ref(self, label: str | None = None) -> DataRef:
        """What the holder uses: these scores and, for an evaluation, the label of the same rows."""
        own = self.frame.refs(part=self.run)[self.party]
        return DataRef(frame=own.frame, rows=own.rows, columns=[], label=label, part=own.part)

    def summary(self) -> pd.Series:
        """Count, mean, sd and deciles, each behind 10 rows or more."""
        import pandas as pd

        said = self._ask("score_summary", {}, f"Summary of {len(self)} scores")
        return pd.Series({"rows": int(said["rows"]), **said["summary"]}, name=f"scores at {self.party}")

    def save(self, name: str) -> Scores:
        """Keep them as a table `name` at the party that holds them, with the ids of their rows."""
        self._ask("score_table", {"name": name}, f"Saving {len(self)} scores as {self.party}.{name}")
        self.saved = name
        return self

    def _ask(self, protocol: str, params: dict[str, Any], title: str) -> dict[str, Any]:
        result = self.frame.federation.run(
            protocol, cast={"active": [self.party]}, data={self.party: self.ref()}, params=params, title=title
        )
        return result.public(self.party)

    def view(self) -> ScoresView:
        """These scores for a front end."""
        return ScoresView(member=self.party, rows=len(self), saved=self.saved)

    def __repr__(self) -> str:
        return self.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.view())
