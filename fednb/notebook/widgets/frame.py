"""An aligned frame: which columns stand at which party. Its picture is that of its alignment."""

from __future__ import annotations

from fednb.federation.views import FrameView

HEAD = ("party", "features", "names", "label")


def caption(view: FrameView) -> str:
    """Rows, and which rows of the alignment they are."""
    part = f" ({view.part})" if view.part else ""
    return f"{view.rows:,} rows{part}, {sum(map(len, view.columns.values()))} features; no values left any party"


def rows(view: FrameView) -> list[list[str]]:
    """Cells under `HEAD`, one line a party."""
    return [
        [
            member,
            f"{len(columns):,}",
            ", ".join(columns),
            ", ".join(label.partition(".")[2] for label in view.labels if label.partition(".")[0] == member),
        ]
        for member, columns in view.columns.items()
    ]
