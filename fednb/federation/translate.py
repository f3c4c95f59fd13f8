"""What of a kernel's messages may leave a member, and in which form: Jupyter's words into ours.

Everything is rebuilt from what is known to be harmless; nothing is passed through because it looked so.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from fednb.federation import messages as m

MATCHES = 500  # completions in one answer

MIME_TYPES = frozenset(
    [
        "text/plain",
        "text/html",
        "text/latex",
        "text/markdown",
        "image/png",
        "image/jpeg",
        "image/svg+xml",
        "application/json",
        "application/vnd.fednb.view+json",
    ]
)

TYPES = ("function", "instance", "class", "module", "keyword", "magic", "path", "dict key", "param")


def capture(request: m.Execute) -> dict[str, str]:
    """What the kernel evaluates after the cell, to hand values asked for with -o to its agent."""
    if not request.capture:
        return {}
    names = json.dumps([name for name in request.capture if re.fullmatch(r"[^\W\d]\w{0,200}", name)])
    return {"fednb": f"__import__('fednb.federation.kernel_side', fromlist=['put']).put({request.cell!r}, {names})"}


def leaves(reply: Mapping[str, Any]) -> bool:
    """Whether the cell said exit() or quit(), which a kernel does a moment after its reply."""
    payload = reply.get("payload")
    return isinstance(payload, list) and any(
        isinstance(entry, Mapping) and entry.get("source") == "ask_exit" and not entry.get("keepkernel")
        for entry in payload
    )


def presentable(data: object) -> dict[str, Any]:
    """What of a MIME bundle may leave: known types, text where they are text. The analyst's side sanitises again."""
    if not isinstance(data, Mapping):
        return {}
    kept: dict[str, Any] = {}
    for mime, value in data.items():
        if mime not in MIME_TYPES:
            continue
        if mime.endswith("json") or isinstance(value, str):
            kept[mime] = value
    return kept


def sizes(metadata: object) -> dict[str, Any]:
    """Of the metadata: widths and heights of images."""
    if not isinstance(metadata, Mapping):
        return {}
    kept: dict[str, Any] = {}
    for mime, entry in metadata.items():
        if mime in MIME_TYPES and isinstance(entry, Mapping):
            sizes = {k: v for k, v in entry.items() if k in ("width", "height") and isinstance(v, int | float)}
            if sizes:
                kept[mime] = sizes
    return kept


def size(value: object) -> int:
    return len(value) if isinstance(value, str) else len(json.dumps(value, default=str))


def answer(request: m.Complete | m.Inspect, kind: str, content: Mapping[str, Any]) -> m.Completions | m.Inspection:
    """The kernel's reply to a question."""
    if content.get("status") == "ok" and isinstance(request, m.Complete) and kind == "complete_reply":
        matches = [str(match) for match in itertools.islice(content.get("matches") or [], MATCHES)]
        types = (content.get("metadata") or {}).get("_jupyter_types_experimental") or []
        return m.Completions(
            request.query,
            matches,
            int(content.get("cursor_start", request.cursor)),
            int(content.get("cursor_end", request.cursor)),
            {str(t["text"]): str(t["type"]) for t in types if t.get("text") in matches and t.get("type") in TYPES},
        )
    if content.get("status") == "ok" and isinstance(request, m.Inspect) and kind == "inspect_reply":
        text = (content.get("data") or {}).get("text/plain")
        data = {"text/plain": str(text)[: 1 << 20]} if text else {}
        return m.Inspection(request.query, bool(content.get("found")), data)
    return no_answer(request)


def no_answer(request: m.Complete | m.Inspect) -> m.Completions | m.Inspection:
    """Nothing is known, or nobody is free to say."""
    if isinstance(request, m.Complete):
        return m.Completions(request.query, [], request.cursor, request.cursor)
    return m.Inspection(request.query, False)
