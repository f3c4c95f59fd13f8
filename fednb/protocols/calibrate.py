"""How fast each member's machine is at the work of training: a second each, before hours are spent.

    coordinator                              party, one or more
      |── Key n ────────────────────────────> |
      |── Turn ─────────────────────────────> |   one party after the other: measures alone ...
      | <──────────────────────────── Probe ──|
      |── Probe ────────────────────────────> |   ... and how long messages take there and back
      | <───────────────────────────── Done ──|
      |── Turn, together ───────────────────> |   all at once: do they share a machine?
      | <───────────────────────────── Done ──|

Members measure on numbers that they make up, with the functions, the packing and the key size of `vertical_logistic`.
What comes out are rates. `forecast` makes seconds and bytes of them and of the shapes of a fit.

| role | learns |
|---|---|
| party | the shape that the analyst asks about; nothing of the others |
| coordinator, analyst | how fast each member's machine and its connection are at this moment |
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import numpy as np
from msgspec import Meta

from fednb.crypto import paillier
from fednb.crypto.multiexp import inner_products, plan
from fednb.crypto.noise import draw_cost
from fednb.crypto.paillier import CipherVector, PublicKey
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.protocols.forecast import made_up
from fednb.protocols.keys import Key, accept_key
from fednb.protocols.layout import Layout, largest
from fednb.protocols.separable import COARSE
from fednb.wire.disclosure import Disclosure
from fednb.wire.link import Link
from fednb.wire.message import Message

SAMPLE = 24  # ciphertexts, repeated where many are needed
FEW = 256  # rows
PROBE = 1 << 18  # bytes
PROBES = 3  # small ones: the first also opens the connection


class CalibrateParams(Params):
    rows: Annotated[int, Meta(ge=1)]  # of the fit that is asked about
    features: Annotated[int, Meta(ge=1)]  # of the widest party
    passives: Annotated[int, Meta(ge=1)] = 1
    seconds: Annotated[float, Meta(gt=0, le=10)] = 1.0  # for each party, nearly
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits


class Turn(Message):
    discloses = Disclosure("whose turn it is", each="piece")

    together: bool = False


class Probe(Message):
    discloses = Disclosure("zeros", each="piece")

    data: np.ndarray  # uint8, to be sent back


class Done(Message):
    """Measured."""

    discloses = Disclosure("that it has measured", each="piece")


def party(link: Link, data: Dataset, params: CalibrateParams, run: RunContext) -> Outcome:
    (coordinator,) = link.cast["coordinator"]
    key = accept_key(link.recv(coordinator, Key).n, params, coordinator)
    layout = Layout.of("coarse", key, params.rows, params.passives)
    each = params.seconds / 6
    link.recv(coordinator, Turn)
    products = _Products(layout, key, params, run)
    rates = _alone(layout, key, params, each, run)
    rates["fixed"], rates["multiply"] = products.alone(2 * each)
    small = min(_there_and_back(link, coordinator, 1) for _ in range(PROBES))
    large = _there_and_back(link, coordinator, PROBE)
    link.send(coordinator, Done())
    link.recv(coordinator, Turn)
    rates["together"] = products.slower()
    link.send(coordinator, Done())
    return Outcome(public=rates | {"hop": small / 2, "bytes": 2 * PROBE / max(large - small, 1e-6)})


def coordinator(link: Link, data: Dataset, params: CalibrateParams, run: RunContext) -> Outcome:
    parties = link.cast["party"]
    began = time.perf_counter()
    secret = paillier.generate(params.key_bits, insecure_short_key=params.insecure_short_key)
    prepare = time.perf_counter() - began
    for member in parties:
        link.send(member, Key(secret.public.to_bytes()))
    c = secret.encrypt(range(SAMPLE), 0, run.threads)

    def decrypt(n: int) -> float:
        secret.decrypt(_repeated(c, n), run.threads)
        return n

    decrypted = _rate(decrypt, params.seconds / 6, SAMPLE)
    for step, member in enumerate(parties):
        run.progress("calibrate", step, len(parties) + 1)
        link.send(member, Turn())
        for _ in range(PROBES + 1):
            link.send(member, link.recv(member, Probe))
        link.recv(member, Done)
    run.progress("calibrate", len(parties), len(parties) + 1)
    for member in parties:
        link.send(member, Turn(together=True))
    for member in parties:
        link.recv(member, Done)
    return Outcome(public={"decrypt": decrypted, "prepare": prepare})


def _alone(layout: Layout, key: PublicKey, params: CalibrateParams, each: float, run: RunContext) -> dict[str, float]:
    """A second: rows expanded, numbers packed, multiplications in encryptions, ciphertexts checked."""
    terms, drawn = layout.terms + 1, [SAMPLE]  # what `products` drew

    def some(n: int) -> Layout:
        return replace(layout, rows=n)

    def expand(n: int) -> float:
        COARSE.factors(run.rng.normal(size=n), 1.0)
        return n

    def pack(n: int) -> float:
        some(n).pack(run.rng.uniform(-0.9, 0.9, size=(n, terms)))
        return n * terms

    def encrypt(n: int) -> float:
        before = draw_cost(key.bits // 2, drawn)
        drawn.append(n)
        key.encrypt(range(n), 0, run.threads)
        return draw_cost(key.bits // 2, drawn) - before

    c = key.encrypt(range(SAMPLE), 0, run.threads)
    drawn.append(SAMPLE)

    def accept(n: int) -> float:
        key.accept(_repeated(c, n))
        return n

    return {
        "expand": _rate(expand, each / 2, 256, params.rows),
        "pack": _rate(pack, each / 2, 256, params.rows),
        "encrypt": _rate(encrypt, each, 64),
        "accept": _rate(accept, each / 2, 64),
    }


class _Products:
    """Inner products of the fit's width, on a few rows and on as many as the time allows."""

    def __init__(self, layout: Layout, key: PublicKey, params: CalibrateParams, run: RunContext) -> None:
        self._layout, self._params, self._run = layout, params, run
        self._c = key.encrypt(range(SAMPLE), 0, run.threads)
        self._rows = min(FEW, params.rows)
        self._seconds = math.inf

    def alone(self, seconds: float) -> tuple[float, float]:
        """Seconds that each call costs whatever its rows, and multiplications a second beyond that."""
        few_seconds, few = self._best()
        self._seconds, work = few_seconds, few
        while self._seconds < seconds / 4 and self._rows < self._params.rows:
            self._rows = min(4 * self._rows, self._params.rows)
            self._seconds, work = self._best()
        if work == few or self._seconds <= few_seconds:
            return 0.0, work / self._seconds
        rate = (work - few) / (self._seconds - few_seconds)
        # a call that costs less than nothing was disturbed while it was measured
        return (few_seconds - few / rate, rate) if few_seconds > few / rate else (0.0, work / self._seconds)

    def slower(self) -> float:
        """How many times as long the same takes now."""
        return self._best()[0] / self._seconds

    def _best(self) -> tuple[float, float]:
        return min(self._once() for _ in range(2))

    def _once(self) -> tuple[float, float]:
        terms = self._layout.terms + 1
        part = replace(self._layout, rows=self._rows)
        left, X = made_up(self._rows, terms, self._params.features, self._run.rng)
        many = _repeated(self._c, terms * part.length)
        began = time.perf_counter()
        columns = part.factors(left, X, part.shifts(largest(left, X)))
        inner_products(many, columns, part.packing, threads=self._run.threads)
        taken = time.perf_counter() - began
        return taken, plan(columns, part.packing).multiplications


