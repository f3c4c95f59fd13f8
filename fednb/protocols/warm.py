"""Where training starts when it continues an earlier model: each party's own coefficients, on its new rows' figures.

Rows may be others than before, and with them the figures of `features`: they are always those of the rows trained on,
so that a fit ends at the same model wherever it starts. Coefficients are converted, and the shift of the active party's
centres goes into the intercept. That of the passive parties' centres stays with them; the first steps make up for it.
"""

from __future__ import annotations

import numpy as np

from fednb.errors import DataError
from fednb.protocols.base import Dataset
from fednb.protocols.features import Scaling
from fednb.protocols.rows import Floats


def coefficients(party: str, data: Dataset, scaling: Scaling) -> Floats:
    """[d + 1], the intercept last (0 at a passive party). DataError when `data.part` is no model of these columns."""
    part = data.part
    if "coef" not in part or "columns" not in part:
        raise DataError(f"{party} holds no coefficients of an earlier fit to start from. Fit without warm_start first.")
    before = [str(name) for name in part["columns"]]
    if before != list(data.columns):
        other = sorted(set(before) ^ set(data.columns))
        raise DataError(
            f"{party} was trained on other columns than it has now ({', '.join(other) or 'another order'}). "
            "A warm start needs the same features."
        )
    if data.label is not None and "intercept" not in part:
        raise DataError(f"{party} held no label in the earlier fit. A warm start needs the same active party.")
    old = Scaling.from_part(part)
    coef = np.asarray(part["coef"], dtype=np.float64)
    shift = float(np.sum(coef * (scaling.centre - old.centre) / old.scale))
    intercept = float(part["intercept"]) + shift if data.label is not None else 0.0
    return np.append(coef * scaling.scale / old.scale, intercept)
