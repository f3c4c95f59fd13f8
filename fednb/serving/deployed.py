"""The model that a service answers with, as its files say: what is asked of applicants, and which version answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fednb.errors import ConfigError, DataError
from fednb.federation.online_words import OnlineServe, OwnModel
from fednb.models import saved

KINDS = (
    saved.SavedLogistic,
    saved.SavedLinear,
    saved.SavedPoisson,
    saved.SavedBoosting,
    saved.SavedCard,
)

SPARES = (saved.SavedOwn, saved.SavedCard)


class Version(msgspec.Struct, frozen=True):
    """Which model it was."""

    kind: str  # "Scorecard"
    version: str  # the id under which every party keeps its part
    checksum: str  # of its file


@dataclass(frozen=True)
class Deployed:
    """A saved model of several parties, and perhaps one of the active party's own."""

    party: str  # the active one
    model: saved.Saved
    fallback: saved.Saved | None

    @classmethod
    def read(cls, party: str, model: Path, fallback: Path | None) -> Deployed:
        """Raises ConfigError for files that cannot be served at `party`."""
        try:
            found = saved.read(model, saved.Saved)
            own = None if fallback is None else saved.read(fallback, saved.Saved)
        except DataError as error:
            raise ConfigError(str(error)) from None
        if not isinstance(found, KINDS):
            raise ConfigError(f"{model} holds a {_kind(found)}, which is not served.")
        if own is not None and (not isinstance(own, SPARES) or set(own.features) != {party}):
            raise ConfigError(
                f"{fallback} holds a {_kind(own)} of {', '.join(own.features)}; a fallback is an OwnLogisticRegression "
                f"of {party}'s features alone, or a Scorecard of one."
            )
        for path, each in ((model, found), (fallback, own)):
            if each is not None and each.label.partition(".")[0] != party:
                raise ConfigError(f"{path} predicts {each.label}; it is served where that label is, not at {party}.")
        return cls(party, found, own)

    def version(self) -> Version:
        return _version(self.model)

    def fallback_version(self) -> Version | None:
        return None if self.fallback is None else _version(self.fallback)

    def features(self, texts: Sequence[str]) -> dict[str, str]:
        """The active party's features that a request brings: "number", "text", or either "or null"."""
        found: dict[str, str] = {}
        for model in (self.model, self.fallback):
            missing = " or null" if isinstance(model, saved.SavedCard | saved.SavedBoosting) else ""
            for name in [] if model is None else model.features.get(self.party, []):
                found.setdefault(name, ("text" if name in texts else "number") + missing)
        return found

    def overrides(self) -> list[dict[str, Any]]:
        """Of a scorecard: which points somebody chose, and why."""
        return self.model.overrides if isinstance(self.model, saved.SavedCard) else []

    def named(self, party: str, code: int, *, spare: bool = False) -> str:
        """The feature that a reason's number stands for, in the model or in its fallback."""
        model = self.fallback if spare and self.fallback is not None else self.model
        names = model.features.get(party, [])
        return names[code - 1] if 0 < code <= len(names) else ""

    def request(self, *, table: str | None, reasons: int, refresh: float) -> OnlineServe:
        """As the agent takes it."""
        mine = self.party
        return OnlineServe(
            model=OwnModel(self.model.run, self.model.seals[mine], self.model.features.get(mine, [])),
            seals={party: seal for party, seal in self.model.seals.items() if party != mine},
            reasons=reasons,
            fallback=None
            if self.fallback is None
            else OwnModel(self.fallback.run, self.fallback.seals[mine], self.fallback.features[mine]),
            table=table,
            refresh=refresh,
        )


def _version(model: saved.Saved) -> Version:
    return Version(_kind(model), model.run, saved.checksum(model))


def _kind(model: saved.Saved) -> str:
    return str(getattr(model, "estimator", type(model).__struct_config__.tag))
