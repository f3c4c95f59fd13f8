"""What may reach the analyst's browser of a rich output that a remote member sent.

The member's owner, or whoever broke into its kernel, is not the analyst: markup from there must not run script, load
anything from the network, cover the notebook's own controls or reach its DOM. So types and their metadata are taken
from a short list, HTML is rebuilt by nh3 from a list of harmless tags, attributes and style properties, images are
decoded and encoded again, and everything that acts (JavaScript, widgets, Markdown, LaTeX, plots that are programs)
is replaced by its plain text.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import nh3

from fednb.notebook import ansi

MAX_TEXT = 1 << 20  # characters of plain text in one output
MAX_HTML = 4 << 20  # characters
MAX_IMAGE = 12 << 20  # bytes

_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}
SVG = "image/svg+xml"
_SOURCES = ("text/markdown", "text/latex")  # shown as they were written: their renderers follow links and run macros

_TAGS = {
    *("table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "colgroup", "col"),
    *("div", "span", "p", "br", "hr", "pre", "code", "kbd", "samp", "blockquote", "details", "summary"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd"),
    *("b", "strong", "i", "em", "u", "s", "small", "sub", "sup", "img"),
}
_ATTRIBUTES = {
    "*": {"style", "title", "align", "dir", "lang"},
    "table": {"border"},
    "th": {"colspan", "rowspan", "scope", "valign"},
    "td": {"colspan", "rowspan", "valign"},
    "col": {"span"},
    "colgroup": {"span"},
    "ol": {"start"},
    "details": {"open"},
    "img": {"src", "alt", "width", "height"},
}
# no position, no margin, no display: nothing that could lie over the notebook or outside its own place
_STYLES = {
    *("color", "background-color", "text-align", "vertical-align", "font-weight", "font-style", "font-size"),
    *("text-decoration", "white-space", "width", "min-width", "max-width", "border", "border-color", "border-collapse"),
    *("border-top", "border-bottom", "border-left", "border-right"),
}
# values that fetch, compute, or hide a function's name behind a CSS escape
_ACTIVE_STYLE = re.compile(r"url|image|expression|var\s*\(|env\s*\(|attr\s*\(|@|\\|/\*|<", re.IGNORECASE)
# markup that is a program, or styled by one: without its script it reads worse than its plain text
_NEEDS_SCRIPT = re.compile(r"<(?:script|input|button|canvas|iframe|object)\b", re.IGNORECASE)
_DATA_IMAGE = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/=\s]*)\Z")
_DROPPED_WITH_CONTENT = {
    *("script", "style", "iframe", "object", "embed", "applet", "template", "noscript", "svg", "math", "form"),
    *("select", "textarea", "button", "audio", "video", "canvas", "title", "head", "frameset", "noembed", "noframes"),
    *("xmp", "plaintext"),
}


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Text with colours and no other control, cut at `limit` characters with a note that says so."""
    cut = len(text) > limit
    shown = ansi.clean(text[:limit])
    return f"{shown}\x1b[0m\n[{len(text) - limit:,} more characters are not shown]" if cut else shown


def clean_html(markup: str) -> str:
    """Markup rebuilt from harmless tags only; a table of pandas comes out as a table."""
    cleaned: str = nh3.clean(
        markup,
        tags=_TAGS,
        clean_content_tags=_DROPPED_WITH_CONTENT,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        allowed_classes={"table": {"dataframe"}},
        filter_style_properties=_STYLES,
        url_schemes={"data"},  # of images only, as `_attribute` checks; links are not among the tags
        url_relative="deny",
        link_rel=None,
    )
    return cleaned


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "src":
        found = _DATA_IMAGE.match(value)
        shown = _image(found[1], found[2]) if found else None
        return f"data:{found[1]};base64,{shown}" if found and shown else None
    if name == "style":
        return None if _ACTIVE_STYLE.search(value) else value
    if name in ("width", "height", "border", "colspan", "rowspan", "span", "start"):
        return value if re.fullmatch(r"[0-9]{1,5}%?", value) else None
    return value


def clean_bundle(
    member: str, data: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A MIME bundle and its metadata, safe to publish under the analyst's cell. Never empty."""
    kept: dict[str, Any] = {}
    notes: list[str] = []
    markup = data.get("text/html")
    if isinstance(markup, str) and not ("text/plain" in data and _NEEDS_SCRIPT.search(markup)):
        if len(markup) <= MAX_HTML:
            kept["text/html"] = clean_html(markup)
        else:
            notes.append(f"[{member} sent {len(markup):,} characters of HTML; at most {MAX_HTML:,} are shown]")
    for mime in _MAGIC:
        if isinstance(data.get(mime), str):
            image = _image(mime, data[mime])
            if image:
                kept[mime] = image
            else:
                notes.append(f"[{member} sent an {mime} that is broken or too large]")
    if "text/html" not in kept and isinstance(data.get(SVG), str):
        kept["text/html"] = svg_image(data[SVG])
    plain = _plain(data)
    if plain is None and not kept and not notes:
        notes.append(f"[{member} sent {', '.join(sorted(_short(mime) for mime in data)) or 'nothing'}: not shown]")
    text = "\n".join([*notes, *([clean_text(plain)] if plain is not None else [])])
    if text or not kept:
        kept["text/plain"] = text
    return kept, _metadata(metadata, kept)


def svg_image(source: str) -> str:
    """An SVG as an <img>: there it can neither run script nor load anything."""
    raw = source.encode(errors="replace")
    if len(raw) > MAX_IMAGE:
        return "<em>[an SVG that is too large is not shown]</em>"
    return f'<img alt="SVG" src="data:{SVG};base64,{base64.b64encode(raw).decode("ascii")}">'


def _image(mime: str, encoded: str) -> str | None:
    """The image encoded anew, so that nothing but base64 is in it; None when it is not what it says."""
    if len(encoded) > MAX_IMAGE * 4 // 3 + 4096:
        return None
    try:
        raw = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return base64.b64encode(raw).decode("ascii") if raw.startswith(_MAGIC[mime]) else None


def _plain(data: Mapping[str, Any]) -> str | None:
    for mime in (*_SOURCES, "text/plain"):
        if isinstance(data.get(mime), str):
            return str(data[mime])
    if "application/json" in data:
        try:
            return json.dumps(data["application/json"], indent=1, ensure_ascii=False, default=str)
        except (TypeError, ValueError):  # keys that JSON does not have
            return None
    return None


def _metadata(metadata: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of images, as numbers; nothing else of it is of use here."""
    allowed: dict[str, Any] = {}
    for mime in _MAGIC:
        given = metadata.get(mime)
        if mime in kept and isinstance(given, Mapping):
            sizes = {
                side: given[side]
                for side in ("width", "height")
                if type(given.get(side)) in (int, float) and 0 < given[side] <= 10_000
            }
            if sizes:
                allowed[mime] = sizes
    return allowed


def _short(mime: str) -> str:
    return ansi.plain(mime)[:80].replace("\n", " ")
