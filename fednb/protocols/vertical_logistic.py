"""Vertical logistic regression: features at several parties, the label at one, the secret key at none of them.

The exchange is that of `four_steps`, with the sigmoid of `separable`, σ(a + b) ≈ f_0(a) + f_1(a)·g_1(b) + ... +
f_R(a)·g_R(b). A step solves with the party's own block of Böhning's bound (1992), number of parties / 4 · XᵀX + 1/C,
and accelerates (Nesterov 1983). Iterations run with the coarse expansion of the sigmoid, and the last few with the fine
one.

| role | learns, each iteration, besides its own coefficients |
|---|---|
| active | its own gradient: one number for each of its features and one for the intercept; the largest norm of all |
| passive | its own gradient: one number for each of its features; the largest norm of all; never a label or a score |
| coordinator | rows; each party's number of features and the largest entry of its gradient; bits uniform at random |

The coarse and the fine expansion disclose the same, and so do class weights: the active party multiplies them in before
it encrypts, and nobody else learns which row counts how much (see `weights`). A warm start sends nothing more (`warm`).
Bounds on coefficients are each party's own arithmetic. A passive party accepts signs only: with coefficients of
somebody's choice, scores would be a code for its features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from fednb.errors import DataError, Refused
from fednb.protocols import four_steps
from fednb.protocols.base import Dataset, Protocol
from fednb.protocols.evaluation import auc
from fednb.protocols.family import Factors, Family, Solver, Target
from fednb.protocols.features import check_label, check_numbers
from fednb.protocols.four_steps import FitParams
from fednb.protocols.layout import Sigmoid
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.separable import REACH, averaged, spread_of
from fednb.protocols.steps import Block, Stage
from fednb.protocols.weights import Weighting

NEARLY_SEPARATED = 0.995  # AUC

Bound = tuple[float | None, float | None]  # least and largest; None: no bound


class LogisticParams(FitParams):
    C: Annotated[float, Meta(gt=0)] = 1.0  # inverse strength of the penalty, as in scikit-learn
    l1_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share of L1 in the penalty; the rest is L2
    sigmoid: Literal["staged", "coarse", "fine"] = "staged"
    class_weight: Literal["balanced"] | tuple[float, float] | None = None  # of class 0 and class 1
    batch_size: Annotated[int, Meta(ge=100)] | None = None  # rows of an iteration, nearly; None: all
    bounds: dict[str, dict[str, Bound]] = {}  # party -> column -> of its coefficient
    positive: float | None = None  # the label's value that is learnt against all others; None: labels are 0 and 1


class Logistic(Sigmoid, Family):
    """Binary labels, log loss."""

    name = "logistic"
    mixes = False
    needs_level = False
    chained = False
    most_passives = 1_000
    too_many_passives = ""

    def __init__(self, params: LogisticParams) -> None:
        self.params = params
        self.sigmoid = params.sigmoid
        self.first: Stage = "fine" if params.sigmoid == "fine" else "coarse"
        self._weighting = Weighting.of(params.class_weight)
        self.weight_bits = self._weighting.bits
        self.batch_size = params.batch_size
        self.averages = params.l1_ratio == 0.0  # a mean has no zeros

    def target(self, party: str, data: Dataset) -> tuple[Target, Dataset]:
        rows = 0 if data.X is None else data.X.shape[0]
        found = data.y
        if self.params.positive is not None:
            found = (check_numbers(party, data.y, data.label, rows) == self.params.positive).astype(np.float64)
        y = check_label(party, found, data.label, rows)
        weights = self._weighting.rows(y)
        return Target(y, np.ones(len(y)) if weights is None else weights, np.zeros(len(y))), data

    def solver(self, party: str, X: Matrix, columns: Sequence[str], parties: int, target: Target | None) -> Solver:
        return Block(
            X,
            self.params.C * self._weighting.unit,
            parties,
            intercept=target is not None,
            l1_ratio=self.params.l1_ratio,
            weights=target.weights if target is not None and self.params.class_weight is not None else None,
            most=2.0**self.weight_bits,
            bounds=self._bounds(party, columns, X.shape[1], own=target is not None),
        )

    def _bounds(self, party: str, columns: Sequence[str], width: int, *, own: bool) -> tuple[Floats, Floats]:
        low, high = np.full(width, -np.inf), np.full(width, np.inf)
        for name, (least, most) in self.params.bounds.get(party, {}).items():
            if name not in columns:
                raise DataError(f"a bound was given for {party}'s {name!r}, which is no feature in this run.")
            given = [x for x in (least, most) if x is not None]
            if not np.isfinite(given).all() or (len(given) == 2 and given[0] > given[1]):
                raise DataError(f"the bounds of {party}'s {name!r} are no interval.")
            if not own and any(given):
                raise Refused(
                    f"{party} accepts signs only for its coefficients, 0 as a bound: with coefficients of somebody's "
                    "choice, scores would be a code for its features.",
                    member=party,
                    rule="bounds",
                )
            j = list(columns).index(name)
            low[j] = -np.inf if least is None else least
            high[j] = np.inf if most is None else most
        return low, high

    def factors(self, stage: Stage, a: Floats, others: int) -> Callable[[slice], Factors]:
        expansion, spread = self.expansion(stage), spread_of(a)
        carry = expansion.carry(a, spread, others) if others else None

        def of(rows: slice) -> Factors:
            part = a[rows]
            return Factors(expansion.factors(part, spread, others), averaged(part, others + 1, spread), carry)

        return of

    def basis(self, stage: Stage, b: Floats) -> Floats:
        return self.expansion(stage).basis(b)

    def check_scores(self, party: str, scores: Floats) -> None:
        """Every factor is bounded."""

    def notes(self, target: Target, scores: Floats, passives: int, converged: bool) -> list[str]:
        notes = []
        if not converged and passives > 1:
            notes.append(
                f"{passives} passive parties: what they add to a score together is averaged. Where their features "
                "alone nearly separate the classes, training ends a little short of the optimum, with coefficients "
                "too small."
            )
        if float(np.abs(scores).max()) > REACH or auc(target.y, scores) > NEARLY_SEPARATED:
            notes.append(
                "the active party's features alone nearly separate the classes. The ranking is sound, but coefficients "
                "would grow without the penalty and are less exact; a smaller C gives a steadier model."
            )
        return notes


PROTOCOL = Protocol(
    name="vertical_logistic",
    version=2,
    params=LogisticParams,
    roles=four_steps.roles(Logistic),
    sends=four_steps.SENDS,
    limits=four_steps.LIMITS | {"batch": "batch_size"},
    learns=four_steps.LEARNS,
    learns_with_key=four_steps.LEARNS_WITH_KEY,
)
