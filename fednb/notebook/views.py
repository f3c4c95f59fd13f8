"""Objects of fednb that this notebook shows itself: their view becomes a widget, built here.

An object of fednb describes itself with a typed view under one MIME type (`federation/views.py`). No front end knows
that type, so the notebook's own kernel catches it on its way out, at the two doors: the formatter (a cell's value,
`display(object)`) and the publisher (a bundle that is published as it is).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from fednb.errors import FednbError
from fednb.federation.views import MIME

ShowView = Callable[..., None]  # (view), or (view, federation) where the object knows the federation it belongs to


def install(shell: InteractiveShell, show_view: ShowView) -> Callable[[], None]:
    """Show views as widgets from now on. Returns what undoes it."""
    formatter: Any = shell.display_formatter
    publisher: Any = shell.display_pub
    plain_format, plain_publish = formatter.format, publisher.publish

    def format(obj: Any, *args: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = plain_format(obj, *args, **options)
        # only our own objects are asked: anybody else's may answer to any name
        ours = MIME in data and shown(show_view, data, getattr(obj, "federation", None))
        return ({}, {}) if ours else (data, metadata)

    def publish(data: Any, *args: Any, **options: Any) -> None:
        if options.get("update") or not isinstance(data, Mapping) or not shown(show_view, data):
            plain_publish(data, *args, **options)

    # instance attributes shadow the methods; nothing of IPython's classes changes
    formatter.format, publisher.publish = format, publish

    def undo() -> None:
        del formatter.format, publisher.publish

    return undo


def shown(show_view: ShowView, data: Mapping[str, Any], federation: object = None) -> bool:
    """Show the bundle's view, if it has one that can be decoded; else its plain text is for others to show."""
    view = data.get(MIME)
    if not isinstance(view, Mapping):
        return False
    try:
        show_view(view) if federation is None else show_view(view, federation)
    except (FednbError, ValueError, TypeError):
        return False
    return True
