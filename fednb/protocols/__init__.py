"""Protocols that every member of a federation has; an owner may install more by name in the federation file."""

from __future__ import annotations

from collections.abc import Mapping

from fednb.errors import DataError
from fednb.protocols import (
    bin_stability,
    boosting_score,
    calibrate,
    column_statistics,
    comparison,
    correlation,
    evaluation,
    feature_choice,
    fit_quality,
    model_part,
    one_vs_rest,
    online_score,
    own_logistic,
    parcelling,
    period_stability,
    preparation,
    prepared_psi,
    psi,
    psi_spu,
    recount,
    scorecard,
    scorecard_score,
    scores,
    segments,
    standard_errors,
    vertical_binning,
    vertical_boosting,
    vertical_linear,
    vertical_logistic,
    vertical_poisson,
    vertical_score,
    woe_table,
)
from fednb.protocols.base import Protocol

BUILT_IN: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        psi.PROTOCOL,
        prepared_psi.PREPARE,
        prepared_psi.PROTOCOL,
        psi_spu.PROTOCOL,
        vertical_binning.PROTOCOL,
        preparation.FIT,
        preparation.PROTOCOL,
        recount.PROTOCOL,
        recount.OWN,
        woe_table.PROTOCOL,
        column_statistics.PROTOCOL,
        bin_stability.PROTOCOL,
        period_stability.PROTOCOL,
        correlation.PROTOCOL,
        model_part.PROTOCOL,
        vertical_logistic.PROTOCOL,
        vertical_linear.PROTOCOL,
        vertical_poisson.PROTOCOL,
        vertical_score.PROTOCOL,
        standard_errors.PROTOCOL,
        feature_choice.PROTOCOL,
        vertical_boosting.PROTOCOL,
        boosting_score.PROTOCOL,
        evaluation.PROTOCOL,
        segments.PROTOCOL,
        own_logistic.PROTOCOL,
        own_logistic.SCORE,
        comparison.PROTOCOL,
        parcelling.BANDS,
        parcelling.PROTOCOL,
        comparison.STABILITY,
        one_vs_rest.CLASSES,
        one_vs_rest.PROTOCOL,
        fit_quality.PROTOCOL,
        scorecard.PROTOCOL,
        scorecard.OVERRIDE,
        scorecard_score.SCORE,
        scorecard_score.REASONS,
        calibrate.PROTOCOL,
        online_score.PROTOCOL,
        scores.SUMMARY,
        scores.TABLE,
    )
}


def lookup(name: str, installed: Mapping[str, Protocol] | None = None) -> Protocol:
    """The protocol called `name`: built in, or among `installed`. Raises DataError naming what there is."""
    known = {**(installed or {}), **BUILT_IN}
    if name not in known:
        raise DataError(f"there is no protocol {name!r} here; there are {', '.join(sorted(known))}.")
    return known[name]
