"""Which binned features are worth keeping, with a report of what was dropped and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
from sklearn.utils.validation import check_is_fitted

from fednb.errors import DataError, UnexpectedMessage
from fednb.federation.frame import VerticalFrame
from fednb.models.binning import WoeBinning

if TYPE_CHECKING:
    import pandas as pd


class _Pairs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pairs: list[tuple[str, str, float]]


def select_features(
    binning: WoeBinning,
    frame: VerticalFrame,
    *,
    min_iv: float = 0.02,
    max_missing: float = 0.95,
    max_correlation: float = 0.8,
    newer: VerticalFrame | None = None,
    max_psi: float = 0.25,
) -> pd.DataFrame:
    """Have `binning.transform` leave features out, and say why: a line a feature, best first.

    Columns: party, feature, iv, missing (share of the rows of the fit), psi (on `newer`), correlation (the largest |r|
    with a feature of the same party that was kept), kept, why.

    Parameters
    ----------
    binning : fitted; its `dropped_` is replaced.
    frame : the rows that correlations are taken on, the training rows as a rule; 100 or more.
    min_iv : least information value in nats (0.02 is a usual bound).
    max_missing : largest share of missing values. Fewer than ten missing rows count as none.
    max_correlation : of two features of one party whose weights of evidence have a larger |r|, 0.3 to 1, the one with
        less information goes. Correlations across parties are not computed.
    newer : rows of another time, 100 or more; features whose population stability index is above `max_psi` go.
    """
    import pandas as pd

    check_is_fitted(binning, "run_")
    if not 0.3 <= max_correlation <= 1:
        raise DataError(f"max_correlation is 0.3 to 1, not {max_correlation:g}.")
    lines: list[dict[Any, Any]] = binning.iv_.drop(columns="bins").to_dict("records")
    psi = None if newer is None else binning.stability(newer).set_index(["party", "feature"])["psi"]
    related = _related(binning, frame, max_correlation)
    why: dict[str, str] = {}
    kept: list[str] = []
    for line in lines:
        name = f"{line['party']}.{line['feature']}"
        close = {other: r for other, r in related.get(name, {}).items() if other in kept}
        nearest = max(close.items(), key=lambda pair: abs(pair[1]))[0] if close else None
        line["missing"] = _missing(binning, name)
        line["psi"] = math.nan if psi is None else float(psi[line["party"], line["feature"]])
        line["correlation"] = abs(close[nearest]) if nearest else math.nan
        if len(set(binning._bins[name].woe)) < 2:
            why[name] = "one bin only"
        elif line["iv"] < min_iv:
            why[name] = f"information value {line['iv']:.4f}, below {min_iv:g}"
        elif line["missing"] > max_missing:
            why[name] = f"{line['missing']:.0%} missing, above {max_missing:.0%}"
        elif line["psi"] > max_psi:
            why[name] = f"stability index {line['psi']:.2f}, above {max_psi:g}"
        elif nearest:
            why[name] = f"correlation {close[nearest]:.2f} with {nearest.partition('.')[2]}, which tells more"
        else:
            kept.append(name)
        line["kept"], line["why"] = name in kept, why.get(name, "")
    binning.dropped_ = why
    return pd.DataFrame(lines)


def _missing(binning: WoeBinning, name: str) -> float:
    bins = binning._bins[name]
    rows = sum(rows for holds, rows in zip(bins.holds, bins.rows, strict=True) if holds == "missing")
    return rows / binning.n_rows_


def _related(binning: WoeBinning, frame: VerticalFrame, above: float) -> dict[str, dict[str, float]]:
    """Correlations above the bound, by feature, within each party."""
    binning._check_frame(frame)
    refs = {
        party: msgspec.structs.replace(ref, columns=[*binning.feature_names_in_[party]])
        for party, ref in binning._refs(frame).items()
        if len(binning.feature_names_in_.get(party, ())) > 1
    }
    if not refs:
        return {}
    result = frame.federation.run(
        "woe_correlation",
        cast={"party": list(refs)},
        data=refs,
        params={"above": float(above)},
        title=f"Correlations of {binning.n_features_in_} features",
    )
    related: dict[str, dict[str, float]] = {}
    for party in refs:
        for one, other, r in result.read(party, _Pairs).pairs:
            if not {one, other} <= set(binning.feature_names_in_[party]):
                raise UnexpectedMessage(
                    f"{party} released correlations of other features than were asked", member=party
                )
            related.setdefault(f"{party}.{one}", {})[f"{party}.{other}"] = r
            related.setdefault(f"{party}.{other}", {})[f"{party}.{one}"] = r
    return related
