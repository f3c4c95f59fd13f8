"""Encrypted arithmetic beside phe and beside bare gmpy2, in one run: medians, ratios, and what is aimed at.

    FEDNB_KERNEL=gmpy2 python benchmarks/crypto.py [--rows 30000] [--features 12] [--rounds 3] [--bits 2048]

Without FEDNB_KERNEL it measures what would run on this machine. Every round measures everything once, so that a change
in the machine's speed meets all of it. phe is measured on a slice: its cost is the same for every term. Its arithmetic
on floats is what one writes with it; on integers it is faster, and stands beside it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import phe
from gmpy2 import mpz

from fednb.crypto import curve, masking
from fednb.crypto.backend import describe, kernel, spread, to_integers
from fednb.crypto.multiexp import inner_products, plan
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, generate

LEFT_BITS, RIGHT_BITS, FRACTION = 26, 16, 13
PHE_ROWS = 24


class Measurements:
    """Seconds a unit, by name and number of cores, one entry a round.

    One core is timed by the processor's clock, so that what else runs on the machine matters less; two by the wall's.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
        self.wall: dict[str, list[float]] = defaultdict(list)

    def measure(self, name: str, units: float, work: Callable[..., object], *arguments: object, cores: int = 1) -> None:
        gc.collect()
        processor, wall = time.process_time(), time.perf_counter()
        work(*arguments)
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
        self.seconds[name, cores].append((processor if cores == 1 else wall) / units)
        if cores == 1:
            self.wall[name].append(wall / units)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name, 1])

    def ratio(self, slow: str, fast: str) -> float:
        """The median of the rounds' ratios: both halves of each were measured within one round."""
        return statistics.median(a / b for a, b in zip(self.seconds[slow, 1], self.seconds[fast, 1], strict=True))

    def speedup(self, name: str) -> float:
        return statistics.median(a / b for a, b in zip(self.wall[name], self.seconds[name, 2], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--features", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bits", type=int, default=2048)
    options = parser.parse_args()
    rows, features = options.rows, options.features
    rng = np.random.default_rng(0)

    key = generate(options.bits)
    public = key.public
    their_public = phe.PaillierPublicKey(public.n)
    their_private = phe.PaillierPrivateKey(their_public, int(key._p), int(key._q))

    packed = Packing.plan(options.bits, rows, LEFT_BITS, RIGHT_BITS)
    single = Packing(1, packed.slot_bits, LEFT_BITS, RIGHT_BITS, rows)
    limit = 1 << (RIGHT_BITS - 1)
    wide = np.clip(np.rint(rng.standard_normal((rows, features)) * 2**FRACTION), 1 - limit, limit - 1).astype(np.int64)
    woe = wide[:8].T[np.arange(features), rng.integers(0, 8, (rows, features))]  # eight bins a feature
    d = np.rint(rng.standard_normal(rows) * 2**20).astype(np.int64)
    print(describe())
    print(
        f"{rows:,} rows × {features} features, {options.bits} bits, {packed.slots} numbers of {packed.slot_bits} bits"
    )
    vectors = {
        "packed": (packed, key.encrypt(packed.pack(d), threads=2)),
        "single": (single, key.encrypt(d, threads=2)),
    }
    public.encrypt(range(5000), threads=2)  # fills the table of the public side
    cases = {(form, kind): (*vectors[form], x) for form in vectors for kind, x in (("16-bit", wide), ("WOE", woe))}
    for (form, kind), (packing, c, x) in cases.items():
        check(key, packing, inner_products(c, x[:, :1], packing, threads=2), d, x[:, :1])
        print(f"  {form} {kind}: {plan(x, packing).multiplications / x.size:.3f} multiplications a term")

    m = Measurements()
    sample = vectors["single"][1][:500]
    modulus, values = mpz(public.n) ** 2, to_integers(sample.data)
    points, scalar = curve.hash_to_curve([b"%d" % i for i in range(2000)]), curve.random_scalar()
    for _ in range(options.rounds):
        m.measure("bare multiplication", 10 * len(values), bare, values, modulus)
        m.measure("phe encrypt", 10, lambda: [their_public.encrypt(1.5) for _ in range(10)])
        m.measure("phe decrypt", 10, lambda: [their_private.raw_decrypt(int(v)) for v in values[:10]])
        floats = [their_public.encrypt(float(v) / 2**20) for v in d[:PHE_ROWS]]
        m.measure("phe floats", PHE_ROWS * 2, phe_inner, floats, wide[:PHE_ROWS, :2] / 2**FRACTION)
        integers = [their_public.encrypt(int(v)) for v in d[:PHE_ROWS]]
        m.measure("phe integers", PHE_ROWS * 2, phe_inner, integers, wide[:PHE_ROWS, :2])
        m.measure("phe add", PHE_ROWS - 1, sum, integers[1:], integers[0])
        for cores in (1, 2):
            m.measure("encrypt", 1000, public.encrypt, range(1000), 0, cores, cores=cores)
            m.measure("key holder's encrypt", 1000, key.encrypt, range(1000), 0, cores, cores=cores)
            m.measure("decrypt", 100, key.decrypt, sample[:100], cores, cores=cores)
            m.measure("add", len(sample), public.add, sample, sample, cores, cores=cores)
            for (form, kind), (packing, c, x) in cases.items():
                m.measure(f"{form} {kind}", x.size, inner_products, c, x, packing, 0, cores, cores=cores)
            m.measure("X25519", len(points), curve.multiply, points, scalar, cores, cores=cores)
            m.measure("control", 8, spread, partial(pow, values[0], modulus), [modulus] * 8, cores, cores=cores)

    print(f"\n{'µs, one core':36s}{'fednb':>10s}{'phe':>12s}{'ratio':>8s}{'aim':>6s}")
    compiled = kernel() == "ifma"
    table = [
        ("encrypt", "encrypt", "phe encrypt", 100 if compiled else 15),
        ("encrypt, key holder", "key holder's encrypt", "phe encrypt", 100 if compiled else 15),
        ("decrypt", "decrypt", "phe decrypt", None),
        ("add", "add", "phe add", None),
        ("Xᵀ[[d]] a term, 16 bits", "single 16-bit", "phe floats", 250 if compiled else 40),
        ("Xᵀ[[d]] a term, 16 bits, packed", "packed 16-bit", "phe floats", None),
        ("Xᵀ[[d]] a term, WOE", "single WOE", "phe floats", None if compiled else 200),
        ("Xᵀ[[d]] a term, WOE, packed", "packed WOE", "phe floats", None),
        ("... phe on integers", "single 16-bit", "phe integers", None),
    ]
    for label, ours, theirs_name, aim in table:
        ratio = m.ratio(theirs_name, ours)
        ours_us, theirs_us = 1e6 * m.median(ours), 1e6 * m.median(theirs_name)
        print(f"{label:36s}{ours_us:10.2f}{theirs_us:12.1f}{ratio:7.0f}×{f'{aim}×' if aim else '':>6s}")

    print(f"\none modular multiplication in gmpy2: {1e6 * m.median('bare multiplication'):.2f} µs")
    for (form, kind), (packing, _, x) in cases.items():
        count = plan(x, packing).multiplications / x.size
        ratio = m.ratio(f"{form} {kind}", "bare multiplication") / count
        aim = "" if compiled else "(aim: at most 1.2)"
        print(f"  Xᵀ[[d]] {form} {kind}: {ratio:.2f} × the time of its {count:.3f} multiplications a term {aim}")

    print("\ntwo cores against one (aim: 1.8; control: long powers that share nothing)")
    for name in ("control", "encrypt", "key holder's encrypt", "decrypt", *(f"{f} {k}" for f, k in cases), "X25519"):
        print(f"  {name:24s}{m.speedup(name):5.2f}")


def bare(values: list[mpz], modulus: mpz) -> None:
    for factor in values[:10]:
        for value in values:
            value * factor % modulus


def phe_inner(vector: list[phe.EncryptedNumber], x: np.ndarray) -> list[phe.EncryptedNumber]:
    return [
        sum((c * number for c, number in zip(vector[1:], column[1:], strict=True)), vector[0] * column[0])
        for column in x.T.tolist()
    ]


def check(key: object, packing: Packing, c: CipherVector, d: np.ndarray, x: np.ndarray) -> None:
    """A benchmark of wrong answers would be worth nothing."""
    masked, mask = masking.mask(c, packing)
    wrong = np.abs(mask.remove(packing.windows(key.decrypt(masked))) - x.T @ d) > 1
    if wrong.any():
        raise SystemExit("wrong results")


if __name__ == "__main__":
    main()
