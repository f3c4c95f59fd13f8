"""The active party's model while it grows: trees, what they say of each row, and the loss of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fednb.errors import DataError
from fednb.protocols.growth import Growth
from fednb.protocols.objectives import Objective
from fednb.protocols.tree_report import drawn, importance
from fednb.protocols.trees import Floats, Forest


class Ensemble:
    """For labels `y` [n], of which the first `trained` are trained on and the rest validated with."""

    def __init__(self, objective: Objective, classes: list[float], y: Floats, trained: int, base: float | None) -> None:
        self.objective, self.classes = objective, classes
        self._y, self._trained = y, trained
        self.forest = Forest()
        self.base = objective.base(y[:trained], base)
        self.margins = np.tile(self.base, (len(y), 1))
        self.history: dict[str, list[float]] = {"loss": []}
        if len(y) > trained:
            self.history["validation_loss"] = []

    @property
    def rounds(self) -> int:
        return len(self.forest.roots)

    @property
    def best(self) -> int:
        """How many rounds have the lowest validation loss; all of them when there is none."""
        losses = self.history.get("validation_loss")
        if not losses:
            return self.rounds
        return self.rounds - len(losses) + int(np.argmin(losses)) + 1

    def gradients(self) -> tuple[Floats, Floats]:
        """g and h of the rows that are trained on, [trained, outputs]."""
        return self.objective.gradients(self.margins[: self._trained], self._y[: self._trained])

    def take(self, growth: Growth) -> dict[str, float]:
        """A round has grown: move the margins; the losses now."""
        self.margins += growth.steps()
        parts = {"loss": slice(0, self._trained), "validation_loss": slice(self._trained, None)}
        losses = {name: self.objective.loss(self.margins[parts[name]], self._y[parts[name]]) for name in self.history}
        for name, loss in losses.items():
            self.history[name].append(loss)
        return losses

    def state(self) -> dict[str, Any]:
        """For the journal: copies, because all of it goes on changing."""
        return {
            "forest": self.forest.to_part(),
            "base": self.base.copy(),
            "margins": self.margins.copy(),
            "history": {name: list(losses) for name, losses in self.history.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.forest = Forest.from_part(state["forest"])
        self.base, self.margins = np.array(state["base"]), np.array(state["margins"])
        self.history = {name: [float(x) for x in losses] for name, losses in state["history"].items()}

    def go_on_from(self, part: Mapping[str, Any], passives: Sequence[str], rounds: int) -> None:
        """Take the trees of an earlier run. DataError unless it was one of this kind, with fewer rounds."""
        if part.get("objective") != self.objective.name or list(part.get("passives", ())) != list(passives):
            raise DataError("a warm start needs the objective and the parties of the earlier fit.")
        if list(part["classes"]) != self.classes:
            raise DataError(f"a warm start needs the classes of the earlier fit, {part['classes']}.")
        self.forest, self.base = Forest.from_part(part), np.array(part["base"])
        if self.rounds >= rounds:
            raise DataError(f"the earlier fit has {self.rounds} rounds already. Ask for a larger n_estimators.")

    def part(self, columns: Mapping[str, Any], passives: Sequence[str]) -> dict[str, Any]:
        """What scoring needs, for the party's own store; `columns` is what it needs to know of these."""
        return {
            **self.forest.to_part(),
            "objective": self.objective.name,
            "classes": self.classes,
            "base": self.base,
            **columns,
            "passives": list(passives),
        }

    def public(self, parties: Sequence[str], columns: Sequence[str], asked: int) -> dict[str, Any]:
        """What the analyst may see. `parties`: the active one first; `asked`: rounds that were asked for."""
        made = len(self.history["loss"])
        return {
            "rounds": self.rounds,
            "stopped": made < asked,
            "metric": self.objective.metric,
            "history": {"round": list(range(1, 1 + made)), **self.history},
            "classes": self.classes,
            "importance": importance(self.forest, parties, columns),
            "tree": drawn(self.forest, parties, columns),
            "rows": self._trained,
            "features": len(columns),
        }
