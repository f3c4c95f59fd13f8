"""Transformers of raw columns: each owner fits them on its own training rows, and shows nothing of what was fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models.preparation import Preparation, by_party, one


class VerticalImputer(Preparation):
    """Fill missing values, as scikit-learn's `SimpleImputer`.

    Parameters
    ----------
    strategy : "mean", "median", "most_frequent" or "constant", of the training rows.
    fill_value : for "constant": a number for columns of numbers, or a text for columns of text.
    add_indicator : also make "income_missing", 1 where a value was missing, of each column that ten training rows or
        more lack (and ten have).
    columns : ["party.column", ...]; None: all columns of numbers ("most_frequent": of text too).
    """

    def __init__(
        self,
        *,
        strategy: Literal["mean", "median", "most_frequent", "constant"] = "median",
        fill_value: float | str | None = None,
        add_indicator: bool = False,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.strategy = strategy
        self.fill_value = fill_value
        self.add_indicator = add_indicator
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        value = self.fill_value
        return {
            "step": "impute",
            "strategy": self.strategy,
            "value": value if value is None or isinstance(value, str) else float(value),
            "indicator": bool(self.add_indicator),
            "columns": by_party(self.columns, frame),
        }


class VerticalWinsorizer(Preparation):
    """Values beyond a limit become the limit. Missing ones stay missing.

    Parameters
    ----------
    limits : how `lower` and `upper` are meant: "quantile", shares of the training rows; "sd", standard deviations
        around their mean, such as -4 and 4; "value", the limits themselves, the same in all columns.
    lower, upper : None for no limit on that side.
    columns : ["party.column", ...]; None: all columns of numbers.
    """

    def __init__(
        self,
        *,
        limits: Literal["quantile", "sd", "value"] = "quantile",
        lower: float | None = 0.01,
        upper: float | None = 0.99,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.limits = limits
        self.lower = lower
        self.upper = upper
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        lower, upper = (None if limit is None else float(limit) for limit in (self.lower, self.upper))
        columns = by_party(self.columns, frame)
        return {"step": "winsorise", "by": self.limits, "lower": lower, "upper": upper, "columns": columns}


class VerticalScaler(Preparation):
    """(x - mean) / standard deviation of the training rows, as scikit-learn's `StandardScaler`.

    Missing values stay missing. A column with one value only is an error.

    Parameters
    ----------
    with_mean, with_std : whether to subtract the mean, and to divide by the standard deviation.
    columns : ["party.column", ...]; None: all columns of numbers.
    """

    def __init__(self, *, with_mean: bool = True, with_std: bool = True, columns: Sequence[str] | None = None) -> None:
        self.with_mean = with_mean
        self.with_std = with_std
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        return {
            "step": "standardise",
            "with_mean": bool(self.with_mean),
            "with_std": bool(self.with_std),
            "columns": by_party(self.columns, frame),
        }


class VerticalOneHotEncoder(Preparation):
    """A column of 0 and 1 for each category that ten training rows or more have, in place of a column of text.

    New columns are called "region_1", "region_2", ...: which category each is, its owner knows. Rarer categories share
    "region_other", missing values are "region_missing" (or, where they are rare, in "region_other").

    Parameters
    ----------
    unseen : a category that no training row has: "error" names column and number of rows; "other" counts it as
        "region_other", for which the smallest categories are merged if none is rare.
    min_rows : least training rows of a category with a column of its own; 10 or more.
    max_columns : of one column; more are an error. 2 to 1000.
    drop_first : leave out the first new column, for regressions without a penalty.
    categories : {"party.column": ["north", "south"]}: those that get a column, which is called after them. All members
        of the run see this.
    columns : ["party.column", ...]; None: all columns of text.
    """

    def __init__(
        self,
        *,
        unseen: Literal["error", "other"] = "error",
        min_rows: int = 10,
        max_columns: int = 50,
        drop_first: bool = False,
        categories: Mapping[str, Sequence[str]] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.unseen = unseen
        self.min_rows = min_rows
        self.max_columns = max_columns
        self.drop_first = drop_first
        self.categories = categories
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        named: dict[str, dict[str, list[str]]] = {}
        for name, values in (self.categories or {}).items():
            party, column = one(name, frame)
            named.setdefault(party, {})[column] = [str(value) for value in values]
        return {
            "step": "onehot",
            "unseen": self.unseen,
            "min_rows": int(self.min_rows),
            "most": int(self.max_columns),
            "drop_first": bool(self.drop_first),
            "named": named,
            "columns": by_party(self.columns, frame),
        }


class VerticalDateFeatures(Preparation):
    """Numbers in place of a date: "opened_age_days", "opened_month" and so on. A missing date makes them missing.

    Parameters
    ----------
    features : of "age_days" (days before `reference`; later dates are negative), "year", "quarter", "month", "day" of
        the month and "weekday" (0 is Monday).
    reference : for "age_days": a day, "2024-12-31", or a column of dates, "bank.applied", of whose party the dates are
        then; or a dict of party to either. A column used so becomes no feature.
    format : how dates in columns of text are written, as `strptime` has it: "%d/%m/%Y". None: ISO 8601.
    columns : ["party.column", ...]; None: all columns of dates. Columns of text are to be named.
    """

    def __init__(
        self,
        *,
        features: Sequence[Literal["age_days", "year", "quarter", "month", "day", "weekday"]] = ("age_days",),
        reference: str | Mapping[str, str] | None = None,
        format: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self.features = features
        self.reference = reference
        self.format = format
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        reference = self.reference or {}
        if isinstance(reference, str):
            party, _, column = reference.partition(".")
            reference = {party: column} if party in frame.columns else dict.fromkeys(frame.parties, reference)
        unknown = [party for party in reference if party not in frame.columns]
        if unknown:
            raise DataError(f"a reference was given for {', '.join(unknown)}, no party of this frame.")
        prefixed = {party: text.removeprefix(f"{party}.") for party, text in reference.items()}
        return {
            "step": "dates",
            "parts": list(self.features),
            "reference": prefixed,
            "format": self.format,
            "columns": by_party(self.columns, frame),
        }


class VerticalLog(Preparation):
    """sign(x) · log(1 + |x|), in place: for amounts, negative ones too.

    Parameters
    ----------
    columns : ["party.column", ...]; None: all columns of numbers.
    """

    def __init__(self, *, columns: Sequence[str] | None = None) -> None:
        self.columns = columns

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        return {"step": "log", "columns": by_party(self.columns, frame)}


class VerticalRatio(Preparation):
    """New columns, each one column divided by another of the same party: missing where that is 0 or missing.

    Parameters
    ----------
    ratios : {"bank.utilisation": ("bank.balance", "bank.limit")}.
    clip : (least, most) of the new columns; None: as they come out.
    drop : leave out the columns that ratios are made of.
    """

    def __init__(
        self,
        ratios: Mapping[str, tuple[str, str]],
        *,
        clip: tuple[float, float] | None = None,
        drop: bool = False,
    ) -> None:
        self.ratios = ratios
        self.clip = clip
        self.drop = drop

    def _rule(self, frame: VerticalFrame) -> dict[str, Any]:
        ratios: dict[str, dict[str, tuple[str, str]]] = {}
        for new, pair in self.ratios.items():
            if len(pair) != 2:
                raise DataError(f"a ratio is made of two columns, (above, below); {new!r} has {len(pair)}.")
            party, column = one(new, frame)
            (above_at, above), (below_at, below) = (one(name, frame) for name in pair)
            if not party == above_at == below_at:
                raise DataError(f"{new!r} is made of columns of {above_at} and {below_at}: a ratio lies at one party.")
            ratios.setdefault(party, {})[column] = above, below
        clip = None if self.clip is None else [float(limit) for limit in self.clip]
        return {"step": "ratio", "ratios": ratios, "clip": clip, "drop": bool(self.drop)}
