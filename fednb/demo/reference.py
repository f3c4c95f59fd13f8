"""What the demo compares with: a bank alone, and the joined table that in earnest nobody could have.

Only the demo's generator holds both tables. The references are trained as the federation trains: the same cleaning
as in the notebook's cells, the same rows, the same split, the same standardising and winsorising, scikit-learn's
LogisticRegression with the same C.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fednb.demo.data import generate
from fednb.models import Evaluation
from fednb.protocols.ids import prepare

SETTINGS = "demo.json"  # rows and seed, beside the notebook
RESULT = "result.json"

TEST_SIZE, RANDOM_STATE = 0.3, 0
CLIP = 4.0  # standard deviations, as VerticalLogisticRegression's default
AMOUNTS = {"bank": ["loan_amount", "company_age"], "agency": ["monthly_turnover"]}  # the cells take logarithms of these


def references(folder: str | Path = ".") -> dict[str, Evaluation]:
    """{"bank only": ..., "joined": ...} on the test rows of the demo in `folder`, each with its intervals."""
    settings = json.loads((Path(folder) / SETTINGS).read_text())
    tables = generate(settings["rows"], settings["seed"])
    loans = _by_id(tables.loans, AMOUNTS["bank"])
    invoices = _by_id(tables.invoices, AMOUNTS["agency"])
    common = sorted(set(loans.index) & set(invoices.index))  # bytes: the order of a VerticalFrame
    y = loans.loc[common, "default"].to_numpy()
    bank = loans.loc[common].drop(columns="default")
    joined = pd.concat([bank, invoices.loc[common]], axis=1)
    return {"bank only": _evaluate(bank, y, "bank only"), "joined": _evaluate(joined, y, "joined")}


def conclude(results: Mapping[str, Evaluation], folder: str | Path = ".") -> pd.DataFrame:
    """Show the results side by side, keep their figures in `folder`, and return them as a table."""
    from IPython.display import display

    from fednb.notebook.widgets.comparison import comparison, comparison_table

    display(comparison(results))  # type: ignore[no-untyped-call]
    figures = {name.replace(" ", "_"): {"auc": it.auc, "ks": it.ks} for name, it in results.items()}
    (Path(folder) / RESULT).write_text(json.dumps(figures))
    return comparison_table(results).round(4)


def _by_id(table: pd.DataFrame, amounts: list[str]) -> pd.DataFrame:
    """Cleaned as in the notebook's cells, and indexed by normalised id."""
    clean = table.fillna(table.median(numeric_only=True))
    clean[amounts] = np.log(clean[amounts])
    ids = prepare(clean["sme_id"].to_numpy(dtype=object))
    return clean.iloc[ids.rows].drop(columns="sme_id").set_axis(pd.Index(list(ids.ids), dtype=object))


def _evaluate(features: pd.DataFrame, y: npt.NDArray[Any], name: str) -> Evaluation:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    X = features.to_numpy(dtype=np.float64)
    train, test = train_test_split(np.arange(len(y)), test_size=TEST_SIZE, random_state=RANDOM_STATE)
    mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
    Z = np.clip((X - mean) / sd, -CLIP, CLIP)
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5_000).fit(Z[train], y[train])
    return Evaluation.of(y[test], model.predict_proba(Z[test])[:, 1], name=name)
