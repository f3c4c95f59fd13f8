"""Weight of evidence for features that lie apart from the label: bins at each owner, positives counted encrypted.

    active (y, X_a)                 passive p (X_p), one or more         coordinator (secret key)
      | <───────────────────────────────┼─────────────── Key n ────────── |
      |                                 |── Shape rows, cells ──────────> |   counted against the label set's quota
      |── Shape rows, 0 ────────────────┼───────────────────────────────> |
      | <───────────────────────────────┼ <───────────── Ready ────────── |
      |── Labels [[y]], packed ───────> |                                 |
      |                                 |── MaskedSums [[Σ y + m]] ─────> |   one a cell, m uniform
      | <───────────────────────────────┼─────────────── Windows ──────── |   of Σ y + m
      | <── Cells rows, windows of m ── |                                 |
      |── Bins which cells, positives > |                                 |

Each owner cuts its own columns on the training rows, into cells of at least ten rows; missing and special values get
cells of their own where ten rows have them. Otherwise they weigh nothing, but are counted with the largest cell: rows
that are in no bin would follow from all rows, and their labels with them. The active party takes the masks off, sees
rows and positives of numbered cells, merges neighbours (see `evidence`) and says which cells make a bin. What could be
no bin, as it has one class, goes to the largest. Features travel in a random order and without names. The active
party's own columns are treated alike, in plain.

| role | learns |
|---|---|
| active | of each passive party: number of features; rows and positives of each cell; no name, value or cut point |
| passive | of its own features: which cells make a bin, and the positives of each bin; all positives; never a label |
| coordinator | rows; each passive party's number of cells; otherwise uniform random bits |
| coordinator, analyst | of each feature: its information value, and rows and positives of each bin |

A bin has at least ten rows and both classes, so no row's label follows from it. Two binnings with cuts close together,
or of two lots of rows that are nearly the same, tell the counts between them: the coordinator counts each decrypted sum
against the quota of the label set, over all runs. Cut points that an analyst gives are known to all members of the run.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from fednb.crypto import paillier
from fednb.crypto.cells import cell_sums
from fednb.crypto.masking import Mask, mask
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import Fresh, PublicKey
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.cuts import Cuts, Floats, Integers, Method, fit_cuts
from fednb.protocols.evidence import NEUTRAL, Merge, atoms, information, merged, whole, woe
from fednb.protocols.features import MIN_ROWS, check_label
from fednb.protocols.keys import Key, KeyParams, accept_key
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

GUARD = 2  # zero bits below a label: a window is right up to one unit, and rounding makes the sum exact
LABEL_BITS = GUARD + 2  # 2**GUARD and its sign


class BinningParams(Params):
    bins: Annotated[int, Meta(ge=2, le=100)] = 20  # cells of ordinary values a feature, before merging
    method: Method = "quantile"
    merge: Merge = "monotone"
    max_bins: Annotated[int, Meta(ge=1, le=100)] = 10  # of ordinary values, after merging
    min_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.05  # of the rows, behind each merged bin
    special: Annotated[list[float], Meta(max_length=20)] = []  # values that are codes
    cuts: dict[str, dict[str, list[float]]] = {}  # party -> column -> cut points, instead of `method`
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits


class Shape(Message):
    """A party to the coordinator."""

    discloses = Disclosure("numbers of rows and cells")

    rows: int
    cells: int  # sums it will ask to decrypt


class Ready(Message):
    """Everybody has the same rows, and the quota allows the sums."""

    discloses = Disclosure("that all shapes fit")


class Labels(Message):
    discloses = Disclosure("each row's label", "encrypted", label=True)

    labels: Fresh  # [ceil(rows/k)] k packed labels each, times 2**GUARD


class MaskedSums(Message):
    discloses = Disclosure("positives of cells", "masked", decrypts=True)

    sums: Fresh  # [cells] slot k-1 of each holds the positives of a cell, behind a mask


class Windows(Message):
    discloses = Disclosure("positives of cells", "masked", each="piece")

    windows: np.ndarray  # uint64 [cells]


class Cells(Message):
    discloses = Disclosure("rows and positives of numbered cells of ten rows or more")

    ordered: np.ndarray  # int64 [features] cells of neighbouring values
    apart: np.ndarray  # int64 [features] cells of missing and special values
    rows: np.ndarray  # int64 [cells] feature after feature
    masks: np.ndarray  # uint64 [cells] windows of the masks


class Bins(Message):
    discloses = Disclosure("which cells make a bin, and its positives")

    groups: np.ndarray  # int64 [cells] bin of each cell within its feature
    atoms: np.ndarray  # int64 [cells] which neighbouring cells may not be parted later; -1: of no matter
    positives: np.ndarray  # int64 [bins] feature after feature
    all_positives: int


@dataclass
class Feature:
    """One column of one's own, cut into cells, some of which are counted: each by itself, or several as one."""

    cuts: Cuts
    place: Integers  # [cells of the cuts] which count a cell belongs to; NEUTRAL: to none
    cells: Integers  # [n] which count each row is in
    rows: Integers  # [counts]
    all_rows: Integers  # of every cell of the cuts
    given: bool = False  # the cut points are an analyst's
    atoms: Integers | None = None  # of an earlier fit: which cells of ordinary values may not be parted

    @classmethod
    def of(
        cls,
        cuts: Cuts,
        x: Floats,
        units: Integers | None = None,
        *,
        given: bool = False,
        atoms: Integers | None = None,
    ) -> Feature:
        """Column x [n] by `units`, which count each cell belongs to (None: one each); those of few rows to none."""
        cells = cuts.cells(x)
        all_rows = np.bincount(cells, minlength=cuts.size)
        units = np.arange(cuts.size) if units is None else units
        sizes = np.bincount(units, weights=all_rows)
        counted = np.flatnonzero(sizes >= MIN_ROWS)
        order = np.full(len(sizes), NEUTRAL, dtype=np.int64)
        order[counted] = np.arange(len(counted))
        place = order[units]
        # rows of cells that are too small weigh nothing, but are counted with the largest: what is left over would
        # follow from all rows, and be the labels of a few
        largest = int(sizes[counted].argmax()) if len(counted) else 0
        own = np.where(place[cells] == NEUTRAL, largest, place[cells])
        rows = np.bincount(own, minlength=len(counted)).astype(np.int64)
        return cls(cuts, place, own, rows, all_rows.astype(np.int64), given, atoms)

    @property
    def ordered(self) -> int:
        """How many counts hold ordinary values."""
        if (self.place == NEUTRAL).all():
            return 1
        return int(self.place[: self.cuts.ordered].max(initial=NEUTRAL)) + 1

    def result(
        self, groups: Integers, atoms: Integers, positives: Integers, all_rows: int, all_positives: int
    ) -> dict[str, Any]:
        """What becomes of the column: cut points, weights by cell, and its bins as they are released."""
        bins = int(groups.max(initial=NEUTRAL)) + 1
        rows = np.array([self.rows[groups == b].sum() for b in range(bins)], dtype=np.int64)
        weights = woe(rows, positives, all_rows, all_positives)
        bin_of_cell = np.append(groups, NEUTRAL)[self.place]  # NEUTRAL is -1, the last
        by_cell = np.append(weights, 0.0)[bin_of_cell]
        first = [next(iter(np.flatnonzero(bin_of_cell == b).tolist()), 0) for b in range(bins)]
        ordinary = bin_of_cell[: self.cuts.ordered]
        parts = np.append(atoms, NEUTRAL)[self.place][: self.cuts.ordered] if self.atoms is None else self.atoms
        ends = np.flatnonzero(np.diff(bin_of_cell[: self.cuts.ordered]))
        return {
            "points": self.cuts.points,
            "woe": by_cell,
            "bin": bin_of_cell,
            "rows": self.all_rows,
            "atoms": parts,
            "bins": {
                "holds": [self.cuts.name(cell) for cell in first],
                "rows": rows.tolist(),
                "positives": positives.tolist(),
                "woe": weights.tolist(),
                "iv": information(rows, positives, all_rows, all_positives).tolist(),
                "cells": [max(1, len(np.unique(parts[ordinary == b]))) for b in range(bins)],
                "edges": self.cuts.points[ends].tolist() if self.given else [],
            },
        }


