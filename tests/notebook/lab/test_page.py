"""The extension in JupyterLab and Notebook, as a person sees it: real members, real kernels, a real browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow

ALIGN = "%%coordinator\nframe = fed.align({'bank': 'loans', 'agency': 'invoices'}, on='sme_id')\nframe"
GATED = "run = fed.run('gated', cast={'member': ['bank', 'agency']}, title='A run in steps')"
HANG = "import time\nwhile True: time.sleep(0.05)"


@pytest.mark.parametrize("front", ["lab", "classic"])
def test_cells_say_where_they_run_and_the_sidebar_who_is_there(
    front: str, book: Any, jupyter: Any, screenshots: Path
) -> None:
    path = jupyter.notebook(
        f"tour-{front}", "%fed connect", "%%party bank,agency\nfed.tables()", ALIGN, "%%party vault\n1"
    )
    book.open(getattr(jupyter, front)(path))
    expect(book.strip(1)).to_contain_text("bank")
    expect(book.sidebar()).to_contain_text("Not connected")
    book.done(0)
    members = book.section("members")
    expect(members.locator("[data-member=bank]")).to_contain_text("mode open")
    expect(members.locator("[data-member=vault]")).to_contain_text("mode protocol-only")
    expect(members.locator("[data-member=coordinator] [data-up=true]")).to_have_text("up")
    tables = book.section("tables")
    tables.get_by_text("loans").click()
    expect(tables.locator("tr", has_text="default")).to_have_text(re.compile("default.*label"))

    book.done(1)
    expect(book.strip(1)).to_contain_text("done in")
    book.done(2)
    expect(book.strip(2)).to_contain_text("done in")
    book.run(3)
    expect(book.strip(3)).to_contain_text("refused by vault")
    expect(book.section("alignments")).to_contain_text("250 ids in common")
    book.cell(2).click()
    expect(book.section("receipts")).to_contain_text("bank → coordinator")
    book.page.screenshot(path=screenshots / f"tour-{front}.png")
    book.section("runs").locator("[data-status=ok] button").first.click()
    expect(book.page.locator(".fednb-lab-panel .fednb-run .fednb-state")).to_have_text("done")
    expect(book.page.locator(".fednb-lab-panel")).to_be_in_viewport()
    book.page.screenshot(path=screenshots / f"tour-{front}-run.png")


def test_the_badge_follows_the_text_as_it_is_typed(book: Any, jupyter: Any) -> None:
    book.open(jupyter.lab(jupyter.notebook("typed", "%fed connect", "", "")))
    book.done(0)
    book.sidebar()
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()
    book.cell(1).locator(".cm-content").click()
    book.page.keyboard.type("%%party ban")
    expect(book.strip(1)).to_contain_text("ban (not known)")
    book.page.keyboard.type("k,agency")
    expect(book.strip(1).locator(".fednb-lab-name")).to_have_text(["bank", "agency"])
    edge = book.cell(1).evaluate("cell => getComputedStyle(cell, '::before').backgroundImage")
    assert "rgb(194, 122, 0)" in edge and "rgb(0, 114, 178)" in edge, "both parties' colours"
    book.page.keyboard.press("Home")
    book.page.keyboard.press("Delete")
    expect(book.strip(1)).to_have_count(0)


def test_python_stays_python_under_the_magic_line(book: Any, jupyter: Any) -> None:
    odd = '%%party bank --ask "it\'s (odd" --timeout 5\n'
    book.open(jupyter.lab(jupyter.notebook("python", odd + "def f(x):", "def f(x):")))
    for number in (0, 1):
        book.cell(number).locator(".cm-content").click()
        book.page.keyboard.press("Control+End")
        book.page.keyboard.press("Enter")
        book.page.keyboard.type("return [x, 'text']")
    colours = """cell => [...cell.querySelectorAll('.cm-line')].slice(-2).map(line => [line.textContent,
        ...[...line.querySelectorAll('span')].map(span => [span.textContent, getComputedStyle(span).color])])"""
    expect(book.cell(0).locator(".cm-line").last).to_have_text("    return [x, 'text']")
    assert book.cell(0).evaluate(colours) == book.cell(1).evaluate(colours)


def test_a_cell_shows_how_far_it_is_while_it_runs(book: Any, jupyter: Any, screenshots: Path) -> None:
    here = "import pathlib, time\nif str(pathlib.Path.cwd()).count('bank'):\n    while True: time.sleep(0.05)"
    path = jupyter.notebook("running", "%fed connect", f"%%party bank,agency\n{here}", "%%party bank\n1")
    book.open(jupyter.lab(path))
    book.done(0)
    book.run(1)
    book.run(2)
    expect(book.strip(1)).to_contain_text("running on 1 of 2")
    expect(book.strip(2)).to_contain_text("queued")
    expect(book.strip(1).locator(".fednb-lab-time")).to_have_text(re.compile(r"[2-9]\.\d s"))
    book.page.screenshot(path=screenshots / "running.png")
    book.page.get_by_role("menuitem", name="Federation", exact=True).click()
    book.page.get_by_role("menuitem", name="Interrupt All Parties").click()
    expect(book.strip(1)).to_contain_text("interrupted at bank")
    expect(book.strip(2)).not_to_contain_text("queued")


def test_a_page_reloaded_in_mid_run_shows_the_progress_again_and_can_cancel(
    book: Any, jupyter: Any, gate: Any, screenshots: Path
) -> None:
    address = jupyter.lab(jupyter.notebook("reload", "%fed connect", GATED))
    book.open(address)
    book.done(0)
    book.run(1)
    run = book.section("runs").locator("li", has_text="A run in steps").first
    gate.open_gate(1)
    expect(run).to_contain_text("work 2 of 10")
    book.reload(jupyter)
    expect(book.page.locator("#fednb-sidebar")).to_be_visible()  # where it was
    expect(run).to_contain_text("work 2 of 10")
    gate.open_gate(2)
    expect(run).to_contain_text("work 3 of 10")
    run.get_by_role("button", name="A run in steps", exact=True).click()
    expect(book.page.locator(".fednb-lab-panel .fednb-run")).to_contain_text("work 3 of 10")
    book.page.screenshot(path=screenshots / "reloaded.png")
    run.get_by_role("button", name="Cancel").click()
    expect(run).to_have_attribute("data-status", "cancelled")
    expect(book.page.locator(".fednb-lab-panel .fednb-run .fednb-state")).to_have_text("cancelled")


def test_a_restarted_kernel_is_not_connected_and_can_be_again(book: Any, jupyter: Any) -> None:
    book.open(jupyter.lab(jupyter.notebook("restart", "%load_ext fednb\n%fed connect", kernel="python3")))
    expect(book.sidebar()).to_contain_text("run %load_ext fednb and %fed connect")
    book.sidebar().get_by_role("button", name="Connect").click()
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()
    assert book.page.locator(".jp-Notebook .jp-Cell").count() <= 2, "the cell that was there was run, and no other"
    book.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    book.page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    book.page.locator(".jp-Dialog button.jp-mod-accept").click()
    expect(book.sidebar()).to_contain_text("Not connected")
    book.idle()
    book.sidebar().get_by_role("button", name="Connect").click()
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()


def test_the_picker_moves_a_cell_from_one_party_to_another(book: Any, jupyter: Any, screenshots: Path) -> None:
    cell = "%%party bank --timeout 30\nfed.tables()"
    book.open(jupyter.lab(jupyter.notebook("picker", "%fed connect", cell)))
    book.done(0)
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()
    book.cell(1).locator(".cm-content").click()
    picker = book.cell(1).get_by_role("button", name="Runs at bank; choose another place")
    picker.click()
    book.page.screenshot(path=screenshots / "picker.png")
    expect(book.page.get_by_role("menuitemcheckbox", checked=True)).to_have_text("■ bank")
    book.page.get_by_role("menuitem", name="● agency", exact=True).click()
    expect(book.cell(1).locator(".cm-line").first).to_have_text("%%party agency --timeout 30")
    expect(book.strip(1).locator(".fednb-lab-name")).to_have_text(["agency"])
    book.done(1)
    expect(book.cell(1).locator(".jp-OutputArea")).to_contain_text("invoices")
    book.cell(1).locator(".cm-content").click()
    book.cell(1).get_by_role("button", name="Runs at agency; choose another place").click()
    book.page.get_by_role("menuitem", name="Also at bank", exact=True).click()
    expect(book.cell(1).locator(".cm-line").first).to_have_text("%%party agency,bank --timeout 30")
    expect(book.strip(1).locator(".fednb-lab-name")).to_have_text(["agency", "bank"])
    book.done(1)
    expect(book.cell(1).locator(".jp-OutputArea")).to_contain_text("loans")
    book.cell(1).locator(".cm-content").click()
    book.page.keyboard.press("Control+Alt+p")  # the same without a mouse
    book.page.keyboard.press("ArrowDown")
    book.page.keyboard.press("Enter")
    expect(book.cell(1).locator(".cm-line").first).to_have_text("fed.tables()")
    expect(book.strip(1)).to_have_count(0)


def test_each_notebook_has_its_own_federation_in_the_sidebar(book: Any, jupyter: Any) -> None:
    one = jupyter.notebook("one", "%fed connect", "%%party bank\n1")
    two = jupyter.notebook("two", "x = 1", kernel="python3")
    book.open(jupyter.lab(one))
    book.done(0)
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()
    book.page.get_by_role("tab", name="File Browser").click()
    book.page.get_by_text(two, exact=True).dblclick()
    expect(book.sidebar()).to_contain_text("Not connected")
    expect(book.sidebar()).to_contain_text(two)
    book.page.get_by_role("tab", name=one).click()
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()


HOSTILE = """
from comm import create_comm
bad = "<img src=x onerror=alert(1)>"
def say(**news): c.send({"v": 1, **news})
c = create_comm("fednb.lab", data={"v": 1, "kind": "hello", "release": bad})
say(kind="federation", connected=True, me=bad, coordinator="coordinator", parties=[bad], attached=None, advice="",
    members=[dict(name=bad, kind="party", up=True, version=bad, ms=1.0, mode=bad, why=bad)])
