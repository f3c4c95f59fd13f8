"""The steps of a selection within one party's own coefficients, beside refitting a model for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError
from fednb.protocols.base import Dataset, RunContext
from fednb.protocols.feature_choice import PROTOCOL, ChoiceParams, Direction, dropped
from fednb.wire.loopback import play

ROWS, OTHERS = 120, 2


def sample(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ROWS, 8)) + 0.8 * rng.normal(size=(ROWS, 1))
    return X, X @ rng.choice([0.0, 0.12, 0.3], 8) + rng.normal(size=ROWS)


def squares(X: np.ndarray, y: np.ndarray) -> float:
    return float(((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2).sum()) if X.shape[1] else float((y**2).sum())


def by_refitting(X: np.ndarray, y: np.ndarray, price: float, direction: Direction) -> list[int]:
    """Steps in all but the last OTHERS columns; every candidate is fitted."""
    d = X.shape[1] - OTHERS
    variance = squares(X, y) / ROWS
    kept = set() if direction == "forward" else set(range(d))

    def criterion(some: set[int]) -> float:
        return squares(X[:, [*sorted(some), *range(d, d + OTHERS)]], y) / variance + price * len(some)

    while True:
        others = [kept - {j} for j in kept if direction != "forward"]
        others += [kept | {j} for j in set(range(d)) - kept if direction != "backward"]
        best = min(others, key=criterion, default=kept)
        if criterion(best) >= criterion(kept) - 1e-9:
            return sorted(set(range(d)) - kept)
        kept = best


@pytest.mark.parametrize("direction", ["backward", "forward", "both"])
@pytest.mark.parametrize("seed", range(6))
def test_they_are_those_of_fitting_a_model_a_step(seed: int, direction: Direction) -> None:
    X, y = sample(seed)
    d = X.shape[1] - OTHERS
    coef = np.linalg.lstsq(X, y, rcond=None)[0]
    covariance = np.linalg.inv(X.T @ X) * squares(X, y) / ROWS
    for price in (0.5, 2.0, np.log(ROWS), 100.0):
        found = dropped(coef[:d], covariance[:d, :d], price, direction)
        assert sorted(found) == by_refitting(X, y, price, direction), (price, found)


def test_dear_coefficients_all_go_and_free_ones_all_stay() -> None:
    for direction in ("backward", "forward", "both"):
        assert sorted(dropped(np.array([1.0, -2.0]), np.eye(2), 9.0, direction)) == [0, 1]  # type: ignore[arg-type]
        assert dropped(np.array([1.0, -2.0]), np.eye(2), 0.0, direction) == []  # type: ignore[arg-type]
    assert dropped(np.empty(0), np.empty((0, 0)), 2.0, "backward") == []


def said(part: Mapping[str, Any], **params: Any) -> list[str]:
    def role(link: Any) -> Any:
        return PROTOCOL.roles["party"].play(link, Dataset(part=part), ChoiceParams(**params), RunContext())

    out = play({"bank": role}, {"party": ("bank",)})
    names: list[str] = out["bank"].public["dropped"]
    return names


def test_a_party_says_names_only_in_the_order_of_the_steps() -> None:
    part = {"coef": [0.9, 2.2, 0.0, 0.3], "columns": ["a", "b", "c", "d"], "covariance": np.eye(4), "rows": 200}
    assert said(part) == ["c", "d", "a"]
    assert said(part, by="bic") == ["c", "d", "a", "b"], "log 200 is more than 2.2 squared"
    assert said(part, by="zero") == ["c"]


@pytest.mark.parametrize(
    ("part", "message"),
    [({}, "holds no coefficients of this run"), ({"coef": [1.0], "columns": ["a"]}, "holds no covariance")],
)
def test_a_part_of_something_else_is_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        said(part)