def positives_of(feature: Feature, y: Floats) -> Integers:
    """[counts] positives of one's own column."""
    return np.bincount(feature.cells, weights=y, minlength=len(feature.rows)).astype(np.int64)


BinsOf = Callable[[int, Integers, Integers], tuple[Integers, Integers, Integers]]


def active(link: Link, data: Dataset, params: BinningParams, run: RunContext) -> Outcome:
    X = _check(link.me, data, params)
    y = check_label(link.me, data.y, data.label, len(X))
    own = _cut(link.me, X, data.columns, params, run)
    least = max(MIN_ROWS, math.ceil(params.min_share * len(y)))
    bins_of = bins_by(y, params.merge, least, params.max_bins)
    lead(link, y, params, run, bins_of)
    all_positives = int(y.sum())
    results = [
        feature.result(*bins_of(feature.ordered, feature.rows, positives_of(feature, y)), len(y), all_positives)
        for feature in own
    ]
    outcome = _outcome(link.me, data, params, results, len(y))
    return Outcome(private={**outcome.private, "label": data.label}, public=outcome.public)


def bins_by(y: Floats, merge: Merge, least: int, most: int) -> BinsOf:
    """Bins from counts: which bin each count goes to, its atom, and positives by bin."""
    all_positives = int(y.sum())

    def bins_of(ordered: int, rows: Integers, positives: Integers) -> tuple[Integers, Integers, Integers]:
        groups = merged(rows, positives, len(y), all_positives, ordered=ordered, merge=merge, least=least, most=most)
        groups = whole(groups, rows)
        parts = np.full(len(rows), NEUTRAL, dtype=np.int64)
        parts[:ordered] = atoms(groups[:ordered], rows[:ordered], positives[:ordered])
        count = int(groups.max(initial=NEUTRAL)) + 1
        return groups, parts, np.array([positives[groups == b].sum() for b in range(count)], dtype=np.int64)

    return bins_of


