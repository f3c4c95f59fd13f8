"""Completion and inspection in cells that run elsewhere: the names are the remote kernel's, not the notebook's.

A cell that begins with `%%party NAME` or `%%coordinator` asks that member (the first, when several are named); the
magic's own line completes members and options here. Typing never waits long: a busy or slow member means no answer.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.interactiveshell import InteractiveShell

from fednb.errors import FednbError
from fednb.federation.cells import CellClient
from fednb.notebook import ansi
from fednb.notebook.magics import COMMANDS, COORDINATOR_OPTIONS, OPTIONS
from fednb.notebook.session import Session

SECONDS = 0.8  # a front end gives up after about one

_HEAD = re.compile(r"\s*%%(party|coordinator)\b([^\n]*)(\n)?")
_FED = re.compile(r"\s*%fed[ \t]+(\w*)\Z")
_RESTART = re.compile(r"\s*%fed[ \t]+restart[ \t]+(?:.*[\s,])?(\w*)\Z")


@dataclass(frozen=True)
class Matches:
    """Texts that could replace `text[start:end]`."""

    texts: list[str]
    start: int
    end: int
    types: dict[str, str]


class Completer:
    """Answers for cells that begin with one of our magics; None leaves the cell to IPython."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def complete(self, text: str, cursor: int) -> Matches | None:
        """What could stand at `cursor`, a position in code points."""
        head = self._understood(text)
        if head:
            there = self.complete(head + text, cursor + len(head))
            return there and Matches(there.texts, there.start - len(head), there.end - len(head), there.types)
        line = text[text.rfind("\n", 0, cursor) + 1 : cursor]
        if found := _FED.match(line):
            return _matching(COMMANDS, found[1], cursor)
        if self._session.connected and (found := _RESTART.match(line)):
            return _matching(self._session.members(), found[1], cursor)
        magic = _HEAD.match(text)
        if magic is None:
            return None
        if cursor < magic.end() or not magic[3]:
            return self._line(magic[1], text, magic.start(2), cursor)
        nothing = Matches([], cursor, cursor, {})
        target = self._target(magic)
        if target is None:
            return nothing
        member, cells = target
        body = text[magic.end() :]
        got = cells.complete(member, body, cursor - magic.end(), timeout=SECONDS)
        if got is None or not 0 <= got.start <= got.end <= len(body):
            return nothing
        texts = [ansi.plain(match) for match in got.matches]
        return Matches(texts, got.start + magic.end(), got.end + magic.end(), got.types)

    def inspect(self, text: str, cursor: int, *, detail: bool = False) -> dict[str, str] | None:
        """The MIME bundle about the name at `cursor`: empty when nothing is known; None: not a cell of ours."""
        head = self._understood(text)
        magic = _HEAD.match(head + text)
        if magic is None or not magic[3] or cursor + len(head) < magic.end():
            return None
        target = self._target(magic)
        if target is None:
            return {}
        member, cells = target
        body = (head + text)[magic.end() :]
        got = cells.inspect(member, body, cursor + len(head) - magic.end(), detail=detail, timeout=SECONDS)
        if got is None or not got.found or "text/plain" not in got.data:
            return {}
        return {"text/plain": f"[{member}]\n{ansi.clean(got.data['text/plain'])}"}

    def _understood(self, text: str) -> str:
        """The magic's line that an attached notebook's cell does without."""
        return self._session.head() if self._session.takes(text) else ""

    def _target(self, magic: re.Match[str]) -> tuple[str, CellClient] | None:
        """Who to ask: the first member that the magic's line names."""
        if not self._session.connected:
            return None
        try:
            if magic[1] == "coordinator":
                return self._session.federation.coordinator, self._session.cells
            words = magic[2].split()
            return self._session.parties(words[:1])[0], self._session.cells
        except (FednbError, IndexError):
            return None  # a line that is not complete yet

    def _line(self, magic: str, text: str, start: int, cursor: int) -> Matches | None:
        """Members and options on the magic's own line."""
        if cursor < start:
            return None
        before = text[start:cursor]
        word = re.split(r"[\s,]", before)[-1]
        if word.startswith("-"):
            options = COORDINATOR_OPTIONS if magic == "coordinator" else OPTIONS
            return _matching([option for option in options if option not in before.split()], word, cursor)
        words = before.split()
        previous = words[-1] if not word and words else (words[-2] if len(words) > 1 else "")
        if magic == "coordinator" or not self._session.connected or previous in ("--timeout", "-o", "--ask"):
            return Matches([], cursor, cursor, {})
        named = re.split(r"[\s,]+", before[: len(before) - len(word)])
        choices = [name for name in self._session.federation.parties if name not in named]
        return _matching([*choices, *([] if any(named) else ["all"])], word, cursor)


def _matching(choices: Sequence[str] | dict[str, str], word: str, cursor: int) -> Matches:
    return Matches([choice for choice in choices if choice.startswith(word)], cursor - len(word), cursor, {})


def install(shell: InteractiveShell, completer: Completer) -> None:
    """Hook it into IPython: a kernel's two request handlers, and the terminal's matchers."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        shell.Completer.custom_matchers.append(_matcher(completer))
        return
    local_complete, local_inspect = kernel.do_complete, kernel.do_inspect

    async def do_complete(code: str, cursor_pos: int | None) -> Any:
        cursor = len(code) if cursor_pos is None else cursor_pos
        got = completer.complete(code, cursor)
        if got is None:
            answer = local_complete(code, cursor_pos)
            return await answer if inspect.isawaitable(answer) else answer
        shown = [
            {"start": got.start, "end": got.end, "text": text, "type": got.types.get(text, ""), "signature": ""}
            for text in got.texts
        ]
        return {
            "status": "ok",
            "matches": got.texts,
            "cursor_start": got.start,
            "cursor_end": got.end,
            "metadata": {"_jupyter_types_experimental": shown},
        }

    async def do_inspect(code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()) -> Any:
        data = completer.inspect(code, cursor_pos, detail=bool(detail_level))
        if data is None:
            answer = local_inspect(code, cursor_pos, detail_level, omit_sections)
            return await answer if inspect.isawaitable(answer) else answer
        return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}

    kernel.do_complete, kernel.do_inspect = do_complete, do_inspect


def _matcher(completer: Completer) -> Any:
    @context_matcher(identifier="fednb", priority=1000)  # type: ignore[untyped-decorator]
    def fednb(context: CompletionContext) -> SimpleMatcherResult:
        text = context.full_text
        lines = text.split("\n")
        cursor = sum(len(line) + 1 for line in lines[: context.cursor_line]) + context.cursor_position
        got = completer.complete(text, cursor)
        if got is None:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(name, type=got.types.get(name)) for name in got.texts],
            "matched_fragment": text[got.start : cursor],
            "suppress": True,
        }

    return fednb
