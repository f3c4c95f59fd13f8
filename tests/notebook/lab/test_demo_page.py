"""The demo's notebook in JupyterLab and in Notebook, from the first cell to the last, with the extension looking on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from fednb.demo import run as demo
from fednb.demo.reference import RESULT
from fednb.federation import launch

pytestmark = pytest.mark.slow
ROWS = 4000
MINUTES = 1000 * 60 * 3


@pytest.mark.timeout(600)
@pytest.mark.parametrize("front", ["lab", "classic"])
def test_the_demo_runs_in_the_page_and_the_sidebar_keeps_up(
    front: str, book: Any, jupyter: Any, screenshots: Path
) -> None:
    folder = jupyter.folder / front
    demo.prepare(folder, ROWS)
    path = folder / demo.NOTEBOOK
    content = json.loads(path.read_text())
    for cell in content["cells"]:  # the server's own default is another federation
        cell["source"] = [line.replace("%fed connect", "%fed connect federation.toml") for line in cell["source"]]
    path.write_text(json.dumps(content))
    with launch.up(folder / "federation.toml"):
        book.page.set_viewport_size({"width": 1280, "height": 900})
        book.open(getattr(jupyter, front)(f"{front}/{demo.NOTEBOOK}"))
        book.sidebar()
        book.page.get_by_role("menuitem", name="Run", exact=True).click()
        book.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        agency = book.section("members").locator("[data-member=agency]")
        expect(agency).to_contain_text("mode open")
        expect(agency).to_contain_text("mode protocol-only", timeout=MINUTES)  # it has locked itself
        training = book.section("runs").locator("li[data-status=running]", has_text="Regression")
        expect(training).to_contain_text(re.compile("train [1-9]"), timeout=MINUTES)
        fit = book.page.locator(".jp-CodeCell", has_text="VerticalLogisticRegression(max_iter").first
        fit.locator(".fednb-lab-strip").scroll_into_view_if_needed()
        expect(fit.locator(".fednb-lab-strip")).to_contain_text("running")
        expect(training).to_contain_text(re.compile("train ([6-9]|[1-9][0-9])"), timeout=MINUTES)
        book.page.screenshot(path=screenshots / f"demo-{front}.png")
        expect(book.section("runs").locator("li[data-status=running]")).to_have_count(0, timeout=MINUTES)
        expect(book.section("alignments")).to_contain_text("ids in common")
        end = folder / RESULT  # the last but one cell writes it
        book.idle(timeout=MINUTES)
        if front == "lab":  # beside it, another notebook of another federation: each has its own in the sidebar
            book.beside(jupyter.notebook("lab/another", "%fed connect"))
            book.done(0)
            expect(book.section("members").locator("[data-member=vault]")).to_be_visible()
            book.page.get_by_role("tab", name=demo.NOTEBOOK).click()
            expect(book.section("alignments")).to_contain_text("ids in common")
            expect(book.section("members").locator("[data-member=vault]")).to_have_count(0)
    figures = json.loads(end.read_text())
    assert figures["bank_only"]["auc"] < figures["federated"]["auc"]
