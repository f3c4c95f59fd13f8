"""An owner's rules on runs in words, as `fednb policy check` says them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fednb.config import OnlineConfig, PermitConfig, RulesConfig


def rules(found: RulesConfig) -> Iterator[str]:
    """Lines of text: what holds for every run, then what holds for single protocols instead."""
    yield f"Runs: {_names(found.allow, 'every protocol that there is here')}; {_general(found)}"
    yield f"  training: {_training(found)}"
    trees = "; ".join(_trees(found))
    if trees:
        yield f"  boosted trees: {trees}"
    yield f"  alignments: {_alignments(found)}"
    yield (
        f"  sets of rows of which figures leave differ by {found.rows_apart:,} rows or more, if at all, over all runs "
        "and analysts"
    )
    made = "cells or analysts' rules made"
    yield f"  figures of single columns: {'of' if found.cell_columns else 'not of'} tables that {made}"
    yield f"  standard errors of models with this party's features: {'yes' if found.standard_errors else 'no'}"
    yield f"  alignments by spu, for parties that keep to the protocol: {'yes' if found.psi_spu else 'no'}"
    yield f"  each analyst: at most {found.runs_a_day:,} runs and {found.alignments_a_day:,} alignments a day (UTC)"
    for name, own in found.of.items():
        yield f"  {name} instead: {'; '.join(_changed(found, own)) or 'the same'}"


def budgets(permit: PermitConfig) -> str:
    """What one analyst may use up, beyond the rules for all; "" for nothing of its own."""
    said = []
    if permit.runs_a_day is not None:
        said.append(f"{permit.runs_a_day:,} runs a day")
    if permit.decrypted is not None:
        said.append(f"{permit.decrypted:,} decrypted numbers in all")
    return " and ".join(said)


def online(permits: Mapping[str, OnlineConfig]) -> Iterator[str]:
    """Lines of text: whose services may score applicants one by one, and how often."""
    for who, permit in permits.items():
        models = _names(permit.models, "any model saved here")
        reasons = f" and {permit.reasons} reasons" if permit.reasons else ""
        yield (
            f"{who}'s online service may ask about {permit.requests_a_day:,} applicants a day (UTC), looked up in "
            f"{permit.table}, for {models}; it gets this party's part of each score{reasons}"
        )
    if not permits:
        yield "no other party's service may score applicants here one by one"


def _general(found: RulesConfig) -> str:
    return f"with {_names(found.partners, 'any party')}; on {found.min_rows:,} rows or more where figures come of them."


def _training(found: RulesConfig) -> str:
    return (
        f"{found.rows_per_feature:g} rows of a batch or more for each feature; at most {found.max_iterations:,} "
        f"iterations; {found.min_leaf:,} rows or more in a leaf; at most {found.decrypted_per_row:g} decrypted numbers "
        "a row of one label set, for each member"
    )


def _trees(found: RulesConfig) -> Iterator[str]:
    """What of them is not as usual."""
    if found.min_shown:
        yield f"others see which rows are in a node from {found.min_shown:,} rows on"
    if found.active_trees:
        yield f"the label's party does the first {found.active_trees:,} rounds alone"
    if found.max_purity < 1:
        yield f"no split leaves more than {found.max_purity:.0%} of one class on a side"
    if found.anonymous_splits:
        yield "splits are shown without their features"


def _alignments(found: RulesConfig) -> str:
    by = "by declared ids and other columns" if found.other_ids else "by declared ids only"
    return f"of {found.min_ids:,} to {found.max_ids:,} ids on each side, {by}"


def _changed(general: RulesConfig, own: RulesConfig) -> Iterator[str]:
    for name in RulesConfig.__struct_fields__:
        if name not in ("of", "allow") and getattr(own, name) != getattr(general, name):
            value = getattr(own, name)
            yield f"{name} = {_names(value, 'all') if isinstance(value, tuple) else value}"


def _names(found: Iterable[str], everything: str) -> str:
    names = list(found)
    return everything if "*" in names else ", ".join(names) or "none"
