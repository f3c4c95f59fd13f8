"""Gradient-boosted trees on features of several parties: XGBoost's trees on the joined table (SecureBoost).

    active (key pair, y, X_a)       passive p (X_p), one or more
      |── Begin n ────────────────────> |
      | <─ Columns how many ─────────── |
    each round: one tree for each output
      |── Next ───────────────────────> |
      |── Gradients [[g, h]] ─────────> |   both of a row in one plaintext; only rows of the sample
    each level, all its nodes at once
      | <─ Sums [[Σ g, Σ h]] ────────── |   left of each split that p offers, many in a plaintext
      |── Splits which of them ───────> |   the best split of each node, where it is p's
      | <─ Sides who goes left ──────── |
      |── Level the nodes' children ──> |   which rows are in the nodes that are looked at next

A passive party adds up the encrypted numbers of the smaller child of each node and subtracts them from the parent's to
have the larger one's (`crypto.histograms`). The active party holds the key and decrypts sums of its own gradients;
nobody else decrypts anything, so there is no oracle to abuse. What goes to it is randomised so that even the key
holder, who made the summands, cannot see of which it was made. Cut points never leave a feature's owner.
(Cheng et al. 2021, SecureBoost; Chen et al. 2021, SecureBoost+, for packing; Chen and Guestrin 2016 for the trees.)

active learns
    of each passive party its number of features, and which are categories; of each node and feature, under numbers
    that are random but the same throughout, the sums of g and h left of each split on offer (of categories: of each,
    under such numbers; with several outputs: of all of them) and whether values are missing; which rows go left where
    it takes a split.
passive learns
    which rows are in a round's sample, in each node that is looked at and so in its sibling (not in the leaves of the
    last level, other than by its own splits), and which of its splits were taken, of categories as a set of them;
    never a label, gradient or weight.
coordinator and analyst learn
    the loss by round; of each feature gain, cover and number of splits, a passive party's under those numbers; the
    first tree without cut points, rows and weights.

What that comes to: rows that end together have alike labels, more so in the first trees. `active_trees` has these made
by the active party alone, of which others see nothing; nodes below `min_shown` rows are shown to nobody; `purity`
undoes splits that would leave a child of nearly one class; `min_leaf`, at every passive party, keeps sums and splits of
fewer rows from existing. Sums over small nodes tell the active party much about which of few rows fall into a bin. With
"goss" sampling, passive parties see which rows have large gradients. A feature's bins come in their order: h is
positive, so shuffling them alone would hide nothing; `anonymous_splits` mixes those of all of a party's features
(`menus`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from fednb.crypto import paillier
from fednb.crypto.backend import Vector
from fednb.crypto.histograms import CellPacking
from fednb.crypto.paillier import Fresh
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols import sampling
from fednb.protocols.base import Dataset, Outcome, Protocol, Role, RunContext
from fednb.protocols.binned import MISSING_LEFT, MISSING_RIGHT, MIXED, Offer
from fednb.protocols.boosting_columns import OwnColumns
from fednb.protocols.boosting_params import BoostingParams
from fednb.protocols.boosting_score import Directions, received, send_directions
from fednb.protocols.ensemble import Ensemble
from fednb.protocols.growth import NUMBER_BITS, Growth, Rows, in_units, packed, purest, unpacked
from fednb.protocols.keys import accept_key
from fednb.protocols.menus import Menu
from fednb.protocols.node_sums import NodeSums
from fednb.protocols.objectives import MOST_CLASSES, POISSON_STEP, Objective, check_target
from fednb.protocols.offers import Features, Priced, Split, check_sums, choose, own_sums
from fednb.protocols.own_nodes import OwnNodes
from fednb.protocols.parting import Cut
from fednb.protocols.trees import Integers, Rules, Truths
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message


class Begin(Message):
    discloses = Disclosure("a public key")

    n: bytes  # the Paillier modulus, big-endian
    outputs: int  # trees a round


class Columns(Message):
    discloses = Disclosure("numbers of rows and features, signs of constraints, which features are categories")

    rows: int
    trained: int  # rows that are trained on
    signs: np.ndarray  # int64 [features] -1, 0, 1: monotone constraints
    kinds: np.ndarray  # int64 [features] 0: a number; of categories 1: one by one, 2: sets of them; 3: all mixed


class Next(Message):
    discloses = Disclosure("how the training goes on", each="piece")

    what: Literal["together", "alone", "stop"]  # a round with the others, one without them, or the end
    rounds: int  # so far; at the end: how many of them count


class Gradients(Message):
    discloses = Disclosure("gradients of each sampled row", "encrypted", each="iteration")

    sample: np.ndarray  # uint8 [ceil(trained/8)] packed bits
    features: np.ndarray  # uint8 [ceil(features/8)] packed bits: those looked at in this round
    pairs: Fresh  # [sampled rows] g and h of each output, packed


class Sums(Message):
    discloses = Disclosure("sums of the receiver's gradients left of each split", "encrypted", each="piece")

    counts: np.ndarray  # int64 [nodes, features looked at] splits on offer
    missing: np.ndarray  # uint8 [nodes, features looked at] 1: the last of them is the sum of all rows with a value
    allowed: np.ndarray  # uint8 [splits] 1: missing values may go right, 2: left
    sums: Fresh  # [ceil(splits/cells)] left of each cut; of categories, of each by itself


class Splits(Message):
    discloses = Disclosure("which of the receiver's splits are taken", each="piece")

    nodes: np.ndarray  # int64 [s] in ascending order
    splits: np.ndarray  # int64 [s] place in Sums
    default_left: np.ndarray  # uint8 [s]
    left: np.ndarray  # uint8, packed bits: of splits of categories, which of those on offer there go left


class Sides(Message):
    discloses = Disclosure("which rows go left at a split", each="piece")

    left: np.ndarray  # uint8, packed bits: the rows of each node, node after node


class Level(Message):
    discloses = Disclosure("which rows are in which node", each="piece")

    kept: np.ndarray  # uint8 [s] which of the receiver's splits stand
    nodes: np.ndarray  # int64 [t] nodes that got children to look at
    children: np.ndarray  # int64 [t] number of the left one; the right one is the next
    open: np.ndarray  # uint8 [t, 2] which of them are looked at
    left: np.ndarray  # uint8, packed bits: the rows of each node, node after node


class _Party:
    """What the active and a passive party do alike."""

    def __init__(self, link: Link, data: Dataset, params: BoostingParams, run: RunContext) -> None:
        self.link, self.params, self.run = link, params, run
        self.saved = run.journal.load()
        self.own = OwnColumns(link.me, data, params, self.saved[1] if self.saved else {}, _numbering)
        self.trained, self.binned = self.own.trained, self.own.binned


def active(link: Link, data: Dataset, params: BoostingParams, run: RunContext) -> Outcome:
    me = _Active(link, data, params, run)
    me.begin()
    while me.goes_on():
        me.round()
    return me.finish()


def passive(link: Link, data: Dataset, params: BoostingParams, run: RunContext) -> Outcome:
    me = _Passive(link, data, params, run)
    me.begin()
    while me.goes_on():
        me.round()
    return me.finish()


# ------------------------------------------------------------ the active party


class _Active(_Party):
    def __init__(self, link: Link, data: Dataset, params: BoostingParams, run: RunContext) -> None:
        super().__init__(link, data, params, run)
        self.passives = link.cast["passive"]
        classes, self.y = check_target(link.me, data.y, data.label, params.objective)
        if len(self.y) != self.own.rows:
            raise DataError(f"{link.me} has {len(self.y)} labels for {self.own.rows} rows.")
        outputs = len(classes) if params.objective == "multi:softprob" else 1
        if len(np.unique(self.y[: self.trained])) < max(2, outputs):
            raise DataError(f"{link.me}'s training rows lack a class of the label. Split the frame differently.")
        step = params.max_delta_step or (POISSON_STEP if params.objective == "count:poisson" else 0.0)
        objective = Objective(params.objective, outputs, params.scale_pos_weight, step)
        self.model = Ensemble(objective, classes, self.y, self.trained, params.base_score)

    def begin(self) -> None:
        """Hand out the key, learn how many features there are, and go on from a journal or an earlier model."""
        params, outputs = self.params, self.model.objective.outputs
        self.packing = CellPacking.plan(params.key_bits, self.trained, 2 * outputs, NUMBER_BITS)
        self.key = paillier.generate(params.key_bits, insecure_short_key=params.insecure_short_key)
        for member in self.passives:
            self.link.send(member, Begin(n=self.key.public.to_bytes(), outputs=outputs))
        said = {member: self.link.recv(member, Columns) for member in self.passives}
        for member, columns in said.items():
            if (columns.rows, columns.trained) != (self.own.rows, self.trained):
                raise DataError(f"{member} has {columns.rows} rows and {self.link.me} {self.own.rows}. Align again.")
            sound = _numbers(columns.signs, columns.kinds) and len(columns.signs)
            if not sound or np.abs(columns.signs).max() > 1 or not np.isin(columns.kinds, range(MIXED + 1)).all():
                raise UnexpectedMessage(f"{member} announced columns that cannot be read", member=member)
        # of all features, one's own first, then each passive party's
        self.widths = [len(self.own.names), *(len(columns.signs) for columns in said.values())]
        self.signs = np.concatenate([self.own.signs, *(columns.signs for columns in said.values())])
        self.kinds = np.concatenate([self.own.kinds, *(columns.kinds for columns in said.values())])
        self.rules = Rules(
            params.reg_lambda,
            params.reg_alpha,
            params.gamma,
            params.min_child_weight,
            self.model.objective.max_delta_step,
            bool(self.signs.any()),
        )
        self.firsts = [sum(self.widths[:p]) for p in range(len(self.widths))]
        if self.saved is not None:
            self.model.restore(self.saved[1])
        elif self.own.earlier is not None:
            model = self.model
            model.go_on_from(self.own.earlier, self.passives, params.n_estimators)
            for rows, directions in received(self.link, model.forest, self.own.X):
                model.margins[rows] = model.forest.margins(model.forest.leaves(directions), model.base)

    def goes_on(self) -> bool:
        rounds, patience = self.model.rounds, self.params.early_stopping_rounds
        return rounds < self.params.n_estimators and not (patience and rounds - self.model.best >= patience)

    def round(self) -> None:
        """One tree for each output."""
        step, params = self.model.rounds, self.params
        rng = np.random.default_rng([params.random_state, step])
        g, h = self.model.gradients()
        if params.sampling_method == "goss":
            sample, factors = sampling.one_sided(g, h, params.top_rate, params.other_rate, rng)
        else:
            sample, factors = sampling.uniform(self.trained, params.subsample, rng)
        looked_at = sampling.columns(sum(self.widths), params.colsample_bytree, rng)
        self.looked_at = [np.flatnonzero(own) for own in np.split(looked_at, np.cumsum(self.widths)[:-1])]
        numbers = [own + first for own, first in zip(self.looked_at, self.firsts, strict=True)]
        self.features = [Features(each, self.signs[each], self.kinds[each]) for each in numbers]
        units, values = in_units(g * factors[:, None], h * factors[:, None])
        self.growth = Growth(
            self.model.forest, self.rules, params.learning_rate, self.own.rows, sample, units, values * sample[:, None]
        )
        together = bool(self.passives) and step >= params.active_trees and int(sample.sum()) >= params.min_shown
        self.shown = set(self.growth.roots) if together else set[int]()  # nodes whose rows others see
        for member in self.passives:
            self.link.send(member, Next(what="together" if together else "alone", rounds=step))
        if together:
            self._send_gradients()
        nodes, levels = self.growth.roots, dict[str, float]()
        while nodes:
            self.run.progress("train", step, params.n_estimators, **levels)
            began = time.monotonic()
            nodes = self._level(nodes, last=len(levels) + 1 == params.max_depth)
            levels[f"level_{len(levels) + 1:02}_seconds"] = time.monotonic() - began
        losses = self.model.take(self.growth)
        self.run.journal.save(step + 1, self.model.state())
        levels["round_seconds"] = sum(levels.values())
        self.run.progress("train", step + 1, params.n_estimators, **losses, **levels)

    def _send_gradients(self) -> None:
        sample = self.growth.sample
        plain = self.packing.pack(self.growth.values[sample])
        pairs = self.key.encrypt(plain, 0, self.run.threads)
        self.run.count("encrypt", len(plain))
        for member, width, looked_at in zip(self.passives, self.widths[1:], self.looked_at[1:], strict=True):
            features = np.packbits(np.isin(np.arange(width), looked_at))
            self.link.send(member, Gradients(sample=np.packbits(sample), features=features, pairs=pairs))

    def _level(self, nodes: Sequence[int], *, last: bool) -> list[int]:
        """Split what is worth it of the nodes; the children that are looked at next."""
        growth = self.growth
        splits = self._choose(nodes)
        sides = self._sides(splits, not self.shown.isdisjoint(nodes))
        standing = [split for split in splits if self._stands(split.node, sides[split.node])]
        opened, together = [], not self.shown.isdisjoint(nodes)
        for split in standing:
            children = growth.split(split.node, sides[split.node], split.choice, split.owner, split.feature)
            if split.cut is not None:
                self.model.forest.threshold[split.node] = self.binned.threshold(split.cut)
                if split.cut.sets is not None:
                    self.model.forest.sets[split.node] = split.cut.sets
            sizes = {child: len(growth.sampled(child)) for child in children}
            opened += [child for child in children if sizes[child] >= 2 * self.params.min_leaf and not last]
            if split.node in self.shown:
                self.shown |= {child for child in children if sizes[child] >= self.params.min_shown}
        if together:
            self._send_levels(splits, {split.node for split in standing}, sides, self.shown & set(opened))
        return opened

    def _choose(self, nodes: Sequence[int]) -> list[Split]:
        """The best split of each node that has one, of all that anybody offers."""
        sampled = {node: self.growth.sampled(node) for node in nodes}
        own = {node: self.binned.offer(rows, self.looked_at[0], self.params.min_leaf) for node, rows in sampled.items()}
        offers = {node: [self._price_own(node, own[node], sampled[node])] for node in nodes}
        shown = [node for node in nodes if node in self.shown]
        for p in range(1, len(self.widths) if shown else 1):
            for node, priced in zip(shown, self._read_sums(p, shown, sampled), strict=True):
                offers[node].append(priced)
        mine, firsts = self.looked_at[0], self.firsts
        found = [
            choose(self.rules, node, self.growth.nodes[node], offers[node], own[node], mine, firsts) for node in nodes
        ]
        return [split for split in found if split is not None]

    def _price_own(self, node: int, offer: Offer, rows: Integers) -> Priced:
        tree = self.growth.trees[node]
        sums = own_sums(self.binned, offer, rows, self.looked_at[0], self.growth.values[:, 2 * tree : 2 * tree + 2])
        total = self.growth.totals(tree, rows)
        return Priced.of(
            sums, total, self.growth.units, offer.counts, offer.missing, offer.allowed, self.features[0], self.rules
        )

    def _read_sums(self, p: int, nodes: Sequence[int], sampled: Mapping[int, Integers]) -> list[Priced]:
        """What the p-th passive party offers for each node. UnexpectedMessage for what gradients cannot add up to."""
        member = self.passives[p - 1]
        said = self.link.recv(member, Sums)
        shape = (len(nodes), len(self.looked_at[p]))
        sound = said.counts.shape == said.missing.shape == shape and said.counts.dtype == np.int64
        sound = sound and bool((said.counts >= 0).all() and (said.counts <= self.trained).all())
        offered = int(said.counts.sum()) if sound else -1
        if offered < 0 or said.allowed.shape != (offered,) or said.allowed.dtype != np.uint8:
            raise UnexpectedMessage(f"{member} sent sums that cannot be read", member=member)
        key, count, features = self.key.public, self.packing.length(offered), self.features[p]
        try:
            c = key.accept(said.sums, count=count, scale=0, threads=self.run.threads)
        except CryptoError as error:
            raise UnexpectedMessage(f"{member} sent sums that cannot be used: {error}", member=member) from None
        self.run.count("decrypt", count)
        every = self.packing.unpack([key.signed(m) for m in self.key.decrypt(c, self.run.threads)], offered)
        found, start = [], 0
        for node, counts, missing in zip(nodes, said.counts, said.missing.astype(np.bool_), strict=True):
            tree, here = self.growth.trees[node], slice(start, start + int(counts.sum()))
            sums = every[here, 2 * tree : 2 * tree + 2]  # of one output; those of others are not looked at
            total = self.growth.totals(tree, sampled[node])
            check_sums(member, counts, sums, total, features.kinds)
            allowed = said.allowed[here].astype(np.int64)
            found.append(
                Priced.of(sums, total, self.growth.units, counts, missing, allowed, features, self.rules, start)
            )
            start = here.stop
        return found

    def _sides(self, splits: Sequence[Split], together: bool) -> dict[int, Truths]:
        """Which of each split node's rows go left, by whoever owns the split."""
        sides: dict[int, Truths] = {}
        rows = {split.node: self.growth.of(split.node) for split in splits}
        for split in splits:
            if split.cut is not None:
                sides[split.node] = self.binned.goes_left(rows[split.node], split.cut)
        if not together:
            return sides
        asked = {member: [s for s in splits if s.owner == p] for p, member in enumerate(self.passives, 1)}
        for member, theirs in asked.items():
            self.link.send(
                member,
                Splits(
                    nodes=np.array([split.node - self.growth.first for split in theirs], dtype=np.int64),
                    splits=np.array([split.option for split in theirs], dtype=np.int64),
                    default_left=np.array([split.choice.default_left for split in theirs], dtype=np.uint8),
                    left=packed([split.left for split in theirs if split.left is not None]),
                ),
            )
        for member, theirs in asked.items():
            if theirs:
                bits = self.link.recv(member, Sides).left
                parts = unpacked(member, bits, [len(rows[split.node]) for split in theirs])
                for split, left in zip(theirs, parts, strict=True):
                    self._check_side(member, split, rows[split.node], left)
                    sides[split.node] = left
        return sides

    def _check_side(self, member: str, split: Split, rows: Integers, left: Truths) -> None:
        """The rows that go left are those whose sums were sent, and no fewer than min_leaf are on either side."""
        growth = self.growth
        goes, stays = growth.counted(rows[left]), growth.counted(rows[~left])
        sums = growth.totals(growth.trees[split.node], goes).tolist()
        if min(len(goes), len(stays)) < self.params.min_leaf or sums != split.sums:
            raise UnexpectedMessage(f"{member} sent other rows left than those whose sums it sent", member=member)

    def _stands(self, node: int, left: Truths) -> bool:
        """False when a child would hold too much of one class."""
        if self.params.purity == 1 or not self.model.classes:
            return True
        rows = self.growth.of(node)
        return all(
            purest(self.y[side[side < self.trained]]) <= self.params.purity for side in (rows[left], rows[~left])
        )

    def _send_levels(
        self, splits: Sequence[Split], standing: set[int], sides: Mapping[int, Truths], opened: set[int]
    ) -> None:
        """Tell each passive party which nodes are looked at next; where other rows are stays untold."""
        first, left = self.growth.first, self.model.forest.left
        shown = [node for node in sorted(standing) if left[node] in opened or left[node] + 1 in opened]
        for p, member in enumerate(self.passives, 1):
            self.link.send(
                member,
                Level(
                    kept=np.array([split.node in standing for split in splits if split.owner == p], dtype=np.uint8),
                    nodes=np.array(shown, dtype=np.int64) - first,
                    children=np.array([left[node] for node in shown], dtype=np.int64) - first,
                    open=np.array(
                        [[left[node] + side in opened for side in (0, 1)] for node in shown], dtype=np.uint8
                    ).reshape(-1, 2),
                    left=packed([sides[node] for node in shown]),
                ),
            )

    def finish(self) -> Outcome:
        model, params = self.model, self.params
        counted = model.best if params.early_stopping_rounds is not None else model.rounds
        for member in self.passives:
            self.link.send(member, Next(what="stop", rounds=counted))
        model.forest.keep(counted)
        return Outcome(
            private=model.part(self.own.to_part(), self.passives),
            public={
                **model.public([self.link.me, *self.passives], self.own.names, params.n_estimators),
                "notes": self.own.notes,
            },
        )