def lead(link: Link, y: Floats, params: KeyParams, run: RunContext, bins_of: BinsOf) -> None:
    """The active party's part of the exchange with all passive parties."""
    (coordinator,) = link.cast["coordinator"]
    key = accept_key(link.recv(coordinator, Key).n, params, coordinator)
    link.send(coordinator, Shape(rows=len(y), cells=0))
    link.recv(coordinator, Ready)
    packing = _packing(key, len(y))
    labels = packing.pack(y.astype(np.int64) << GUARD)
    for passive in link.cast["passive"]:
        run.check()
        run.count("encrypt", len(labels))
        link.send(passive, Labels(key.encrypt(labels, GUARD, run.threads)))
    for step, passive in enumerate(link.cast["passive"], 1):
        said = link.recv(passive, Cells)
        sizes = _check_cells(passive, said, len(y))
        windows = link.recv(coordinator, Windows).windows
        try:
            sums = Mask(said.masks, packing).remove(windows)
        except CryptoError as error:
            raise UnexpectedMessage(f"{passive} or {coordinator} sent {error}", member=passive) from None
        positives = (sums + (1 << (GUARD - 1))) >> GUARD
        if (positives < 0).any() or (positives > said.rows).any():
            raise UnexpectedMessage(f"{passive} sent sums that count no labels", member=passive)
        ends = np.cumsum(sizes)
        found = [
            bins_of(int(ordered), said.rows[end - size : end], positives[end - size : end])
            for ordered, size, end in zip(said.ordered, sizes, ends, strict=True)
        ]
        link.send(
            passive,
            Bins(
                groups=np.concatenate([groups for groups, _, _ in found]),
                atoms=np.concatenate([parts for _, parts, _ in found]),
                positives=np.concatenate([counts for _, _, counts in found]),
                all_positives=int(y.sum()),
            ),
        )
        run.progress("bin", step, len(link.cast["passive"]))


