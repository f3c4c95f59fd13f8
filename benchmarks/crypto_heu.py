"""Xᵀ[[d]] and encryption beside SecretFlow's HEU, in one run, on one core.

    pip install sf-heu
    python benchmarks/crypto_heu.py [--rows 30000] [--features 12] [--rounds 3] [--bits 2048]

HEU's Paillier ("ZPaillier") multiplies a vector of ciphertexts by a matrix of integers; its cost is the same for every
term, so it is measured on a slice. Negative factors cost it more, so it also gets factors of one sign, which a user
could make by adding a constant to each column. Both answers are compared with the plain product.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from heu import numpy as hnp
from heu import phe

from fednb.crypto import masking, paillier
from fednb.crypto.backend import describe
from fednb.crypto.multiexp import inner_products
from fednb.crypto.packing import Packing

LEFT_BITS, RIGHT_BITS = 26, 16
THEIR_ROWS, THEIR_FEATURES = 200, 4


def seconds(work: Callable[[], object]) -> float:
    """Of the processor, so that what else runs on the machine matters less."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--features", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bits", type=int, default=2048)
    options = parser.parse_args()
    rng, limit = np.random.default_rng(0), 1 << (RIGHT_BITS - 1)
    d = np.rint(rng.standard_normal(options.rows) * 2**20).astype(np.int64)
    X = rng.integers(1 - limit, limit, (options.rows, options.features))

    key = paillier.generate(options.bits)
    packing = Packing.plan(options.bits, options.rows, LEFT_BITS, RIGHT_BITS)
    packing = Packing(1, packing.slot_bits, LEFT_BITS, RIGHT_BITS, options.rows)
    c = key.encrypt(d)
    key.public.encrypt(range(5000))  # fills the tables

    kit = hnp.setup(phe.SchemaType.ZPaillier, options.bits)
    few, some = d[:THEIR_ROWS], X[:THEIR_ROWS, :THEIR_FEATURES]
    plain = kit.array(few.reshape(1, -1), phe.BigintEncoderParams())
    theirs = kit.encryptor().encrypt(plain)
    signed, unsigned = (kit.array(x, phe.BigintEncoderParams()) for x in (some, some + limit))
    answer = kit.decryptor().decrypt(kit.evaluator().matmul(theirs, signed)).to_numpy(phe.BigintDecoder())
    if [int(v) for v in np.ravel(answer)] != (few @ some).tolist():
        raise SystemExit("HEU: wrong results")
    masked, mask = masking.mask(inner_products(c, X, packing), packing)
    if (np.abs(mask.remove(packing.windows(key.decrypt(masked))) - X.T @ d) > 1).any():
        raise SystemExit("wrong results")

    print(describe())
    rounds = []
    for _ in range(options.rounds):
        rounds.append(
            {
                "encrypt": 1e6 * seconds(lambda: key.public.encrypt(range(2000))) / 2000,
                "HEU encrypt": 1e6 * seconds(lambda: kit.encryptor().encrypt(plain)) / THEIR_ROWS,
                "term": 1e6 * seconds(lambda: inner_products(c, X, packing)) / X.size,
                "HEU term": 1e6 * seconds(lambda: kit.evaluator().matmul(theirs, signed)) / some.size,
                "HEU term, one sign": 1e6 * seconds(lambda: kit.evaluator().matmul(theirs, unsigned)) / some.size,
            }
        )
    for label, ours, peer in (
        ("encrypt", "encrypt", "HEU encrypt"),
        ("Xᵀ[[d]] a term, 16 bits", "term", "HEU term"),
        ("... factors of one sign", "term", "HEU term, one sign"),
    ):
        ratio = statistics.median(found[peer] / found[ours] for found in rounds)
        mine, other = (statistics.median(found[name] for found in rounds) for name in (ours, peer))
        print(f"{label:26s}{mine:9.2f} µs   HEU {other:9.2f} µs   {ratio:6.1f} times")


if __name__ == "__main__":
    main()
