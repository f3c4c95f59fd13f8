"""What distinguishes one regression from another in the four steps: how its mean splits, and how its numbers are kept.

    mean(a + b)  ≈  f_0(a) + f_1(a)·g_1(b) + ... + f_R(a)·g_R(b)         logistic: nearly; linear, Poisson: exactly

A family is one small file: `vertical_logistic`, `vertical_linear`, `vertical_poisson`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from fednb.protocols.base import Dataset
from fednb.protocols.layout import Numbers
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.steps import Stage


@dataclass(frozen=True)
class Target:
    """What the active party trains towards."""

    y: Floats  # [n], as it is trained on
    weights: Floats  # [n] how much each row counts, in the family's unit
    offset: Floats  # [n] added to the active party's scores
    private: Mapping[str, Any] = field(default_factory=dict)  # for its own store
    public: Mapping[str, Any] = field(default_factory=dict)


class Factors(NamedTuple):
    """The active party's side of the sum of products."""

    f: Floats  # [n, R + 1], with further passive parties averaged out
    alone: Floats  # [n] the mean with all passive parties averaged out
    # [R + 1, R + 1] how f changes with another passive party's score, if there is one: the same for all rows
    carry: Floats | None = None


class Solver(Protocol):
    """How one party moves by its own gradient."""

    X: Matrix  # [n, d]
    w: Floats  # [d], the intercept last at the active party
    level: float  # the order of magnitude of the mean, where the family says it

    def start(self, w: Floats) -> None:
        """Begin at w."""

    def at(self) -> Floats:
        """[d] where the next gradient is taken."""
        ...

    def step(self, loss_gradient: Floats, rows: int | None = None) -> tuple[float, Floats]:
        """Move by a gradient of all rows, or of so many.

        Returns the largest entry of the objective's gradient, per row, and inner products for `mixing`.
        """
        ...

    def heed(self, norm: float, mix: Floats, damping: float) -> None:
        """Hear what all parties do together. ValueError for what cannot be done."""

    def restart(self) -> None:
        """A new stage begins."""

    def state(self) -> dict[str, Any]:
        """For the journal."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Family(Numbers, Protocol):
    """One kind of regression, with its parameters."""

    name: str
    first: Stage
    sigmoid: str  # how stages follow one another (see `steps.Schedule`)
    mixes: bool  # whether the coordinator mixes the parties' points
    needs_level: bool
    chained: bool  # whether with several passive parties the mean is their product (see `chain`)
    most_passives: int
    too_many_passives: str
    weight_bits: int  # a row's weight is at most 2**weight_bits
    batch_size: int | None  # rows of an iteration, nearly; None: all
    averages: bool  # with batches: whether the mean of later coefficients is better than the last

    def target(self, party: str, data: Dataset) -> tuple[Target, Dataset]:
        """The active party's label, checked, and the data without columns that are no features."""
        ...

    def solver(self, party: str, X: Matrix, columns: Sequence[str], parties: int, target: Target | None) -> Solver:
        """For features X [n, d]; of the active party, with a column of ones last, if there is a target."""
        ...

    def factors(self, stage: Stage, a: Floats, others: int) -> Callable[[slice], Factors]:
        """The factors of some rows; `others`: passive parties beside the one whose score b is."""
        ...

    def basis(self, stage: Stage, b: Floats) -> Floats:
        """g_1(b) ... g_R(b), [n, R]"""
        ...

    def check_scores(self, party: str, scores: Floats) -> None:
        """DataError when a party's part of the fitted scores left the range in which numbers are exact."""

    def notes(self, target: Target, scores: Floats, passives: int, converged: bool) -> list[str]:
        """What the active party can tell of its own part of the fitted scores."""
        ...
