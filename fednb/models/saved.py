"""A model on disk: what the analyst may know in a file, each party's part with that party.

The file is JSON with a format version, the schema (features by party, label), a seal of each party's part and a
checksum over all of it. Reading it runs no code: it is decoded into one strict struct.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from fednb.errors import DataError
from fednb.federation.views import Importance
from fednb.models.bins import Bins, Count
from fednb.typed import known
from fednb.version import __version__

if TYPE_CHECKING:
    from fednb.federation.client import Federation
    from fednb.federation.result import RunResult

MOST_BYTES = 1 << 24


class Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What every kind of saved model has."""

    format: Literal[1] = 1
    fednb: str = __version__  # that wrote it
    params: dict[str, Any]
    run: str  # under which each party keeps its part
    label: str
    features: dict[str, list[str]]
    seals: dict[str, str]


class SavedRegression(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What regressions have."""

    coef: dict[str, list[float]]  # of the parties that release them
    intercept: float
    figures: dict[str, float] = {}  # of the label, where it was trained on in another unit
    iterations: int
    converged: bool
    history: dict[str, list[float]]
    rows: int
    notes: list[str]
    seconds: float
    bytes: int
    operations: dict[str, int]


class SavedBoosting(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="SecureBoost"):
    """A `SecureBoostClassifier` or `SecureBoostRegressor` as it is saved; its trees lie with the parties."""

    estimator: Literal["SecureBoostClassifier", "SecureBoostRegressor"]
    objective: str
    classes: list[float]
    rounds: int
    metric: str
    history: dict[str, list[float]]
    importance: list[Importance]
    rows: int
    notes: list[str]
    seconds: float
    bytes: int
    operations: dict[str, int]


class SavedLogistic(SavedRegression, frozen=True, kw_only=True, tag="VerticalLogisticRegression"):
    """A `VerticalLogisticRegression` as it is saved."""


class SavedLinear(SavedRegression, frozen=True, kw_only=True, tag="VerticalLinearRegression"):
    """A `VerticalLinearRegression` as it is saved."""


class SavedPoisson(SavedRegression, frozen=True, kw_only=True, tag="VerticalPoissonRegression"):
    """A `VerticalPoissonRegression` as it is saved."""


class SavedOwn(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="OwnLogisticRegression"):
    """An `OwnLogisticRegression` as it is saved."""

    coef: list[float]
    intercept: float
    rows: int


class SavedBinning(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="WoeBinning"):
    """A `WoeBinning` as it is saved."""

    bins: dict[str, Bins]  # "party.column" -> its bins
    dropped: dict[str, str]
    rows: int
    notes: list[str]


class SavedCard(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="Scorecard"):
    """A `Scorecard` as it is saved; its features are those on the card."""

    base: float
    points: dict[str, list[list[float]]]  # by bin, of the parties that release theirs
    bins: dict[str, Bins]  # "party.column" -> its bins
    overrides: list[dict[str, Any]]


class SavedPreparation(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="Preparation"):
    """A transformer of raw columns as it is saved; several that were fitted together share a run."""

    estimator: str
    made: dict[str, list[str]]
    carried: dict[str, list[str]]
    place: Count  # among those that were fitted together
    rows: Count
    notes: list[str]


Single = (
    SavedLogistic
    | SavedLinear
    | SavedPoisson
    | SavedBoosting
    | SavedOwn
    | SavedBinning
    | SavedCard
    | SavedPreparation
)


class SavedStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of a pipeline's."""

    name: str
    model: Single


class SavedPipeline(Saved, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="VerticalPipeline"):
    """A `VerticalPipeline` as it is saved; its parts lie under its steps' runs."""

    steps: list[SavedStep]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checksum: str
    model: Single | SavedPipeline


S = TypeVar("S", bound=Saved)
E = TypeVar("E")


class _Seal(msgspec.Struct, frozen=True):  # a party whose policy releases coefficients shows them with its part again
    seal: str


def keep(federation: Federation, runs: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Have each party put its part of its run aside. The id that all are kept under, and each party's seal."""
    result = _ask(federation, runs, "save")
    return result.run, {party: result.read(party, _Seal).seal for party in runs}


def check(federation: Federation, saved: Saved) -> None:
    """Raises DataError unless each party still has its part as it was saved."""
    absent = [party for party in saved.seals if party not in federation.parties]
    if absent:
        raise DataError(f"the model needs {', '.join(absent)}, which this federation does not have.")
    result = _ask(federation, dict.fromkeys(saved.seals, saved.run), "check")
    for party, seal in saved.seals.items():
        if not hmac.compare_digest(result.read(party, _Seal).seal, seal):
            raise DataError(f"{party}'s part of the model is not the one that was saved with it. Fit the model again.")


def _ask(federation: Federation, runs: Mapping[str, str], action: str) -> RunResult:
    from fednb.federation.messages import DataRef

    return federation.run(
        "model_part",
        cast={"party": list(runs)},
        data={party: DataRef(part=run) for party, run in runs.items()},
        params={"action": action},
        title=f"Model parts: {action}",
    )


def write(path: Path, saved: Saved) -> None:
    """Only its owner can read the file; what was there is replaced in one step."""
    draft = path.with_name(path.name + ".draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode({"checksum": checksum(saved), "model": saved}), indent=2))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def read(path: Path, kind: type[S]) -> S:
    """Raises DataError for anything but a whole file of this format, with a model of this kind."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path} is too large for a model: over {MOST_BYTES:,} bytes.")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        file = msgspec.json.decode(content, type=known(_File))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no model that fednb {__version__} can read: {error}") from None
    if not hmac.compare_digest(file.checksum.encode(), checksum(file.model).encode()):
        raise DataError(f"{path} was changed since it was saved: its checksum does not fit. Save the model again.")
    if not isinstance(file.model, kind):
        raise DataError(f"{path} holds a {_named(type(file.model))}, not a {_named(kind)}; load it as what it is.")
    return file.model


def checksum(saved: Saved) -> str:
    """64 hexadecimal digits, over all that the file holds."""
    return hashlib.sha256(msgspec.json.encode(saved, order="deterministic")).hexdigest()


def made(kind: type[E], saved: Saved, path: str | Path) -> E:
    """The estimator with the parameters that were saved."""
    try:
        return kind(**real_params(saved.params))
    except (TypeError, ValueError):
        raise DataError(f"{path} has parameters that {kind.__name__} does not know.") from None


def _named(kind: type[Saved]) -> str:
    return str(kind.__struct_config__.tag)


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them: keys of a mapping are text there."""
    return {
        name: {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else value
        for name, value in params.items()
    }


def real_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round: a class weight's keys are numbers."""
    return {
        name: {int(key): item for key, item in value.items()}
        if name == "class_weight" and isinstance(value, dict)
        else value
        for name, value in params.items()
    }
