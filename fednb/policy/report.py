"""The audit log for people: a record of processing (GDPR art. 30), and who ran what for a model-risk review.

One static page without scripts. Whatever stands in it came from a log, and may have come from anybody: all of it is
escaped, and control characters are taken out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from fednb.policy import audit
from fednb.text import plain

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere }
th { background: #f4f4f4 } td.n { text-align: right; white-space: nowrap }
pre { white-space: pre-wrap; margin: 0; font-size: 13px } .bad { color: #a00; font-weight: 600 }
"""


def as_json(folder: Path, member: str, verdict: audit.Verdict) -> bytes:
    """The log as it is, the texts that were not erased, and what `verify` found."""
    found = list(audit.entries(folder))
    texts = {digest: audit.text_of(folder, digest) for digest in _digests(found)}
    document = {"member": member, "verified": verdict, "entries": found, "texts": texts}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def as_html(folder: Path, member: str, verdict: audit.Verdict) -> str:
    """The report, a whole page."""
    found = list(audit.entries(folder))
    ends = {(_kind(e), e.get("cell") or e.get("run")): e for e in found if str(e.get("event")).endswith(" ended")}
    parts = [
        f"<h1>Audit report of {_e(member)}</h1>",
        _state(verdict, found),
        "<h2>Processing</h2>",
        "<p>Who asked for what, by protocol or mode: the categories of processing and of recipients.</p>",
        _processing(found),
        "<h2>What left this member</h2>",
        _crossed(found),
        "<h2>Runs</h2>",
        _runs(found, ends),
        "<h2>Cells</h2>",
        _cells(folder, found, ends),
        "<h2>Other entries</h2>",
        _others(found),
    ]
    head = f'<meta charset="utf-8"><title>Audit report of {_e(member)}</title><style>{_STYLE}</style>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    return f'<!doctype html><html lang="en"><head>{policy}{head}</head><body>{"".join(parts)}</body></html>\n'


def _state(verdict: audit.Verdict, found: Sequence[Mapping[str, Any]]) -> str:
    if verdict.problems:
        items = "".join(f"<li>{_e(problem)}</li>" for problem in verdict.problems)
        return f'<p class="bad">This log does not verify. What follows cannot be relied on.</p><ul>{items}</ul>'
    between = f", from {_when(found[0])} to {_when(found[-1])}" if found else ""
    torn = f" A last line was torn by a crash ({verdict.torn} bytes)." if verdict.torn else ""
    return (
        f"<p>{verdict.entries} entries{between}. The chain verifies; {verdict.witnessed} heads that others keep agree; "
        f"{verdict.erased} texts were erased.{torn}</p><p>Head: <code>{_e(verdict.head)}</code></p>"
    )


def _processing(found: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(
        (
            _kind(e),
            str(e.get("by", "")),
            str(e.get("rule", "")),
            str(e.get("table") or e.get("frame") or ""),
            str(e.get("decision", "")),
        )
        for e in found
        if e.get("event") in ("cell", "run")
    )
    rows = [[*key, count] for key, count in sorted(counts.items())]
    return _table(["kind", "asked by", "rule", "data", "decision", "times"], rows)


def left(found: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str, int, int, int]]:
    """What left a member by its log: (to, what, rule, messages, values, bytes), summed, in order."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for entry in found:
        for each in _list(entry.get("crossed")):
            key = (str(each.get("to")), str(each.get("what")), str(entry.get("rule", "")))
            counts = sums.setdefault(key, [0, 0, 0])
            for i, name in enumerate(("messages", "values", "bytes")):
                counts[i] += each[name] if isinstance(each.get(name), int) else 0
    return [(*key, *counts) for key, counts in sorted(sums.items())]  # type: ignore[misc]


def _crossed(found: Sequence[Mapping[str, Any]]) -> str:
    return _table(["to", "what", "rule", "messages", "values", "bytes"], left(found))


def _runs(found: Sequence[Mapping[str, Any]], ends: Mapping[tuple[str, Any], Mapping[str, Any]]) -> str:
    rows = []
    for entry in found:
        if entry.get("event") == "run":
            end = ends.get(("run", entry.get("run")), {})
            data = {k: entry[k] for k in ("table", "frame", "part", "rows", "columns", "label") if entry.get(k)}
            rows.append(
                [
                    _when(entry),
                    entry.get("run"),
                    entry.get("by"),
                    entry.get("decision"),
                    entry.get("rule"),
                    _words(data),
                    _words(entry.get("cast")),
                    _words(entry.get("params")),
                    end.get("status", ""),
                ]
            )
    return _table(["when (UTC)", "run", "asked by", "decision", "rule", "data", "members", "parameters", "end"], rows)


def _cells(folder: Path, found: Sequence[Mapping[str, Any]], ends: Mapping[tuple[str, Any], Mapping[str, Any]]) -> str:
    rows = []
    for entry in found:
        if entry.get("event") == "cell":
            end = ends.get(("cell", entry.get("cell")), {})
            sent = sum(each["bytes"] for each in _list(end.get("crossed")) if isinstance(each.get("bytes"), int))
            rows.append(
                [
                    _when(entry),
                    entry.get("by"),
                    entry.get("decision"),
                    entry.get("rule"),
                    end.get("status", ""),
                    sent,
                    _Pre(_text(folder, entry.get("code"))),
                    _Pre(_text(folder, end.get("output"))),
                ]
            )
    return _table(["when (UTC)", "asked by", "decision", "rule", "end", "bytes", "code", "output"], rows)


def _others(found: Sequence[Mapping[str, Any]]) -> str:
    shown = ("n", "at", "event", "prev", "hash")
    rows = [
        [_when(e), e.get("event"), _words({k: v for k, v in e.items() if k not in shown})]
        for e in found
        if _kind(e) not in ("cell", "run")
    ]
    return _table(["when (UTC)", "event", "details"], rows)


class _Pre(str):
    """Text that keeps its line breaks."""


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["".join(_cell(value) for value in row) for row in rows]
    if not lines:
        return "<p>None.</p>"
    titles = "".join(f"<th>{_e(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    if isinstance(value, _Pre):
        return f"<td><pre>{_e(value)}</pre></td>"
    return f"<td>{_e(value)}</td>"


def _e(value: object) -> str:
    return "" if value is None else escape(plain(str(value), 20_000))


def _words(value: object) -> str:
    return msgspec.json.encode(value).decode() if value else ""


def _when(entry: Mapping[str, Any]) -> str:
    at = entry.get("at")
    if not isinstance(at, int | float) or not 0 <= at < 1e11:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def _kind(entry: Mapping[str, Any]) -> str:
    return str(entry.get("event", "")).removesuffix(" ended")


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _digests(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({str(e[name]) for e in found for name in ("code", "output") if e.get(name)})


def _text(folder: Path, digest: object) -> str:
    if not digest:
        return ""
    text = audit.text_of(folder, str(digest))
    return "(erased)" if text is None else text
