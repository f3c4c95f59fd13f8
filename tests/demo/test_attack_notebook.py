"""The notebook of attacks: each that is to be refused is refused, and what it is after stands nowhere in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "demo_notebooks" / "02_attack_your_own_notebook.ipynb"
TURNOVER = ("641317", "641,317", "641_317", "641317.0", "6.41317e+05", "6.4132e+05", "641300")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "jupyter"))
        patch.delenv("FEDNB_PROFILE", raising=False)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def said(cell: Any) -> str:
    return "\n".join(
        str(output.get("text", "")) + str(output.get("data", "")) + str(output.get("evalue", ""))
        for output in cell.outputs
    )


def test_every_attack_is_refused_with_a_rule_and_nothing_else_fails(played: Any) -> None:
    attacks = [cell for cell in played.cells if "raises-exception" in cell.metadata.get("tags", [])]
    assert len(attacks) == 12
    for cell in attacks:
        (error,) = [output for output in cell.outputs if output.output_type == "error"]
        assert error.ename == "RemoteError", cell.source
        assert "Refused: " in error.evalue or "QuotaExceeded: " in error.evalue, (cell.source, error.evalue)
    rules = ["protocols.rows_apart", "protocols.other_ids", "protocols.max_iterations", "decryption quota"]
    everything = "\n".join(map(said, attacks))
    assert all(f"[rule: {rule}]" in everything for rule in rules)


def test_the_neighbours_turnover_stands_in_no_output(played: Any) -> None:
    for cell in played.cells:
        if cell.cell_type == "code":
            assert not any(number in said(cell) for number in TURNOVER), cell.source


def test_the_dishonest_party_reads_what_the_quota_lets_it_and_the_log_keeps_the_analyst(played: Any) -> None:
    cells = [cell for cell in played.cells if cell.cell_type == "code"]
    (thief,) = [cell for cell in cells if "def thief" in cell.source]
    assert "decrypted 15 of at most 15 slots for agency" in said(thief)
    assert "of 100 labels, 1" in said(thief)
    (log,) = [cell for cell in cells if "refused = log" in cell.source]
    assert all(rule in said(log) for rule in ("filter", "size", "protocols.rows_apart", "protocols.max_iterations"))
    checks = [said(cell) for cell in cells if "fednb audit verify" in cell.source]
    assert "entries, head" in checks[0] and "fednb:" not in checks[0]
    assert "one was deleted, inserted or moved" in checks[1]
