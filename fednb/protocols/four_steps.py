"""The four steps that train a regression whose features lie at several parties and whose label lies at one.

Yang et al. 2019 and Cheng et al. 2020 (FedRiskCtrl), for score a at the active party and b at a passive one. What a
model predicts is written, exactly or nearly, as a short sum of products, mean(a + b) ≈ f_0(a) + f_1(a)·g_1(b) + ... +
f_R(a)·g_R(b): the factors are the family's (see `family`), the exchange is the same for all.

    active (X_a, y)               passive (X_b), one or more         coordinator (secret key)
      | <───────────────────────────────┼────────────── Key n ────────── |   1
      |── Shape ────────────────────────┼── Shape ─────────────────────> |   rows and features fit?
      | <───────────────────────────────┼ <──────────── Ready ────────── |
      |── Level ──────────────────────> |                                |   Poisson only
    each iteration
      | <───── Scores [[g_r(b)]] ────── |                                |   2
      |─ Residuals [[f_0(a)-y, f_r(a)]] > |                              |
      |── MaskedGradient [[g_a + m_a]] ─┼──────────────────────────────> |   3   m: uniform over all plaintexts
      |                                 |── MaskedGradient [[g_b + m_b]] > |
      | <────── Windows of g_a + m_a ───┼─────────────────────────────── |   4   one window of bits a number
      |                                 | <──── Windows of g_b + m_b ─── |
      |── Norm ─────────────────────────┼── Norm ──────────────────────> |
      |── Products ─────────────────────┼── Products ─────────────────> |   where steps are mixed, else not
      | <───────────────────────────────┼ <──────────── Next ─────────── |   next stage, or stop
      | <───────────────────────────────┼ <──────────── Mix ──────────── |   where steps are mixed, else not

Scores and Residuals travel a part of the rows at a time (65,536 at most), so that no member needs memory for more.
Each side multiplies what it got by its own plaintext, x_ij·f_r(a_i) or x_ij·g_r(b_i), and sums over the rows: its own
gradient, encrypted, many rows packed in a ciphertext. With several passive parties the active one adds the others'
encrypted scores, linearly, to the residuals it sends each of them. What a party does with its gradient is its solver's:
see `steps` and `mixing`.

| role | learns, each iteration, besides its own coefficients |
|---|---|
| active | its own gradient: one number for each of its features and one for the intercept; the largest norm of all |
| passive | its own gradient: one number for each of its features; the largest norm of all; never a label or a score |
| coordinator | rows; each party's number of features and the largest entry of its gradient; bits uniform at random |

A gradient is a sum over all rows; the coordinator counts the numbers it decrypts against the quota of the label set,
since enough such sums would be solvable for the labels. It gives back the one window of bits that holds the sum: a
packed plaintext holds more. Whoever holds the key and a party's ciphertexts reads scores or labels, so the coordinator
lives apart and ciphertexts travel sealed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fednb.crypto import fixed_point, paillier
from fednb.crypto.masking import mask
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, Fresh, PrivateKey, PublicKey
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols import chain, warm
from fednb.protocols.base import Dataset, Outcome, Params, Role, RunContext
from fednb.protocols.batches import Batches, choose
from fednb.protocols.family import Factors, Family, Target
from fednb.protocols.features import Standardised, check_features, check_training, fit_scaling
from fednb.protocols.keys import Key, accept_key
from fednb.protocols.layout import GUARD, Layout, largest
from fednb.protocols.mixing import Mixing
from fednb.protocols.rows import PARTS, Floats, Matrix
from fednb.protocols.steps import Schedule, Stage, scores
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

FACTORS_AT_ONCE = 1 << 24  # numbers of plaintext factors in memory: wide tables are multiplied in parts
LEVELS = 40  # the mean of a label is between 2**-LEVELS and 2**LEVELS


class FitParams(Params):
    """What every family's parameters have."""

    max_iter: Annotated[int, Meta(ge=1, le=1000)] = 20
    tol: Annotated[float, Meta(ge=0)] = 5e-4  # on the largest entry of the gradient of the mean loss
    standardize: bool = True
    clip: Annotated[float, Meta(gt=0)] | None = 4.0  # winsorise at this many standard deviations
    warm_start: bool = False  # from the coefficients of the run that each party's data names as its part
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits


