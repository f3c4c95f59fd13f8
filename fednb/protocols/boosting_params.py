"""Parameters of boosted trees, named as in XGBoost where XGBoost has them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fednb.protocols.base import Params
from fednb.protocols.boosting_categories import How
from fednb.protocols.objectives import Name

Share = Annotated[float, Meta(gt=0, le=1)]
Least = Annotated[float, Meta(ge=0)]


class BoostingParams(Params):
    """The same at all roles."""

    objective: Name = "binary:logistic"
    n_estimators: Annotated[int, Meta(ge=1, le=5000)] = 30
    max_depth: Annotated[int, Meta(ge=1, le=12)] = 3
    learning_rate: Annotated[float, Meta(gt=0)] = 0.3
    reg_lambda: Least = 1.0
    reg_alpha: Least = 0.0
    gamma: Least = 0.0
    min_child_weight: Least = 1.0
    max_delta_step: Least = 0.0
    subsample: Share = 1.0
    colsample_bytree: Share = 1.0
    sampling_method: Literal["uniform", "goss"] = "uniform"
    top_rate: Share = 0.2  # of "goss"
    other_rate: Share = 0.1
    max_bin: Annotated[int, Meta(ge=2, le=1024)] = 32
    scale_pos_weight: Annotated[float, Meta(gt=0)] = 1.0
    base_score: float | None = None  # None: from the labels
    monotone_constraints: dict[str, dict[str, Literal[-1, 0, 1]]] = {}  # party -> column -> direction
    categorical: dict[str, dict[str, How]] = {}  # party -> column -> what is made of its categories
    max_cat_to_onehot: Annotated[int, Meta(ge=1)] = 4  # text below so many levels is "onehot", other text "partition"
    early_stopping_rounds: Annotated[int, Meta(ge=1)] | None = None
    validation: Annotated[int, Meta(ge=0)] = 0  # the last rows, which are not trained on
    min_leaf: Annotated[int, Meta(ge=1)] = 10  # rows on either side of any split
    min_shown: Annotated[int, Meta(ge=0)] = 0  # rows that a node has, if passive parties see which they are
    purity: Annotated[float, Meta(gt=0.5, le=1)] = 1.0  # most of one class that a split's child may hold
    anonymous_splits: bool = False  # those of all of a passive party's features mixed
    active_trees: Annotated[int, Meta(ge=0)] = 0  # rounds that the active party does alone
    random_state: Annotated[int, Meta(ge=0)] = 0
    warm_start: bool = False  # go on from the trees of the run that each party's data names as its part
    key_bits: Annotated[int, Meta(ge=256, le=4096)] = 2048
    insecure_short_key: bool = False  # for tests: keys below 2048 bits
