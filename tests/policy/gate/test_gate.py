"""What the gate answers is what pandas says; what it declines, it declines with the rule and without a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fednb.config import ColumnConfig, TableConfig
from fednb.errors import DataError, Refused


def close(found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    np.testing.assert_allclose(np.asarray(found, dtype=float), np.asarray(expected, dtype=float), rtol=tolerance)


def test_figures_are_those_of_pandas(bank: Any, population: pd.DataFrame) -> None:
    loans, truth = bank.load(), population
    close(loans["income"].mean(), truth["income"].mean())
    close(loans["income"].std(), truth["income"].std())
    close(loans["income"].sum(), truth["income"].sum())
    close(loans["income"].quantile(0.25), truth["income"].quantile(0.25), 0.01)
    close(loans.groupby("sex")["income"].mean(), truth.groupby("sex")["income"].mean())
    close(
        loans[loans.age >= 40].groupby("education")["limit"].std(),
        truth[truth["age"] >= 40].groupby("education")["limit"].std(),
    )
    assert loans.groupby("sex").size().to_dict() == truth.groupby("sex").size().to_dict()
    assert loans["default"].value_counts().to_dict() == truth["default"].value_counts().to_dict()
    expected = pd.crosstab(truth["education"], truth["default"])
    assert loans.crosstab("education", "default").to_dict() == expected.to_dict()
    close(loans.corr(["income", "limit", "bill"]), truth[["income", "limit", "bill"]].corr(), 0.01)
    assert loans.shape == (30_000, 10) and "note" not in loans.columns


def test_expressions_are_those_of_pandas(bank: Any, population: pd.DataFrame) -> None:
    loans, truth = bank.load(), population
    use = truth["bill"] / truth["limit"]
    close((loans.bill / loans.limit).mean(), use.mean())
    close((loans.bill / loans.limit).std(), use.std())
    close(np.log1p(loans.income).mean(), np.log1p(truth["income"]).mean())
    close((2 * loans.income - loans.bill + 1).mean(), (2 * truth["income"] - truth["bill"] + 1).mean())
    close((loans.income**2).mean(), (truth["income"] ** 2).mean())
    flag = loans.assign(bad=(loans.default == "yes") * 1.0)
    close(flag.groupby("sex")["bad"].mean(), (truth["default"] == "yes").groupby(truth["sex"]).mean())
    young = loans.assign(old=loans.age.cut([30, 50]))
    assert young.groupby("old").size().to_dict() == {
        "< 30": int((truth["age"] < 30).sum()),
        "[30, 50)": int(((truth["age"] >= 30) & (truth["age"] < 50)).sum()),
        ">= 50": int((truth["age"] >= 50).sum()),
    }


def test_regressions_are_those_of_scikit_learn(bank: Any, population: pd.DataFrame) -> None:
    from sklearn.linear_model import LinearRegression, LogisticRegression

    loans, truth = bank.load(), population
    fit = loans.ols("bill", ["limit", "sex"])
    X = np.column_stack([truth["limit"], truth["sex"] == "M"])
    expected = LinearRegression().fit(X, truth["bill"])
    close(fit["coef"], [expected.intercept_, *expected.coef_], 0.01)
    made = loans.assign(use=loans.bill / loans.limit, bad=(loans.default == "yes") * 1.0)
    fit = made.logit("bad", ["use", "sex"])
    X = np.column_stack([truth["bill"] / truth["limit"], truth["sex"] == "M"])
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(X, truth["default"] == "yes")
    close(fit["coef"], [*model.intercept_, *model.coef_[0]], 0.02)
    assert (fit["std err"] > 0).all()


def test_a_histogram_lies_on_fixed_cuts_and_sums_up(bank: Any, population: pd.DataFrame) -> None:
    loans = bank.load()
    table = loans["income"].histogram(bins=10)
    assert table["count"].sum() == len(population) and (table["count"] >= 10).all() and len(table) <= 11
    inside = (population["income"] >= table["low"][3]) & (population["income"] < table["high"][3])
    assert table["count"][3] == inside.sum()
    assert set(table["low"].dropna()) <= set(loans.columns_info.loc["income", "cuts"])


def test_small_groups_are_pooled_with_enough_others(bank: Any, population: pd.DataFrame) -> None:
    loans = bank.load()
    table = loans.groupby(["marital", "region", "education"])["income"].agg(["mean", "count"])
    sizes = loans.groupby(["marital", "region", "education"]).size()
    assert sizes.sum() == len(population) and (sizes >= 10).all()
    assert ("(pooled)", "(pooled)", "(pooled)") in table.index


@pytest.fixture
def gappy(make_bank: Any, population: pd.DataFrame) -> Any:
    frame = population.copy()
    frame.loc[frame.index % 7 == 0, "income"] = np.nan
    frame.loc[frame.index < 3, "bill"] = np.nan
    return make_bank(frame)


def test_missing_values_are_counted_filled_and_dropped(gappy: Any) -> None:
    loans = gappy.load()
    truth = gappy.tables["loans"][0]
    shares = loans.isna().mean()
    close(shares["income"], truth["income"].isna().mean())
    assert shares["limit"] == 0 and np.isnan(shares["bill"]), "three missing are too few to be told"
    close(loans["income"].mean(), truth["income"].mean())
    close(loans.fillna({"income": 0})["income"].mean(), truth["income"].fillna(0).mean())
    close(loans["bill"].mean(), truth["bill"].mean())
    assert len(loans.dropna("income")) == truth["income"].notna().sum()
    with pytest.raises(Refused, match="rule size"):
        len(loans.dropna("bill"))


def test_a_join_inside_the_party(make_bank: Any, population: pd.DataFrame) -> None:
    bank = make_bank()
    other = population[["person", "region"]].assign(score=np.arange(len(population)) % 1000 / 10.0)[::2]
    roles = {"region": ColumnConfig("hidden")}
    bank.tables["scores"] = (other, TableConfig("scores", id=("person",), roles=roles))
    joined = bank.load().merge(bank.load("scores"), on="person")
    expected = population[::2].assign(score=other["score"])
    assert len(joined) == len(expected)
    close(joined.groupby("sex")["score"].mean(), expected.groupby("sex")["score"].mean())
    left = bank.load().merge(bank.load("scores"), on="person", how="left")
    close(left["score"].mean(), other["score"].mean())
    with pytest.raises(Refused, match="joined on id and key columns"):
        bank.load().merge(bank.load("scores"), on=["income"] if False else ["limit"])["score"].mean()


def test_derived_columns_stay_and_are_what_pandas_makes(bank: Any, population: pd.DataFrame) -> None:
    loans = bank.load()
    features = loans.assign(
        rich=(loans.income > 50_000) * 1.0,
        use=(loans.bill / loans.limit).clip(0, 0.5),
        size=loans.income.where(loans.income < 40_000, 40_000.0),
    ).get_dummies("education")
    kept = bank.save("features", features)
    assert kept["rich"].tolist() == (population["income"] > 50_000).astype(float).tolist()
    assert kept["size"].tolist() == population["income"].clip(upper=40_000).tolist()
    assert kept["use"].tolist() == (population["bill"] / population["limit"]).clip(0, 0.5).tolist()
    assert kept["education_graduate"].sum() == (population["education"] == "graduate").sum()
    assert kept["person"].tolist() == population["person"].tolist()
    again = bank.load("features")
    close(again["limit"].mean(), population["limit"].mean())
    with pytest.raises(Refused, match="rule column"):
        again["rich"].mean()
    with pytest.raises(Refused, match="filter"):
        again[again.rich == 1.0]["limit"].mean()


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda t: t["person"].mean(), ["'person'", "id"]),
        (lambda t: t["sex"].mean(), ["category", "value_counts"]),
        (lambda t: t[t.age >= 31]["income"].mean(), ["'age' may be divided at 25, 30"]),
        (lambda t: t[t.age > 30]["income"].mean(), ["< and >="]),
        (lambda t: t[t.income >= 50_000]["bill"].mean(), ["filter", "key columns"]),
        (lambda t: t[t.region == "R99"]["bill"].mean(), ["levels R0", "rarer ones cannot be named"]),
        (lambda t: t.groupby("income")["bill"].mean(), ["groups by 'income'", "key"]),
        (lambda t: (1 / (t.income - 5)).mean(), ["only a column can be the divisor"]),
        (lambda t: np.exp(t.income).mean(), ["exponential"]),
        (lambda t: (t.income**3).mean(), ["powers 2, 0.5 and -1"]),
        (lambda t: (t.income * t.bill * t.limit).mean(), ["more than two columns"]),
        (lambda t: t["income"].quantile(1.0), ["q must lie between 0 and 1"]),
        (lambda t: t.ols("income", ["nope"]), ["no column 'nope'"]),
        (lambda t: t["note"].mean(), ["no column 'note'"]),
        (lambda t: t["income"].max(), ["rows stay there", "Allowed are aggregates"]),
    ],
)
def test_a_refusal_names_rule_and_column_and_what_is_allowed(bank: Any, ask: Any, words: list[str]) -> None:
    with pytest.raises((Refused, DataError)) as caught:
        ask(bank.load())
    for each in words:
        assert each in str(caught.value), str(caught.value)


def test_budgets_are_for_all_analysts_and_survive(make_bank: Any, tmp_path: Any) -> None:
    bank = make_bank(folder=tmp_path, releases=2)
    bank.load()["income"].mean()
    bank.analyst = "bob"
    bank.load()["bill"].mean()
    with pytest.raises(Refused, match="2 answers in the last 24 hours"):
        bank.load()["limit"].mean()
    bank.ledger.close()
    again = make_bank(folder=tmp_path, releases=2)
    with pytest.raises(Refused, match="budget for all analysts"):
        again.load()["limit"].mean()


def test_refusals_that_depend_on_values_are_counted_too(make_bank: Any, population: pd.DataFrame) -> None:
    frame = population.assign(flat=np.where(population.index == 777, 1.0, 0.0))
    bank = make_bank(frame, refusals=5)
    for _ in range(5):
        with pytest.raises(Refused, match="rule contributors"):
            bank.load()["flat"].mean()
    with pytest.raises(Refused, match="5 refusals that depend on values"):
        bank.load()["income"].mean()


def test_one_row_with_most_of_a_sum_is_not_told(make_bank: Any, population: pd.DataFrame) -> None:
    bank = make_bank(population.assign(income=np.where(population.index == 777, 1e12, population["income"])))
    loans = bank.load()
    with pytest.raises(Refused, match="rule dominance.*log1p"):
        loans["income"].sum()
    assert np.isfinite(np.log1p(loans.income).mean())


def test_undeclared_text_is_not_offered_and_numbers_are_measures(make_bank: Any, population: pd.DataFrame) -> None:
    bank = make_bank(table=TableConfig("loans", id=("person",)))
    info = bank.load().columns_info
    assert info["role"].to_dict() == {"person": "id"} | dict.fromkeys(["age", "limit", "income", "bill"], "measure")
    with pytest.raises(Refused, match="filter"):
        bank.load()[bank.load().age >= 30]["income"].mean()
