"""The owner's inbox in the sidebar: somebody asks, and the owner of the party decides without leaving her notebook."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Locator, expect

from fednb.federation import messages as m
from fednb.federation.cells import CellClient
from fednb.federation.connect import connect
from fednb.policy.approvals import ApprovalStore
from fednb.policy.audit import entries

pytestmark = pytest.mark.slow

SUM = "claims = fed.load('claims')\nprint('the sum is', round(claims['amount'].sum()))"
BAD = "<img src=x onerror=alert(1)>"


@pytest.fixture
def ask(federation: Any) -> Iterator[Callable[[str, str], list[Any]]]:
    """ask(code, reason): as an analyst elsewhere, by no notebook."""
    if not federation.approves:
        pytest.skip("no sandbox works here, so no cell can be approved")
    with connect(federation.running) as there:
        cells = CellClient(there.endpoint)

        def send(code: str, reason: str) -> list[Any]:
            run = cells.ask(["vault"], code, reason)
            return [event for _, event in run]

        yield send
        cells.close()


@pytest.fixture
def store(federation: Any) -> ApprovalStore:
    return ApprovalStore(federation.home("vault") / "approvals")


def request(book: Any, reason: str) -> Locator:
    return book.sidebar().locator("[data-request]", has_text=reason)


def test_a_pending_cell_is_approved_from_the_sidebar_and_its_output_released(
    book: Any, jupyter: Any, federation: Any, ask: Any, screenshots: Path
) -> None:
    own = jupyter.notebook("owner", f"%load_ext fednb\n%fed inbox {federation.home('vault')}", kernel="python3")
    asking = jupyter.notebook("asking", "%fed connect", f'%%party vault --ask "a sum, for the report"\n{SUM}')
    book.open(jupyter.lab(asking))
    book.done(0)
    book.run(1)
    expect(book.strip(1)).to_contain_text("pending approval at vault")
    tab = book.page.get_by_role("tab", name=re.compile("^Federation"))
    expect(tab).not_to_have_attribute("data-fednb-waiting", re.compile("."))

    book.beside(own)
    book.done(0)
    expect(tab).to_have_attribute("data-fednb-waiting", "1")
    expect(book.page.get_by_role("tab", name="Federation: 1 request waits for you")).to_be_visible()
    row = request(book, "a sum, for the report")
    row.locator("summary").focus()
    book.page.keyboard.press("Enter")  # no mouse is needed
    expect(row.get_by_label("The cell")).to_contain_text("claims['amount'].sum()")
    expect(row).to_contain_text("Tables: claims")
    row.get_by_role("button", name="Dry run").focus()
    book.page.keyboard.press("Enter")
    expect(row.get_by_label("What it says on invented rows")).to_have_text("the sum is 1000\n")  # 200 rows of 5.0
    book.page.screenshot(path=screenshots / "inbox.png")
    row.get_by_role("button", name="Approve").focus()
    book.page.keyboard.press("Enter")
    row = book.sidebar().locator("[data-state=quarantined]")
    expect(row).to_contain_text("a sum, for the report")
    said = f"the sum is {round(pd.read_csv(federation.folder / 'claims.csv')['amount'].sum())}"
    assert said not in book.sidebar().inner_text(), "what it said may be data: no place for it here"
    row.get_by_role("button", name="Look at what it said").click()
    shown = book.front.locator(".jp-OutputArea").last
    shown.get_by_role("button", name="outputs").click()
    expect(shown).to_contain_text(said)
    shown.get_by_role("button", name="release").click()
    expect(tab).not_to_have_attribute("data-fednb-waiting", re.compile("."))
    expect(book.sidebar()).to_contain_text("Nothing waits for you")

    book.page.get_by_role("tab", name=asking).click()
    book.run(1)
    expect(book.cell(1).locator(".jp-OutputArea")).to_contain_text(said)
    expect(book.strip(1)).to_contain_text("done in")
    approved = [each for each in entries(federation.home("vault") / "audit") if each["event"] == "approved"]
    assert approved and approved[-1]["by"] == "analyst"


def test_a_request_is_denied_with_a_reason_and_whatever_it_says_is_text(
    book: Any, jupyter: Any, federation: Any, ask: Any, store: ApprovalStore, screenshots: Path
) -> None:
    code = f'claims = fed.load("claims")\n"{BAD}", "</pre><script>alert(1)</script>"'
    assert any(isinstance(event, m.CellDone) and event.status == "waiting" for event in ask(code, f"for {BAD}"))
    own = jupyter.notebook("owner2", f"%load_ext fednb\n%fed inbox {federation.home('vault')}", kernel="python3")
    book.open(jupyter.lab(own))
    book.done(0)
    row = request(book, f"for {BAD}")
    expect(row).to_be_visible()
    row.locator("summary").click()
    expect(row.get_by_label("The cell")).to_contain_text("</pre><script>alert(1)</script>")
    expect(row).to_contain_text("Look at")
    deny = row.get_by_role("button", name="Deny")
    deny.click()
    expect(row.get_by_role("alert")).to_have_text("Say why: the analyst is told.")
    why = row.get_by_label("is denied")
    expect(why).to_be_focused()
    book.page.keyboard.type("regions with ")
    ask("fed.load('claims').shape", "another, meanwhile")  # the list is drawn anew while the owner types
    expect(request(book, "another, meanwhile")).to_be_visible()
    book.page.keyboard.type("three claims would show")
    expect(why).to_have_value("regions with three claims would show")
    book.page.screenshot(path=screenshots / "inbox-hostile.png")
    assert book.page.locator("#fednb-sidebar img, #fednb-sidebar script").count() == 0
    deny.click()
    expect(row).to_have_count(0)
    denied = [each for each in store.all() if each.reason == f"for {BAD}"]
    assert [(each.decision, each.why) for each in denied] == [("denied", "regions with three claims would show")]
    (end,) = [event for event in ask(code, f"for {BAD}") if isinstance(event, m.CellDone)]
    assert end.status == "refused" and "regions with three claims would show" in end.reason
    # at the end, since JupyterLab gives the notebook the keyboard some time after it
    book.reload(jupyter)  # the page knows nothing by itself, and asks the kernel again
    expect(request(book, "another, meanwhile")).to_be_visible()
    store.change(next(each.id for each in store.all() if each.decision == "pending"), {}, decision="denied", why="over")


def test_a_cell_is_tried_on_mock_data_where_its_party_offers_that_and_is_plainly_not_real(
    book: Any, jupyter: Any, federation: Any, store: ApprovalStore, screenshots: Path
) -> None:
    if not federation.approves:
        pytest.skip("no sandbox works here, so no party offers it")
    cell = '%%party vault --ask "not yet"\nprint("the sum is", round(fed.load("claims")["amount"].sum()))'
    book.open(jupyter.lab(jupyter.notebook("dry", "%fed connect", cell, "%%party bank\n1")))
    book.done(0)
    book.cell(2).locator(".cm-content").click()
    expect(book.cell(2).get_by_role("button", name="Runs at bank; choose another place")).to_be_visible()
    expect(book.cell(2).get_by_role("button", name="Dry run")).to_have_count(0)
    book.cell(1).locator(".cm-content").click()
    book.cell(1).get_by_role("button", name="Dry run").click()
    expect(book.strip(1)).to_contain_text("dry run on invented rows: done in")
    output = book.cell(1).locator(".jp-OutputArea")
    expect(output).to_contain_text("DRY RUN ON INVENTED ROWS")
    expect(output).to_contain_text("the sum is 1000")
    expect(book.cell(1).locator(".cm-line").first).to_have_text('%%party vault --ask "not yet"')
    assert not [each for each in store.all() if each.reason == "not yet"], "its owner was not asked"
    book.page.screenshot(path=screenshots / "dry-run.png")
    book.run(1)
    expect(book.strip(1)).to_contain_text("pending approval at vault")
    expect(book.strip(1)).not_to_contain_text("dry run")
    store.change(next(each.id for each in store.all() if each.reason == "not yet"), {}, decision="denied", why="over")


def test_the_audit_report_says_whether_the_log_is_whole_and_what_left(
    book: Any, jupyter: Any, federation: Any, ask: Any, tmp_path: Path, screenshots: Path
) -> None:
    ask("fed.load('claims').columns", "the columns")  # so that there is something in the log
    changed = tmp_path / "changed"
    shutil.copytree(federation.home("vault"), changed)
    log = changed / "audit" / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"asked"', b'"ASKED"', 1))
    cells = (
        "%load_ext fednb\n%fed connect",
        "%%party bank\nfed.tables()",
        f"%fed inbox {federation.home('vault')}",
        f"_ = get_ipython().run_line_magic('fed', 'inbox {changed} {federation.folder / 'federation.toml'}')",
    )
    book.open(jupyter.lab(jupyter.notebook("audit", *cells, kernel="python3")))
    for number in (0, 1, 2):
        book.done(number)
    book.page.get_by_role("menuitem", name="Federation", exact=True).click()
    book.page.get_by_role("menuitem", name="Open the Audit Report").click()
    panel = book.page.locator(".fednb-lab-panel")
    vault = panel.get_by_label("Audit log of vault")
    expect(vault).to_contain_text("The log verifies")
    expect(vault).to_contain_text(re.compile(r"[1-9]\d* entries, head [0-9a-f]{16}"))
    expect(panel).to_contain_text("Receipts of audit.ipynb")
    expect(panel).to_contain_text("bank → analyst")
    book.page.screenshot(path=screenshots / "audit.png")
    book.page.get_by_role("tab", name="audit.ipynb").click()
    book.done(3)
    panel.get_by_role("button", name="Check again").click()
    expect(panel.get_by_role("alert")).to_contain_text("was changed: its hash is another")
    expect(vault.first).to_contain_text("The log verifies")
