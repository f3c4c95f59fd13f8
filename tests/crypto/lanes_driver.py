"""Runs a build of the compiled module over edge values, beside gmpy2: what the sanitizers watch.

Not a test itself: test_lanes starts it with the path of the module, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import itertools
import random
import sys

import gmpy2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import fednb.crypto


def filled(ring, values, cells):
    buckets = ring.buckets(cells.shape[1], 5)
    for share in range(2):
        buckets.add(values, cells, share, 2)
    return buckets.tables()


def split(ring, residues):
    """(u·f)·(1 + N)**z for each residue, which it is."""
    root = gmpy2.isqrt(ring.modulus)
    remainders, logarithms = ring.split(residues)
    once = filled(ring, remainders, np.arange(len(residues))[:, None] % 5)[0][: len(residues)]
    sums = [sum(int(digit) << ring.digit_bits * i for i, digit in enumerate(row)) for row in logarithms]
    values = [gmpy2.mpz(ring.factor) * (1 + root * (z % root)) % ring.modulus for z in sums]
    width = residues.shape[1]
    factors = np.frombuffer(b"".join([value.to_bytes(width, "big") for value in values]), np.uint8).reshape(-1, width)
    return ring.multiply(once, ring.load(factors))


def points_of_the_curve(lanes):
    prime = 2**255 - 19
    us = [0, 1, 9, prime - 1, prime, 2**256 - 1, *[random.randrange(2**256) for _ in range(5)]]
    points = np.frombuffer(b"".join([u.to_bytes(32, "little") for u in us]), np.uint8).reshape(-1, 32)
    secret = random.randbytes(32)
    other = X25519PrivateKey.from_private_bytes(secret)
    expected = [other.exchange(X25519PublicKey.from_public_bytes(bytes(point))) for point in points[6:]]
    if lanes.multiply_points(points, secret)[6:].tobytes() != b"".join(expected):
        raise SystemExit("X25519: not the same")
    squares = [gmpy2.legendre(u * (u * u + 486662 * u + 1), prime) >= 0 for u in (u % 2**255 for u in us)]
    if lanes.on_curve(points).tolist() != squares:
        raise SystemExit("points of the curve: not the same")


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("fednb.crypto._lanes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["fednb.crypto._lanes"] = fednb.crypto._lanes = module

    from fednb.crypto import lanes
    from fednb.crypto.backend import GmpRing, to_residues

    if not lanes.available():
        print("not available")
        return
    random.seed(5)
    for kind, bits in itertools.product(lanes.available(), (256, 1024, 1536, 2048, 8192 - 16)):
        root = gmpy2.next_prime(1 << (bits - 1)) if bits < 4096 else (1 << (bits - 1)) + 1
        modulus, width = int(root * root), -(-2 * bits // 8)
        plain, fast = GmpRing(modulus, width), lanes.LaneRing(modulus, width, kind)
        edges = [0, 1, root - 1, root, root + 1, modulus - 1, modulus - root]
        values = edges + [random.randrange(modulus) for _ in range(6)]
        residues = to_residues([gmpy2.mpz(value) for value in values], width)
        a, b = plain.load(residues), fast.load(residues)
        index = np.array([random.randrange(len(values)) for _ in values])
        cells = np.array([[random.randrange(5) for _ in range(11)] for _ in values])
        units = [i for i, value in enumerate(values) if gmpy2.gcd(value, root) == 1][-5:]
        pairs = [
            (a, b),
            (plain.multiply(a, a[::-1]), fast.multiply(b, b[::-1])),
            (plain.multiply_taken(a, a, index), fast.multiply_taken(b, b, index)),
            (plain.combine(a[:5]), fast.combine(b[:5])),
            (plain.combine(a[:0]), fast.combine(b[:0])),
            (plain.square(a, 3), fast.square(b, 3)),
            (plain.power(a, list(range(len(a)))), fast.power(b, list(range(len(b))))),
            (plain.power_secret(a[1:4], 12345), fast.power_secret(b[1:4], 12345)),
            (plain.ones(3), fast.ones(3)),
            (a[:0], b[:0]),
            *zip(filled(plain, a, cells), filled(fast, b, cells), strict=True),
            *zip(filled(plain, a, cells[:, :2]), filled(fast, b, cells[:, :2]), strict=True),
            (plain.load(residues[units]), split(fast, residues[units])),
            (split(plain, residues[units]), b[units]),
        ]
        for i, (expected, got) in enumerate(pairs):
            if not (plain.store(expected) == fast.store(got)).all():
                raise SystemExit(f"{kind}, {bits} bits, result {i}: not the same")
    if "ifma" in lanes.available():
        points_of_the_curve(lanes)
    print("all the same")


if __name__ == "__main__":
    main(sys.argv[1])