class Shape(Message):
    """A party to the coordinator."""

    discloses = Disclosure("numbers of rows and features")

    rows: int
    features: int  # numbers it will ask to decrypt each iteration
    resumed: int  # iterations that its journal holds


class Ready(Message):
    """Everybody's shapes fit together."""

    discloses = Disclosure("that all shapes fit")


class Level(Message):
    """The active party to a passive one."""

    discloses = Disclosure("the order of magnitude of the mean label")

    exponent: int  # the mean label is near 2**exponent


class Scores(Message):
    discloses = Disclosure("functions of each row's score", "encrypted", each="slice")

    terms: Fresh  # [R·m] packed g_r(b), term after term, m ciphertexts each


class Residuals(Message):
    discloses = Disclosure("each row's residual", "encrypted", each="slice", label=True)

    terms: Fresh  # [(R + 1)·m] packed f_0 - y, f_1 ... f_R


class MaskedGradient(Message):
    discloses = Disclosure("a gradient", "masked", each="iteration", decrypts=True)

    gradient: Fresh  # [features] slot k-1 of each holds the sum, behind a mask


class Windows(Message):
    discloses = Disclosure("a gradient", "masked", each="iteration")

    windows: np.ndarray  # uint64 [features]


class Norm(Message):
    discloses = Disclosure("the largest entry of a gradient", each="iteration")

    norm: float  # largest entry of the party's gradient, of the mean loss


class Next(Message):
    discloses = Disclosure("the largest entry of all gradients", each="iteration")

    stage: Stage
    norm: float  # the largest of all parties


class Products(Message):
    discloses = Disclosure("inner products of steps", each="iteration")

    products: np.ndarray  # float64: of the party's newest step with those that it remembers (see `mixing`)


class Mix(Message):
    discloses = Disclosure("how steps are mixed", each="iteration")

    weights: np.ndarray  # float64: how much of each point that is remembered
    damping: float  # of the steps


