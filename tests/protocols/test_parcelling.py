"""Bands of scores, and labels that are drawn in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fednb.errors import DataError
from fednb.protocols import parcelling as p
from fednb.protocols.base import Dataset, Outcome, RunContext
from fednb.wire.loopback import play


def accepted(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    scores = rng.beta(2, 6, n)
    return (rng.random(n) < scores).astype(float), scores


def test_bands_have_ten_rows_of_either_class_and_hold_all_rows() -> None:
    y, scores = accepted()
    ends, found = p.bands_of(y, scores, 10)
    assert len(found) == len(ends) + 1 == 10 and (np.diff(ends) > 0).all()
    edges = [-np.inf, *ends, np.inf]
    for band, low, high in zip(found, edges[:-1], edges[1:], strict=True):
        inside = (scores > low) & (scores <= high)
        assert (band.rows, band.bad) == (inside.sum(), y[inside].sum())
    few_bad = np.where(scores < np.quantile(scores, 0.55), 0.0, y)
    _, merged = p.bands_of(few_bad, scores, 10)
    assert len(merged) < 10 and min(min(b.bad, b.rows - b.bad) for b in merged) >= 10
    assert sum(b.rows for b in merged) == 2000 and sum(b.bad for b in merged) == few_bad.sum()
    _, one_end = p.bands_of(np.where(scores > np.quantile(scores, 0.55), 1.0, y), scores, 10)
    assert sum(b.rows for b in one_end) == 2000, "what is left over at the upper end joins the last band"
    with pytest.raises(DataError, match="no 10 accepted rows of each class"):
        p.bands_of(np.r_[np.ones(9), np.zeros(50)], np.linspace(0, 1, 59), 5)


def test_labels_are_drawn_at_the_rate_of_the_band_times_the_factor() -> None:
    scores = np.random.default_rng(1).uniform(size=3000)
    ends, rates = np.array([0.3, 0.6]), np.array([0.1, 0.2, 0.7])
    label = p.drawn(scores, ends, rates, 1.5, np.random.default_rng(0))
    for low, high, rate in ((-1, 0.3, 0.15), (0.3, 0.6, 0.3), (0.6, 2, 1.0)):
        inside = (scores > low) & (scores <= high)
        assert label[inside].mean() == pytest.approx(rate, abs=1 / inside.sum())
    order = np.argsort(scores)
    assert abs(np.corrcoef(order[label[order] == 1][:100], np.arange(100))[0, 1]) < 0.4, "which of them is chance"
    small = [p.drawn(np.array([0.1]), ends, rates, 1.0, np.random.default_rng(s)).sum() for s in range(400)]
    assert np.mean(small) == pytest.approx(0.1, abs=0.05), "right on average even for one row"


def played(protocol: Any, data: Dataset, **params: Any) -> Outcome:
    role = protocol.roles["active"].play
    outs: Mapping[str, Outcome] = play(
        {"bank": lambda link: role(link, data, protocol.params(**params), RunContext())}, {"active": ("bank",)}
    )
    return outs["bank"]


def test_the_owner_gets_a_table_and_the_analyst_rates() -> None:
    y, scores = accepted()
    made = played(p.BANDS, Dataset(y=y, label="bad", part={"scores": scores}), bands=5)
    assert set(made.public) == {"bands"} and len(made.public["bands"]) == 5, "no edge: it is some row's score"
    rejected = np.random.default_rng(3).beta(3, 4, 500)
    parts = (made.private, {"scores": rejected})
    out, again, other = (
        played(p.PROTOCOL, Dataset(parts=parts), name="t", column="bad", factor=1.2, seed=s) for s in (7, 7, 8)
    )
    assert out.table is not None and again.table is not None and other.table is not None
    name, columns = out.table
    assert name == "t" and set(columns) == {"bad"} and set(columns["bad"]) == {0.0, 1.0}
    assert (columns["bad"] == again.table[1]["bad"]).all() and (columns["bad"] != other.table[1]["bad"]).any()
    assert out.public == {"rows": 500, "share": round(columns["bad"].mean(), 2), "table": "t"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (({}, {"scores": np.ones(50)}), "no bands and scores"),
        (({"ends": [], "rates": [0.1], "protocol": "other"}, {"scores": np.ones(50)}), "no bands of that run"),
        (({"ends": [], "rates": [0.1]}, {"scores": np.ones(9)}), "has 9 rejected rows"),
    ],
)
def test_what_cannot_be_drawn_is_refused(parts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        played(p.PROTOCOL, Dataset(parts=parts), name="t", column="bad")
