"""What an approved cell said, reduced to what its owner can look at: nothing else may go out when she releases it.

A cell can hide rows where no reader looks: in HTML beside the text, invisible characters, blanks at the ends of lines,
names of displays, texts inside pictures, the seventh digit of a duration. So an outcome keeps plain text and PNG
pictures, stripped of all that, and what is shown to the owner is exactly what is sent. Pixels, and letters that look
alike, can still hide things from the eye.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from fednb.errors import DataError
from fednb.federation import messages as m
from fednb.federation.cells import CellEvent
from fednb.text import plain
from fednb.typed import known

MOST_TEXT = 8 << 20  # characters of one piece

_EVENTS = list[m.CellStarted | m.Stream | m.Display | m.CellError | m.CellDone]
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
_PNG = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # what makes the picture (PNG specification, section 11)


def visible(events: Iterable[CellEvent]) -> list[CellEvent]:
    """The same outputs with nothing in them that a reader does not see."""
    kept: list[CellEvent] = []
    for event in events:
        if isinstance(event, m.Stream):
            kept.append(m.Stream(event.cell, event.name, _text(event.text)))
        elif isinstance(event, m.Display):
            data: dict[str, object] = {}
            if isinstance(said := event.data.get("text/plain"), str):
                data["text/plain"] = _text(said)
            if isinstance(picture := event.data.get("image/png"), str) and (bare := _bare(picture)):
                data["image/png"] = bare
            if data:
                kept.append(m.Display(event.cell, data, result=event.result))
        elif isinstance(event, m.CellError):
            traceback = [_text(line) for line in event.traceback]
            kept.append(m.CellError(event.cell, _text(event.ename), _text(event.evalue), traceback))
        elif isinstance(event, m.CellStarted):
            kept.append(event)
        elif isinstance(event, m.CellDone):
            kept.append(m.CellDone(event.cell, event.status, round(event.seconds), 1, _text(event.reason)))
    return kept


def pack(events: list[CellEvent]) -> bytes:
    """To be kept in a file."""
    return msgspec.json.encode(events)


def unpack(content: bytes) -> list[CellEvent]:
    """Raises DataError when it is no outcome."""
    try:
        return list(msgspec.json.decode(content, type=known(_EVENTS)))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DataError("what an approved cell said is damaged; it has to run again.") from None


def text(events: Iterable[CellEvent]) -> str:
    """All of it but the pictures, for a terminal."""
    parts = []
    for event in events:
        if isinstance(event, m.Stream):
            parts.append(event.text)
        elif isinstance(event, m.Display):
            if "text/plain" in event.data:
                parts.append(f"{event.data['text/plain']}\n")
            if "image/png" in event.data:
                parts.append(f"[a picture of {len(str(event.data['image/png'])) * 3 // 4:,} bytes]\n")
        elif isinstance(event, m.CellError):
            parts.append("\n".join([f"{event.ename}: {event.evalue}", *event.traceback]) + "\n")
        elif isinstance(event, m.CellDone) and event.reason:
            parts.append(f"[{event.status}: {event.reason}]\n")
    return "".join(parts)


def pictures(events: Iterable[CellEvent]) -> Iterator[bytes]:
    """The PNG files."""
    for event in events:
        if isinstance(event, m.Display) and isinstance(picture := event.data.get("image/png"), str):
            yield base64.b64decode(picture)


def save(events: Iterable[CellEvent], folder: Path) -> list[Path]:
    """Write text and pictures where the owner can open them; readable by her only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    listed = list(events)
    files = [folder / "output.txt"]
    files[0].write_text(text(listed), encoding="utf-8")
    for number, picture in enumerate(pictures(listed), start=1):
        files.append(folder / f"picture-{number}.png")
        files[-1].write_bytes(picture)
    return files


def _text(text: str) -> str:
    return _TRAILING.sub("", plain(_COLOURS.sub("", text), MOST_TEXT))


def _bare(picture: str) -> str:
    """A PNG's own chunks in base64, without texts, times and whatever follows its end; "" when it is none."""
    try:
        content = base64.b64decode(picture)
    except (binascii.Error, ValueError):
        return ""
    if not content.startswith(_PNG):
        return ""
    made, at = [_PNG], len(_PNG)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            return ""
        if kind in _KEPT:
            made.append(content[at:end])
        if kind == b"IEND":
            return base64.b64encode(b"".join(made)).decode()
        at = end
    return ""
