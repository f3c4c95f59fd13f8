"""What each kind of model needs to score one applicant at a time: a few bytes of a passive party's row, and its sum.

regression, scorecard    the row's part of the score (uint64, fixed point), how many of its features met no evidence
                         (one byte), and numbers of the features that cost it most points (two bytes each)
boosted trees            which way the row goes at each of the party's nodes, one bit each (see `boosting_score`)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fednb.crypto import fixed_point
from fednb.errors import DataError
from fednb.protocols.base import Dataset
from fednb.protocols.boosting_score import FAMILIES, coded, ordered, own_directions, packed_directions
from fednb.protocols.objectives import Objective
from fednb.protocols.rows import Floats
from fednb.protocols.scorecard import row_points
from fednb.protocols.scorecard_score import worst
from fednb.protocols.sealed_rows import Bytes
from fednb.protocols.separable import sigmoid
from fednb.protocols.trees import LEAF, Forest
from fednb.protocols.vertical_score import FRACTION_BITS, encode_part, mean_of, own_part

_ADDED = struct.Struct("<QB")  # a part, and how many features met no evidence


@dataclass(frozen=True)
class Brought:
    """A passive party's rows for one model."""

    values: Bytes  # [n, w]
    usable: npt.NDArray[np.bool_]  # [n]: whether the model can score the row at all
    adds: bool  # whether the first 8 bytes of each are a part that is added to others' modulo 2**64


@dataclass(frozen=True)
class Score:
    """One applicant's."""

    value: float  # a probability, a number in the label's unit, or a rate
    points: float | None = None  # of a scorecard
    reasons: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by party: features from 1, worst first
    no_evidence: Mapping[str, int] = field(default_factory=dict)  # by party: features whose value met no evidence
    unseen: tuple[str, ...] = ()  # and which of the active party's own


class Scoring(Protocol):
    """One model at its active party."""

    def width(self, member: str) -> int:
        """Bytes of one of a passive party's rows."""
        ...

    def score(self, own: Dataset, values: Mapping[str, bytes]) -> Score:
        """Of the one row of `own`, with the others' values. Raises DataError for features that cannot be used."""
        ...


def bring(party: str, data: Dataset, reasons: int) -> Brought:
    """All rows of a passive party. Raises DataError for a table that lacks what the model was trained on."""
    part = data.part
    if "ancestor" in part:
        X, _, _ = ordered(party, data)
        bits = packed_directions(part, X)
        return Brought(bits, np.ones(len(bits), dtype=np.bool_), adds=False)
    if "card" in part:
        points, without = row_points(party, part, data)
        usable = np.ones(len(points), dtype=np.bool_)
        return Brought(_added(points.sum(axis=1), without.sum(axis=1), worst(points, reasons)), usable, adds=True)
    if reasons:
        raise DataError("reasons are given by scorecards only; this model is none.")
    X = np.asarray(data.X, dtype=np.float64)
    place = {name: j for j, name in enumerate(data.columns)}
    used = [place[name] for name in part.get("columns", ()) if name in place]
    usable = np.asarray(np.isfinite(X[:, used]).all(axis=1))
    filled = np.where(np.isfinite(X), X, 0.0)  # of rows that are left out, and of columns that the model does not use
    scores = own_part(party, Dataset(X=filled, columns=data.columns, part=part))
    nothing = np.zeros(len(X), dtype=np.int64)
    return Brought(_added(scores, nothing, np.empty((len(X), 0), dtype=np.int64)), usable, adds=True)


def masked(values: Bytes, masks: npt.NDArray[np.uint64]) -> Bytes:
    """Values whose part has these numbers added modulo 2**64."""
    out = values.copy()
    out[:, :8] = (values[:, :8].copy().view("<u8").ravel() + masks).astype("<u8").view(np.uint8).reshape(-1, 8)
    return out