say(kind="tables", tables=[dict(member=bad, name=bad, rows=1, more=0, columns=[dict(name=bad, dtype=bad, role=bad)])])
say(kind="runs", runs=[dict(run="r", title=bad, protocol=bad, status="running", seconds=1.0, started=0.0, by=bad,
    members=[bad], mine=True, bytes=1, estimate=None, error=bad,
    overlap=dict(matched=1, ids={bad: 1}, duplicates={}, notes=[bad]))])
say(kind="run", run="r", over=False, receipts=[], progress=dict(title=bad, state=bad, silent="", done=0.5,
    figures=[bad], metric=bad, log=False, last=0, curves=[[[1, 1], [2, 2]]],
    members=[dict(name=bad, mark=bad, colour=bad, role=bad, doing=bad, waits=False, traffic=bad, operations=bad)]))
say(kind="note", text=bad, failed=True)
say(kind="prophecy", text=bad)
say(kind="prophecy", text=bad)
c.send({"v": 99, "kind": "hello"})
"""


def test_whatever_a_name_is_it_is_shown_as_text_and_what_is_unknown_is_ignored_once(
    book: Any, jupyter: Any, screenshots: Path
) -> None:
    warned: list[str] = []
    book.page.on("console", lambda said: warned.append(said.text) if "ignored" in said.text else None)
    book.open(
        jupyter.lab(jupyter.notebook("hostile", HOSTILE, "%%party <img/src/onerror=alert(1)>\n1", kernel="python3"))
    )
    book.done(0)
    bad = "<img src=x onerror=alert(1)>"
    expect(book.section("members")).to_contain_text(bad)
    expect(book.strip(1)).to_contain_text("<img/src/onerror=alert(1)>")
    tables = book.section("tables")
    tables.locator("summary").click()
    expect(tables.locator("td").first).to_have_text(bad)
    book.section("runs").get_by_role("button", name=bad).first.click()
    expect(book.page.locator(".fednb-lab-panel .fednb-run")).to_contain_text(bad)
    expect(book.sidebar()).to_contain_text(bad)
    assert book.page.locator("#fednb-sidebar img, .fednb-lab-strip img, .fednb-lab-panel img").count() == 0
    assert sum("prophecy" in line for line in warned) == 1 and sum("99" in line for line in warned) == 1
    book.page.screenshot(path=screenshots / "hostile.png")


def test_the_hub_may_go_and_come_back(book: Any, jupyter: Any, federation: Any) -> None:
    book.open(jupyter.lab(jupyter.notebook("hub", "%fed connect", "%%party bank\n1 + 1")))
    book.done(0)
    bank = book.section("members").locator("[data-member=bank]")
    expect(bank.locator("[data-up=true]")).to_be_visible()
    with federation.hub_gone():
        expect(bank.locator("[data-up=false]")).to_be_visible()
    expect(bank.locator("[data-up=true]")).to_be_visible()
    book.done(1)
    expect(book.strip(1)).to_contain_text("done in")


def test_a_front_end_outside_the_supported_range_is_told_and_left_alone(book: Any, jupyter: Any) -> None:
    page: Page = book.page
    code = (Path(__file__).parents[3] / "extensions" / "lab" / "static" / "plugin.js").read_text()
    old = re.sub(r"JupyterLab: \[\[4, 4\], \[5, 0\]\]", "JupyterLab: [[9, 0], [10, 0]]", code)
    assert old != code
    page.route("**/fednb-lab/static/*/plugin.js", lambda route: route.fulfill(body=old, content_type="text/javascript"))
    book.open(jupyter.lab(jupyter.notebook("old", "%%party bank\n1")))
    expect(page.get_by_text(re.compile("it stays out of the way")).first).to_be_visible()
    expect(page.locator(".fednb-lab-strip, #fednb-sidebar")).to_have_count(0)


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_badges_are_readable_in_this_theme(theme: str, book: Any, jupyter: Any, screenshots: Path) -> None:
    jupyter.theme(book.page, theme)
    try:
        name = theme.split()[-1].lower()
        book.open(
            jupyter.lab(jupyter.notebook(f"theme-{name}", "%fed connect", "%%party bank,agency\nfed.tables()", ALIGN))
        )
        for number in range(3):
            book.done(number)
        expect(book.section("alignments")).to_contain_text("250 ids in common")
        book.cell(2).locator(".cm-content").click()
        for place in (".fednb-lab-badge", ".fednb-lab-words", "#fednb-sidebar .fednb-lab-muted"):
            assert book.page.locator(place).first.evaluate(CONTRAST) >= 4.5, place
        book.page.screenshot(path=screenshots / f"theme-{name}.png")
    finally:
        jupyter.theme(book.page, "JupyterLab Light")


# WCAG 2.2, contrast ratio of an element's text against the first background behind it
CONTRAST = """element => {
    const channels = colour => colour.match(/[\\d.]+/g).map(Number);
    let behind = element;
    while (behind && (channels(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const back = behind ? channels(getComputedStyle(behind).backgroundColor) : [255, 255, 255];
    const [r, g, b, alpha = 1] = channels(getComputedStyle(element).color);
    const front = [r, g, b].map((value, i) => alpha * value + (1 - alpha) * back[i]);
    const light = colour => colour.slice(0, 3).map(value => value / 255)
        .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
    const [low, high] = [light(front), light(back)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


def test_the_launcher_has_a_card_for_each_kernel_and_the_menu_names_every_command(
    book: Any, jupyter: Any, screenshots: Path
) -> None:
    page = book.page
    page.goto(jupyter.lab())
    for name in ("fednb (connected)", "fednb (my party)"):
        card = page.locator(".jp-LauncherCard", has_text=name).first
        expect(card.locator("img")).to_have_js_property("complete", True)
        assert card.locator("img").evaluate("image => image.naturalWidth") > 0, name
    page.screenshot(path=screenshots / "launcher.png")
    page.get_by_role("menuitem", name="Federation", exact=True).click()
    shown = page.locator(".lm-Menu-itemLabel:visible").all_inner_texts()
    assert {
        "Connect This Notebook",
        "Start the Demo Federation",
        "Insert a Party Cell",
        "Interrupt All Parties",
    } <= set(shown)


def test_the_palette_and_the_keyboard_reach_every_command(book: Any, jupyter: Any, screenshots: Path) -> None:
    book.open(jupyter.lab(jupyter.notebook("palette", "%fed connect", "1")))
    book.done(0)
    expect(book.section("members").locator("[data-member=bank]")).to_be_visible()
    book.cell(1).locator(".cm-content").click()
    book.page.keyboard.press("Escape")
    palette(book, "federation")
    shown = {text.strip() for text in book.page.locator(".lm-CommandPalette-itemLabel").all_inner_texts()}
    assert shown >= {
        "Connect This Notebook",
        "Start the Demo Federation",
        "Insert a Party Cell",
        "Choose Where the Cell Runs",
        "Dry Run on Mock Data",
        "Interrupt All Parties",
        "Show the Federation",
        "Open the Audit Report",
    }
    book.page.screenshot(path=screenshots / "palette.png")
    book.page.keyboard.press("Escape")
    palette(book, "Insert a Party Cell")
    book.page.keyboard.press("Enter")
    expect(book.cell(2).locator(".cm-line").first).to_have_text("%%party agency")
    book.page.keyboard.type("1 + 1")
    book.page.keyboard.press("Shift+Enter")
    expect(book.strip(2)).to_contain_text("done in")


def palette(book: Any, text: str) -> None:
    """Look for a command."""
    book.page.keyboard.press("Control+Shift+c")
    field = book.page.locator(".lm-CommandPalette-input")
    expect(field).to_be_visible()
    field.fill(text)
    found = book.page.locator(".lm-CommandPalette-itemLabel")
    expect(found.first).to_have_text(re.compile(text, re.IGNORECASE))


def test_the_demo_is_started_in_a_terminal(book: Any, jupyter: Any) -> None:
    page = book.page
    page.goto(jupyter.lab())
    page.get_by_role("tab", name="Federation").click()
    page.locator("#fednb-sidebar").get_by_role("button", name="Start the demo federation").click()
    terminal = page.locator(".jp-Terminal")
    expect(terminal).to_be_visible()
    page.get_by_role("tab", name="File Browser").click()
    page.locator(".jp-DirListing").get_by_text("fednb-demo", exact=True).dblclick()
    expect(page.locator(".jp-DirListing").get_by_text("01_fedriskctrl.ipynb")).to_be_visible()
    terminal.click()
    page.keyboard.press("Control+c")  # stops every member
    page.keyboard.type("exit\n")
    expect(terminal).to_have_count(0)


def test_bins_are_changed_by_hand_and_counted_anew(book: Any, jupyter: Any, screenshots: Path) -> None:
    fit = f"{ALIGN}\nbinning = WoeBinning(bins=6, merge='none').fit(frame, y='bank.default')\nbinning.workbench()"
    look = "%%coordinator\nbinning.bin_table('agency.turnover')"
    book.open(jupyter.lab(jupyter.notebook("bins", "%fed connect", fit, look)))
    book.done(0)
    book.done(1)
    bench = book.cell(1).locator(".fednb-bench-root")
    note = bench.get_by_role("status")
    features = bench.get_by_role("listbox")
    expect(features.get_by_role("option")).to_have_count(4)
    expect(features).to_contain_text("agency.<b>late</b>")
    bench.get_by_role("option", name=re.compile("agency.turnover")).click()
    table = bench.get_by_role("table")
    expect(table.locator("tbody tr")).to_have_count(6)

    # an edge is moved by a key, another taken away
    bench.get_by_role("switch", name="edge before cell 1", exact=True).click()
    bench.get_by_role("switch", name="edge before cell 5", exact=True).click()
    bench.get_by_role("switch", name="edge before cell 4", exact=True).focus()
    book.page.keyboard.press("ArrowRight")
    expect(bench.get_by_role("switch", name="edge before cell 5", exact=True)).to_be_focused()
    bench.get_by_role("button", name="Recount", exact=True).click()
    expect(note).to_contain_text("agency.turnover: information value")
    expect(table.locator("tbody tr")).to_have_count(4)
    expect(table.locator("tbody tr td:nth-child(3)")).to_have_text(["2", "1", "2", "1"])
    book.page.screenshot(path=screenshots / "bins.png")

    # one's own feature at a value, by the keyboard alone
    features.focus()
    book.page.keyboard.press("End")
    expect(bench.get_by_role("option", selected=True)).to_have_attribute("aria-label", re.compile("late"))
    book.page.keyboard.press("Home")
    expect(bench.get_by_role("option", selected=True)).to_have_attribute("aria-label", re.compile("bank.age"))
    bench.get_by_label("Values at which a new bin of bank.age begins").fill("none")
    book.page.keyboard.press("Enter")
    expect(note).to_contain_text("write numbers with commas")
    bench.get_by_label("Values at which a new bin of bank.age begins").fill("-0.5, 0.5")
    book.page.keyboard.press("Enter")
    expect(table).to_contain_text("-0.5 to below 0.5")

    # what is changed here is changed there; and taken back
    book.done(2)
    expect(book.cell(2).locator(".jp-OutputArea tbody tr")).to_have_count(4)
    bench.get_by_role("button", name="Undo").click()
    expect(table.locator("tbody tr")).to_have_count(6)
    expect(note).to_contain_text("taken back")