def passive(link: Link, data: Dataset, params: BinningParams, run: RunContext) -> Outcome:
    X = _check(link.me, data, params)
    if not data.columns:
        raise DataError(f"{link.me} has no features in this frame. Leave it out, or align a table that has some.")
    own = _cut(link.me, X, data.columns, params, run)
    return _outcome(link.me, data, params, follow(link, own, params, run), len(X))


def follow(link: Link, own: list[Feature], params: KeyParams, run: RunContext) -> list[dict[str, Any]]:
    """A passive party's part of the exchange; the results of its features."""
    (active,), (coordinator,) = link.cast["active"], link.cast["coordinator"]
    rows = len(own[0].cells)
    key = accept_key(link.recv(coordinator, Key).n, params, coordinator)
    # numbers that the active party sees are no positions; `run.rng` is not for secrets
    order = np.random.default_rng(secrets.randbits(128)).permutation(len(own))
    sent = [own[j] for j in order]
    count = sum(len(feature.rows) for feature in sent)
    link.send(coordinator, Shape(rows=rows, cells=count))
    link.recv(coordinator, Ready)
    packing = _packing(key, rows)
    try:
        labels = key.accept(
            link.recv(active, Labels).labels, count=packing.length(rows), scale=GUARD, threads=run.threads
        )
    except CryptoError as error:
        raise UnexpectedMessage(f"{active} sent labels that cannot be used: {error}", member=active) from None
    run.progress("count", 0, 1)
    sizes = [len(feature.rows) for feature in sent]
    sums = cell_sums(labels, np.column_stack([feature.cells for feature in sent]), sizes, packing, run.threads)
    run.count("add", rows * len(sent))
    hidden, masks = mask(sums, packing, run.threads)
    run.count("refresh", count)
    link.send(coordinator, MaskedSums(hidden))
    link.send(
        active,
        Cells(
            ordered=np.array([feature.ordered for feature in sent], dtype=np.int64),
            apart=np.array([len(feature.rows) - feature.ordered for feature in sent], dtype=np.int64),
            rows=np.concatenate([feature.rows for feature in sent]),
            masks=masks.hand_over(),
        ),
    )
    results = dict(zip(order.tolist(), _read_bins(active, sent, link.recv(active, Bins), rows), strict=True))
    run.progress("count", 1, 1)
    return [results[j] for j in range(len(own))]


def coordinator(link: Link, data: Dataset, params: KeyParams, run: RunContext) -> Outcome:
    (active,), passives = link.cast["active"], link.cast["passive"]
    secret = paillier.generate(params.key_bits, insecure_short_key=params.insecure_short_key)
    for member in (active, *passives):
        link.send(member, Key(secret.public.to_bytes()))
    shapes = {member: link.recv(member, Shape) for member in (active, *passives)}
    rows = {shape.rows for shape in shapes.values()}
    if len(rows) != 1 or min(rows) < 2:
        said = ", ".join(f"{member} {shape.rows}" for member, shape in shapes.items())
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    for member in passives:
        if shapes[member].cells < 0:
            raise UnexpectedMessage(f"{member} announced {shapes[member].cells} cells", member=member)
        run.budget.expect(member, shapes[member].cells)
    for member in (active, *passives):
        link.send(member, Ready())
    packing = _packing(secret.public, rows.pop())
    for step, member in enumerate(passives, 1):
        count = shapes[member].cells
        try:
            c = secret.public.accept(link.recv(member, MaskedSums).sums, count=count)
        except CryptoError as error:
            raise UnexpectedMessage(f"{member} sent sums that cannot be used: {error}", member=member) from None
        run.budget.spend(member, count)
        run.count("decrypt", count)
        link.send(active, Windows(packing.windows(secret.decrypt(c, run.threads))))
        run.progress("count", step, len(passives))
    return Outcome(public={"cells": {member: shapes[member].cells for member in passives}})