class _Party:
    """What the active and a passive party do alike."""

    def __init__(self, link: Link, data: Dataset, params: Any, run: RunContext, family: Family) -> None:
        self.link, self.params, self.run, self.family = link, params, run, family
        (self.coordinator,) = link.cast["coordinator"]
        self.passives = link.cast["passive"]
        if len(self.passives) > family.most_passives:
            raise DataError(family.too_many_passives)
        self.columns = data.columns
        X = check_features(link.me, data.X, data.columns)
        check_training(link.me, X, data.columns)
        self.X, self.rows = X, X.shape[0]
        self.batches = Batches(self.rows, family.batch_size, run.name)
        if X.shape[1] >= self.batches.smallest:
            raise DataError(f"{link.me} has {X.shape[1]} features for {self.batches.smallest} rows. {_MORE_ROWS}")
        self.averaged: Floats | None = None
        self.scaling = fit_scaling(X, standardize=params.standardize, clip=params.clip)
        self.earlier = warm.coefficients(link.me, data, self.scaling) if params.warm_start else None
        self.history: list[float] = []
        self.stage: Stage = family.first

    def begin(self, target: Target | None = None) -> None:
        """Agree on key and shapes, and continue from the journal if there is one."""
        X = Standardised(self.X, self.scaling, target is not None)
        self.solver = solver = self.family.solver(self.link.me, X, self.columns, 1 + len(self.passives), target)
        if self.earlier is not None:
            solver.start(self.earlier if target is not None else self.earlier[:-1])
        saved = self.run.journal.load()
        step = 0
        if saved is not None:
            step, state = saved
            solver.restore(state)
            self.history = [float(x) for x in state["history"]]
            self.averaged = None if state.get("averaged") is None else np.array(state["averaged"])
        self.key = accept_key(self.link.recv(self.coordinator, Key).n, self.params, self.coordinator)
        rows, features = solver.X.shape
        self.link.send(self.coordinator, Shape(rows=rows, features=features, resumed=step))
        self.link.recv(self.coordinator, Ready)
        self.stage = saved[1]["stage"] if saved else self.family.first
        if self.family.needs_level:
            self._level(target)

    def _level(self, target: Target | None) -> None:
        """The order of magnitude of the label, which scales a passive party's curvature."""
        if target is not None:
            exponent = int(np.clip(np.rint(np.log2(target.y.mean())), -LEVELS, LEVELS))
            for passive in self.passives:
                self.link.send(passive, Level(exponent))
        else:
            (active,) = self.link.cast["active"]
            exponent = self.link.recv(active, Level).exponent
            if not -LEVELS <= exponent <= LEVELS:
                raise UnexpectedMessage(f"{active} sent a level of 2**{exponent}", member=active)
            self.solver.level = 2.0**exponent

    def layout(self) -> Layout:
        rows = self.batches.size(len(self.history))
        return Layout.of(self.stage, self.key, rows, len(self.passives), self.family.weight_bits, self.family)

    def accept(self, member: str, terms: Fresh, count: int, scale: int) -> CipherVector:
        """A peer's ciphertexts, of the length and scale that both computed."""
        try:
            return self.key.accept(terms, count=count, scale=scale)
        except CryptoError as error:
            raise UnexpectedMessage(f"{member} sent ciphertexts that cannot be used: {error}", member=member) from None

    def encrypt(self, plaintexts: list[int], scale: int) -> Fresh:
        self.run.check()
        self.run.count("encrypt", len(plaintexts))
        return self.run.executor.encrypt(self.key, plaintexts, scale)

    def unmasked(self, total: CipherVector, packing: Packing) -> npt.NDArray[np.int64]:
        """[d] the sums in slot k-1 of each, within a unit: the coordinator decrypts them behind a mask."""
        hidden, own = mask(total, packing, self.run.threads)
        self.run.count("refresh", len(hidden))
        self.link.send(self.coordinator, MaskedGradient(hidden))
        windows = self.link.recv(self.coordinator, Windows).windows
        try:
            return own.remove(windows)
        except CryptoError as error:
            raise UnexpectedMessage(f"{self.coordinator} sent {error}", member=self.coordinator) from None

    def finish(self, gradient: Floats) -> None:
        """Take the step, and hear what comes next."""
        norm, products = self.solver.step(gradient, self.batches.size(len(self.history)))
        self.link.send(self.coordinator, Norm(norm))
        if self.family.mixes:
            self.link.send(self.coordinator, Products(products))
        order = self.link.recv(self.coordinator, Next)
        mix = self.link.recv(self.coordinator, Mix) if self.family.mixes else Mix(np.empty(0), 1.0)
        try:
            self.solver.heed(order.norm, mix.weights, mix.damping)
        except ValueError as error:
            raise UnexpectedMessage(f"{self.coordinator} sent {error}", member=self.coordinator) from None
        if order.stage != self.stage:
            self.solver.restart()
        self.stage = order.stage
        self.history.append(order.norm)
        step = len(self.history)
        self._average(step)
        state = {**self.solver.state(), "history": list(self.history), "stage": self.stage, "averaged": self.averaged}
        self.run.journal.save(step, state)
        self.run.progress("train", step, self.params.max_iter)

    def _average(self, step: int) -> None:
        """Steps by batches end near the optimum and not at it; their mean over the second half lies nearer.

        (Polyak and Juditsky 1992.)
        """
        first = self.params.max_iter // 2 + 1
        if self.batches.count == 1 or not self.family.averages or step < first:
            return
        before = self.solver.w if self.averaged is None else self.averaged
        self.averaged = before + (self.solver.w - before) / (step - first + 1)

    def coefficients(self) -> Floats:
        """Of the model, when training is over."""
        return np.array(self.solver.w if self.averaged is None else self.averaged)

    def part(self, coef: Floats) -> dict[str, Any]:
        """What scoring needs, for the party's own store."""
        return {"coef": coef, "columns": list(self.columns), **self.scaling.to_part()}

    def public(self) -> dict[str, Any]:
        return {"n_iter": len(self.history), "features": len(self.columns)}


