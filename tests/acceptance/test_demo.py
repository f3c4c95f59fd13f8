"""The demo as a newcomer runs it: one command, real processes, one line of JSON, nothing left behind."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from fednb.federation import launch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


class Finished:
    """`fednb demo --headless --rows 2000`, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "t"
        self.temporary.mkdir()
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),  # sockets and connection files of this demo, and of nobody else
            "XDG_STATE_HOME": str(folder / "state"),
            "JUPYTER_RUNTIME_DIR": str(self.temporary / "jupyter"),
        }
        self.result = subprocess.run(
            [sys.executable, "-m", "fednb.cli", "demo", "--headless", "--rows", "2000"],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=280,
            stdin=subprocess.DEVNULL,
        )
        self.notebook: Any = nbformat.read(folder / "fednb-demo" / "01_fedriskctrl.ipynb", as_version=4)

    def alive(self) -> list[str]:
        """Processes that have to do with this folder."""
        found = []
        for process in psutil.process_iter():
            try:
                words = " ".join(process.cmdline())
                if str(self.folder) in words or process.cwd().startswith(str(self.folder)):
                    found.append(words)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def output(self, source: str) -> list[Any]:
        """What the cell that contains `source` left."""
        (cell,) = [cell for cell in self.notebook.cells if cell.cell_type == "code" and source in cell.source]
        return list(cell.outputs)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    yield Finished(tmp_path_factory.mktemp("d"))


def test_the_demo_ends_well_with_one_line_of_json(demo: Finished) -> None:
    assert demo.result.returncode == 0, demo.result.stderr
    figures = json.loads(demo.result.stdout.splitlines()[-1])

    assert set(figures) == {"bank_only", "federated", "joined"}
    assert all(0.5 < figures[name]["auc"] < 1 and 0 < figures[name]["ks"] < 1 for name in figures)
    assert figures["federated"]["auc"] > figures["bank_only"]["auc"]
    assert abs(figures["federated"]["auc"] - figures["joined"]["auc"]) <= 0.005


def test_it_leaves_no_process_and_no_socket(demo: Finished) -> None:
    assert demo.alive() == []
    assert [path for path in demo.temporary.rglob("*") if not path.is_dir()] == []
    assert list(demo.temporary.glob("fednb-*")) == []


def test_the_notebook_reads_without_a_kernel(demo: Finished) -> None:
    code = [cell for cell in demo.notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)

    for source in ("fed.align(", ".fit(train", "conclude("):
        pictures = [
            base64.b64decode(output.data["image/png"])
            for output in demo.output(source)
            if "image/png" in output.get("data", {})
        ]
        assert pictures and all(picture.startswith(b"\x89PNG") and len(picture) > 2000 for picture in pictures), source
    failed = [cell.source for cell in code if any(output.output_type == "error" for output in cell.outputs)]
    assert failed == ["%%party agency\ninvoices.head()"], "the one that shows a refusal"


def test_the_agency_is_locked_before_anything_is_trained(demo: Finished) -> None:
    (refusal,) = demo.output("invoices.head()")
    assert (refusal.output_type, refusal.ename) == ("error", "Refused")

    sources = [cell.source for cell in demo.notebook.cells if cell.cell_type == "code"]

    locked = next(n for n, source in enumerate(sources) if "fed.lock()" in source)
    trained = next(n for n, source in enumerate(sources) if ".fit(" in source)
    assert locked < trained
    assert not any("agency" in source.splitlines()[0] for source in sources[locked + 2 :])


def test_the_readmes_script_runs_on_what_the_demo_leaves(demo: Finished) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    (script,) = [block for block in blocks if "fednb.connect()" in block]
    with launch.up(demo.folder / "fednb-demo" / "federation.toml") as running:
        ran = subprocess.run(
            [sys.executable, "-c", script],
            env={**demo.environment, "FEDNB_PROFILE": os.fspath(running)},
            capture_output=True,
            text=True,
            timeout=200,
        )

    assert ran.returncode == 0, ran.stderr
    assert "coefficients of agency" in ran.stdout
    assert re.search(r"^AUC 0\.\d{4}, KS 0\.\d{4}, Gini 0\.\d{4}$", ran.stdout, flags=re.M)


def test_fewer_rows_than_the_story_needs_are_refused(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "fednb.cli", "demo", "--headless", "--rows", "1999"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode == 2 and "at least 2000 rows" in ran.stderr
    assert list(tmp_path.iterdir()) == []
