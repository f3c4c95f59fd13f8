"""The owner's inbox as a widget: look at a request, try it on invented rows, decide, look at what it said, release.

Everything that came from an analyst, or out of a cell, is shown as text or as a PNG picture: the owner's notebook has
more to lose than any other.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from fednb.errors import FednbError
from fednb.federation import quarantine
from fednb.federation.inbox import Inbox, describe, open_inbox
from fednb.policy.approvals import APPROVED_DAYS, Request
from fednb.text import plain

_PRE = "white-space:pre-wrap;font-family:monospace;font-size:12px;line-height:1.4;max-height:32em;overflow:auto"
_SHOWN = 200_000  # characters


class InboxWidget(widgets.VBox):  # type: ignore[misc]
    """Shows one request at a time; `refresh` reads the inbox again."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.choice = widgets.Dropdown(description="request", layout=widgets.Layout(width="60%"))
        self.everything = widgets.Checkbox(description="decided ones too", indent=False)
        self.times = widgets.BoundedIntText(value=1, min=1, max=1000, description="times")
        self.days = widgets.BoundedFloatText(value=APPROVED_DAYS, min=0.01, max=366, description="days")
        self.at_once = widgets.Checkbox(description="release outputs unseen", indent=False)
        self.reason = widgets.Text(placeholder="why; the analyst is told", layout=widgets.Layout(width="60%"))
        self.page = widgets.HTML()
        self.output = widgets.VBox()
        self.note = widgets.HTML()
        self.buttons = {
            word: widgets.Button(description=word)
            for word in ("refresh", "try", "approve", "deny", "outputs", "release", "withhold")
        }
        actions: dict[str, Callable[[str], object]] = {
            "try": lambda id: self._say(inbox.dry_run(id), "On invented rows:"),
            "approve": lambda id: inbox.approve(
                id, uses=self.times.value, days=self.days.value, release=self.at_once.value
            ),
            "deny": lambda id: inbox.deny(id, self.reason.value),
            "outputs": self._outputs,
            "release": inbox.release,
            "withhold": lambda id: inbox.withhold(id, self.reason.value),
        }
        self.buttons["refresh"].on_click(lambda _: self.refresh())
        for word, action in actions.items():
            self.buttons[word].on_click(lambda _, action=action: self._do(action))
        self.choice.observe(lambda _: self._show(), "value")
        self.everything.observe(lambda _: self.refresh(), "value")
        deciding = [self.times, self.days, self.at_once]
        super().__init__(
            [
                widgets.HBox([self.choice, self.everything, self.buttons["refresh"]]),
                self.page,
                widgets.HBox([self.buttons["try"], self.buttons["approve"], *deciding]),
                widgets.HBox([self.reason, self.buttons["deny"], self.buttons["withhold"]]),
                widgets.HBox([self.buttons["outputs"], self.buttons["release"]]),
                self.note,
                self.output,
            ]
        )
        self.refresh()

    def refresh(self) -> None:
        """Read the inbox again; the chosen request stays chosen where it is still listed."""
        try:
            found = self._inbox.requests(all=self.everything.value)
        except FednbError as error:
            self._tell(str(error), wrong=True)
            return
        before = self.choice.value
        self.choice.options = [(_line(each), each.id) for each in found]
        ids = [each.id for each in found]
        self.choice.value = before if before in ids else next(iter(ids), None)
        self._show()

    def _show(self) -> None:
        self.output.children = ()
        self._tell("")
        if self.choice.value is None:
            self.page.value = "<p>Nothing waits.</p>"
            self._enable(None)
            return
        try:
            case = self._inbox.case(self.choice.value)
        except FednbError as error:
            self._tell(str(error), wrong=True)
            return
        self.page.value = _pre(describe(case))
        self._enable(case.request)

    def _enable(self, request: Request | None) -> None:
        """Only what can be done in the state that it is in."""
        undecided = request is not None and request.decision == "pending"
        waits = request is not None and request.outcome == "quarantined"
        takeable = request is not None and not request.outcome and request.decision in ("pending", "approved")
        possible = {"approve": undecided, "deny": takeable, "try": request is not None}
        possible |= {"outputs": waits or (request is not None and request.outcome == "released")}
        possible |= {"release": waits, "withhold": waits}
        for word, enabled in possible.items():
            self.buttons[word].disabled = not enabled

    def _do(self, action: Callable[[str], object]) -> None:
        try:
            done = action(self.choice.value)
        except FednbError as error:
            self._tell(str(error), wrong=True)
            return
        if isinstance(done, Request):
            self.reason.value = ""
            self.refresh()
            self._tell(f"{done.id} is {done.state}.")

    def _outputs(self, id: str) -> None:
        events = self._inbox.outputs(id)
        self._say(quarantine.text(events), "What it said, and all that would leave:")
        pictures = [widgets.Image(value=each, format="png") for each in quarantine.pictures(events)]
        self.output.children = (*self.output.children, *pictures)

    def _say(self, text: str, title: str) -> None:
        self.output.children = (widgets.HTML(f"<b>{html.escape(title)}</b>{_pre(text)}"),)

    def _tell(self, text: str, *, wrong: bool = False) -> None:
        colour = "#b3261e" if wrong else "#007353"
        self.note.value = f'<span style="color:{colour}">{html.escape(plain(text))}</span>' if text else ""


def show(home: str, file: str | None = None) -> InboxWidget:
    """The inbox of the member whose home this is. Raises ConfigError."""
    return InboxWidget(open_inbox(Path(home).expanduser(), Path(file).expanduser() if file else None))


def _line(request: Request) -> str:
    return plain(f"{request.id}  {request.state}  {request.analyst}: {request.reason}", 100)


def _pre(text: str) -> str:
    return f'<div style="{_PRE}">{html.escape(plain(text, _SHOWN))}</div>'
