"""The number of iterations that is expected, beside what a fit takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fednb.protocols import rehearsal
from fednb.protocols.rehearsal import KINDS, made_up, rehearse


@pytest.mark.parametrize("widths", [(4, 3), (3, 2, 2)])
def test_a_rehearsal_takes_as_many_iterations_as_the_fit_of_that_data(
    training_on: Callable[..., Any], widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[-2]
    monkeypatch.setattr(rehearsal, "KINDS", (kind,))
    t = training_on(*made_up(1000, widths, kind), max_iter=20, tol=2e-3, clip=None)
    taken = t.fit()["bank"].public["n_iter"]
    assert 5 < taken < 20
    assert abs(rehearse(1000, widths, tol=2e-3)[0] - taken) <= 1


def test_what_is_known_before_a_fit_counts() -> None:
    usual, fine = rehearse(21_000, (13, 10))
    assert 13 <= usual <= 18 and 3 <= fine <= 5  # real files took 11 to 20
    assert rehearse(21_000, (13, 10), tol=5e-3)[0] < usual < rehearse(21_000, (13, 10), tol=5e-5, max_iter=60)[0]
    assert rehearse(21_000, (13, 10), C=1e-5)[0] < usual
    assert rehearse(21_000, (13, 10), max_iter=6) == (6, 3)
    assert rehearse(21_000, (13, 10), max_iter=9, tol=0.0, sigmoid="fine") == (9, 9)
    assert rehearse(21_000, (13, 10), max_iter=9, tol=0.0, sigmoid="coarse") == (9, 0)
