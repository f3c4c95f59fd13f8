"""Each step against scikit-learn or pandas on the same rows, and what it says of columns that it cannot use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from fednb.errors import DataError
from fednb.federation.columns import InMemory
from fednb.federation.records import TableRecords
from fednb.protocols.base import Dataset, RunContext
from fednb.protocols.preparation import FIT, PROTOCOL, FitParams, TableParams
from fednb.protocols.records import Column
from fednb.wire.loopback import play

ROWS = 200
HOT = {"step": "onehot", "columns": {"bank": ["region"]}}


def columns() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    amount = np.exp(rng.normal(6, 2, ROWS)) * rng.choice([-1.0, 1.0], ROWS)
    gaps = rng.normal(size=ROWS)
    gaps[::8] = np.nan
    region = np.array(rng.choice(["north", "south", "east"], ROWS, p=[0.5, 0.3, 0.2]), dtype=object)
    region[:4] = ["isle", "isle", "cape", "cape"]
    region[4:20] = None
    opened = pd.Timestamp("2019-12-30") + pd.to_timedelta(rng.integers(0, 900, ROWS), unit="D")
    return pd.DataFrame(
        {
            "amount": amount,
            "gaps": gaps,
            "few": np.where(np.arange(ROWS) < 3, np.nan, rng.normal(size=ROWS)),
            "limit": rng.integers(0, 4, ROWS),
            "region": region,
            "opened": opened,
            "written": opened.strftime("%d.%m.%Y").astype(object),
            "label": rng.integers(0, 2, ROWS),
        }
    )


def records(frame: pd.DataFrame, *names: str) -> TableRecords:
    return TableRecords(InMemory(frame), names or list(frame.columns), None, frame.columns)


def play_alone(role: Any, data: Dataset, params: Any, protocol: Any) -> Any:
    def party(link: Any) -> Any:
        return role.play(link, data, params, RunContext())

    def coordinator(link: Any) -> Any:
        return protocol.roles["coordinator"].play(link, Dataset(), params, RunContext())

    return play({"bank": party, "c": coordinator}, {"party": ("bank",), "coordinator": ("c",)})["bank"]


def prepared(
    *steps: Mapping[str, Any], train: pd.DataFrame | None = None, test: pd.DataFrame | None = None, label: str = "label"
) -> tuple[pd.DataFrame, pd.DataFrame, Any]:
    """The tables that come of training rows and of others, and what is told in public of both."""
    train = columns() if train is None else train
    test = train if test is None else test
    params = msgspec.convert({"steps": list(steps), "name": "made"}, FitParams)
    fitted = play_alone(FIT.roles["party"], Dataset(records=records(train), label=label), params, FIT)
    part = msgspec.msgpack.decode(msgspec.msgpack.encode(fitted.private))  # as a store gives it back
    later = TableParams(name="later", last=len(steps) - 1)
    data = Dataset(records=records(test), label=label, part=part)
    applied = play_alone(PROTOCOL.roles["party"], data, later, PROTOCOL)
    assert fitted.public["columns"][-1] == applied.public["columns"][0]
    return pd.DataFrame(fitted.table[1]), pd.DataFrame(applied.table[1]), (fitted.public, applied.public)


def halves() -> tuple[pd.DataFrame, pd.DataFrame]:
    both = columns()
    return both.iloc[:150].reset_index(drop=True), both.iloc[150:].reset_index(drop=True)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_values_are_filled_as_scikit_learn_fills_them(strategy: str) -> None:
    train, test = halves()
    train["gaps"], test["gaps"] = train["gaps"].round(1), test["gaps"].round(1)
    names = ["gaps", "few"]
    step = {"step": "impute", "strategy": strategy, "value": -7.0, "columns": {"bank": names}}
    made, later, _ = prepared(step, train=train, test=test)
    reference = SimpleImputer(strategy=strategy, fill_value=-7.0).fit(train[names])
    np.testing.assert_allclose(made[names], reference.transform(train[names]))
    np.testing.assert_allclose(later[names], reference.transform(test[names]))
    assert later["region"].isna().sum() == test["region"].isna().sum(), "others are left as they are"


def test_an_indicator_is_made_where_ten_rows_stand_behind_each_side() -> None:
    made, later, (said, _) = prepared({"step": "impute", "indicator": True, "columns": {"bank": ["gaps", "few"]}})
    assert "few_missing" not in made and made["gaps_missing"].tolist() == columns()["gaps"].isna().tolist()
    assert later.equals(made)
    assert said["notes"] == [
        "bank's 'few' has no indicator: it would single out fewer than 10 training rows.",
        "bank's 'few' is missing in fewer than 10 rows, and has no indicator: too few training rows lacked it.",
    ]


def test_text_is_filled_with_what_most_rows_have() -> None:
    made, _, _ = prepared({"step": "impute", "strategy": "most_frequent", "columns": {"bank": ["region"]}})
    assert made["region"].tolist() == columns()["region"].fillna("north").tolist()


def test_columns_are_put_on_one_scale_as_scikit_learn_does() -> None:
    train, test = halves()
    names = ["amount", "gaps", "few", "limit"]
    made, later, _ = prepared({"step": "standardise"}, train=train, test=test)
    reference = StandardScaler().fit(train[names])
    np.testing.assert_allclose(made[names], reference.transform(train[names]))
    np.testing.assert_allclose(later[names], reference.transform(test[names]))
    assert later["label"].tolist() == test["label"].tolist(), "a label that the owner declared is no feature"


@pytest.mark.parametrize("by", ["quantile", "sd", "value"])
def test_tails_are_cut_at_limits_of_the_training_rows(by: str) -> None:
    train, test = halves()
    x = train["amount"]
    lower, upper = {"quantile": (0.05, 0.9), "sd": (-1.0, 2.0), "value": (-100.0, 50.0)}[by]
    low, high = {
        "quantile": (x.quantile(0.05), x.quantile(0.9)),
        "sd": (x.mean() - x.std(ddof=0), x.mean() + 2 * x.std(ddof=0)),
        "value": (-100.0, 50.0),
    }[by]
    step = {"step": "winsorise", "by": by, "lower": lower, "upper": upper, "columns": {"bank": ["amount"]}}
    made, later, _ = prepared(step, train=train, test=test)
    np.testing.assert_allclose(made["amount"], x.clip(low, high))
    np.testing.assert_allclose(later["amount"], test["amount"].clip(low, high))


def test_logarithms_keep_signs() -> None:
    made, _, _ = prepared({"step": "log", "columns": {"bank": ["amount"]}})
    np.testing.assert_allclose(np.sign(made["amount"]) * np.expm1(made["amount"].abs()), columns()["amount"])


def test_a_ratio_is_missing_where_it_would_be_infinite() -> None:
    step = {"step": "ratio", "ratios": {"bank": {"use": ("amount", "limit")}}, "clip": (-5.0, 5.0), "drop": True}
    made, _, (said, _) = prepared(step)
    x = columns()
    expected = (x["amount"] / x["limit"].replace(0, np.nan)).clip(-5, 5)
    np.testing.assert_allclose(made["use"], expected)
    assert not {"amount", "limit"} & set(made)
    zeros = int((x["limit"] == 0).sum())
    assert zeros >= 10 and said["notes"] == [f"bank's 'use' is missing in {zeros} rows where 'limit' is 0."]


def test_dates_become_numbers_of_the_calendar() -> None:
    parts = ["age_days", "year", "quarter", "month", "day", "weekday"]
    rule = {"step": "dates", "parts": parts, "reference": {"bank": "2022-01-01"}}
    x = columns()
    x.loc[5, "opened"], x.loc[5, "written"] = pd.NaT, None
    made, _, _ = prepared(rule, {**rule, "format": "%d.%m.%Y", "columns": {"bank": ["written"]}}, train=x)
    for name in ("opened", "written"):
        assert name not in made
        for part in parts[1:]:
            expected = getattr(x["opened"].dt, {"weekday": "day_of_week"}.get(part, part))
            np.testing.assert_array_equal(made[f"{name}_{part}"], expected, part)
        np.testing.assert_array_equal(made[f"{name}_age_days"], (pd.Timestamp("2022-01-01") - x["opened"]).dt.days)


def test_an_age_can_be_counted_from_another_date_of_the_row() -> None:
    x = columns().assign(applied=lambda t: t["opened"] + pd.to_timedelta(np.arange(ROWS), unit="D"))
    made, _, _ = prepared({"step": "dates", "parts": ["age_days"], "reference": {"bank": "applied"}}, train=x)
    assert made["opened_age_days"].tolist() == list(range(ROWS)) and "applied" not in made


# ------------------------------------------------------------ categories


def test_each_category_of_ten_rows_has_a_column_and_rare_ones_share_one() -> None:
    made, later, (said, _) = prepared(HOT)
    region = columns()["region"]
    kept = sorted(["north", "south", "east"], key=str)
    smallest = min(kept, key=lambda value: int((region == value).sum()))  # the pool of 4 rows would single them out
    alone = [value for value in kept if value != smallest]
    for k, value in enumerate(alone, 1):
        assert made[f"region_{k}"].tolist() == (region == value).astype(float).tolist()
    assert made["region_missing"].tolist() == region.isna().astype(float).tolist()
    assert made["region_other"].tolist() == region.isin([smallest, "isle", "cape"]).astype(float).tolist()
    assert later.equals(made)
    new = [name for name in made if name.startswith("region_")]
    assert len(new) == 4 and made[new].sum().min() >= 10 and (made[new].sum(axis=1) == 1).all()
    assert not any(value in str(said) for value in (*kept, "isle", "cape")), "what is told names no category"


def test_categories_that_the_analyst_names_are_called_so() -> None:
    named = {"bank": {"region": ["south", "east", "nowhere"]}}
    made, _, (said, _) = prepared({**HOT, "named": named, "drop_first": True})
    assert [name for name in made if name.startswith("region_")] == ["region_east", "region_missing", "region_other"]
    assert any("'nowhere'" in note for note in said["notes"])


def test_a_category_that_no_training_row_has_is_counted_and_named_or_goes_with_the_others() -> None:
    test = columns()
    test.loc[30:44, "region"] = "moon"
    with pytest.raises(DataError, match=r"bank's 'region' has a category that no training row has in 15 rows of 200"):
        prepared(HOT, test=test)
    made, later, (_, said) = prepared({**HOT, "unseen": "other"}, test=test)
    assert later.loc[30:44, "region_other"].tolist() == [1.0] * 15 and said["notes"]
    clean = columns().assign(region=np.array(["a", "b", "c"])[np.arange(ROWS) % 3])
    lone = clean.copy()
    lone.loc[:3, "region"] = "moon"
    with pytest.raises(DataError, match="in fewer than 10 rows of 200"):
        prepared(HOT, train=clean, test=lone)
    made, later, _ = prepared({**HOT, "unseen": "other"}, train=clean, test=lone)
    assert made["region_other"].sum() >= 10, "what takes later categories is backed by training rows"
    assert later.loc[:3, "region_other"].tolist() == [1.0] * 4


def test_numbers_can_be_categories_too() -> None:
    made, _, _ = prepared({"step": "onehot", "columns": {"bank": ["limit"]}})
    assert made["limit_1"].tolist() == (columns()["limit"] == 0).astype(float).tolist()


# ------------------------------------------------------------ what cannot be


def broken(name: str, values: Any) -> pd.DataFrame:
    return columns().assign(**{name: values})


ENDLESS = np.where(np.arange(ROWS) < 12, np.inf, 1.0)
STREETS = [f"street {k}" for k in range(ROWS)]
BAD: dict[str, tuple[dict[str, Any], pd.DataFrame, str]] = {
    "all missing, filled": ({"step": "impute"}, broken("gaps", np.nan), "'gaps' has no value in any training row"),
    "all missing, scaled": ({"step": "standardise"}, broken("gaps", np.nan), "'gaps' has no value in any training row"),
    "constant": ({"step": "standardise"}, broken("gaps", 3.0), "'gaps' has the same value in all training rows"),
    "mostly one value": (
        {"step": "winsorise", "lower": 0.1, "upper": 0.9},
        broken("gaps", np.where(np.arange(ROWS) < 5, 1.0, 0.0)),
        "'gaps' has one value only between these limits",
    ),
    "infinite": ({"step": "log"}, broken("gaps", ENDLESS), "'gaps' has infinite values in 12 rows"),
    "mixed types": (
        {"step": "standardise", "columns": {"bank": ["gaps"]}},
        broken("gaps", pd.Series([1.5] * 180 + ["n/a"] * 20, dtype=object)),
        "'gaps' is text, and 20 rows of 200 hold no number",
    ),
    "a date as a number": ({"step": "log", "columns": {"bank": ["opened"]}}, columns(), "'opened' is a date"),
    "a number as a date": (
        {"step": "dates", "parts": ["year"], "columns": {"bank": ["amount"]}},
        columns(),
        "'amount' is a number, not a date",
    ),
    "dates written otherwise": (
        {"step": "dates", "parts": ["year"], "columns": {"bank": ["written"]}},
        columns(),
        "'written' is text, and 200 rows of 200 hold no date in that form",
    ),
    "ages without a reference": ({"step": "dates", "parts": ["age_days"]}, columns(), "need a reference"),
    "one category": (HOT, broken("region", "north"), "every training row has the same category"),
    "a name for each row": (HOT, broken("region", STREETS), "too few of its 200 categories"),
    "many categories": (
        {**HOT, "most": 5},
        broken("region", [f"r{k % 12}" for k in range(ROWS)]),
        "'region' has 12 categories of 10 training rows or more, and at most 5",
    ),
    "no such column": ({"step": "log", "columns": {"bank": ["nothing"]}}, columns(), "no column 'nothing'"),
    "the label": ({"step": "log", "columns": {"bank": ["label"]}}, columns(), "'label' is the label"),
    "the label in a ratio": (
        {"step": "ratio", "ratios": {"bank": {"x": ("label", "amount")}}}, columns(), "'label' is the label"
    ),
    "a name that is taken": (
        {"step": "ratio", "ratios": {"bank": {"few": ("gaps", "amount")}}}, columns(), "has a column 'few' already"
    ),
    "a constant of the wrong kind": (
        {"step": "impute", "strategy": "constant", "value": "x", "columns": {"bank": ["gaps"]}},
        columns(),
        "'gaps' is a number, and fill_value is not",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_prepared_is_named_and_explained(case: str) -> None:
    step, train, message = BAD[case]
    with pytest.raises(DataError, match=message) as caught:
        prepared(step, train=train)
    assert "bank" in str(caught.value)


def test_a_schema_that_changed_since_the_fit_is_named() -> None:
    step = {"step": "impute", "columns": {"bank": ["gaps"]}}
    with pytest.raises(DataError, match=r"bank's 'few', 'limit' .* are not in these rows"):
        prepared(step, test=columns().drop(columns=["few", "limit"]))
    with pytest.raises(DataError, match="'few' was a number and is text now"):
        prepared(step, test=columns().assign(few="many"))
    _, later, _ = prepared(step, test=columns().assign(few=None))
    assert later["few"].dtype == np.float64, "nothing but missing values has no kind of its own"


def test_nothing_of_a_party_is_shown_by_what_it_keeps() -> None:
    assert repr(Column("number", np.array([1234.5]))) == "<Column of 1 rows, number>"
    params = msgspec.convert({"steps": [{"step": "impute"}]}, FitParams)
    fitted = params.steps[0].fit
    from fednb.protocols.records import Table

    table = Table("bank", records(columns(), "gaps"), ())
    assert repr(fitted(table)) == "<Imputed>" and "1234" not in repr(table)
