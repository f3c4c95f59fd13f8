"""A federation of real processes, a Jupyter server with the extension, and Chromium that looks at it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, expect, sync_playwright

from fednb.federation import launch
from fednb.notebook import kernelspecs, labextension
from fednb.policy import sandbox

SECONDS = 40.0
FILE = """
[federation]
hub = "tcp://127.0.0.1:0"
[coordinator]
protocols = ["gated:GATED"]
decryption_quota = 5
[party.bank]
mode = "open"
protocols = ["gated:GATED"]
[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"
[party.agency]
mode = "open"
protocols = ["gated:GATED"]
[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
[party.vault]
mode = "protocol-only"
{approval}
[party.vault.tables.claims]
path = "claims.csv"
id = "sme_id"
mock = {{ amount = [5.0, 5.0] }}
"""
APPROVAL = any(not sandbox.missing(backend) for backend in sandbox.BACKENDS)
CHROMIUM = [
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


class Federation:
    """What runs, and the gate that lets its runs go on."""

    def __init__(self, folder: Path, running: launch.Running) -> None:
        self.folder, self.running = folder, running
        self.gate = folder / "gate"
        self.approves = APPROVAL  # whether the vault's owner can be asked

    def open_gate(self, upto: int) -> None:
        for step in range(1, upto + 1):
            (self.gate / str(step)).touch()

    @contextmanager
    def hub_gone(self) -> Iterator[None]:
        """The hub is killed; afterwards it is there again, at the same address."""
        hub = self.running.members["hub"]
        hub.kill()
        hub.wait(SECONDS)
        if hub.stdin:
            hub.stdin.close()
        try:
            yield
        finally:
            self.running._spawn("hub", ["hub", str(self.running.root / "hub"), "--bind", self.running.address])

    def home(self, member: str) -> Path:
        return Path(self.running.root) / member

    def close_gate(self) -> None:
        for file in self.gate.iterdir():
            file.unlink()


expect.set_options(timeout=1000 * SECONDS)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "gate").mkdir()
    rng = np.random.default_rng(3)
    ids = [f"S{k:05d}" for k in range(300)]
    X = rng.normal(size=(300, 4))
    y = (X.sum(axis=1) + rng.logistic(size=300) > 0).astype(int)
    loans = pd.DataFrame(X[:, :2], columns=["amount", "age"]).assign(sme_id=ids, default=y)
    loans.to_csv(folder / "loans.csv", index=False)
    invoices = pd.DataFrame(X[:, 2:], columns=["turnover", "<b>late</b>"]).assign(sme_id=ids)
    invoices.iloc[50:].to_csv(folder / "invoices.csv", index=False)
    file = folder / "federation.toml"
    loans[["sme_id", "amount"]].to_csv(folder / "claims.csv", index=False)
    file.write_text(FILE.format(approval="approval = true" if APPROVAL else ""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("FEDNB_TEST_GATE", str(folder / "gate"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.delenv("FEDNB_PROFILE", raising=False)
        with launch.up(file) as running:
            yield Federation(folder, running)


class Jupyter:
    """A server, and notebooks in its folder."""

    def __init__(self, folder: Path, address: str, token: str) -> None:
        self.folder, self.address, self.token = folder, address, token

    def notebook(self, name: str, *cells: str, kernel: str = "fednb") -> str:
        """Write a notebook; returns its path on the server."""
        book = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": kernel, "display_name": kernel}},
        )
        nbformat.write(book, self.folder / f"{name}.ipynb")
        return f"{name}.ipynb"

    def theme(self, page: Page, name: str) -> None:
        """Every page loaded from now on has this theme."""
        at = f"{self.address}/lab/api/settings/@jupyterlab/apputils-extension:themes"
        sent = page.request.put(
            at, headers={"Authorization": f"token {self.token}"}, data={"raw": json.dumps({"theme": name})}
        )
        assert sent.ok, sent.text()

    def lab(self, path: str = "") -> str:
        # a workspace of its own for each page, so that none restores another's
        tree = f"/tree/{path}" if path else ""
        return f"{self.address}/lab/workspaces/w{secrets.token_hex(4)}{tree}?token={self.token}"

    def remembered(self, address: str) -> dict[str, Any]:
        """What JupyterLab has saved of a page's layout."""
        (name,) = re.findall("/workspaces/([^/?]+)", address)
        for file in (self.folder.parent / "workspaces").glob(f"{name}*"):
            with suppress(ValueError):  # it is being written
                layout: dict[str, Any] = json.loads(file.read_text())["data"].get("layout-restorer:data", {})
                return layout
        return {}

    def classic(self, path: str) -> str:
        return f"{self.address}/notebooks/{path}?token={self.token}"


@pytest.fixture(scope="module")
def jupyter(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    home = tmp_path_factory.mktemp("jupyter")
    (home / "work").mkdir()
    kernelspecs.install(prefix=str(home / "prefix"))
    labextension.install(prefix=str(home / "prefix"))
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_PATH": str(home / "prefix" / "share" / "jupyter"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "XDG_STATE_HOME": str(federation.folder / "state"),
        "FEDNB_PROFILE": os.fspath(federation.running),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    # nothing is looked up outside
    command += ["--LabApp.extension_manager=readonly", "--JupyterNotebookApp.extension_manager=readonly"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'work'}"]
    server = subprocess.Popen(
        command, env=environment, cwd=home / "work", stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    said: list[str] = []
    address: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert server.stderr
        for line in server.stderr:
            said.append(line)
            found = re.search(r"(http://127\.0\.0\.1:[1-9]\d*)/lab", line)
            if found and not address:
                address.append(found[1])
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert ready.wait(60) and address, "".join(said)
        yield Jupyter(home / "work", address[0], token)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(SECONDS)
        reader.join(SECONDS)
        server.stderr and server.stderr.close()


# by file: its event loop runs in this thread, and others' tests have loops of their own
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("needs Debian's Chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield found
        found.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1400, "height": 950}, **options)
        context.set_default_timeout(1000 * SECONDS)
        contexts.append(context)
        return context.new_page()

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def watched(new_page: Callable[..., Page]) -> Iterator[Callable[..., Page]]:
    """Pages on which nothing may go wrong that is ours, and no dialog may open."""
    wrong: list[str] = []

    def answer(dialog: Dialog) -> None:
        if dialog.type != "beforeunload":  # which the front end asks about unsaved changes
            wrong.append(f"a dialog opened: {dialog.message}")
        dialog.accept()

    def make(**options: Any) -> Page:
        page = new_page(**options)
        page.on("pageerror", lambda error: wrong.append(str(error.stack)) if "fednb" in str(error.stack) else None)
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" and ours(said) else None)
        page.on("dialog", answer)
        return page

    yield make
    assert wrong == []


def ours(said: ConsoleMessage) -> bool:
    return "fednb" in said.text or "fednb" in said.location.get("url", "") or "elector" in said.text


@pytest.fixture
def page(watched: Callable[..., Page]) -> Page:
    return watched()


@pytest.fixture(scope="session")
def gated() -> ModuleType:
    """The protocol that stands still, for this process; members of a federation import it by themselves."""
    found = spec_from_file_location("gated", Path(__file__).parent / "gated.py")
    assert found and found.loader
    module = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def gate(federation: Federation) -> Iterator[Federation]:
    """Runs of the protocol `gated` stand still, until the test lets them go on; afterwards all do."""
    federation.close_gate()
    yield federation
    federation.open_gate(STEPS)


STEPS = 10


class Book:
    """A notebook in a page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, address: str) -> Book:
        """Show it, and wait until its kernel has answered."""
        self.page.goto(address)
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content >> visible=true")
        self.idle()
        return self

    def idle(self, timeout: float = 1000 * SECONDS) -> None:
        """Wait until there is a kernel, and nothing that it does."""
        name = self.page.locator(".jp-Toolbar-kernelName >> visible=true")
        expect(name).not_to_have_text(re.compile("No Kernel"))
        indicator = self.page.locator(".jp-Notebook-ExecutionIndicator >> visible=true")
        expect(indicator).to_have_attribute("data-status", "idle", timeout=timeout)

    def beside(self, path: str) -> None:
        """Open another notebook in the same page, of the folder that the file browser shows; it is in front then."""
        name = path.rpartition("/")[2]
        if not self.page.locator(".jp-DirListing").is_visible():
            self.page.get_by_role("tab", name="File Browser").click()
        self.page.locator(".jp-DirListing").get_by_text(name, exact=True).dblclick()
        expect(self.page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        self.front.locator(".jp-CodeCell .cm-content").first.wait_for()
        self.idle()

    @property
    def front(self) -> Locator:
        """The notebook that is shown."""
        return self.page.locator(".jp-Notebook >> visible=true")

    def cell(self, number: int) -> Locator:
        return self.front.locator(".jp-Cell").nth(number)

    def strip(self, number: int) -> Locator:
        """The badges above a cell."""
        return self.cell(number).locator(".fednb-lab-strip")

    def run(self, number: int) -> None:
        """Press Shift+Enter in a cell; does not wait for it."""
        self.cell(number).locator(".cm-content").first.click()
        self.page.keyboard.press("Shift+Enter")

    def done(self, number: int) -> None:
        """Run a cell and wait for its number."""
        self.run(number)
        expect(self.cell(number).locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"))

    def reload(self, jupyter: Jupyter) -> None:
        """Once JupyterLab has saved that the sidebar is open, which it does a moment after a change."""
        for _ in range(int(10 * SECONDS)):
            if jupyter.remembered(self.page.url).get("left", {}).get("current") == "fednb-sidebar":
                break
            self.page.wait_for_timeout(100)
        else:
            raise AssertionError("JupyterLab has not saved that the sidebar is open")
        self.page.reload()
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content >> visible=true")

    def sidebar(self) -> Locator:
        """Open the sidebar."""
        side = self.page.locator("#fednb-sidebar")
        if not side.is_visible():
            self.page.keyboard.press("Control+Alt+f")
        expect(side).to_be_visible()
        return side

    def section(self, name: str) -> Locator:
        return self.sidebar().locator(f"[data-section={name}]")


@pytest.fixture
def book(page: Page) -> Book:
    return Book(page)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of this run are kept."""
    folder = Path(__file__).parents[3] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
