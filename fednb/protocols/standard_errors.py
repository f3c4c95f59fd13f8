"""Standard errors of a fitted vertical regression: the inverse of the information XᵀWX + P over all parties' features.

What a party reckons from its own block alone is too small, wherever its features go together with another's. So the
whole matrix is made, encrypted and in coordinates that nobody else knows (`secret_basis`), and inverted by whoever
holds the key: it sees numbers in bases that are none of its own, and gives each party its own block back.

    active (model, X_a, y)          passive p (model, X_p), one or more         coordinator (secret key)
      | <───────────────────────────────┼──────────────────── Key n ────────────── |
      |── Shape ────────────────────────┼── Shape ───────────────────────────────> |   counted against the quota
      | <───────────────────────────────┼ <────────────────── Ready ────────────── |
      | <─ Widths ───── Widths ───────> |                                          |   is that what each party said?
      | <─ Partial: scores, as in `vertical_score` |                               |   so the active party has W
      |── Dispersion ─────────────────> |                                          |
      | <─ Features [[U_p]] ─────────── |                                          |   U = X·T, T secret; row by row
      |── Weighted [[W·U_q]], q ≤ p ──> |                                          |   q = p too
      |── OwnBlock U_aᵀWU_a + P_a ──────┼────────────────────────────────────────> |
      |── Sums [[U_aᵀWU_p]] ────────────┼────────────────────────────────────────> |   one a passive party
      |                                 |── Sums [[U_qᵀWU_p]], [[.. + P_p]] ─────> |   one a q ≤ p
      |── Pull P_a·w_a ─────────────────┼── Pull P_p·w_p ────────────────────────> |   zeros without a step
      | <─ Inverse, its own block ──────┼ <─ Inverse, its own block ────────────── |
      | T·block·Tᵀ                      | T·block·Tᵀ                               |   covariance of own coefficients

| role | learns |
|---|---|
| active | each row's score, as in `vertical_score`; the covariance of its own coefficients |
| passive | the covariance of its own coefficients; the variance of the residuals beside the label's (linear only) |
| coordinator | rows; features; how strongly the parties' features go together: the correlations that no basis changes |
| coordinator, analyst | log-likelihood; standard errors of the active party, and of others that release coefficients |

The covariance of a party's own coefficients, beside that of its own features alone, tells how much of each mixture of
its features the others' explain: one figure over all rows for each pair of its own. It is no other's feature,
correlation or coefficient. Still it is a figure about the others' rows, so every owner must have said yes
(`standard_errors` in the rules on runs), rows are those of the fit, sets of rows differ by ten or more, and decrypted
numbers count.

The errors are those of the penalised fit, (XᵀWX + P)⁻¹ times the dispersion: with little penalty those of maximum
likelihood; with more of it, the spread of the posterior with the penalty as prior (Wahba 1983).

With `step`, parties also take Newton's step with that matrix and exact residuals r, which the active party has with the
scores: r is one more column beside W·U_a, and each party gets its own part of the step, turned back by its T. So a
logistic fit, which ends near the optimum, comes to it. Of a step the coordinator sees the gradient in secret bases.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from fednb.crypto import paillier
from fednb.crypto.paillier import CipherVector, Fresh, PublicKey
from fednb.crypto.side_by_side import SideBySide, factors
from fednb.crypto.threads import slices
from fednb.errors import CryptoError, DataError, UnexpectedMessage
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.features import Scaling, Standardised, check_features, check_label, check_numbers
from fednb.protocols.keys import Key, accept_key
from fednb.protocols.likelihood import WEIGHING, fitted
from fednb.protocols.rows import Floats, Matrix
from fednb.protocols.secret_basis import SecretBasis
from fednb.protocols.steps import squares
from fednb.protocols.vertical_poisson import take_exposure
from fednb.protocols.vertical_score import Partial, Seed, contribute, gather, own_part
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

FRACTION = 20  # bits of features in a secret basis, whose mean square is 1
MARGIN = 3  # bits of a slot: the sign, and the penalty beside the information
ROWS_AT_ONCE = 1 << 13  # whose ciphertexts travel together
ROWS_EACH = 5  # rows a coefficient, at least: else a covariance tells of rows rather than of features
CENTRED = 1e-6  # standard deviations: so near to 0 is the mean of a feature on the rows that it was scaled on
_MODEL = ("columns", "low", "high", "centre", "scale", "family", "label_centre", "label_scale")  # of a part
LEAST = 1e-6  # smallest eigenvalue of the information, of its largest


class ErrorParams(Params):
    family: Literal["logistic", "linear", "poisson"]
    penalty: Annotated[float, Meta(ge=0)] = 0.0  # of squared coefficients: the objective is loss + penalty/2·|w|²
    exposure: str | None = None  # of a Poisson regression, as it was fitted
    positive: float | None = None  # of a logistic regression: the label's value that was learnt
    step: bool = False  # whether coefficients also take Newton's step; standard errors are those before it
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits


class Shape(Message):
    """A party to the coordinator."""

    discloses = Disclosure("numbers of rows and features")

    rows: int
    features: int  # and the intercept


class Ready(Message):
    """Everybody's shapes fit together."""

    discloses = Disclosure("numbers of coefficients")

    features: dict[str, int]  # by party


