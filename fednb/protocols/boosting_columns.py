"""One party's columns as boosting uses them: categories as numbers, values in bins, and what others hear of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset
from fednb.protocols.binned import ONEHOT, Binned
from fednb.protocols.boosting_categories import Coding
from fednb.protocols.boosting_params import BoostingParams
from fednb.protocols.noticed import unused, whole
from fednb.protocols.trees import Floats, Integers


class OwnColumns:
    """Checked and binned. DataError, naming the party and its columns, for what cannot be trained on."""

    def __init__(
        self,
        party: str,
        data: Dataset,
        params: BoostingParams,
        saved: Mapping[str, Any],
        numbering: Callable[[int], Integers],
    ) -> None:
        """`saved` is the state of a run that was cut off, or empty; `numbering` makes the order of n categories.

        A party without labels shows its categories under numbers; in the order of the alphabet these would say much.
        """
        if data.X is None or data.X.ndim != 2 or data.X.shape[1] != len(data.columns):
            raise DataError(f"{party} brought no table of features for its {len(data.columns)} columns.")
        self.names = tuple(data.columns)
        self.rows = len(data.X)
        self.trained = self.rows - params.validation
        if self.trained < 2 * params.min_leaf or (params.validation and params.validation < params.min_leaf):
            raise DataError(
                f"{party} has {max(self.trained, 0)} rows to train on and {params.validation} to validate with; a "
                f"split needs {params.min_leaf} on either side (min_leaf)."
            )
        self.earlier: Mapping[str, Any] | None = None  # the part to go on from
        if params.warm_start:
            if list(data.part.get("columns", ())) != list(self.names):
                raise DataError(f"{party} holds no trees on these columns to go on from. Fit without warm_start.")
            self.earlier = data.part
        self.coding, self.X = self._coded(party, data, params, saved, numbering)
        self.kinds = self.coding.numbers
        self.signs = self._signs(party, params)
        self.mixed = params.anonymous_splits and data.y is None
        if params.anonymous_splits and params.colsample_bytree < 1:
            raise DataError("anonymous_splits shows no features, so colsample_bytree cannot choose among them.")
        if self.mixed:
            if self.signs.any():
                raise DataError(f"anonymous_splits shows no features, so none of {party}'s can be constrained.")
            self.kinds = np.minimum(self.kinds, ONEHOT)
        training = self.X[: self.trained]
        levels = [kind in ("onehot", "partition") for kind in self.coding.kinds]
        self.notes = unused(party, training, self.names, levels, params.min_leaf)
        self._whole = whole(training, self.names)
        self.binned = Binned(party, self.X, self.names, self.trained, params.max_bin, self.kinds)

    def to_part(self) -> dict[str, Any]:
        """For the party's own store: what scoring needs to know of its columns."""
        return {"columns": list(self.names), "whole": self._whole, **self.coding.to_part()}

    def _coded(
        self,
        party: str,
        data: Dataset,
        params: BoostingParams,
        saved: Mapping[str, Any],
        numbering: Callable[[int], Integers],
    ) -> tuple[Coding, Floats]:
        if self.earlier is not None:
            coding = Coding.from_part(self.earlier)
            if "ordered" in coding.kinds:
                raise DataError(f"a warm start cannot have ordered target statistics, as {party}'s columns do.")
            coding.check(party, data)
            return coding, coding.codes(data)[0]
        if "levels" in saved:
            coding = Coding.from_part(saved)
            return coding, coding.codes(data)[0]
        asked, labels = params.categorical.get(party, {}), data.y is not None
        coding = Coding.fit(party, data, self.trained, asked, params.max_cat_to_onehot, labels=labels)
        coding = coding if labels else coding.renumbered(numbering)
        X, _ = coding.codes(data)
        if "ordered" in coding.kinds:
            if params.objective == "multi:softprob":
                raise DataError(f"{party}'s ordered target statistics need one target, not several classes.")
            y = np.asarray(data.y, dtype=np.float64)
            coding, X = coding.with_statistics(X, y, self.trained, np.random.default_rng(params.random_state))
        return coding, X

    def _signs(self, party: str, params: BoostingParams) -> Integers:
        """[d] monotone constraints: -1, 0 or 1."""
        asked = params.monotone_constraints.get(party, {})
        strange = [repr(name) for name in asked if name not in self.names]
        if strange:
            raise DataError(f"monotone constraints name {party}'s {', '.join(strange)}, which this frame lacks.")
        found = np.array([asked.get(name, 0) for name in self.names], dtype=np.int64)
        without = [repr(name) for name, sign, kind in zip(self.names, found, self.coding.kinds, strict=True)
                   if sign and kind != "number"]  # fmt: skip
        if without:
            raise DataError(f"categories have no direction: leave {party}'s {', '.join(without)} without a constraint.")
        return found
