"""Text of other members, before it reaches a person's terminal or notebook."""

from __future__ import annotations

import unicodedata

_ACTING = ("Cc", "Cf", "Cs", "Co")  # control, format, surrogate, private use

LIMIT = 4_000  # characters of one message; more is no explanation


def plain(text: str, limit: int = LIMIT) -> str:
    """The text without control and format characters (terminal escapes, bidirectional overrides), cut at `limit`.

    Line breaks and tabs stay. A hostile name or error message can then be long and wrong, but it cannot move a
    cursor, hide a line or pose as something else.
    """
    kept = "".join(c for c in text[: limit + 1] if c in "\n\t" or unicodedata.category(c) not in _ACTING)
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"
