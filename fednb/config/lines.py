"""Where in a TOML file each key stands, so that an error can name the line."""

from __future__ import annotations

import re
from pathlib import Path

_KEY = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*(\.?)""")


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """On which line each section and key of valid TOML stands, best effort (inline tables give their own line)."""
    found: dict[tuple[str, ...], int] = {}
    section: tuple[str, ...] = ()
    quote = ""  # inside a multi-line string that ends with this
    depth = 0  # inside a multi-line array
    for number, line in enumerate(text.splitlines(), start=1):
        rest = line
        if quote:
            head, ended, rest = line.partition(quote)
            if not ended:
                continue
            quote = ""
        elif depth == 0:
            opened = re.match(r"\s*\[+", line)
            keys, at = _keys(line, opened.end() if opened else 0)
            if opened:
                section = keys
            elif keys:
                keys = (*section, *keys)
            for n in range(1, len(keys) + 1):
                found.setdefault(keys[:n], number)
            if opened or not keys:
                continue
            rest = line[at:]
        # strings and comments may hold brackets, so they go first
        while (start := re.search(r'"""|\'\'\'', rest)) is not None:
            before, mark = rest[: start.start()], start.group()
            inside, ended, rest = rest[start.end() :].partition(mark)
            depth += _nesting(before)
            if not ended:
                quote, rest = mark, ""
        depth += _nesting(rest)
    return found


def _keys(line: str, at: int) -> tuple[tuple[str, ...], int]:
    keys: list[str] = []
    while (match := _KEY.match(line, at)) is not None:
        part = match.group(1)
        keys.append(part[1:-1] if part[0] in "\"'" else part)
        at = match.end()
        if not match.group(2):
            break
    return tuple(keys), at


def _nesting(line: str) -> int:
    bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'[^\']*\'|#.*', "", line)
    return bare.count("[") - bare.count("]")


def placed(path: Path, message: str) -> str:
    """The message with the file and line put before it, where it begins with a key that the file has."""
    key = message.partition(": ")[0]
    line = next((n for at, n in lines_of(path.read_text(encoding="utf-8")).items() if ".".join(at) == key), None)
    return message if line is None else f"{path}, line {line}: {message}"