def _check(party: str, data: Dataset, params: BinningParams) -> Floats:
    """X [n, d], where missing values may stand. DataError naming party and column."""
    if data.X is None or data.X.ndim != 2 or data.X.shape[1] != len(data.columns):
        raise DataError(f"{party} brought no table of features for its {len(data.columns)} columns.")
    X = np.asarray(data.X, dtype=np.float64)
    if len(X) < 2 * MIN_ROWS:
        raise DataError(f"{party} has {len(X)} rows in this frame; bins need at least {2 * MIN_ROWS}.")
    endless = [repr(name) for j, name in enumerate(data.columns) if np.isinf(X[:, j]).any()]
    if endless:
        raise DataError(f"{party} has infinite values in {', '.join(endless)}. Replace them first.")
    strange = [repr(name) for name in params.cuts.get(party, {}) if name not in data.columns]
    if strange:
        raise DataError(f"cut points were given for {party}'s {', '.join(strange)}, which this frame lacks.")
    if not all(math.isfinite(x) for points in params.cuts.get(party, {}).values() for x in points):
        raise DataError(f"cut points of {party} must be finite numbers.")
    return X


def _cut(party: str, X: Floats, columns: tuple[str, ...], params: BinningParams, run: RunContext) -> list[Feature]:
    given = params.cuts.get(party, {})
    special = sorted({float(value) for value in params.special})
    features = []
    for j, name in enumerate(columns):
        cuts = fit_cuts(
            X[:, j], bins=params.bins, method=params.method, least=MIN_ROWS, special=special, given=given.get(name)
        )
        feature = Feature.of(cuts, X[:, j], given=name in given)
        if feature.given:
            run.apart(name, feature.cells)
        features.append(feature)
    return features


def _packing(key: PublicKey, rows: int) -> Packing:
    return Packing.plan(key.bits, rows, LABEL_BITS, 2)


def _check_cells(member: str, said: Cells, rows: int) -> Integers:
    """Cells of each feature. UnexpectedMessage for what does not fit together, or has cells of too few rows."""
    arrays = (said.ordered, said.apart, said.rows)
    sound = all(a.dtype == np.int64 and a.ndim == 1 for a in arrays) and said.ordered.shape == said.apart.shape
    sound = sound and all(bool((a >= 0).all() and (a <= rows).all()) for a in arrays)
    if not sound or said.masks.dtype != np.uint64 or said.masks.shape != said.rows.shape:
        raise UnexpectedMessage(f"{member} sent cells that cannot be read", member=member)
    sizes: Integers = said.ordered + said.apart
    if sizes.sum() != len(said.rows):
        raise UnexpectedMessage(f"{member} sent rows of {len(said.rows)} cells, not of {sizes.sum()}", member=member)
    ends = np.concatenate([[0], np.cumsum(said.rows)])[np.concatenate([[0], np.cumsum(sizes)])]
    if (said.rows < MIN_ROWS).any() or (np.diff(ends) > rows).any():
        raise UnexpectedMessage(
            f"{member} sent cells with fewer than {MIN_ROWS} rows, or more rows than there are", member=member
        )
    return sizes


