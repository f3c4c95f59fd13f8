"""What the JupyterLab extension costs: at start-up, and for each key typed in a notebook of 200 cells.

The yardstick is JupyterLab without the extension, the same server, notebook and browser, turn by turn. Loading counts
from the request for its first file to the last; activation is what holds up JupyterLab's own start.

    python benchmarks/lab.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, sync_playwright

from fednb.notebook import labextension

CELLS, KEYS = 200, 300
AIM = 50.0  # milliseconds of start-up
CHROMIUM = "--no-sandbox --disable-dev-shm-usage --disable-gpu --no-first-run --disable-background-networking"

LOADED = """() => {
    const files = performance.getEntriesByType('resource').filter(file => file.name.includes('/fednb-lab/static/'));
    const span = Math.max(0, ...files.map(f => f.responseEnd)) - Math.min(...files.map(f => f.startTime));
    return [span, window._JUPYTERLAB['fednb-lab']?.activation ?? 0];
}"""
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
def server(folder: Path) -> Iterator[str]:
    """A JupyterLab with the extension; gives the address of the notebook, token included."""
    labextension.install(prefix=str(folder / "prefix"))
    cells = [nbformat.v4.new_code_cell(f"%%party bank,agency\nx{k} = {k}\n" + "y = 1\n" * 10) for k in range(CELLS)]
    (folder / "work").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "work" / "many.ipynb")
    names = {"JUPYTER_PATH": "prefix/share/jupyter", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    names |= {f"JUPYTER_{kind}_DIR": kind.lower() for kind in ("CONFIG", "DATA", "RUNTIME")}
    names |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(folder / place) for name, place in names.items()}
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    command += ["--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'work'}"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        for line in process.stderr:
            if found := re.search(r"(http://127\.0\.0\.1:[1-9]\d*)/lab", line):
                yield f"{found[1]}/lab/workspaces/w{{}}/tree/many.ipynb?token={token}"
                break
    finally:
        process.terminate()
        process.communicate()


def visit(browser: Browser, address: str, *, extension: bool) -> tuple[list[float], list[float]]:
    """(loading, activation, until the notebook shows) and each key's time, milliseconds."""
    context = browser.new_context(viewport={"width": 1400, "height": 950})
    page = context.new_page()
    page.set_default_timeout(120_000)
    if not extension:
        page.route("**/fednb-lab/static/**", lambda route: route.abort())
    page.goto(address.format(secrets.token_hex(4)))
    page.wait_for_selector(".jp-Notebook .jp-Cell .cm-content")
    if extension:
        page.wait_for_selector(".fednb-lab-strip")
    shown = page.evaluate("performance.now()")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.content?.widgets?.length >= 200")
    page.evaluate("window.jupyterapp.shell.currentWidget.content.scrollToItem(100)")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.content.widgets[100].editor")
    started = [*(page.evaluate(LOADED) if extension else (0.0, 0.0)), shown]
    took = page.evaluate(TYPE, KEYS)
    context.close()
    return started, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    found: dict[bool, tuple[list[list[float]], list[float]]] = {True: ([], []), False: ([], [])}
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch)) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM.split())
        visit(browser, address, extension=True)  # the first page warms the server's caches
        for _ in range(repeats):
            for extension in (True, False):
                started, took = visit(browser, address, extension=extension)
                found[extension][0].append(started)
                found[extension][1].extend(took)
        browser.close()
    loading, activation, shown = (statistics.median(column) for column in zip(*found[True][0], strict=True))
    bare = statistics.median(started[2] for started in found[False][0])
    print(f"activation {activation:.1f} ms (aim: under {AIM:g} ms), its files in {loading:.0f} ms beside all others")
    print(f"until the notebook shows: {shown:,.0f} ms, without the extension {bare:,.0f} ms")
    for name, extension in (("with", True), ("without", False)):
        for where, turn in (("in the magic's line", 0), ("below it", 1)):
            took = sorted(found[extension][1][turn::2])  # KEYS is even: turns stay in step
            low, middle = took[len(took) // 10], statistics.median(took)
            print(f"a key in {CELLS} cells, {name:>7} the extension, {where}: {middle:.2f} ms (lowest tenth {low:.2f})")


if __name__ == "__main__":
    main()
