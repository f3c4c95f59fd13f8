"""Several classes by one binary model each: which there are, and how good the most probable one is.

    coordinator                         active (label; scores of one run a class, or one of all)
        ── run "label_classes" ────────────> the label's values, each behind ten rows or more
        ── run "one_vs_rest" ──────────────> probabilities of each row, kept; accuracy and a table of counts

| role | learns |
|---|---|
| active | nothing new: labels and scores are its own |
| coordinator, analyst | the classes and their rows; accuracy, log loss; rows by true and predicted class, 10 at least |
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.evaluation import Floats
from fednb.protocols.features import check_numbers
from fednb.wire.link import Link

MIN_ROWS = 10  # behind each count
MOST_CLASSES = 50

Classes = Annotated[list[float], Meta(min_length=2, max_length=MOST_CLASSES)]


class NoParams(Params):
    """Nothing to choose."""


class RestParams(Params):
    classes: Classes  # in the order of the parts


class ClassFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often the most probable class is the true one."""

    rows: int
    accuracy: float
    log_loss: float
    counts: list[list[int | None]]  # by true class, then by predicted class; None: fewer than MIN_ROWS


def classes(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    y = check_numbers(link.me, data.y, data.label, 0 if data.y is None else len(data.y))
    values, rows = np.unique(y, return_counts=True)
    if not 2 <= len(values) <= MOST_CLASSES:
        raise DataError(f"{link.me}'s label {data.label!r} has {len(values)} values; classes are 2 to {MOST_CLASSES}.")
    if rows.min() < MIN_ROWS:
        raise DataError(
            f"{link.me}'s label {data.label!r} has {int((rows < MIN_ROWS).sum())} classes with fewer than {MIN_ROWS} "
            "rows. Merge them with others, save the table, and align again."
        )
    return Outcome(public={"classes": values.tolist(), "rows": rows.tolist()})


def active(link: Link, data: Dataset, params: RestParams, run: RunContext) -> Outcome:
    columns = [np.asarray(part["scores"], dtype=np.float64) for part in data.parts if "scores" in part]
    apart: Floats = np.column_stack(columns) if columns else np.empty((0, 0))
    if apart.shape[1] != len(params.classes):
        raise DataError(f"{link.me} holds no scores of each class; predict first.")
    y = check_numbers(link.me, data.y, data.label, len(apart))
    known = np.asarray(params.classes)
    strange = int((~np.isin(y, known)).sum())
    if strange:
        raise DataError(f"{link.me}'s label {data.label!r} has other classes in {strange} rows than were trained on.")
    shares = apart / np.maximum(apart.sum(axis=1, keepdims=True), 1e-15)  # as scikit-learn's OneVsRestClassifier
    true, best = np.searchsorted(known, y), shares.argmax(axis=1)
    counts = np.zeros((len(known), len(known)), dtype=np.int64)
    np.add.at(counts, (true, best), 1)
    figures = ClassFigures(
        rows=len(y),
        accuracy=float((true == best).mean()),
        log_loss=float(-np.log(np.clip(shares[np.arange(len(y)), true], 1e-15, 1.0)).mean()),
        counts=[[int(n) if n >= MIN_ROWS else None for n in row] for row in counts],
    )
    run.progress("evaluate", 1, 1)
    return Outcome(private={"shares": shares, "classes": known}, public=msgspec.structs.asdict(figures))


CLASSES = Protocol(
    name="label_classes",
    version=1,
    params=NoParams,
    roles={"active": Role(classes, needs=("y",), figures=True)},
    learns={"active": "nothing new", "coordinator": "the label's classes and their rows, 10 or more each"},
)
PROTOCOL = Protocol(
    name="one_vs_rest",
    version=1,
    params=RestParams,
    roles={"active": Role(active, needs=("y",), figures=True)},
    learns={"active": "nothing new", "coordinator": "accuracy, log loss, and counts of 10 rows or more by class"},
)
