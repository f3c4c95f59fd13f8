"""Encrypted arithmetic beside phe and beside bare gmpy2, in one run: medians, ratios, and what is aimed at.

    python benchmarks/crypto.py [--rows 30000] [--features 12] [--rounds 3] [--bits 2048]

Every kernel that runs on this machine is measured, or the one that FEDNB_KERNEL names. Every round measures everything
once, so that a change in the machine's speed meets all of it. phe is measured on a slice: its cost is the same for
every term. Its arithmetic on floats is what one writes with it; on integers it is faster, and stands beside it.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import phe
import threadpoolctl
from gmpy2 import mpz

from fednb.crypto import curve, lanes, masking
from fednb.crypto.backend import describe, to_integers
from fednb.crypto.multiexp import inner_products, plan
from fednb.crypto.packing import Packing
from fednb.crypto.paillier import CipherVector, PrivateKey, generate
from fednb.crypto.threads import spread

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
    threadpoolctl.threadpool_limits(1, user_api="blas")  # as members do

    kernels = [os.environ["FEDNB_KERNEL"]] if "FEDNB_KERNEL" in os.environ else ["gmpy2"]
    if "FEDNB_KERNEL" not in os.environ:
        kernels += reversed(lanes.available())
    generated = generate(options.bits)
    keys = {}
    for kernel in kernels:
        choose(kernel)
        keys[kernel] = key = PrivateKey(int(generated._p), int(generated._q))
        print(describe())
    public = key.public
    their_public = phe.PaillierPublicKey(public.n)
    their_private = phe.PaillierPrivateKey(their_public, int(key._p), int(key._q))

    packed = Packing.plan(options.bits, rows, LEFT_BITS, RIGHT_BITS)
    single = Packing(1, packed.slot_bits, LEFT_BITS, RIGHT_BITS, rows)
    limit = 1 << (RIGHT_BITS - 1)
    wide = np.clip(np.rint(rng.standard_normal((rows, features)) * 2**FRACTION), 1 - limit, limit - 1).astype(np.int64)
    woe = wide[:8].T[np.arange(features), rng.integers(0, 8, (rows, features))]  # eight bins a feature
    d = np.rint(rng.standard_normal(rows) * 2**20).astype(np.int64)
    print(
        f"{rows:,} rows × {features} features, {options.bits} bits, {packed.slots} numbers of {packed.slot_bits} bits"
    )
    vectors = {
        "packed": (packed, key.encrypt(packed.pack(d), threads=2)),
        "single": (single, key.encrypt(d, threads=2)),
    }
    cases = {(form, kind): (*vectors[form], x) for form in vectors for kind, x in (("16-bit", wide), ("WOE", woe))}
    for (form, kind), (packing, c, x) in cases.items():
        print(f"  {form} {kind}: {plan(x, packing).multiplications / x.size:.3f} multiplications a term")
        answers = []
        for kernel in kernels:
            choose(kernel)
            answers.append(inner_products(bound(keys[kernel], c), x[:, :1], packing, threads=2))
            check(keys[kernel], packing, answers[-1], d, x[:, :1])
        if len({answer.data.tobytes() for answer in answers}) != 1:
            raise SystemExit("the kernels differ")
    for kernel in kernels:
        choose(kernel)
        keys[kernel].public.encrypt(range(5000), threads=2)  # fills the tables
        keys[kernel].encrypt(range(5000), threads=2)

    m = Measurements()
    sample = vectors["single"][1][:500]
    modulus, values = mpz(public.n) ** 2, to_integers(sample.data)
    ids, scalar = [b"%d" % i for i in range(2000)], curve.random_scalar()
    points = curve.hash_to_curve(ids)
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
            m.measure("control", 8, spread, partial(pow, values[0], modulus), [modulus] * 8, cores, cores=cores)
            for kernel in kernels:
                choose(kernel)
                key, public, some = keys[kernel], keys[kernel].public, bound(keys[kernel], sample)
                m.measure(f"{kernel} encrypt", 1000, public.encrypt, range(1000), 0, cores, cores=cores)
                m.measure(f"{kernel} key holder's encrypt", 1000, key.encrypt, range(1000), 0, cores, cores=cores)
                m.measure(f"{kernel} decrypt", 96, key.decrypt, some[:96], cores, cores=cores)
                m.measure(f"{kernel} add", len(sample), public.add, some, some, cores, cores=cores)
                for (form, kind), (packing, c, x) in cases.items():
                    arguments = (bound(key, c), x, packing, 0, cores)
                    m.measure(f"{kernel} {form} {kind}", x.size, inner_products, *arguments, cores=cores)
                m.measure(f"{kernel} X25519", len(points), curve.multiply, points, scalar, cores, cores=cores)
                m.measure(f"{kernel} hash to the curve", len(ids), curve.hash_to_curve, ids, b"", cores, cores=cores)

    header = "".join(f"{kernel:>9s}{'ratio':>8s}{'aim':>6s}" for kernel in kernels)
    print(f"\n{'µs, one core':36s}{'phe':>10s}{header}")
    table = [
        ("encrypt", "encrypt", "phe encrypt", {"gmpy2": 15, "ifma": 100}),
        ("encrypt, key holder", "key holder's encrypt", "phe encrypt", {"gmpy2": 15, "ifma": 100}),
        ("decrypt", "decrypt", "phe decrypt", {}),
        ("add", "add", "phe add", {}),
        ("Xᵀ[[d]] a term, 16 bits", "single 16-bit", "phe floats", {"gmpy2": 40, "ifma": 250}),
        ("Xᵀ[[d]] a term, 16 bits, packed", "packed 16-bit", "phe floats", {}),
        ("Xᵀ[[d]] a term, WOE", "single WOE", "phe floats", {"gmpy2": 200}),
        ("Xᵀ[[d]] a term, WOE, packed", "packed WOE", "phe floats", {}),
        ("... phe on integers", "single 16-bit", "phe integers", {}),
        ("X25519", "X25519", None, {}),
        ("hash to the curve", "hash to the curve", None, {}),
    ]
    for label, ours, theirs, aims in table:
        line = f"{label:36s}" + (f"{1e6 * m.median(theirs):10.1f}" if theirs else f"{'':10s}")
        for kernel in kernels:
            name = f"{kernel} {ours}"
            line += f"{1e6 * m.median(name):9.2f}" + (f"{m.ratio(theirs, name):7.0f}×" if theirs else f"{'':8s}")
            line += f"{f'{aims[kernel]}×' if kernel in aims else '':>6s}"
        print(line.rstrip())

    print(f"\none modular multiplication in gmpy2: {1e6 * m.median('bare multiplication'):.2f} µs")
    for (form, kind), (packing, _, x) in cases.items():
        count = plan(x, packing).multiplications / x.size
        for kernel in kernels:
            ratio = m.ratio(f"{kernel} {form} {kind}", "bare multiplication") / count
            aim = "(aim: at most 1.2)" if kernel == "gmpy2" else ""
            print(f"  {kernel} Xᵀ[[d]] {form} {kind}: {ratio:.2f} × the time of its {count:.3f} a term {aim}".rstrip())

    print("\ntwo cores against one (aim: 1.8; control: long powers that share nothing)")
    print(f"  {'control':24s}{m.speedup('control'):8.2f}")
    for name in ("encrypt", "key holder's encrypt", "decrypt", *(f"{f} {k}" for f, k in cases), "X25519"):
        print(f"  {name:24s}" + "".join(f"{m.speedup(f'{kernel} {name}'):8.2f} {kernel}" for kernel in kernels))


def choose(kernel: str) -> None:
    os.environ["FEDNB_KERNEL"] = kernel


def bound(key: PrivateKey, c: CipherVector) -> CipherVector:
    """The same ciphertexts, computed on by `key`'s kernel."""
    return CipherVector(c.data, c.scale, key.public)


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
