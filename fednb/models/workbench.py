"""A binning as a notebook shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fednb.federation.views import BinnedFeature, BinningView, bundle

if TYPE_CHECKING:
    from fednb.federation.client import Federation
    from fednb.models.binning import WoeBinning


class Workbench:
    """What a notebook with fednb loaded turns into a widget that changes bins."""

    def __init__(self, binning: WoeBinning) -> None:
        self.binning = binning

    @property
    def federation(self) -> Federation | None:
        return self.binning.federation

    def __repr__(self) -> str:
        return self.binning.view().plain()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.binning.view(edit=True))


def view_of(binning: WoeBinning, *, edit: bool) -> BinningView:
    """Features of the most information first."""
    active = binning.label_.partition(".")[0]
    features = []
    for party, feature in zip(binning.iv_["party"], binning.iv_["feature"], strict=True):
        name = f"{party}.{feature}"
        bins = binning._bins[name]
        features.append(
            BinnedFeature(
                party=party,
                feature=feature,
                own=party == active,
                holds=bins.described(),
                cells=bins.cells or [1] * len(bins.rows),
                rows=bins.rows,
                positives=bins.positives,
                woe=[*bins.woe],
                iv=[*bins.iv],
                edges=[*bins.edges],
                dropped=binning.dropped_.get(name, ""),
            )
        )
    return BinningView(
        features=features,
        label=binning.label_,
        rows=binning.n_rows_,
        notes=binning.notes_,
        handle=binning.handle_,
        steps=len(binning._before),
        edit=edit,
    )
