"""Vertical Poisson regression: counts, with an exposure if they were counted over different times, by `four_steps`.

    mean(a + b) = exposure · exp(a)·exp(b),   so  f_0 = 0, f_1 = exposure·exp(a), g_1 = exp(b)          exact

With two or three passive parties the mean is a product over all of them, which they make in turn: see `chain`. A step
is Newton's in each party's own block, with the curvature that it can reckon: the active party knows the sum of all
means from its own gradient, the passive one takes the order of magnitude of the mean label, a power of two that it is
told. Steps are mixed as in `mixing`.

| role | learns, each iteration, besides its own coefficients |
|---|---|
| active | its own gradient; the largest norm of all; how the parties' steps are mixed |
| passive | the same; once, the mean of the label to the nearest power of two; never a label or a score |
| coordinator | rows; features; of each party the largest entry of its gradient, and inner products of its steps |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from fednb.protocols.rows import Floats, Matrix, Without
from fednb.protocols.steps import Stage, scores, squares

REACH = 10  # bits: labels and what is expected of a row are below 1024
SCORE_REACH = 8  # bits: a passive party's factor exp(b) is below 256
MOST_PASSIVES = 3
LIMIT = SCORE_REACH * np.log(2.0) - 0.01  # of b


class PoissonParams(FitParams):
    alpha: Annotated[float, Meta(ge=0)] = 1.0  # as in scikit-learn's PoissonRegressor: mean deviance/2 + alpha/2·|w|²
    exposure: str | None = None  # a column of the active party: the mean is in proportion to it
    tol: Annotated[float, Meta(ge=0)] = 1e-5


class Poisson(Family):
    """Labels that count, log link."""

    name = "poisson"
    first: Stage = "fine"
    sigmoid = "fine"
    mixes = True
    needs_level = True
    chained = True
    most_passives = MOST_PASSIVES
    too_many_passives = (
        f"a Poisson regression takes at most {MOST_PASSIVES} passive parties: a row's mean is a product over all of "
        "them, and with more its digits would not suffice. Fit it with fewer, or a linear regression with all."
    )
    weight_bits = 0
    batch_size = None
    averages = False

    def __init__(self, params: PoissonParams) -> None:
        self.params = params

    def terms(self, stage: Stage) -> int:
        return 1

    def digits(self, stage: Stage) -> Digits:
        return Digits(fraction=18, factor=19, whole=REACH, score=SCORE_REACH + 1)

    def target(self, party: str, data: Dataset) -> tuple[Target, Dataset]:
        data, exposure = take_exposure(party, data, self.params.exposure)
        y = check_numbers(party, data.y, data.label, 0 if data.X is None else data.X.shape[0])
        if (y < 0).any() or not y.any():
            raise DataError(f"{party}'s label {data.label!r} must count something: none below 0, and some above.")
        if y.min() == y.max() and exposure.min() == exposure.max():
            raise DataError(f"{party}'s label {data.label!r} is the same in all rows; there is nothing to learn.")
        if max(y.max(), exposure.max() * y.sum() / exposure.sum()) >= 2**REACH:
            raise DataError(
                f"{party}'s label {data.label!r} is {2**REACH} or more in some rows. Count in larger units."
            )
        return Target(y, np.ones(len(y)), np.log(exposure)), data

    def solver(self, party: str, X: Matrix, columns: Sequence[str], parties: int, target: Target | None) -> Solver:
        penalty = np.full(X.shape[1], self.params.alpha * X.shape[0])
        if target is None:
            return _Passive(X, penalty)
        penalty[-1] = 0.0  # the intercept
        return _Active(X, penalty, target)

    def factors(self, stage: Stage, a: Floats, others: int) -> Callable[[slice], Factors]:
        def of(rows: slice) -> Factors:
            # on the way a step may go too far; it is taken back
            means = np.exp(np.minimum(a[rows], REACH * np.log(2.0) - 0.01))
            return Factors(np.column_stack([np.zeros(len(means)), means]), np.zeros(len(means)))

        return of

    def basis(self, stage: Stage, b: Floats) -> Floats:
        return np.asarray(np.exp(np.minimum(b, LIMIT)))[:, None]

    def check_scores(self, party: str, scores: Floats) -> None:
        if scores.max() >= LIMIT:
            raise DataError(
                f"{party}'s features make the rate of some rows over {2**SCORE_REACH} times the average. Winsorise "
                "them (clip=4.0), take logarithms, or use a larger alpha."
            )

    def notes(self, target: Target, scores: Floats, passives: int, converged: bool) -> list[str]:
        return []


class _Active(Remembering):
    """Starts at the mean. The sum of all means follows from the intercept's gradient."""

    def __init__(self, X: Matrix, penalty: Floats, target: Target) -> None:
        start = np.zeros(X.shape[1])
        start[-1] = np.log(target.y.sum() / np.exp(target.offset).sum())
        super().__init__(X, penalty, start)
        self.level = float(target.y.mean())
        self._target = target

    def curvature(self, loss_gradient: Floats) -> Floats:
        own = np.exp(scores(self.X, self.w) + self._target.offset)
        means = max(float(loss_gradient[-1] + self._target.y.sum()), 1e-3 * float(self._target.y.sum()))
        return squares(self.X, own * means / own.sum())


class _Passive(Remembering):
    def curvature(self, loss_gradient: Floats) -> Floats:
        own = np.exp(scores(self.X, self.w))
        return squares(self.X, own * self.level / own.mean())


def take_exposure(party: str, data: Dataset, column: str | None) -> tuple[Dataset, Floats]:
    """The data without the column, and the column: ones where none was named."""
    if data.X is None:
        raise DataError(f"{party} brought no table of features.")
    if column is None:
        return data, np.ones(data.X.shape[0])
    if column not in data.columns:
        raise DataError(f"{party} has no column {column!r} for the exposure.")
    j = data.columns.index(column)
    exposure = data.X[:, j]
    if not (np.isfinite(exposure).all() and (exposure > 0).all()):
        raise DataError(f"{party}'s exposure {column!r} must be above 0 in every row.")
    rest = (*data.columns[:j], *data.columns[j + 1 :])
    return replace(data, X=Without(data.X, j), columns=rest), exposure


PROTOCOL = Protocol(
    name="vertical_poisson",
    version=2,
    params=PoissonParams,
    roles=four_steps.roles(Poisson),
    sends=four_steps.sends(mixes=True, level=True, chained=True),
    limits=four_steps.LIMITS,
    learns=four_steps.LEARNS
    | {
        "passive": f"{four_steps.LEARNS['passive']}; the mean of the label to the nearest power of two",
        "coordinator": f"{four_steps.LEARNS['coordinator']}; inner products of steps",
    },
    learns_with_key=four_steps.LEARNS_WITH_KEY,
)
