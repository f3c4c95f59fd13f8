"""One member's output as one display that is redrawn in place: the way to show several members at once.

A notebook can only append outputs or replace one by its display id. So each member gets one output, and everything
that comes from there (text, tables, figures, progress bars) is drawn into it: grouped by member while still live,
and saved as ordinary HTML that reads without a kernel. Beside it stands the same as plain text.
"""

from __future__ import annotations

import html
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from fednb.federation import messages as m
from fednb.notebook import ansi, sanitise
from fednb.notebook.palette import Look

MAX_CHARACTERS = 200_000  # of text that an area keeps; the oldest goes first
MAX_BUNDLES = 200

_PRE = (
    "margin:0;padding:0;background:none;border:none;white-space:pre-wrap;word-break:break-word;"
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
)


@dataclass
class _Text:
    name: Literal["stdout", "stderr"]
    text: str


@dataclass
class _Rich:
    data: dict[str, Any]
    metadata: dict[str, Any]
    display_id: str | None


class Area:
    """What a member has shown so far."""

    def __init__(self, member: str, look: Look) -> None:
        self.member = member
        self.display_id = f"fednb-{secrets.token_hex(8)}"
        self.status = "waiting"  # for a cell that runs there already
        self.failed = False
        self._look = look
        self._items: list[_Text | _Rich] = []
        self._clear_next = False
        self._dropped = 0  # characters of old text

    def write(self, name: Literal["stdout", "stderr"], text: str) -> None:
        self._before_output()
        last = self._items[-1] if self._items else None
        if isinstance(last, _Text) and last.name == name:
            last.text = ansi.settle(last.text + text)
        else:
            self._items.append(_Text(name, ansi.settle(text)))
        self._trim()

    def show(self, display: m.Display) -> None:
        data, metadata = sanitise.clean_bundle(self.member, display.data, display.metadata)
        if display.update:
            for item in self._items:
                if isinstance(item, _Rich) and item.display_id == display.display_id:
                    item.data, item.metadata = data, metadata
            return
        self._before_output()
        self._items.append(_Rich(data, metadata, display.display_id))
        self._trim()

    def clear(self, *, wait: bool) -> None:
        if wait:
            self._clear_next = True
        else:
            self._items.clear()
            self._dropped = 0

    def bundle(self) -> dict[str, Any]:
        """The whole area as a MIME bundle."""
        return {"text/html": self._html(), "text/plain": self._plain()}

    def _before_output(self) -> None:
        if self._clear_next:
            self._clear_next = False
            self.clear(wait=False)

    def _trim(self) -> None:
        rich = sum(isinstance(item, _Rich) for item in self._items)
        while rich > MAX_BUNDLES:
            oldest = next(item for item in self._items if isinstance(item, _Rich))
            self._items.remove(oldest)
            rich -= 1
        excess = sum(len(item.text) for item in self._items if isinstance(item, _Text)) - MAX_CHARACTERS
        if excess <= 0:
            return
        for item in list(self._items):
            if isinstance(item, _Text):
                cut = min(len(item.text), excess)
                newline = item.text.find("\n", cut)  # whole lines, so that no colour code is cut in two
                cut = newline + 1 if cut < len(item.text) and newline >= 0 else len(item.text)
                self._dropped += cut
                excess -= cut
                item.text = item.text[cut:]
                if not item.text:
                    self._items.remove(item)
            if excess <= 0:
                return

    def _html(self) -> str:
        inner = "".join(self._item_html(item) for item in self._items)
        if self._dropped:
            inner = f"<div><em>[{self._dropped:,} earlier characters are not shown]</em></div>{inner}"
        weight = "font-weight:600;color:#c0392b" if self.failed else "opacity:.65"
        return (
            f'<div style="border-left:4px solid {self._look.fill};padding:1px 0 3px 10px;margin:3px 0">'
            f'<div style="font-weight:600">{html.escape(self._look.mark)} {html.escape(self.member)} '
            f'<span style="font-weight:400;{weight}">{html.escape(self.status)}</span></div>{inner}</div>'
        )

    def _item_html(self, item: _Text | _Rich) -> str:
        if isinstance(item, _Text):
            tint = ";background-color:rgba(214,64,69,.12)" if item.name == "stderr" else ""
            return f'<pre style="{_PRE}{tint}">{ansi.to_html(ansi.shown(item.text))}</pre>'
        if "text/html" in item.data:
            return f"<div>{item.data['text/html']}</div>"
        for mime, encoded in item.data.items():
            if mime.startswith("image/"):
                size = "".join(f' {side}="{value:g}"' for side, value in item.metadata.get(mime, {}).items())
                return f'<div><img alt="figure" src="data:{mime};base64,{encoded}"{size}></div>'
        return f'<pre style="{_PRE}">{ansi.to_html(item.data.get("text/plain", ""))}</pre>'

    def _plain(self) -> str:
        lines = [f"── {self.member} ({self.status}) ──"]
        for item in self._items:
            text = ansi.shown(item.text) if isinstance(item, _Text) else str(item.data.get("text/plain", "[figure]"))
            lines.append(ansi.plain(text).removesuffix("\n"))
        return "\n".join(lines)