class Widths(Message):
    """A passive party's own to the active one, and everybody's back."""

    discloses = Disclosure("numbers of coefficients")

    features: dict[str, int]  # by party


class Dispersion(Message):
    discloses = Disclosure("the variance of the residuals, of the label's")

    variance: float  # 1 where the family has none


class Features(Message):
    discloses = Disclosure("features in a secret basis", "encrypted", each="slice")

    columns: Fresh  # [m·n] some rows, several features in each


class Weighted(Message):
    discloses = Disclosure("features in a secret basis, times each row's variance", "encrypted", each="slice")

    columns: Fresh  # [m·n] as they came


class OwnBlock(Message):
    discloses = Disclosure("weighted squares of features in a secret basis", "blinded")

    block: np.ndarray  # float64 [d, d]
    gradient: np.ndarray  # float64 [d] of the log-likelihood; zeros where no step is taken


class Pull(Message):
    discloses = Disclosure("the penalty's pull on coefficients, in a secret basis", "blinded")

    pull: np.ndarray  # float64 [d]; zeros where no step is taken


class Sums(Message):
    discloses = Disclosure(
        "weighted products of features in secret bases", "blinded", each="piece", decrypts=True, columns=True
    )

    sums: Fresh  # [m·d] for each own feature, those with each of the other party's
    numbers: int  # that are decrypted of it; with the own block, also of what others make of this party's features


class Inverse(Message):
    discloses = Disclosure("a party's own block of the inverse, in its secret basis")

    block: np.ndarray  # float64 [d, d]
    step: np.ndarray  # float64 [d] of the coefficients; zeros where none is taken


