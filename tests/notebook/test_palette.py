"""Members look the same everywhere, and can be told apart and read by everybody."""

from __future__ import annotations

import itertools
import math

import pytest

from fednb.notebook.palette import COORDINATOR, PARTIES, Look, looks

LIGHT, DARK = "#ffffff", "#111111"  # JupyterLab's own backgrounds


def channels(colour: str) -> list[float]:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def luminance(colour: str) -> float:
    red, green, blue = channels(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    """Contrast ratio as WCAG 2.1 defines it."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def as_seen(colour: str, kind: str) -> list[float]:
    """Linear RGB as dichromats see it (Viénot, Brettel and Mollon 1999)."""
    r, g, b = channels(colour)
    matrix = {
        "protan": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
        "deutan": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
    }[kind]
    return [math.sqrt(max(0.0, row[0] * r + row[1] * g + row[2] * b)) for row in matrix]


@pytest.mark.parametrize("look", [*PARTIES, COORDINATOR], ids=lambda look: look.fill)
def test_every_look_can_be_read_on_light_and_dark(look: Look) -> None:
    assert contrast(look.fill, LIGHT) >= 3 and contrast(look.fill, DARK) >= 3
    assert contrast(look.ink, LIGHT) >= 4.5
    assert contrast(look.ink_dark, DARK) >= 4.5


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_the_first_three_parties_and_the_coordinator_differ_to_the_colour_blind(kind: str) -> None:
    for a, b in itertools.combinations([*PARTIES[:3], COORDINATOR], 2):
        assert math.dist(as_seen(a.fill, kind), as_seen(b.fill, kind)) > 0.1, (a.fill, b.fill)


def test_no_two_members_share_a_mark_or_a_line() -> None:
    assert len({look.mark for look in [*PARTIES, COORDINATOR]}) == len(PARTIES) + 1
    assert len({look.dash for look in PARTIES}) == len(PARTIES)


def test_a_party_keeps_its_look_whatever_the_order() -> None:
    assert looks(["bank", "agency"]) == looks(["agency", "bank", "coordinator"])
    assert looks(["bank", "agency"])["coordinator"] is COORDINATOR
    assert looks(["a", "b"], coordinator="b") == {"a": PARTIES[0], "b": COORDINATOR}


def test_more_parties_than_looks_is_no_error() -> None:
    assert len(looks(f"p{i}" for i in range(20))) == 21
