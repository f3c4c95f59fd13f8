"""The page's modules by themselves, in a browser: the magic's line, states in words, what is out of range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route

ROOT = Path(__file__).parents[3]
PLACES = [ROOT / "extensions" / "lab" / "static", ROOT / "fednb" / "notebook" / "widgets"]
ORIGIN = "http://fednb.test"


@pytest.fixture(scope="module")
def module(browser: Any) -> Iterator[Callable[[str, str], Any]]:
    """module("magic.js", "m => m.parse('...')"): a value of a module's."""
    page: Page = browser.new_page()

    def answer(route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        found = [place / name for place in PLACES if name and (place / name).is_file()]
        if found:
            route.fulfill(body=found[0].read_text(), content_type="text/javascript")
        else:
            route.fulfill(body="<!doctype html>", content_type="text/html")

    page.route(f"{ORIGIN}/**", answer)
    page.goto(f"{ORIGIN}/")
    yield lambda name, code: page.evaluate(f"import('{ORIGIN}/{name}').then({code})")
    page.close()


@pytest.mark.parametrize(
    ("source", "kind", "names", "options"),
    [
        ("%%party bank\nx", "party", ["bank"], ""),
        ("\n \n%%party bank,agency --noblock\nx", "party", ["bank", "agency"], "--noblock"),
        ("%%party --timeout 5 bank agency", "party", ["bank", "agency"], "--timeout 5"),
        ("%%party bank -o x --output y", "party", ["bank"], "-o x --output y"),
        ('%%party bank --ask "for bank, agency"', "party", ["bank"], '--ask "for bank, agency"'),
        ('%%party bank --ask "open', "party", ["bank"], '--ask "open'),
        ("%%party", "party", [], ""),
        ("%%coordinator -o x\ny", "coordinator", [], "-o x"),
    ],
)
def test_a_magics_line_is_read(module: Any, source: str, kind: str, names: list[str], options: str) -> None:
    found = module("magic.js", f"m => m.parse({source!r})")
    assert (found["kind"], found["names"], found["options"]) == (kind, names, options)


@pytest.mark.parametrize(
    "source", ["", "x = 1", "%%partyx bank", "# %%party bank", "x\n%%party bank", "%%time\n1", "%party"]
)
def test_what_is_no_magic_of_ours_is_none(module: Any, source: str) -> None:
    assert module("magic.js", f"m => m.parse({source!r})") is None


@pytest.mark.parametrize(
    ("source", "names", "written"),
    [
        ("x = 1", ["bank"], "%%party bank\nx = 1"),
        ("%%party bank --timeout 5\nx", ["agency"], "%%party agency --timeout 5\nx"),
        ("\n%%party bank -o v\nx", ["coordinator"], "\n%%coordinator -o v\nx"),
        ("%%coordinator\nx", ["bank", "agency"], "%%party bank,agency\nx"),
        ("%%party bank --noblock\nx", [], "x"),
        ("%%party bank", [], ""),
        ("x", [], "x"),
    ],
)
def test_a_magics_line_is_written_and_keeps_its_options(
    module: Any, source: str, names: list[str], written: str
) -> None:
    code = f"""m => {{ const s = {source!r}; const e = m.rewritten(s, {names!r}, 'coordinator');
        return s.slice(0, e.start) + e.text + s.slice(e.end); }}"""
    assert module("magic.js", code) == written


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("%%party bank\nx", "%%party bank --dry-run\nx"),
        ("\n%%party bank --ask 'so'  \nx", "\n%%party bank --ask 'so' --dry-run\nx"),
        ("%%party bank --dry-run\nx", "%%party bank --dry-run\nx"),
        ("%%party bank", "%%party bank --dry-run"),
        ("x = 1", "x = 1"),
    ],
)
def test_a_dry_run_is_sent_with_its_option(module: Any, source: str, sent: str) -> None:
    assert module("magic.js", f"m => m.withOption({source!r}, '--dry-run')") == sent


def test_a_dry_run_is_never_just_done(module: Any) -> None:
    places = [{"member": "bank", "state": "ok", "seconds": 1.0}]
    found = module("cells.js", f"m => m.summary({places!r}, 0, true)")
    assert found["text"] == "dry run on invented rows: done in"


@pytest.mark.parametrize(
    ("states", "said", "time"),
    [
        ({"bank": ("waiting", 1)}, "queued", "3.0 s"),
        ({"bank": ("running", 1), "agency": ("ok", 9), "telco": ("waiting", 0)}, "running on 2 of 3", "9.0 s"),
        ({"bank": ("running", 1)}, "running", "3.0 s"),
        ({"bank": ("pending", 58), "agency": ("ok", 1)}, "pending approval at bank", "1:00"),
        ({"bank": ("ok", 2), "agency": ("refused", 0)}, "refused by agency", ""),
        ({"bank": ("ok", 2), "agency": ("error", 1)}, "failed at agency", "2.0 s"),
        ({"bank": ("ok", 2), "agency": ("ok", 0.14)}, "done in", "2.0 s"),
    ],
)
def test_a_cells_state_is_said_in_words(
    module: Any, states: dict[str, tuple[str, float]], said: str, time: str
) -> None:
    places = [{"member": name, "state": state, "seconds": seconds} for name, (state, seconds) in states.items()]
    found = module("cells.js", f"m => m.summary({places!r}, 2)")
    assert (found["text"], found["time"]) == (said, time)


def test_a_home_that_two_notebooks_opened_counts_once_and_what_came_is_told_once(module: Any) -> None:
    code = """m => {
        const link = (inboxes) => ({ inboxes, hear: null, listen(hear) { this.hear = hear; return () => undefined; } });
        const asks = (home, ...ids) => ({ home, requests: ids.map(id => ({ id, state: 'pending' })) });
        const one = link([asks('/a', 1, 2)]), two = link([asks('/a', 1, 2), asks('/b', 3)]);
        const arrived = [], counts = [], notes = [];
        const changed = () => counts.push(inboxes.waiting);
        const inboxes = new m.Inboxes(changed, n => arrived.push(n), n => notes.push(n.text));
        inboxes.add(one); inboxes.add(two);
        one.hear('inbox', {}); two.hear('inbox', {}); two.hear('inbox', {}); one.hear('runs', {});
        one.inboxes = [asks('/a', 2, 4)];
        one.hear('inbox', {}); two.hear('note', { text: 'done' });
        inboxes.remove(one); inboxes.remove(two);
        return [arrived, counts, notes];
    }"""
    assert module("inboxes.js", code) == [[3, 1], [3, 3, 3, 3, 3, 3, 0], ["done"]]


@pytest.mark.parametrize(
    ("name", "version", "known"),
    [
        ("JupyterLab", "4.6.6", True),
        ("JupyterLab", "4.3.9", False),
        ("JupyterLab", "5.0.0", False),
        ("Jupyter Notebook", "7.6.5", True),
        ("Jupyter Notebook", "8.0.0a1", False),
        ("Jupyter Notebook", "7.3.0", False),
    ],
)
def test_front_ends_in_range_are_known(module: Any, name: str, version: str, known: bool) -> None:
    assert module("plugin.js", f"m => m.supported({name!r}, {version!r})") is known


def test_a_name_that_is_markup_becomes_text(module: Any) -> None:
    bad = "<img src=x onerror=alert(1)>"
    code = f"""m => {{ const e = m.make('td', {{ text: {bad!r}, title: {bad!r}, 'aria-label': {bad!r} }});
        return [e.children.length, e.textContent, e.title]; }}"""
    assert module("dom.js", code) == [0, bad, bad]
