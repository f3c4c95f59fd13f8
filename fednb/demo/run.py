"""`fednb demo`: makes the data, starts every member as a process of its own, and opens or executes the notebook."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fednb.demo.data import FEWEST_ROWS, ROWS, SEED, generate
from fednb.demo.reference import RESULT, SETTINGS
from fednb.errors import ConfigError, FednbError
from fednb.federation import launch
from fednb.federation.process import describe

NOTEBOOK = "01_fedriskctrl.ipynb"
FOLDER = "fednb-demo"
CLOSE = 0.005  # how near the federated AUC must come to that of the joined table
CELL_SECONDS = 600

FEDERATION = """\
# The demo's federation. Both parties are open so that the notebook can show how their owners prepare their tables;
# before the model is trained, the agency locks itself: from then on it takes part in protocols only.
[federation]
hub = "tcp://127.0.0.1:0"
coordinator = "coordinator"

[party.bank]
mode = "open"

[party.bank.tables.loans]
path = "loans.csv"
id = "sme_id"
label = "default"

[party.agency]
mode = "open"

[party.agency.tables.invoices]
path = "invoices.csv"
id = "sme_id"
"""


def main(arguments: Sequence[str]) -> int:
    """Run the demo. Exit status 0 (headless: only if the federated model kept its promise)."""
    parser = argparse.ArgumentParser(prog="fednb demo")
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--members", action="store_true")
    parser.add_argument("--rows", type=int, default=ROWS)
    parsed = parser.parse_args(arguments)
    if parsed.rows < FEWEST_ROWS:
        raise ConfigError(
            f"--rows {parsed.rows}: the demo needs at least {FEWEST_ROWS} rows; with fewer, confidence intervals hide "
            "what it shows."
        )
    needs = ("nbclient", "nbformat") if parsed.headless else () if parsed.members else ("jupyterlab",)
    for needed in needs:
        if importlib.util.find_spec(needed) is None:
            raise ConfigError(f"the demo needs {needed}: pip install 'fednb[demo]'.")
    folder = Path(FOLDER).absolute()
    prepare(folder, parsed.rows)
    with launch.up(folder / "federation.toml", ready=lambda line: _say(describe(line))) as running:
        if parsed.members:
            _say(f"the members are up; the notebook is {folder / NOTEBOOK}. Ctrl-C stops them")
            return _wait(running)
        environment = {**os.environ, "FEDNB_PROFILE": os.fspath(running)}
        if not parsed.headless:
            return _open(folder, environment)
        began = time.monotonic()
        execute(folder, environment)
        _say(f"executed in {time.monotonic() - began:.0f} s; read it in {folder / NOTEBOOK}")
    figures = json.loads((folder / RESULT).read_text())
    problem = broken_promise(figures)
    if problem:
        _say(problem)
    print(json.dumps(figures), flush=True)
    return 1 if problem else 0


def prepare(folder: Path, rows: int, seed: int = SEED) -> None:
    """Write the parties' tables, the federation file and the notebook into `folder`; what was there is replaced."""
    folder.mkdir(exist_ok=True)
    tables = generate(rows, seed)
    tables.loans.to_csv(folder / "loans.csv", index=False)
    tables.invoices.to_csv(folder / "invoices.csv", index=False)
    (folder / "federation.toml").write_text(FEDERATION)
    (folder / SETTINGS).write_text(json.dumps({"rows": rows, "seed": seed}))
    (folder / RESULT).unlink(missing_ok=True)
    shutil.copyfile(notebook(), folder / NOTEBOOK)


def notebook() -> Path:
    """The demo's notebook, in the checkout or where the installed package keeps it."""
    places = [Path(__file__).parents[2] / "demo_notebooks", Path(sys.prefix) / "share" / "fednb" / "demo_notebooks"]
    for place in places:
        if (place / NOTEBOOK).is_file():
            return place / NOTEBOOK
    raise ConfigError(f"{NOTEBOOK} is in none of {', '.join(map(str, places))}; install fednb again.")


def execute(folder: Path, environment: Mapping[str, str]) -> None:
    """Execute the notebook in `folder`, and keep its outputs. Raises FednbError for a cell that fails."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    path = folder / NOTEBOOK
    content = nbformat.read(path, as_version=4)
    count = sum(cell.cell_type == "code" for cell in content.cells)
    done = 0

    def starting(cell: Any, cell_index: int) -> None:
        nonlocal done
        if cell.cell_type == "code":
            done += 1
            _say(f"[{done}/{count}] {cell.source.splitlines()[0]}")

    client = NotebookClient(
        content,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        store_widget_state=False,  # pictures have taken the place of the live widgets
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=starting,
    )
    try:
        client.execute(env=dict(environment))
    except CellExecutionError as error:
        raise FednbError(f"the demo's notebook failed: {error}") from None
    finally:
        nbformat.write(content, path)


def broken_promise(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Why the demo did not show what it is there to show; empty when it did."""
    bank, federated, joined = (figures[name]["auc"] for name in ("bank_only", "federated", "joined"))
    if federated <= bank:
        return f"the federated model (AUC {federated:.4f}) is no better than the bank's own ({bank:.4f})"
    if abs(federated - joined) > CLOSE:
        return f"the federated model (AUC {federated:.4f}) is not within {CLOSE} of the joined one ({joined:.4f})"
    return ""


def _wait(running: launch.Running) -> int:
    try:
        running.wait()
    except KeyboardInterrupt:
        pass
    return 0


def _open(folder: Path, environment: Mapping[str, str]) -> int:
    # the address that is printed opens the notebook too, where no browser could be started
    command = [sys.executable, "-m", "jupyterlab", str(folder / NOTEBOOK), f"--LabApp.default_url=/lab/tree/{NOTEBOOK}"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    _say("JupyterLab opens the notebook; Ctrl-C here stops it and every member")
    try:
        return subprocess.call(command, env=dict(environment), cwd=folder)
    except KeyboardInterrupt:
        return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
