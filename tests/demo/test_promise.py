"""When the demo says that it showed what it is there to show, and what it needs to begin."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from fednb.demo.data import generate
from fednb.demo.run import broken_promise, main
from fednb.errors import ConfigError
from fednb.protocols.ids import prepare


def figures(bank: float, federated: float, joined: float) -> dict[str, dict[str, float]]:
    return {"bank_only": {"auc": bank}, "federated": {"auc": federated}, "joined": {"auc": joined}}


def test_better_than_the_bank_and_close_to_the_joined_table_is_what_was_promised() -> None:
    assert broken_promise(figures(0.70, 0.80, 0.804)) == ""


@pytest.mark.parametrize(
    ("bank", "federated", "joined", "words"),
    [
        (0.70, 0.70, 0.70, "no better than the bank's own"),
        (0.70, 0.79, 0.80, "not within 0.005 of the joined one"),
        (0.70, 0.81, 0.80, "not within 0.005 of the joined one"),
    ],
)
def test_anything_else_is_said(bank: float, federated: float, joined: float, words: str) -> None:
    assert words in broken_promise(figures(bank, federated, joined))


def test_the_same_seed_gives_the_same_tables_and_another_one_others() -> None:
    first, again, other = generate(2000, 1), generate(2000, 1), generate(2000, 2)

    pd.testing.assert_frame_equal(first.loans, again.loans)
    pd.testing.assert_frame_equal(first.invoices, again.invoices)
    assert not first.loans.equals(other.loans)


def test_ids_match_only_once_they_are_normalised_and_gaps_are_there_to_be_filled() -> None:
    tables = generate(2000, 1)
    loans, invoices = tables.loans, tables.invoices

    assert len(set(loans.sme_id) & set(invoices.sme_id)) < 0.5 * 1500
    assert len(set(prepare(loans.sme_id).ids) & set(prepare(invoices.sme_id).ids)) == 1500
    assert loans.isna().any().sum() and invoices.isna().any().sum()
    assert loans.default.dropna().isin([0, 1]).all() and 0.05 < loans.default.mean() < 0.3


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2,000 rows"):
        generate(1999)


@pytest.mark.parametrize(("arguments", "module"), [([], "jupyterlab"), (["--headless"], "nbclient")])
def test_what_is_not_installed_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], module: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=f"the demo needs {module}: pip install"):
        main(arguments)

    assert list(tmp_path.iterdir()) == []