# ------------------------------------------------------------ a passive party


class _Passive(_Party):
    def __init__(self, link: Link, data: Dataset, params: BoostingParams, run: RunContext) -> None:
        super().__init__(link, data, params, run)
        (self.active,) = link.cast["active"]
        if not data.columns:
            raise DataError(f"{link.me} has no features in this frame. Leave it out, or align a table that has some.")
        self.made = OwnNodes()
        self.done = 0
        self.order = _numbering(len(data.columns))
        self.shuffle = secrets.randbits(60)  # what the order of mixed splits is made of: the same when resumed

    def begin(self) -> None:
        said = self.link.recv(self.active, Begin)
        self.key = accept_key(said.n, self.params, self.active)
        if not 1 <= said.outputs <= MOST_CLASSES:
            raise UnexpectedMessage(f"{self.active} announced {said.outputs} outputs", member=self.active)
        self.outputs = said.outputs
        self.packing = CellPacking.plan(self.key.bits, self.trained, 2 * said.outputs, NUMBER_BITS)
        kept = self.saved[1] if self.saved is not None else self.own.earlier
        if kept is not None:
            if "ancestor" not in kept:
                raise DataError(f"{self.link.me} was not a passive party of that model. Fit without warm_start.")
            self.made, self.order = OwnNodes.from_part(kept), np.array(kept["order"], dtype=np.int64)
            self.shuffle = int(kept.get("shuffle", self.shuffle))
        self.link.send(
            self.active,
            Columns(
                rows=self.own.rows,
                trained=self.trained,
                signs=np.array([0]) if self.own.mixed else np.ascontiguousarray(self.own.signs[self.order]),
                kinds=np.array([MIXED]) if self.own.mixed else np.ascontiguousarray(self.own.kinds[self.order]),
            ),
        )
        if self.saved is None and self.own.earlier is not None:
            send_directions(self.link, self.made.to_part(), self.own.X, self.run)

    def goes_on(self) -> bool:
        order = self.link.recv(self.active, Next)
        self.together, self.done = order.what == "together", order.rounds
        if order.what == "stop":
            self.made.keep(order.rounds)
        return order.what != "stop"

    def round(self) -> None:
        if self.together:
            self._read_gradients()
            while self.open:
                self._level()
        self.run.journal.save(self.done + 1, {**self._part(), "shuffle": self.shuffle})
        self.run.progress("train", self.done + 1, self.params.n_estimators)

    def _read_gradients(self) -> None:
        said = self.link.recv(self.active, Gradients)
        count = 1 if self.own.mixed else len(self.order)
        shapes = said.sample.shape, said.features.shape
        if not _bits(said.sample, said.features) or shapes != ((-(-self.trained // 8),), (-(-count // 8),)):
            raise UnexpectedMessage(f"{self.active} sent gradients of other rows or features", member=self.active)
        sample = np.unpackbits(said.sample, count=self.trained).astype(np.bool_)
        looked_at = np.unpackbits(said.features, count=count).astype(np.bool_)
        self.looked_at = self.order if self.own.mixed else self.order[looked_at]
        rows = np.flatnonzero(sample)
        try:
            c = self.key.accept(said.pairs, count=len(rows), scale=0, threads=self.run.threads)
        except CryptoError as error:
            raise UnexpectedMessage(
                f"{self.active} sent gradients that cannot be used: {error}", member=self.active
            ) from None
        self.rows = Rows(range(self.outputs), self.own.rows, sample)
        self.above: dict[int, tuple[int, bool]] = dict.fromkeys(range(self.outputs), (-1, False))
        self.sums = NodeSums(c, sample, self.binned, self.looked_at, self._added, self.run.threads)
        whole = self.sums.of(rows)  # the same rows in every tree's root
        self.open: dict[int, Vector] = dict.fromkeys(range(self.outputs), whole)

    def _added(self, count: int) -> None:
        self.run.check()
        self.run.count("add", count)

    def _level(self) -> None:
        """Offer splits of all open nodes, say who goes left at one's own, and open the next."""
        nodes = sorted(self.open)
        menus = {node: self._menu(node) for node in nodes}
        self._send_sums(nodes, menus)
        mine = self._read_splits(nodes, menus)
        said = self.link.recv(self.active, Level)
        if not _bits(said.kept, said.open, said.left) or said.kept.shape != (len(mine),):
            raise UnexpectedMessage(f"{self.active} sent a level that does not fit the splits", member=self.active)
        made = {
            node: self.made.add(self.done, cut, self.binned.threshold(cut), *self.above[node])
            for (node, cut), kept in zip(mine, said.kept, strict=True)
            if kept
        }
        self.open = self._open_children(said, made)

    def _menu(self, node: int) -> Menu:
        """The splits of a node as the active party sees them."""
        columns, kinds = self.looked_at, self.own.kinds[self.looked_at]
        offer = self.binned.offer(self.rows.sampled(node), columns, self.params.min_leaf)
        if not self.own.mixed:
            return Menu.by_column(offer, columns, kinds)
        return Menu.shuffled(offer, columns, kinds, np.random.default_rng([self.shuffle, self.done, node]))

    def _send_sums(self, nodes: Sequence[int], menus: Mapping[int, Menu]) -> None:
        sums = self.sums.left(self.open, menus, self.packing)
        self.run.count("refresh", len(sums))
        self.link.send(
            self.active,
            Sums(
                counts=np.array([menus[node].counts for node in nodes], dtype=np.int64),
                missing=np.array([menus[node].missing for node in nodes], dtype=np.uint8),
                allowed=np.concatenate([menus[node].allowed for node in nodes]).astype(np.uint8),
                sums=self.key.refresh_for_key_holder(sums, self.run.threads),
            ),
        )

    def _read_splits(self, nodes: Sequence[int], menus: Mapping[int, Menu]) -> list[tuple[int, Cut]]:
        """Each split taken: its node, and how it parts rows; the answer is who goes left."""
        said = self.link.recv(self.active, Splits)
        starts = np.concatenate([[0], np.cumsum([len(menus[node]) for node in nodes])])
        strange = UnexpectedMessage(f"{self.active} took splits that were not on offer", member=self.active)
        if not _numbers(said.nodes, said.splits) or said.default_left.shape != said.nodes.shape:
            raise strange
        taken: list[tuple[int, int, bool]] = []
        for node, split, way in zip(said.nodes.tolist(), said.splits.tolist(), said.default_left, strict=True):
            if node not in menus or (taken and node <= taken[-1][0]):
                raise strange
            place = split - int(starts[nodes.index(node)])
            if not 0 <= place < len(menus[node]):
                raise strange
            if not menus[node].allowed[place] & (MISSING_LEFT if way else MISSING_RIGHT):
                raise strange
            taken.append((node, place, bool(way)))
        sizes = [menus[node].categories(place) for node, place, _ in taken]
        sets = iter(unpacked(self.active, said.left, [size for size in sizes if size]))
        mine = [
            (node, menus[node].cut(place, way, next(sets) if size else None))
            for (node, place, way), size in zip(taken, sizes, strict=True)
        ]
        if mine:
            sides = {node: self.binned.goes_left(self.rows.of(node), cut) for node, cut in mine}
            for node, left in sides.items():  # of categories, the other chose the sets
                counted = self.rows.counted(self.rows.of(node)[left])
                if not self.params.min_leaf <= len(counted) <= len(self.rows.sampled(node)) - self.params.min_leaf:
                    raise strange
            self.link.send(self.active, Sides(left=packed(list(sides.values()))))
        return mine

    def _open_children(self, said: Level, made: Mapping[int, int]) -> dict[int, Vector]:
        """Put rows into the nodes that are looked at next, and sum them up: the smaller child, then what is left."""
        strange = UnexpectedMessage(f"{self.active} sent a level that cannot be read", member=self.active)
        if not _numbers(said.nodes, said.children):
            raise strange
        nodes, children = said.nodes.tolist(), said.children.tolist()
        known = max(self.rows.trees) + 1
        sound = len(set(nodes)) == len(nodes) and set(nodes) <= set(self.open) and said.open.shape == (len(nodes), 2)
        if not sound or any(b - a < 2 for a, b in zip([known - 2, *children], children, strict=False)):
            raise strange
        sizes = [len(self.rows.of(node)) for node in nodes]
        opened: dict[int, Vector] = {}
        for node, child, left, is_open in zip(
            nodes, children, unpacked(self.active, said.left, sizes), said.open, strict=True
        ):
            self.rows.part(node, left, child)
            for side in (0, 1):
                self.above[child + side] = (made[node], side == 0) if node in made else self.above[node]
            sampled = [self.rows.sampled(child + side) for side in (0, 1)]
            for side, sums in enumerate(self.sums.children(self.open[node], sampled, is_open.tolist())):
                if is_open[side]:
                    opened[child + side] = sums
        return opened

    def finish(self) -> Outcome:
        public = {"features": len(self.own.names), "splits": len(self.made.round), "notes": self.own.notes}
        return Outcome(private=self._part(), public=public)

    def _part(self) -> dict[str, Any]:
        return {**self.made.to_part(), **self.own.to_part(), "order": self.order}


def _numbering(count: int) -> Integers:
    """The column behind each number under which the active party sees this party's features."""
    # `run.rng` is not for secrets
    return np.random.default_rng(secrets.randbits(128)).permutation(count)


def _bits(*arrays: np.ndarray) -> bool:
    return all(array.dtype == np.uint8 for array in arrays)


def _numbers(*arrays: np.ndarray) -> bool:
    """Whether these are whole numbers, [n] each."""
    return all(array.dtype == np.int64 and array.ndim == 1 and len(array) == len(arrays[0]) for array in arrays)


PROTOCOL = Protocol(
    name="vertical_boosting",
    version=2,
    params=BoostingParams,
    roles={
        "active": Role(active, needs=("X", "missing", "levels", "y", "part"), figures=True),
        "passive": Role(passive, many=True, needs=("X", "missing", "levels", "part"), figures=True),
    },
    sends={
        ("active", "passive"): (Begin, Next, Gradients, Splits, Level),
        ("passive", "active"): (Columns, Sums, Sides, Directions),
    },
    limits={
        "iterations": "n_estimators",
        "leaf": "min_leaf",
        "shown": "min_shown",
        "alone": "active_trees",
        "purity": "purity",
        "anonymous": "anonymous_splits",
    },
    learns={
        "active": "sums of its gradients left of splits of unnamed features; who goes left at those it takes",
        "passive": "which rows are in each node that it is shown, and in the sample; which of its splits were taken",
        "coordinator": "loss by round; gain, cover and number of splits of each feature, passive ones under numbers; "
        "which columns have one value in all training rows, or none",
    },
)
