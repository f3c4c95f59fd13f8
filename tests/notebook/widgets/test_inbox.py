"""The owner's widget, against the files of a real home; its cells run in the real sandbox."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from IPython.core.error import UsageError

from fednb.errors import ConfigError
from fednb.federation import messages as m
from fednb.federation import quarantine
from fednb.notebook.widgets.inbox import InboxWidget, show
from fednb.policy import approvals, codeview, sandbox
from fednb.policy.approvals import ApprovalStore
from fednb.wire.keys import enrol_all

CODE = "t = fed.load('loans')\nprint('<b>', t['income'].max())"
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[party.bank]
approval = true
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
mock = { income = [1000, 1000] }
[party.agency]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "loans.csv").write_text("sme_id,income\n007,10\n")
    (tmp_path / "federation.toml").write_text(FILE)
    enrol_all(tmp_path / ".fednb", {"hub": "hub", "bank": "party", "agency": "party", "coordinator": "coordinator"})
    return tmp_path / ".fednb" / "bank"


@pytest.fixture
def store(home: Path) -> ApprovalStore:
    return ApprovalStore(home / "approvals")


def ask(store: ApprovalStore, code: str = CODE, reason: str = "to <i>count</i>") -> str:
    data = approvals.binding({})
    return store.add("ann", code, reason, codeview.digest(code), data, ("loans",)).id


def press(widget: InboxWidget, word: str) -> str:
    assert not widget.buttons[word].disabled, f"{word} cannot be pressed now"
    widget.buttons[word].click()
    return str(widget.note.value)


def test_an_owner_sees_what_is_asked_and_its_markup_does_nothing(home: Path, store: ApprovalStore) -> None:
    widget = show(str(home))
    assert "Nothing waits" in widget.page.value and all(
        button.disabled for word, button in widget.buttons.items() if word != "refresh"
    )
    id = ask(store)
    widget.refresh()
    assert widget.choice.value == id
    assert "to &lt;i&gt;count&lt;/i&gt;" in widget.page.value and "<i>" not in widget.page.value
    assert "tables: loans" in widget.page.value and "&#x27;income&#x27;" in widget.page.value


def test_approving_with_the_chosen_bounds(home: Path, store: ApprovalStore) -> None:
    id = ask(store)
    widget = show(str(home))
    widget.times.value, widget.days.value, widget.at_once.value = 3, 2.0, True
    assert f"{id} is approved" in press(widget, "approve")
    made = store.get(id)
    assert (made.decision, made.uses, made.at_once) == ("approved", 3, True)
    assert 1.9 * 86_400 < made.until - time.time() < 2.1 * 86_400
    assert widget.choice.value is None, "it waits no more"
    widget.everything.value = True
    assert widget.choice.value == id and widget.buttons["approve"].disabled


def test_denying_needs_a_reason(home: Path, store: ApprovalStore) -> None:
    id = ask(store)
    widget = show(str(home))
    assert "say why" in press(widget, "deny") and store.get(id).decision == "pending"
    widget.reason.value = "it shows rows"
    assert f"{id} is denied" in press(widget, "deny")
    assert store.get(id).why == "it shows rows" and widget.reason.value == ""


def test_outputs_are_looked_at_and_then_released_or_withheld(home: Path, store: ApprovalStore) -> None:
    first, second = ask(store), ask(store, "1")
    picture = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    said = [m.Stream("c", "stdout", "<script>5</script>"), m.Display("c", {"image/png": picture})]
    for id in (first, second):
        store.keep(id, quarantine.pack(quarantine.visible(said)))
        store.change(id, {}, decision="approved", until=time.time() + 600, outcome="quarantined")
    widget = show(str(home))
    widget.choice.value = first
    press(widget, "outputs")
    text, image = widget.output.children
    assert "&lt;script&gt;5" in text.value and bytes(image.value).startswith(b"\x89PNG")
    assert f"{first} is released" in press(widget, "release") and store.get(first).outcome == "released"
    assert widget.choice.value == second
    assert "say why" in press(widget, "withhold")
    widget.reason.value = "too much"
    assert f"{second} is withheld" in press(widget, "withhold")
    assert not (store.folder / f"{second}.outcome").exists(), "what nobody shall have is not kept"


def test_a_dry_run_is_on_invented_rows(home: Path, store: ApprovalStore) -> None:
    if not any(not sandbox.missing(backend) for backend in sandbox.BACKENDS):
        pytest.skip("no sandbox works here")
    ask(store)
    widget = show(str(home))
    press(widget, "try")
    (shown,) = widget.output.children
    assert "invented rows" in shown.value and "&lt;b&gt; 1000" in shown.value


def test_a_decision_that_came_too_late_is_told(home: Path, store: ApprovalStore) -> None:
    id = ask(store)
    widget = show(str(home))
    store.change(id, {}, decision="denied", why="in the terminal")
    assert "is denied by now" in press(widget, "approve")


def test_the_magic_opens_it_without_a_connection(home: Path, store: ApprovalStore, world: Any) -> None:
    assert isinstance(world.shell.run_line_magic("fed", f"inbox {home}"), InboxWidget)
    with pytest.raises(UsageError, match="home folder"):
        world.shell.run_line_magic("fed", "inbox")
    with pytest.raises(ConfigError, match="approves no cells"):
        world.shell.run_line_magic("fed", f"inbox {home.parent / 'agency'}")
