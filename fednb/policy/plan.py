"""What an analyst may ask of a party's gate: a closed vocabulary of plans.

A plan says which rows (tables, filters, joins inside the party), which columns (row-level expressions) and which
question: an aggregate, or a table that stays at the party. Nothing in it is code; what it cannot say cannot be asked.
Whether an answer may leave, the release rules decide.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from fednb.errors import DataError

MOST_DEPTH = 100
MOST_NODES = 5_000

Word = Annotated[str, msgspec.Meta(max_length=200)]
Scalar: TypeAlias = bool | int | float | Word
Size = Annotated[list[Word], msgspec.Meta(max_length=200)]


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="node", tag=True):
    """Base of all plan nodes; the tag is the class name."""


# ---------------------------------------------------------------- expressions on one row


class Column(Node, frozen=True):
    name: Word


class Literal_(Node, frozen=True, tag="Literal"):
    value: Scalar


class Unary(Node, frozen=True):
    op: Literal["-", "not", "abs", "log", "log1p", "exp", "sqrt", "isna"]
    x: Expr


class Binary(Node, frozen=True):
    op: Literal["+", "-", "*", "/", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or"]
    left: Expr
    right: Expr


class OneOf(Node, frozen=True):
    x: Expr
    values: Annotated[list[Scalar], msgspec.Meta(max_length=500)]


class Choose(Node, frozen=True):
    """`x` where the condition holds, else `other`."""

    condition: Expr
    x: Expr
    other: Expr


class Fill(Node, frozen=True):
    """`value` where x is missing."""

    x: Expr
    value: Scalar


class Clip(Node, frozen=True):
    x: Expr
    low: float | None = None
    high: float | None = None


class Cut(Node, frozen=True):
    """The interval [edge, next edge) that x lies in, as text; the outermost are open-ended."""

    x: Expr
    edges: Annotated[list[float], msgspec.Meta(min_length=1, max_length=200)]


Expr: TypeAlias = Column | Literal_ | Unary | Binary | OneOf | Choose | Fill | Clip | Cut


# ---------------------------------------------------------------- rows


class Table(Node, frozen=True):
    name: Word


class Where(Node, frozen=True):
    rows: Rows
    condition: Expr


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Word
    x: Expr


class Columns(Node, frozen=True):
    """The same rows with these columns and no others."""

    rows: Rows
    columns: Annotated[list[Named], msgspec.Meta(max_length=500)]


class Join(Node, frozen=True):
    """Rows of `left` with the one row of `right` that has the same ids or keys; `suffix` marks names that both have."""

    left: Rows
    right: Rows
    on: Size
    how: Literal["left", "inner"] = "left"
    suffix: Word = "_right"


Rows: TypeAlias = Table | Where | Columns | Join


# ---------------------------------------------------------------- questions

Statistic = Literal["size", "count", "missing", "sum", "mean", "var", "std", "quantile"]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statistic of one column; `q` between 0 and 1 for a quantile, `column` "" for the size."""

    statistic: Statistic
    column: Word = ""
    q: float | None = None


class Aggregate(Node, frozen=True):
    rows: Rows
    figures: Annotated[list[Figure], msgspec.Meta(min_length=1, max_length=500)]
    by: Size = []


class Count(Node, frozen=True):
    """How many rows have each combination of these columns' values."""

    rows: Rows
    columns: Annotated[list[Word], msgspec.Meta(min_length=1, max_length=4)]


class Histogram(Node, frozen=True):
    rows: Rows
    column: Word
    bins: Annotated[int, msgspec.Meta(ge=2, le=50)] = 10


class Correlate(Node, frozen=True):
    rows: Rows
    columns: Annotated[list[Word], msgspec.Meta(min_length=2, max_length=50)]
    covariance: bool = False


class Regress(Node, frozen=True):
    """Ordinary least squares, or a logistic regression without penalty; categories become dummies."""

    rows: Rows
    y: Word
    x: Annotated[list[Word], msgspec.Meta(min_length=1, max_length=30)]
    family: Literal["ols", "logit"] = "ols"


class Keep(Node, frozen=True):
    """Make a table of these rows and columns that stays at the party, for alignment and training."""

    rows: Rows
    name: Word
    id: Size
    label: Word | None = None


Question: TypeAlias = Aggregate | Count | Histogram | Correlate | Regress | Keep


def check(question: Question) -> None:
    """Raises DataError for a plan that is larger or deeper than any person writes."""
    stack: list[tuple[object, int]] = [(question, 1)]
    nodes = 0
    while stack:
        part, depth = stack.pop()
        nodes += 1
        if depth > MOST_DEPTH or nodes > MOST_NODES:
            raise DataError(
                f"the question is too large: at most {MOST_NODES:,} parts, nested {MOST_DEPTH} deep. Save a table "
                "half-way (fed.save), load it, and go on from there."
            )
        if isinstance(part, msgspec.Struct):
            stack += [(getattr(part, name), depth + 1) for name in part.__struct_fields__]
        elif isinstance(part, list):
            stack += [(each, depth) for each in part]
