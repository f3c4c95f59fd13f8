"""What the JupyterLab extension costs: at start-up, and for each key typed in a notebook of 200 cells.

The yardstick is JupyterLab without the extension: a second server with all the others, the same notebook and browser,
turn by turn, each page in a browser that has loaded nothing before. What start-up costs is processor time of the page's
main thread, from the first script to the launcher: compiling and running the extension's files, activation, and what
follows from that.

    python benchmarks/lab.py [--starts 12] [--repeats 4]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_core.paths import jupyter_path
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from fednb.notebook import labextension

CELLS, KEYS = 200, 300
AIM = 50.0  # milliseconds of start-up
CHROMIUM = "--no-sandbox --disable-dev-shm-usage --disable-gpu --no-first-run --disable-background-networking"

LOADED = """() => {
    const files = performance.getEntriesByType('resource').filter(file => file.name.includes('/fednb-lab/static/'));
    const took = name => performance.getEntriesByName(name, 'measure').reduce((sum, each) => sum + each.duration, 0);
    return { files: files.length, bytes: files.reduce((sum, file) => sum + file.decodedBodySize, 0),
        span: Math.max(0, ...files.map(f => f.responseEnd)) - Math.min(...files.map(f => f.startTime)),
        activate: took('fednb-lab:activate') };
}"""
TRACED = {  # kinds of Chromium's trace events that name one of our files; processor time
    "main": {"EvaluateScript", "v8.compileModule", "ParseAuthorStyleSheet", "FunctionCall"},
    "background": {"BackgroundJSStreamManager::RunScriptStreamingTask"},
}
TYPE = """async keys => {
    const cell = window.jupyterapp.shell.currentWidget.content.widgets[100];
    const frame = () => new Promise(requestAnimationFrame);
    const took = [];
    await new Promise(resolve => requestIdleCallback(resolve, { timeout: 20000 }));
    for (let i = 0; i < keys; i += 1) {
        cell.editor.setCursorPosition({ line: i % 2, column: 9 });  // by turns in the magic's line and below it
        await frame();
        const began = performance.now();
        cell.editor.replaceSelection('x');
        if (i >= keys / 3) took.push(performance.now() - began);  // the first are for warming up
    }
    return took;
}"""


@contextmanager
def server(folder: Path, *, extension: bool) -> Iterator[str]:
    """A JupyterLab with or without the extension; gives its address, with places for a page and the token."""
    folder.mkdir()
    (folder / "work").mkdir()
    cells = [nbformat.v4.new_code_cell(f"%%party bank,agency\nx{k} = {k}\n" + "y = 1\n" * 10) for k in range(CELLS)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "work" / "many.ipynb")
    labextension.install(prefix=str(folder / "prefix"))
    ours = folder / "prefix" / "share" / "jupyter" / "labextensions"
    others = folder / "labextensions"  # all that is installed here, but for ours
    others.mkdir()
    for place in jupyter_path("labextensions"):
        for each in Path(place).glob("*"):
            if each.name != labextension.NAME and not (others / each.name).exists():
                (others / each.name).symlink_to(each)
    paths = [str(others), *([str(ours)] if extension else [])]
    environment = os.environ | {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {f"JUPYTERLAB_{kind}_DIR": str(folder / kind) for kind in ("SETTINGS", "WORKSPACES")}
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += ["--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"]
    command += [f"--LabApp.labextensions_path={path}" for path in paths]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'work'}"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        for line in process.stderr:
            if found := re.search(r"(http://127\.0\.0\.1:[1-9]\d*)/lab", line):
                threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would hold it up
                yield f"{found[1]}/lab/workspaces/w{{}}{{}}?token={token}"
                break
    finally:
        process.terminate()
        process.wait()


@contextmanager
def visit(browser: Browser, address: str, tree: str = "", *, traced: bool = False) -> Iterator[tuple[Page, CDPSession]]:
    """A page in a browser that has loaded nothing before, and what measures the processor time of its main thread."""
    context = browser.new_context(viewport={"width": 1400, "height": 950})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.add_init_script("performance.setResourceTimingBufferSize(5000)")  # else the last files are not listed
    meter = context.new_cdp_session(page)
    meter.send("Performance.enable", {"timeDomain": "threadTicks"})
    if traced:
        categories = ["devtools.timeline", "v8", "disabled-by-default-v8.compile"]
        browser.start_tracing(page=page, categories=categories)
    page.goto(address.format(secrets.token_hex(4), tree))
    yield page, meter
    context.close()


def start(browser: Browser, address: str, *, extension: bool) -> tuple[dict[str, float], float]:
    """(what the extension's files took, processor milliseconds of the main thread until JupyterLab stands there)."""
    with visit(browser, address, traced=True) as (page, meter):
        page.wait_for_selector(".jp-LauncherCard")
        page.evaluate("window.jupyterapp.restored.then(() => true)")
        page.evaluate("new Promise(done => requestIdleCallback(() => done(true), { timeout: 20000 }))")
        loaded = page.evaluate(LOADED)
        assert bool(loaded["files"]) == extension, f"{loaded}, extension: {extension}"
        metrics = {each["name"]: each["value"] for each in meter.send("Performance.getMetrics")["metrics"]}
        events = json.loads(browser.stop_tracing())["traceEvents"]
    for name, kinds in TRACED.items():
        ours = (e for e in events if e["name"] in kinds and "/fednb-lab/static/" in json.dumps(e.get("args")))
        loaded[name] = sum(e.get("tdur", 0) for e in ours) / 1000
    return loaded, 1000 * metrics["TaskDuration"]


def type_keys(browser: Browser, address: str, *, extension: bool) -> list[float]:
    """What each key took in a notebook of many cells, milliseconds."""
    with visit(browser, address, "/tree/many.ipynb") as (page, _):
        page.wait_for_selector(".jp-Notebook .jp-Cell .cm-content")
        if extension:
            page.wait_for_selector(".fednb-lab-strip")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets?.length >= 200")
        page.evaluate("window.jupyterapp.shell.currentWidget.content.scrollToItem(100)")
        page.wait_for_function("window.jupyterapp.shell.currentWidget.content.widgets[100].editor")
        return list(page.evaluate(TYPE, KEYS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=12, help="pairs of page loads")
    parser.add_argument("--repeats", type=int, default=4, help="pairs of notebooks that are typed in")
    parsed = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        with (
            server(scratch / "with", extension=True) as ours,
            server(scratch / "without", extension=False) as bare,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM.split())
            measure(browser, {True: ours, False: bare}, parsed.starts, parsed.repeats)
            browser.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def measure(browser: Browser, addresses: dict[bool, str], starts: int, repeats: int) -> None:
    for extension, address in addresses.items():
        start(browser, address, extension=extension)  # the first page warms the server's caches
    busy: dict[bool, list[float]] = {True: [], False: []}
    loads = []
    for turn in range(starts):
        for extension in (True, False) if turn % 2 else (False, True):
            loaded, took = start(browser, addresses[extension], extension=extension)
            busy[extension].append(took)
            loads += [loaded] if extension else []
    middle = {name: statistics.median(each[name] for each in loads) for name in loads[0]}
    print(
        f"{middle['files']:.0f} files, {middle['bytes'] / 1000:.0f} kB, there {middle['span']:.0f} ms after the first "
        "was asked for, beside all others"
    )
    own = [each["main"] + each["background"] + each["activate"] for each in loads]
    print(f"of its own: {statistics.median(own):.1f} ms of processor time (aim: under {AIM:g} ms)")
    parts = {"background": "files parsed beside the page", "main": "compiled and run", "activate": "activation"}
    print("  " + ", ".join(f"{words} {middle[name]:.1f} ms" for name, words in parts.items()))
    more = [with_it - without for with_it, without in zip(busy[True], busy[False], strict=True)]
    low, _, high = statistics.quantiles(more, n=4)
    print(
        f"processor time of the page until it stands: {statistics.median(busy[True]):,.0f} ms, without the extension "
        f"{statistics.median(busy[False]):,.0f} ms; pair by pair {statistics.median(more):+.0f} ms "
        f"(quartiles {low:+.0f}, {high:+.0f}; noisy)"
    )
    keys: dict[bool, list[float]] = {True: [], False: []}
    if not repeats:
        return
    for _ in range(repeats):
        for extension in (True, False):
            keys[extension].extend(type_keys(browser, addresses[extension], extension=extension))
    for name, extension in (("with", True), ("without", False)):
        for where, turn in (("in the magic's line", 0), ("below it", 1)):
            took = sorted(keys[extension][turn::2])  # KEYS is even: turns stay in step
            low, mid = took[len(took) // 10], statistics.median(took)
            print(f"a key in {CELLS} cells, {name:>7} the extension, {where}: {mid:.2f} ms (lowest tenth {low:.2f})")


if __name__ == "__main__":
    main()
