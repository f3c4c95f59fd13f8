"""Gradients of a mean that is a product over three parties or more: exp(a)·exp(b_1)·...·exp(b_P), row by row.

Encrypted numbers cannot be multiplied with one another, but one after the other each party can multiply what it gets by
its own factor in plain: [[g_1]], [[g_1]]**g_2 = [[g_1·g_2]] and so on, randomised anew at every hop. A party needs the
product of all others' factors, so there is a chain for each party that leaves its own factor out.

    active (y, X_a, f)              passive p_1                passive p_2               (two passive parties)
      |── Labels [[y]] ─────────────> |                          |                       once
      |── Labels [[y]] ──────────────────────────────────────> |
    each iteration
      |                               |── Product [[g_1]] ─────> |
      | <── Product [[g_1·g_2]] ─────────────────────────────── |     x_a·f times it: the active party's gradient
      | <── Product [[g_2]] ─────────────────────────────────── |
      |── Rates [[f·g_2]] ──────────> |                          |     x_1·g_1 times it, less [[Σ x_1·y]]
      | <── Product [[g_1]] ───────── |                          |
      |── Rates [[f·g_1]] ───────────────────────────────────> |

What is masked, decrypted and unmasked are the same gradients as in `four_steps`, and nobody learns anything else. Row
by row there is no packing, so an iteration takes ten times as long as with one passive party, or more.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import numpy as np

from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, Fresh, PublicKey
from fednb.crypto.side_by_side import factors
from fednb.crypto.threads import slices
from fednb.errors import CryptoError, DataError
from fednb.protocols.base import RunContext
from fednb.protocols.family import Family, Solver, Target
from fednb.protocols.layout import KeySize
from fednb.protocols.rows import Floats
from fednb.protocols.steps import Stage, scores
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

FRACTION = 20  # bits of every factor
FACTOR = 8  # bits: a passive party's factor is below 2**FACTOR
RATE = 10  # bits: the active party's, and a label
COLUMN = 23  # bits of the largest entry of a column of features
WINDOW = 64  # bits that the coordinator gives back of a sum: its highest
ROWS_AT_ONCE = 1 << 13  # whose ciphertexts travel together


class Labels(Message):
    discloses = Disclosure("each row's label", "encrypted", each="piece", label=True)

    labels: Fresh  # [some rows]


class Product(Message):
    discloses = Disclosure("a product of factors of each row's mean", "encrypted", each="slice")

    factors: Fresh  # [some rows]


class Rates(Message):
    discloses = Disclosure("each row's mean without the receiver's factor", "encrypted", each="slice")

    rates: Fresh  # [some rows]


class Player(Protocol):
    """What is asked of a party in the four steps."""

    link: Link
    run: RunContext
    family: Family
    key: PublicKey
    solver: Solver
    stage: Stage
    passives: tuple[str, ...]
    rows: int

    def accept(self, member: str, terms: Fresh, count: int, scale: int) -> CipherVector: ...

    def encrypt(self, plaintexts: list[int], scale: int) -> Fresh: ...

    def unmasked(self, total: CipherVector, packing: Packing) -> Any:
        """[d] int64: the windows of a sum that the coordinator decrypts behind a mask."""
        ...


def packing(key: KeySize, rows: int, passives: int) -> Packing:
    """The window that is given back, at the top of a plaintext that no sum exceeds."""
    bits = (FACTOR + FRACTION) * passives + (RATE - FACTOR) + COLUMN + RATE + (2 * rows).bit_length() + 1
    slots = -(-bits // WINDOW)
    if WINDOW * (slots + 1) > key.bits:
        raise CryptoError(f"a product over {passives} passive parties does not fit a key of {key.bits} bits")
    return Packing(slots, WINDOW, bits, 2, rows)


class _Chained:
    """What the active and a passive party do alike."""

    def __init__(self, me: Player) -> None:
        self.me = me
        self.parts = slices(me.rows, -(-me.rows // ROWS_AT_ONCE))
        self.packing = packing(me.key, me.rows, len(me.passives))
        # the same fraction bits in every iteration, so that sums made once can be added
        largest = np.max([np.abs(me.solver.X[rows]).max(axis=0) for rows in self.parts], axis=0)
        self.shift = np.floor(COLUMN - np.log2(np.where(largest > 0, largest, 1.0))).astype(np.int64) - 1
        # every chain: all passive parties, and all but one, in the order of the cast
        self.chains = [tuple(me.passives), *(tuple(q for q in me.passives if q != p) for p in me.passives)]

    def columns(self, rows: slice, times: Floats) -> Any:
        """Integers [n, d]: features times a factor of the row, each column with its own fraction bits."""
        return np.rint(np.ldexp(self.me.solver.X[rows] * times[:, None], self.shift)).astype(np.int64)

    def products(self, c: CipherVector, columns: Any) -> CipherVector:
        """[[Σ c·x]] for each column [d]"""
        self.me.run.count("multiply", columns.size)
        return self.me.run.executor.inner_products(c, columns, factors(columns))

    def times(self, c: CipherVector, factor: Floats) -> Fresh:
        """[[c·factor]] of each row, randomised anew."""
        me = self.me
        me.run.check()
        me.run.count("multiply", len(c))
        me.run.count("refresh", len(c))
        made = me.key.multiply_plain(c, _whole(factor), FRACTION, me.run.threads)
        return me.key.refresh(made, me.run.threads)

    def reveal(self, sums: list[CipherVector]) -> Floats:
        """[d], with the help of the coordinator, who sees it behind a mask."""
        total = functools.reduce(self.me.key.add, sums)
        lift = WINDOW * self.packing.slots - self.packing.left_bits  # to the top of the window
        d = len(total)
        lifted = self.me.key.multiply_plain(total, [1 << lift] * d, 0, self.me.run.threads)
        window = self.me.unmasked(lifted, self.packing).astype(np.float64)
        up = WINDOW * (self.packing.slots - 1) - lift - total.scale - self.shift
        return np.asarray(np.ldexp(window, up), dtype=np.float64)


class Active(_Chained):
    """The active party's gradients, one a call."""

    def __init__(self, me: Player, target: Target) -> None:
        super().__init__(me)
        self.target = target
        scale = FRACTION * len(me.passives)
        for rows in self.parts:
            labels = [round(float(y) * 2**FRACTION) << (scale - FRACTION) for y in target.y[rows]]
            for passive in me.passives:
                me.link.send(passive, Labels(labels=me.encrypt(labels, scale)))

    def __call__(self) -> Floats:
        """[d + 1]"""
        me, target = self.me, self.target
        of = me.family.factors(me.stage, scores(me.solver.X, me.solver.at()) + target.offset, len(me.passives) - 1)
        sums, known = [], np.zeros(me.solver.X.shape[1])
        for rows in self.parts:
            rate = of(rows).f[:, 1]
            known -= me.solver.X[rows].T @ target.y[rows]
            for chain in self.chains:
                got = me.link.recv(chain[-1], Product).factors
                c = me.accept(chain[-1], got, len(rate), FRACTION * len(chain))
                if chain == self.chains[0]:
                    sums.append(self.products(c, self.columns(rows, rate)))
                    continue
                (left_out,) = set(me.passives) - set(chain)
                me.link.send(left_out, Rates(rates=self.times(c, rate)))
        return known + self.reveal(sums)


