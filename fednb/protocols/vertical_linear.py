"""Vertical linear regression: least squares, and with a penalty ridge regression, by the exchange of `four_steps`.

    mean(a + b) = a + b,   so  f_0 = a, f_1 = 1, g_1 = b                    exact, with any number of passive parties

The active party trains towards its label in standard deviations from the mean, so nobody learns the label's unit from a
coefficient; whoever may see them gets both figures with the model. A step is Newton's in each party's own block, mixed
over the parties as in `mixing`: on a quadratic as good as conjugate gradients.

| role | learns, each iteration, besides its own coefficients |
|---|---|
| active | its own gradient; the largest norm of all; how the parties' steps are mixed |
| passive | its own gradient; the largest norm of all; how the parties' steps are mixed; never a label or a score |
| coordinator | rows; features; of each party the largest entry of its gradient, and inner products of its steps |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols import four_steps
from fednb.protocols.base import Dataset, Protocol
from fednb.protocols.family import Factors, Family, Solver, Target
from fednb.protocols.features import check_numbers
from fednb.protocols.four_steps import FitParams
from fednb.protocols.layout import Digits
from fednb.protocols.mixing import Remembering
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.steps import Stage

REACH = 6  # bits: residuals are below 64 standard deviations of the label
LIMIT = 30  # standard deviations: so far a party's part of a score may reach


class LinearParams(FitParams):
    alpha: Annotated[float, Meta(ge=0)] = 0.0  # as in scikit-learn's Ridge: |y - Xw|² + alpha·|w|²
    tol: Annotated[float, Meta(ge=0)] = 1e-5


class Linear(Family):
    """Labels that are numbers, squared loss."""

    name = "linear"
    first: Stage = "fine"
    sigmoid = "fine"
    mixes = True
    needs_level = False
    chained = False
    most_passives = 1_000
    too_many_passives = ""
    weight_bits = 0
    batch_size = None
    averages = False

    def __init__(self, params: LinearParams) -> None:
        self.params = params

    def terms(self, stage: Stage) -> int:
        return 1

    def digits(self, stage: Stage) -> Digits:
        return Digits(fraction=22, factor=20, whole=REACH, score=REACH + 1, carry=0)  # what is carried counts once

    def target(self, party: str, data: Dataset) -> tuple[Target, Dataset]:
        y = check_numbers(party, data.y, data.label, 0 if data.X is None else data.X.shape[0])
        centre, scale = float(y.mean()), float(y.std())
        if scale <= 1e-12 * max(1.0, abs(centre)):
            raise DataError(f"{party}'s label {data.label!r} is the same in all rows; there is nothing to learn.")
        figures = {"label_centre": centre, "label_scale": scale}
        return Target((y - centre) / scale, np.ones(len(y)), np.zeros(len(y)), figures, figures), data

    def solver(self, party: str, X: Matrix, columns: Sequence[str], parties: int, target: Target | None) -> Solver:
        penalty = np.full(X.shape[1], self.params.alpha)
        if target is not None:
            penalty[-1] = 0.0  # the intercept
        return Remembering(X, penalty)

    def factors(self, stage: Stage, a: Floats, others: int) -> Callable[[slice], Factors]:
        a = np.clip(a, -LIMIT, LIMIT)
        # another passive party's score is added to f_0 as it is
        carry = np.array([[0.0, 1.0], [0.0, 0.0]]) if others else None
        return lambda rows: Factors(np.column_stack([a[rows], np.ones(len(a[rows]))]), a[rows], carry)

    def basis(self, stage: Stage, b: Floats) -> Floats:
        return np.clip(b, -LIMIT, LIMIT)[:, None]  # on the way a step may go too far; it is taken back

    def check_scores(self, party: str, scores: Floats) -> None:
        if np.abs(scores).max() >= LIMIT:
            raise DataError(
                f"{party}'s features add more than {LIMIT} standard deviations of the label to some rows. They nearly "
                "depend on one another: leave some out, or use a larger alpha."
            )

    def notes(self, target: Target, scores: Floats, passives: int, converged: bool) -> list[str]:
        return []


PROTOCOL = Protocol(
    name="vertical_linear",
    version=1,
    params=LinearParams,
    roles=four_steps.roles(Linear),
    sends=four_steps.sends(mixes=True),
    limits=four_steps.LIMITS,
    learns=four_steps.LEARNS | {"coordinator": f"{four_steps.LEARNS['coordinator']}; inner products of steps"},
    learns_with_key=four_steps.LEARNS_WITH_KEY,
)
