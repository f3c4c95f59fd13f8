"""Terminal text from a remote member: what may stay of its control characters, and how it looks as HTML.

Colours stay. Everything else that a terminal obeys (titles, links, cursor moves, queries that a terminal answers by
typing) goes, because the text is somebody else's. Carriage returns and backspaces are carried out, as progress
bars need.
"""

from __future__ import annotations

import html
import re

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours and cursor moves
    r"|\x1b[ -/]*[0-~]?"  # the two-character ones
)
_COLOUR = re.compile(r"\x1b\[([0-9;]{0,40})m")
_CONTROLS = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")

# readable on white and on black
_PALETTE = ("#5c6370", "#d73a49", "#22863a", "#b08800", "#2472c8", "#a347ba", "#0e8f9b", "#8b949e")


def clean(text: str) -> str:
    """`text` with colours, newlines, tabs, carriage returns and backspaces, and no other control."""
    text = _ESCAPES.sub(lambda found: found[0] if _COLOUR.fullmatch(found[0]) else "", text)
    return _CONTROLS.sub("", text)


def plain(text: str) -> str:
    """`text` without colours either."""
    return _COLOUR.sub("", clean(text))


def settle(text: str) -> str:
    """Carry out carriage returns and backspaces as far as they are final: more text may be added to what is left."""
    if "\r" not in text and "\b" not in text:
        return text
    *lines, last = text.replace("\r\n", "\n").split("\n")
    *overwritten, latest = _backspaces(last).split("\r")
    # the cursor stands behind the latest part, so that part must stay apart from the line that it overwrites
    resumable = f"{_overlay(overwritten)}\r{latest}" if overwritten else latest
    return "\n".join([*(_line(line) for line in lines), resumable])


def shown(text: str) -> str:
    """What a terminal would show of `text`."""
    return "\n".join(_line(line) for line in text.replace("\r\n", "\n").split("\n")) if "\r" in text else text


def _line(line: str) -> str:
    return _overlay(_backspaces(line).split("\r"))


def _overlay(parts: list[str]) -> str:
    line = ""
    for part in parts:
        line = part if len(part) >= len(line) else part + line[len(part) :]
    return line


def _backspaces(line: str) -> str:
    changed = "\b" in line
    while changed:
        line, count = re.subn("[^\r\x08]\x08", "", line)
        changed = count > 0
    return line.replace("\b", "")


def to_html(text: str) -> str:
    """Cleaned text as HTML for a <pre>: escaped, the sixteen colours and bold as spans."""
    out: list[str] = []
    style = {"color": "", "background": "", "bold": ""}
    at = 0
    for found in _COLOUR.finditer(text):
        out.append(_span(text[at : found.start()], style))
        _apply(found[1], style)
        at = found.end()
    out.append(_span(text[at:], style))
    return "".join(out)


def _span(text: str, style: dict[str, str]) -> str:
    if not text:
        return ""
    css = [f"color:{style['color']}"] if style["color"] else []
    css += [f"background-color:{style['background']}"] if style["background"] else []
    css += ["font-weight:bold"] if style["bold"] else []
    shown = html.escape(text, quote=False)
    return f'<span style="{";".join(css)}">{shown}</span>' if css else shown


def _apply(codes: str, style: dict[str, str]) -> None:
    numbers = iter([int(code) if code else 0 for code in codes.split(";")])
    for code in numbers:
        if code == 0:
            style.update(color="", background="", bold="")
        elif code in (1, 22):
            style["bold"] = "1" if code == 1 else ""
        elif code in (38, 48):  # 256 colours or RGB: their numbers must not be read as codes of their own
            skip = {5: 1, 2: 3}.get(next(numbers, 0), 0)
            for _ in range(skip):
                next(numbers, 0)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style["color"] = _PALETTE[code % 10]
        elif 40 <= code <= 47 or 100 <= code <= 107:
            style["background"] = _PALETTE[code % 10]
        elif code == 39:
            style["color"] = ""
        elif code == 49:
            style["background"] = ""
