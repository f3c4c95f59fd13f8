"""What stands in a notebook when its kernel is gone: executed by nbclient, converted by nbconvert."""

from __future__ import annotations

import warnings
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

SETUP = """
import threading
from fednb.errors import FednbError
from fednb.federation.messages import Event, MemberResult, RunEnded, RunEvent
from fednb.federation.progress import follow
%load_ext fednb

class Federation:
    parties, coordinator = ("agency", "bank"), "coordinator"

    def __init__(self, seconds, status="ok"):
        self.seconds, self.status = seconds, status

    def watch(self, run, since=0):
        for seq in range(10):
            threading.Event().wait(self.seconds / 10)
            metrics = {"gradient_norm": 0.5**seq}
            yield RunEvent(run, seq, Event("bank", "active", 1e9 + seq, "train", seq + 1, 10, metrics))
        yield RunEnded(run, self.status, {"bank": MemberResult("active", {}, {"encrypt": 7}, {"agency": 5_000_000})},
                       "no more memory", "DataError", "bank", self.seconds)

    def fit(self, title="a fit"):
        return follow("r1", title, self.watch("r1"), self)
"""


def executed(*cells: str) -> Any:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of jupyter_client's and zmq's own, about the loop that they make
        NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=False).execute()
    return notebook.cells[1:]


def kinds(cell: Any) -> list[list[str]]:
    return [sorted(output.get("data", {output.output_type: ""})) for output in cell.outputs]


@pytest.fixture(scope="module")
def cells() -> Any:
    return executed(
        "Federation(1.5).fit().status",
        "Federation(0.1).fit().status",
        "Federation(1.5, 'failed').fit().status",
        "run = threading.Thread(target=Federation(2.5).fit); run.start(); run.join(1.5)",  # the widget stands by then
        "run.join()",
        "'the painter has drawn by the end of this cell, or of the one before'; threading.Event().wait(1)",
    )


def test_a_run_ends_as_a_picture_before_its_cell_ends(cells: Any) -> None:
    picture, value = sorted(cells[0].outputs, key=lambda output: output.output_type)
    assert sorted(picture.data) == ["image/png", "text/plain"]
    assert "done in 1.5 s · 10 iterations · 5 MB between members · 7 operations" in picture.data["text/plain"]
    assert "gradient norm 1 at first, 0.001953 at last" in picture.metadata["image/png"]["alt"]
    assert value.data["text/plain"] == "'ok'"


def test_a_run_that_is_over_at_once_leaves_nothing(cells: Any) -> None:
    assert kinds(cells[1]) == [["text/plain"]]
    assert cells[1].outputs[0].output_type == "execute_result"


def test_a_failed_run_says_who_failed_and_why(cells: Any) -> None:
    assert "failed after 1.5 s" in cells[2].outputs[0].data["text/plain"]
    assert "at bank: no more memory" in cells[2].outputs[0].data["text/plain"]


def test_a_run_in_the_background_leaves_its_picture_under_the_cell_that_began_it(cells: Any) -> None:
    assert kinds(cells[3]) == [["image/png", "text/plain"]]
    assert kinds(cells[4]) == []


def test_nbconvert_finds_the_picture_and_loads_nothing_else(cells: Any) -> None:
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells[:1]))
    assert body.count('src="data:image/png;base64,') == 1
    assert 'width="840"' in body, "drawn at twice the density of the page"
    assert "widget-view" not in body and "html-manager" not in body