def _added(scores: Floats, without: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> Bytes:
    return np.concatenate(
        [
            encode_part(scores).astype("<u8").view(np.uint8).reshape(-1, 8),
            np.minimum(without, 255).astype(np.uint8)[:, None],
            codes.astype("<u2").view(np.uint8).reshape(len(scores), -1),
        ],
        axis=1,
    )


def scoring(me: str, part: Mapping[str, Any], passives: Sequence[str], reasons: int) -> Scoring:
    """Of the active party's own part. Raises DataError where it is none of a model that can be used one by one."""
    if "roots" in part and part.get("objective") is not None:
        if reasons:
            raise DataError("reasons are given by scorecards only; this model is none.")
        return _Trees(me, part, passives)
    if "intercept" not in part and "base" not in part:
        raise DataError(f"{me} was not the active party of this model; scores belong to the one that was.")
    if reasons and "card" not in part:
        raise DataError("reasons are given by scorecards only; this model is none.")
    return _Sum(me, part, reasons)


class _Sum:
    """A regression or a scorecard."""

    def __init__(self, me: str, part: Mapping[str, Any], reasons: int) -> None:
        self._me, self._part, self._reasons = me, part, reasons

    def width(self, member: str) -> int:
        return _ADDED.size + 2 * self._reasons

    def score(self, own: Dataset, values: Mapping[str, bytes]) -> Score:
        data = Dataset(X=own.X, columns=own.columns, part=self._part)
        if "card" in self._part:
            points, lacking = row_points(self._me, self._part, data)
            mine, reasons = points.sum(axis=1), {self._me: _named(worst(points, self._reasons)[0].tolist())}
            unseen = tuple(str(self._part["columns"][j]) for j in np.flatnonzero(lacking[0]))
            without = {self._me: len(unseen)}
        else:
            mine, reasons, without, unseen = own_part(self._me, data), {}, {}, ()
        total = encode_part(mine)
        for member, value in values.items():
            part, lacking_there = _ADDED.unpack_from(value)
            total = total + np.array([part], dtype=np.uint64)
            if "card" in self._part:
                without[member] = lacking_there
                reasons[member] = _named(struct.unpack_from(f"<{self._reasons}H", value, _ADDED.size))
        linear = fixed_point.decode(total.view(np.int64), FRACTION_BITS)
        if "card" not in self._part:
            linear = linear + float(self._part["intercept"])
            family = str(self._part.get("family", "logistic"))
            return Score(float(mean_of(family, linear, self._part)[0]))
        sum_ = np.round(linear + float(self._part["base"]), int(self._part["digits"]))
        odds = (float(self._part["offset"]) - sum_) / float(self._part["factor"])
        return Score(float(sigmoid(odds)[0]), float(sum_[0]), reasons, without, unseen)


class _Trees:
    """A boosted ensemble with one output."""

    def __init__(self, me: str, part: Mapping[str, Any], passives: Sequence[str]) -> None:
        if list(passives) != list(part["passives"]):
            raise DataError(f"the model's passive parties are {', '.join(part['passives'])}, in this order.")
        self._me, self._part = me, part
        self._forest, self._base = Forest.from_part(part), np.asarray(part["base"], dtype=np.float64)
        if len(self._base) != 1:
            raise DataError("a model of several classes is not scored online; of two classes it is.")
        owner, inner = np.asarray(self._forest.owner), np.asarray(self._forest.left) != LEAF
        self._nodes = [inner & (owner == p) for p in range(1 + len(passives))]
        self._place = {member: p for p, member in enumerate(passives, 1)}

    def width(self, member: str) -> int:
        return -(-int(self._nodes[self._place[member]].sum()) // 8)

    def score(self, own: Dataset, values: Mapping[str, bytes]) -> Score:
        forest = self._forest
        X, unseen = coded(self._me, replace(own, part=self._part))
        directions = own_directions(forest, X)
        for member, value in values.items():
            nodes = self._nodes[self._place[member]]
            bits = np.unpackbits(np.frombuffer(value, dtype=np.uint8)[None], axis=1, count=int(nodes.sum()))
            directions[:, nodes] = bits[:, np.asarray(forest.place)[nodes]]
        margins = forest.margins(forest.leaves(directions), self._base)
        found = float(Objective(self._part["objective"], 1).predict(margins)[0, 0])
        return Score(found, unseen=tuple(unseen), no_evidence={self._me: len(unseen)})


def meaning(part: Mapping[str, Any]) -> str:
    """What a model's score is: "probability", "value" (in the label's unit) or "rate"."""
    family = FAMILIES.get(str(part.get("objective")), str(part.get("family", "logistic")))
    return {"logistic": "probability", "linear": "value", "poisson": "rate"}.get(family, "score")


def texts(part: Mapping[str, Any]) -> list[str]:
    """Which of a party's columns the model knows as text."""
    return [name for name, levels in part.get("levels", {}).items() if any(isinstance(each, str) for each in levels)]


def _named(codes: Sequence[int]) -> tuple[int, ...]:
    return tuple(code for code in codes if code)
