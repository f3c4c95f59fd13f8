"""What a view looks like in this notebook: a picture that needs no kernel, and while a run goes on, a live widget.

A view comes as a typed struct or as the mapping that a member sent; it is decoded strictly, so that a member decides
on names and numbers but never on markup or script. What cannot be decoded raises, and the caller shows plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.getipython import get_ipython

from fednb.errors import NotConnected
from fednb.federation.views import (
    AlignmentView,
    AnyView,
    BinningView,
    ComparisonView,
    EnsembleView,
    EvaluationView,
    FrameView,
    ModelView,
    ProfileView,
    ScoresView,
    TrainingView,
    View,
    decode,
    encode,
)
from fednb.notebook.palette import Look, looks
from fednb.notebook.widgets import live

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fednb.federation.cells import CellEvent
    from fednb.federation.client import Federation


def show(
    view: Mapping[str, Any] | AnyView,
    federation: Federation | None = None,
    shell: InteractiveShell | None = None,
    *,
    cell: Callable[[str], Iterator[CellEvent]] | None = None,
) -> None:
    """Show a view under the running cell. Returns at once; a run goes on being drawn.

    federation : whose members keep their colours in every picture, and where a run's events come from.
    shell : whose cell it is; by default the running IPython.
    cell : runs code at the coordinator, for a workbench whose binning is there.

    Raises ValueError when it is not exactly a view of this version, NotConnected when a run cannot be followed.
    """
    known = decode(encode(view) if isinstance(view, View) else view)
    shell = shell or get_ipython()
    if isinstance(known, TrainingView):
        if federation is None or shell is None:
            raise NotConnected("a run can be followed only from a notebook that is connected to its federation.")
        live.follow(known, federation, _looks(known, federation), shell)
    elif shell is not None and isinstance(known, BinningView) and known.edit and hasattr(shell, "kernel"):
        from fednb.notebook.widgets.workbench import open_workbench

        styles = _looks(known, federation)
        open_workbench(known, federation, styles, shell, cell, lambda view: outputs(view, styles))
    elif shell is not None and getattr(shell, "kernel", None) is not None:
        for data, metadata in outputs(known, _looks(known, federation)):
            shell.display_pub.publish(data, metadata)
    else:
        print(known.plain())  # a terminal shows no pictures


def outputs(view: AnyView, styles: Mapping[str, Look]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """MIME bundles with their metadata: the picture, then the same figures as a table to unfold."""
    from fednb.notebook.widgets import (
        alignment,
        binning,
        comparison,
        ensemble,
        evaluation,
        frame,
        model,
        profile,
        scores,
    )
    from fednb.notebook.widgets.card import html_table, text_table

    card: Any = None
    tables: list[tuple[str, tuple[str, ...], list[list[str]]]] = []
    if isinstance(view, AlignmentView):
        card = alignment.picture(view, styles)
        tables.append(("What each party found in its ids", alignment.HEAD, alignment.rows(view)))
    elif isinstance(view, FrameView):
        if view.alignment is not None:
            card = alignment.picture(view.alignment, styles)
            tables.append(("What each party found in its ids", alignment.HEAD, alignment.rows(view.alignment)))
        tables.append((frame.caption(view), frame.HEAD, frame.rows(view)))
    elif isinstance(view, ModelView):
        card = model.picture(view, styles)
        tables.append(("All coefficients", model.HEAD, model.rows(view)))
    elif isinstance(view, EnsembleView):
        card = ensemble.picture(view, styles)
        tables.append(("All features that split", ensemble.HEAD, ensemble.rows(view)))
    elif isinstance(view, ComparisonView):
        card = comparison.picture(view) if view.results else None
        tables.append(("The figures as a table", comparison.HEAD, comparison.rows(view)))
    elif isinstance(view, BinningView):
        card = binning.picture(view, styles)
        tables.append(("All bins", binning.HEAD, binning.rows(view)))
    elif isinstance(view, EvaluationView):
        card = evaluation.picture(view, styles)
        tables.append(("The figures as a table", evaluation.HEAD, evaluation.rows(view)))
    elif isinstance(view, ScoresView):
        card = scores.picture(view, styles)
        tables.append((view.plain(), scores.HEAD, scores.rows(view)))
    elif isinstance(view, ProfileView):
        card = profile.picture(view, styles)
        tables.append(("All features", profile.HEAD, profile.rows(view)))
    made: list[tuple[dict[str, Any], dict[str, Any]]] = [card.bundle(view.plain())] if card is not None else []
    folded = card is not None
    tables = [table for table in tables if table[2]]
    if tables:
        # One output for all of them: a front end leaves a margin around each.
        text = "\n\n".join(f"{caption}\n{text_table(head, rows)}" for caption, head, rows in tables)
        made.append(
            ({"text/html": "".join(html_table(*table, folded=folded) for table in tables), "text/plain": text}, {})
        )
    return made or [({"text/plain": view.plain()}, {})]


def _looks(view: AnyView, federation: Federation | None) -> Mapping[str, Look]:
    if federation is not None:
        return looks(federation.parties, federation.coordinator)
    members: list[str] = []
    if isinstance(view, FrameView):
        members = list(view.columns)
    elif isinstance(view, AlignmentView | ModelView):
        members = [part.member for part in (view.parties if isinstance(view, AlignmentView) else view.parts)]
    elif isinstance(view, EnsembleView | ProfileView):
        members = list(view.members)
    elif isinstance(view, BinningView):
        members = [feature.party for feature in view.features]
    elif isinstance(view, EvaluationView | ScoresView) and view.member:
        members = [view.member]
    return looks(members)