def _read_bins(member: str, sent: list[Feature], said: Bins, rows: int) -> list[dict[str, Any]]:
    """The results of one's own features, in the order of sending."""
    count = sum(len(feature.rows) for feature in sent)
    sound = all(a.dtype == np.int64 and a.ndim == 1 for a in (said.groups, said.atoms, said.positives))
    if not sound or not len(said.groups) == len(said.atoms) == count or not 0 < said.all_positives < rows:
        raise UnexpectedMessage(f"{member} sent bins that cannot be read", member=member)
    results, cell, taken = [], 0, 0
    for feature in sent:
        groups, parts = (a[cell : cell + len(feature.rows)] for a in (said.groups, said.atoms))
        cell += len(groups)
        used = np.unique(groups[groups != NEUTRAL])
        positives = said.positives[taken : taken + len(used)]
        taken += len(used)
        neighbours = np.diff(groups[: feature.ordered])
        steps = np.diff(parts[: feature.ordered], prepend=0)
        if ((steps != 0) & (steps != 1)).any() or (neighbours > steps[1:]).any():  # a new bin begins with a new atom
            raise UnexpectedMessage(f"{member} sent bins whose parts are no neighbouring cells", member=member)
        sound = np.array_equal(used, np.arange(len(used))) and len(positives) == len(used)
        if not sound or ((neighbours != 0) & (neighbours != 1)).any():
            raise UnexpectedMessage(f"{member} sent bins that are no neighbouring cells", member=member)
        size = np.array([feature.rows[groups == b].sum() for b in range(len(used))])
        if (positives <= 0).any() or (positives >= size).any():
            raise UnexpectedMessage(f"{member} sent bins without both classes", member=member)
        results.append(feature.result(groups, parts, positives, rows, said.all_positives))
    if taken != len(said.positives):
        raise UnexpectedMessage(f"{member} sent positives of {len(said.positives)} bins, not of {taken}", member=member)
    return results


def _outcome(party: str, data: Dataset, params: BinningParams, results: list[dict[str, Any]], rows: int) -> Outcome:
    notes = [
        f"{party}'s {name!r} has one bin only ({_why(data, j)}): it tells nothing and is left out."
        for j, name in enumerate(data.columns)
        if len(results[j]["bins"]["rows"]) < 2
    ]
    return Outcome(
        private={
            "columns": list(data.columns),
            "points": [result["points"] for result in results],
            "woe": [result["woe"] for result in results],
            "bin": [result["bin"] for result in results],
            "rows": [result["rows"] for result in results],
            "atoms": [result["atoms"] for result in results],
            "special": sorted({float(value) for value in params.special}),
            "given": sorted(params.cuts.get(party, {})),
        },
        public={
            "features": [{"column": name, **results[j]["bins"]} for j, name in enumerate(data.columns)],
            "rows": rows,
            "notes": notes,
        },
    )


def _why(data: Dataset, j: int) -> str:
    x = np.asarray(data.X)[:, j]
    if np.isnan(x).all():
        return "every value is missing"
    return "every value is the same" if np.nanmin(x) == np.nanmax(x) and not np.isnan(x).any() else "no merge has two"


def cuts_of(part: Mapping[str, Any]) -> dict[str, tuple[Cuts, Floats, Integers]]:
    """From a party's own part of a binning: cuts, weight of each cell, and its bin or NEUTRAL; by column."""
    special = tuple(float(value) for value in part["special"])
    return {
        name: (Cuts(np.asarray(points, dtype=np.float64), special), np.asarray(weights), np.asarray(bins))
        for name, points, weights, bins in zip(part["columns"], part["points"], part["woe"], part["bin"], strict=True)
    }


PROTOCOL = Protocol(
    name="vertical_binning",
    version=2,
    params=BinningParams,
    roles={
        "active": Role(active, needs=("X", "missing", "y"), figures=True),
        "passive": Role(passive, many=True, needs=("X", "missing"), figures=True),
        "coordinator": Role(coordinator),
    },
    sends={
        ("coordinator", "active"): (Key, Ready, Windows),
        ("coordinator", "passive"): (Key, Ready),
        ("active", "coordinator"): (Shape,),
        ("active", "passive"): (Labels, Bins),
        ("passive", "coordinator"): (Shape, MaskedSums),
        ("passive", "active"): (Cells,),
    },
    learns={
        "active": "rows and positives of numbered cells of each passive party's features",
        "passive": "which of its own cells make a bin, and the positives of each bin",
        "coordinator": "rows, numbers of cells; information value, rows and positives of each released bin",
    },
    learns_with_key={
        "active": "nothing more than the cells' counts",
        "passive": "the label of each row",
    },
)
