"""What a fit by `vertical_logistic` will take, from its shapes and the rates that `calibrate` measured.

It counts with the layout, the expansion and the plan of the products that the fit itself will use, on columns that are
made up: numbers with many values, as scaled features have. An iteration lasts as long as what waits for each other:
passive parties encrypt a part of the rows; the active one encrypts; all multiply, while they encrypt the next part; the
coordinator decrypts. On one machine nothing waits, and all of it adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from fednb.crypto.multiexp import plan
from fednb.crypto.noise import draw_cost
from fednb.protocols.layout import Layout, largest
from fednb.protocols.separable import Floats
from fednb.protocols.steps import Stage

ENOUGH = 20_000  # rows that are made up; beyond, products grow in proportion
HOPS = 6  # messages of an iteration that wait for one another
CARRY = 20  # multiplications of a product with one small factor, when there are several passive parties


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party's, a second, unless it says otherwise."""

    expand: float  # rows whose sigmoid is expanded
    pack: float  # numbers packed
    encrypt: float  # modular multiplications in encryptions
    accept: float  # ciphertexts checked
    fixed: float  # seconds of inner products, however few rows they have
    multiply: float  # modular multiplications in inner products, beyond that
    together: float  # how many times as long they take while all parties do that
    hop: float  # seconds of a small message, one way
    bytes: float  # bytes a second


class KeyHolderRates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The coordinator's."""

    decrypt: float  # ciphertexts a second
    prepare: float  # seconds to make a key


@dataclass(frozen=True)
class _KeySize:
    bits: int


@dataclass
class Forecast:
    """Seconds and bytes of a fit: all in all, and by member what it computes and sends."""

    iterations: int
    fine: int  # of these with the fine expansion
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)  # seconds that each member computes
    sent: dict[str, int] = field(default_factory=dict)  # bytes that each member sends

    @property
    def bytes(self) -> int:
        return sum(self.sent.values())


def made_up(rows: int, terms: int, features: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Factors [rows, terms] and features [rows, features], as a fit multiplies them."""
    left = np.tanh(rng.normal(size=(rows, terms)))
    return left, np.clip(rng.normal(size=(rows, features)), -4.0, 4.0)


def forecast(
    rows: int,
    features: Mapping[str, int],
    active: str,
    coordinator: str,
    rates: Mapping[str, Rates],
    key_holder: KeyHolderRates,
    *,
    expected: int,
    fine: int,
    key_bits: int = 2048,
    weight_bits: int = 0,
) -> Forecast:
    """`features` by party, without the intercept; `expected` iterations, `fine` of them with the fine expansion."""
    numbers = {party: d + (party == active) for party, d in features.items()}  # entries of each gradient
    passives = [party for party in features if party != active]
    stages: Sequence[tuple[Stage, int]] = (("coarse", expected - fine), ("fine", fine))
    key = _KeySize(key_bits)
    layouts = [(Layout.of(stage, key, rows, len(passives), weight_bits), count) for stage, count in stages if count]
    fit = _Fit(active, passives, numbers, rates, key_holder, key_bits, {})
    for party in features:
        draws = [fit.encrypted(party, layout) + numbers[party] for layout, count in layouts for _ in range(count)]
        fit.draw[party] = draw_cost(key_bits // 2, draws) / sum(draws) / rates[party].encrypt
    out = Forecast(expected, fine, key_holder.prepare, dict.fromkeys(features, 0.0), dict.fromkeys(features, 0))
    out.busy[coordinator], out.sent[coordinator] = key_holder.prepare, 0
    for layout, count in layouts:
        seconds, busy, sent = fit.iteration(layout)
        out.seconds += count * seconds
        for party in features:
            out.busy[party] += count * busy[party]
            out.sent[party] += count * sent[party]
        out.busy[coordinator] += count * sum(numbers.values()) / key_holder.decrypt
        out.sent[coordinator] += count * 8 * sum(numbers.values())
    return out


@dataclass(frozen=True)
class _Fit:
    """What stays the same from iteration to iteration."""

    active: str
    passives: Sequence[str]
    numbers: Mapping[str, int]  # entries of each party's gradient
    rates: Mapping[str, Rates]
    key_holder: KeyHolderRates
    key_bits: int
    draw: dict[str, float]  # seconds of an encryption, by party

    def encrypted(self, party: str, layout: Layout) -> int:
        """Ciphertexts that a party encrypts in an iteration, without its gradient."""
        terms = layout.terms
        return (len(self.passives) * (terms + 1) if party == self.active else terms) * _length(layout)

    def iteration(self, layout: Layout) -> tuple[float, dict[str, float], dict[str, int]]:
        """Seconds; seconds that each party computes; bytes that it sends."""
        terms, m, n, others = layout.terms, _length(layout), layout.rows, len(self.passives) - 1
        a, rates = self.rates[self.active], self.rates
        sent = {
            party: (self.encrypted(party, layout) + count) * self.key_bits // 4 for party, count in self.numbers.items()
        }
        first = {p: n * terms / rates[p].pack + self.encrypted(p, layout) * self.draw[p] for p in self.passives}
        answer = n / a.expand + self.encrypted(self.active, layout) * self.draw[self.active]
        answer += len(self.passives) * (terms * m / a.accept + n * (terms + 1) / a.pack)
        answer += len(self.passives) * others * terms * (terms + 1) * m * CARRY / a.multiply
        then = {
            party: _multiplications(layout, terms * len(self.passives) if party == self.active else terms + 1, count)
            / rates[party].multiply
            + rates[party].fixed
            + count * self.draw[party]
            + (0 if party == self.active else (terms + 1) * m / rates[party].accept)
            for party, count in self.numbers.items()
        }
        pieces = len(layout.parts())
        before = max(first.values()) / pieces  # that the active party has nothing to work on
        work = {p: first[p] - first[p] / pieces + answer / pieces + then[p] for p in self.passives}
        work[self.active] = answer + then[self.active]
        waiting = before + max(work.values())
        everything = sum(first.values()) + answer + sum(then.values())
        # on one machine, what is done at once takes longer
        slower = float(np.mean([r.together - 1.0 for r in rates.values()])) / len(self.passives)
        seconds = waiting + min(max(slower, 0.0), 1.0) * max(everything - waiting, 0.0)
        moving = sum(sent[party] / rates[party].bytes for party in sent) + HOPS * max(r.hop for r in rates.values())
        decrypting = sum(self.numbers.values()) / self.key_holder.decrypt
        busy = {party: then[party] + first.get(party, answer) for party in then}
        return seconds + decrypting + moving, busy, sent


def _length(layout: Layout) -> int:
    """Ciphertexts of one term: each part of the rows fills up its last one."""
    return sum(part.length for _, part in layout.parts())


def _multiplications(layout: Layout, terms: int, features: int) -> float:
    rows = min(layout.rows, ENOUGH)
    part = replace(layout, rows=rows)
    left, X = made_up(rows, terms, features, np.random.default_rng(0))
    columns = part.factors(left, X, part.shifts(largest(left, X)))
    return plan(columns, part.packing).multiplications * layout.rows / rows
