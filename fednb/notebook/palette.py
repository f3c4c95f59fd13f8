"""One look for each member, wherever it shows up in a notebook: cells, widgets and figures.

Fills are Okabe and Ito's colours (2008), which people with any common colour vision tell apart, darkened where they
would be too pale on white. Colour never says anything alone: every member has a mark and a line style of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Look(NamedTuple):
    """How a member is drawn."""

    fill: str  # shapes and lines: at least 3:1 against white and against a dark theme's background
    ink: str  # text on a light background: at least 4.5:1
    ink_dark: str  # text on a dark background: at least 4.5:1
    mark: str  # a character to stand before the name
    marker: str  # the same shape as a Matplotlib marker
    dash: str | tuple[int, tuple[int, ...]]  # Matplotlib line style
    hatch: str  # Matplotlib fill pattern


PARTIES = (
    Look("#0072b2", "#00639c", "#5cb6ec", "●", "o", "-", ""),  # blue
    Look("#c27a00", "#8f5a00", "#f0ad2e", "■", "s", "--", "////"),  # orange
    Look("#009e73", "#007353", "#2fc79a", "▲", "^", "-.", "...."),  # green
    Look("#b8578f", "#9a3f74", "#e29bc3", "◆", "D", ":", "xxxx"),  # purple
    Look("#d55e00", "#ab4b00", "#ff9a52", "▼", "v", (0, (6, 1, 1, 1, 1, 1)), "\\\\\\\\"),  # vermilion
    Look("#7d7a00", "#666400", "#cfcb3f", "★", "*", (0, (3, 1)), "++++"),  # olive
)
COORDINATOR = Look("#6b7280", "#4b5563", "#aab2bf", "○", "o", ":", "")  # grey and hollow: it holds no data


def looks(parties: Iterable[str], coordinator: str = "coordinator") -> Mapping[str, Look]:
    """The look of every member. Give all parties of the federation, so that each keeps its look in every figure.

    Parties take their looks in the order of their names; from the seventh on, looks repeat.
    """
    names = sorted(set(parties) - {coordinator})
    table = {name: PARTIES[position % len(PARTIES)] for position, name in enumerate(names)}
    return {**table, coordinator: COORDINATOR}