class _Party:
    """What the active and a passive party do alike."""

    def __init__(self, link: Link, data: Dataset, params: ErrorParams, run: RunContext, *, intercept: bool) -> None:
        self.link, self.params, self.run, self.data = link, params, run, data
        (self.active,), self.passives = link.cast["active"], link.cast["passive"]
        (self.coordinator,) = link.cast["coordinator"]
        self.own = own_part(link.me, data)  # raises for what is no model of these columns
        if list(data.columns) != list(data.part["columns"]):
            raise DataError(
                f"{link.me}'s model was trained on other columns than these rows have, or in another order."
            )
        scaling = Scaling.from_part(data.part)
        X = check_features(link.me, data.X, data.columns)
        self.X: Matrix = Standardised(X, scaling, intercept)
        self.rows, self.width = self.X.shape
        self._check_rows()
        penalty = np.full(self.width, params.penalty)
        if intercept:
            penalty[-1] = 0.0
        names = [*data.columns, *(["intercept"] if intercept else [])]
        self.penalty = penalty
        self.basis = SecretBasis.of(link.me, self.X, names, penalty)
        self.w = np.asarray(data.part["coef"], dtype=np.float64)
        if intercept:
            self.w = np.append(self.w, float(data.part.get("intercept", 0.0)))
        self.weighing = WEIGHING[params.family]

    def _check_rows(self) -> None:
        """Features are centred on the rows of the fit, and on no others."""
        total = np.zeros(self.width)
        square = np.zeros(self.width)
        for rows in self.parts():
            part = self.X[rows]
            total += part.sum(axis=0)
            square += (part**2).sum(axis=0)
        d = len(self.data.columns)
        off = np.abs(total[:d] / self.rows) > CENTRED * np.sqrt(square[:d] / self.rows)
        if off.any():
            raise DataError(
                f"{self.link.me}'s model was fitted on other rows than these {self.rows}: standard errors are those of "
                "the training rows."
            )

    def parts(self) -> list[slice]:
        return slices(self.rows, -(-self.rows // ROWS_AT_ONCE))

    def begin(self) -> None:
        self.key: PublicKey = accept_key(self.link.recv(self.coordinator, Key).n, self.params, self.coordinator)
        self.link.send(self.coordinator, Shape(rows=self.rows, features=self.width))
        self.widths = self.link.recv(self.coordinator, Ready).features
        # what is decrypted is counted by them, so parties do not take the key holder's word
        if set(self.widths) != {self.active, *self.passives}:
            raise UnexpectedMessage(f"{self.coordinator} sent numbers of features that do not fit")
        self._compare({self.link.me: self.width})
        if self.link.me == self.active:
            for passive in self.passives:
                self._compare({passive: self.link.recv(passive, Widths).features.get(passive, 0)})
            for passive in self.passives:
                self.link.send(passive, Widths(features=self.widths))
        else:
            self.link.send(self.active, Widths(features={self.link.me: self.width}))
            said = self.link.recv(self.active, Widths).features
            self._compare({party: said.get(party, 0) for party in self.widths})

    def _compare(self, said: dict[str, int]) -> None:
        for party, width in said.items():
            if self.widths[party] != width or width < 1:
                raise UnexpectedMessage(
                    f"{self.coordinator} sent numbers of features that do not fit: {self.widths[party]} for {party}, "
                    f"where {width} were said to {self.link.me}"
                )

    def layout(self, party: str) -> SideBySide:
        """How that party's features stand side by side."""
        return _layout(self.params, self.key, self.rows, self.widths[party])

    def exact(self, columns: Floats, fraction: int) -> Any:
        """Integers. The whole matrix of a family has one scale."""
        return np.rint(np.ldexp(columns, fraction)).astype(np.int64)

    def accept(self, member: str, c: Fresh, count: int, scale: int) -> CipherVector:
        try:
            return self.key.accept(c, count=count, scale=scale, threads=self.run.threads)
        except CryptoError as error:
            raise UnexpectedMessage(f"{member} sent ciphertexts that cannot be used: {error}", member=member) from None

    def add_products(self, sums: list[CipherVector], c: CipherVector, columns: Any, layout: SideBySide) -> None:
        """Of some rows' ciphertexts with integer columns [n, d]: for each column, the products in their slots."""
        n = len(columns)
        self.run.count("multiply", columns.size * layout.length)
        packing = factors(columns)
        found = [
            self.run.executor.inner_products(c[t * n : (t + 1) * n], columns, packing) for t in range(layout.length)
        ]
        sums.append(self.key.concatenate(found))

    def total(self, sums: list[CipherVector], fraction: int) -> CipherVector:
        added = functools.reduce(self.key.add, sums)
        return CipherVector(added.data, added.scale + fraction, self.key)

    def send_pull(self) -> None:
        pull = self.basis.transform.T @ (self.penalty * self.w)
        self.link.send(self.coordinator, Pull(pull=pull if self.params.step else np.zeros(self.width)))

    def reveal(self, sums: CipherVector, other: str, more: int = 0) -> None:
        """To the coordinator, refreshed: it holds numbers in two secret bases, and `more` columns of them."""
        self.run.count("refresh", len(sums))
        made = [self.active, *self.passives]
        later = made[made.index(self.link.me) :] if self.link.me != self.active else []
        with_whom = [self.active, *later] if other == self.link.me else [other]
        numbers = (self.width + more) * sum(self.widths[party] for party in with_whom)
        self.link.send(self.coordinator, Sums(sums=self.key.refresh(sums, self.run.threads), numbers=numbers))

    def finish(self, dispersion: float) -> dict[str, Any]:
        """The covariance of this party's own coefficients, in units of the trained label, and its part of the model."""
        said = self.link.recv(self.coordinator, Inverse)
        d, shapes = len(self.data.columns), (said.block.shape, said.step.shape)
        sound = all(x.dtype == np.float64 and np.isfinite(x).all() for x in (said.block, said.step))
        if not sound or shapes != ((self.width, self.width), (self.width,)):
            raise UnexpectedMessage(f"{self.coordinator} sent no block of an inverse", member=self.coordinator)
        covariance = self.basis.covariance(said.block) * dispersion
        if (np.diag(covariance) <= 0).any():
            raise UnexpectedMessage(f"{self.coordinator} sent a block that is none of an inverse")
        w = self.w + (self.basis.transform @ said.step if self.params.step else 0.0)
        self.run.progress("information", 3, 3)
        kept = {name: self.data.part[name] for name in _MODEL if name in self.data.part}
        kept |= {"intercept": float(w[-1])} if self.width > d else {}
        return kept | {
            "coef": w[:d],
            "covariance": covariance[:d, :d],
            "rows": self.rows,
            "std_err": np.sqrt(np.diag(covariance))[:d],
            "intercept_std_err": float(np.sqrt(covariance[-1, -1])) if self.width > d else 0.0,
        }


def active(link: Link, data: Dataset, params: ErrorParams, run: RunContext) -> Outcome:
    data, exposure = take_exposure(link.me, data, params.exposure)
    me = _Party(link, data, params, run, intercept=True)
    if data.part.get("family", "logistic") != params.family or "intercept" not in data.part:
        raise DataError(f"{link.me} holds no {params.family} regression of this run as its active party.")
    y = _label(link.me, data, params, me.rows)
    me.begin()
    parameters = sum(me.widths.values())
    linear = gather(link, me.own, run) + float(data.part["intercept"]) + np.log(exposure)
    found = fitted(params.family, y, linear, parameters, data.part)
    weighing = me.weighing
    if not np.isfinite(found.weights).all() or found.weights.max() > 2.0**weighing.whole:
        raise DataError(f"{link.me}'s model expects more than {2**weighing.whole} of some rows. Count in larger units.")
    for passive in me.passives:
        link.send(passive, Dispersion(variance=found.dispersion))
    transform = me.basis.transform
    crossed: dict[str, list[CipherVector]] = {passive: [] for passive in me.passives}
    fraction = FRACTION + weighing.fraction
    for step, rows in enumerate(me.parts(), 1):
        U, w = me.X[rows] @ transform, found.weights[rows]
        weighted_rows = U * w[:, None]
        if params.step:
            weighted_rows = np.column_stack([weighted_rows, found.residuals[rows]])
        columns, whole = me.exact(weighted_rows, fraction), me.exact(w, weighing.fraction)
        for place, passive in enumerate(me.passives):
            layout = me.layout(passive)
            c = me.accept(passive, link.recv(passive, Features).columns, layout.length * len(w), FRACTION)
            me.add_products(crossed[passive], c, columns, layout)
            weighted = me.key.multiply_plain(c, np.tile(whole, layout.length), weighing.fraction, run.threads)
            run.count("multiply", len(weighted))
            for receiver in me.passives[place:]:
                run.count("refresh", len(weighted))
                link.send(receiver, Weighted(columns=me.key.refresh(weighted, run.threads)))
            run.check()
        run.progress("information", step, len(me.parts()))
    own = squares(me.X, found.weights)
    slope = np.zeros(me.width)
    if params.step:
        slope = transform.T @ np.sum([me.X[rows].T @ found.residuals[rows] for rows in me.parts()], axis=0)
    block = transform.T @ own @ transform + me.basis.penalty
    link.send(me.coordinator, OwnBlock(block=block, gradient=slope))
    for passive in me.passives:
        me.reveal(me.total(crossed[passive], fraction), passive, more=int(params.step))
    me.send_pull()
    private = me.finish(found.dispersion)
    said = {
        "coef": private["coef"].tolist(),
        "intercept": private["intercept"],
        "std_err": private["std_err"].tolist(),
        "intercept_std_err": private["intercept_std_err"],
        "log_likelihood": found.log_likelihood,
        "parameters": parameters,
        "rows": me.rows,
    }
    return Outcome(private=private, public=said)


def passive(link: Link, data: Dataset, params: ErrorParams, run: RunContext) -> Outcome:
    me = _Party(link, data, params, run, intercept=False)
    me.begin()
    contribute(link, me.own, run)
    dispersion = link.recv(me.active, Dispersion).variance
    if not (np.isfinite(dispersion) and dispersion > 0):
        raise UnexpectedMessage(f"{me.active} sent a variance that is none", member=me.active)
    mine, before = me.layout(link.me), me.passives[: me.passives.index(link.me) + 1]
    sums: dict[str, list[CipherVector]] = {other: [] for other in before}
    scale = FRACTION + me.weighing.fraction
    parts = me.parts()

    def made() -> Iterator[tuple[Any, list[int]]]:
        for rows in parts:
            columns = me.exact(me.X[rows] @ me.basis.transform, FRACTION)
            yield columns, mine.pack(columns)

    def offer(packed: list[int]) -> None:
        run.check()
        run.count("encrypt", len(packed))
        link.send(me.active, Features(columns=run.executor.encrypt(me.key, packed, FRACTION)))

    following = made()
    columns, packed = next(following)
    offer(packed)
    for step in range(1, len(parts) + 1):
        ahead = next(following, None)
        if ahead is not None:  # before it waits: both sides always have rows to work on
            offer(ahead[1])
        for other in before:
            layout = me.layout(other)
            c = link.recv(me.active, Weighted).columns
            me.add_products(sums[other], me.accept(me.active, c, layout.length * len(columns), scale), columns, layout)
        run.progress("information", step, len(parts))
        columns = columns if ahead is None else ahead[0]
    for other in before:
        total = me.total(sums[other], FRACTION)
        if other == link.me:
            penalty = mine.pack(_whole(me.basis.penalty, total.scale))
            total = me.key.add_plain(total, penalty, run.threads)
        me.reveal(total, other)
    me.send_pull()
    return Outcome(private=me.finish(dispersion), public={"rows": me.rows})


def coordinator(link: Link, data: Dataset, params: ErrorParams, run: RunContext) -> Outcome:
    (active,), passives = link.cast["active"], link.cast["passive"]
    parties = [active, *passives]
    secret = paillier.generate(params.key_bits, insecure_short_key=params.insecure_short_key)
    for member in parties:
        link.send(member, Key(secret.public.to_bytes()))
    shapes = {member: link.recv(member, Shape) for member in parties}
    rows = _check_shapes(shapes)
    widths = {member: shapes[member].features for member in parties}
    pairs = [(active, other) for other in passives]
    pairs += [(member, other) for i, member in enumerate(passives) for other in passives[: i + 1]]
    for member in parties:  # before any of the quota is gone
        more = int(params.step and member == active)
        run.budget.expect(member, sum((widths[a] + more) * widths[b] for a, b in pairs if a == member))
    for member in parties:
        link.send(member, Ready(features=widths))
    ends = np.cumsum([widths[member] for member in parties])
    place = {member: slice(end - widths[member], end) for member, end in zip(parties, ends, strict=True)}
    information = np.zeros((ends[-1], ends[-1]))
    gradient = np.zeros(ends[-1])
    own = link.recv(active, OwnBlock)
    _check(active, own.block, (widths[active], widths[active]))
    _check(active, own.gradient, (widths[active],))
    information[place[active], place[active]], gradient[place[active]] = own.block, own.gradient
    for step, (member, other) in enumerate(pairs, 1):
        layout = _layout(params, secret.public, rows, widths[other])
        asked = link.recv(member, Sums).sums
        more = int(params.step and member == active)
        block = _decrypt(member, asked, widths[member] + more, layout, secret, _scale(params), run)
        if more:
            block, gradient[place[other]] = block[:-1], block[-1]
        information[place[member], place[other]] = block
        information[place[other], place[member]] = block.T
        run.progress("information", step, len(pairs))
    for member in parties:
        pull = link.recv(member, Pull).pull
        _check(member, pull, (widths[member],))
        gradient[place[member]] -= pull
    inverse = _inverse((information + information.T) / 2.0)
    move = inverse @ gradient
    for member in parties:
        own_block = np.ascontiguousarray(inverse[place[member], place[member]])
        link.send(member, Inverse(block=own_block, step=np.ascontiguousarray(move[place[member]])))
    return Outcome(public={"rows": rows, "parameters": int(ends[-1])})


def _layout(params: ErrorParams, key: PublicKey, rows: int, width: int) -> SideBySide:
    """Σ W·U_j·U_k is at most n times the largest W (Cauchy-Schwarz: a column's mean square is 1 at most)."""
    bits = _scale(params) + max(WEIGHING[params.family].whole, 0) + rows.bit_length() + MARGIN
    return SideBySide.plan(key.bits, width, bits)


def _scale(params: ErrorParams) -> int:
    """Of every number of the information."""
    return 2 * FRACTION + WEIGHING[params.family].fraction


def _whole(block: Floats, scale: int) -> Any:
    """[d, d] as Python integers, which may have more than 64 bits."""
    return np.array([[round(float(x) * (1 << scale)) for x in row] for row in block], dtype=object)


def _label(party: str, data: Dataset, params: ErrorParams, rows: int) -> Floats:
    y = check_numbers(party, data.y, data.label, rows)
    if params.family != "logistic":
        return y
    return check_label(party, y if params.positive is None else (y == params.positive) * 1.0, data.label, rows)


def _decrypt(
    member: str, asked: Fresh, count: int, layout: SideBySide, secret: paillier.PrivateKey, scale: int, run: RunContext
) -> Floats:
    """[count, width], after counting them against the budget."""
    try:
        c = secret.public.accept(asked, count=count * layout.length, scale=scale)
    except CryptoError as error:
        raise UnexpectedMessage(f"{member} sent sums that cannot be used: {error}", member=member) from None
    run.budget.spend(member, count * layout.width)
    run.count("decrypt", len(c))
    numbers = layout.unpack([secret.public.signed(m) for m in secret.decrypt(c, run.threads)])
    return np.array([[number / (1 << scale) for number in row] for row in numbers], dtype=np.float64)


def _check(member: str, numbers: Floats, shape: tuple[int, ...]) -> None:
    if numbers.shape != shape or numbers.dtype != np.float64 or not np.isfinite(numbers).all():
        raise UnexpectedMessage(f"{member} sent no block of its own features", member=member)


def _inverse(information: Floats) -> Floats:
    values, vectors = np.linalg.eigh(information)
    if values[0] <= LEAST * values[-1]:
        raise DataError(
            "the features of several parties together nearly depend on one another, so that standard errors would be "
            "noise. Leave a feature out that another party has too, and fit again."
        )
    return np.asarray((vectors / values) @ vectors.T)


def _check_shapes(shapes: dict[str, Shape]) -> int:
    """The number of rows that all have. DataError when shapes do not fit."""
    rows = {shape.rows for shape in shapes.values()}
    if len(rows) != 1:
        said = ", ".join(f"{member} {shape.rows}" for member, shape in shapes.items())
        raise DataError(f"the parties do not have the same rows ({said}). Align the tables again.")
    for member, shape in shapes.items():
        if not 0 < shape.features <= shape.rows:
            raise UnexpectedMessage(f"{member} announced {shape.features} features", member=member)
    n, d = rows.pop(), sum(shape.features for shape in shapes.values())
    if n < ROWS_EACH * d:
        raise DataError(
            f"there are {n} rows for {d} coefficients; standard errors need {ROWS_EACH} rows for each. Fit on more "
            "rows, or leave features out."
        )
    return n


PROTOCOL = Protocol(
    name="standard_errors",
    version=1,
    params=ErrorParams,
    roles={
        "active": Role(active, needs=("X", "y", "part", "parts"), figures=True, columns=True),
        "passive": Role(passive, many=True, needs=("X", "part", "parts"), figures=True, scores=True, columns=True),
        "coordinator": Role(coordinator),
    },
    sends={
        ("coordinator", "active"): (Key, Ready, Inverse),
        ("coordinator", "passive"): (Key, Ready, Inverse),
        ("active", "coordinator"): (Shape, OwnBlock, Pull, Sums),
        ("passive", "coordinator"): (Shape, Pull, Sums),
        ("passive", "passive"): (Seed,),
        ("passive", "active"): (Widths, Partial, Features),
        ("active", "passive"): (Widths, Dispersion, Weighted),
    },
    learns={
        "active": "each row's score; the covariance of its own coefficients",
        "passive": "the covariance of its own coefficients; of a linear regression the variance of its residuals",
        "coordinator": "rows, numbers of features; how strongly the parties' features go together, and none of them",
    },
    learns_with_key={
        "active": "each passive party's features of each row, mixed with one another",
        "passive": "each row's score nearly; with several passive parties also their features, mixed with one another",
    },
)
