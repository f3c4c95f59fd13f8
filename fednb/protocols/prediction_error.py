"""How far predictions that stay at the active party are from its labels: amounts, counts and several classes.

    coordinator                        active (predictions of an earlier run, y)
        ── run "prediction_error" ────────> figures over all rows, ten or more

| role | learns |
|---|---|
| active | nothing new: predictions and labels are its own |
| coordinator, analyst | rows; for amounts and counts RMSE, MAE, R² and, for counts, the mean deviance; for classes accuracy and log loss |
"""  # noqa: E501

from __future__ import annotations

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset, Outcome, Params, Protocol, Role, RunContext
from fednb.wire.link import Link

MIN_ROWS = 10


class NoParams(Params):
    """It needs none."""


def active(link: Link, data: Dataset, params: NoParams, run: RunContext) -> Outcome:
    if "scores" not in data.part:
        raise DataError(f"{link.me} holds no predictions of that run; predict first.")
    p = np.asarray(data.part["scores"], dtype=np.float64)
    if data.y is None or len(data.y) != len(p):
        raise DataError(f"{link.me} brought no label to compare with.")
    if np.isnan(data.y).any():
        raise DataError(f"{link.me}'s label {data.label!r} is missing in {int(np.isnan(data.y).sum())} rows.")
    if len(p) < MIN_ROWS:
        raise DataError(f"{link.me} has {len(p)} predictions; figures need at least {MIN_ROWS}.")
    y = np.asarray(data.y, dtype=np.float64)
    figures = _classes(p, y, data) if p.ndim == 2 else _amounts(p, y, counts=data.part["objective"] == "count:poisson")
    return Outcome(public={"rows": len(y), "figures": figures})


def _classes(p: np.ndarray, y: np.ndarray, data: Dataset) -> dict[str, float]:
    classes = np.asarray(data.part["classes"], dtype=np.float64)
    place = np.searchsorted(classes, y)
    strange = int((classes[np.minimum(place, len(classes) - 1)] != y).sum())
    if strange:
        raise DataError(f"the label has classes in {strange} rows that the model was not trained on.")
    likelihood = np.clip(p[np.arange(len(y)), place], 1e-15, 1.0)
    return {"accuracy": float((p.argmax(axis=1) == place).mean()), "log_loss": float(-np.log(likelihood).mean())}


def _amounts(p: np.ndarray, y: np.ndarray, *, counts: bool) -> dict[str, float]:
    errors, spread = p - y, float(((y - y.mean()) ** 2).sum())
    figures = {
        "rmse": float(np.sqrt((errors**2).mean())),
        "mae": float(np.abs(errors).mean()),
        "r2": 1 - float((errors**2).sum()) / spread if spread else 0.0,
    }
    if counts:
        ratio = np.where(y > 0, y * np.log(np.where(y > 0, y, 1.0) / p), 0.0)
        figures["mean_poisson_deviance"] = float(2 * (ratio - y + p).mean())
    return figures


PROTOCOL = Protocol(
    name="prediction_error",
    version=1,
    params=NoParams,
    roles={"active": Role(active, needs=("y", "part"), figures=True)},
    learns={"active": "nothing new", "coordinator": "errors of the predictions over all rows"},
)
