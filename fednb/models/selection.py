"""Which binned features are worth keeping, with a report of what was dropped and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError
from fednb.federation.frame import VerticalFrame
from fednb.models.binning import WoeBinning
from fednb.models.correlation import matrix, references

if TYPE_CHECKING:
    import pandas as pd


def select_features(
    binning: WoeBinning,
    frame: VerticalFrame,
    *,
    min_iv: float = 0.02,
    max_missing: float = 0.95,
    max_correlation: float | None = 0.8,
    max_vif: float | None = 10.0,
    newer: VerticalFrame | None = None,
    max_psi: float = 0.25,
) -> pd.DataFrame:
    """Have `binning.transform` leave features out, and say why: a line a feature, best first.

    Columns: party, feature, iv, missing (share of the rows of the fit), psi (on `newer`), correlation (the largest |r|
    with a feature, of any party, that was kept) and vif (among all features that came so far), both NaN for features
    that went for another reason before, kept, why.

    Parameters
    ----------
    binning : fitted; its `dropped_` is replaced.
    frame : the rows that correlations are taken on, the training rows as a rule; 100 or more.
    min_iv : least information value in nats (0.02 is a usual bound).
    max_missing : largest share of missing values. Fewer than ten missing rows count as none.
    max_correlation : of two features, of one party or of two, whose weights of evidence have a larger |r|, 0.3 to 1,
        the one with less information goes; None: correlations do not matter.
    max_vif : then, one after the other, the feature that follows most from the others goes, until no variance
        inflation factor is above this, more than 1; of equal ones that with less information. None: VIF does not
        matter.
    newer : rows of another time, 100 or more; features whose population stability index is above `max_psi` go.
    """
    import pandas as pd

    check_is_fitted(binning, "run_")
    for name, bound, least, most in (("max_correlation", max_correlation, 0.3, 1), ("max_vif", max_vif, 1, 1000)):
        if bound is not None and not (least <= bound <= most and bound > (name == "max_vif")):
            raise DataError(f"{name} is {'more than ' if name == 'max_vif' else ''}{least} to {most}, not {bound:g}.")
    lines: list[dict[Any, Any]] = binning.iv_.drop(columns="bins").to_dict("records")
    psi = None if newer is None else binning.stability(newer).set_index(["party", "feature"])["psi"]
    why: dict[str, str] = {}
    for line in lines:
        name = f"{line['party']}.{line['feature']}"
        line["missing"] = _missing(binning, name)
        line["psi"] = math.nan if psi is None else float(psi[line["party"], line["feature"]])
        if len(set(binning._bins[name].woe)) < 2:
            why[name] = "one bin only"
        elif line["iv"] < min_iv:
            why[name] = f"information value {line['iv']:.4f}, below {min_iv:g}"
        elif line["missing"] > max_missing:
            why[name] = f"{line['missing']:.0%} missing, above {max_missing:.0%}"
        elif line["psi"] > max_psi:
            why[name] = f"stability index {line['psi']:.2f}, above {max_psi:g}"
    best_first = [(str(line["party"]), str(line["feature"])) for line in lines]
    far = [column for column in best_first if ".".join(column) not in why]
    related = _related(binning, frame, far, max_correlation, max_vif, why)
    for line in lines:
        name = f"{line['party']}.{line['feature']}"
        line["correlation"], line["vif"] = related.get(name, (math.nan, math.nan))
        line["kept"], line["why"] = name not in why, why.get(name, "")
    binning.dropped_ = why
    return pd.DataFrame(lines)


def _missing(binning: WoeBinning, name: str) -> float:
    bins = binning._bins[name]
    rows = sum(rows for holds, rows in zip(bins.holds, bins.rows, strict=True) if holds == "missing")
    return rows / binning.n_rows_


def _related(
    binning: WoeBinning,
    frame: VerticalFrame,
    best_first: list[tuple[str, str]],
    max_correlation: float | None,
    max_vif: float | None,
    why: dict[str, str],
) -> dict[str, tuple[float, float]]:
    """Of the features that came so far: the largest |r| with one that was kept, and VIF. Adds to `why` what goes."""
    if len(best_first) < 2 or (max_correlation is None and max_vif is None):
        return {}
    refs = {
        party: msgspec.structs.replace(ref, columns=[column for p, column in best_first if p == party])
        for party, ref in references(frame, binning).items()
        if any(p == party for p, _ in best_first)
    }
    found = matrix(frame, refs, best_first=best_first, max_correlation=max_correlation, max_vif=max_vif)
    why |= {name: f"no weight to tell rows apart by in this frame: {said}" for name, said in found.left_out.items()}
    said = found.matrix
    names = [f"{party}.{column}" for party, column in said.columns]
    for drop in said.dropped:
        if drop.near >= 0:
            why[names[drop.column]] = f"correlation {drop.value:.2f} with {names[drop.near]}, which tells more"
        else:
            why[names[drop.column]] = f"variance inflation {drop.value:g}, above {max_vif:g}"
    kept = [k for k, name in enumerate(names) if name not in why]
    return {
        name: (
            max((abs(said.r[k][j]) for j in kept if j != k), default=math.nan),
            math.nan if said.vif[k] is None else float(said.vif[k] or 1.0),
        )
        for k, name in enumerate(names)
    }