def _rate(work: Callable[[int], float], seconds: float, start: int, most: int = 1 << 20) -> float:
    """What `work(n)` says it did, for each second that it took, with n as large as the time allows."""
    n = min(start, most)
    while True:
        began = time.perf_counter()
        done = work(n)
        rate = done / max(time.perf_counter() - began, 1e-9)
        if n >= most or done / rate >= seconds / 4:
            began = time.perf_counter()
            again = work(n)  # now without tables to be made, or another member in the way
            return max(rate, again / max(time.perf_counter() - began, 1e-9))
        n = min(most, n * 2)


def _there_and_back(link: Link, to: str, size: int) -> float:
    began = time.perf_counter()
    link.send(to, Probe(np.zeros(size, dtype=np.uint8)))
    link.recv(to, Probe)
    return time.perf_counter() - began


def _repeated(c: CipherVector, n: int) -> CipherVector:
    return c[np.arange(n) % len(c)]


PROTOCOL = Protocol(
    name="calibrate",
    version=1,
    params=CalibrateParams,
    roles={"party": Role(party, many=True), "coordinator": Role(coordinator)},
    sends={("coordinator", "party"): (Key, Turn, Probe), ("party", "coordinator"): (Probe, Done)},
    learns={"party": "nothing of the others", "coordinator": "how fast each member's machine and connection are"},
    learns_with_key={"party": "nothing more: no number of anybody's rows takes part"},
)