class Passive(_Chained):
    """A passive party's gradients, one a call."""

    def __init__(self, me: Player) -> None:
        super().__init__(me)
        (self.active,) = me.link.cast["active"]
        scale = FRACTION * len(me.passives)
        self.labels = []  # [[-Σ x·y]] of some rows
        for rows in self.parts:
            n = rows.stop - rows.start
            c = me.accept(self.active, me.link.recv(self.active, Labels).labels, n, scale)
            self.labels.append(self.products(c, -self.columns(rows, np.ones(n))))

    def __call__(self) -> Floats:
        """[d]"""
        me = self.me
        own = me.family.basis(me.stage, scores(me.solver.X, me.solver.at()))[:, 0]
        sums = [*self.labels]
        for rows in self.parts:
            self._hand_on(own[rows])
            n = rows.stop - rows.start
            got = me.link.recv(self.active, Rates).rates
            c = me.accept(self.active, got, n, FRACTION * len(me.passives))
            sums.append(self.products(c, self.columns(rows, own[rows])))
        return self.reveal(sums)

    def _hand_on(self, own: Floats) -> None:
        """Multiply what comes along each chain by one's own factors; what several chains share is made once."""
        me, made = self.me, dict[tuple[str, ...], Fresh]()
        for chain in self.chains:
            if me.link.me not in chain:
                continue
            here = chain.index(me.link.me)
            so_far = chain[: here + 1]
            if here:
                got = me.link.recv(chain[here - 1], Product).factors
            if so_far not in made:
                if here:
                    c = me.accept(chain[here - 1], got, len(own), FRACTION * here)
                    made[so_far] = self.times(c, own)
                else:
                    made[so_far] = me.encrypt(_whole(own), FRACTION)
            after = chain[here + 1] if here + 1 < len(chain) else self.active
            me.link.send(after, Product(factors=made[so_far]))


def _whole(factor: Floats) -> list[int]:
    if not (np.isfinite(factor).all() and (factor < 2.0**RATE).all()):
        raise DataError(f"a factor of some row's mean is {2**RATE} or more. Winsorise features, or take logarithms.")
    exact: list[int] = np.rint(np.ldexp(factor, FRACTION)).astype(np.int64).tolist()
    return exact
