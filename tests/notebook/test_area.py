"""An area: one member's output, drawn into one display."""

from __future__ import annotations

import pytest

from fednb.federation import messages as m
from fednb.notebook import area as areas
from fednb.notebook.area import Area
from fednb.notebook.palette import looks

LOOK = looks(["bank"])["bank"]


@pytest.fixture
def area() -> Area:
    return Area("bank", LOOK)


def test_text_of_one_stream_grows_together_and_bars_overwrite(area: Area) -> None:
    for text in ("a\n", "10%\r", "20%\r", "30%\n"):
        area.write("stdout", text)
    assert area.bundle()["text/plain"] == "── bank (waiting) ──\na\n30%"
    assert area.bundle()["text/html"].count("<pre") == 1


def test_member_text_and_status_are_escaped(area: Area) -> None:
    area.write("stderr", "<script>alert(1)</script>")
    area.status = "<b>"
    markup = area.bundle()["text/html"]
    assert "<script" not in markup and "&lt;script&gt;" in markup
    assert "<b>" not in markup


def test_rich_output_is_cleaned_and_stands_in_its_place(area: Area) -> None:
    area.write("stdout", "before")
    area.show(m.Display("c", {"text/html": "<b onclick=x>bold</b><style>q</style>", "text/plain": "bold"}))
    area.write("stdout", "after")
    markup = area.bundle()["text/html"]
    assert markup.index("before") < markup.index("<b>bold</b>") < markup.index("after")
    assert "onclick" not in markup and "q</" not in markup


def test_an_update_replaces_what_was_shown_under_its_id(area: Area) -> None:
    area.show(m.Display("c", {"text/plain": "1 of 2"}, display_id="d"))
    area.show(m.Display("c", {"text/plain": "other"}))
    area.show(m.Display("c", {"text/plain": "2 of 2"}, display_id="d", update=True))
    area.show(m.Display("c", {"text/plain": "never seen"}, display_id="e", update=True))
    assert area.bundle()["text/plain"] == "── bank (waiting) ──\n2 of 2\nother"


def test_clear_output_clears_now_or_at_the_next_output(area: Area) -> None:
    area.write("stdout", "old")
    area.clear(wait=True)
    assert "old" in area.bundle()["text/plain"]
    area.write("stdout", "new")
    assert area.bundle()["text/plain"] == "── bank (waiting) ──\nnew"
    area.clear(wait=False)
    assert area.bundle()["text/plain"] == "── bank (waiting) ──"


def test_images_are_drawn_with_their_size(area: Area) -> None:
    png = "iVBORw0KGgo="
    area.show(m.Display("c", {"image/png": png}, {"image/png": {"width": 30, "height": 20.5}}))
    shown = f'<img alt="figure" src="data:image/png;base64,{png}" width="30" height="20.5">'
    assert shown in area.bundle()["text/html"]


def test_the_oldest_text_goes_first_in_whole_lines(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "MAX_CHARACTERS", 100)
    for number in range(50):
        area.write("stdout" if number % 7 else "stderr", f"line {number:03d}\n")
    plain = area.bundle()["text/plain"]
    assert "line 049" in plain and "line 000" not in plain
    assert sum(len(line) + 1 for line in plain.split("\n")[1:]) <= 101
    assert "earlier characters are not shown" in area.bundle()["text/html"]


def test_the_oldest_rich_output_goes_first(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "MAX_BUNDLES", 3)
    for number in range(5):
        area.show(m.Display("c", {"text/plain": f"shown {number}"}))
    assert area.bundle()["text/plain"] == "── bank (waiting) ──\nshown 2\nshown 3\nshown 4"
