"""Work on several threads, which leave the GIL while they compute, and cutting it into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import gmpy2

Part = TypeVar("Part")
Result = TypeVar("Result")


def released() -> AbstractContextManager[Any]:
    """Within it, this thread leaves the GIL while gmpy2 computes; gmpy2's contexts belong to a thread."""
    context: AbstractContextManager[Any] = gmpy2.context(allow_release_gil=True)
    return context


def spread(work: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """`work` on each part, in order of the parts; on up to `threads` threads that leave the GIL while they compute."""
    if threads <= 1 or len(parts) <= 1:
        return [work(part) for part in parts]

    def beside(part: Part) -> Result:
        with released():
            return work(part)

    with ThreadPoolExecutor(min(threads, len(parts)), thread_name_prefix="crypto") as pool:
        return list(pool.map(beside, parts))


def slices(n: int, parts: int) -> list[slice]:
    """0..n cut into `parts` contiguous slices of nearly equal size; fewer when n is small, at least one."""
    parts = max(1, min(parts, n))
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


def chunks(n: int, threads: int, most: int = 2048) -> list[slice]:
    """0..n cut into slices of at most `most`, as many for each thread, so that what is in work at once is bounded."""
    return slices(n, threads * -(-n // (threads * most)))
