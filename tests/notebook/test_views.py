"""A fednb view becomes a local widget, wherever it comes from; what cannot be decoded stays text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fednb.errors import UnexpectedMessage
from fednb.federation.views import MIME

VIEW = {"view": "training", "run": "r1", "title": "t"}
CELL = f"display({{'{MIME}': {VIEW!r}, 'text/plain': 'a run'}})"


@pytest.fixture
def shown(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """Views that the widgets were asked to show; one titled "broken" cannot be decoded."""
    seen: list[Mapping[str, Any]] = []

    def show(view: Mapping[str, Any], federation: Any, shell: Any, cell: Any) -> None:
        if view.get("title") == "broken":
            raise UnexpectedMessage("unknown view")
        assert federation is world.federation
        seen.append(view)

    monkeypatch.setattr("fednb.notebook.widgets.show", show, raising=False)
    return seen


class Thing:
    def __init__(self, title: str = "t") -> None:
        self.title = title

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {MIME: {**VIEW, "title": self.title}, "text/plain": "a thing"}


def test_a_view_from_a_member_is_shown_by_our_own_widgets(world: Any, shown: list[Any]) -> None:
    world.shell.run_cell_magic("coordinator", "", CELL)
    assert shown == [VIEW]
    assert world.published == []


def test_views_from_several_members_and_from_the_background_are_shown_too(world: Any, shown: list[Any]) -> None:
    world.party("bank,agency", CELL)
    world.shell.run_cell_magic("coordinator", "--noblock", CELL).result(20)
    assert shown == [VIEW] * 3


def test_a_view_that_cannot_be_decoded_is_its_text_and_never_markup(world: Any, shown: list[Any]) -> None:
    cell = CELL.replace("'title': 't'", "'title': 'broken'")
    world.shell.run_cell_magic("coordinator", "", cell)
    world.party("bank", f"display({{'{MIME}': '<script>', 'text/html': '<script>1</script>', 'text/plain': 'x'}})")
    assert shown == []
    assert [output["data"] for output in world.published] == [{"text/plain": "a run"}, {"text/plain": "x"}]


def test_a_local_object_with_a_view_is_shown_by_the_widgets(world: Any, shown: list[Any]) -> None:
    data, metadata = world.shell.display_formatter.format(Thing())
    assert (data, metadata) == ({}, {}) and shown == [VIEW]
    data, _ = world.shell.display_formatter.format(Thing("broken"))
    assert data["text/plain"] == "a thing"
    assert world.shell.display_formatter.format(5)[0] == {"text/plain": "5"}


def test_a_view_published_as_a_raw_bundle_is_shown_too(world: Any, shown: list[Any]) -> None:
    world.shell.display_pub.publish({MIME: VIEW, "text/plain": "a run"})
    world.shell.display_pub.publish({"text/plain": "other"})
    assert shown == [VIEW]
    assert [output["data"] for output in world.published] == [{"text/plain": "other"}]


def test_a_view_that_cannot_be_drawn_does_not_end_the_cell_for_the_others(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(view: Mapping[str, Any], federation: Any, shell: Any, cell: Any) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr("fednb.notebook.widgets.show", show, raising=False)
    world.party("bank,agency", f"stream('before '); {CELL}; stream('after')")
    for member in ("bank", "agency"):
        assert "before" in world.area(member)["text/plain"] and "after" in world.area(member)["text/plain"]