class _Gradient:
    """Σ over rows and t terms of an encrypted vector, times left [n, t], times X [n, d]: part by part.

    Products of a part are added up under encryption, and only the sum over all rows is ever decrypted.
    """

    def __init__(self, me: _Party, layout: Layout, X: Matrix, left: Callable[[slice], Floats]) -> None:
        self._me, self._layout, self._X, self._left = me, layout, X, left
        # the same fraction bits in every part, or their products would not add up
        reach = [largest(left(rows), X[rows]) for rows, _ in layout.parts()]
        self._shift = layout.shifts(np.max(reach, axis=0))
        self._sums: list[CipherVector] = []

    def add(self, rows: slice, part: Layout, c: CipherVector) -> None:
        """The products of some rows."""
        run, key, X, shift = self._me.run, self._me.key, self._X[rows], self._shift
        left = self._left(rows)
        width = max(1, FACTORS_AT_ONCE // left.size)
        products = []
        for at in range(0, X.shape[1], width):
            run.check()
            factors = part.factors(left, X[:, at : at + width], shift[at : at + width], rows.start, at)
            run.count("multiply", factors.size)
            products.append(run.executor.inner_products(c, factors, part.packing))
        self._sums.append(key.concatenate(products))

    def reveal(self) -> Floats:
        """[d], with the help of the coordinator, who sees it behind a mask."""
        total = functools.reduce(self._me.key.add, self._sums)
        sums = self._me.unmasked(total, self._layout.packing)
        unit = 1 << GUARD
        exact = np.floor_divide(sums + unit // 2, unit).astype(np.float64)
        return np.ldexp(exact, GUARD - total.scale - self._shift)


def active(link: Link, data: Dataset, params: Any, run: RunContext, family: Family) -> Outcome:
    target, data = family.target(link.me, data)
    me = _Party(link, data, params, run, family)
    me.begin(target)
    passives = me.passives
    chained = chain.Active(me, target) if _is_chain(family, len(passives)) else None
    while me.stage != "stop":
        me.finish(chained() if chained else _active_gradient(me, target))
    converged = me.history[-1] <= params.tol
    w = me.coefficients()
    coef, intercept = w[:-1], float(w[-1])
    fitted = scores(me.solver.X, w)
    family.check_scores(link.me, fitted - intercept)
    notes = [] if converged else [_unfinished(params, me.history[-1])]
    said = {
        "coef": coef.tolist(),
        "intercept": intercept,
        "converged": converged,
        "history": {"iteration": list(range(1, len(me.history) + 1)), "gradient_norm": me.history},
        "notes": [*notes, *family.notes(target, fitted, len(passives), converged)],
        "rows": me.rows,
        **target.public,
    }
    return Outcome(
        private=me.part(coef) | {"intercept": intercept, "family": family.name, **target.private},
        public=me.public() | said,
    )


def passive(link: Link, data: Dataset, params: Any, run: RunContext, family: Family) -> Outcome:
    me = _Party(link, data, params, run, family)
    (active,) = link.cast["active"]
    if not data.columns:
        raise DataError(f"{link.me} has no features in this frame. Leave it out, or align a table that has some.")
    me.begin()
    chained = chain.Passive(me) if _is_chain(family, len(me.passives)) else None
    while me.stage != "stop":
        me.finish(chained() if chained else _passive_gradient(me, active))
    family.check_scores(link.me, scores(me.solver.X, me.coefficients()))
    return Outcome(private=me.part(me.coefficients()), public=me.public())


def coordinator(link: Link, data: Dataset, params: Any, run: RunContext, family: Family) -> Outcome:
    parties = [*link.cast["active"], *link.cast["passive"]]
    run.progress("prepare", 0)
    secret = paillier.generate(params.key_bits, insecure_short_key=params.insecure_short_key)
    for member in parties:
        link.send(member, Key(secret.public.to_bytes()))
    schedule = Schedule(params.max_iter, params.tol, family.sigmoid)
    mixing = Mixing(len(parties)) if family.mixes else None
    saved = run.journal.load()
    if saved is not None:
        schedule.restore(saved[1])
        if mixing:
            mixing.restore(saved[1])
    shapes = {member: link.recv(member, Shape) for member in parties}
    rows = _check_shapes(shapes, schedule.iteration)
    batches = Batches(rows, family.batch_size, run.name)
    _check_features(shapes, batches.smallest)
    for member in parties:
        # before hours of work, and before any of the quota is gone
        run.budget.expect(member, shapes[member].features * (params.max_iter - schedule.iteration))
    for member in parties:
        link.send(member, Ready())
    while schedule.stage != "stop":
        size = batches.size(schedule.iteration)
        packing = _packing(family, schedule.stage, secret.public, size, len(parties) - 1)
        for member in parties:
            asked = link.recv(member, MaskedGradient).gradient
            link.send(member, _decrypt(member, asked, shapes[member].features, secret, packing, run))
        # np.max: a NaN among the norms must not get lost
        norm = float(np.max([_check_norm(member, link.recv(member, Norm).norm) for member in parties]))
        products = {member: link.recv(member, Products).products for member in parties} if mixing else {}
        stage = schedule.after(norm)
        mix = Mix(*mixing.after(norm, products)) if mixing else None
        run.journal.save(schedule.iteration, {**schedule.state(), **(mixing.state() if mixing else {})})
        for member in parties:
            link.send(member, Next(stage=stage, norm=norm))
            if mix is not None:
                link.send(member, mix)
        run.progress("train", schedule.iteration, params.max_iter, gradient_norm=norm)
    return Outcome(
        public={"rows": rows, "n_iter": schedule.iteration, "converged": schedule.converged, "parties": len(parties)}
    )


def roles(family: Callable[[Any], Family]) -> dict[str, Role]:
    """The three roles for the family that `family(params)` gives."""

    def played(function: Callable[[Link, Dataset, Any, RunContext, Family], Outcome]) -> Any:
        @functools.wraps(function)
        def play(link: Link, data: Dataset, params: Any, run: RunContext) -> Outcome:
            return function(link, data, params, run, family(params))

        return play

    return {
        "active": Role(played(active), needs=("X", "y", "parts"), figures=True),
        "passive": Role(played(passive), many=True, needs=("X", "parts"), figures=True),
        "coordinator": Role(played(coordinator)),
    }


def _is_chain(family: Family, passives: int) -> bool:
    return family.chained and passives > 1


def _packing(family: Family, stage: Stage, key: PublicKey, rows: int, passives: int) -> Packing:
    if _is_chain(family, passives):
        return chain.packing(key, rows, passives)
    return Layout.of(stage, key, rows, passives, family.weight_bits, family).packing


def _active_gradient(me: _Party, target: Target) -> Floats:
    """[d + 1]"""
    batch, passives = me.batches.rows(len(me.history)), me.passives
    layout, X, y, u = me.layout(), choose(me.solver.X, batch), target.y[batch], target.weights[batch]
    terms, others = layout.terms, len(passives) - 1
    of = me.family.factors(me.stage, scores(X, me.solver.at()) + target.offset[batch], others)

    @functools.lru_cache(maxsize=PARTS)  # asked for several times; of a larger table they would fill memory
    def expanded(start: int, stop: int) -> Factors:
        return of(slice(start, stop))

    def left(rows: slice) -> Floats:
        return np.tile(u[rows, None] * expanded(rows.start, rows.stop).f[:, 1:], len(passives))

    gradient, known = _Gradient(me, layout, X, left), np.zeros(X.shape[1])
    for rows, part in layout.parts():
        f, alone, carry = expanded(rows.start, rows.stop)
        count = terms * part.length
        mine = {p: me.accept(p, me.link.recv(p, Scores).terms, count, layout.score_scale) for p in passives}
        residuals = u[rows, None] * (f - np.eye(1, terms + 1) * y[rows, None])
        # one number for all rows of a ciphertext, so every row carries with the mean weight
        mean_carry = None if carry is None else u.mean() * carry
        for passive in passives:
            rest = [c for member, c in mine.items() if member != passive]
            me.link.send(passive, Residuals(_residuals(me, part, residuals, rest, mean_carry)))
        # mean(a + Σ b_p) ≈ Σ_p Σ_r f_r(a)·g_r(b_p) - (P - 1)·E mean(a), where f averages over the other parties
        known += X[rows].T @ (u[rows] * (len(passives) * f[:, 0] - others * alone - y[rows]))
        gradient.add(rows, part, me.key.concatenate(list(mine.values())))
    return known + gradient.reveal()


def _passive_gradient(me: _Party, active: str) -> Floats:
    """[d]"""
    X = choose(me.solver.X, me.batches.rows(len(me.history)))
    layout, b = me.layout(), scores(X, me.solver.at())

    def basis(rows: slice) -> Floats:
        return me.family.basis(me.stage, b[rows])

    def left(rows: slice) -> Floats:
        return np.column_stack([np.ones(rows.stop - rows.start), basis(rows)])

    def offer(rows: slice, part: Layout) -> None:
        me.link.send(active, Scores(me.encrypt(part.pack_scores(basis(rows)), layout.score_scale)))

    gradient, parts = _Gradient(me, layout, X, left), layout.parts()
    offer(*parts[0])
    for i, (rows, part) in enumerate(parts):
        for following in parts[i + 1 : i + 2]:  # before it waits: both sides always have a part to work on
            offer(*following)
        count = (layout.terms + 1) * part.length
        residuals = me.accept(active, me.link.recv(active, Residuals).terms, count, layout.scale)
        gradient.add(rows, part, residuals)
    return gradient.reveal()


def _residuals(
    me: _Party, layout: Layout, residuals: Floats, rest: Sequence[CipherVector], carry: Floats | None
) -> Fresh:
    """What one passive party multiplies: own numbers, plus the scores of all other passive parties."""
    if carry is None or not rest:
        return me.encrypt(layout.pack(residuals), layout.scale)
    key, run, m = me.key, me.run, layout.length
    scale = layout.carry_scale
    exact = fixed_point.encode(carry, scale, scale + 4 + me.family.weight_bits)
    # proves that no slot can exceed what the packing was planned for
    most = 2.0 ** (layout.digits.score - 1)
    reach = np.abs(residuals).max() + len(rest) * most * (np.abs(carry).sum(axis=1).max() + 1e-2)
    if reach >= 2.0 ** (layout.packing.left_bits - 1 - layout.scale):
        raise CryptoError("residuals leave the range in which their sum is proven right; use fewer parties")
    sums = []
    for r in range(layout.terms + 1):
        weighted = [
            key.multiply_plain(c[s * m : (s + 1) * m], [int(exact[r, s + 1])] * m, scale, run.threads)
            for c in rest
            for s in range(layout.terms)
        ]
        run.count("multiply", m * len(weighted))
        run.count("add", m * len(weighted))
        sums.append(functools.reduce(lambda a, b: key.add(a, b, run.threads), weighted))
        run.check()
    own = layout.pack(residuals + len(rest) * carry[:, 0])
    run.count("refresh", len(own))
    return key.refresh(key.add_plain(key.concatenate(sums), own, run.threads), run.threads)


def _decrypt(
    member: str, asked: Fresh, features: int, secret: PrivateKey, packing: Packing, run: RunContext
) -> Windows:
    """The window of slot k-1 of each ciphertext, after counting them against the budget."""
    try:
        c = secret.public.accept(asked, count=features)
    except CryptoError as error:
        raise UnexpectedMessage(f"{member} sent a gradient that cannot be used: {error}", member=member) from None
    run.budget.spend(member, features)
    run.count("decrypt", features)
    return Windows(packing.windows(secret.decrypt(c, run.threads)))


_MORE_ROWS = (
    "A gradient would be solvable for the labels, so more rows than features are needed: "
    "align more rows, take larger batches, or leave columns out."
)


def _check_shapes(shapes: Mapping[str, Shape], iteration: int) -> int:
    """The number of rows that all have. DataError when shapes do not fit."""
    said = ", ".join(f"{member} {shape.rows}" for member, shape in shapes.items())
    rows = {shape.rows for shape in shapes.values()}
    if len(rows) != 1 or min(rows) < 2:
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    for member, shape in shapes.items():
        if not 0 < shape.features <= shape.rows:
            raise UnexpectedMessage(f"{member} announced {shape.features} features", member=member)
        if shape.resumed != iteration:
            raise DataError(
                f"{member} would continue after iteration {shape.resumed}, the coordinator after {iteration}. "
                "Start the run anew."
            )
    return rows.pop()


def _check_features(shapes: Mapping[str, Shape], rows: int) -> None:
    features = sum(shape.features for shape in shapes.values())
    if features > rows:
        raise DataError(f"there are {features} features and {rows} rows in an iteration. {_MORE_ROWS}")


def _check_norm(member: str, norm: float) -> float:
    if norm < 0:
        raise UnexpectedMessage(f"{member} sent a negative norm", member=member)
    return norm


def _unfinished(params: Any, norm: float) -> str:
    return (
        f"stopped after max_iter={params.max_iter} iterations with a gradient of {norm:.2g}, above "
        f"tol={params.tol:.2g}; more iterations would still change the coefficients a little."
    )


LEARNS = {
    "active": "its own gradient at each iteration; its own coefficients and the intercept",
    "passive": "its own gradient at each iteration; its own coefficients",
    "coordinator": "rows, numbers of features, the largest entry of each gradient; otherwise masked numbers",
}
LEARNS_WITH_KEY = {
    "active": "what each passive party's features add to the score of each row",
    "passive": "the label of each row, and with several passive parties their scores",
}


def sends(
    *, mixes: bool = False, level: bool = False, chained: bool = False
) -> dict[tuple[str, str], tuple[type[Message], ...]]:
    """Who says what, in families whose steps are mixed, whose passive party is told the label's level, or in chains."""
    told: tuple[type[Message], ...] = (Key, Ready, Windows, Next, *([Mix] if mixes else []))
    says: tuple[type[Message], ...] = (Shape, MaskedGradient, Norm, *([Products] if mixes else []))
    return {
        ("coordinator", "active"): told,
        ("coordinator", "passive"): told,
        ("active", "coordinator"): says,
        ("passive", "coordinator"): says,
        ("passive", "active"): (Scores, *([chain.Product] if chained else [])),
        ("active", "passive"): (
            Residuals,
            *([Level] if level else []),
            *([chain.Labels, chain.Rates] if chained else []),
        ),
        **({("passive", "passive"): (chain.Product,)} if chained else {}),
    }


SENDS = sends()
LIMITS = {"iterations": "max_iter"}
