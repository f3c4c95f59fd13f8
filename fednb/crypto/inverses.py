"""Many inverses for one: 1/a and 1/b come from 1/(a·b) (Montgomery 1987)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Vector = Any  # has a length, and slices of it are vectors


def inverses(
    a: Vector,
    multiply: Callable[[Vector, Vector], Vector],
    invert: Callable[[Vector], Vector],
    join: Callable[[Sequence[Vector]], Vector],
) -> Vector:
    """1/a[i], for three multiplications each; `invert` is asked once, for a vector of one."""
    n = len(a)
    if n <= 1:
        return invert(a) if n else a
    half = n // 2
    left, right, rest = a[:half], a[half : 2 * half], a[2 * half :]
    products = multiply(left, right)
    both = inverses(join([products, rest]) if len(rest) else products, multiply, invert, join)
    pairs = both[:half]
    found = [multiply(pairs, right), multiply(pairs, left)]
    return join([*found, both[half:]] if len(rest) else found)
