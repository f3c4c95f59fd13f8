"""Work in parts elsewhere gives what threads here give, to the last bit, and what comes back is checked."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from fednb.crypto import paillier
from fednb.crypto.packing import Packing
from fednb.errors import CryptoError
from fednb.protocols import executor
from fednb.protocols.base import RunContext
from fednb.protocols.executor import Threads, Workers
from tests.protocols.conftest import Training

KEY = paillier.generate(512, insecure_short_key=True)


class Here:
    """Workers that are calls in this process; counts them, and may alter what they give back."""

    def __init__(self, workers: int = 2, alter: Callable[[Any], Any] = lambda made: made) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._alter = alter
        self.executor = Workers(self._map, lambda: workers)

    def _map(self, task: executor.Task, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        self.calls += calls
        return [self._alter(task(*copy.deepcopy(call))) for call in calls]


@pytest.mark.parametrize("rows", [1, 2, 7, 50, 203, 6 * 5 * 7])
@pytest.mark.parametrize("workers", [1, 3])
def test_products_in_parts_are_the_same(rows: int, workers: int) -> None:
    rng = np.random.default_rng(rows)
    packing = Packing.plan(512, max(rows, 2), 20, 12)
    d = rng.integers(-1000, 1000, rows)
    columns = np.column_stack([rng.integers(-2000, 2000, rows), rng.integers(0, 3, rows) - 1, np.zeros(rows, int)])
    c = KEY.public.encrypt(packing.pack(d))
    whole = Threads(2).inner_products(c, columns, packing)
    there = Here(workers)
    parts = there.executor.inner_products(c, columns, packing)
    assert [packing.window(m) for m in KEY.decrypt(parts)] == [packing.window(m) for m in KEY.decrypt(whole)]
    if rows % packing.slots == 0:
        assert (parts.data == whole.data).all()
    assert parts.scale == whole.scale
    assert len(there.calls) == min(packing.length(rows), executor.PARTS_EACH * workers)


def test_encryption_in_parts_is_fresh_and_in_order() -> None:
    values = [*range(-20, 20), KEY.public.n - 1]
    there = Here()
    first, second = (there.executor.encrypt(KEY.public, values, 7) for _ in range(2))
    assert KEY.decrypt(first) == KEY.decrypt(second) == [value % KEY.public.n for value in values]
    assert first.scale == 7 and isinstance(first, paillier.Fresh)
    assert not (first.data == second.data).all(axis=1).any()
    assert len(there.executor.encrypt(KEY.public, [], 0)) == 0


def test_training_with_workers_ends_in_the_same_model(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = training(max_iter=3).fit()
    there = Here()
    monkeypatch.setattr("fednb.protocols.base.Threads", lambda threads: there.executor)
    spread = training(max_iter=3).fit()
    assert there.calls
    for member, outcome in plain.items():
        for name, value in outcome.private.items():
            assert np.array_equal(value, spread[member].private[name]), (member, name)


def test_nothing_secret_goes_to_a_worker(training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[paillier.PrivateKey] = []
    generate = paillier.generate

    def keeping(*args: Any, **options: Any) -> paillier.PrivateKey:
        made.append(generate(*args, **options))
        return made[-1]

    there = Here()
    monkeypatch.setattr(paillier, "generate", keeping)
    monkeypatch.setattr("fednb.protocols.base.Threads", lambda threads: there.executor)
    training(max_iter=1).fit()
    primes = {bytes(int(prime).to_bytes(made[0].public.bits // 16, "big")) for prime in (made[0]._p, made[0]._q)}
    sent = [thing for call in there.calls for thing in call]
    assert {type(thing) for thing in sent} <= {bytes, bool, list, np.ndarray, Packing}
    raw = b"".join(thing.tobytes() if isinstance(thing, np.ndarray) else repr(thing).encode() for thing in sent)
    assert not any(prime in raw or repr(prime)[2:-1].encode() in raw for prime in primes)


@pytest.mark.parametrize(
    "alter",
    [
        lambda made: made[:-1],
        lambda made: made.tolist(),
        lambda made: made.astype(np.int64),
        lambda made: made[:, 1:],
        lambda made: np.zeros_like(made),  # not coprime to n
        lambda made: np.full_like(made, 255),  # not below n²
        lambda made: None,
    ],
)
def test_what_a_failing_worker_gives_back_is_refused(alter: Callable[[Any], Any]) -> None:
    there = Here(alter=alter)
    with pytest.raises(CryptoError, match="a worker gave back"):
        there.executor.encrypt(KEY.public, range(5), 0)
    packing = Packing.plan(512, 4, 20, 12)
    c = KEY.public.encrypt(packing.pack(np.arange(4)))
    with pytest.raises(CryptoError, match="a worker gave back"):
        there.executor.inner_products(c, np.ones((4, 2), dtype=np.int64), packing)


def test_what_cannot_be_multiplied_does_not_travel() -> None:
    there = Here()
    packing = Packing.plan(512, 4, 20, 12)
    c = KEY.public.encrypt(packing.pack(np.arange(4)))
    with pytest.raises(CryptoError, match="more than 12 bits"):
        there.executor.inner_products(c, np.full((4, 1), 4000, dtype=np.int64), packing)
    with pytest.raises(CryptoError, match="rows are"):
        there.executor.inner_products(c, np.ones((40, 1), dtype=np.int64), Packing.plan(512, 40, 20, 12))
    assert not there.calls


def test_threads_are_what_a_role_gets_by_default() -> None:
    assert isinstance(RunContext().executor, Threads)


def test_threads_are_as_many_as_the_cores_that_a_process_is_given() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from fednb.protocols import executor"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(executor.cores())"], capture_output=True, check=True)
    assert done.stdout.strip() == b"1" and executor.cores() == len(os.sched_getaffinity(0))
